// Elementwise programs: an interpreter that runs each step over a block of elements before the next step.
#include "llmx/numbers.h"
#include "operations.h"

namespace llmx::LLMX_ISA_NAME {

// Registers of 512 elements (2 KiB): a step's loop of 32 vectors costs several times its dispatch, and the blocks of an
// optimizer's inputs and outputs, those being fetched and some registers stay in a first-level cache of 48 KiB.
[[maybe_unused]] constexpr int64_t BLOCK = 512;

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

/** A block of bfloat16, as float32 while steps work on it. */
struct Widened {
  Numbers numbers;
  float* floats;
};

/** Where locations are, for a task. */
struct Locations {
  Operand operands[LLMX_MAX_TENSORS + 2 * LLMX_MAX_NUMBERS];
  Widened widened[LLMX_MAX_TENSORS];  // inputs, then outputs
  int64_t widened_inputs = 0, widened_count = 0;
  float* uniforms;  // one vector each

  void set_uniform(int64_t location, float value) {
    store(uniforms, broadcast(value));
    operands[location] = {uniforms, 0};
    uniforms += LANES;
  }

  /** Floats of memory that the locations of a program take. */
  static int64_t floats(const Program& program) {
    return (program.registers + program.first_register()) * BLOCK + program.locations() * LANES;
  }

  /** For the elements from `begin` on. */
  Locations(const Program& program, int64_t begin, float* memory)
      : uniforms(memory + (program.registers + program.first_register()) * BLOCK) {
    for (int64_t k = 0; k < program.first_register(); ++k) {
      const Numbers tensor = program.tensor(k);
      if (program.is_single(k)) {
        set_uniform(k, tensor.get(0));
      } else if (tensor.narrow) {
        float* block = memory + (program.registers + k) * BLOCK;
        operands[k] = {block, LANES};
        widened[widened_count++] = {tensor.from(begin), block};
        if (k < program.inputs) widened_inputs = widened_count;
      } else {
        operands[k] = {tensor.floats() + begin, LANES};
      }
    }
    for (int64_t k = 0; k < program.registers; ++k) operands[program.first_register() + k] = {memory + k * BLOCK, LANES};
    for (int64_t k = 0; k < program.uniforms; ++k)
      set_uniform(program.first_uniform() + k, static_cast<float>(program.uniform(k)));
  }

  /** Before and after the steps of a block of `n` elements. */
  void widen(int64_t n) const {
    for (int64_t k = 0; k < widened_inputs; ++k) {
      const Numbers from{widened[k].numbers.data, true};
      float* to = widened[k].floats;
      for_vectors(n, [=](int64_t i, int64_t m) { store_some(to + i, from.load_some(i, m), m); });
    }
  }
  void narrow(int64_t n) {
    for (int64_t k = widened_inputs; k < widened_count; ++k) {
      const Numbers to{widened[k].numbers.data, true};
      const float* from = widened[k].floats;
      for_vectors(n, [=](int64_t i, int64_t m) { to.store_some(i, load_some(from + i, m), m); });
    }
    for (int64_t k = 0; k < widened_count; ++k) widened[k].numbers = widened[k].numbers.from(n);
  }
};

/**
 * Fetches the blocks of inputs and outputs that come next, a part with each step: while one step after the other works in
 * the first-level cache, memory would be idle (it took twice as long). The processor has two dozen lines on their way at
 * most, so parts are small and spread evenly over time.
 */
struct Prefetch {
  static constexpr int64_t PART = 32;  // elements: 2 cache lines; more at once would wait for each other
  static constexpr int64_t DISTANCE = 2 * BLOCK;  // a block takes less time than memory needs to answer
  const float* streams[LLMX_MAX_TENSORS];
  int64_t count = 0;

