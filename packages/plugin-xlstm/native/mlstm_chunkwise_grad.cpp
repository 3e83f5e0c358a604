/**
 * The gradient of the mLSTM (mlstm_chunkwise.cpp), in chunks, from the last to the first; m is a constant.
 *
 * XlstmMlstmChunkwiseGrad: dy, query, key, value, inputGate, forgetGate, h, segments?, memory?, normalizer?, maximum?,
 * products, states; dQuery, dKey, dValue, dInputGate, dForgetGate, dMemory?, dNormalizer?.
 * Numbers: those of XlstmMlstmChunkwise.
 *
 * With h = N / below and d = q.n: dN = dh / below; dd = -sign(d) dh.h / below where |d| counts, else 0. Every weight exp(lf[s+1]
 * + ... + lf[t] + i[s] - m[t]) multiplies one term of q[t] and k[s], so that with P[t, s] for term times gradient
 *
 *     di[s] = sum of P[., s] = k[s].dk[s],  sum of P[t, .] = q[t].dq[t]
 *     dlf[u] = sum of P[t, s] over s < u <= t
 *            = sum over u <= t of (q[t].dq[t] - k[t].dk[t]), up to the chunk's end, + C.dC + n.dn after it.
 */
#include "mlstm.h"

namespace llmx::LLMX_ISA_NAME {

using namespace xlstm;

namespace {

struct Backward {
  const MlstmProblem& p;
  const float *dy, *query, *key, *value, *input_gate, *forget_gate, *h;
  const float *memory, *normalizer, *maximum;
  const float* products;
  float* states;
  float *d_query, *d_key, *d_value, *d_input_gate, *d_forget_gate, *d_memory, *d_normalizer;

  Backward(const MlstmProblem& problem, const Call& call)
      : p(problem), dy(call.floats(0)), query(call.floats(1)), key(call.floats(2)), value(call.floats(3)),
        input_gate(call.floats(4)), forget_gate(call.floats(5)), h(call.floats(6)), memory(call.floats(8)),
        normalizer(call.floats(9)), maximum(call.floats(10)), products(call.floats(11)), states(call.floats(12)),
        d_query(call.floats(13)), d_key(call.floats(14)), d_value(call.floats(15)), d_input_gate(call.floats(16)),
        d_forget_gate(call.floats(17)), d_memory(call.floats(18)), d_normalizer(call.floats(19)) {}

  int64_t memory_size() const { return p.key_size * p.value_size; }
};

}  // namespace

#if LLMX_ISA == LLMX_ISA_REFERENCE

namespace {

/** One sequence and head: the states before all positions, then the gradients from the last position to the first. */
struct ScalarBackward {
  const Backward& f;
  int64_t row;
  double* states;    // [time + 1, state_size]
  double* gradient;  // [state_size]

  double* state(int64_t t) const { return states + t * f.p.state_size(); }

  void run_forward() const {
    const MlstmProblem& p = f.p;
    const int64_t b = row / p.heads, head = row % p.heads, size = f.memory_size();
    for (int64_t t = -1; t < p.time; ++t) {
      double* next = state(t + 1);
      ScalarState now{p, next, next + size};
      if (t >= 0) std::memcpy(next, state(t), static_cast<size_t>(p.state_size()) * sizeof(double));
      if (t < 0 || p.resets(b, t)) now.clear();
      else now.m = state(t)[p.state_size() - 1];
      if (t < 0 && f.memory != nullptr) now.load(f.memory + row * size, f.normalizer + row * p.key_size, f.maximum[row]);
      const int64_t at = p.at(b, t, head);
      if (t >= 0) now.step(f.key + at * p.key_size, f.value + at * p.value_size, f.input_gate[at], f.forget_gate[at]);
      next[p.state_size() - 1] = now.m;
    }
  }

  void run_backward() const {
    const MlstmProblem& p = f.p;
    for (int64_t i = 0; i < p.state_size(); ++i) gradient[i] = 0;
    for (int64_t t = p.time - 1; t >= 0; --t) position(t);
    if (f.d_memory == nullptr) return;
    const int64_t size = f.memory_size();
    for (int64_t i = 0; i < size; ++i) f.d_memory[row * size + i] = static_cast<float>(gradient[i]);
    for (int64_t i = 0; i < p.key_size; ++i)
      f.d_normalizer[row * p.key_size + i] = static_cast<float>(gradient[size + i]);
  }

