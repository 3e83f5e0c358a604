// AdamW as one would write it by hand: the yardstick of the engine's elementwise programs.
#include "llmx/kernel.h"

namespace llmx::LLMX_ISA_NAME {

// parameter, gradient, m, v, in place; numbers: lr, beta1, beta2, epsilon, decay, correction1, correction2.
LLMX_KERNEL(BenchAdamw) {
  float* __restrict p = call.floats(0);
  const float* __restrict g = call.floats(1);
  float* __restrict m = call.floats(2);
  float* __restrict v = call.floats(3);
  const auto number = [&](int index) { return static_cast<float>(call.number(index)); };
  const float lr = number(0), beta1 = number(1), beta2 = number(2), epsilon = number(3), decay = number(4);
  const float correction1 = number(5), correction2 = number(6);
  parallel_chunks(call.size(0), 16384, [=](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      m[i] = beta1 * m[i] + (1 - beta1) * g[i];
      v[i] = beta2 * v[i] + (1 - beta2) * g[i] * g[i];
      p[i] = p[i] * (1 - lr * decay) - lr * (m[i] / correction1) / (sqrtf(v[i] / correction2) + epsilon);
    }
  });
  return 0;
}

}  // namespace llmx::LLMX_ISA_NAME
