/**
 * A linear map of each block of features with a matrix of its own: y[block] = x[block] weight[block].
 *
 * XlstmHeadwise: x, weight; y.
 * XlstmHeadwiseGrad: dy, x, weight; dX, dWeight.
 * x, dX: float32 [rows, blocks, inputs]; weight, dWeight: [blocks, inputs, outputs]; y, dy: [rows, blocks, outputs].
 * Numbers: rows, blocks, inputs, outputs.
 */
#include "products.h"

namespace llmx::LLMX_ISA_NAME {

namespace {

struct Headwise {
  int64_t rows, blocks, inputs, outputs;

  explicit Headwise(const Call& call)
      : rows(call.integer(0)), blocks(call.integer(1)), inputs(call.integer(2)), outputs(call.integer(3)) {}

  int64_t x_width() const { return blocks * inputs; }
  int64_t y_width() const { return blocks * outputs; }
  int64_t weights() const { return blocks * inputs * outputs; }
};

}  // namespace

#if LLMX_ISA == LLMX_ISA_REFERENCE

LLMX_KERNEL(XlstmHeadwise) {
  const Headwise v(call);
  const float *x = call.floats(0), *weight = call.floats(1);
  for (int64_t row = 0; row < v.rows; ++row)
    for (int64_t block = 0; block < v.blocks; ++block)
      for (int64_t o = 0; o < v.outputs; ++o) {
        double sum = 0;
        for (int64_t i = 0; i < v.inputs; ++i)
          sum += static_cast<double>(x[row * v.x_width() + block * v.inputs + i]) * weight[(block * v.inputs + i) * v.outputs + o];
        call.floats(2)[row * v.y_width() + block * v.outputs + o] = static_cast<float>(sum);
      }
  return 0;
}

LLMX_KERNEL(XlstmHeadwiseGrad) {
  const Headwise v(call);
  const float *dy = call.floats(0), *x = call.floats(1), *weight = call.floats(2);
  for (int64_t block = 0; block < v.blocks; ++block)
    for (int64_t i = 0; i < v.inputs; ++i) {
      for (int64_t row = 0; row < v.rows; ++row) {
        double sum = 0;
        for (int64_t o = 0; o < v.outputs; ++o)
          sum += static_cast<double>(dy[row * v.y_width() + block * v.outputs + o]) * weight[(block * v.inputs + i) * v.outputs + o];
        call.floats(3)[row * v.x_width() + block * v.inputs + i] = static_cast<float>(sum);
      }
      for (int64_t o = 0; o < v.outputs; ++o) {
        double sum = 0;
        for (int64_t row = 0; row < v.rows; ++row)
          sum += static_cast<double>(x[row * v.x_width() + block * v.inputs + i]) * dy[row * v.y_width() + block * v.outputs + o];
        call.floats(4)[(block * v.inputs + i) * v.outputs + o] = static_cast<float>(sum);
      }
    }
  return 0;
}

#else

using namespace xlstm;

namespace {

/** Rows that are in a cache together. */
constexpr int64_t ROWS = 256;
/** Gradients of weights are summed in so many parts at most, each over at least ROWS rows; the parts are added in their order. */
constexpr int64_t MOST_PARTS = 16;

int64_t rows_per_part(int64_t rows) { return round_up(divide_up(max<int64_t>(rows, 1), MOST_PARTS), ROWS); }

// ---- Blocks of 4 x 4, the usual ones: a vector holds whole blocks, and a product is 4 steps of one element of x, spread over
// its block, times 4 outputs of the same block side by side. Bound by memory.

constexpr int64_t QUAD = 4;

#if LLMX_ISA >= LLMX_ISA_AVX512
#define QUADS(I) I, I, I, I, 4 + I, 4 + I, 4 + I, 4 + I, 8 + I, 8 + I, 8 + I, 8 + I, 12 + I, 12 + I, 12 + I, 12 + I
#elif LLMX_ISA == LLMX_ISA_AVX2
#define QUADS(I) I, I, I, I, 4 + I, 4 + I, 4 + I, 4 + I
#else
#define QUADS(I) I, I, I, I
#endif
/** Element I of each four, in all four lanes. */
template <int I>
LLMX_INLINE vec spread(vec v) {
#if defined(__clang__)
  return __builtin_shufflevector(v, v, QUADS(I));
#else
  return __builtin_shuffle(v, ivec{QUADS(I)});
#endif
}
#undef QUADS

/** sum + the blocks in v times the matrices whose rows are in `lines`, four vectors. */
LLMX_INLINE vec times_blocks(vec v, const vec* lines) {
  vec sum = spread<0>(v) * lines[0];
  sum += spread<1>(v) * lines[1];
  sum += spread<2>(v) * lines[2];
  return sum + spread<3>(v) * lines[3];
}

/**
 * The matrices as `times_blocks` takes them: for each vector of features four vectors, of row 0 of its blocks, of row 1, ...;
 * zeros beyond the last block. `transposed`: of columns.
 */
void pack_quads(float* to, const float* weight, int64_t blocks, bool transposed) {
  for (int64_t first = 0; first < blocks; first += LANES / QUAD)
    for (int64_t line = 0; line < QUAD; ++line)
      for (int64_t lane = 0; lane < LANES; ++lane) {
        const int64_t block = first + lane / QUAD, at = lane % QUAD;
        const int64_t from = transposed ? at * QUAD + line : line * QUAD + at;
        *to++ = block < blocks ? weight[block * QUAD * QUAD + from] : 0;
      }
}
int64_t packed_quads(int64_t blocks) { return round_up(blocks * QUAD, LANES) * QUAD; }

/** Rows taken together, so that matrices and sums are read once for all of them. */
constexpr int TOGETHER = 4;

template <int COUNT>
LLMX_INLINE void quad_rows(const float* x, const float* matrices, float* y, int64_t width) {
  for_vectors(width, [&](int64_t c, auto get, auto put) {
    vec lines[QUAD];
    for (int i = 0; i < QUAD; ++i) lines[i] = load(matrices + c * QUAD + i * LANES);
#pragma GCC unroll 4
    for (int r = 0; r < COUNT; ++r) {
      __builtin_prefetch(x + (r + COUNT) * width + c);
      put(y + r * width + c, times_blocks(get(x + r * width + c), lines));
    }
  });
}

/** `sums`: like the packed matrices, of the products of x and dy. */
template <int COUNT>
LLMX_INLINE void quad_grad_rows(const float* dy, const float* x, const float* matrices, float* dx, float* sums, int64_t width) {
  for_vectors(width, [&](int64_t c, auto get, auto put) {
    vec lines[QUAD], products[QUAD];
    for (int i = 0; i < QUAD; ++i) {
      lines[i] = load(matrices + c * QUAD + i * LANES);
      products[i] = load(sums + c * QUAD + i * LANES);
    }
#pragma GCC unroll 4
    for (int r = 0; r < COUNT; ++r) {
      __builtin_prefetch(dy + (r + COUNT) * width + c);
      __builtin_prefetch(x + (r + COUNT) * width + c);
      const vec gradient = get(dy + r * width + c), input = get(x + r * width + c);
      put(dx + r * width + c, times_blocks(gradient, lines));
      products[0] += spread<0>(input) * gradient;
      products[1] += spread<1>(input) * gradient;
      products[2] += spread<2>(input) * gradient;
      products[3] += spread<3>(input) * gradient;
    }
    for (int i = 0; i < QUAD; ++i) store(sums + c * QUAD + i * LANES, products[i]);
  });
}

int32_t run_quads(const Headwise& v, const float* x, const float* weight, float* y) {
  float* matrices = scratch<float>(-1, 0, packed_quads(v.blocks));
  if (matrices == nullptr) return 1;
  pack_quads(matrices, weight, v.blocks, false);
  const int64_t width = v.x_width();
  parallel_chunks(v.rows, ROWS / TOGETHER, [=](int64_t row, int64_t end) {
    for (; row + TOGETHER <= end; row += TOGETHER) quad_rows<TOGETHER>(x + row * width, matrices, y + row * width, width);
    for (; row < end; ++row) quad_rows<1>(x + row * width, matrices, y + row * width, width);
  });
  return 0;
}

int32_t run_quads_grad(const Headwise& v, const float* dy, const float* x, const float* weight, float* dx, float* d_weight) {
  const int64_t size = packed_quads(v.blocks), width = v.x_width(), part_rows = rows_per_part(v.rows);
  const int64_t count = divide_up(v.rows, part_rows);
  float* matrices = scratch<float>(-1, 0, size);
  float* sums = scratch<float>(-1, 1, max<int64_t>(count, 1) * size);
  if (matrices == nullptr || sums == nullptr) return 1;
  pack_quads(matrices, weight, v.blocks, true);
  std::memset(sums, 0, static_cast<size_t>(size) * sizeof(float));
  parallel(count, [&](int64_t part, int32_t) {
    float* own = sums + part * size;
    std::memset(own, 0, static_cast<size_t>(size) * sizeof(float));
    int64_t row = part * part_rows;
    const int64_t end = min(v.rows, row + part_rows);
    for (; row + TOGETHER <= end; row += TOGETHER)
      quad_grad_rows<TOGETHER>(dy + row * width, x + row * width, matrices, dx + row * width, own, width);
    for (; row < end; ++row)
      quad_grad_rows<1>(dy + row * width, x + row * width, matrices, dx + row * width, own, width);
  });
  add_parts(sums, sums, max<int64_t>(count, 1), size);
  for (int64_t c = 0; c < width; ++c)
    for (int64_t i = 0; i < QUAD; ++i)
      d_weight[(c / QUAD * QUAD + i) * QUAD + c % QUAD] = sums[(c / LANES * QUAD + i) * LANES + c % LANES];
  return 0;
}

// ---- Blocks of any size: rows of a block are copied together, multiplied there, and put where they belong.

struct BlockMemory {
  Lines x, y;         // [ROWS, inputs], [ROWS, outputs]
  Lines weight;       // [inputs, outputs]
  Lines columns;      // [outputs, inputs]
  Lines sums;         // [inputs, outputs]