  void position(int64_t t) const {
    const MlstmProblem& p = f.p;
    const int64_t b = row / p.heads, at = p.at(b, t, row % p.heads), size = f.memory_size(), values = p.value_size;
    const float *q = f.query + at * p.key_size, *key = f.key + at * p.key_size, *value = f.value + at * values;
    const float* dy = f.dy + at * values;
    const double *before = state(t), *after = state(t + 1);
    const double m = after[p.state_size() - 1], d = dot(q, after + size, p.key_size), floor = std::exp(-m);
    const double below = max(std::fabs(d), floor) + p.epsilon;
    double dy_h = 0;
    for (int64_t e = 0; e < values; ++e) {
      double h = 0;
      for (int64_t i = 0; i < p.key_size; ++i) h += q[i] * after[i * values + e];
      dy_h += dy[e] * h / below;
    }
    const double dd = std::fabs(d) > floor ? (d < 0 ? dy_h : -dy_h) / below : 0;
    const bool fresh = p.resets(b, t);
    const double decayed = log_sigmoid(f.forget_gate[at]) + (fresh ? 0 : before[p.state_size() - 1]);
    const double forget = std::exp(decayed - m), input = std::exp(f.input_gate[at] - m);
    double d_forget = 0, d_input = 0;
    for (int64_t e = 0; e < values; ++e) {
      double sum = 0;
      for (int64_t i = 0; i < p.key_size; ++i) sum += key[i] * (gradient[i * values + e] + q[i] * dy[e] / below);
      f.d_value[at * values + e] = static_cast<float>(input * p.key_scale() * sum);
    }
    for (int64_t i = 0; i < p.key_size; ++i) {
      const double k = p.key_scale() * key[i];
      double dq = dd * after[size + i], dn = gradient[size + i] + dd * q[i];
      double dk = dn;
      d_forget += fresh ? 0 : dn * before[size + i];
      gradient[size + i] = fresh ? 0 : forget * dn;
      for (int64_t e = 0; e < values; ++e) {
        const int64_t c = i * values + e;
        dq += dy[e] / below * after[c];
        const double dc = gradient[c] + q[i] * dy[e] / below;
        dk += dc * value[e];
        d_forget += fresh ? 0 : dc * before[c];
        gradient[c] = fresh ? 0 : forget * dc;
      }
      f.d_query[at * p.key_size + i] = static_cast<float>(dq);
      f.d_key[at * p.key_size + i] = static_cast<float>(input * p.key_scale() * dk);
      d_input += k * dk;
    }
    f.d_input_gate[at] = static_cast<float>(input * d_input);
    f.d_forget_gate[at] = static_cast<float>(forget * d_forget * sigmoid(-static_cast<double>(f.forget_gate[at])));
  }
};

}  // namespace

LLMX_KERNEL(XlstmMlstmChunkwiseGrad) {
  const MlstmProblem p(call, 7);
  const Backward f(p, call);
  double* memory = scratch<double>(-1, 0, (p.time + 2) * p.state_size());
  if (memory == nullptr) return 1;
  for (int64_t row = 0; row < p.batch * p.heads; ++row) {
    const ScalarBackward task{f, row, memory, memory + (p.time + 1) * p.state_size()};
    task.run_forward();
    task.run_backward();
  }
  return 0;
}

#else

namespace {

/** Working memory of a head. The state and its gradient are held transposed: [value_size, key_size]. */
struct BackwardMemory {
  Lines d_c;                          // [value_size, key_size]
  float *n, *d_n;                     // [key_size]
  Lines query, key, value, d_sums;    // [chunk, size]; keys scaled
  Lines key_columns, value_columns;   // [size, chunk]
  Lines d_value_columns;              // [value_size, chunk]
  Lines scores, d_scores;             // [chunk, chunk]
  Lines d_query, d_key, d_value;      // [chunk, size]

