/**
 * The sLSTM (Beck et al., arXiv 2405.04517): a scan over time with recurrent weights per head, and its gradient.
 *
 * XlstmSlstmScan: inputGate, forgetGate, cellInput, outputGate, recurrent, bias, segments?, state?; y, state, gates?, cells?.
 * XlstmSlstmScanGrad: dy, recurrent, y, segments?, state?, gates, cells; dInputGate, dForgetGate, dCellInput, dOutputGate,
 * dRecurrent, dBias, dState?.
 * Shapes and formulas: src/kernel-contract.md. What the gradient needs, or left out: gates [batch, time, 4, width] before their
 * nonlinearities, cells [batch, time, 3, width]: c, n, m.
 * Numbers: batch, time, heads, size.
 */
#include "functions.h"
#include "products.h"

namespace llmx::LLMX_ISA_NAME {

using namespace xlstm;

namespace {

/** Gates, and parts of the recurrent state, in their order. */
enum Gate { I, F, Z, O };
enum Part { Y, C, N, M };
constexpr int GATES = 4, STATES = 4;
/** c, n and m, which are kept for the gradient. */
constexpr int CELLS = 3;

struct SlstmProblem {
  int64_t batch, time, heads, size;
  const int32_t* segments;  // [batch, time], or null

  SlstmProblem(const Call& call, int segments_index)
      : batch(call.integer(0)), time(call.integer(1)), heads(call.integer(2)), size(call.integer(3)),
        segments(call.integers(segments_index)) {}

  int64_t width() const { return heads * size; }
  int64_t recurrent_size() const { return size * GATES * size; }
  /** Where a position's row starts in [batch, time, parts, width]. */
  int64_t at(int64_t b, int64_t t, int64_t parts, int64_t part, int64_t head) const {
    return ((b * time + t) * parts + part) * width() + head * size;
  }
  /** In [4, batch, width]. */
  int64_t state_at(int64_t part, int64_t b, int64_t head) const { return (part * batch + b) * width() + head * size; }
  bool resets(int64_t b, int64_t t) const {
    return segments != nullptr && t > 0 && segments[b * time + t] != segments[b * time + t - 1];
  }
};

struct Scan {
  const SlstmProblem& p;
  const float* inputs[GATES];
  const float *recurrent, *bias, *state;
  float *y, *last, *gates, *cells;

  Scan(const SlstmProblem& problem, const Call& call)
      : p(problem), inputs{call.floats(0), call.floats(1), call.floats(2), call.floats(3)}, recurrent(call.floats(4)),
        bias(call.floats(5)), state(call.floats(7)), y(call.floats(8)), last(call.floats(9)), gates(call.floats(10)),
        cells(call.floats(11)) {}
};

struct ScanGrad {
  const SlstmProblem& p;
  const float *dy, *recurrent, *y, *state, *gates, *cells;
  float* d_inputs[GATES];
  float *d_recurrent, *d_bias, *d_state;

  ScanGrad(const SlstmProblem& problem, const Call& call)
      : p(problem), dy(call.floats(0)), recurrent(call.floats(1)), y(call.floats(2)), state(call.floats(4)),
        gates(call.floats(5)), cells(call.floats(6)),
        d_inputs{call.floats(7), call.floats(8), call.floats(9), call.floats(10)}, d_recurrent(call.floats(11)),
        d_bias(call.floats(12)), d_state(call.floats(13)) {}

