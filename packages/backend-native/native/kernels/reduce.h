/** Reductions: how vectors are combined, and over one row. */
#pragma once

#include "memory.h"

namespace llmx::LLMX_ISA_NAME {

/** Sums, in float32 within a piece of a row. */
struct Sum {
  static constexpr float START = 0;
  static LLMX_INLINE vec combine(vec a, vec b) { return a + b; }
  static LLMX_INLINE double combine(double a, double b) { return a + b; }
};
/** Largest and smallest element; NaN if there is one: `b` is taken where it is NaN, and no comparison replaces a NaN. */
struct Largest {
  static constexpr float START = -INFINITY;
  static LLMX_INLINE vec combine(vec a, vec b) { return select((b > a) | (b != b), b, a); }
  static LLMX_INLINE double combine(double a, double b) { return b > a || b != b ? b : a; }
};
struct Smallest {
  static constexpr float START = INFINITY;
  static LLMX_INLINE vec combine(vec a, vec b) { return select((b < a) | (b != b), b, a); }
  static LLMX_INLINE double combine(double a, double b) { return b < a || b != b ? b : a; }
};

/** Of x[0, n): four vectors side by side, then their lanes in halves. The order depends on n alone. */
template <class Operation>
inline float reduce_piece(const float* x, int64_t n) {
  const vec start = broadcast(0) + Operation::START;
  vec a = start, b = start, c = start, d = start;
  int64_t i = 0;
  for (; i + 4 * LANES <= n; i += 4 * LANES) {
    a = Operation::combine(a, load(x + i));
    b = Operation::combine(b, load(x + i + LANES));
    c = Operation::combine(c, load(x + i + 2 * LANES));
    d = Operation::combine(d, load(x + i + 3 * LANES));
  }
  for (; i < n; i += LANES)
    a = Operation::combine(a, load_some(x + i, min(n - i, int64_t{LANES}), Operation::START));
  a = Operation::combine(Operation::combine(a, b), Operation::combine(c, d));
  double result = Operation::START;
  for (int lane = 0; lane < LANES; ++lane) result = Operation::combine(result, double{a[lane]});
  return static_cast<float>(result);
}

/** Of any number of elements: pieces of 4096 in float32, combined in float64. */
template <class Operation>
inline double reduce_row(const float* x, int64_t n) {
  double result = Operation::START;
  for (int64_t i = 0; i < n; i += 4096)
    result = Operation::combine(result, double{reduce_piece<Operation>(x + i, min(n - i, int64_t{4096}))});
  return result;
}

}  // namespace llmx::LLMX_ISA_NAME