  Prefetch(const Program& program, int64_t begin) {
    // Data that fits into the second-level cache gains nothing.
    if (program.size * program.first_register() < (int64_t{1} << 17)) return;
    for (int64_t k = 0; k < program.first_register(); ++k) {
      const float* stream = program.tensor(k).floats() + begin + DISTANCE;
      bool known = program.is_single(k) || program.tensor(k).narrow;
      for (int64_t other = 0; other < count; ++other) known = known || streams[other] == stream;
      if (!known) streams[count++] = stream;
    }
  }
  int64_t parts() const { return count * (BLOCK / PART); }
  LLMX_INLINE void fetch(int64_t part, int64_t offset) const {
    const float* p = streams[part / (BLOCK / PART)] + offset + part % (BLOCK / PART) * PART;
#pragma GCC unroll 2
    for (int64_t line = 0; line < PART; line += 16) __builtin_prefetch(p + line);
  }
};

/** Pieces in which a step is run between fetches: operations that take several times as long as others are cut in four. */
static int64_t pieces_of(const Step& step, const Prefetch& prefetch) {
  const bool is_long = step.operation == DIVIDE || (step.operation >= SQRT && step.operation <= ERF);
  return is_long && prefetch.count > 0 ? 4 : 1;
}

static void run_chunk(const Program& program, int64_t begin, int64_t end, float* memory) {
  Locations locations(program, begin, memory);
  const Prefetch prefetch(program, begin);
  Operand* operands = locations.operands;
  int64_t slots = 0;
  for (int64_t k = 0; k < program.step_count; ++k) slots += pieces_of(program.steps[k], prefetch);
  for (int64_t i = begin; i < end; i += BLOCK) {
    int64_t part = 0, slot = 0;
    const int64_t n = min(BLOCK, end - i);
    locations.widen(n);
    for (int64_t k = 0; k < program.step_count; ++k) {
      const Step& step = program.steps[k];
      float* result = const_cast<float*>(operands[step.result].data);
      Operand x[4] = {operands[step.a], operands[step.b], operands[step.c], operands[step.d]};
      const int64_t piece = BLOCK / pieces_of(step, prefetch);
      for (int64_t from = 0; from < n; from += piece) {
        for (++slot; part * slots < slot * prefetch.parts(); ++part) prefetch.fetch(part, i - begin);
        apply(step.operation, min(piece, n - from), result + from, x);
        for (Operand& operand : x) operand.data += piece / LANES * operand.step;
      }
    }
    locations.narrow(n);
    for (int64_t k = 0; k < program.first_register(); ++k)
      if (operands[k].step != 0 && !program.tensor(k).narrow) operands[k].data += n;
  }
}

static int32_t run_all(const Program& program) {
  const int64_t floats = Locations::floats(program);
  parallel(divide_up(program.size, TASK_ELEMENTS), [&](int64_t index, int32_t worker) {
    float* memory = scratch<float>(worker, 0, floats);
    if (memory == nullptr) return;
    const int64_t begin = index * TASK_ELEMENTS;
    run_chunk(program, begin, min(program.size, begin + TASK_ELEMENTS), memory);
  });
  return 0;
}

#endif

/**
 * Tensors: inputs, outputs. Numbers: elements, inputs, outputs, registers, steps; each step as operation, result, and the
 * operands a to d in 9 bits each, the operation highest; then the uniforms.
 *
 * Inputs and outputs may lie in memory as bfloat16. An output may be the same memory as an input if no step reads that input after the one that writes the output.
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
  const vec one = broadcast(1);
  const Operand factor{reinterpret_cast<const float*>(&one), 0};
  const int64_t strips = divide_up(columns, TASK_ELEMENTS);
  const int64_t rows_per_task = max(int64_t{1}, TASK_ELEMENTS / max(columns, int64_t{1}));
  parallel(divide_up(rows, rows_per_task) * strips, [&](int64_t index, int32_t) {
    const int64_t begin = index % strips * TASK_ELEMENTS, n = min(columns - begin, TASK_ELEMENTS);
    const int64_t first = index / strips * rows_per_task, last = min(rows, first + rows_per_task);
    for (int64_t row = first; row < last; ++row) {
      vec same[2];
      Operand operands[4] = {{}, {}, factor, factor};
      for (int k = 0; k < 2; ++k) {
        const float* data = call.floats(k) + row * call.integer(3 + 2 * k);
        const bool varies = call.integer(4 + 2 * k) != 0;
        if (!varies) same[k] = broadcast(*data);
        operands[k] = varies ? Operand{data + begin, LANES} : Operand{reinterpret_cast<const float*>(&same[k]), 0};
      }
      apply(operation, n, call.floats(2) + row * columns + begin, operands);
    }
  });
  return 0;
#endif
}

}  // namespace llmx::LLMX_ISA_NAME