  /** A part of the state before a position: null where it is zero. */
  const float* cell_before(int64_t part, int64_t b, int64_t t, int64_t head) const {
    if (t == 0) return state == nullptr ? nullptr : state + p.state_at(part, b, head);
    if (p.resets(b, t)) return nullptr;
    return part == Y ? y + p.at(b, t - 1, 1, 0, head) : cells + p.at(b, t - 1, CELLS, part - C, head);
  }
};

}  // namespace

#if LLMX_ISA == LLMX_ISA_REFERENCE

LLMX_KERNEL(XlstmSlstmScan) {
  const SlstmProblem p(call, 6);
  const Scan f(p, call);
  const int64_t size = p.size;
  double* memory = scratch<double>(-1, 0, (STATES + GATES) * size);
  if (memory == nullptr) return 1;
  double *y = memory, *c = y + size, *n = c + size, *m = n + size, *raw = m + size;
  for (int64_t row = 0; row < p.batch * p.heads; ++row) {
    const int64_t b = row / p.heads, head = row % p.heads;
    for (int64_t i = 0; i < STATES * size; ++i)
      y[i] = f.state == nullptr ? 0 : f.state[p.state_at(i / size, b, head) + i % size];
    for (int64_t t = 0; t < p.time; ++t) {
      if (p.resets(b, t))
        for (int64_t i = 0; i < STATES * size; ++i) y[i] = 0;
      for (int64_t i = 0; i < GATES * size; ++i) {
        const int64_t gate = i / size, unit = i % size;
        raw[i] = f.inputs[gate][p.at(b, t, 1, 0, head) + unit];
        raw[i] += f.bias[gate * p.width() + head * size + unit];
        for (int64_t j = 0; j < size; ++j) raw[i] += y[j] * f.recurrent[(head * size + j) * GATES * size + i];
        if (f.gates != nullptr) f.gates[p.at(b, t, GATES, gate, head) + unit] = static_cast<float>(raw[i]);
      }
      for (int64_t i = 0; i < size; ++i) {
        const double input = raw[i], decayed = log_sigmoid(raw[F * size + i]) + m[i];
        m[i] = n[i] == 0 ? input : max(input, decayed);
        const double kept = min(std::exp(decayed - m[i]), 1.0), added = min(std::exp(input - m[i]), 1.0);
        c[i] = kept * c[i] + added * std::tanh(raw[Z * size + i]);
        n[i] = kept * n[i] + added;
        y[i] = sigmoid(raw[O * size + i]) * c[i] / n[i];
        f.y[p.at(b, t, 1, 0, head) + i] = static_cast<float>(y[i]);
        for (int part = C; part < STATES && f.cells != nullptr; ++part)
          f.cells[p.at(b, t, CELLS, part - C, head) + i] = static_cast<float>(y[part * size + i]);
      }
    }
    for (int64_t i = 0; i < STATES * size; ++i)
      f.last[p.state_at(i / size, b, head) + i % size] = static_cast<float>(y[i]);
  }
  return 0;
}

namespace {

/** Gradients of one position's gates, and of c and n before it. */
void differentiate_position(const ScanGrad& f, int64_t b, int64_t t, int64_t head, double* dy, double* dc, double* dn,
                            double* d_gates, double* d_log) {
  const SlstmProblem& p = f.p;
  const float* before[STATES];
  for (int part = Y; part < STATES; ++part) before[part] = f.cell_before(part, b, t, head);
  for (int64_t i = 0; i < p.size; ++i) {
    const auto gate = [&](int g) -> double { return f.gates[p.at(b, t, GATES, g, head) + i]; };
    const auto cell = [&](int part) -> double { return f.cells[p.at(b, t, CELLS, part - C, head) + i]; };
    const auto old = [&](int part) -> double { return before[part] == nullptr ? 0 : before[part][i]; };
    const double kept = min(std::exp(log_sigmoid(gate(F)) + old(M) - cell(M)), 1.0);
    const double added = min(std::exp(gate(I) - cell(M)), 1.0), z = std::tanh(gate(Z)), open = sigmoid(gate(O));
    const double ratio = cell(C) / cell(N);
    dc[i] += dy[i] * open / cell(N);
    dn[i] -= dy[i] * open * ratio / cell(N);
    d_log[i] = kept * (dc[i] * old(C) + dn[i] * old(N));
    const double gradients[GATES] = {added * (dc[i] * z + dn[i]), d_log[i] * sigmoid(-gate(F)),
                                     dc[i] * added * (1 - z * z), dy[i] * ratio * open * (1 - open)};
    for (int g = 0; g < GATES; ++g) {
      d_gates[g * p.size + i] = gradients[g];
      f.d_inputs[g][p.at(b, t, 1, 0, head) + i] = static_cast<float>(gradients[g]);
    }
    dc[i] *= kept;
    dn[i] *= kept;
  }
}

}  // namespace

LLMX_KERNEL(XlstmSlstmScanGrad) {
  const SlstmProblem p(call, 3);
  const ScanGrad f(p, call);
  const int64_t size = p.size, all = p.heads * p.recurrent_size();
  double* sums = scratch<double>(-1, 0, all + GATES * p.width());
  double* memory = scratch<double>(-1, 1, (STATES + GATES) * size);
  if (sums == nullptr || memory == nullptr) return 1;
  double *bias_sums = sums + all, *dy = memory, *dc = dy + size, *dn = dc + size, *d_log = dn + size, *d_gates = d_log + size;
  for (int64_t i = 0; i < all + GATES * p.width(); ++i) sums[i] = 0;
  for (int64_t row = 0; row < p.batch * p.heads; ++row) {
    const int64_t b = row / p.heads, head = row % p.heads;
    for (int64_t i = 0; i < STATES * size; ++i) memory[i] = 0;
    for (int64_t t = p.time - 1; t >= 0; --t) {
      for (int64_t i = 0; i < size; ++i) dy[i] += f.dy[p.at(b, t, 1, 0, head) + i];
      differentiate_position(f, b, t, head, dy, dc, dn, d_gates, d_log);
      const float* y_before = f.cell_before(Y, b, t, head);
      for (int64_t j = 0; j < size; ++j) {
        const int64_t from = (head * size + j) * GATES * size;
        dy[j] = 0;
        for (int64_t i = 0; i < GATES * size; ++i) {
          dy[j] += d_gates[i] * f.recurrent[from + i];
          if (y_before != nullptr) sums[from + i] += y_before[j] * d_gates[i];
        }
      }
      for (int64_t i = 0; i < GATES * size; ++i) bias_sums[i / size * p.width() + head * size + i % size] += d_gates[i];
      if (p.resets(b, t))
        for (int64_t i = 0; i < STATES * size; ++i) memory[i] = 0;
    }
    for (int64_t i = 0; i < STATES * size && f.d_state != nullptr; ++i)
      f.d_state[p.state_at(i / size, b, head) + i % size] = static_cast<float>(memory[i]);
  }
  for (int64_t i = 0; i < all; ++i) f.d_recurrent[i] = static_cast<float>(sums[i]);
  for (int64_t i = 0; i < GATES * p.width(); ++i) f.d_bias[i] = static_cast<float>(bias_sums[i]);
  return 0;
}

#else

namespace {

/** The most sequences that a task takes: as many as a tile has rows, so that weights are read once per position for all. */
constexpr int64_t GROUP = 8;

/** Fewer where there would be few tasks: half as many cost a fifth more where weights fill the second cache, else nothing. */
inline int64_t group_size(const SlstmProblem& p) { return p.heads * divide_up(p.batch, GROUP) < 4 ? GROUP / 2 : GROUP; }

// ---- Products of a few rows with weights that only the second cache holds, in panels of TILE_COLUMNS columns.

/** Floats of [depth, columns] in panels. */
inline int64_t panels_size(int64_t depth, int64_t columns) { return round_up(columns, TILE_COLUMNS) * depth; }

/** Panels of a [depth, columns] whose element (p, j) is from[p * row_step + j * column_step]; filled up with zeros. */
void pack_panels(float* to, const float* from, int64_t row_step, int64_t column_step, int64_t depth, int64_t columns) {
  for (int64_t j = 0; j < columns; j += TILE_COLUMNS)
    for (int64_t p = 0; p < depth; ++p)
      for (int64_t k = j; k < j + TILE_COLUMNS; ++k) *to++ = k < columns ? from[p * row_step + k * column_step] : 0;
}

/** c [ROWS, PANELS * TILE_COLUMNS] = a times panels. Fewer rows take more panels at once: enough sums to hide latency. */
template <int ROWS, int PANELS>
LLMX_INLINE void panels_tile(int64_t depth, Lines a, const float* panels, Lines c) {
  vec sums[ROWS][2 * PANELS];
#pragma GCC unroll 8
  for (int i = 0; i < ROWS; ++i)
#pragma GCC unroll 8
    for (int j = 0; j < 2 * PANELS; ++j) sums[i][j] = vec{};
  for (int64_t p = 0; p < depth; ++p) {
    vec columns[2 * PANELS];
#pragma GCC unroll 8
    for (int j = 0; j < 2 * PANELS; ++j) columns[j] = load(panels + (j / 2 * depth + p) * TILE_COLUMNS + j % 2 * LANES);
#pragma GCC unroll 8
    for (int i = 0; i < ROWS; ++i) {
      const vec factor = broadcast(a.data[i * a.stride + p]);
#pragma GCC unroll 8
      for (int j = 0; j < 2 * PANELS; ++j) sums[i][j] += factor * columns[j];
    }
  }
#pragma GCC unroll 8
  for (int i = 0; i < ROWS; ++i)
#pragma GCC unroll 8
    for (int j = 0; j < 2 * PANELS; ++j) store(c.row(i) + j * LANES, sums[i][j]);
}

// The most rows of a tile: AVX-512 and NEON have 32 registers, the others 16.
#if LLMX_ISA >= LLMX_ISA_AVX512 || defined(__aarch64__)
constexpr int MOST_ROWS = 8;
#else
constexpr int MOST_ROWS = 4;
#endif

template <int ROWS>
__attribute__((noinline)) void multiply_rows(int64_t columns, int64_t depth, Lines a, const float* panels, Lines c) {
  constexpr int PANELS = MOST_ROWS / ROWS < 4 ? MOST_ROWS / ROWS : 4;
  constexpr int64_t WIDE = PANELS * TILE_COLUMNS;
  int64_t j = 0;
  for (; j + WIDE <= round_up(columns, TILE_COLUMNS); j += WIDE)
    panels_tile<ROWS, PANELS>(depth, a, panels + j * depth, c.from(0, j));
  for (; j < columns; j += TILE_COLUMNS) panels_tile<ROWS, 1>(depth, a, panels + j * depth, c.from(0, j));
}

/** c [rows, columns] = a [rows, depth] times panels; a and c have room for GROUP rows. */
void multiply_group(int64_t rows, int64_t columns, int64_t depth, Lines a, const float* panels, Lines c) {
  if (rows == 1) return multiply_rows<1>(columns, depth, a, panels, c);
  if (rows == 2) return multiply_rows<2>(columns, depth, a, panels, c);
  if (rows <= 4) return multiply_rows<4>(columns, depth, a, panels, c);
  for (int64_t i = 0; i < rows; i += MOST_ROWS) multiply_rows<MOST_ROWS>(columns, depth, a.from(i), panels, c.from(i));
}

LLMX_INLINE vec smaller_than_one(vec x) { return select(x > 1.0f, broadcast(1), x); }

// ---- Forward

struct ScanMemory {
  Lines y, gates;  // [GROUP, size], [GROUP, 4 size]
  Lines c, n, m;   // [GROUP, size]

