/**
 * LlmxMatmul: product = epilogue(op(a) op(b)) for a batch of matrices.
 *
 * Tensors: a [batches, m, k] (transposeA: [batches, k, m]; broadcastA: one for the whole batch), b [batches, k, n] (transposeB:
 * [batches, n, k]), bias? [n], residual? and factor? [batches, m, n]; outputs product and second? [batches, m, n].
 * Numbers: batches, m, n, k, transposeA, transposeB, broadcastA, broadcastB, activation (0: none, 1: exact GELU, 2: its backward
 * pass; see Epilogue in matmul.h), bfloat16 (whether a and b are rounded to it; sums and everything else are float32).
 * a, b, factor, product and second may lie in memory as bfloat16.
 *
 * For each element, in this order: v = sum over k; v += bias[column]; the activation; v *= factor; v += residual; product = v.
 * The product may be the residual's own memory and overlaps nothing else.
 */
#include "matmul.h"

namespace llmx::LLMX_ISA_NAME {

namespace {

struct Batch {
  int64_t count;
  bool broadcast_a, broadcast_b;
  Matmul first;

  explicit Batch(const Call& call) : count(call.integer(0)), broadcast_a(call.flag(6)), broadcast_b(call.flag(7)) {
    first.m = call.integer(1);
    first.n = first.line = call.integer(2);
    first.k = call.integer(3);
    first.a = numbers(call, 0);
    first.transpose_a = call.flag(4);
    first.a_line = first.transpose_a ? first.m : first.k;
    first.b = numbers(call, 1);
    first.transpose_b = call.flag(5);
    first.b_line = first.transpose_b ? first.k : first.n;
    first.accumulate = false;
    first.bfloat16 = call.flag(9);
    first.epilogue = {numbers(call, 5), numbers(call, 6), call.floats(2), call.floats(3), numbers(call, 4),
                      call.integer(8)};
  }

  Matmul entry(int64_t index) const {
    Matmul matmul = first;
    const int64_t begin = index * matmul.m * matmul.n;
    const auto shift = [&](Numbers& tensor) {
      if (tensor) tensor = tensor.from(begin);
    };
    if (!broadcast_a) matmul.a = matmul.a.from(index * matmul.m * matmul.k);
    if (!broadcast_b) matmul.b = matmul.b.from(index * matmul.k * matmul.n);
    shift(matmul.epilogue.product);
    shift(matmul.epilogue.second);
    shift(matmul.epilogue.factor);
    if (matmul.epilogue.residual != nullptr) matmul.epilogue.residual += begin;
    return matmul;
  }
};

#if LLMX_ISA == LLMX_ISA_REFERENCE

void finish(const Epilogue& epilogue, int64_t index, int64_t column, double v) {
  if (epilogue.bias != nullptr) v += epilogue.bias[column];
  const auto cumulative = [](double x) { return 0.5 * std::erfc(-x * 0.70710678118654752440); };
  if (epilogue.activation == GELU) {
    if (epilogue.second) epilogue.second.put(index, static_cast<float>(v));
    v *= cumulative(v);
  } else if (epilogue.activation == GELU_BACKWARD) {
    const double x = epilogue.factor.get(index);
    if (epilogue.second) epilogue.second.put(index, static_cast<float>(x * cumulative(x)));
    v *= cumulative(x) + x * 0.39894228040143267794 * std::exp(-0.5 * x * x);
  } else if (epilogue.factor) {
    v *= epilogue.factor.get(index);
  }
  if (epilogue.residual != nullptr) v += epilogue.residual[index];
  epilogue.product.put(index, static_cast<float>(v));
}

int32_t multiply_batch(const Batch& batch) {
  for (int64_t index = 0; index < batch.count; ++index) {
    const Matmul matmul = batch.entry(index);
    for (int64_t i = 0; i < matmul.m; ++i)
      for (int64_t j = 0; j < matmul.n; ++j) {
        double sum = 0;
        const auto get = [&](Numbers x) -> double { return matmul.bfloat16 ? rounded(x.get(0)) : x.get(0); };
        for (int64_t p = 0; p < matmul.k; ++p) sum += get(matmul.a_from(i, p)) * get(matmul.b_from(p, j));
        finish(matmul.epilogue, i * matmul.n + j, j, sum);
      }
  }
  return 0;
}

#else

template <class Format>
int32_t multiply_batch_as(Batch batch) {
  // One matrix for all: the batch is one tall product.
  if (batch.broadcast_b && !batch.broadcast_a && !batch.first.transpose_a) {
    batch.first.m *= batch.count;
    batch.count = 1;
  }
  const int64_t m = batch.first.m, n = batch.first.n, k = batch.first.k;
  if (batch.count * m * n == 0) return 0;
  const int64_t work = m * n * k;
  // Many products that each fit a core's second-level cache, or small ones: a task takes one, or several tiny ones.
  if (batch.count > 1 && work > 0 && (m + n) * k <= 1 << 18 && (batch.count >= 16 || work <= 1 << 21)) {
    const int64_t group = max<int64_t>(1, (1 << 16) / work);
    parallel(divide_up(batch.count, group), [&](int64_t task, int32_t worker) {
      for (int64_t index = task * group; index < min(batch.count, (task + 1) * group); ++index)
        by_layout<Format>(batch.first, [&](auto operand) { multiply_alone<Format, decltype(operand)>(batch.entry(index), worker); });
    });
    return 0;
  }
  for (int64_t index = 0; index < batch.count; ++index)
    if (multiply(batch.entry(index)) != 0) return 1;
  return 0;
}

int32_t multiply_batch(const Batch& batch) {
  return batch.first.bfloat16 ? multiply_batch_as<Bfloat16>(batch) : multiply_batch_as<Float32>(batch);
}

#endif

}  // namespace

LLMX_KERNEL(LlmxMatmul) { return multiply_batch(Batch(call)); }

}  // namespace llmx::LLMX_ISA_NAME
