// Elementwise programs: an interpreter that runs each step over a block of elements before the next step.
#include "llmx/numbers.h"
#include "operations.h"

namespace llmx::LLMX_ISA_NAME {

/** One step: an operation on locations, its result to a location. */
struct Step {
  int32_t operation, result, a, b, c, d;
};

/**
 * A program and its data. Locations are numbered: inputs, outputs, registers, uniforms (values that are the same for every
 * element). An input of one element stands for as many as the others have.
 */
struct Program {
  const Call& call;
  int64_t size = call.integer(0);
  int64_t inputs = call.integer(1);
  int64_t outputs = call.integer(2);
  int64_t registers = call.integer(3);
  int64_t step_count = call.integer(4);
  int64_t uniforms = call.arguments.number_count - HEADER - step_count;
  Step steps[LLMX_MAX_NUMBERS];

  static constexpr int HEADER = 5;

  explicit Program(const Call& given) : call(given) {
    for (int64_t k = 0; k < step_count; ++k) {
      const int64_t code = call.integer(static_cast<int>(HEADER + k));
      const auto field = [code](int index) { return static_cast<int32_t>(code >> (9 * index) & 511); };
      steps[k] = {field(5), field(4), field(3), field(2), field(1), field(0)};
    }
  }
  int64_t first_register() const { return inputs + outputs; }
  int64_t first_uniform() const { return first_register() + registers; }
  int64_t locations() const { return first_uniform() + uniforms; }
  Numbers tensor(int64_t location) const { return numbers(call, static_cast<int>(location)); }
  bool is_single(int64_t location) const {
    return location < inputs && size != 1 && call.size(static_cast<int>(location)) == 1;
  }
  double uniform(int64_t index) const { return call.number(static_cast<int>(HEADER + step_count + index)); }
};

#if LLMX_ISA == LLMX_ISA_REFERENCE

static double run(const Step& step, const double* values) {
  const double x = values[step.a], y = values[step.b], c = values[step.c], d = values[step.d];
  const double a = c * x, b = d * y;
  switch (step.operation) {
    case ABS: return std::fabs(a);
    case SIGN: return a > 0 ? 1 : a < 0 ? -1 : a;
    case SQUARE: return a * a;
    case SQRT: return std::sqrt(a);
    case EXP: return std::exp(a);
    case LOG: return std::log(a);
    case TANH: return std::tanh(a);
    case SIGMOID: return 1 / (1 + std::exp(-a));
    case SOFTPLUS: return (a <= 0 ? 0 : a) + std::log1p(std::exp(-std::fabs(a)));
    case ERF: return std::erf(a);
    case ADD: return a + b;
    case SUBTRACT: return a - b;
    case MULTIPLY: return a * b;
    case DIVIDE: return a / b;
    case MINIMUM: return a != a || b != b ? NAN : a < b || (a == b && std::signbit(a)) ? a : b;
    case MAXIMUM: return a != a || b != b ? NAN : a > b || (a == b && std::signbit(b)) ? a : b;
    case GREATER: return a > b ? 1 : 0;
    case MULTIPLY_ADD: return x * y + d * c;
    case MULTIPLY_SUBTRACT: return x * y - d * c;
    case SUBTRACT_MULTIPLY: return d * c - x * y;
    case SELECT: return x != 0 ? y : c;
    case ADD_SQUARE: return a + d * y * y;
    case ADD_ROOT: return b + std::sqrt(a);
    default: return a;
  }
}

/** Element by element in float64, results rounded once. */
static int32_t run_all(const Program& program) {
  double* values = scratch<double>(-1, 0, program.locations());
  if (values == nullptr) return 1;
  for (int64_t k = 0; k < program.uniforms; ++k) values[program.first_uniform() + k] = program.uniform(k);
  for (int64_t i = 0; i < program.size; ++i) {
    for (int64_t k = 0; k < program.inputs; ++k) values[k] = program.tensor(k).get(program.is_single(k) ? 0 : i);
    for (int64_t k = 0; k < program.step_count; ++k) {
      const Step& step = program.steps[k];
      values[step.result] = run(step, values);
    }
    for (int64_t k = program.inputs; k < program.first_register(); ++k) program.tensor(k).put(i, static_cast<float>(values[k]));
  }
  return 0;
}

#else

/** Copies n elements, and zeros up to a multiple of STRIDE, or back. */
template <bool NARROW>
static void stage(float* to, const char* data, int64_t n) {
  const Numbers from{const_cast<char*>(data), NARROW};
  for_vectors(n, [=](int64_t i, int64_t m) { store(to + i, from.load_some(i, m)); });
  for (int64_t i = round_up(n, LANES); i < round_up(n, STRIDE); i += LANES) store(to + i, vec{});
}
template <bool NARROW>
static void unstage(char* data, const float* from, int64_t n) {
  const Numbers to{data, NARROW};
  for_vectors(n, [=](int64_t i, int64_t m) { to.store_some(i, load_some(from + i, m), m); });
}

/**
 * A program's steps over a run of elements, ready to be called a block at a time. Tensors of bfloat16 are float32 in a block of
 * their own while the steps work; all tensors are where the run is not of whole blocks, so that functions need no other form.
 */
class Schedule {
 public:
  /** Floats of memory that a program takes. */
  static int64_t floats(const Program& program) { return program.locations() * BLOCK; }