  ScanMemory(Parts& parts, const SlstmProblem& p)
      : y(parts.tiles(GROUP, p.size)), gates(parts.tiles(GROUP, GATES * p.size)), c(parts.tiles(GROUP, p.size)),
        n(parts.tiles(GROUP, p.size)), m(parts.tiles(GROUP, p.size)) {}
  Lines part(int index) const {
    const Lines parts[STATES] = {y, c, n, m};
    return parts[index];
  }
  void clear(int64_t r, int64_t size) const {
    for (int index = Y; index < STATES; ++index) std::memset(part(index).row(r), 0, static_cast<size_t>(size) * sizeof(float));
  }
};

/** Some sequences and one head, over all of time. */
struct ScanTask {
  const Scan& f;
  const ScanMemory& memory;
  int64_t head, first, count;  // sequences

  void run(const float* panels) const {
    const SlstmProblem& p = f.p;
    const size_t bytes = static_cast<size_t>(p.size) * sizeof(float);
    for (int64_t r = 0; r < GROUP; ++r) {
      memory.clear(r, p.size);
      for (int part = Y; part < STATES && f.state != nullptr && r < count; ++part)
        std::memcpy(memory.part(part).row(r), f.state + p.state_at(part, first + r, head), bytes);
    }
    for (int64_t t = 0; t < p.time; ++t) {
      for (int64_t r = 0; r < count; ++r)
        if (p.resets(first + r, t)) memory.clear(r, p.size);
      multiply_group(count, GATES * p.size, p.size, memory.y, panels, memory.gates);
      for (int64_t r = 0; r < count; ++r) step(r, t);
    }
    for (int64_t r = 0; r < count; ++r)
      for (int part = Y; part < STATES; ++part)
        std::memcpy(f.last + p.state_at(part, first + r, head), memory.part(part).row(r), bytes);
  }

