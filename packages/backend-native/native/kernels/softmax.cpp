// Softmax over rows.
#include "llmx/vector_math.h"
#include "reduce.h"

namespace llmx::LLMX_ISA_NAME {

/**
 * y = exp(x - m) / s per row with m the largest element and s = sum(exp(x - m)); or x - m - log(s). A row with a NaN, or
 * with nothing above -infinity, is NaN.
 * Tensors: x, y [rows, width]; y may be the memory of x. Numbers: rows, width, whether the logarithm is wanted.
 */
LLMX_KERNEL(LlmxSoftmax) {
  const int64_t rows = call.integer(0), width = call.integer(1);
  const bool logarithm = call.flag(2);
  const float* x = call.floats(0);
  float* y = call.floats(1);
#if LLMX_ISA == LLMX_ISA_REFERENCE
  for (int64_t row = 0; row < rows; ++row, x += width, y += width) {
    double largest = -INFINITY, total = 0;
    for (int64_t i = 0; i < width; ++i) largest = x[i] > largest || x[i] != x[i] ? x[i] : largest;
    for (int64_t i = 0; i < width; ++i) total += std::exp(x[i] - largest);
    for (int64_t i = 0; i < width; ++i)
      y[i] = static_cast<float>(logarithm ? x[i] - largest - std::log(total) : std::exp(x[i] - largest) / total);
  }
#else
  parallel_chunks(rows, max(int64_t{1}, TASK_ELEMENTS / max(width, int64_t{1})), [&](int64_t first, int64_t last) {
    for (int64_t row = first; row < last; ++row) {
      const float* from = x + row * width;
      float* to = y + row * width;
      const float largest = static_cast<float>(reduce_row<Largest>(from, width));
      if (logarithm) {
        const float total = sum_vectors(width, [=](int64_t i, int64_t n) {
          return vexp(load_some(from + i, n, -INFINITY) - largest);
        });
        // Two differences: largest + log(total) would be rounded to the precision of the larger.
        const float shift = std::log(total);
        for_vectors(width, [=](int64_t i, int64_t n) {
          store_some(to + i, load_some(from + i, n) - largest - shift, n);
        });
        continue;
      }
      const float total = sum_vectors(width, [=](int64_t i, int64_t n) {
        const vec e = vexp(load_some(from + i, n, -INFINITY) - largest);
        store_some(to + i, e, n);
        return e;
      });
      const float scale = 1 / total;
      for_vectors(width, [=](int64_t i, int64_t n) { store_some(to + i, load_some(to + i, n) * scale, n); });
    }
  });
#endif
  return 0;
}

}  // namespace llmx::LLMX_ISA_NAME
