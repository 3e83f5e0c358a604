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
  ADD_SQUARE,         // c a + d b^2
  ADD_ROOT,           // d b + sqrt(c a)
};

/**
 * Elements that one call of a function computes at most: 512 bytes. An optimizer reads and writes seven arrays and keeps some
 * results; with blocks this short the processor reads the arrays at nearly the same time, as one loop by hand would, and the work
 * of one step goes on while the next begins. Shorter ones cost more in calls than they gain.
 */
constexpr int64_t BLOCK = 128;
/** What a function's number of elements is a multiple of. */
constexpr int64_t STRIDE = 4 * LANES;
static_assert(BLOCK % STRIDE == 0);

/**
 * y[0, n) = f(a, b, c, d), n a multiple of STRIDE. Factors are vectors of one value. An operand may be the same memory as y, and
 * those that the operation does not have are not read.
 */
using Function = void (*)(int64_t n, float* y, const float* a, const float* b, const float* c, const float* d);

/** y[i] = f(i) for vectors at i: four side by side, each written after its own operands were read. */
template <class F>
LLMX_INLINE void map(int64_t n, float* y, const F& f) {
  for (int64_t i = 0; i < n; i += STRIDE) {
    const vec y0 = f(i), y1 = f(i + LANES), y2 = f(i + 2 * LANES), y3 = f(i + 3 * LANES);
    store(y + i, y0);
    store(y + i + LANES, y1);
    store(y + i + 2 * LANES, y2);
    store(y + i + 3 * LANES, y3);
  }
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

/** y = f(c a), y = f(c a, d b), y = f(a, b, d c). */
template <class F>
void map_one(int64_t n, float* y, const float* a, const float*, const float* c, const float*) {
  const vec s = load(c);
  map(n, y, [=](int64_t i) { return F{}(s * load(a + i)); });
}
template <class F>
void map_two(int64_t n, float* y, const float* a, const float* b, const float* c, const float* d) {
  const vec s = load(c), t = load(d);
  map(n, y, [=](int64_t i) { return F{}(s * load(a + i), t * load(b + i)); });
}
template <class F>
void map_product(int64_t n, float* y, const float* a, const float* b, const float* c, const float* d) {
  const vec t = load(d);
  map(n, y, [=](int64_t i) { return F{}(load(a + i), load(b + i), t * load(c + i)); });
}
inline void add_square(int64_t n, float* y, const float* a, const float* b, const float* c, const float* d) {
  const vec s = load(c), t = load(d);
  map(n, y, [=](int64_t i) {
    const vec x = load(b + i);
    return s * load(a + i) + t * (x * x);
  });
}

template <class F>
constexpr Function one(F) { return map_one<F>; }
template <class F>
constexpr Function two(F) { return map_two<F>; }
template <class F>
constexpr Function product(F) { return map_product<F>; }

inline Function function_of(int32_t operation) {
  switch (operation) {
    case ABS: return one([](vec a) { return vabs(a); });
    case SIGN: return one([](vec a) { return sign_of(a); });
    case SQUARE: return one([](vec a) { return a * a; });
    case SQRT: return one([](vec a) { return vsqrt(a); });
    case EXP: return one([](vec a) { return vexp(a); });
    case LOG: return one([](vec a) { return vlog(a); });
    case TANH: return one([](vec a) { return vtanh(a); });
    case SIGMOID: return one([](vec a) { return vsigmoid(a); });
    case SOFTPLUS: return one([](vec a) { return vsoftplus(a); });
    case ERF: return one([](vec a) { return verf(a); });
    case ADD: return two([](vec a, vec b) { return a + b; });
    case SUBTRACT: return two([](vec a, vec b) { return a - b; });
    case MULTIPLY: return two([](vec a, vec b) { return a * b; });
    case DIVIDE: return two([](vec a, vec b) { return a / b; });
    case MINIMUM: return two([](vec a, vec b) { return lesser(a, b); });
    case MAXIMUM: return two([](vec a, vec b) { return greater(a, b); });
    case GREATER: return two([](vec a, vec b) { return select(a > b, broadcast(1), vec{}); });
    case MULTIPLY_ADD: return product([](vec a, vec b, vec c) { return a * b + c; });
    case MULTIPLY_SUBTRACT: return product([](vec a, vec b, vec c) { return a * b - c; });
    case SUBTRACT_MULTIPLY: return product([](vec a, vec b, vec c) { return c - a * b; });
    case SELECT: return product([](vec a, vec b, vec c) { return select(a != 0.0f, b, c); });
    case ADD_SQUARE: return add_square;
    case ADD_ROOT: return two([](vec a, vec b) { return b + vsqrt(a); });
    default: return one([](vec a) { return a; });
  }
}

}  // namespace llmx::LLMX_ISA_NAME
