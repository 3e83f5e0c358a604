/**
 * The mLSTM (Beck et al., arXiv 2405.04517) in chunks: quadratic within a chunk, a matrix state from one to the next. Cost
 * linear in time.
 *
 * XlstmMlstmChunkwise: query, key, value, inputGate, forgetGate, segments?, memory?, normalizer?, maximum?; h, memory,
 * normalizer, maximum, products?, states?. Shapes and formulas: src/kernel-contract.md. What the gradient needs, or
 * left out: products q.n [batch, time, heads], and states, see MlstmProblem::kept_state.
 * Numbers: batch, time, heads, keySize, valueSize, chunk, epsilon.
 */
#include "mlstm.h"

namespace llmx::LLMX_ISA_NAME {

using namespace xlstm;

namespace {

struct Forward {
  const MlstmProblem& p;
  const float *query, *key, *value, *input_gate, *forget_gate;
  const float *memory, *normalizer, *maximum;  // before the first position, or null
  float *h, *last_memory, *last_normalizer, *last_maximum;
  float *products, *states;  // or null

  Forward(const MlstmProblem& problem, const Call& call)
      : p(problem), query(call.floats(0)), key(call.floats(1)), value(call.floats(2)), input_gate(call.floats(3)),
        forget_gate(call.floats(4)), memory(call.floats(6)), normalizer(call.floats(7)), maximum(call.floats(8)),
        h(call.floats(9)), last_memory(call.floats(10)), last_normalizer(call.floats(11)), last_maximum(call.floats(12)),
        products(call.floats(13)), states(call.floats(14)) {}

  int64_t memory_size() const { return p.key_size * p.value_size; }
  /** Keeps q.n of a position for the gradient, and gives its denominator; `floor` is exp(-m). */
  template <class Number>
  Number denominator(int64_t at, Number q_n, Number floor) const {
    if (products != nullptr) products[at] = static_cast<float>(q_n);
    return max(q_n < 0 ? -q_n : q_n, floor) + static_cast<Number>(p.epsilon);
  }
};

}  // namespace

#if LLMX_ISA == LLMX_ISA_REFERENCE

LLMX_KERNEL(XlstmMlstmChunkwise) {
  const MlstmProblem p(call, 5);
  const Forward f(p, call);
  double* c = scratch<double>(-1, 0, p.key_size * p.value_size + p.key_size);
  if (c == nullptr) return 1;
  for (int64_t row = 0; row < p.batch * p.heads; ++row) {
    const int64_t b = row / p.heads, head = row % p.heads;
    ScalarState state{p, c, c + f.memory_size()};
    state.clear();
    if (f.memory != nullptr) state.load(f.memory + row * f.memory_size(), f.normalizer + row * p.key_size, f.maximum[row]);
    for (int64_t t = 0; t < p.time; ++t) {
      if (p.resets(b, t)) state.clear();
      if (f.states != nullptr && t > 0 && t % p.window() == 0) {
        float* kept = p.kept_state(f.states, b, head, t / p.window());
        state.put(kept, kept + f.memory_size(), kept + f.memory_size() + p.key_size);
      }
      const int64_t at = p.at(b, t, head);
      const float *q = f.query + at * p.key_size, *value = f.value + at * p.value_size;
      state.step(f.key + at * p.key_size, value, f.input_gate[at], f.forget_gate[at]);
      const double q_n = dot(q, state.n, p.key_size), floor = std::exp(-state.m);
      const double below = f.denominator<double>(at, q_n, floor);
      for (int64_t e = 0; e < p.value_size; ++e) {
        double sum = 0;
        for (int64_t d = 0; d < p.key_size; ++d) sum += q[d] * state.c[d * p.value_size + e];
        f.h[at * p.value_size + e] = static_cast<float>(sum / below);
      }
    }
    state.put(f.last_memory + row * f.memory_size(), f.last_normalizer + row * p.key_size, f.last_maximum + row);
  }
  return 0;
}

#else

namespace {

/** Working memory of a head. */
struct ForwardMemory {
  Lines c;                    // [key_size, value_size], the state
  float* n;                   // [key_size]
  Lines query, key, value;    // [chunk, size]; keys scaled
  Lines key_columns;          // [key_size, chunk]
  Lines scores;               // [chunk, chunk]
  Lines sums;                 // [chunk, value_size]