  BackwardMemory(Parts& parts, const MlstmProblem& p)
      : d_c(parts.tiles(p.value_size, p.key_size)), n(parts.floats(line_stride(p.key_size))),
        d_n(parts.floats(line_stride(p.key_size))), query(parts.tiles(p.chunk, p.key_size)),
        key(parts.tiles(p.chunk, p.key_size)), value(parts.tiles(p.chunk, p.value_size)),
        d_sums(parts.tiles(p.chunk, p.value_size)), key_columns(parts.tiles(p.key_size, p.chunk)),
        value_columns(parts.tiles(p.value_size, p.chunk)), d_value_columns(parts.tiles(p.value_size, p.chunk)),
        scores(triangle(parts, p.chunk)), d_scores(triangle(parts, p.chunk)),
        d_query(parts.tiles(p.chunk, p.key_size)), d_key(parts.tiles(p.chunk, p.key_size)),
        d_value(parts.tiles(p.chunk, p.value_size)) {}
};

/** Numbers of one chunk, by position. */
struct ChunkNumbers {
  alignas(64) float of_next[MlstmProblem::MAX_CHUNK];  // weights of the next state
  float d_normalizer[MlstmProblem::MAX_CHUNK];         // dd
  float q_dq[MlstmProblem::MAX_CHUNK], k_dk[MlstmProblem::MAX_CHUNK];
};

/** A chunk of a window: where it begins and ends, m before it, and which of the states held belongs before it (-1: none). */
struct Chunk {
  int64_t begin, end, state;
  float m;
};

/** One sequence and head, from its last window to its first. */
class BackwardHead {
 public:
  BackwardHead(const Backward& backward, const BackwardMemory& memory, int64_t row)
      : f_(backward), p_(backward.p), memory_(memory), row_(row), b_(row / p_.heads), head_(row % p_.heads),
        forget_gate_(f_.forget_gate + p_.at(b_, 0, head_)) {}

  /** Memory of a state: C transposed, then n. */
  static int64_t state_floats(const MlstmProblem& p) {
    Parts parts(nullptr);
    parts.tiles(p.value_size, p.key_size);
    parts.floats(line_stride(p.key_size));
    return parts.used();
  }
  /** The most states that a window needs. */
  int64_t states_needed() const {
    int64_t most = 1, states = 1;
    for (int64_t t = 0; t < p_.time;) {
      const int64_t end = chunk_end(p_, b_, t, forget_gate_);
      states = end % p_.window() == 0 ? 1 : states + (end < p_.time && !p_.resets(b_, end) ? 1 : 0);
      most = max(most, states);
      t = end;
    }
    return most;
  }

  /** @param states memory for all states that a window needs; @param chunks for all of its chunks */
  void run(float* states, Chunk* chunks) {
    states_ = states;
    for (int64_t w = p_.windows() - 1; w >= 0; --w) {
      const int64_t count = run_states(w, chunks);
      for (int64_t i = count - 1; i >= 0; --i) run_chunk(chunks[i]);
    }
    if (f_.d_memory != nullptr) put_memory_gradient();
  }

 private:
  Lines state(int64_t index) const { return {states_ + index * state_floats(p_), memory_.d_c.stride}; }
  float* state_n(int64_t index) const {
    return states_ + (index + 1) * state_floats(p_) - round_up(line_stride(p_.key_size), 16);
  }

  void copy_keys_and_values(int64_t at, int64_t count) const {
    const float scale = static_cast<float>(p_.key_scale());
    copy_rows(memory_.key, f_.key + at * p_.key_size, p_.key_stride(), count, p_.key_size, scale);
    copy_rows(memory_.value, f_.value + at * p_.value_size, p_.value_stride(), count, p_.value_size, 1);
  }

  /** Where the state before a window's first position is given: C, then n and m. Null: it is zero. */
  bool load_first(int64_t w, float& m) const {
    m = 0;
    const float *c = nullptr, *n = nullptr;
    if (w > 0 && !p_.resets(b_, w * p_.window())) {
      c = p_.kept_state(f_.states, b_, head_, w);
      n = c + f_.memory_size();
      m = n[p_.key_size];
    } else if (w == 0 && f_.memory != nullptr) {
      c = f_.memory + row_ * f_.memory_size();
      n = f_.normalizer + row_ * p_.key_size;
      m = f_.maximum[row_];
    }
    if (c == nullptr) return false;
    transpose(state(0), {const_cast<float*>(c), p_.value_size}, p_.key_size, p_.value_size);
    std::memcpy(state_n(0), n, static_cast<size_t>(p_.key_size) * sizeof(float));
    return true;
  }

