/**
 * Causal attention with grouped queries, optional window and segments, without [time, time] in memory; the gradient is in
 * attention_grad.cpp.
 *
 * LlmxAttention: query, key, value, segments?; output, logSum (log of the sum of exponentials of the scaled scores).
 * query and output: float32 [batch, queryTime, heads, size]; key and value: float32 [batch, keyTime, kvHeads, size]; logSum:
 * float32 [batch, heads, queryTime]; segments: int32 [batch, keyTime].
 * query, key, value and output may lie in memory as bfloat16.
 * Numbers: batch, queryTime, keyTime, heads, kvHeads, size, scale, window (0: none), bfloat16 (whether operands of products are
 * rounded to it, the weights among them; sums and everything else are float32; few queries are computed without rounding).
 *
 * Queries are the last queryTime of keyTime positions. Positions that a query does not see have no effect on it, even where
 * they hold NaN or infinity.
 */
#include "attention_blocks.h"

namespace llmx::LLMX_ISA_NAME {

using namespace attention;

/** Up to here, reading keys once per query costs less than a block's copies and its idle columns. */
constexpr int64_t FEW_QUERIES = 4;

// Maxima start here: not at -infinity, which would give NaN where the first scores are -infinity.
constexpr float LOWEST = -3.40282347e38f;

#if LLMX_ISA == LLMX_ISA_REFERENCE

LLMX_KERNEL(LlmxAttention) {
  const AttentionProblem p(call, 3);
  const Numbers query = numbers(call, 0), key = numbers(call, 1), value = numbers(call, 2), output = numbers(call, 4);
  float* log_sum = call.floats(5);
  const bool rounds = p.bfloat16 && p.query_time > FEW_QUERIES;
  double* sums = scratch<double>(-1, 0, p.size);
  if (sums == nullptr) return 1;
  for (int64_t b = 0; b < p.batch; ++b)
    for (int64_t head = 0; head < p.heads; ++head)
      for (int64_t i = 0; i < p.query_time; ++i) {
        const int64_t kv_head = head / p.group(), position = p.offset() + i, row = p.query_row(b, i, head);
        const auto score = [&](int64_t j) { return p.scale * dot(query.from(row), key.from(p.key_row(b, j, kv_head)), p.size, rounds); };
        double top = LOWEST, total = 0;
        for (int64_t j = 0; j <= position; ++j)
          if (p.sees(b, position, j)) top = max(top, score(j));
        for (int64_t d = 0; d < p.size; ++d) sums[d] = 0;
        for (int64_t j = 0; j <= position; ++j) {
          if (!p.sees(b, position, j)) continue;
          const double weight = std::exp(score(j) - top);
          total += weight;
          for (int64_t d = 0; d < p.size; ++d) sums[d] += weight * operand(value, p.key_row(b, j, kv_head) + d, rounds);
        }
        for (int64_t d = 0; d < p.size; ++d) output.put(row + d, static_cast<float>(sums[d] / total));
        log_sum[p.log_sum_at(b, i, head)] = static_cast<float>(top + std::log(total));
      }
  return 0;
}

#else

namespace {

struct Forward {
  const AttentionProblem& p;
  Numbers query, key, value, output;
  float* log_sum;
};

/** Working memory of a block of queries. */
template <class Format>
struct ForwardBlock {
  Lines keys;             // [keys, size words]
  Lines values;           // [key words, size], in tile registers [size, key words]
  Lines queries, sums;    // [size words, queries]: queries, scaled unless they are rounded; [size, queries]: unnormalized output
  Lines scores;           // [keys, queries]; then weights: [key words, queries]
  Lines rows;             // [queries, size]: output to be rounded
  float *tops, *totals;   // [queries]: largest score so far, sum of exponentials

