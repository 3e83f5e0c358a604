/**
 * What both directions of the chunkwise mLSTM share: the problem, how its positions are cut, and the weights of a chunk.
 *
 * Within a chunk that begins at a, with b[t] = sum of lf over (a, t] and g[s] = i[s] - b[s]:
 *
 *     m[t] = b[t] + M[t],  M[t] = max(lf[a] + m[a - 1], g[a], ..., g[t])
 *     weight of position s for t: exp(b[t] - b[s] + i[s] - m[t]) = exp(g[s] - M[t])
 *     weight of the state before the chunk: exp(lf[a] + m[a - 1] - M[t])
 *
 * b drops out of both, no exponential exceeds 1, and the last row of weights is that of the next state. m is rounded to
 * float32 and M set to m - b, so that states and maxima in memory belong together exactly.
 */
#pragma once

#include "functions.h"
#include "products.h"

namespace llmx::LLMX_ISA_NAME::xlstm {

/** The numbers of the kernels, in their order. */
struct MlstmProblem {
  int64_t batch, time, heads, key_size, value_size, chunk;
  float epsilon;
  const int32_t* segments;  // [batch, time], or null

  // Longer chunks than the limit gain nothing: the products with the state are at their peak long before.
  MlstmProblem(const Call& call, int segments_index)
      : batch(call.integer(0)), time(call.integer(1)), heads(call.integer(2)), key_size(call.integer(3)),
        value_size(call.integer(4)), chunk(min<int64_t>(call.integer(5), MAX_CHUNK)),
        epsilon(static_cast<float>(call.number(6))), segments(call.integers(segments_index)) {}

  static constexpr int64_t MAX_CHUNK = 256;

  /** Where a position stands in gates [batch, time, heads]; its rows of keys and values: times their size. */
  int64_t at(int64_t b, int64_t t, int64_t head) const { return (b * time + t) * heads + head; }
  int64_t key_stride() const { return heads * key_size; }
  int64_t value_stride() const { return heads * value_size; }
  double key_scale() const { return 1 / std::sqrt(static_cast<double>(key_size)); }
  bool resets(int64_t b, int64_t t) const {
    return segments != nullptr && t > 0 && segments[b * time + t] != segments[b * time + t - 1];
  }

  // The forward pass keeps the state before every window but the first; the backward pass computes those between anew, a
  // sixth of its work, which costs no more than writing and reading them. With heads of 384 the states kept are 0.6 KiB per
  // position and head; those of all chunks of 64 would be 9 KiB, more than all else that is kept for the gradient.
  static constexpr int64_t WINDOW = 1024;
  int64_t window() const { return round_up(WINDOW, chunk); }
  int64_t windows() const { return divide_up(time, window()); }
  /** Floats of a kept state: C [key_size, value_size], n [key_size], m. */
  int64_t state_size() const { return key_size * value_size + key_size + 1; }
  float* kept_state(float* states, int64_t b, int64_t head, int64_t w) const {
    return states + ((b * heads + head) * (windows() - 1) + w - 1) * state_size();
  }
};

#if LLMX_ISA == LLMX_ISA_REFERENCE

inline double dot(const float* a, const double* b, int64_t size) {
  double sum = 0;
  for (int64_t d = 0; d < size; ++d) sum += a[d] * b[d];
  return sum;
}

/** One head's state, step by step. */
struct ScalarState {
  const MlstmProblem& p;
  double *c, *n;  // [key_size, value_size], [key_size]
  double m = 0;
  double forget = 0, input = 0;  // f' and i' of the last step