  /** Cuts a window into chunks and computes the states before them; gives their number. */
  int64_t run_states(int64_t w, Chunk* chunks) {
    int64_t count = 0, t = w * p_.window();
    const int64_t window_end = min(p_.time, t + p_.window());
    float m;
    int64_t held = load_first(w, m) ? 0 : -1, next = held + 1;
    while (t < window_end) {
      const int64_t end = chunk_end(p_, b_, t, forget_gate_);
      chunks[count++] = {t, end, held, m};
      const bool goes_on = end < window_end && !p_.resets(b_, end);
      if (goes_on) {
        m = advance(chunks[count - 1], next);
        held = next++;
      } else {
        m = 0;
        held = -1;
      }
      t = end;
    }
    return count;
  }

  /** The state after a chunk; gives its maximum. */
  float advance(const Chunk& chunk, int64_t to) const {
    const int64_t at = p_.at(b_, chunk.begin, head_), count = chunk.end - chunk.begin;
    const ChunkWeights weights(p_, f_.input_gate + at, f_.forget_gate + at, count, chunk.m);
    copy_keys_and_values(at, count);
    alignas(64) float of_next[MlstmProblem::MAX_CHUNK];
    weights.of_next(of_next);
    const bool carries = chunk.state >= 0 && weights.carries();
    const int64_t from = carries ? chunk.state : to;
    const float keep = carries ? weights.carry(count - 1) : 0;
    add_to_vector(state_n(to), state_n(from), keep, memory_.key, of_next, count);
    for (int64_t s = 0; s < count; ++s) scale_row(memory_.key.row(s), of_next[s], p_.key_size);
    multiply<true>(p_.value_size, p_.key_size, count, memory_.value, memory_.key, state(to), state(from), keep);
    return weights.maximum(count - 1);
  }

  /** to = keep * from + sum of factors[s] * rows[s]. */
  void add_to_vector(float* to, const float* from, float keep, Lines rows, const float* factors, int64_t count) const {
    for (int64_t d = 0; d < p_.key_size; d += LANES) {
      vec total = keep == 0 ? vec{} : keep * load(from + d);
      for (int64_t s = 0; s < count; ++s) total += factors[s] * load(rows.row(s) + d);
      store(to + d, total);
    }
  }
  static void scale_row(float* row, float factor, int64_t size) {
    for (int64_t d = 0; d < size; d += LANES) store(row + d, factor * load(row + d));
  }

  void run_chunk(const Chunk& chunk) {
    const int64_t at = p_.at(b_, chunk.begin, head_), count = chunk.end - chunk.begin;
    const ChunkWeights weights(p_, f_.input_gate + at, f_.forget_gate + at, count, chunk.m);
    ChunkNumbers numbers;
    weights.of_next(numbers.of_next);
    copy_keys_and_values(at, count);
    copy_queries(weights, numbers, at, count);
    transpose(memory_.key_columns, memory_.key, count, p_.key_size);
    transpose(memory_.value_columns, memory_.value, count, p_.value_size);
    differentiate_scores(weights, numbers, count);
    const bool carries = chunk.state >= 0 && weights.carries();
    differentiate_queries(weights, numbers, count, carries ? chunk.state : -1);
    differentiate_keys_and_values(numbers, count);
    put_rows(f_.d_query + at * p_.key_size, p_.key_stride(), memory_.d_query, count, p_.key_size, 1);
    const float scale = static_cast<float>(p_.key_scale());
    put_rows(f_.d_key + at * p_.key_size, p_.key_stride(), memory_.d_key, count, p_.key_size, scale);
    put_rows(f_.d_value + at * p_.value_size, p_.value_stride(), memory_.d_value, count, p_.value_size, 1);
    for (int64_t t = 0; t < count; ++t) {
      numbers.q_dq[t] = dot(memory_.query.row(t), memory_.d_query.row(t), p_.key_size);
      numbers.k_dk[t] = dot(memory_.key.row(t), memory_.d_key.row(t), p_.key_size);
    }
    const double behind = empty_ ? 0 : behind_;
    if (carries) differentiate_state(weights, numbers, count, chunk.state);
    else empty_ = true;
    put_gates(numbers, at, count, behind, empty_ ? 0 : behind_);
  }

