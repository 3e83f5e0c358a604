/**
 * Blocks of floats that lie in the first or second cache: memory for them, transposing, and products that read them where they
 * are instead of from packed panels. For kernels that chain several products over small blocks, where packing each operand
 * would cost as much as its product.
 */
#pragma once

#include "llmx/kernel.h"

namespace llmx::LLMX_ISA_NAME {

// A tile of sums that stays in registers. Heads of 64 and blocks of 64 must be whole tiles, which panels of three vectors
// (48) are not. Two vectors by 8 rows: 10 loads for 16 multiply-adds, bound by arithmetic with two of each per cycle, and 16
// independent sums hide its latency. AVX2 (16 registers): 12 + 2 + 1. SSE2 (16 registers, no fused product): 8 + 2 + 1 + 1.
#if LLMX_ISA >= LLMX_ISA_AVX512 || defined(__aarch64__)
constexpr int TILE_ROWS = 8;
#elif LLMX_ISA == LLMX_ISA_AVX2
constexpr int TILE_ROWS = 6;
#else
constexpr int TILE_ROWS = 4;
#endif
constexpr int TILE_COLUMNS = 2 * LANES;

/** Lines of floats, `stride` apart. */
struct Lines {
  float* data;
  int64_t stride;

  float* row(int64_t line) const { return data + line * stride; }
  Lines from(int64_t line, int64_t column = 0) const { return {data + line * stride + column, stride}; }
};

/** A distance of lines: an odd number of 128 bytes, so that the same columns of many lines do not compete for a cache's sets. */
inline int64_t line_stride(int64_t columns) { return 32 * (divide_up(columns, 32) | 1); }

/** Parts of one piece of memory, each aligned to 64 bytes; without memory, only their total is counted. */
class Parts {
 public:
  explicit Parts(float* memory) : memory_(memory) {}
  float* floats(int64_t count) {
    float* part = memory_ == nullptr ? nullptr : memory_ + used_;
    used_ += round_up(count, 16);
    return part;
  }
  Lines lines(int64_t count, int64_t stride) { return {floats(count * stride), stride}; }
  /** Room for whole tiles, read or written beyond the last row and column. */
  Lines tiles(int64_t rows, int64_t columns) {
    const int64_t stride = line_stride(columns);
    return {floats(round_up(rows, TILE_ROWS) * stride + TILE_COLUMNS), stride};
  }
  int64_t used() const { return used_; }

 private:
  float* memory_;
  int64_t used_ = 0;
};

typedef float quad __attribute__((vector_size(16)));
typedef float unaligned_quad __attribute__((vector_size(16), aligned(4), may_alias));

#if defined(__clang__)
#define LLMX_SHUFFLE(A, B, I, J, K, L) __builtin_shufflevector(A, B, I, J, K, L)
#else
typedef int32_t quad_indices __attribute__((vector_size(16)));
#define LLMX_SHUFFLE(A, B, I, J, K, L) __builtin_shuffle(A, B, quad_indices{I, J, K, L})
#endif

/** to[p * width + i] = from[i * stride + p] for 4 rows i and 4 positions p; moves bits, whatever they mean. */
LLMX_INLINE void transpose_quads(float* to, int64_t width, const float* from, int64_t stride) {
  const auto row = [&](int i) -> quad { return *reinterpret_cast<const unaligned_quad*>(from + i * stride); };
  const quad a = row(0), b = row(1), c = row(2), d = row(3);
  const quad ab = LLMX_SHUFFLE(a, b, 0, 4, 1, 5), cd = LLMX_SHUFFLE(c, d, 0, 4, 1, 5);
  const quad ab2 = LLMX_SHUFFLE(a, b, 2, 6, 3, 7), cd2 = LLMX_SHUFFLE(c, d, 2, 6, 3, 7);
  const auto put = [&](int p, quad v) { *reinterpret_cast<unaligned_quad*>(to + p * width) = v; };
  put(0, LLMX_SHUFFLE(ab, cd, 0, 1, 4, 5));
  put(1, LLMX_SHUFFLE(ab, cd, 2, 3, 6, 7));
  put(2, LLMX_SHUFFLE(ab2, cd2, 0, 1, 4, 5));
  put(3, LLMX_SHUFFLE(ab2, cd2, 2, 3, 6, 7));
}

/** to [columns, rows] = from [rows, columns] transposed. */
inline void transpose(Lines to, Lines from, int64_t rows, int64_t columns) {
  const int64_t whole_rows = rows / 4 * 4, whole_columns = columns / 4 * 4;
  for (int64_t j = 0; j < whole_columns; j += 4)
    for (int64_t i = 0; i < whole_rows; i += 4) transpose_quads(to.row(j) + i, to.stride, from.row(i) + j, from.stride);
  for (int64_t j = 0; j < columns; ++j)
    for (int64_t i = j < whole_columns ? whole_rows : 0; i < rows; ++i) to.row(j)[i] = from.row(i)[j];
}

/** Words of blocks that are floats. Others, which hold several positions of the depth, define the same functions. */
struct FloatWords {
  static LLMX_INLINE vec factor(const float* word) { return broadcast(*word); }
  static LLMX_INLINE vec add(vec sums, vec factor, vec columns) { return sums + factor * columns; }
};

/**
 * c [TILE_ROWS, TILE_COLUMNS] = keep * from + a b, where c may be `from`; with keep 0, `from` is not read. Line i of c takes line
 * i of a, or (CROSSWISE) column i. Every element is the sum over depth, in words, in order. FETCH brings the columns of b beside the
 * tile's into the cache, for the next tile, where b lies in memory.
 */
template <bool CROSSWISE, class Words = FloatWords, bool FETCH = false>
__attribute__((noinline)) void multiply_tile(int64_t depth, Lines a, Lines b, Lines c, Lines from, float keep) {
  const float *__restrict left = a.data, *__restrict right = b.data;
  vec sums[TILE_ROWS][2];
#pragma GCC unroll 8
  for (int i = 0; i < TILE_ROWS; ++i) sums[i][0] = sums[i][1] = vec{};
  for (int64_t p = 0; p < depth; ++p, right += b.stride) {
    const vec first = load(right), second = load(right + LANES);
    if constexpr (FETCH)
      for (int64_t j = 0; j < TILE_COLUMNS; j += 16) __builtin_prefetch(right + TILE_COLUMNS + j);
#pragma GCC unroll 8
    for (int i = 0; i < TILE_ROWS; ++i) {
      const vec factor = Words::factor(left + (CROSSWISE ? i : i * a.stride));
      sums[i][0] = Words::add(sums[i][0], factor, first);
      sums[i][1] = Words::add(sums[i][1], factor, second);
    }
    left += CROSSWISE ? a.stride : 1;
  }
  if (keep != 0) {
#pragma GCC unroll 8
    for (int i = 0; i < TILE_ROWS; ++i) {
      sums[i][0] = keep * load(from.row(i)) + sums[i][0];
      sums[i][1] = keep * load(from.row(i) + LANES) + sums[i][1];
    }
  }
#pragma GCC unroll 8
  for (int i = 0; i < TILE_ROWS; ++i) {
    store(c.row(i), sums[i][0]);
    store(c.row(i) + LANES, sums[i][1]);
  }
}

}  // namespace llmx::LLMX_ISA_NAME
