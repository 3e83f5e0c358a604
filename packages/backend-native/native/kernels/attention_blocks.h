/** Copying, and products of what is masked: what both directions of attention need. */
#pragma once

#include "attention_mask.h"
#include "llmx/numbers.h"

#if LLMX_ISA != LLMX_ISA_REFERENCE
#include "block_product.h"
#include "llmx/vector_math.h"
#include "tile.h"
#endif

namespace llmx::LLMX_ISA_NAME::attention {

#if LLMX_ISA == LLMX_ISA_REFERENCE

/** A number as products take it. */
inline double operand(Numbers from, int64_t index, bool rounds) { return rounds ? rounded(from.get(index)) : from.get(index); }

inline double dot(Numbers a, Numbers b, int64_t size, bool rounds) {
  double sum = 0;
  for (int64_t d = 0; d < size; ++d) sum += operand(a, d, rounds) * operand(b, d, rounds);
  return sum;
}

#else

// Blocks of scores are held transposed, [keys, queries]: the softmax then runs along vectors of queries, without sums across
// a vector; and a block of scores is, as it lies, the right operand of the products with values and keys (also transposed:
// [size, queries]) and the left operand of the products that give the gradients of keys and values.
//
// Operands are in words of the format (tile.h): with bfloat16 a left operand's line has a word for two positions of its depth, and
// a right operand a line for two. Where words are floats both are the plain block. What lies beyond a depth, up to a whole step of
// the format, is 0.

/** `lanes` numbers as the format computes with them, times `factor`, which is 1 in formats that round. */
template <class Format>
LLMX_INLINE vec some_words(Numbers from, int64_t index, int64_t lanes, float factor) {
  const vec v = from.load_some(index, lanes);
  if constexpr (Format::ROUNDS) return from.narrow ? v : rounded(v);
  else return v * factor;
}

/** Copies rows of `size` numbers, times `factor`, as lines of a left operand whose depth is `size`. */
template <class Format>
inline void copy_rows(Lines to, Numbers from, int64_t stride, int64_t rows, int64_t size, float factor) {
  for (int64_t i = 0; i < rows; ++i, from = from.from(stride)) {
    float* line = to.row(i);
#if LLMX_ISA >= LLMX_ISA_AVX512_BF16
    if constexpr (Format::PER_WORD == 2) {
      for (int64_t d = 0; d < size; d += 2 * LANES)
        store(line + d / 2, words_of(from, d, static_cast<int>(min<int64_t>(2 * LANES, size - d))));
      continue;
    }
#endif
    for (int64_t d = 0; d < size; d += LANES)
      store(line + d, some_words<Format>(from, d, min<int64_t>(LANES, size - d), factor));
  }
}

/** Copies rows of `size` numbers, times `factor`, as a right operand whose depth are the rows. */
template <class Format>
inline void copy_depth(Lines to, Numbers from, int64_t stride, int64_t rows, int64_t size, float factor) {
#if LLMX_ISA >= LLMX_ISA_AVX512_BF16
  if constexpr (Format::PER_WORD == 2) {
    for (int64_t i = 0; i < round_up(rows, Format::STEP); i += 2)
      for (int64_t d = 0; d < size; d += LANES) {
        const int lanes = i < rows ? static_cast<int>(min<int64_t>(LANES, size - d)) : 0;
        store(to.row(i / 2) + d, zipped_lines(from, i * stride + d, stride, i + 1 >= rows, lanes));
      }
    return;
  }
#endif
  copy_rows<Format>(to, from, stride, rows, size, factor);
}

/** The same as a left operand: crosswise, or in tile registers by its own rows, [size, words of the depth]. */
template <class Format>
inline void copy_depth_left(Lines to, Numbers from, int64_t stride, int64_t rows, int64_t size) {
#if LLMX_ISA == LLMX_ISA_AMX
  if constexpr (IN_REGISTERS<Format>) {
    for (int64_t i = 0; i < rows; i += Format::STEP)
      for (int64_t d = 0; d < size; d += TILE_LINES) {
        const int lanes = static_cast<int>(min<int64_t>(TILE_LINES, size - d));
        transpose_tile(to.row(d) + i / 2, to.stride, from.from(i * stride + d), stride, lanes, rows - i);
      }
    return;
  }
#endif
  copy_depth<Format>(to, from, stride, rows, size, 1);
}

/** Such an operand from a position of its depth on, where a step begins. */
template <class Format>
inline Lines depth_left_from(Lines a, int64_t position) {
  const int64_t word = position / Format::PER_WORD;
  return IN_REGISTERS<Format> ? a.from(0, word) : a.from(word);
}

/** Puts rows of queries side by side: to [size words, QUERIES], times `factor`; columns beyond `count` are 0. */
template <class Format>
inline void copy_columns(Lines to, Numbers from, int64_t stride, int64_t count, int64_t size, float factor) {
  pack<QUERIES, Format>(to.data, from, stride, true, count, size);
  if (Format::ROUNDS || factor == 1) return;
  for (int64_t i = 0; i < size * QUERIES; i += LANES) store(to.data + i, load(to.data + i) * factor);
}

/** Whether rows of `size` numbers are all finite. */
inline bool all_finite(Numbers from, int64_t stride, int64_t rows, int64_t size) {
  ivec largest_bits = ivec{};  // of the magnitudes: as integers they are in the order of the floats, infinity and NaN last
  for (int64_t i = 0; i < rows; ++i, from = from.from(stride))
    for (int64_t d = 0; d < size; d += LANES) {
      const ivec bits = bits_of(vabs(from.load_some(d, min<int64_t>(LANES, size - d))));
      largest_bits = bits > largest_bits ? bits : largest_bits;
    }
  bool finite = true;
  for (int lane = 0; lane < LANES; ++lane) finite = finite && largest_bits[lane] < 0x7f800000;
  return finite;
}

inline float dot(Numbers a, Numbers b, int64_t size) {
  vec sums = vec{};
  for (int64_t d = 0; d < size; d += LANES) {
    const int64_t lanes = min<int64_t>(LANES, size - d);
    sums += a.load_some(d, lanes) * b.load_some(d, lanes);
  }
  return sum(sums);
}

/** Rows of a tile, of which a whole one may be read or written beyond the last. */
constexpr int64_t WHOLE_ROWS = LLMX_ISA == LLMX_ISA_AMX ? 16 : TILE_ROWS;
/** Rows of a block's copy. */
constexpr int64_t KEY_ROWS = KEYS + WHOLE_ROWS;
/** Distance of copied rows: whole tiles of columns. */
inline int64_t row_stride(const AttentionProblem& p) { return round_up(p.size, TILE_COLUMNS); }
/** Lines of copied rows, one for each. */
template <class Format>
inline Lines lines_of_rows(Parts& parts, int64_t rows, const AttentionProblem& p) {
  return parts.lines(rows, row_stride(p) / Format::PER_WORD);
}
/** Rows of a transposed block [size, queries]. */
inline int64_t size_rows(const AttentionProblem& p) { return round_up(p.size, WHOLE_ROWS); }

/** Memory for a left operand whose depth are `rows`. */
template <class Format>
inline Lines lines_of_depth(Parts& parts, int64_t rows, const AttentionProblem& p) {
  const int64_t words = round_up(rows, Format::STEP) / Format::PER_WORD;
  return IN_REGISTERS<Format> ? parts.lines(size_rows(p), words) : parts.lines(words + TILE_ROWS, row_stride(p));
}

/** The keys, if any, from a place where a step of the format begins. */
template <class Format>
inline KeyRange whole_steps(KeyRange keys) {
  return keys.count() <= 0 ? keys : KeyRange{keys.begin / Format::STEP * Format::STEP, keys.end};
}
static_assert(KEYS % Bfloat16::STEP == 0 && TILE_COLUMNS % Bfloat16::STEP == 0);

/**
 * out += weights x, over the pairs of query and key that see each other: for blocks that are seen in part and hold NaN or
 * infinity, where a product with weights 0 for the other pairs would pass them on. Rows of x are `stride` apart. Element (line, d)
 * of out is out[line * line_step + d * size_step]. BY_KEY: lines of out are keys and x has a row per query; else the reverse.
 */
template <bool BY_KEY>
inline void add_seen_only(const QueryBlock& block, int64_t first_key, int64_t keys, int64_t size, Lines weights, Numbers x,
                          int64_t stride, float factor, float* out, int64_t line_step, int64_t size_step) {
  for (int64_t key = 0; key < keys; ++key)
    for (int64_t query = 0; query < block.count; ++query) {
      if (!block.sees_one(query, first_key + key)) continue;
      const float weight = weights.row(key)[query] * factor;
      const int64_t row = (BY_KEY ? query : key) * stride;
      float* line = out + (BY_KEY ? key : query) * line_step;
      for (int64_t d = 0; d < size; ++d) line[d * size_step] += weight * x.get(row + d);
    }
}

#endif

}  // namespace llmx::LLMX_ISA_NAME::attention