  /** Queries, and dN and dd. */
  void copy_queries(const ChunkWeights& weights, ChunkNumbers& numbers, int64_t at, int64_t count) const {
    copy_rows(memory_.query, f_.query + at * p_.key_size, p_.key_stride(), count, p_.key_size, 1);
    for (int64_t t = 0; t < count; ++t) {
      const int64_t from = at + t * p_.heads, floats = from * p_.value_size;
      const float d = f_.products[from], floor = weights.floor(t), size = d < 0 ? -d : d;
      const float factor = 1 / (max(size, floor) + p_.epsilon);
      prefetch_row<false>(f_.h + floats, p_.value_stride(), p_.value_size);
      copy_rows(memory_.d_sums.from(t), f_.dy + floats, p_.value_stride(), 1, p_.value_size, factor);
      const float dy_h = factor * dot(f_.dy + floats, f_.h + floats, p_.value_size);
      numbers.d_normalizer[t] = size > floor ? (d < 0 ? dy_h : -dy_h) : 0;
    }
  }

  /** Weighted scores and their gradients; 0 for later positions. */
  void differentiate_scores(const ChunkWeights& weights, const ChunkNumbers& numbers, int64_t count) const {
    const BackwardMemory& v = memory_;
    multiply<false>(count, count, v.query, v.key_columns, v.scores, v.scores, 0, lower_result(p_.key_size));
    multiply<false>(count, count, v.d_sums, v.value_columns, v.d_scores, v.d_scores, 0, lower_result(p_.value_size));
    for (int64_t t = 0; t < count; ++t) {
      float *row = v.scores.row(t), *d_row = v.d_scores.row(t);
      for (int64_t s = 0; s < triangle_columns(t); s += LANES) {
        const vec weight = weights.of(t, s);
        const ivec later = weights.later(t, s);
        store(row + s, select(later, vec{}, weight * load(row + s)));
        store(d_row + s, select(later, vec{}, weight * (load(d_row + s) + numbers.d_normalizer[t])));
      }
    }
  }

  void differentiate_queries(const ChunkWeights& weights, const ChunkNumbers& numbers, int64_t count, int64_t held) const {
    const BackwardMemory& v = memory_;
    if (held >= 0) {
      multiply<false>(count, p_.key_size, p_.value_size, v.d_sums, state(held), v.d_query, v.d_query, 0);
      for (int64_t t = 0; t < count; ++t)
        add_and_scale(v.d_query.row(t), state_n(held), numbers.d_normalizer[t], weights.carry(t));
    }
    const float keep = held >= 0 ? 1 : 0;
    multiply<false>(count, p_.key_size, v.d_scores, v.key, v.d_query, v.d_query, keep, lower_left(count));
  }

  /** row = factor * (row + share * other), [key_size]. */
  void add_and_scale(float* row, const float* other, float share, float factor) const {
    for (int64_t d = 0; d < p_.key_size; d += LANES) store(row + d, factor * (load(row + d) + share * load(other + d)));
  }

  void differentiate_keys_and_values(const ChunkNumbers& numbers, int64_t count) const {
    const BackwardMemory& v = memory_;
    if (!empty_) {
      multiply<false>(count, p_.key_size, p_.value_size, v.value, v.d_c, v.d_key, v.d_key, 0);
      multiply<false>(p_.value_size, count, p_.key_size, v.d_c, v.key_columns, v.d_value_columns, v.d_value_columns, 0);
      transpose(v.d_value, v.d_value_columns, p_.value_size, count);
      for (int64_t s = 0; s < count; ++s) {
        add_and_scale(v.d_key.row(s), v.d_n, 1, numbers.of_next[s]);
        scale_row(v.d_value.row(s), numbers.of_next[s], p_.value_size);
      }
    }
    const float keep = empty_ ? 0 : 1;
    multiply<true>(count, p_.key_size, v.d_scores, v.query, v.d_key, v.d_key, keep, upper_left(count));
    multiply<true>(count, p_.value_size, v.scores, v.d_sums, v.d_value, v.d_value, keep, upper_left(count));
  }

