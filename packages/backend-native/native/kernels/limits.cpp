/** What the machine can do at most, to hold kernels against: multiply-adds in registers, and streaming through memory. */
#include "blur.h"

namespace llmx::LLMX_ISA_NAME {

namespace {

// Sums that run side by side: enough to hide a latency of 4 to 6 cycles on two units, few enough for the registers.
#if LLMX_ISA == LLMX_ISA_AVX512
constexpr int CHAINS = 24;
#else
constexpr int CHAINS = 12;
#endif

void multiply_add(int64_t iterations) {
  vec sums[CHAINS], factor = broadcast(0.999f), term = broadcast(0.001f);
  blur(term);
  // Unknown starts: equal sums would be computed once.
#pragma GCC unroll 24
  for (int j = 0; j < CHAINS; ++j) blur(sums[j] = broadcast(static_cast<float>(j)));
  for (int64_t i = 0; i < iterations; ++i) {
    blur(factor);
#pragma GCC unroll 24
    for (int j = 0; j < CHAINS; ++j) sums[j] = sums[j] * factor + term;
  }
#pragma GCC unroll 24
  for (int j = 0; j < CHAINS; ++j) blur(sums[j]);
}

}  // namespace

/**
 * LlmxPeak: multiply-adds in registers, the same number on every thread. Number: iterations per thread. Tensor: operations
 * (output, 1 float): floating-point operations done, two for each multiply-add.
 */
LLMX_KERNEL(LlmxPeak) {
  const int64_t iterations = call.integer(0);
  const int32_t threads = llmx_engine->threads;
  parallel(threads, [&](int64_t, int32_t) { multiply_add(iterations); });
  call.floats(0)[0] = static_cast<float>(iterations) * static_cast<float>(threads * 2 * CHAINS * LANES);
  return 0;
}

/**
 * LlmxStream: a = a + factor * b, which moves three times a tensor's size and no more (what is not read before it is written
 * would be read besides). Tensors: a (also the output), b, of one size. Number: factor.
 */
LLMX_KERNEL(LlmxStream) {
  float* __restrict a = call.floats(0);
  const float* __restrict b = call.floats(1);
  const float factor = static_cast<float>(call.number(0));
  parallel_chunks(call.size(0), 16384, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) a[i] += factor * b[i];
  });
  return 0;
}

}  // namespace llmx::LLMX_ISA_NAME
