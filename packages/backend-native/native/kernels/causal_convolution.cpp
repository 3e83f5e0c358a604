/**
 * Causal depthwise convolution over time, and its gradient. Positions before the first are zero:
 *     y[t] = bias + sum over j of weight[j] * x[t - (taps - 1 - j)]
 *
 * LlmxCausalConvolution: x, weight, bias?; y.
 * LlmxCausalConvolutionGrad: dy, x, weight; dx, dWeight, dBias.
 * x, y and their gradients: float32 [batch, time, channels]; weight: [taps, channels]; bias: [channels].
 * Numbers: batch, time, channels, taps.
 */
#include "llmx/kernel.h"

namespace llmx::LLMX_ISA_NAME {

namespace {

struct Convolution {
  int64_t batch, time, channels, taps;

  explicit Convolution(const Call& call)
      : batch(call.integer(0)), time(call.integer(1)), channels(call.integer(2)), taps(call.integer(3)) {}

  /** By how much the tap looks back. */
  int64_t lag(int64_t tap) const { return taps - 1 - tap; }
  /** The first tap that looks at a position from `t` steps into the sequence on. */
  int64_t first_tap(int64_t t) const { return max<int64_t>(0, taps - 1 - t); }
};

}  // namespace

#if LLMX_ISA == LLMX_ISA_REFERENCE

LLMX_KERNEL(LlmxCausalConvolution) {
  const Convolution v(call);
  const float *x = call.floats(0), *weight = call.floats(1), *bias = call.floats(2);
  float* y = call.floats(3);
  for (int64_t b = 0; b < v.batch; ++b)
    for (int64_t t = 0; t < v.time; ++t)
      for (int64_t c = 0; c < v.channels; ++c) {
        double sum = bias == nullptr ? 0 : bias[c];
        for (int64_t tap = v.first_tap(t); tap < v.taps; ++tap)
          sum += static_cast<double>(weight[tap * v.channels + c]) * x[(b * v.time + t - v.lag(tap)) * v.channels + c];
        y[(b * v.time + t) * v.channels + c] = static_cast<float>(sum);
      }
  return 0;
}

LLMX_KERNEL(LlmxCausalConvolutionGrad) {
  const Convolution v(call);
  const float *dy = call.floats(0), *x = call.floats(1), *weight = call.floats(2);
  float *dx = call.floats(3), *d_weight = call.floats(4), *d_bias = call.floats(5);
  for (int64_t c = 0; c < v.channels; ++c) {
    double bias_sum = 0;
    for (int64_t b = 0; b < v.batch; ++b)
      for (int64_t t = 0; t < v.time; ++t) {
        double sum = 0;
        for (int64_t tap = v.first_tap(v.time - 1 - t); tap < v.taps; ++tap)
          sum += static_cast<double>(weight[tap * v.channels + c]) * dy[(b * v.time + t + v.lag(tap)) * v.channels + c];
        dx[(b * v.time + t) * v.channels + c] = static_cast<float>(sum);
        bias_sum += dy[(b * v.time + t) * v.channels + c];
      }
    d_bias[c] = static_cast<float>(bias_sum);
    for (int64_t tap = 0; tap < v.taps; ++tap) {
      double sum = 0;
      for (int64_t b = 0; b < v.batch; ++b)
        for (int64_t t = v.lag(tap); t < v.time; ++t) {
          const int64_t at = (b * v.time + t) * v.channels + c;
          sum += static_cast<double>(dy[at]) * x[at - v.lag(tap) * v.channels];
        }
      d_weight[tap * v.channels + c] = static_cast<float>(sum);
    }
  }
  return 0;
}

#else

namespace {

/** f(channel, width) for vectors of channels in [begin, end); width is less than LANES only in the last. */
template <class F>
LLMX_INLINE void for_vectors(int64_t begin, int64_t end, const F& f) {
  int64_t c = begin;
  for (; c + LANES <= end; c += LANES) f(c, [](const float* p) { return load(p); }, [](float* p, vec v) { store(p, v); });
  const int rest = static_cast<int>(end - c);
  if (rest > 0) f(c, [&](const float* p) { return load_first(p, rest); }, [&](float* p, vec v) { store_first(p, v, rest); });
}

/**
 * Positions taken together: weights are loaded once for all of them, and sums of weight gradients updated once. Their rows
 * are read side by side, each too short for a processor to see a stream: the next ones are asked for beforehand, which makes
 * the gradient three times as fast.
 */
constexpr int ROWS = 4;
/** A task's positions: bound by memory, so all that matters is that rows stay in a cache from one tap to the next. */
constexpr int64_t FORWARD_ROWS = 32;
/** Positions whose weight gradients are summed in one go, and channels: sums for 4 taps are 5 KiB, and the partial results
 *  that wait to be added are 2% of dy. */
constexpr int64_t GRADIENT_ROWS = 256, GRADIENT_CHANNELS = 256;

/** Positions of one sequence. */
struct ForwardPart {
  const Convolution& v;
  const float *x, *weight, *bias;  // x and y: of the sequence
  float* y;

