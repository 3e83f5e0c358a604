/**
 * The end of an mLSTM layer, per head: what was read from its memory, normed, with the skip connection, gated.
 *     n = (h - mean(h)) / sqrt(variance(h) + epsilon) over a head's features
 *     y = (n weight + skip mixed) silu(gate)
 *
 * XlstmGatedRead: h, mixed, gate, weight, skip; y.
 * XlstmGatedReadGrad: dy, h, mixed, gate, weight, skip; dH, dMixed, dGate, dWeight, dSkip.
 * weight, skip and their gradients: float32 [heads, size]; all others: [rows, heads, size].
 * Numbers: rows, heads, size, epsilon.
 */
#include "functions.h"
#include "products.h"

namespace llmx::LLMX_ISA_NAME {

using namespace xlstm;

namespace {

struct GatedRead {
  int64_t rows, heads, size;
  double epsilon;

  explicit GatedRead(const Call& call)
      : rows(call.integer(0)), heads(call.integer(1)), size(call.integer(2)), epsilon(call.number(3)) {}

  int64_t width() const { return heads * size; }
};

/** Mean of a head's features, and 1 / sqrt(variance + epsilon). */
template <class Number>
struct Statistics {
  Number mean, scale;
};

}  // namespace

#if LLMX_ISA == LLMX_ISA_REFERENCE

namespace {

Statistics<double> statistics(const GatedRead& v, const float* h) {
  double mean = 0, squares = 0;
  for (int64_t i = 0; i < v.size; ++i) mean += h[i] / static_cast<double>(v.size);
  for (int64_t i = 0; i < v.size; ++i) squares += (h[i] - mean) * (h[i] - mean);
  return {mean, 1 / std::sqrt(squares / static_cast<double>(v.size) + v.epsilon)};
}

}  // namespace

LLMX_KERNEL(XlstmGatedRead) {
  const GatedRead v(call);
  const float *h = call.floats(0), *mixed = call.floats(1), *gate = call.floats(2), *weight = call.floats(3), *skip = call.floats(4);
  for (int64_t first = 0; first < v.rows * v.width(); first += v.size) {
    const auto [mean, scale] = statistics(v, h + first);
    for (int64_t i = first; i < first + v.size; ++i) {
      const int64_t feature = i % v.width();
      const double read = (h[i] - mean) * scale * weight[feature] + double{skip[feature]} * mixed[i];
      call.floats(5)[i] = static_cast<float>(read * gate[i] * sigmoid(gate[i]));
    }
  }
  return 0;
}

LLMX_KERNEL(XlstmGatedReadGrad) {
  const GatedRead v(call);
  const float *dy = call.floats(0), *h = call.floats(1), *mixed = call.floats(2), *gate = call.floats(3);
  const float *weight = call.floats(4), *skip = call.floats(5);
  double* sums = scratch<double>(-1, 0, 2 * v.width());
  if (sums == nullptr) return 1;
  for (int64_t i = 0; i < 2 * v.width(); ++i) sums[i] = 0;
  for (int64_t first = 0; first < v.rows * v.width(); first += v.size) {
    const auto [mean, scale] = statistics(v, h + first);
    double across = 0, along = 0;
    const auto of_normed = [&](int64_t i) { return dy[i] * gate[i] * sigmoid(gate[i]) * weight[i % v.width()]; };
    for (int64_t i = first; i < first + v.size; ++i) {
      const int64_t feature = i % v.width();
      const double normed = (h[i] - mean) * scale, open = sigmoid(gate[i]), silu = gate[i] * open;
      across += of_normed(i) / static_cast<double>(v.size);
      along += of_normed(i) * normed / static_cast<double>(v.size);
      sums[feature] += dy[i] * silu * normed;
      sums[v.width() + feature] += dy[i] * silu * mixed[i];
      call.floats(7)[i] = static_cast<float>(dy[i] * silu * skip[feature]);
      call.floats(8)[i] = static_cast<float>(dy[i] * (normed * weight[feature] + double{skip[feature]} * mixed[i]) *
                                             (open + silu * (1 - open)));
    }
    for (int64_t i = first; i < first + v.size; ++i)
      call.floats(6)[i] = static_cast<float>(scale * (of_normed(i) - across - (h[i] - mean) * scale * along));
  }
  for (int64_t i = 0; i < v.width(); ++i) call.floats(9)[i] = static_cast<float>(sums[i]);
  for (int64_t i = 0; i < v.width(); ++i) call.floats(10)[i] = static_cast<float>(sums[v.width() + i]);
  return 0;
}

#else

namespace {

Statistics<float> statistics(const GatedRead& v, const float* h) {
  vec total = vec{}, squares = vec{};
  for_vectors(v.size, [&](int64_t i, auto get, auto) { total += get(h + i); });
  const float mean = sum(total) / static_cast<float>(v.size);
  for_vectors(v.size, [&](int64_t i, auto get, auto) {
    const vec deviation = get(h + i, mean) - mean;
    squares += deviation * deviation;
  });
  return {mean, 1 / __builtin_sqrtf(sum(squares) / static_cast<float>(v.size) + static_cast<float>(v.epsilon))};
}

/** Rows that a task takes: a few pages of each tensor. */
constexpr int64_t ROWS = 16;
/** Sums over rows are taken in at most so many parts, which are added in their order. */
constexpr int64_t MOST_PARTS = 64;

/** The gradients of one head of one row; `sums`: of its weight and, `v.width()` further, skip. */
struct HeadGradients {
  const GatedRead& v;
  const float *dy, *h, *mixed, *gate, *weight, *skip;
  float *d_h, *d_mixed, *d_gate, *sums;