  ForwardBlock(Parts& parts, const AttentionProblem& p)
      : keys(lines_of_rows<Format>(parts, KEY_ROWS, p)), values(lines_of_depth<Format>(parts, KEYS, p)),
        queries(parts.lines(words<Format>(p.size), QUERIES)), sums(parts.lines(size_rows(p), QUERIES)),
        scores(parts.lines(KEY_ROWS, QUERIES)), rows(parts.lines(QUERIES, row_stride(p))), tops(parts.floats(QUERIES)),
        totals(parts.floats(QUERIES)) {}
};

/** Multiplies `size` lines of a vector of queries. */
void scale_column(Lines lines, int64_t column, int64_t size, vec factor) {
  for (int64_t d = 0; d < size; ++d) {
    float* at = lines.data + d * lines.stride + column;
    store(at, load(at) * factor);
  }
}

/** Replaces scores by exp(score - top), as a right operand's words if WORDS; gives their sum. */
template <class Format, bool WORDS>
vec put_weights(Lines scores, int64_t column, KeyRange keys, vec top) {
  vec total = vec{};
  const auto weight = [&](int64_t j) {
    const vec v = vexp(load(scores.row(j) + column) - top);
    total += v;
    return v;
  };
#if LLMX_ISA >= LLMX_ISA_AVX512_BF16
  if constexpr (WORDS && Format::PER_WORD == 2) {
    for (int64_t j = keys.begin; j < round_up(keys.end, Format::STEP); j += 2) {
      const vec first = j < keys.end ? weight(j) : vec{}, second = j + 1 < keys.end ? weight(j + 1) : vec{};
      store(scores.row(j / 2) + column, zipped(first, second));  // a line that was read before
    }
    return total;
  }
#endif
  for (int64_t j = keys.begin; j < keys.end; ++j) {
    const vec v = weight(j);
    store(scores.row(j) + column, WORDS && Format::ROUNDS ? rounded(v) : v);
  }
  return total;
}

/** Turns TILE_COLUMNS queries' scores into weights, after raising `top` and scaling what was summed before. */
template <class Format, bool WORDS>
void exponentiate(const ForwardBlock<Format>& memory, const QueryBlock& block, int64_t column, int64_t first_key, KeyRange keys,
                  bool masked, const AttentionProblem& p) {
  for (int64_t c = column; c < column + TILE_COLUMNS; c += LANES) {
    const vec old = load(memory.tops + c);
    vec top = old, other = old;
    const auto score = [&](int64_t j) {
      float* at = memory.scores.row(j) + c;
      vec v = load(at);
      if (Format::ROUNDS) v *= p.scale;
      if (masked) v = select(block.sees(c, first_key + j), v, broadcast(-INFINITY));
      if (Format::ROUNDS || masked) store(at, v);
      return v;
    };
    int64_t j = keys.begin;
    for (; j + 2 <= keys.end; j += 2) {  // two chains, to hide the latency
      const vec a = score(j), b = score(j + 1);
      top = a > top ? a : top;
      other = b > other ? b : other;
    }
    if (j < keys.end) {
      const vec a = score(j);
      top = a > top ? a : top;
    }
    top = other > top ? other : top;
    const vec total = put_weights<Format, WORDS>(memory.scores, c, keys, top), shrink = vexp(old - top);
    store(memory.tops + c, top);
    store(memory.totals + c, load(memory.totals + c) * shrink + total);
    scale_column(memory.sums, c, p.size, shrink);
  }
}

template <class Format>
void add_keys(const Forward& f, const ForwardBlock<Format>& memory, const QueryBlock& block, int64_t b, int64_t head,
              int64_t first_key) {
  constexpr int PER_WORD = Format::PER_WORD;
  const AttentionProblem& p = f.p;
  const int64_t count = min(KEYS, p.key_time - first_key);
  const Coverage coverage = block.coverage(first_key, count);
  if (coverage == Coverage::NONE) return;
  const bool masked = coverage == Coverage::PART;
  const int64_t row = p.key_row(b, first_key, head / p.group());
  const Numbers keys_from = f.key.from(row), values_from = f.value.from(row);
  copy_rows<Format>(memory.keys, keys_from, p.key_stride(), count, p.size, 1);
  copy_depth_left<Format>(memory.values, values_from, p.key_stride(), count, p.size);
  const bool whole = !masked || all_finite(values_from, p.key_stride(), count, p.size);
  for (int64_t column = 0; column < block.count; column += TILE_COLUMNS) {
    const KeyRange keys = whole_steps<Format>(block.seen(column, column + TILE_COLUMNS, first_key, count));
    if (keys.count() <= 0) continue;
    const Lines scores = memory.scores.from(keys.begin, column), queries = memory.queries.from(0, column);
    multiply_block<false, Format>(keys.count(), TILE_COLUMNS, words<Format>(p.size), memory.keys.from(keys.begin), queries, scores,
                                  false);
    if (whole) {
      exponentiate<Format, true>(memory, block, column, first_key, keys, masked, p);
      const Lines values = depth_left_from<Format>(memory.values, keys.begin);
      const Lines weights = memory.scores.from(keys.begin / PER_WORD, column);
      multiply_block<true, Format>(p.size, TILE_COLUMNS, words<Format>(keys.count()), values, weights,
                                   memory.sums.from(0, column), true);
    } else {
      exponentiate<Format, false>(memory, block, column, first_key, keys, masked, p);
    }
  }
  if (!whole)
    add_seen_only<false>(block, first_key, count, p.size, memory.scores, values_from, p.key_stride(), 1, memory.sums.data, 1,
                         QUERIES);
}

/** The sums, transposed, to rows of the output. */
void put_rows(Numbers to, int64_t stride, Lines sums, Lines rows, int64_t count, int64_t size) {
  if (!to.narrow) return transpose({to.floats(), stride}, sums, size, count);
  transpose(rows, sums, size, count);
  for (int64_t i = 0; i < count; ++i)
    for (int64_t d = 0; d < size; d += LANES)
      to.store_some(i * stride + d, load(rows.row(i) + d), min<int64_t>(LANES, size - d));
}

template <class Format>
void forward_block(const Forward& f, int64_t b, int64_t head, int64_t first_query, float* scratch_memory) {
  const AttentionProblem& p = f.p;
  [[maybe_unused]] const typename Format::Registers registers{};
  Parts parts(scratch_memory);
  const ForwardBlock<Format> memory(parts, p);
  const QueryBlock block(p, b, first_query);
  const int64_t row = p.query_row(b, first_query, head);
  copy_columns<Format>(memory.queries, f.query.from(row), p.query_stride(), block.count, p.size, p.scale);
  for (int64_t i = 0; i < QUERIES; ++i) {
    memory.tops[i] = LOWEST;
    memory.totals[i] = 0;
  }
  std::memset(memory.sums.data, 0, static_cast<size_t>(size_rows(p) * QUERIES) * sizeof(float));
  for (int64_t key = block.first_key() / KEYS * KEYS; key <= block.last_key(); key += KEYS)
    add_keys<Format>(f, memory, block, b, head, key);

  float* log_sum = f.log_sum + p.log_sum_at(b, first_query, head);
  for (int64_t c = 0; c < block.count; c += LANES) {
    const vec total = load(memory.totals + c), inverse = 1.0f / total;
    store_first(log_sum + c, load(memory.tops + c) + vlog(total), static_cast<int>(min<int64_t>(LANES, block.count - c)));
    scale_column(memory.sums, c, p.size, inverse);
  }
  put_rows(f.output.from(row), p.query_stride(), memory.sums, memory.rows, block.count, p.size);
}

// ---- Forward of few queries, as in generation: bound by reading keys and values, so each is read once, in the order of
// memory (all heads of a position lie together), and nothing is copied.

/** Keys that a task takes: 64 KiB to 1 MiB of keys and values; a context of 4,096 gives 32 tasks per sequence. */
constexpr int64_t SPLIT = 128;
/** Keys to ask for beforehand: the rows of several keys are read side by side, each too short for a processor to see a
 *  stream. Without, long contexts are read at a third of the speed. */
constexpr int64_t AHEAD = 8;

/** Sums of quarters of the vector. */
LLMX_INLINE quad fold(vec v) {
  quad quarters[LANES / 4];
  std::memcpy(quarters, &v, sizeof v);
  for (int half = LANES / 8; half > 0; half /= 2)
    for (int i = 0; i < half; ++i) quarters[i] += quarters[i + half];
  return quarters[0];
}

/** The products of `a` with four rows: added across vectors for all four together. */
LLMX_INLINE quad dot_four(const float* a, const float* const rows[4], int64_t size, int64_t ahead) {
  vec sums[4] = {};
  int64_t d = 0;
  for (; d + LANES <= size; d += LANES) {
    const vec left = load(a + d);
    for (int k = 0; k < 4; ++k) {
      sums[k] += left * load(rows[k] + d);
      __builtin_prefetch(rows[k] + d + ahead);
    }
  }
  if (d < size) {
    const int rest = static_cast<int>(size - d);
    const vec left = load_first(a + d, rest);
    for (int k = 0; k < 4; ++k) sums[k] += left * load_first(rows[k] + d, rest);
  }
  alignas(16) float folded[16], transposed[16];
  for (int k = 0; k < 4; ++k) {
    const quad part = fold(sums[k]);
    std::memcpy(folded + 4 * k, &part, sizeof part);
  }
  transpose_quads(transposed, 4, folded, 4);
  const auto column = [&](int k) { return *reinterpret_cast<const unaligned_quad*>(transposed + 4 * k); };
  return (column(0) + column(1)) + (column(2) + column(3));
}

/** One part of the keys of one sequence for all its heads and queries; rows are (query, head). */
struct FewQueries {
  const Forward& f;
  const float *query, *key, *value;
  float *tops, *totals, *sums;  // [query_time * heads], [.., size]: largest score, sum of exponentials, weighted values
  float* scores;                // [query_time * heads, SPLIT]