  /** COUNT positions from t on; all see the taps from first_tap on. */
  template <int COUNT>
  void rows(int64_t t, int64_t first_tap) const {
    for_vectors(0, v.channels, [&](int64_t c, auto get, auto put) {
      vec sums[COUNT];
      for (int r = 0; r < COUNT; ++r) {
        sums[r] = bias == nullptr ? vec{} : get(bias + c);
        __builtin_prefetch(x + (t + COUNT + r) * v.channels + c);
      }
      for (int64_t tap = first_tap; tap < v.taps; ++tap) {
        const vec factor = get(weight + tap * v.channels + c);
        const float* from = x + (t - v.lag(tap)) * v.channels + c;
        for (int r = 0; r < COUNT; ++r) sums[r] += factor * get(from + r * v.channels);
      }
      for (int r = 0; r < COUNT; ++r) put(y + (t + r) * v.channels + c, sums[r]);
    });
  }

  void run(int64_t begin, int64_t end) const {
    int64_t t = begin;
    while (t < end) {
      const bool together = v.first_tap(t) == 0 && t + ROWS <= end;
      together ? rows<ROWS>(t, 0) : rows<1>(t, v.first_tap(t));
      t += together ? ROWS : 1;
    }
  }
};

/** Positions of one sequence and a slice of channels: dx, and this part's sums [taps + 1, channels]. */
struct GradientPart {
  const Convolution& v;
  const float *dy, *x, *weight;  // dy, x, dx: of the sequence
  float* dx;
  float* sums;  // dWeight, then dBias
  int64_t first_channel, end_channel;

  /** COUNT positions from t on: all see the taps from first_tap on; their dx has those from first_dx_tap on. */
  template <int COUNT>
  void rows(int64_t t, int64_t first_tap, int64_t first_dx_tap) const {
    for_vectors(first_channel, end_channel, [&](int64_t c, auto get, auto put) {
      vec d[COUNT], results[COUNT];
      for (int r = 0; r < COUNT; ++r) {
        d[r] = get(dy + (t + r) * v.channels + c);
        results[r] = vec{};
        __builtin_prefetch(dy + (t + COUNT + v.taps + r) * v.channels + c);
        __builtin_prefetch(x + (t + COUNT + r) * v.channels + c);
      }
      for (int64_t tap = first_tap; tap < v.taps; ++tap) {
        const float* from = x + (t - v.lag(tap)) * v.channels + c;
        vec sum = get(sums + tap * v.channels + c);
        for (int r = 0; r < COUNT; ++r) sum += d[r] * get(from + r * v.channels);
        put(sums + tap * v.channels + c, sum);
      }
      for (int64_t tap = first_dx_tap; tap < v.taps; ++tap) {
        const vec factor = get(weight + tap * v.channels + c);
        const float* from = dy + (t + v.lag(tap)) * v.channels + c;
        for (int r = 0; r < COUNT; ++r) results[r] += factor * get(from + r * v.channels);
      }
      vec bias_sum = get(sums + v.taps * v.channels + c);
      for (int r = 0; r < COUNT; ++r) {
        bias_sum += d[r];
        put(dx + (t + r) * v.channels + c, results[r]);
      }
      put(sums + v.taps * v.channels + c, bias_sum);
    });
  }

