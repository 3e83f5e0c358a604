/**
 * Rotary position embedding: turns the pairs (i, i + size / 2) of each head.
 *
 * LlmxRotary: x, cos, sin; y. x and y: float32 [batch, time, heads, size]; cos and sin: float32 [positionBatch, time, 1,
 * size / 2], positionBatch being 1 or batch.
 *     y1 = x1 cos - x2 sin;  y2 = x2 cos + x1 sin
 * x and y may lie in memory as bfloat16. Numbers: batch, time, heads, size, positionBatch.
 */
#include "llmx/numbers.h"
#include "memory.h"

namespace llmx::LLMX_ISA_NAME {

namespace {

struct Rotation {
  int64_t batch, time, heads, size, position_batch;
  Numbers x, y;
  const float *cos, *sin;

  explicit Rotation(const Call& call)
      : batch(call.integer(0)), time(call.integer(1)), heads(call.integer(2)), size(call.integer(3)),
        position_batch(call.integer(4)), x(numbers(call, 0)), y(numbers(call, 3)), cos(call.floats(1)), sin(call.floats(2)) {}

  /** Turns the heads of a position, which is counted over all sequences. */
  void turn(int64_t position) const {
    const int64_t half = size / 2, row = position_batch == 1 ? position % time : position;
    for (int64_t head = 0; head < heads; ++head) {
      const int64_t at = (position * heads + head) * size;
      turn_head(x.from(at), cos + row * half, sin + row * half, y.from(at), half);
    }
  }

  static void turn_head(Numbers from, const float* __restrict c, const float* __restrict s, Numbers to, int64_t half) {
#if LLMX_ISA == LLMX_ISA_REFERENCE
    for (int64_t i = 0; i < half; ++i) {
      const double first = from.get(i), second = from.get(i + half);
      to.put(i, static_cast<float>(first * c[i] - second * s[i]));
      to.put(i + half, static_cast<float>(second * c[i] + first * s[i]));
    }
#else
    for_vectors(half, [&](int64_t i, int64_t n) {
      const vec first = from.load_some(i, n), second = from.load_some(i + half, n);
      const vec cosine = load_some(c + i, n), sine = load_some(s + i, n);
      to.store_some(i, first * cosine - second * sine, n);
      to.store_some(i + half, second * cosine + first * sine, n);
    });
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
