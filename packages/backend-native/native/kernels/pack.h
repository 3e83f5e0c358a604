/**
 * Packing operands of matrix products in the order in which a tile of sums (tile.h) reads them: panels of MR rows of a as
 * [panel][depth][MR], panels of NR columns of b as [panel][depth][NR], the last panel filled up with zeros.
 *
 * Panels hold words of 32 bits. What a word is and how large a tile depends on the format; `words<Format>(depth)` says how many
 * words a line has. Packed memory comes from `scratch` and holds round_up(rows, MR) * words or round_up(columns, NR) * words.
 * Where sums are formed in tile registers, panels of rows are [panel][words / 16][MR][16]: tiles as they are loaded.
 *
 * Rows of a that run along the depth and hold what the words are need no panels where sums are vectors: a tile reads single words of
 * them, wherever they are.
 */
#pragma once

#include "amx.h"
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
constexpr int VECTOR_ROWS = 8, VECTORS = 3;
#elif LLMX_ISA == LLMX_ISA_AVX2
constexpr int VECTOR_ROWS = 6, VECTORS = 2;
#else
constexpr int VECTOR_ROWS = 4, VECTORS = 2;
#endif

/** What a thread holds while it multiplies in vectors. */
struct NoRegisters {};

/** What formats have in common whose tiles of sums are vectors. */
struct VectorTiles {
  /** Rows and columns of a tile of sums. */
  static constexpr int MR = VECTOR_ROWS, NR = VECTORS * LANES;
  /** Whether `accumulate` begins a sum with what is there, rather than adding the whole sum to it. */
  static constexpr bool CONTINUES = false;
  /** To be held by a thread while it multiplies. */
  using Registers = NoRegisters;
};

/** Packed operands as they are. */
struct Float32 : VectorTiles, FloatWords {
  static constexpr bool ROUNDS = false;
  /** Positions along the depth that share a word. */
  static constexpr int PER_WORD = 1;
  /** Positions along the depth that belong together: lines are filled up with zeros to a multiple of it. */
  static constexpr int STEP = 1;
};

#if LLMX_ISA == LLMX_ISA_AMX

/** The thread's tile registers, eight of full size. */
struct Tiles {
  Tiles() { amx_configure(SHAPES); }
  ~Tiles() { amx_release(); }
  Tiles(const Tiles&) = delete;
  Tiles& operator=(const Tiles&) = delete;

 private:
  static constexpr TileConfiguration SHAPES{1, 0, {}, {64, 64, 64, 64, 64, 64, 64, 64}, {16, 16, 16, 16, 16, 16, 16, 16}};
};

/**
 * Packed operands rounded to bfloat16, two positions in a word. A tile of sums is 2 x 2 registers: with two of a and two of b all
 * eight are in use, and four loads serve four products.
 */
struct Bfloat16 {
  static constexpr bool ROUNDS = true;
  static constexpr int PER_WORD = 2, STEP = 2 * TILE_WORDS;
  static constexpr int MR = 2 * TILE_LINES, NR = 2 * TILE_WORDS;
  static constexpr bool CONTINUES = true;
  using Registers = Tiles;
};

#else

/** Packed operands rounded to bfloat16, two positions in a word where the machine multiplies such pairs. */
struct Bfloat16 : VectorTiles, Bfloat16Words {
  static constexpr bool ROUNDS = true;
  static constexpr int PER_WORD = LLMX_ISA == LLMX_ISA_AVX512_BF16 ? 2 : 1, STEP = PER_WORD;
};

#endif

/** Words of a packed line. */
template <class Format>
LLMX_INLINE int64_t words(int64_t depth) {
  return round_up(depth, Format::STEP) / Format::PER_WORD;
}

/** Rows of a in panels. */
template <class Format>
struct Panels {
  const float* data;

  /** From row `row` on, a multiple of MR, where lines have `depth` words. */
  Panels from(int64_t row, int64_t depth) const { return {data + row * depth}; }
  LLMX_INLINE const float* word(int row, int64_t p) const { return data + p * Format::MR + row; }
};

/** Rows of a in lines, `stride` words apart. */
struct WordLines {
  const float* data;
  int64_t stride;

  WordLines from(int64_t row, int64_t) const { return {data + row * stride, stride}; }
  LLMX_INLINE const float* word(int row, int64_t p) const { return data + row * stride + p; }
};

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

