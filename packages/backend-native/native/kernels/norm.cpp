// Layer and root-mean-square normalisation of rows, and their gradients.
#include "llmx/numbers.h"
#include "memory.h"

namespace llmx::LLMX_ISA_NAME {

#if LLMX_ISA != LLMX_ISA_REFERENCE

/** Rows to a task. */
static int64_t rows_per_task(int64_t width) { return max(int64_t{1}, TASK_ELEMENTS / max(width, int64_t{1})); }

/** A column's value, or `otherwise` where there are none. */
LLMX_INLINE vec column(const float* values, int64_t i, int64_t count, float otherwise) {
  return values == nullptr ? broadcast(otherwise) : load_some(values + i, count);
}

#endif

/**
 * y = (x - mean) scale weight + bias with scale = 1 / sqrt(variance + epsilon), for each row; mean is 0, and variance the
 * mean square, unless `center`.
 * Tensors: x [rows, width], weight [width], bias [width] or none, y [rows, width], mean [rows], scale [rows].
 * y may lie in memory as bfloat16. Numbers: rows, width, epsilon, center.
 */
LLMX_KERNEL(LlmxNorm) {
  const int64_t rows = call.integer(0), width = call.integer(1);
  const bool center = call.flag(3);
  const float *weight = call.floats(1), *bias = call.floats(2);
#if LLMX_ISA == LLMX_ISA_REFERENCE
  for (int64_t row = 0; row < rows; ++row) {
    const float* x = call.floats(0) + row * width;
    double mean = 0, squares = 0;
    for (int64_t i = 0; center && i < width; ++i) mean += x[i];
    mean /= static_cast<double>(width);
    for (int64_t i = 0; i < width; ++i) squares += (x[i] - mean) * (x[i] - mean);
    const double scale = 1 / std::sqrt(squares / static_cast<double>(width) + call.number(2));
    for (int64_t i = 0; i < width; ++i)
      numbers(call, 3).put(row * width + i, static_cast<float>((x[i] - mean) * scale * weight[i] + (bias ? bias[i] : 0)));
    call.floats(4)[row] = static_cast<float>(mean);
    call.floats(5)[row] = static_cast<float>(scale);
  }
#else
  // Three passes over a row, which stays in the first-level cache: the variance from deviations keeps its accuracy where
  // the mean is large.
  parallel_chunks(rows, rows_per_task(width), [&](int64_t first, int64_t last) {
    for (int64_t row = first; row < last; ++row) {
      const float* x = call.floats(0) + row * width;
      const Numbers y = numbers(call, 3).from(row * width);
      const float total = center ? sum_vectors(width, [=](int64_t i, int64_t n) { return load_some(x + i, n); }) : 0;
      const float mean = total / static_cast<float>(width);
      const float squares = sum_vectors(width, [=](int64_t i, int64_t n) {
        const vec d = load_some(x + i, n, mean) - mean;
        return d * d;
      });
      const float scale = 1 / __builtin_sqrtf(squares / static_cast<float>(width) + static_cast<float>(call.number(2)));
      for_vectors(width, [=](int64_t i, int64_t n) {
        const vec normalised = (load_some(x + i, n) - mean) * scale;
        y.store_some(i, normalised * load_some(weight + i, n) + column(bias, i, n, 0), n);
      });
      call.floats(4)[row] = mean;
      call.floats(5)[row] = scale;
    }
  });
#endif
  return 0;
}

/**
 * With h the normalised row and g = dy weight: dx = scale (g - mean(g) - h mean(g h)) + residual, the first mean if `center`.
 * Tensors: dy, x [rows, width], weight [width], mean, scale [rows], residual [rows, width] or none, dx [rows, width],
 * dWeight [width], dBias [width] or none. dx may be the memory of residual or of dy. Numbers: rows, width, center.
 */
LLMX_KERNEL(LlmxNormGrad) {
  const int64_t rows = call.integer(0), width = call.integer(1);
  const bool center = call.flag(2);
  const float* weight = call.floats(2);
  float *weight_sums = call.floats(7), *bias_sums = call.floats(8);
#if LLMX_ISA == LLMX_ISA_REFERENCE
  double* sums = scratch<double>(-1, 0, 2 * width);
  if (sums == nullptr) return 1;
  for (int64_t i = 0; i < 2 * width; ++i) sums[i] = 0;
  for (int64_t row = 0; row < rows; ++row) {
    const float *dy = call.floats(0) + row * width, *x = call.floats(1) + row * width;
    const float* residual = call.has(5) ? call.floats(5) + row * width : nullptr;
    const double mean = call.floats(3)[row], scale = call.floats(4)[row];
    double across = 0, along = 0;
    for (int64_t i = 0; i < width; ++i) {
      const double h = (x[i] - mean) * scale;
      sums[i] += dy[i] * h;
      sums[width + i] += dy[i];
      across += double{dy[i]} * weight[i];
      along += double{dy[i]} * weight[i] * h;
    }
    across = center ? across / static_cast<double>(width) : 0;
    along /= static_cast<double>(width);
    for (int64_t i = 0; i < width; ++i) {
      const double gradient = scale * (double{dy[i]} * weight[i] - across - (x[i] - mean) * scale * along);
      call.floats(6)[row * width + i] = static_cast<float>(gradient + (residual ? residual[i] : 0));
    }
  }
  for (int64_t i = 0; i < width; ++i) weight_sums[i] = static_cast<float>(sums[i]);
  for (int64_t i = 0; bias_sums != nullptr && i < width; ++i) bias_sums[i] = static_cast<float>(sums[width + i]);
  return 0;
#else
  // Each chunk of rows has its own sums over rows, added in the order of the chunks afterwards: at most 64 chunks, since
  // their sums are memory to be written and read again.
  const int64_t rows_per_chunk = max(rows_per_task(width), divide_up(rows, 64));
  const int64_t chunks = divide_up(rows, rows_per_chunk);
  float* partial = scratch<float>(-1, 0, max(chunks, int64_t{1}) * 2 * width);
  if (partial == nullptr) return 1;
  parallel(chunks, [&](int64_t chunk, int32_t) {
    float *to_weight = partial + chunk * 2 * width, *to_bias = to_weight + width;
    std::memset(to_weight, 0, static_cast<size_t>(2 * width) * sizeof(float));
    const int64_t last = min(rows, (chunk + 1) * rows_per_chunk);
    for (int64_t row = chunk * rows_per_chunk; row < last; ++row) {
      const float *dy = call.floats(0) + row * width, *x = call.floats(1) + row * width;
      const float* residual = call.has(5) ? call.floats(5) + row * width : nullptr;
      const float mean = call.floats(3)[row], scale = call.floats(4)[row];
      vec across{}, along{};
      for_vectors(width, [&](int64_t i, int64_t n) {
        // Lanes beyond the row: x = mean there, so that h is 0 as the gradient is.
        const vec gradient = load_some(dy + i, n), h = (load_some(x + i, n, mean) - mean) * scale;
        const vec weighted = gradient * load_some(weight + i, n);
        store_some(to_weight + i, load_some(to_weight + i, n) + gradient * h, n);
        store_some(to_bias + i, load_some(to_bias + i, n) + gradient, n);
        across += weighted;
        along += weighted * h;
      });
      const float mean_across = center ? sum(across) / static_cast<float>(width) : 0;
      const float mean_along = sum(along) / static_cast<float>(width);
      float* dx = call.floats(6) + row * width;
      for_vectors(width, [=](int64_t i, int64_t n) {
        const vec h = (load_some(x + i, n) - mean) * scale;
        const vec gradient = load_some(dy + i, n) * load_some(weight + i, n) - mean_across - h * mean_along;
        store_some(dx + i, gradient * scale + column(residual, i, n, 0), n);
      });
    }
  });
  // Columns in slices, so that this is spread too.
  parallel_chunks(width, 256, [&](int64_t begin, int64_t end) {
    for_vectors(end - begin, [&](int64_t i, int64_t n) {
      vec of_weight{}, of_bias{};
      for (int64_t chunk = 0; chunk < chunks; ++chunk) {
        const float* sums = partial + chunk * 2 * width + begin + i;
        of_weight += load_some(sums, n);
        of_bias += load_some(sums + width, n);
      }
      store_some(weight_sums + begin + i, of_weight, n);
      if (bias_sums != nullptr) store_some(bias_sums + begin + i, of_bias, n);
    });
  });
  return 0;
#endif
}

}  // namespace llmx::LLMX_ISA_NAME
