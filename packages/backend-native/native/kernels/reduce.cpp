// Sums, largest and smallest elements along an axis, and the sum of squares.
#include "llmx/numbers.h"
#include "reduce.h"

namespace llmx::LLMX_ISA_NAME {

/** Numbered as in src/kernels/reduce.ts. */
enum Reduction : int64_t { SUM, LARGEST, SMALLEST };

#if LLMX_ISA == LLMX_ISA_REFERENCE

template <class Operation>
static int32_t reduce(Numbers x, float* y, int64_t outer, int64_t count, int64_t inner, double factor) {
  for (int64_t o = 0; o < outer; ++o) {
    for (int64_t i = 0; i < inner; ++i) {
      double result = Operation::START;
      for (int64_t k = 0; k < count; ++k) result = Operation::combine(result, double{x.get((o * count + k) * inner + i)});
      y[o * inner + i] = static_cast<float>(result * factor);
    }
  }
  return 0;
}

#else

// A piece of a row that is a task of its own: 256 KiB.
constexpr int64_t PIECE = 65536;

/** Over the last axis: whole rows are tasks, or pieces of them where rows are long. */
template <class Operation>
static int32_t reduce_rows(const float* x, float* y, int64_t rows, int64_t count, double factor) {
  if (count <= PIECE) {
    parallel_chunks(rows, max(int64_t{1}, TASK_ELEMENTS / count), [=](int64_t first, int64_t last) {
      for (int64_t row = first; row < last; ++row)
        y[row] = static_cast<float>(reduce_row<Operation>(x + row * count, count) * factor);
    });
    return 0;
  }
  const int64_t pieces = divide_up(count, PIECE);
  double* partial = scratch<double>(-1, 0, rows * pieces);
  if (partial == nullptr) return 1;
  parallel(rows * pieces, [=](int64_t index, int32_t) {
    const int64_t begin = index % pieces * PIECE;
    partial[index] = reduce_row<Operation>(x + index / pieces * count + begin, min(PIECE, count - begin));
  });
  for (int64_t row = 0; row < rows; ++row) {
    double result = Operation::START;
    for (int64_t piece = 0; piece < pieces; ++piece) result = Operation::combine(result, partial[row * pieces + piece]);
    y[row] = static_cast<float>(result * factor);
  }
  return 0;
}

// Columns to a slice: 4 KiB of each row, long enough for the processor to fetch ahead; the slice's sums stay in the
// first-level cache.
constexpr int64_t SLICE = 1024;

/** y[0, n) = factor * the combination of `count` rows, four at a time so that y is not passed over for each. */
template <class Operation>
static void reduce_slice(Numbers x, float* y, int64_t count, int64_t stride, int64_t n, float factor) {
  for (int64_t i = 0; i < n; ++i) y[i] = Operation::START;
  int64_t k = 0;
  for (; k + 4 <= count; k += 4, x = x.from(4 * stride))
    for_vectors(n, [=](int64_t i, int64_t m) {
      const vec first = Operation::combine(x.load_some(i, m), x.load_some(stride + i, m));
      const vec second = Operation::combine(x.load_some(2 * stride + i, m), x.load_some(3 * stride + i, m));
      store_some(y + i, Operation::combine(load_some(y + i, m), Operation::combine(first, second)), m);
    });
  for (; k < count; ++k, x = x.from(stride))
    for_vectors(n, [=](int64_t i, int64_t m) {
      store_some(y + i, Operation::combine(load_some(y + i, m), x.load_some(i, m)), m);
    });
  if (factor == 1) return;
  for (int64_t i = 0; i < n; ++i) y[i] *= factor;
}

/** Over an axis before the last: slices of columns, and where these are few, chunks of rows, combined in order. */
template <class Operation>
static int32_t reduce_columns(Numbers x, float* y, int64_t outer, int64_t count, int64_t inner, float factor) {
  const int64_t slices = divide_up(inner, SLICE);
  const int64_t rows = max(int64_t{64}, divide_up(count, divide_up(16, outer * slices)));
  const int64_t chunks = divide_up(count, rows);
  float* partial = chunks == 1 ? y : scratch<float>(-1, 0, outer * chunks * inner);
  if (partial == nullptr) return 1;
  parallel(outer * chunks * slices, [=](int64_t index, int32_t) {
    const int64_t o = index / (chunks * slices), chunk = index / slices % chunks, begin = index % slices * SLICE;
    const Numbers from = x.from((o * count + chunk * rows) * inner + begin);
    float* to = partial + (o * chunks + chunk) * inner + begin;
    const int64_t length = min(rows, count - chunk * rows);
    reduce_slice<Operation>(from, to, length, inner, min(SLICE, inner - begin), chunks == 1 ? factor : 1);
  });
  if (chunks == 1) return 0;
  parallel(outer * slices, [=](int64_t index, int32_t) {
    const int64_t o = index / slices, begin = index % slices * SLICE;
    const float* from = partial + o * chunks * inner + begin;
    reduce_slice<Operation>(from, y + o * inner + begin, chunks, inner, min(SLICE, inner - begin), factor);
  });
  return 0;
}

template <class Operation>
static int32_t reduce(Numbers x, float* y, int64_t outer, int64_t count, int64_t inner, double factor) {
  if (inner == 1 && !x.narrow) return reduce_rows<Operation>(x.floats(), y, outer, count, factor);
  return reduce_columns<Operation>(x, y, outer, count, inner, static_cast<float>(factor));
}

#endif

/**
 * y[o][i] = factor * the reduction over k of x[o][k][i].
 * Tensors: x [outer, count, inner], which may lie in memory as bfloat16, y [outer, inner]; none of the sizes 0.
 * Numbers: reduction, outer, count, inner, factor.
 */
LLMX_KERNEL(LlmxReduce) {
  const Numbers x = numbers(call, 0);
  float* y = call.floats(1);
  const int64_t outer = call.integer(1), count = call.integer(2), inner = call.integer(3);
  switch (call.integer(0)) {
    case SUM: return reduce<Sum>(x, y, outer, count, inner, call.number(4));
    case LARGEST: return reduce<Largest>(x, y, outer, count, inner, call.number(4));
    default: return reduce<Smallest>(x, y, outer, count, inner, call.number(4));
  }
}

#if LLMX_ISA != LLMX_ISA_REFERENCE

/** Of n elements. Four parts are read side by side: a thread that reads one place after another waits for memory longer. */
static double sum_of_squares(Numbers x, int64_t n) {
  constexpr int64_t RUN = 4096;
  const int64_t part = n / (4 * RUN) * RUN;
  double result = 0;
  for (int64_t begin = 0; begin < part; begin += RUN) {
    vec sums[4]{};
    for (int64_t i = begin; i < begin + RUN; i += LANES)
#pragma GCC unroll 4
      for (int k = 0; k < 4; ++k) {
        const vec v = x.load_some(k * part + i, LANES);
        sums[k] += v * v;
      }
    for (const vec& each : sums) result += double{sum(each)};
  }
  for (int64_t begin = 4 * part; begin < n; begin += RUN)
    result += double{sum_vectors(min(n - begin, RUN), [=](int64_t i, int64_t count) {
      const vec v = x.load_some(begin + i, count);
      return v * v;
    })};
  return result;
}

#endif

/** Tensors: x, which may lie in memory as bfloat16, y: one element, the sum of x^2. Sums of pieces of 4096 elements are added in float64. */
LLMX_KERNEL(LlmxSumOfSquares) {
  const Numbers x = numbers(call, 0);
  const int64_t size = call.size(0);
  double total = 0;
#if LLMX_ISA == LLMX_ISA_REFERENCE
  for (int64_t i = 0; i < size; ++i) total += double{x.get(i)} * x.get(i);
#else
  const int64_t pieces = divide_up(size, PIECE);
  double* partial = scratch<double>(-1, 0, max(pieces, int64_t{1}));
  if (partial == nullptr) return 1;
  parallel(pieces, [=](int64_t piece, int32_t) {
    partial[piece] = sum_of_squares(x.from(piece * PIECE), min(PIECE, size - piece * PIECE));
  });
  for (int64_t piece = 0; piece < pieces; ++piece) total += partial[piece];
#endif
  *call.floats(1) = static_cast<float>(total);
  return 0;
}

}  // namespace llmx::LLMX_ISA_NAME