  /** For the elements from `begin` on. */
  Schedule(const Program& program, int64_t begin, bool is_whole, float* memory)
      : count_(program.step_count), memory_(memory) {
    for (int64_t k = 0; k < program.first_register(); ++k) {
      const Numbers tensor = program.tensor(k);
      if (program.is_single(k)) {
        places_[k] = uniform(tensor.get(0));
      } else if (is_whole && !tensor.narrow) {
        places_[k] = {tensor.from(begin).floats(), ~int64_t{0}};
      } else {
        places_[k] = {block(), 0};
        staged_[staged_count_++] = {tensor.from(begin), places_[k].data};
      }
      if (k < program.inputs) staged_inputs_ = staged_count_;
    }
    for (int64_t k = 0; k < program.registers; ++k) places_[program.first_register() + k] = {block(), 0};
    for (int64_t k = 0; k < program.uniforms; ++k)
      places_[program.first_uniform() + k] = uniform(static_cast<float>(program.uniform(k)));
    // Data that fits into the second-level cache gains nothing from being fetched.
    if (program.size * program.first_register() >= (int64_t{1} << 17)) find_lines(program.first_register());
    for (int64_t k = 0; k < count_; ++k) {
      const Step& step = program.steps[k];
      const Place* places = places_;
      steps_[k] = {function_of(step.operation), places[step.result],
                   {places[step.a], places[step.b], places[step.c], places[step.d]},
                   line_count_ * (k + 1) / count_};
    }
  }

  /** The `n` (1 to BLOCK) elements that are `i` after the first. */
  void run(int64_t i, int64_t n) const {
    for (int64_t k = 0; k < staged_inputs_; ++k) {
      const auto [numbers, block] = staged_[k];
      numbers.narrow ? stage<true>(block, numbers.from(i).data, n) : stage<false>(block, numbers.from(i).data, n);
    }
    const int64_t length = round_up(n, STRIDE);
    int64_t line = 0;
    for (int64_t k = 0; k < count_; ++k) {
      const Ready& step = steps_[k];
      for (; line < step.fetched; ++line) __builtin_prefetch(lines_[line] + i);
      const auto& x = step.operands;
      step.function(length, step.result.at(i), x[0].at(i), x[1].at(i), x[2].at(i), x[3].at(i));
    }
    for (int64_t k = staged_inputs_; k < staged_count_; ++k) {
      const auto [numbers, block] = staged_[k];
      numbers.narrow ? unstage<true>(numbers.from(i).data, block, n) : unstage<false>(numbers.from(i).data, block, n);
    }
  }

 private:
  /** Where a location is: at the same place for each block, or, where `moves` is ~0 instead of 0, further on. */
  struct Place {
    float* data;
    int64_t moves;
    LLMX_INLINE float* at(int64_t i) const { return data + (i & moves); }
  };
  struct Ready {
    Function function;
    Place result, operands[4];
    int64_t fetched;  // lines asked for before it is called
  };
  struct Staged {
    Numbers numbers;
    float* block;
  };
  // While blocks are worked on, memory has to answer for others; two KiB ahead it does so in time. Further ahead gained nothing.
  static constexpr int64_t DISTANCE = 4 * BLOCK;
  static constexpr int64_t LINE = 16;

  float* block() {
    float* data = memory_;
    memory_ += BLOCK;
    return data;
  }
  Place uniform(float value) {
    float* data = block();
    for (int64_t i = 0; i < BLOCK; i += LANES) store(data + i, broadcast(value));
    return {data, 0};
  }

  /** The lines of later blocks that are asked for in the course of one: the processor has two dozen on their way at most. */
  void find_lines(int64_t tensors) {
    for (int64_t k = 0; k < tensors; ++k) {
      bool is_known = places_[k].moves == 0;
      for (int64_t other = 0; other < k; ++other) is_known = is_known || places_[other].data == places_[k].data;
      if (is_known) continue;
      for (int64_t i = 0; i < BLOCK; i += LINE) lines_[line_count_++] = places_[k].data + DISTANCE + i;
    }
  }