  void step(int64_t r, int64_t t) const {
    const SlstmProblem& p = f.p;
    const int64_t b = first + r, at = p.at(b, t, 1, 0, head);
    float *y = memory.y.row(r), *c = memory.c.row(r), *n = memory.n.row(r), *m = memory.m.row(r);
    for (int g = 0; g < GATES; ++g) {
      prefetch_row<false>(f.inputs[g] + at, p.width(), p.size);
      if (f.gates != nullptr) prefetch_row<true>(f.gates + p.at(b, t, GATES, g, head), GATES * p.width(), p.size);
    }
    for (int part = C; part < STATES && f.cells != nullptr; ++part)
      prefetch_row<true>(f.cells + p.at(b, t, CELLS, part - C, head), CELLS * p.width(), p.size);
    for_vectors(p.size, [&](int64_t i, auto get, auto put) {
      vec gate[GATES];
#pragma GCC unroll 4
      for (int g = 0; g < GATES; ++g) {
        gate[g] = get(memory.gates.row(r) + g * p.size + i) + get(f.inputs[g] + at + i);
        gate[g] += get(f.bias + g * p.width() + head * p.size + i);
        if (f.gates != nullptr) put(f.gates + p.at(b, t, GATES, g, head) + i, gate[g]);
      }
      const vec decayed = vlog_sigmoid(gate[F]) + load(m + i), old_n = load(n + i);
      const vec top = select(old_n == 0.0f, gate[I], larger(gate[I], decayed));
      const vec kept = smaller_than_one(vexp(decayed - top)), added = smaller_than_one(vexp(gate[I] - top));
      const vec next_c = kept * load(c + i) + added * vtanh(gate[Z]), next_n = kept * old_n + added;
      const vec next_y = vsigmoid(gate[O]) * (next_c / next_n);
      store(m + i, top);
      store(c + i, next_c);
      store(n + i, next_n);
      store(y + i, next_y);
      put(f.y + at + i, next_y);
      if (f.cells == nullptr) return;
      put(f.cells + p.at(b, t, CELLS, C - C, head) + i, next_c);
      put(f.cells + p.at(b, t, CELLS, N - C, head) + i, next_n);
      put(f.cells + p.at(b, t, CELLS, M - C, head) + i, top);
    });
  }
};

// ---- Backward

struct ScanGradMemory {
  Lines d_y, d_gates;  // [GROUP, size], [GROUP, 4 size]
  Lines d_c, d_n, d_log;  // [GROUP, size]; d_log: of the logarithm of f' at the first position