  void run(int64_t begin, int64_t end) const {
    const size_t slice = static_cast<size_t>(end_channel - first_channel) * sizeof(float);
    for (int64_t row = 0; row <= v.taps; ++row) std::memset(sums + row * v.channels + first_channel, 0, slice);
    int64_t t = begin;
    while (t < end) {
      const int64_t behind = v.time - 1 - t;  // positions that follow
      const bool together = v.first_tap(t) == 0 && t + ROWS <= end && v.first_tap(behind - (ROWS - 1)) == 0;
      together ? rows<ROWS>(t, 0, 0) : rows<1>(t, v.first_tap(t), v.first_tap(behind));
      t += together ? ROWS : 1;
    }
  }
};

}  // namespace

LLMX_KERNEL(LlmxCausalConvolution) {
  const Convolution v(call);
  const int64_t chunks = divide_up(v.time, FORWARD_ROWS);
  parallel(v.batch * chunks, [&](int64_t index, int32_t) {
    const int64_t sequence = index / chunks * v.time * v.channels, begin = index % chunks * FORWARD_ROWS;
    const ForwardPart part{v, call.floats(0) + sequence, call.floats(1), call.floats(2), call.floats(3) + sequence};
    part.run(begin, min(v.time, begin + FORWARD_ROWS));
  });
  return 0;
}

LLMX_KERNEL(LlmxCausalConvolutionGrad) {
  const Convolution v(call);
  const float *dy = call.floats(0), *x = call.floats(1), *weight = call.floats(2);
  float *dx = call.floats(3), *d_weight = call.floats(4), *d_bias = call.floats(5);
  const int64_t chunks = divide_up(v.time, GRADIENT_ROWS), slices = divide_up(v.channels, GRADIENT_CHANNELS);
  const int64_t parts = v.batch * chunks, part_size = (v.taps + 1) * v.channels;
  float* sums = scratch<float>(-1, 0, max<int64_t>(1, parts) * part_size);
  if (sums == nullptr) return 1;
  parallel(parts * slices, [&](int64_t index, int32_t) {
    const int64_t part = index / slices, first_channel = index % slices * GRADIENT_CHANNELS;
    const int64_t sequence = part / chunks * v.time * v.channels, begin = part % chunks * GRADIENT_ROWS;
    const int64_t end_channel = min(v.channels, first_channel + GRADIENT_CHANNELS);
    const GradientPart task{v,           dy + sequence, x + sequence, weight, dx + sequence, sums + part * part_size,
                            first_channel, end_channel};
    task.run(begin, min(v.time, begin + GRADIENT_ROWS));
  });
  // The parts are added in their order.
  parallel_chunks(part_size, 4096, [&](int64_t begin, int64_t end) {
    for_vectors(begin, end, [&](int64_t i, auto get, auto put) {
      vec sum = vec{};
      for (int64_t part = 0; part < parts; ++part) sum += get(sums + part * part_size + i);
      put(sums + i, sum);
    });
  });
  std::memcpy(d_weight, sums, static_cast<size_t>(v.taps * v.channels) * sizeof(float));
  std::memcpy(d_bias, sums + v.taps * v.channels, static_cast<size_t>(v.channels) * sizeof(float));
  return 0;
}

#endif

}  // namespace llmx::LLMX_ISA_NAME