  ForwardMemory(Parts& parts, const MlstmProblem& p)
      : c(parts.tiles(p.key_size, p.value_size)), n(parts.floats(line_stride(p.key_size))),
        query(parts.tiles(p.chunk, p.key_size)), key(parts.tiles(p.chunk, p.key_size)),
        value(parts.tiles(p.chunk, p.value_size)), key_columns(parts.tiles(p.key_size, p.chunk)),
        scores(triangle(parts, p.chunk)), sums(parts.tiles(p.chunk, p.value_size)) {}
};

/** One sequence and head, from its first position to its last. */
class ForwardHead {
 public:
  ForwardHead(const Forward& forward, const ForwardMemory& memory, int64_t row)
      : f_(forward), p_(forward.p), memory_(memory), row_(row), b_(row / p_.heads), head_(row % p_.heads) {}

  void run() {
    load_state();
    const float* forget_gate = f_.forget_gate + p_.at(b_, 0, head_);
    for (int64_t t = 0; t < p_.time;) {
      if (f_.states != nullptr && t > 0 && t % p_.window() == 0) {
        float* kept = p_.kept_state(f_.states, b_, head_, t / p_.window());
        put_state(kept, kept + f_.memory_size(), kept + f_.memory_size() + p_.key_size);
      }
      const int64_t end = chunk_end(p_, b_, t, forget_gate);
      if (p_.resets(b_, t)) forget();
      const int64_t at = p_.at(b_, t, head_);
      const ChunkWeights weights(p_, f_.input_gate + at, f_.forget_gate + at, end - t, m_);
      run_chunk(weights, at, end - t);
      if (end == p_.time || !p_.resets(b_, end)) advance(weights, end - t);
      else forget();
      t = end;
    }
    put_state(f_.last_memory + row_ * f_.memory_size(), f_.last_normalizer + row_ * p_.key_size, f_.last_maximum + row_);
  }

 private:
  void forget() {
    empty_ = true;
    m_ = 0;
  }

  void load_state() {
    if (f_.memory == nullptr) return;
    copy_rows(memory_.c, f_.memory + row_ * f_.memory_size(), p_.value_size, p_.key_size, p_.value_size, 1);
    std::memcpy(memory_.n, f_.normalizer + row_ * p_.key_size, static_cast<size_t>(p_.key_size) * sizeof(float));
    m_ = f_.maximum[row_];
    empty_ = false;
  }

  void put_state(float* memory, float* normalizer, float* maximum) const {
    *maximum = m_;
    if (empty_) {
      std::memset(memory, 0, static_cast<size_t>(f_.memory_size()) * sizeof(float));
      std::memset(normalizer, 0, static_cast<size_t>(p_.key_size) * sizeof(float));
      return;
    }
    put_rows(memory, p_.value_size, memory_.c, p_.key_size, p_.value_size, 1);
    std::memcpy(normalizer, memory_.n, static_cast<size_t>(p_.key_size) * sizeof(float));
  }

  /** h of the chunk whose first position stands at `at`. */
  void run_chunk(const ChunkWeights& weights, int64_t at, int64_t count) {
    const ForwardMemory& v = memory_;
    copy_rows(v.query, f_.query + at * p_.key_size, p_.key_stride(), count, p_.key_size, 1);
    copy_rows(v.key, f_.key + at * p_.key_size, p_.key_stride(), count, p_.key_size, static_cast<float>(p_.key_scale()));
    copy_rows(v.value, f_.value + at * p_.value_size, p_.value_stride(), count, p_.value_size, 1);
    transpose(v.key_columns, v.key, count, p_.key_size);
    multiply<false>(count, count, v.query, v.key_columns, v.scores, v.scores, 0, lower_result(p_.key_size));
    const bool carries = !empty_ && weights.carries();
    if (carries) multiply<false>(count, p_.value_size, p_.key_size, v.query, v.c, v.sums, v.sums, 0);

    alignas(64) float normalizers[MlstmProblem::MAX_CHUNK];
    for (int64_t t = 0; t < count; ++t) {
      float* row = v.scores.row(t);
      vec total = vec{};
      for (int64_t s = 0; s < triangle_columns(t); s += LANES) {
        const vec score = select(weights.later(t, s), vec{}, load(row + s) * weights.of(t, s));
        total += score;
        store(row + s, score);
      }
      normalizers[t] = sum(total);
      if (!carries) continue;
      normalizers[t] += weights.carry(t) * dot(v.query.row(t), v.n, p_.key_size);
      float* sums = v.sums.row(t);
      for (int64_t e = 0; e < p_.value_size; e += LANES) store(sums + e, weights.carry(t) * load(sums + e));
    }
    multiply<false>(count, p_.value_size, v.scores, v.value, v.sums, v.sums, carries ? 1.0f : 0.0f, lower_left(count));
    for (int64_t t = 0; t < count; ++t) {
      const int64_t to = at + t * p_.heads;
      const float factor = 1 / f_.denominator<float>(to, normalizers[t], weights.floor(t));
      put_rows(f_.h + to * p_.value_size, p_.value_stride(), v.sums.from(t), 1, p_.value_size, factor);
    }
  }