  ScanGradMemory(Parts& parts, const SlstmProblem& p)
      : d_y(parts.tiles(GROUP, p.size)), d_gates(parts.tiles(GROUP, GATES * p.size)), d_c(parts.tiles(GROUP, p.size)),
        d_n(parts.tiles(GROUP, p.size)), d_log(parts.tiles(GROUP, p.size)) {}
  Lines part(int index) const {
    const Lines parts[STATES] = {d_y, d_c, d_n, d_log};
    return parts[index];
  }
  void clear(int64_t r, int64_t size) const {
    for (int index = Y; index < STATES; ++index) std::memset(part(index).row(r), 0, static_cast<size_t>(size) * sizeof(float));
  }
};

struct ScanGradTask {
  const ScanGrad& f;
  const ScanGradMemory& memory;
  const float* zeros;          // [size]
  int64_t head, first, count;  // sequences

  void run(const float* panels) const {
    const SlstmProblem& p = f.p;
    const size_t bytes = static_cast<size_t>(p.size) * sizeof(float);
    for (int64_t r = 0; r < GROUP; ++r) {
      memory.clear(r, p.size);
      std::memset(memory.d_gates.row(r), 0, GATES * bytes);
    }
    for (int64_t t = p.time - 1; t >= 0; --t) {
      for (int64_t r = 0; r < count; ++r) step(r, t);
      multiply_group(count, p.size, GATES * p.size, memory.d_gates, panels, memory.d_y);
      for (int64_t r = 0; r < count; ++r)
        if (p.resets(first + r, t)) memory.clear(r, p.size);
    }
    if (f.d_state == nullptr) return;
    for (int64_t r = 0; r < count; ++r)
      for (int part = Y; part < STATES; ++part)
        std::memcpy(f.d_state + p.state_at(part, first + r, head), memory.part(part).row(r), bytes);
  }

