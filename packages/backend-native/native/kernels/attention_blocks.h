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

inline double dot(Numbers a, Numbers b, int64_t size) {
  double sum = 0;
  for (int64_t d = 0; d < size; ++d) sum += static_cast<double>(a.get(d)) * b.get(d);
  return sum;
}

#else

// Blocks of scores are held transposed, [keys, queries]: the softmax then runs along vectors of queries, without sums across
// a vector; and a block of scores is, as it lies, the right operand of the products with values and keys (also transposed:
// [size, queries]) and the left operand of the products that give the gradients of keys and values.

/** Copies rows of `size` floats closely together, times `factor`; whether all are finite. */
inline bool copy_rows(Lines to, Numbers from, int64_t stride, int64_t rows, int64_t size, float factor) {
  ivec largest_bits = ivec{};  // of the magnitudes: as integers they are in the order of the floats, infinity and NaN last
  const auto copy = [&](float* line, vec v) {
    const ivec bits = bits_of(vabs(v));
    largest_bits = bits > largest_bits ? bits : largest_bits;
    store(line, v * factor);
  };
  for (int64_t i = 0; i < rows; ++i, from = from.from(stride)) {
    float* line = to.data + i * to.stride;
    int64_t d = 0;
    for (; d + LANES <= size; d += LANES) copy(line + d, from.load_some(d, LANES));
    if (d < size) copy(line + d, from.load_some(d, size - d));
  }
  bool finite = true;
  for (int lane = 0; lane < LANES; ++lane) finite = finite && largest_bits[lane] < 0x7f800000;
  return finite;
}

/** Puts rows of queries side by side: to [size, QUERIES], times `factor`; columns beyond `count` are 0. */
inline void copy_columns(Lines to, Numbers from, int64_t stride, int64_t count, int64_t size, float factor) {
  pack<QUERIES, Float32>(to.data, from, stride, true, count, size);
  if (factor == 1) return;
  for (int64_t i = 0; i < size * QUERIES; i += LANES) store(to.data + i, load(to.data + i) * factor);
}

inline float dot(const float* a, Numbers b, int64_t size) {
  vec sums = vec{};
  int64_t d = 0;
  for (; d + LANES <= size; d += LANES) sums += load(a + d) * b.load_some(d, LANES);
  if (d < size) sums += load_first(a + d, static_cast<int>(size - d)) * b.load_some(d, size - d);
  return sum(sums);
}

/** Rows of a block's copy: a whole tile may be read or written beyond the last. */
constexpr int64_t KEY_ROWS = KEYS + TILE_ROWS;
/** Distance of copied rows: whole tiles of columns. */
inline int64_t row_stride(const AttentionProblem& p) { return round_up(p.size, TILE_COLUMNS); }
/** Rows of a transposed block [size, queries]. */
inline int64_t size_rows(const AttentionProblem& p) { return round_up(p.size, TILE_ROWS); }

/**
 * out += weights x, over the pairs of query and key that see each other: for blocks that are seen in part and hold NaN or
 * infinity, where a product with weights 0 for the other pairs would pass them on. Element (line, d) of out is
 * out[line * line_step + d * size_step]. BY_KEY: lines of out are keys and x has a row per query; else the reverse.
 */
template <bool BY_KEY>
inline void add_seen_only(const QueryBlock& block, int64_t first_key, int64_t keys, int64_t size, Lines weights, Lines x,
                          float* out, int64_t line_step, int64_t size_step) {
  for (int64_t key = 0; key < keys; ++key)
    for (int64_t query = 0; query < block.count; ++query) {
      if (!block.sees_one(query, first_key + key)) continue;
      const float weight = weights.data[key * weights.stride + query];
      const float* row = x.data + (BY_KEY ? query : key) * x.stride;
      float* line = out + (BY_KEY ? key : query) * line_step;
      for (int64_t d = 0; d < size; ++d) line[d * size_step] += weight * row[d];
    }
}

#endif

}  // namespace llmx::LLMX_ISA_NAME::attention