  /** The state after the chunk whose keys and values were copied. */
  void advance(const ChunkWeights& weights, int64_t count) {
    const ForwardMemory& v = memory_;
    alignas(64) float of_next[MlstmProblem::MAX_CHUNK];
    weights.of_next(of_next);
    const float keep = !empty_ && weights.carries() ? weights.carry(count - 1) : 0;
    for (int64_t d = 0; d < p_.key_size; d += LANES) {
      vec n = keep == 0 ? vec{} : keep * load(v.n + d);
      for (int64_t s = 0; s < count; ++s) {
        float* key = v.key.row(s) + d;
        const vec weighted = of_next[s] * load(key);
        store(key, weighted);
        n += weighted;
      }
      store(v.n + d, n);
    }
    multiply<true>(p_.key_size, p_.value_size, count, v.key, v.value, v.c, v.c, keep);
    m_ = weights.maximum(count - 1);
    empty_ = false;
  }

  const Forward& f_;
  const MlstmProblem& p_;
  const ForwardMemory& memory_;
  const int64_t row_, b_, head_;
  float m_ = 0;
  bool empty_ = true;  // C and n are 0, whatever the memory holds
};

/**
 * Up to this many positions go step by step where no gradient follows: each reads and writes the state once, which is all that
 * decoding costs.
 */
constexpr int64_t FEW = 4;

/** The state lies where the results are to be. */
void run_few(const Forward& f, float* sums, int64_t row) {
  const MlstmProblem& p = f.p;
  const int64_t b = row / p.heads, head = row % p.heads;
  float *c = f.last_memory + row * f.memory_size(), *n = f.last_normalizer + row * p.key_size;
  const float *from_c = f.memory == nullptr ? nullptr : f.memory + row * f.memory_size();
  const float *from_n = f.memory == nullptr ? nullptr : f.normalizer + row * p.key_size;
  float m = f.memory == nullptr ? 0 : f.maximum[row];
  for (int64_t t = 0; t < p.time; ++t, from_c = c, from_n = n) {
    if (p.resets(b, t)) {
      from_c = nullptr;
      m = 0;
    }
    const int64_t at = p.at(b, t, head);
    const ChunkWeights weights(p, f.input_gate + at, f.forget_gate + at, 1, m);
    float of_next[LANES];
    weights.of_next(of_next);
    const float keep = weights.carry(0), scale = of_next[0] * static_cast<float>(p.key_scale());
    const float *query = f.query + at * p.key_size, *key = f.key + at * p.key_size, *value = f.value + at * p.value_size;
    float q_n = 0;
    std::memset(sums, 0, static_cast<size_t>(p.value_size) * sizeof(float));
    for (int64_t d = 0; d < p.key_size; ++d) {
      const float k = scale * key[d], q = query[d];
      float* line = c + d * p.value_size;
      const float* from = from_c == nullptr ? nullptr : from_c + d * p.value_size;
      for_vectors(p.value_size, [&](int64_t e, auto get, auto put) {
        const vec next = from == nullptr ? k * get(value + e) : keep * get(from + e) + k * get(value + e);
        put(line + e, next);
        put(sums + e, get(sums + e) + q * next);
      });
      n[d] = from == nullptr ? k : keep * from_n[d] + k;
      q_n += q * n[d];
    }
    m = weights.maximum(0);
    const float factor = 1 / f.denominator<float>(at, q_n, weights.floor(0));
    for (int64_t e = 0; e < p.value_size; ++e) f.h[at * p.value_size + e] = factor * sums[e];
  }
  f.last_maximum[row] = m;
}

}  // namespace

LLMX_KERNEL(XlstmMlstmChunkwise) {
  const MlstmProblem p(call, 5);
  const Forward f(p, call);
  if (p.time > 0 && p.time <= FEW && f.products == nullptr) {
    parallel(p.batch * p.heads, [&](int64_t row, int32_t worker) {
      float* sums = scratch<float>(worker, 0, p.value_size);
      if (sums != nullptr) run_few(f, sums, row);
    });
    return 0;
  }
  Parts parts(nullptr);
  [[maybe_unused]] const ForwardMemory layout(parts, p);
  parallel(p.batch * p.heads, [&](int64_t row, int32_t worker) {
    float* memory = scratch<float>(worker, 0, parts.used());
    if (memory == nullptr) return;
    Parts own(memory);
    const ForwardMemory blocks(own, p);
    ForwardHead(f, blocks, row).run();
  });
  return 0;
}

#endif

}  // namespace llmx::LLMX_ISA_NAME