  void run() const {
    const auto [mean, scale] = statistics(v, h);
    vec across = vec{}, along = vec{};
    for_vectors(v.size, [&](int64_t i, auto get, auto put) {
      const vec normed = (get(h + i) - mean) * scale, g = get(gate + i), gradient = get(dy + i), x = get(mixed + i);
      const vec open = vsigmoid(g), silu = g * open, d_read = gradient * silu;
      const vec w = get(weight + i), s = get(skip + i), of_normed = d_read * w;
      across += of_normed;
      along += of_normed * normed;
      put(d_h + i, of_normed);
      put(d_mixed + i, d_read * s);
      put(d_gate + i, gradient * (normed * w + s * x) * (open + silu * (1.0f - open)));
      put(sums + i, get(sums + i) + d_read * normed);
      put(sums + v.width() + i, get(sums + v.width() + i) + d_read * x);
    });
    const float mean_across = sum(across) / static_cast<float>(v.size), mean_along = sum(along) / static_cast<float>(v.size);
    for_vectors(v.size, [&](int64_t i, auto get, auto put) {
      const vec normed = (get(h + i) - mean) * scale;
      put(d_h + i, scale * (get(d_h + i) - mean_across - normed * mean_along));
    });
  }
};

}  // namespace

LLMX_KERNEL(XlstmGatedRead) {
  const GatedRead v(call);
  const float *weight = call.floats(3), *skip = call.floats(4);
  parallel_chunks(v.rows, ROWS, [&](int64_t begin, int64_t end) {
    for (int64_t first = begin * v.width(); first < end * v.width(); first += v.size) {
      const int64_t feature = first % v.width();
      const float *h = call.floats(0) + first, *mixed = call.floats(1) + first, *gate = call.floats(2) + first;
      const auto [mean, scale] = statistics(v, h);
      for_vectors(v.size, [&](int64_t i, auto get, auto put) {
        const vec normed = (get(h + i) - mean) * scale, g = get(gate + i);
        const vec read = normed * get(weight + feature + i) + get(skip + feature + i) * get(mixed + i);
        put(call.floats(5) + first + i, read * (g * vsigmoid(g)));
      });
    }
  });
  return 0;
}

LLMX_KERNEL(XlstmGatedReadGrad) {
  const GatedRead v(call);
  const int64_t part_rows = max(ROWS, divide_up(v.rows, MOST_PARTS)), count = divide_up(v.rows, part_rows), size = 2 * v.width();
  float* sums = scratch<float>(-1, 0, (count + 1) * size);
  if (sums == nullptr) return 1;
  parallel(count, [&](int64_t part, int32_t) {
    float* own = sums + part * size;
    std::memset(own, 0, static_cast<size_t>(size) * sizeof(float));
    const int64_t end = min(v.rows, (part + 1) * part_rows) * v.width();
    for (int64_t first = part * part_rows * v.width(); first < end; first += v.size) {
      const int64_t feature = first % v.width();
      const auto at = [&](int index) { return call.floats(index) + first; };
      HeadGradients{v,     at(0), at(1), at(2), at(3), call.floats(4) + feature, call.floats(5) + feature,
                    at(6), at(7), at(8), own + feature}
          .run();
    }
  });
  float* total = sums + count * size;
  add_parts(total, sums, count, size);
  std::memcpy(call.floats(9), total, static_cast<size_t>(v.width()) * sizeof(float));
  std::memcpy(call.floats(10), total + v.width(), static_cast<size_t>(v.width()) * sizeof(float));
  return 0;
}

#endif

}  // namespace llmx::LLMX_ISA_NAME
