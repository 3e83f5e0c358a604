/**
 * Rotary position embedding: turns the pairs (i, i + size / 2) of each head.
 *
 * LlmxRotary: x, cos, sin; y. x and y: float32 [batch, time, heads, size]; cos and sin: float32 [positionBatch, time, 1,
 * size / 2], positionBatch being 1 or batch.
 *     y1 = x1 cos - x2 sin;  y2 = x2 cos + x1 sin
 * Numbers: batch, time, heads, size, positionBatch.
 */
#include "llmx/kernel.h"

namespace llmx::LLMX_ISA_NAME {

namespace {

struct Rotation {
  int64_t batch, time, heads, size, position_batch;
  const float *x, *cos, *sin;
  float* y;

  explicit Rotation(const Call& call)
      : batch(call.integer(0)), time(call.integer(1)), heads(call.integer(2)), size(call.integer(3)),
        position_batch(call.integer(4)), x(call.floats(0)), cos(call.floats(1)), sin(call.floats(2)), y(call.floats(3)) {}

  /** Turns the heads of a position, which is counted over all sequences. */
  void turn(int64_t position) const {
    const int64_t half = size / 2, row = position_batch == 1 ? position % time : position;
    for (int64_t head = 0; head < heads; ++head) {
      const int64_t at = (position * heads + head) * size;
      turn_head(x + at, cos + row * half, sin + row * half, y + at, half);
    }
  }

  static void turn_head(const float* __restrict from, const float* __restrict c, const float* __restrict s,
                        float* __restrict to, int64_t half) {
#if LLMX_ISA == LLMX_ISA_REFERENCE
    for (int64_t i = 0; i < half; ++i) {
      const double first = from[i], second = from[i + half];
      to[i] = static_cast<float>(first * c[i] - second * s[i]);
      to[i + half] = static_cast<float>(second * c[i] + first * s[i]);
    }
#else
    const auto part = [&](int64_t i, auto get, auto put) {
      const vec first = get(from + i), second = get(from + i + half), cosine = get(c + i), sine = get(s + i);
      put(to + i, first * cosine - second * sine);
      put(to + i + half, second * cosine + first * sine);
    };
    int64_t i = 0;
    for (; i + LANES <= half; i += LANES)
      part(i, [](const float* p) { return load(p); }, [](float* p, vec v) { store(p, v); });
    const int rest = static_cast<int>(half - i);
    if (rest > 0)
      part(i, [&](const float* p) { return load_first(p, rest); }, [&](float* p, vec v) { store_first(p, v, rest); });
#endif
  }
};

}  // namespace

LLMX_KERNEL(LlmxRotary) {
  const Rotation rotation(call);
  const int64_t positions = rotation.batch * rotation.time;
#if LLMX_ISA == LLMX_ISA_REFERENCE
  for (int64_t i = 0; i < positions; ++i) rotation.turn(i);
#else
  // About 64 KiB per task: far more than the cost of handing it out, and enough tasks for many cores.
  const int64_t chunk = max<int64_t>(1, 16384 / max<int64_t>(1, rotation.heads * rotation.size));
  parallel_chunks(positions, chunk, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) rotation.turn(i);
  });
#endif
  return 0;
}

}  // namespace llmx::LLMX_ISA_NAME