  BlockMemory(Parts& parts, const Headwise& v)
      : x(parts.tiles(ROWS, v.inputs)), y(parts.tiles(ROWS, v.outputs)), weight(parts.tiles(v.inputs, v.outputs)),
        columns(parts.tiles(v.outputs, v.inputs)), sums(parts.tiles(v.inputs, v.outputs)) {}
};

/** One block of some rows. */
struct BlockTask {
  const Headwise& v;
  const BlockMemory& memory;
  int64_t block;

  void load_weight(const float* weight) const {
    copy_rows(memory.weight, weight + block * v.inputs * v.outputs, v.outputs, v.inputs, v.outputs, 1);
  }

  void forward(const float* x, float* y, int64_t row, int64_t count) const {
    copy_rows(memory.x, x + row * v.x_width() + block * v.inputs, v.x_width(), count, v.inputs, 1);
    multiply<false>(count, v.outputs, v.inputs, memory.x, memory.weight, memory.y, memory.y, 0);
    put_rows(y + row * v.y_width() + block * v.outputs, v.y_width(), memory.y, count, v.outputs, 1);
  }

  void backward(const float* dy, const float* x, float* dx, int64_t row, int64_t count, bool is_first) const {
    copy_rows(memory.x, x + row * v.x_width() + block * v.inputs, v.x_width(), count, v.inputs, 1);
    copy_rows(memory.y, dy + row * v.y_width() + block * v.outputs, v.y_width(), count, v.outputs, 1);
    multiply<true>(v.inputs, v.outputs, count, memory.x, memory.y, memory.sums, memory.sums, is_first ? 0.0f : 1.0f);
    multiply<false>(count, v.inputs, v.outputs, memory.y, memory.columns, memory.x, memory.x, 0);
    put_rows(dx + row * v.x_width() + block * v.inputs, v.x_width(), memory.x, count, v.inputs, 1);
  }
};

/** f(task, index) for each of `count` tasks of each block. */
template <class F>
void for_blocks(const Headwise& v, int64_t count, const F& f) {
  Parts parts(nullptr);
  [[maybe_unused]] const BlockMemory layout(parts, v);
  parallel(v.blocks * count, [&](int64_t index, int32_t worker) {
    float* memory = scratch<float>(worker, 0, parts.used());
    if (memory == nullptr) return;
    Parts own(memory);
    const BlockMemory blocks(own, v);
    f(BlockTask{v, blocks, index % v.blocks}, index / v.blocks);
  });
}

int32_t run_blocks_grad(const Headwise& v, const float* dy, const float* x, const float* weight, float* dx, float* d_weight) {
  const int64_t part_rows = rows_per_part(v.rows), count = divide_up(v.rows, part_rows);
  float* sums = scratch<float>(-1, 0, max<int64_t>(count, 1) * v.weights());
  if (sums == nullptr) return 1;
  for_blocks(v, count, [&](const BlockTask& task, int64_t part) {
    task.load_weight(weight);
    transpose(task.memory.columns, task.memory.weight, v.inputs, v.outputs);
    const int64_t begin = part * part_rows, end = min(v.rows, begin + part_rows);
    for (int64_t row = begin; row < end; row += ROWS) task.backward(dy, x, dx, row, min(ROWS, end - row), row == begin);
    float* to = sums + part * v.weights() + task.block * v.inputs * v.outputs;
    put_rows(to, v.outputs, task.memory.sums, v.inputs, v.outputs, 1);
  });
  add_parts(d_weight, sums, count, v.weights());
  return 0;
}

}  // namespace

LLMX_KERNEL(XlstmHeadwise) {
  const Headwise v(call);
  const float *x = call.floats(0), *weight = call.floats(1);
  float* y = call.floats(2);
  if (v.inputs == QUAD && v.outputs == QUAD) return run_quads(v, x, weight, y);
  for_blocks(v, divide_up(v.rows, ROWS), [&](const BlockTask& task, int64_t part) {
    task.load_weight(weight);
    task.forward(x, y, part * ROWS, min(ROWS, v.rows - part * ROWS));
  });
  return 0;
}

LLMX_KERNEL(XlstmHeadwiseGrad) {
  const Headwise v(call);
  const float *dy = call.floats(0), *x = call.floats(1), *weight = call.floats(2);
  const bool quads = v.inputs == QUAD && v.outputs == QUAD;
  return (quads ? run_quads_grad : run_blocks_grad)(v, dy, x, weight, call.floats(3), call.floats(4));
}

#endif

}  // namespace llmx::LLMX_ISA_NAME
