/**
 * The inner parts of every matrix product: packing operands into panels, and the product of two panels.
 *
 * `c = a b` with a [rows, depth] and b [depth, columns] is computed in tiles of MR x NR sums that stay in registers. Both
 * operands are first packed in the order in which a tile reads them: panels of MR rows of a as [panel][depth][MR], panels of
 * NR columns of b as [panel][depth][NR], the last panel filled up with zeros. Packed memory comes from `scratch` and holds
 * round_up(rows, MR) * depth or round_up(columns, NR) * depth floats.
 *
 * Panels hold words of 32 bits: what a word is depends on the format, and `words(depth)` says how many a line has.
 *
 * Every element is the sum over depth in order, from 0; `accumulate` adds that sum to what c holds. No sum depends on where
 * an element lies in its tile, nor on which tiles surround it.
 */
#pragma once

#include "bfloat16.h"
#include "llmx/blocks.h"

namespace llmx::LLMX_ISA_NAME {

// Tile sizes. Per step of the sum a tile does MR * VECTORS multiply-adds on VECTORS loads and MR broadcasts; with two of
// each per cycle the tile is bound by arithmetic as long as the loads are fewer. All sums, the vectors of b and one broadcast
// must fit in the registers:
//   AVX-512, 32 registers: 24 + 3 + 1; 11 loads for 24 products. On Zen 5 8 x 48, 12 x 32, 14 x 32 and 6 x 64 are equal (98%
//   of the peak), on Intel 8 x 48 is best.
//   AVX2, 16 registers: 12 + 2 + 1.   NEON, 32 registers: 24 + 3 + 1.   SSE2, 16 registers and no fused product: 8 + 2 + 1 + 1.
#if LLMX_ISA >= LLMX_ISA_AVX512 || defined(__aarch64__)
constexpr int MR = 8, VECTORS = 3;
#elif LLMX_ISA == LLMX_ISA_AVX2
constexpr int MR = 6, VECTORS = 2;
#else
constexpr int MR = 4, VECTORS = 2;
#endif
constexpr int NR = VECTORS * LANES;

/** Packed operands as they are. */
struct Float32 : FloatWords {
  static constexpr bool ROUNDS = false;
  /** Positions along the depth that share a word. */
  static constexpr int PER_WORD = 1;
};

/** Packed operands rounded to bfloat16, two positions in a word where the machine multiplies such pairs. */
struct Bfloat16 : Bfloat16Words {
  static constexpr bool ROUNDS = true;
  static constexpr int PER_WORD = LLMX_ISA == LLMX_ISA_AVX512_BF16 ? 2 : 1;
};

/** Words of a packed line. */
template <class Format>
LLMX_INLINE int64_t words(int64_t depth) {
  return divide_up(depth, Format::PER_WORD);
}

// Positions along the depth that are packed together: one cache line of each source line.
constexpr int BLOCK = 16;

/**
 * One panel of `count` <= WIDTH lines that each run along the depth: element (p, i) is from[i * stride + p].
 *
 * So many short runs defeat the machine's own prefetching (7 GB/s without, 25 with ours). A narrow panel fetches what the next
 * one will read, a wide one its own lines two cache lines ahead.
 */
template <int WIDTH>
inline void pack_crosswise(float* to, const float* from, int64_t stride, int count, int64_t depth) {
  const float* ahead = WIDTH <= 16 ? from + WIDTH * stride : from + 2 * BLOCK;
  const int whole = count / 4 * 4;
  for (int64_t block = 0; block < depth; block += BLOCK) {
    const int64_t end = min(depth, block + BLOCK), quads = end - (end - block) % 4;
    for (int i = 0; i < count; ++i) __builtin_prefetch(ahead + i * stride + block);
    for (int i = 0; i < whole; i += 4) {
      for (int64_t p = block; p < quads; p += 4) transpose_quads(to + p * WIDTH + i, WIDTH, from + i * stride + p, stride);
      for (int64_t p = quads; p < end; ++p)
        for (int j = i; j < i + 4; ++j) to[p * WIDTH + j] = from[j * stride + p];
    }
    for (int64_t p = block; p < end; ++p) {
      for (int i = whole; i < count; ++i) to[p * WIDTH + i] = from[i * stride + p];
      for (int i = count; i < WIDTH; ++i) to[p * WIDTH + i] = 0;
    }
  }
}

/**
 * Panels whose lines lie side by side: element (p, i) is from[p * stride + i]. A block of all panels at a time: source lines
 * are read through, and each panel is written in runs.
 */
template <int WIDTH>
inline void pack_lengthwise(float* to, const float* from, int64_t stride, int64_t count, int64_t depth) {
  for (int64_t block = 0; block < depth; block += BLOCK) {
    const int64_t end = min(depth, block + BLOCK);
    for (int64_t i = 0; i < count; i += WIDTH) {
      float* panel = to + i * depth;
      const int width = static_cast<int>(min<int64_t>(WIDTH, count - i));
      for (int64_t p = block; p < end; ++p) {
        const float* source = from + p * stride + i;
        for (int j = 0; j < WIDTH; j += 16) __builtin_prefetch(source + BLOCK * stride + j);
        if (width == WIDTH) {
          std::memcpy(panel + p * WIDTH, source, WIDTH * sizeof(float));
        } else {
          for (int j = 0; j < WIDTH; ++j) panel[p * WIDTH + j] = j < width ? source[j] : 0;
        }
      }
    }
  }
}

#if LLMX_ISA == LLMX_ISA_AVX512_BF16

/** The words of up to 32 numbers; what lies beyond `count` is 0. */
LLMX_INLINE vec words_of(Numbers from, int64_t index, int count) {
  if (from.narrow) {
    vec v{};
    if (count == 2 * LANES) std::memcpy(&v, from.halves() + index, sizeof v);  // of a fixed size: one load
    else std::memcpy(&v, from.halves() + index, static_cast<size_t>(count) * 2);
    return v;
  }
  const float* line = from.floats() + index;
  const vec first = count >= LANES ? load(line) : load_first(line, count);
  const int left = count - LANES;
  return neighbours(first, left >= LANES ? load(line + LANES) : left > 0 ? load_first(line + LANES, left) : vec{});
}

/** As `pack_crosswise`, into words of two positions. */
template <int WIDTH>
inline void pack_pairs_crosswise(float* to, Numbers from, int64_t stride, int count, int64_t depth) {
  // Lines are rounded first and then transposed, half as many words.
  constexpr int WORDS = LANES;
  alignas(64) float lines[WIDTH * WORDS] = {};
  const int64_t step = 64 / from.bytes_each(), ahead = WIDTH <= 16 ? WIDTH * stride : 4 * WORDS;
  for (int64_t block = 0; block < depth; block += 2 * WORDS, to += WIDTH * WORDS) {
    const int positions = static_cast<int>(min<int64_t>(2 * WORDS, depth - block));
    for (int i = 0; i < count; ++i) {
      const int64_t line = i * stride + block;
      for (int64_t p = 0; p < positions; p += step) __builtin_prefetch(from.from(line + ahead + p).data);
      store(lines + i * WORDS, words_of(from, line, positions));
    }
    const int count_words = (positions + 1) / 2, quads = count_words / 4 * 4;
    for (int i = 0; i < WIDTH; i += 4) {
      for (int w = 0; w < quads; w += 4) transpose_quads(to + w * WIDTH + i, WIDTH, lines + i * WORDS + w, WORDS);
      for (int w = quads; w < count_words; ++w)
        for (int j = i; j < i + 4; ++j) std::memcpy(to + w * WIDTH + j, lines + j * WORDS + w, 4);
    }
  }
}

/** Words of `lanes` neighbouring numbers each with the one `stride` further on; with 0 where there `is_last`. */
LLMX_INLINE vec zipped_lines(Numbers from, int64_t index, int64_t stride, bool is_last, int lanes) {
  if (from.narrow) {
    const auto get = [&](int64_t at) {
      if (lanes == LANES) return half_vec(*reinterpret_cast<const unaligned_half_vec*>(from.halves() + at));
      half_vec v{};
      std::memcpy(&v, from.halves() + at, static_cast<size_t>(lanes) * 2);
      return v;
    };
    return zipped(get(index), is_last ? half_vec{} : get(index + stride));
  }
  const auto get = [&](int64_t at) {
    return lanes == LANES ? load(from.floats() + at) : load_first(from.floats() + at, lanes);
  };
  return zipped(get(index), is_last ? vec{} : get(index + stride));
}

/** As `pack_lengthwise`, into words of two positions. */
template <int WIDTH>
inline void pack_pairs_lengthwise(float* to, Numbers from, int64_t stride, int64_t count, int64_t depth) {
  constexpr int GROUP = WIDTH < LANES ? LANES : WIDTH, PART = WIDTH < LANES ? WIDTH : LANES;
  static_assert(GROUP % PART == 0 && LANES % PART == 0);
  const int64_t panel = words<Bfloat16>(depth) * WIDTH;
  for (int64_t block = 0; block < depth; block += BLOCK) {
    const int64_t end = min(depth, block + BLOCK);
    for (int64_t i = 0; i < count; i += GROUP)
      for (int64_t p = block; p < end; p += 2)
        for (int64_t j = i; j < i + GROUP; j += LANES) {
          const int64_t source = p * stride + j;
          __builtin_prefetch(from.from(source + BLOCK * stride).data);
          __builtin_prefetch(from.from(source + (BLOCK + 1) * stride).data);
          const int lanes = static_cast<int>(max<int64_t>(0, min<int64_t>(LANES, count - j)));
          alignas(64) float pairs[LANES];
          store(pairs, zipped_lines(from, source, stride, p + 1 == depth, lanes));
          for (int part = 0; part < LANES; part += PART) {
            const int64_t column = j + part;
            if (WIDTH >= LANES || column < count)
              std::memcpy(to + column / WIDTH * panel + p / 2 * WIDTH + column % WIDTH, pairs + part, PART * sizeof(float));
          }
        }
  }
}

#endif

/** Panels of floats from numbers in bfloat16, widened a part at a time. */
template <int WIDTH>
inline void pack_widened(float* to, Numbers from, int64_t stride, bool crosswise, int64_t count, int64_t depth) {
  constexpr int64_t PART = 64;
  alignas(64) float part[PART * WIDTH];
  const auto widen = [&](float* line, int64_t index, int64_t length) {
    for (int64_t p = 0; p < length; p += LANES) {
      const int64_t lanes = min<int64_t>(LANES, length - p);
      store_first(line + p, from.load_some(index + p, lanes), static_cast<int>(lanes));
    }
  };
  for (int64_t i = 0; i < count; i += WIDTH, to += WIDTH * depth) {
    const int lines = static_cast<int>(min<int64_t>(WIDTH, count - i));
    for (int64_t block = 0; block < depth; block += PART) {
      const int64_t positions = min(PART, depth - block);
      if (crosswise) {
        for (int j = 0; j < lines; ++j) widen(part + j * PART, (i + j) * stride + block, positions);
        pack_crosswise<WIDTH>(to + block * WIDTH, part, PART, lines, positions);
      } else {
        for (int64_t p = 0; p < positions; ++p) widen(part + p * WIDTH, (block + p) * stride + i, lines);
        pack_lengthwise<WIDTH>(to + block * WIDTH, part, WIDTH, lines, positions);
      }
    }
  }
}

template <int WIDTH, class Format>
inline void pack(float* to, Numbers from, int64_t stride, bool crosswise, int64_t count, int64_t depth) {
#if LLMX_ISA == LLMX_ISA_AVX512_BF16
  if constexpr (Format::PER_WORD == 2) {
    if (!crosswise) return pack_pairs_lengthwise<WIDTH>(to, from, stride, count, depth);
    for (int64_t i = 0; i < count; i += WIDTH)
      pack_pairs_crosswise<WIDTH>(to + i * words<Format>(depth), from.from(i * stride), stride,
                                  static_cast<int>(min<int64_t>(WIDTH, count - i)), depth);
    return;
  }
#endif
  if (from.narrow) return pack_widened<WIDTH>(to, from, stride, crosswise, count, depth);
  if (crosswise) {
    for (int64_t i = 0; i < count; i += WIDTH)
      pack_crosswise<WIDTH>(to + i * depth, from.floats() + i * stride, stride,
                            static_cast<int>(min<int64_t>(WIDTH, count - i)), depth);
  } else {
    pack_lengthwise<WIDTH>(to, from.floats(), stride, count, depth);
  }
  if constexpr (Format::ROUNDS)
    for (int64_t i = 0; i < round_up(count, WIDTH) * depth; ++i) to[i] = rounded(to[i]);
}

/** Packs a [rows, depth], whose lines are `stride` apart; `transposed`: it is stored as [depth, rows]. */
template <class Format>
inline void pack_rows(float* to, Numbers from, int64_t stride, bool transposed, int64_t rows, int64_t depth) {
  pack<MR, Format>(to, from, stride, !transposed, rows, depth);
}

/** Packs b [depth, columns], whose lines are `stride` apart; `transposed`: it is stored as [columns, depth]. */
template <class Format>
inline void pack_columns(float* to, Numbers from, int64_t stride, bool transposed, int64_t columns, int64_t depth) {
  pack<NR, Format>(to, from, stride, transposed, columns, depth);
}

/** The first ROWS rows and WIDTH vectors of a tile; `depth` in words, here and below. */
template <class Format, int ROWS, int WIDTH>
__attribute__((noinline)) void tile_part(int64_t depth, const float* __restrict a, const float* __restrict b,
                                         float* __restrict c, int64_t stride, bool accumulate) {
  vec sums[ROWS][WIDTH];
#pragma GCC unroll 8
  for (int i = 0; i < ROWS; ++i) {
#pragma GCC unroll 3
    for (int j = 0; j < WIDTH; ++j) {
      sums[i][j] = vec{};
      __builtin_prefetch(c + i * stride + j * LANES, 1);  // arrives while the sums are formed
    }
  }
  for (int64_t p = 0; p < depth; ++p, a += MR, b += NR) {
    vec columns[WIDTH];
#pragma GCC unroll 3
    for (int j = 0; j < WIDTH; ++j) columns[j] = load(b + j * LANES);
#pragma GCC unroll 8
    for (int i = 0; i < ROWS; ++i) {
#pragma GCC unroll 3
      for (int j = 0; j < WIDTH; ++j) sums[i][j] = Format::add(sums[i][j], Format::factor(a + i), columns[j]);
    }
  }
#pragma GCC unroll 8
  for (int i = 0; i < ROWS; ++i) {
#pragma GCC unroll 3
    for (int j = 0; j < WIDTH; ++j) {
      float* to = c + i * stride + j * LANES;
      store(to, accumulate ? load(to) + sums[i][j] : sums[i][j]);
    }
  }
}

/** c [MR, NR] (+)= a panel of a times a panel of b; lines of c are `stride` apart. */
template <class Format>
LLMX_INLINE void tile(int64_t depth, const float* a, const float* b, float* c, int64_t stride, bool accumulate) {
  tile_part<Format, MR, VECTORS>(depth, a, b, c, stride, accumulate);
}

/** As `tile`, at least the first `rows` rows and `columns` columns of it; c must have room for the whole tile. */
template <class Format>
inline void tile_first(int rows, int columns, int64_t depth, const float* a, const float* b, float* c, int64_t stride,
                       bool accumulate) {
  const bool half = rows <= MR / 2;
  if (columns > 2 * LANES) {
    half ? tile_part<Format, MR / 2, VECTORS>(depth, a, b, c, stride, accumulate) : tile<Format>(depth, a, b, c, stride, accumulate);
  } else if (columns > LANES) {
    half ? tile_part<Format, MR / 2, 2>(depth, a, b, c, stride, accumulate) : tile_part<Format, MR, 2>(depth, a, b, c, stride, accumulate);
  } else {
    half ? tile_part<Format, MR / 2, 1>(depth, a, b, c, stride, accumulate) : tile_part<Format, MR, 1>(depth, a, b, c, stride, accumulate);
  }
}

/** As `tile`, but only the first `rows` rows and `columns` columns of c exist. */
template <class Format>
inline void tile_edge(int rows, int columns, int64_t depth, const float* a, const float* b, float* c, int64_t stride,
                      bool accumulate) {
  if (columns % LANES == 0 && (rows == MR || rows == MR / 2))
    return tile_first<Format>(rows, columns, depth, a, b, c, stride, accumulate);
  alignas(64) float whole[MR * NR];
  tile_first<Format>(rows, columns, depth, a, b, whole, NR, false);
  for (int i = 0; i < rows; ++i) {
    float* to = c + i * stride;
    for (int j = 0; j < columns; ++j) to[j] = accumulate ? to[j] + whole[i * NR + j] : whole[i * NR + j];
  }
}

/**
 * c [m, n] (+)= a b from packed panels, `a_stride` and `b_stride` floats apart: depth * MR and depth * NR, or more where the
 * product runs over a part of a longer depth. `depth` is in words. Lines of c are `c_stride` apart.
 *
 * Panels of a come outermost: one stays in the first-level cache while b streams from the second, and c is written in bands of
 * whole lines, which matters when c is not in a cache (twice as fast on wide products).
 */
template <class Format>
inline void multiply_panels(int64_t m, int64_t n, int64_t depth, const float* a, int64_t a_stride, const float* b,
                            int64_t b_stride, float* c, int64_t c_stride, bool accumulate) {
  for (int64_t i = 0; i < m; i += MR, a += a_stride) {
    const int rows = static_cast<int>(min<int64_t>(MR, m - i));
    const float* panel = b;
    for (int64_t j = 0; j < n; j += NR, panel += b_stride) {
      const int columns = static_cast<int>(min<int64_t>(NR, n - j));
      float* to = c + i * c_stride + j;
      if (rows == MR && columns == NR) tile<Format>(depth, a, panel, to, c_stride, accumulate);
      else tile_edge<Format>(rows, columns, depth, a, panel, to, c_stride, accumulate);
    }
  }
}

}  // namespace llmx::LLMX_ISA_NAME
