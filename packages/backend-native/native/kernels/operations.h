/** The operations of elementwise programs, on vectors, and loops over their operands. */
#pragma once

#include "llmx/vector_math.h"
#include "memory.h"

namespace llmx::LLMX_ISA_NAME {

/**
 * Numbered as in src/kernels/assemble.ts. Operands are scaled first: those of one operand take c as a factor; those of two,
 * c and d; the products take d as a factor of c. So what an optimizer does (b m + (1 - b) g) is one operation.
 */
enum Operation : int32_t {
  COPY,
  ABS,
  SIGN,
  SQUARE,
  SQRT,
  EXP,
  LOG,
  TANH,
  SIGMOID,
  SOFTPLUS,
  ERF,
  ADD,
  SUBTRACT,
  MULTIPLY,
  DIVIDE,
  MINIMUM,
  MAXIMUM,
  GREATER,
  MULTIPLY_ADD,       // a b + d c
  MULTIPLY_SUBTRACT,  // a b - d c
  SUBTRACT_MULTIPLY,  // d c - a b
  SELECT,             // a != 0 ? b : c
};

/** Elements at `data`, LANES to a step; or, where `step` is 0, one vector that stands for all of them. */
struct Operand {
  const float* data;
  int64_t step;
};

/** The vector `index` steps on, and the last `count` elements there. */
LLMX_INLINE vec read(Operand x, int64_t index) { return load(x.data + index * x.step); }
LLMX_INLINE vec read_last(Operand x, int count) { return x.step == 0 ? load(x.data) : load_first(x.data, count); }

/**
 * y[i] = f(a[i], ...). An operand may be the same memory as y: elements are written after their own operands were read.
 * Four vectors at a time, at multiples of `step` that addresses can hold.
 */
template <class F, class... Operands>
LLMX_INLINE void map(int64_t n, float* y, const F& f, Operands... x) {
  for (; n >= 4 * LANES; n -= 4 * LANES, y += 4 * LANES) {
    const vec y0 = f(read(x, 0)...), y1 = f(read(x, 1)...), y2 = f(read(x, 2)...), y3 = f(read(x, 3)...);
    store(y, y0);
    store(y + LANES, y1);
    store(y + 2 * LANES, y2);
    store(y + 3 * LANES, y3);
    ((x.data += 4 * x.step), ...);
  }
  for (; n >= LANES; n -= LANES, y += LANES) {
    store(y, f(read(x, 0)...));
    ((x.data += x.step), ...);
  }
  if (n > 0) store_first(y, f(read_last(x, static_cast<int>(n))...), static_cast<int>(n));
}

LLMX_INLINE vec sign_of(vec x) {
  // A comparison gives -1 in lanes where it holds. Zeros keep their sign, NaN stays.
  const vec sign = __builtin_convertvector((x < 0.0f) - (x > 0.0f), vec);
  return select((x < 0.0f) | (x > 0.0f), sign, x);
}

/** As Math.min and Math.max: NaN where either is, and -0 below 0. */
LLMX_INLINE vec lesser(vec a, vec b) {
  // Equal or not comparable: the bits of both together are -0 if either is, NaN if either is, else their common value.
  const vec both = from_bits(bits_of(a) | bits_of(b));
  return select(a < b, a, select(b < a, b, both));
}
LLMX_INLINE vec greater(vec a, vec b) {
  const vec both = select(a == b, from_bits(bits_of(a) & bits_of(b)), a + b);
  return select(a > b, a, select(b > a, b, both));
}

/** y = f(s a), y = f(s a, t b), y = f(a, b, t c): factors are single vectors. */
template <class F>
LLMX_INLINE void map_one(int64_t n, float* y, const Operand& a, const Operand& factor, const F& f) {
  const vec s = load(factor.data);
  map(n, y, [=](vec x) { return f(s * x); }, a);
}
template <class F>
LLMX_INLINE void map_two(int64_t n, float* y, const Operand (&x)[4], const F& f) {
  const vec s = load(x[2].data), t = load(x[3].data);
  map(n, y, [=](vec a, vec b) { return f(s * a, t * b); }, x[0], x[1]);
}
template <class F>
LLMX_INLINE void map_product(int64_t n, float* y, const Operand (&x)[4], const F& f) {
  const vec t = load(x[3].data);
  map(n, y, [=](vec a, vec b, vec c) { return f(a, b, t * c); }, x[0], x[1], x[2]);
}

/** y = operation(x = a, b, c, d) for n elements. Operands that the operation does not have are not read. */
inline void apply(int32_t operation, int64_t n, float* y, const Operand (&x)[4]) {
  switch (operation) {
    case COPY: return map_one(n, y, x[0], x[2], [](vec a) { return a; });
    case ABS: return map_one(n, y, x[0], x[2], [](vec a) { return vabs(a); });
    case SIGN: return map_one(n, y, x[0], x[2], [](vec a) { return sign_of(a); });
    case SQUARE: return map_one(n, y, x[0], x[2], [](vec a) { return a * a; });
    case SQRT: return map_one(n, y, x[0], x[2], [](vec a) { return vsqrt(a); });
    case EXP: return map_one(n, y, x[0], x[2], [](vec a) { return vexp(a); });
    case LOG: return map_one(n, y, x[0], x[2], [](vec a) { return vlog(a); });
    case TANH: return map_one(n, y, x[0], x[2], [](vec a) { return vtanh(a); });
    case SIGMOID: return map_one(n, y, x[0], x[2], [](vec a) { return vsigmoid(a); });
    case SOFTPLUS: return map_one(n, y, x[0], x[2], [](vec a) { return vsoftplus(a); });
    case ERF: return map_one(n, y, x[0], x[2], [](vec a) { return verf(a); });
    case ADD: return map_two(n, y, x, [](vec a, vec b) { return a + b; });
    case SUBTRACT: return map_two(n, y, x, [](vec a, vec b) { return a - b; });
    case MULTIPLY: return map_two(n, y, x, [](vec a, vec b) { return a * b; });
    case DIVIDE: return map_two(n, y, x, [](vec a, vec b) { return a / b; });
    case MINIMUM: return map_two(n, y, x, [](vec a, vec b) { return lesser(a, b); });
    case MAXIMUM: return map_two(n, y, x, [](vec a, vec b) { return greater(a, b); });
    case GREATER: return map_two(n, y, x, [](vec a, vec b) { return select(a > b, broadcast(1), vec{}); });
    case MULTIPLY_ADD: return map_product(n, y, x, [](vec a, vec b, vec c) { return a * b + c; });
    case MULTIPLY_SUBTRACT: return map_product(n, y, x, [](vec a, vec b, vec c) { return a * b - c; });
    case SUBTRACT_MULTIPLY: return map_product(n, y, x, [](vec a, vec b, vec c) { return c - a * b; });
    case SELECT: return map(n, y, [](vec a, vec b, vec c) { return select(a != 0.0f, b, c); }, x[0], x[1], x[2]);
    default: return;
  }
}

}  // namespace llmx::LLMX_ISA_NAME