  void step(int64_t r, int64_t t) const {
    const SlstmProblem& p = f.p;
    const int64_t b = first + r, at = p.at(b, t, 1, 0, head);
    const float* before[STATES];
    for (int part = C; part < STATES; ++part) {
      before[part] = f.cell_before(part, b, t, head);
      if (before[part] == nullptr) before[part] = zeros;
    }
    float *d_c = memory.d_c.row(r), *d_n = memory.d_n.row(r), *d_gates = memory.d_gates.row(r);
    prefetch_row<false>(f.dy + at, -p.width(), p.size);
    for (int g = 0; g < GATES; ++g) {
      prefetch_row<false>(f.gates + p.at(b, t, GATES, g, head), -GATES * p.width(), p.size);
      prefetch_row<true>(f.d_inputs[g] + at, -p.width(), p.size);
    }
    for (int part = C; part < STATES; ++part)
      prefetch_row<false>(f.cells + p.at(b, t, CELLS, part - C, head), -CELLS * p.width(), p.size);
    for_vectors(p.size, [&](int64_t i, auto get, auto put) {
      const auto gate = [&](int g) { return get(f.gates + p.at(b, t, GATES, g, head) + i); };
      const auto cell = [&](int part) { return get(f.cells + p.at(b, t, CELLS, part - C, head) + i); };
      const vec m = cell(M), forget = gate(F), z = vtanh(gate(Z)), open = vsigmoid(gate(O));
      const vec kept = smaller_than_one(vexp(vlog_sigmoid(forget) + get(before[M] + i) - m));
      const vec added = smaller_than_one(vexp(gate(I) - m)), inverse = 1.0f / cell(N), ratio = cell(C) * inverse;
      const vec dy = get(f.dy + at + i) + load(memory.d_y.row(r) + i), open_dy = open * dy;
      const vec dc = load(d_c + i) + open_dy * inverse, dn = load(d_n + i) - open_dy * inverse * ratio;
      const vec d_log = kept * (dc * get(before[C] + i) + dn * get(before[N] + i));
      const vec gradients[GATES] = {added * (dc * z + dn), d_log * vsigmoid(-forget), dc * added * (1.0f - z * z),
                                    open_dy * ratio * (1.0f - open)};
#pragma GCC unroll 4
      for (int g = 0; g < GATES; ++g) {
        put(d_gates + g * p.size + i, gradients[g]);
        put(f.d_inputs[g] + at + i, gradients[g]);
      }
      store(d_c + i, kept * dc);
      store(d_n + i, kept * dn);
      store(memory.d_log.row(r) + i, d_log);
    });
  }
};

/** Positions whose products are added in one go. */
constexpr int64_t DEPTH = 128;

struct WeightMemory {
  Lines before, d_gate;  // [DEPTH, size]
  Lines sums;            // [size, size]
  float* bias;           // [size]

