/** What becomes of the sums of a product of matrices on their way to memory. */
#pragma once

#include "gelu.h"
#include "llmx/kernel.h"
#include "llmx/numbers.h"

namespace llmx::LLMX_ISA_NAME {

enum Activation { NO_ACTIVATION = 0, GELU = 1, GELU_BACKWARD = 2 };

/**
 * What is done to each sum v, in this order: v += bias[column]; the activation; v *= factor; v += residual; product = v. All
 * but the product may be null. The residual may be the product's own memory.
 *
 * GELU: second = v, v = gelu(v). GELU_BACKWARD, where the factor is what GELU was taken of: second = gelu(factor) and
 * v *= gelu'(factor) in the factor's place: one exponential serves both.
 */
struct Epilogue {
  Numbers product;
  Numbers second;
  const float* bias = nullptr;
  const float* residual = nullptr;
  Numbers factor;
  int64_t activation = NO_ACTIVATION;
  /** One bias for all elements: the product is a column, seen as a line. */
  bool one_bias = false;

  /** Whether sums are the product as they are. */
  bool is_plain() const {
    return bias == nullptr && residual == nullptr && !factor && activation == NO_ACTIVATION && !product.narrow;
  }
};

/**
 * Finishes `count` neighbouring elements: number `index` of the product on, from column `column` on. Their sums are `sums`,
 * plus `partial` where that is given.
 */
inline void finish_line(const Epilogue& epilogue, int64_t index, int64_t column, int64_t count, const float* sums,
                        const float* partial) {
  for (int64_t j = 0; j < count; j += LANES) {
    const int lanes = static_cast<int>(min<int64_t>(LANES, count - j));
    const auto get = [&](const float* from) { return lanes == LANES ? load(from) : load_first(from, lanes); };
    const int64_t at = index + j;
    vec v = get(sums + j);
    if (partial != nullptr) v = get(partial + j) + v;
    if (epilogue.bias != nullptr) v += epilogue.one_bias ? broadcast(epilogue.bias[0]) : get(epilogue.bias + column + j);
    vec slope;
    if (epilogue.activation == GELU) {
      if (epilogue.second) epilogue.second.store_some(at, v, lanes);
      v = vgelu(v, slope);
    } else if (epilogue.activation == GELU_BACKWARD) {
      const vec value = vgelu(epilogue.factor.load_some(at, lanes), slope);
      if (epilogue.second) epilogue.second.store_some(at, value, lanes);
      v *= slope;
    } else if (epilogue.factor) {
      v *= epilogue.factor.load_some(at, lanes);
    }
    if (epilogue.residual != nullptr) v += get(epilogue.residual + at);
    epilogue.product.store_some(at, v, lanes);
  }
}

/** How a tile's sums go to memory: see Epilogue. */
template <int ACTIVATION>
struct Finish {
  const Epilogue& epilogue;
  int64_t index, line, column;
  /** Sums of earlier blocks, or null. */
  const float* partial;
  int64_t partial_line;

  /** Brings what finishing a row reads and writes into the cache while sums are formed. */
  LLMX_INLINE void fetch(int row, int vectors) const {
    const Numbers residual = epilogue.residual;
    const Numbers* const tensors[] = {&epilogue.product, &epilogue.second, &residual, &epilogue.factor};
    for (const Numbers* tensor : tensors) {
      if (!*tensor) continue;
      const char* from = tensor->data + (index + row * line) * tensor->bytes_each();
      for (int64_t j = 0; j < vectors * LANES * tensor->bytes_each(); j += 64) __builtin_prefetch(from + j);
    }
  }
  template <int WIDTH>
  LLMX_INLINE void take(int row, const vec (&sums)[WIDTH]) const {
    const int64_t at = index + row * line;
    vec v[WIDTH];
#pragma GCC unroll 3
    for (int j = 0; j < WIDTH; ++j) v[j] = sums[j];
    if (partial != nullptr)
#pragma GCC unroll 3
      for (int j = 0; j < WIDTH; ++j) v[j] = load(partial + row * partial_line + j * LANES) + v[j];
    if (epilogue.bias != nullptr)
#pragma GCC unroll 3
      for (int j = 0; j < WIDTH; ++j) v[j] += load(epilogue.bias + column + j * LANES);
    activate(at, v);
    if (epilogue.residual != nullptr)
#pragma GCC unroll 3
      for (int j = 0; j < WIDTH; ++j) v[j] += load(epilogue.residual + at + j * LANES);
    store_lines(epilogue.product, at, v);
  }

 private:
  template <int WIDTH>
  static LLMX_INLINE void store_lines(Numbers to, int64_t at, const vec (&v)[WIDTH]) {
#pragma GCC unroll 3
    for (int j = 0; j < WIDTH; ++j) to.store_some(at + j * LANES, v[j], LANES);
  }

  /** The activation, or multiplication by the factor. */
  template <int WIDTH>
  LLMX_INLINE void activate(int64_t at, vec (&v)[WIDTH]) const {
    vec slope[WIDTH], value[WIDTH];
    if constexpr (ACTIVATION == GELU) {
      if (epilogue.second) store_lines(epilogue.second, at, v);
#pragma GCC unroll 3
      for (int j = 0; j < WIDTH; ++j) v[j] = vgelu(v[j], slope[j]);
    } else if constexpr (ACTIVATION == GELU_BACKWARD) {
#pragma GCC unroll 3
      for (int j = 0; j < WIDTH; ++j) value[j] = vgelu(epilogue.factor.load_some(at + j * LANES, LANES), slope[j]);
      if (epilogue.second) store_lines(epilogue.second, at, value);
#pragma GCC unroll 3
      for (int j = 0; j < WIDTH; ++j) v[j] *= slope[j];
    } else if (epilogue.factor) {
#pragma GCC unroll 3
      for (int j = 0; j < WIDTH; ++j) v[j] *= epilogue.factor.load_some(at + j * LANES, LANES);
    }
  }
};

}  // namespace llmx::LLMX_ISA_NAME