  void clear() {
    for (int64_t i = 0; i < p.key_size * p.value_size; ++i) c[i] = 0;
    for (int64_t i = 0; i < p.key_size; ++i) n[i] = 0;
    m = 0;
  }
  void load(const float* memory, const float* normalizer, float maximum) {
    for (int64_t i = 0; i < p.key_size * p.value_size; ++i) c[i] = memory[i];
    for (int64_t i = 0; i < p.key_size; ++i) n[i] = normalizer[i];
    m = maximum;
  }
  void put(float* memory, float* normalizer, float* maximum) const {
    for (int64_t i = 0; i < p.key_size * p.value_size; ++i) memory[i] = static_cast<float>(c[i]);
    for (int64_t i = 0; i < p.key_size; ++i) normalizer[i] = static_cast<float>(n[i]);
    *maximum = static_cast<float>(m);
  }
  void step(const float* key, const float* value, double input_gate, double forget_gate) {
    const double decayed = log_sigmoid(forget_gate) + m;
    m = max(max(decayed, input_gate), -1e30);
    forget = std::exp(decayed - m);
    input = std::exp(input_gate - m);
    for (int64_t d = 0; d < p.key_size; ++d) {
      const double k = input * p.key_scale() * key[d];
      for (int64_t e = 0; e < p.value_size; ++e) c[d * p.value_size + e] = forget * c[d * p.value_size + e] + k * value[e];
      n[d] = forget * n[d] + k;
    }
  }
};

#else

/** A gate this low forgets everything that float32 could remember: a chunk ends before it, so that sums of gates stay small. */
constexpr float FORGETS_ALL = -1000;
/** In place of a maximum of -infinity: differences with it stay numbers. */
constexpr double LOWEST = -1e30;

/** Where the chunk that starts at `begin` ends: `forget_gate` is that of the sequence and head, `heads` apart. */
inline int64_t chunk_end(const MlstmProblem& p, int64_t b, int64_t begin, const float* forget_gate) {
  const int64_t window_end = (begin / p.window() + 1) * p.window();
  const int64_t last = min(min(p.time, window_end), begin + p.chunk);
  for (int64_t t = begin + 1; t < last; ++t)
    if (p.resets(b, t) || forget_gate[t * p.heads] < FORGETS_ALL) return t;
  return last;
}

/** The weights of one chunk. */
class ChunkWeights {
 public:
  /** @param gates at which the chunk's gates begin, `heads` apart; @param m maximum of the state before it */
  ChunkWeights(const MlstmProblem& p, const float* input_gate, const float* forget_gate, int64_t count, float m)
      : count_(count) {
    alignas(64) float lf[MlstmProblem::MAX_CHUNK];
    for (int64_t t = 0; t < count; ++t) lf[t] = forget_gate[t * p.heads];
    for_vectors(count, [&](int64_t t, auto get, auto put) { put(lf + t, vlog_sigmoid(get(lf + t))); });
    const double entry = static_cast<double>(lf[0]) + m;
    double b = 0, highest = max(entry, LOWEST);
    for (int64_t t = 0; t < count; ++t) {
      if (t > 0) b += lf[t];
      const double g = input_gate[t * p.heads] - b;
      highest = highest < g || g != g ? g : highest;  // NaN stays
      maximum_[t] = static_cast<float>(b + highest);
      const double top = maximum_[t] - b;
      split(g, g_high_[t], g_low_[t]);
      split(top, top_high_[t], top_low_[t]);
      carry_[t] = static_cast<float>(entry - top);
    }
    for (int64_t t = 0; t < count; t += LANES) {
      store(carry_ + t, vexp(load(carry_ + t)));
      store(floor_ + t, vexp(-load(maximum_ + t)));
    }
  }

  /** m[t]. */
  float maximum(int64_t t) const { return maximum_[t]; }
  /** exp(-m[t]), which the denominator does not fall below. */
  float floor(int64_t t) const { return floor_[t]; }
  /** Weight of the state before the chunk for position t. */
  float carry(int64_t t) const { return carry_[t]; }
  /** Whether the state before the chunk counts at all. */
  bool carries() const { return !(carry_[0] == 0); }
  /** Weights of the positions from s on for t, not regarding their order. */
  vec of(int64_t t, int64_t s) const {
    return vexp((load(g_high_ + s) - top_high_[t]) + (load(g_low_ + s) - top_low_[t]));
  }
  /** -1 for positions from s on that are later than t, else 0. */
  static ivec later(int64_t t, int64_t s) {
    ivec lanes;
    for (int lane = 0; lane < LANES; ++lane) lanes[lane] = lane;
    return lanes > static_cast<int32_t>(t - s);
  }
  /** weights[s], s in [0, count): those of the next state. */
  void of_next(float* weights) const {
    for (int64_t s = 0; s < count_; s += LANES) store(weights + s, of(count_ - 1, s));
  }

 private:
  /** The sum of two floats: differences of large numbers that are close come out right. */
  static void split(double x, float& high, float& low) {
    high = static_cast<float>(x);
    low = std::isfinite(high) ? static_cast<float>(x - high) : 0;
  }

  static constexpr int64_t ROOM = MlstmProblem::MAX_CHUNK + LANES;  // whole tiles may end beyond the last position
  int64_t count_;
  alignas(64) float g_high_[ROOM] = {}, g_low_[ROOM] = {};
  alignas(64) float top_high_[ROOM], top_low_[ROOM], maximum_[ROOM], carry_[ROOM], floor_[ROOM];
};

/** How many columns of row t matter of a triangle: those of whole tiles. */
inline int64_t triangle_columns(int64_t t) { return round_up(t + 1, TILE_ROWS); }
/** Room for a triangle of `count` rows, written in whole vectors. */
inline Lines triangle(Parts& parts, int64_t count) { return parts.tiles(count, round_up(triangle_columns(count - 1), LANES)); }
/** For c = a b: a lower triangular; a transposed, so upper triangular; only the lower triangle of c is wanted. */
inline auto lower_left(int64_t depth) {
  return [=](int64_t i, int64_t) { return Range{0, min<int64_t>(depth, i + TILE_ROWS)}; };
}
inline auto upper_left(int64_t depth) {
  return [=](int64_t i, int64_t) { return Range{i, depth}; };
}
inline auto lower_result(int64_t depth) {
  return [=](int64_t i, int64_t j) { return Range{0, i + TILE_ROWS > j ? depth : 0}; };
}

#endif

}  // namespace llmx::LLMX_ISA_NAME::xlstm