#if LLMX_ISA >= LLMX_ISA_AVX512_BF16

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
    const int count_words = Bfloat16::STEP == 2 * WORDS ? WORDS : (positions + 1) / 2, quads = count_words / 4 * 4;
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
  if constexpr (Bfloat16::STEP > 2) {
    const int64_t used = divide_up(depth, 2) * WIDTH;
    for (int64_t i = 0; i < count; i += WIDTH, to += panel)
      std::memset(to + used, 0, static_cast<size_t>(panel - used) * sizeof(float));
  }
}

#endif

#if LLMX_ISA == LLMX_ISA_AMX

// Words of a step of a panel of rows: a tile of each half.
constexpr int STEP_WORDS = Bfloat16::MR * TILE_WORDS;

/** One panel of `count` rows that each run along the depth: lines of tiles are the rows' own words. */
inline void pack_tiles_crosswise(float* to, Numbers from, int64_t stride, int count, int64_t depth) {
  const int64_t step = 64 / from.bytes_each(), ahead = 2 * Bfloat16::STEP;
  for (int64_t block = 0; block < depth; block += Bfloat16::STEP, to += STEP_WORDS) {
    const int positions = static_cast<int>(min<int64_t>(Bfloat16::STEP, depth - block));
    for (int i = 0; i < count; ++i) {
      const int64_t line = i * stride + block;
      for (int64_t p = 0; p < positions; p += step) __builtin_prefetch(from.from(line + ahead + p).data);
      store(to + i * TILE_WORDS, words_of(from, line, positions));
    }
    for (int i = count; i < Bfloat16::MR; ++i) store(to + i * TILE_WORDS, vec{});
  }
}

/**
 * One tile of rows whose numbers lie side by side: element (p, i) is from[p * stride + i]. Lines of the tile are `line` apart; what
 * lies beyond `rows` and `positions` is 0.
 */
inline void transpose_tile(float* tile, int64_t line, Numbers from, int64_t stride, int rows, int64_t positions) {
  constexpr int STEP = Bfloat16::STEP;
  alignas(64) float pairs[TILE_WORDS * TILE_LINES];
  for (int w = 0; w < TILE_WORDS; ++w) {
    const int64_t p = 2 * w, source = p * stride;
    __builtin_prefetch(from.from(source + STEP * stride).data);
    __builtin_prefetch(from.from(source + (STEP + 1) * stride).data);
    store(pairs + w * TILE_LINES, zipped_lines(from, source, stride, p + 1 >= positions, p < positions ? rows : 0));
  }
  for (int r = 0; r < TILE_LINES; r += 4)
    for (int w = 0; w < TILE_WORDS; w += 4) transpose_quads(tile + r * line + w, line, pairs + w * TILE_LINES + r, TILE_LINES);
}

/** Panels of such rows. */
inline void pack_tiles_lengthwise(float* to, Numbers from, int64_t stride, int64_t count, int64_t depth) {
  constexpr int STEP = Bfloat16::STEP, MR = Bfloat16::MR;
  const int64_t panel = words<Bfloat16>(depth) * MR;
  for (int64_t block = 0; block < depth; block += STEP)
    for (int64_t i = 0; i < round_up(count, MR); i += TILE_LINES) {
      const int rows = static_cast<int>(max<int64_t>(0, min<int64_t>(TILE_LINES, count - i)));
      float* tile = to + i / MR * panel + block / STEP * STEP_WORDS + i % MR * TILE_WORDS;
      transpose_tile(tile, TILE_WORDS, from.from(block * stride + i), stride, rows, depth - block);
    }
}

inline void pack_tiles(float* to, Numbers from, int64_t stride, bool crosswise, int64_t count, int64_t depth) {
  if (!crosswise) return pack_tiles_lengthwise(to, from, stride, count, depth);
  for (int64_t i = 0; i < count; i += Bfloat16::MR)
    pack_tiles_crosswise(to + i * words<Bfloat16>(depth), from.from(i * stride), stride,
                         static_cast<int>(min<int64_t>(Bfloat16::MR, count - i)), depth);
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
#if LLMX_ISA >= LLMX_ISA_AVX512_BF16
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
#if LLMX_ISA == LLMX_ISA_AMX
  if constexpr (Format::ROUNDS) return pack_tiles(to, from, stride, !transposed, rows, depth);
  else
#endif
    pack<Format::MR, Format>(to, from, stride, !transposed, rows, depth);
}

/** Packs b [depth, columns], whose lines are `stride` apart; `transposed`: it is stored as [columns, depth]. */
template <class Format>
inline void pack_columns(float* to, Numbers from, int64_t stride, bool transposed, int64_t columns, int64_t depth) {
  pack<Format::NR, Format>(to, from, stride, transposed, columns, depth);
}

}  // namespace llmx::LLMX_ISA_NAME
