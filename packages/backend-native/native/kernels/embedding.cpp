// Rows of a table by number, and the sums of rows that go back into it.
#include "memory.h"

namespace llmx::LLMX_ISA_NAME {

/** Whether all ids name rows; reports the first that does not, in the words of TensorFlow.js. */
static bool check_ids(const Call& call, int ids, int64_t rows, const char* op = "") {
  const int32_t* values = call.integers(ids);
  for (int64_t i = 0; i < call.size(ids); ++i) {
    if (values[i] >= 0 && values[i] < rows) continue;
    fail("%sthe index value %d is not in [0, %lld] (at position %lld)", op, values[i], static_cast<long long>(rows - 1),
         static_cast<long long>(i));
    return false;
  }
  return true;
}

/**
 * y[i] = weight[ids[i]]. Elements of four bytes of any type.
 * Tensors: weight [rows, width], ids int32 [count], y [count, width]. Numbers: rows, width, whether it is called
 * as TensorFlow.js's GatherV2, whose name an error then carries.
 */
LLMX_KERNEL(LlmxEmbedding) {
  const int64_t rows = call.integer(0), width = call.integer(1), count = call.size(1);
  if (!check_ids(call, 1, rows, call.flag(2) ? "GatherV2: " : "")) return 1;
  const auto* weight = static_cast<const int32_t*>(call.tensor(0).data);
  const int32_t* ids = call.integers(1);
  auto* y = static_cast<int32_t*>(call.tensor(2).data);
  const size_t bytes = static_cast<size_t>(width) * sizeof(int32_t);
  parallel_chunks(count, max(int64_t{1}, TASK_ELEMENTS / max(width, int64_t{1})), [=](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) std::memcpy(y + i * width, weight + ids[i] * width, bytes);
  });
  return 0;
}

/**
 * dWeight = sum + the rows of dy added up by id, in order.
 * Tensors: dy [count, width], ids int32 [count], sum [rows, width] (none: zeros; may be the memory of dWeight), dWeight
 * [rows, width]. Numbers: rows, width, whether rows whose id is outside of [0, rows) are left out.
 */
LLMX_KERNEL(LlmxEmbeddingGrad) {
  const int64_t rows = call.integer(0), width = call.integer(1), count = call.size(1);
  if (!call.flag(2) && !check_ids(call, 1, rows)) return 1;
  const float *dy = call.floats(0), *before = call.floats(2);
  const int32_t* ids = call.integers(1);
  float* sums = call.floats(3);
#if LLMX_ISA == LLMX_ISA_REFERENCE
  // In float64, column by column.
  double* column = scratch<double>(-1, 0, rows);
  if (column == nullptr && rows > 0) return 1;
  for (int64_t j = 0; j < width; ++j) {
    for (int64_t row = 0; row < rows; ++row) column[row] = before == nullptr ? 0 : before[row * width + j];
    for (int64_t i = 0; i < count; ++i)
      if (ids[i] >= 0 && ids[i] < rows) column[ids[i]] += dy[i * width + j];
    for (int64_t row = 0; row < rows; ++row) sums[row * width + j] = static_cast<float>(column[row]);
  }
#else
  if (before == nullptr) fill(sums, rows * width, 0);
  else if (before != sums)
    parallel_chunks(rows * width, TASK_ELEMENTS, [=](int64_t begin, int64_t end) {
      std::memcpy(sums + begin, before + begin, static_cast<size_t>(end - begin) * sizeof(float));
    });
  // Slices of 64 columns (four cache lines), each walking the ids in order: no two tasks write the same element.
  parallel_chunks(width, 64, [=](int64_t begin, int64_t end) {
    for (int64_t i = 0; i < count; ++i) {
      if (ids[i] < 0 || ids[i] >= rows) continue;
      const float* from = dy + i * width + begin;
      float* to = sums + ids[i] * width + begin;
      for_vectors(end - begin, [=](int64_t j, int64_t n) {
        store_some(to + j, load_some(to + j, n) + load_some(from + j, n), n);
      });
    }
  });
#endif
  return 0;
}

}  // namespace llmx::LLMX_ISA_NAME