  int64_t count_, staged_inputs_ = 0, staged_count_ = 0, line_count_ = 0;
  float* memory_;
  Place places_[LLMX_MAX_TENSORS + 2 * LLMX_MAX_NUMBERS];
  Ready steps_[LLMX_MAX_NUMBERS];
  Staged staged_[LLMX_MAX_TENSORS];  // inputs, then outputs
  const float* lines_[LLMX_MAX_TENSORS * BLOCK / LINE];
};

static int32_t run_all(const Program& program) {
  const int64_t floats = Schedule::floats(program);
  parallel(divide_up(program.size, TASK_ELEMENTS), [&](int64_t index, int32_t worker) {
    float* memory = scratch<float>(worker, 0, floats);
    if (memory == nullptr) return;
    const int64_t begin = index * TASK_ELEMENTS, end = min(program.size, begin + TASK_ELEMENTS);
    const int64_t whole = (end - begin) / BLOCK * BLOCK;
    if (whole > 0) {
      const Schedule schedule(program, begin, true, memory);
      for (int64_t i = 0; i < whole; i += BLOCK) schedule.run(i, BLOCK);
    }
    if (begin + whole < end) Schedule(program, begin + whole, false, memory).run(0, end - begin - whole);
  });
  return 0;
}

#endif

/**
 * Tensors: inputs, outputs. Numbers: elements, inputs, outputs, registers, steps; each step as operation, result, and the
 * operands a to d in 9 bits each, the operation highest; then the uniforms.
 *
 * Inputs and outputs may lie in memory as bfloat16. An output may be the same memory as an input if no step reads that input
 * after the one that writes the output.
 */
LLMX_KERNEL(LlmxElementwise) { return run_all(Program(call)); }

/**
 * y[r][c] = operation(a[r][c], b[r][c]) over [rows, columns], each operand with strides of its own (0: the same value).
 * Tensors: a, b, y. Numbers: operation, rows, columns, a's strides of rows and of columns, b's.
 */
LLMX_KERNEL(LlmxBroadcast) {
  const int64_t rows = call.integer(1), columns = call.integer(2);
  const int32_t operation = static_cast<int32_t>(call.integer(0));
#if LLMX_ISA == LLMX_ISA_REFERENCE
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t column = 0; column < columns; ++column) {
      const double values[3] = {call.floats(0)[row * call.integer(3) + column * call.integer(4)],
                                call.floats(1)[row * call.integer(5) + column * call.integer(6)], 1};
      call.floats(2)[row * columns + column] = static_cast<float>(run(Step{operation, 0, 0, 1, 2, 2}, values));
    }
  }
  return 0;
#else
  const Function function = function_of(operation);
  const int64_t strips = divide_up(columns, TASK_ELEMENTS);
  const int64_t rows_per_task = max(int64_t{1}, TASK_ELEMENTS / max(columns, int64_t{1}));
  parallel(divide_up(rows, rows_per_task) * strips, [&](int64_t index, int32_t) {
    const int64_t begin = index % strips * TASK_ELEMENTS, n = min(columns - begin, TASK_ELEMENTS);
    const int64_t first = index / strips * rows_per_task, last = min(rows, first + rows_per_task);
    alignas(64) float one[LANES], same[2][BLOCK], rest[3][BLOCK] = {};
    store(one, broadcast(1));
    for (int64_t row = first; row < last; ++row) {
      const float* data[2];
      bool varies[2];
      for (int k = 0; k < 2; ++k) {
        data[k] = call.floats(k) + row * call.integer(3 + 2 * k);
        varies[k] = call.integer(4 + 2 * k) != 0;
        if (!varies[k])
          for (int64_t i = 0; i < min(round_up(n, STRIDE), BLOCK); i += LANES) store(same[k] + i, broadcast(*data[k]));
      }
      for (int64_t i = 0; i < n; i += BLOCK) {
        const int64_t m = min(BLOCK, n - i);
        const bool is_whole = m % STRIDE == 0;
        const float* x[2];
        for (int k = 0; k < 2; ++k) {
          x[k] = !varies[k] ? same[k] : is_whole ? data[k] + begin + i : rest[k];
          if (x[k] == rest[k]) std::memcpy(rest[k], data[k] + begin + i, static_cast<size_t>(m) * 4);
        }
        float* y = call.floats(2) + row * columns + begin + i;
        function(round_up(m, STRIDE), is_whole ? y : rest[2], x[0], x[1], one, one);
        if (!is_whole) std::memcpy(y, rest[2], static_cast<size_t>(m) * 4);
      }
    }
  });
  return 0;
#endif
}

}  // namespace llmx::LLMX_ISA_NAME