  WeightMemory(Parts& parts, const SlstmProblem& p)
      : before(parts.tiles(DEPTH, p.size)), d_gate(parts.tiles(DEPTH, p.size)), sums(parts.tiles(p.size, p.size)),
        bias(parts.floats(line_stride(p.size))) {}
};

/** The gradients of one head's weights and bias for one gate: sums over all positions, sequence by sequence. */
void differentiate_weights(const ScanGrad& f, const WeightMemory& memory, int64_t head, int64_t gate) {
  const SlstmProblem& p = f.p;
  const int64_t positions = p.batch * p.time, size = p.size;
  std::memset(memory.bias, 0, static_cast<size_t>(line_stride(size)) * sizeof(float));
  for (int64_t first = 0; first < positions; first += DEPTH) {
    const int64_t count = min(DEPTH, positions - first);
    copy_rows(memory.d_gate, f.d_inputs[gate] + first * p.width() + head * size, p.width(), count, size, 1);
    for (int64_t i = 0; i < count; ++i) {
      const float* y = f.cell_before(Y, (first + i) / p.time, (first + i) % p.time, head);
      float* row = memory.before.row(i);
      if (y == nullptr) std::memset(row, 0, static_cast<size_t>(size) * sizeof(float));
      else copy_rows({row, 0}, y, 0, 1, size, 1);
      for (int64_t j = 0; j < size; j += LANES) store(memory.bias + j, load(memory.bias + j) + load(memory.d_gate.row(i) + j));
    }
    multiply<true>(size, size, count, memory.before, memory.d_gate, memory.sums, memory.sums, first == 0 ? 0.0f : 1.0f);
  }
  float* to = f.d_recurrent + head * p.recurrent_size() + gate * size;
  if (positions == 0)
    for (int64_t j = 0; j < size; ++j) std::memset(to + j * GATES * size, 0, static_cast<size_t>(size) * sizeof(float));
  else put_rows(to, GATES * size, memory.sums, size, size, 1);
  std::memcpy(f.d_bias + gate * p.width() + head * size, memory.bias, static_cast<size_t>(size) * sizeof(float));
}

}  // namespace

LLMX_KERNEL(XlstmSlstmScan) {
  const SlstmProblem p(call, 6);
  const Scan f(p, call);
  const int64_t panels = panels_size(p.size, GATES * p.size), group = group_size(p), groups = divide_up(p.batch, group);
  float* weights = scratch<float>(-1, 0, p.heads * panels);
  if (weights == nullptr) return 1;
  parallel(p.heads, [&](int64_t head, int32_t) {
    pack_panels(weights + head * panels, f.recurrent + head * p.recurrent_size(), GATES * p.size, 1, p.size, GATES * p.size);
  });
  Parts parts(nullptr);
  [[maybe_unused]] const ScanMemory layout(parts, p);
  parallel(p.heads * groups, [&](int64_t index, int32_t worker) {
    float* memory = scratch<float>(worker, 0, parts.used());
    if (memory == nullptr) return;
    Parts own(memory);
    const ScanMemory blocks(own, p);
    const int64_t head = index / groups, first = index % groups * group;
    const ScanTask task{f, blocks, head, first, min(group, p.batch - first)};
    task.run(weights + head * panels);
  });
  return 0;
}

LLMX_KERNEL(XlstmSlstmScanGrad) {
  const SlstmProblem p(call, 3);
  const ScanGrad f(p, call);
  const int64_t panels = panels_size(GATES * p.size, p.size), group = group_size(p), groups = divide_up(p.batch, group);
  float* weights = scratch<float>(-1, 0, p.heads * panels);
  float* zeros = scratch<float>(-1, 1, p.size);
  if (weights == nullptr || zeros == nullptr) return 1;
  std::memset(zeros, 0, static_cast<size_t>(p.size) * sizeof(float));
  parallel(p.heads, [&](int64_t head, int32_t) {
    pack_panels(weights + head * panels, f.recurrent + head * p.recurrent_size(), 1, GATES * p.size, GATES * p.size, p.size);
  });
  Parts parts(nullptr), weight_parts(nullptr);
  [[maybe_unused]] const ScanGradMemory layout(parts, p);
  [[maybe_unused]] const WeightMemory weight_layout(weight_parts, p);
  parallel(p.heads * groups, [&](int64_t index, int32_t worker) {
    float* memory = scratch<float>(worker, 0, parts.used());
    if (memory == nullptr) return;
    Parts own(memory);
    const ScanGradMemory blocks(own, p);
    const int64_t head = index / groups, first = index % groups * group;
    const ScanGradTask task{f, blocks, zeros, head, first, min(group, p.batch - first)};
    task.run(weights + head * panels);
  });
  parallel(p.heads * GATES, [&](int64_t index, int32_t worker) {
    float* memory = scratch<float>(worker, 0, weight_parts.used());
    if (memory == nullptr) return;
    Parts own(memory);
    const WeightMemory blocks(own, p);
    differentiate_weights(f, blocks, index / GATES, index % GATES);
  });
  return 0;
}

#endif

}  // namespace llmx::LLMX_ISA_NAME