  /** Distance of the rows of `sums`. */
  static int64_t sums_stride(const AttentionProblem& p) { return round_up(p.size, LANES); }

  void score(int64_t b, int64_t i, const int32_t* keys, int64_t count) const {
    const AttentionProblem& p = f.p;
    for (int64_t n = 0; n < count; n += 4)
      for (int64_t head = 0; head < p.heads; ++head) {
        const float* rows[4];  // the last key again where there are fewer
        for (int64_t k = 0; k < 4; ++k) rows[k] = key + p.key_row(b, keys[min(n + k, count - 1)], head / p.group());
        const quad products = dot_four(query + p.query_row(b, i, head), rows, p.size, AHEAD * p.key_stride()) * p.scale;
        std::memcpy(scores + (i * p.heads + head) * SPLIT + n, &products, sizeof products);
      }
  }

  void exponentiate(int64_t row, int64_t count) const {
    float* line = scores + row * SPLIT;
    float top = LOWEST;
    for (int64_t n = 0; n < count; ++n) top = line[n] > top ? line[n] : top;
    vec total = vec{};
    for (int64_t n = 0; n < count; n += LANES) {
      const int valid = static_cast<int>(min<int64_t>(LANES, count - n));
      const vec weight = vexp(load_first(line + n, valid, -INFINITY) - top);
      total += weight;
      store_first(line + n, weight, valid);
    }
    tops[row] = top;
    totals[row] = sum(total);
  }