  /** The gradient of the state before the chunk; its product with that state. Scales the queries. */
  void differentiate_state(const ChunkWeights& weights, const ChunkNumbers& numbers, int64_t count, int64_t held) {
    const BackwardMemory& v = memory_;
    const float keep = empty_ ? 0 : weights.carry(count - 1);
    for (int64_t t = 0; t < count; ++t) scale_row(v.query.row(t), weights.carry(t), p_.key_size);
    add_to_vector(v.d_n, v.d_n, keep, v.query, numbers.d_normalizer, count);
    multiply<true>(p_.value_size, p_.key_size, count, v.d_sums, v.query, v.d_c, v.d_c, keep);
    behind_ = dot(state_n(held), v.d_n, p_.key_size) + state_product(state(held), v.d_c);
    empty_ = false;
  }

  /** Sum of the products of two states' elements; in float64 over groups of rows. */
  double state_product(Lines a, Lines b) const {
    constexpr int64_t GROUP = 16;
    double total = 0;
    for (int64_t e = 0; e < p_.value_size; e += GROUP) {
      vec sums[2] = {vec{}, vec{}};
      for (int64_t i = e; i < min(p_.value_size, e + GROUP); ++i)
        for_vectors(p_.key_size, [&](int64_t d, auto get, auto) { sums[i % 2] += get(a.row(i) + d) * get(b.row(i) + d); });
      total += sum(sums[0] + sums[1]);
    }
    return total;
  }

  /** @param after product of the state after the chunk and its gradient; @param before of that before the chunk */
  void put_gates(const ChunkNumbers& numbers, int64_t at, int64_t count, double after, double before) const {
    alignas(64) float slopes[MlstmProblem::MAX_CHUNK];
    for (int64_t t = 0; t < count; ++t) slopes[t] = -f_.forget_gate[at + t * p_.heads];
    for_vectors(count, [&](int64_t t, auto get, auto put) { put(slopes + t, vsigmoid(get(slopes + t))); });
    double d_log = after;
    for (int64_t t = count - 1; t >= 0; --t) {
      d_log += static_cast<double>(numbers.q_dq[t]) - numbers.k_dk[t];
      f_.d_input_gate[at + t * p_.heads] = numbers.k_dk[t];
      f_.d_forget_gate[at + t * p_.heads] = slopes[t] * static_cast<float>(t == 0 ? before : d_log);
    }
  }

  void put_memory_gradient() const {
    float *to = f_.d_memory + row_ * f_.memory_size(), *to_n = f_.d_normalizer + row_ * p_.key_size;
    if (empty_) {
      std::memset(to, 0, static_cast<size_t>(f_.memory_size()) * sizeof(float));
      std::memset(to_n, 0, static_cast<size_t>(p_.key_size) * sizeof(float));
      return;
    }
    transpose({to, p_.value_size}, memory_.d_c, p_.value_size, p_.key_size);
    std::memcpy(to_n, memory_.d_n, static_cast<size_t>(p_.key_size) * sizeof(float));
  }

  const Backward& f_;
  const MlstmProblem& p_;
  const BackwardMemory& memory_;
  const int64_t row_, b_, head_;
  const float* const forget_gate_;
  float* states_ = nullptr;
  bool empty_ = true;   // the gradient of the state after the chunk at hand is 0, whatever the memory holds
  double behind_ = 0;   // product of that state and its gradient
};

}  // namespace

LLMX_KERNEL(XlstmMlstmChunkwiseGrad) {
  const MlstmProblem p(call, 7);
  const Backward f(p, call);
  Parts parts(nullptr);
  [[maybe_unused]] const BackwardMemory layout(parts, p);
  parallel(p.batch * p.heads, [&](int64_t row, int32_t worker) {
    float* memory = scratch<float>(worker, 0, parts.used());
    if (memory == nullptr) return;
    Parts own(memory);
    const BackwardMemory blocks(own, p);
    BackwardHead head(f, blocks, row);
    float* states = scratch<float>(worker, 1, head.states_needed() * BackwardHead::state_floats(p));
    Chunk* chunks = scratch<Chunk>(worker, 2, p.window());
    if (states != nullptr && chunks != nullptr) head.run(states, chunks);
  });
  return 0;
}

#endif

}  // namespace llmx::LLMX_ISA_NAME