  /** Adds KEYS_AT_ONCE keys' values: the sums are read and written once for all of them. */
  template <int KEYS_AT_ONCE>
  void add_values(int64_t b, int64_t i, const int32_t* keys, int64_t n) const {
    const AttentionProblem& p = f.p;
    for (int64_t head = 0; head < p.heads; ++head) {
      const float* weights = scores + (i * p.heads + head) * SPLIT + n;
      float* to = sums + (i * p.heads + head) * sums_stride(p);
      const float* rows[KEYS_AT_ONCE];
      for (int k = 0; k < KEYS_AT_ONCE; ++k) rows[k] = value + p.key_row(b, keys[n + k], head / p.group());
      int64_t d = 0;
      for (; d + LANES <= p.size; d += LANES) {
        vec values = load(to + d);
        for (int k = 0; k < KEYS_AT_ONCE; ++k) {
          values += weights[k] * load(rows[k] + d);
          __builtin_prefetch(rows[k] + d + AHEAD * p.key_stride());
        }
        store(to + d, values);
      }
      for (; d < p.size; ++d)
        for (int k = 0; k < KEYS_AT_ONCE; ++k) to[d] += weights[k] * rows[k][d];
    }
  }

  void run(int64_t b, int64_t first_key, int64_t end) const {
    const AttentionProblem& p = f.p;
    std::memset(sums, 0, static_cast<size_t>(p.query_time * p.heads * sums_stride(p)) * sizeof(float));
    for (int64_t i = 0; i < p.query_time; ++i) {
      int32_t keys[SPLIT];
      int64_t count = 0;
      for (int64_t key = first_key; key < end; ++key)
        if (p.sees(b, p.offset() + i, key)) keys[count++] = static_cast<int32_t>(key);
      score(b, i, keys, count);
      for (int64_t head = 0; head < p.heads; ++head) exponentiate(i * p.heads + head, count);
      int64_t n = 0;
      for (; n + 4 <= count; n += 4) add_values<4>(b, i, keys, n);
      for (; n < count; ++n) add_values<1>(b, i, keys, n);
    }
  }
};

/** The numbers as float32: where they are bfloat16, in memory of the slot; null where that is short. */
const float* widened(Numbers x, int64_t count, int32_t slot) {
  if (!x.narrow) return x.floats();
  float* wide = scratch<float>(-1, slot, count);
  for (int64_t i = 0; wide != nullptr && i < count; ++i) wide[i] = x.get(i);
  return wide;
}

int32_t attend_few(const Forward& f) {
  const AttentionProblem& p = f.p;
  const int64_t kept = p.batch * p.key_time * p.key_stride();
  const float* query = widened(f.query, p.batch * p.query_time * p.query_stride(), 3);
  const float *key = widened(f.key, kept, 4), *value = widened(f.value, kept, 5);
  if (query == nullptr || key == nullptr || value == nullptr) return 1;
  const int64_t first_split = p.oldest(p.offset()) / SPLIT, splits = divide_up(p.key_time, SPLIT) - first_split;
  const int64_t rows = p.query_time * p.heads, stride = FewQueries::sums_stride(p);
  float* tops = scratch<float>(-1, 0, p.batch * splits * rows);
  float* totals = scratch<float>(-1, 1, p.batch * splits * rows);
  float* sums = scratch<float>(-1, 2, p.batch * splits * rows * stride);
  if (tops == nullptr || totals == nullptr || sums == nullptr) return 1;
  parallel(p.batch * splits, [&](int64_t index, int32_t worker) {
    float* scores = scratch<float>(worker, 0, rows * SPLIT);
    if (scores == nullptr) return;
    const int64_t at = index * rows, first_key = (first_split + index % splits) * SPLIT;
    const FewQueries task{f, query, key, value, tops + at, totals + at, sums + at * stride, scores};
    task.run(index / splits, first_key, min(p.key_time, first_key + SPLIT));
  });
  // The parts of each row, in the order of keys.
  parallel(p.batch * rows, [&](int64_t index, int32_t) {
    const int64_t b = index / rows, i = index % rows / p.heads, head = index % p.heads;
    const auto part = [&](int64_t split) { return (b * splits + split) * rows + index % rows; };
    float top = LOWEST;
    for (int64_t s = 0; s < splits; ++s) top = max(top, tops[part(s)]);
    float total = 0;
    float* all = sums + part(0) * stride;
    for (int64_t s = 0; s < splits; ++s) {
      const float share = std::exp(tops[part(s)] - top);
      const float* own = sums + part(s) * stride;
      total += share * totals[part(s)];
      for (int64_t d = 0; d < p.size; ++d) all[d] = s == 0 ? share * own[d] : all[d] + share * own[d];
    }
    const Numbers to = f.output.from(p.query_row(b, i, head));
    for (int64_t d = 0; d < p.size; ++d) to.put(d, all[d] / total);
    f.log_sum[p.log_sum_at(b, i, head)] = top + std::log(total);
  });
  return 0;
}

template <class Format>
int32_t attend(const Forward& f) {
  const AttentionProblem& p = f.p;
  Parts parts(nullptr);
  [[maybe_unused]] const ForwardBlock<Format> layout(parts, p);
  const int64_t blocks = divide_up(p.query_time, QUERIES);
  parallel(p.batch * p.heads * blocks, [&](int64_t index, int32_t worker) {
    float* memory = scratch<float>(worker, 0, parts.used());
    if (memory == nullptr) return;
    const int64_t row = index / blocks;
    // Late queries see most keys: they come first, so that no long task is left for the end.
    forward_block<Format>(f, row / p.heads, row % p.heads, (blocks - 1 - index % blocks) * QUERIES, memory);
  });
  return 0;
}

}  // namespace

LLMX_KERNEL(LlmxAttention) {
  const AttentionProblem p(call, 3);
  const Forward f{p, numbers(call, 0), numbers(call, 1), numbers(call, 2), numbers(call, 4), call.floats(5)};
  if (call.size(0) == 0) return 0;
  if (p.query_time <= FEW_QUERIES) return attend_few(f);
  return p.bfloat16 ? attend<Bfloat16>(f) : attend<Float32>(f);
}

#endif

}  // namespace llmx::LLMX_ISA_NAME
