/**
 * The gradient of causal attention (attention.cpp), without [time, time] in memory.
 *
 * LlmxAttentionGrad: dy, query, key, value, output, logSum, segments?; dQuery, dKey, dValue. Gradients are shaped like what
 * they belong to, dy like output. query, key, value and output may lie in memory as bfloat16.
 * Numbers: batch, queryTime, keyTime, heads, kvHeads, size, scale, window (0: none), bfloat16 (whether operands of products are
 * rounded to it, weights and the gradients of scores among them; sums and everything else are float32).
 */
#include "attention_blocks.h"

namespace llmx::LLMX_ISA_NAME {

using namespace attention;

#if LLMX_ISA == LLMX_ISA_REFERENCE

namespace {

/** All that one query's gradients need. */
struct Gradients {
  const AttentionProblem& p;
  const float* log_sum;
  Numbers dy, query, key, value, output;

  double probability(int64_t b, int64_t i, int64_t head, int64_t j) const {
    const double score = p.scale * dot(query.from(p.query_row(b, i, head)), key.from(p.key_row(b, j, head / p.group())), p.size, p.bfloat16);
    return std::exp(score - log_sum[p.log_sum_at(b, i, head)]);
  }
  double score_gradient(int64_t b, int64_t i, int64_t head, int64_t j) const {
    const Numbers dy_row = dy.from(p.query_row(b, i, head));
    const double d_probability = dot(dy_row, value.from(p.key_row(b, j, head / p.group())), p.size, p.bfloat16);
    const double share = dot(dy_row, output.from(p.query_row(b, i, head)), p.size, false);
    return probability(b, i, head, j) * (d_probability - share);
  }
  void of_query(int64_t b, int64_t i, int64_t head, double* sums) const {
    for (int64_t j = 0; j < p.key_time; ++j) {
      if (!p.sees(b, p.offset() + i, j)) continue;
      const double weight = p.scale * score_gradient(b, i, head, j);
      for (int64_t d = 0; d < p.size; ++d) sums[d] += weight * operand(key, p.key_row(b, j, head / p.group()) + d, p.bfloat16);
    }
  }
  void of_key(int64_t b, int64_t j, int64_t kv_head, double* key_sums, double* value_sums) const {
    for (int64_t head = kv_head * p.group(); head < (kv_head + 1) * p.group(); ++head)
      for (int64_t i = 0; i < p.query_time; ++i) {
        if (!p.sees(b, p.offset() + i, j)) continue;
        const double weight = p.scale * score_gradient(b, i, head, j), share = probability(b, i, head, j);
        for (int64_t d = 0; d < p.size; ++d) {
          key_sums[d] += weight * operand(query, p.query_row(b, i, head) + d, p.bfloat16);
          value_sums[d] += share * operand(dy, p.query_row(b, i, head) + d, p.bfloat16);
        }
      }
  }
};

}  // namespace

LLMX_KERNEL(LlmxAttentionGrad) {
  const AttentionProblem p(call, 6);
  const Gradients gradients{p,                call.floats(5),   numbers(call, 0), numbers(call, 1),
                            numbers(call, 2), numbers(call, 3), numbers(call, 4)};
  float *d_query = call.floats(7), *d_key = call.floats(8), *d_value = call.floats(9);
  double* sums = scratch<double>(-1, 0, 2 * p.size);
  if (sums == nullptr) return 1;
  const auto clear = [&] {
    for (int64_t d = 0; d < 2 * p.size; ++d) sums[d] = 0;
  };
  const auto put = [&](float* to, const double* from) {
    for (int64_t d = 0; d < p.size; ++d) to[d] = static_cast<float>(from[d]);
  };
  for (int64_t b = 0; b < p.batch; ++b) {
    for (int64_t i = 0; i < p.query_time; ++i)
      for (int64_t head = 0; head < p.heads; ++head) {
        clear();
        gradients.of_query(b, i, head, sums);
        put(d_query + p.query_row(b, i, head), sums);
      }
    for (int64_t j = 0; j < p.key_time; ++j)
      for (int64_t head = 0; head < p.kv_heads; ++head) {
        clear();
        gradients.of_key(b, j, head, sums, sums + p.size);
        put(d_key + p.key_row(b, j, head), sums);
        put(d_value + p.key_row(b, j, head), sums + p.size);
      }
  }
  return 0;
}

#else

namespace {

struct Backward {
  const AttentionProblem& p;
  Numbers dy, query, key, value, output;
  const float* log_sum;
  float *d_query, *d_key, *d_value;
};

/** Working memory of a chunk of keys against blocks of queries. With floats as words a block serves as either operand. */
template <class Format>
struct BackwardBlock {
  Lines keys, values;               // [chunk, size words]
  Lines key_depth;                  // [chunk words, size], in tile registers [size, chunk words]
  Lines query_columns, dy_columns;  // [size words, queries]
  Lines query_depth, dy_depth;      // [query words, size]
  Lines weights, d_scores;          // [keys, queries]; then [keys, query words]
  Lines d_score_depth;              // [key words, queries]
  Lines d_query, rows;              // [size, queries], and transposed
  float *log_sums, *dots;           // [queries]: log of the sum of exponentials; dy . output

  BackwardBlock(Parts& parts, const AttentionProblem& p, int64_t chunk)
      : keys(lines_of_rows<Format>(parts, chunk + WHOLE_ROWS, p)), values(lines_of_rows<Format>(parts, chunk + WHOLE_ROWS, p)),
        key_depth(Format::PER_WORD == 1 ? keys : lines_of_depth<Format>(parts, chunk, p)),
        query_columns(parts.lines(words<Format>(p.size), QUERIES)), dy_columns(parts.lines(words<Format>(p.size), QUERIES)),
        query_depth(parts.lines(QUERIES, row_stride(p))), dy_depth(parts.lines(QUERIES, row_stride(p))),
        weights(parts.lines(KEY_ROWS, QUERIES)), d_scores(parts.lines(KEY_ROWS, QUERIES)),
        d_score_depth(Format::PER_WORD == 1 ? d_scores : parts.lines(KEY_ROWS, QUERIES)),
        d_query(parts.lines(size_rows(p), QUERIES)), rows(parts.lines(QUERIES, row_stride(p))), log_sums(parts.floats(QUERIES)),
        dots(parts.floats(QUERIES)) {}
};

/** Turns scores and d weights of one vector of queries into weights and d scores. */
struct Differentiation {
  const AttentionProblem& p;
  const QueryBlock& block;
  Lines weights, d_scores;
  int64_t first_key;
  bool masked;

  /** Formats that round have neither scaled scores nor scaled queries. */
  template <class Format>
  void run(int64_t column, int64_t key, vec log_sum, vec dots, vec& weight, vec& d_score) const {
    const float scale = Format::ROUNDS ? p.scale : 1;
    weight = vexp(load(weights.row(key) + column) * scale - log_sum);
    d_score = weight * (load(d_scores.row(key) + column) - dots) * scale;
    if (!masked) return;
    const ivec visible = block.sees(column, first_key + key);
    weight = select(visible, weight, vec{});
    d_score = select(visible, d_score, vec{});
  }
};

/** From scores and d weights to weights and d scores, in place, for TILE_COLUMNS queries; as operands' words if WORDS. */
template <class Format, bool WORDS>
void differentiate(const BackwardBlock<Format>& memory, const QueryBlock& block, const AttentionProblem& p, int64_t column,
                   int64_t first_key, KeyRange keys, bool masked) {
  const Differentiation all{p, block, memory.weights, memory.d_scores, first_key, masked};
#if LLMX_ISA >= LLMX_ISA_AVX512_BF16
  if constexpr (WORDS && Format::PER_WORD == 2) {
    const auto get = [&](const float* x, int half) { return load(x + column + half * LANES); };
    const vec log_sums[2] = {get(memory.log_sums, 0), get(memory.log_sums, 1)};
    const vec dots[2] = {get(memory.dots, 0), get(memory.dots, 1)};
    for (int64_t j = keys.begin; j < round_up(keys.end, Format::STEP); j += 2) {
      vec weights[2][2] = {}, d_scores[2][2] = {};  // [key][half of the queries]
      for (int k = 0; k < 2 && j + k < keys.end; ++k) {
        for (int half = 0; half < 2; ++half)
          all.run<Format>(column + half * LANES, j + k, log_sums[half], dots[half], weights[k][half], d_scores[k][half]);
        store(memory.weights.row(j + k) + column / 2, neighbours(weights[k][0], weights[k][1]));
        store(memory.d_scores.row(j + k) + column / 2, neighbours(d_scores[k][0], d_scores[k][1]));
      }
      for (int half = 0; half < 2; ++half)
        store(memory.d_score_depth.row(j / 2) + column + half * LANES, zipped(d_scores[0][half], d_scores[1][half]));
    }
    return;
  }
#endif
  for (int64_t c = column; c < column + TILE_COLUMNS; c += LANES) {
    const vec log_sum = load(memory.log_sums + c), dots = load(memory.dots + c);
    for (int64_t j = keys.begin; j < keys.end; ++j) {
      vec weight, d_score;
      all.run<Format>(c, j, log_sum, dots, weight, d_score);
      constexpr bool ROUNDS = WORDS && Format::ROUNDS;
      store(memory.weights.row(j) + c, ROUNDS ? rounded(weight) : weight);
      store(memory.d_scores.row(j) + c, ROUNDS ? rounded(d_score) : d_score);
    }
  }
}

/** One block of keys against one block of queries. */
template <class Format>
struct BackwardStep {
  static constexpr int PER_WORD = Format::PER_WORD;

  const Backward& f;
  const BackwardBlock<Format>& memory;
  const QueryBlock& block;
  Numbers keys_from, query_from, dy_from;  // rows of the inputs
  int64_t first_key;   // position
  int64_t chunk_row;   // where the block lies in the chunk's copies
  int64_t count;       // keys
  Lines d_key, d_value;  // rows of the results

  /** Adds what queries [begin, end) contribute to the gradients of the keys. */
  void add_to_keys(int64_t begin, int64_t end, KeyRange keys) const {
    const int64_t depth = words<Format>(min(end, block.count) - begin), size = f.p.size, line = begin / PER_WORD;
    const Lines weights = memory.weights.from(keys.begin, line), d_scores = memory.d_scores.from(keys.begin, line);
    const Lines to_key = d_key.from(keys.begin), to_value = d_value.from(keys.begin);
    multiply_block<false, Format, true>(keys.count(), size, depth, weights, memory.dy_depth.from(line), to_value, true);
    multiply_block<false, Format, true>(keys.count(), size, depth, d_scores, memory.query_depth.from(line), to_key, true);
  }

  void run(bool masked, bool whole) const {
    const AttentionProblem& p = f.p;
    const int64_t size_words = words<Format>(p.size);
    const Lines key_rows = memory.keys.from(chunk_row), value_rows = memory.values.from(chunk_row);
    const Lines key_depth = depth_left_from<Format>(memory.key_depth, chunk_row);
    for (int64_t column = 0; column < block.count; column += TILE_COLUMNS) {
      const KeyRange keys = whole_steps<Format>(block.seen(column, column + TILE_COLUMNS, first_key, count));
      if (keys.count() <= 0) continue;
      const int64_t begin = keys.begin;
      const Lines queries = memory.query_columns.from(0, column), dy = memory.dy_columns.from(0, column);
      multiply_block<false, Format>(keys.count(), TILE_COLUMNS, size_words, key_rows.from(begin), queries,
                                    memory.weights.from(begin, column), false);
      multiply_block<false, Format>(keys.count(), TILE_COLUMNS, size_words, value_rows.from(begin), dy,
                                    memory.d_scores.from(begin, column), false);
      if (!whole) {
        differentiate<Format, false>(memory, block, p, column, first_key, keys, masked);
        continue;
      }
      differentiate<Format, true>(memory, block, p, column, first_key, keys, masked);
      multiply_block<true, Format>(p.size, TILE_COLUMNS, words<Format>(keys.count()), depth_left_from<Format>(key_depth, begin),
                                   memory.d_score_depth.from(begin / PER_WORD, column), memory.d_query.from(0, column), true);
      if (masked) add_to_keys(column, column + TILE_COLUMNS, keys);
    }
    if (!masked) add_to_keys(0, QUERIES, {0, count});
    if (!whole) add_what_is_seen();
  }

  void add_what_is_seen() const {
    const AttentionProblem& p = f.p;
    const float factor = Format::ROUNDS ? 1 : p.scale;  // d scores are scaled, or queries should be
    const int64_t queries = p.query_stride(), keys = p.key_stride();
    add_seen_only<false>(block, first_key, count, p.size, memory.d_scores, keys_from, keys, 1, memory.d_query.data, 1, QUERIES);
    add_seen_only<true>(block, first_key, count, p.size, memory.weights, dy_from, queries, 1, d_value.data, d_value.stride, 1);
    add_seen_only<true>(block, first_key, count, p.size, memory.d_scores, query_from, queries, factor, d_key.data, d_key.stride, 1);
  }
};

/** Copies what a block of queries needs. */
template <class Format>
void copy_queries(const Backward& f, const BackwardBlock<Format>& memory, const QueryBlock& block, int64_t row,
                  int64_t log_sum_at) {
  const AttentionProblem& p = f.p;
  const Numbers query = f.query.from(row), dy = f.dy.from(row);
  const int64_t stride = p.query_stride(), count = block.count;
  copy_columns<Format>(memory.query_columns, query, stride, count, p.size, p.scale);
  copy_columns<Format>(memory.dy_columns, dy, stride, count, p.size, 1);
  copy_depth<Format>(memory.query_depth, query, stride, count, p.size, p.scale);
  copy_depth<Format>(memory.dy_depth, dy, stride, count, p.size, 1);
  for (int64_t i = 0; i < QUERIES; ++i) {
    memory.log_sums[i] = i < count ? f.log_sum[log_sum_at + i] : 0;
    memory.dots[i] = i < count ? dot(dy.from(i * stride), f.output.from(row + i * stride), p.size) : 0;
  }
}

/** d_query (+)= what was summed for a block, scaled unless the d scores were. */
template <class Format>
void put_query_gradient(const Backward& f, const BackwardBlock<Format>& memory, const QueryBlock& block, int64_t row, bool add) {
  const AttentionProblem& p = f.p;
  const float factor = Format::ROUNDS ? 1 : p.scale;
  transpose(memory.rows, memory.d_query, p.size, block.count);
  for (int64_t i = 0; i < block.count; ++i) {
    const float* from = memory.rows.row(i);
    float* to = f.d_query + row + i * p.query_stride();
    for (int64_t d = 0; d < p.size; ++d) to[d] = (add ? to[d] : 0) + factor * from[d];
  }
}

/** All that the keys of one chunk and the queries of another have to do with each other, for the heads of a group. */
template <class Format>
struct BackwardTask {
  const Backward& f;
  const BackwardBlock<Format>& memory;
  int64_t b, kv_head;
  int64_t first_key, key_end, first_query, query_end;
  bool first_of_keys, first_of_queries;  // nothing has been written to these keys', these queries' gradients yet
  bool keys_copied = false;

  void run() {
    [[maybe_unused]] const typename Format::Registers registers{};
    const AttentionProblem& p = f.p;
    const int64_t row = p.key_row(b, first_key, kv_head), keys = key_end - first_key;
    const Lines d_key{f.d_key + row, p.key_stride()}, d_value{f.d_value + row, p.key_stride()};
    if (first_of_keys)
      for (int64_t j = 0; j < keys; ++j) {
        std::memset(d_key.from(j).data, 0, static_cast<size_t>(p.size) * sizeof(float));
        std::memset(d_value.from(j).data, 0, static_cast<size_t>(p.size) * sizeof(float));
      }
    for (int64_t head = kv_head * p.group(); head < (kv_head + 1) * p.group(); ++head)
      for (int64_t query = first_query; query < query_end; query += QUERIES)
        run_queries(head, query, d_key, d_value);
  }

  /** Called when a block of queries first sees one of the keys: with windows and segments most chunks are not seen. */
  void copy_keys() {
    const AttentionProblem& p = f.p;
    const int64_t row = p.key_row(b, first_key, kv_head), keys = key_end - first_key;
    copy_rows<Format>(memory.keys, f.key.from(row), p.key_stride(), keys, p.size, 1);
    copy_rows<Format>(memory.values, f.value.from(row), p.key_stride(), keys, p.size, 1);
    if (Format::PER_WORD > 1) copy_depth_left<Format>(memory.key_depth, f.key.from(row), p.key_stride(), keys, p.size);
    keys_copied = true;
  }

  void run_queries(int64_t head, int64_t query, Lines d_key, Lines d_value) {
    const AttentionProblem& p = f.p;
    const QueryBlock block(p, b, query);
    const int64_t row = p.query_row(b, query, head);
    const Numbers query_from = f.query.from(row), dy_from = f.dy.from(row);
    bool copied = false;
    for (int64_t key = first_key; key < key_end; key += KEYS) {
      const int64_t count = min(KEYS, key_end - key);
      const Coverage coverage = block.coverage(key, count);
      if (coverage == Coverage::NONE) continue;
      if (!keys_copied) copy_keys();
      if (!copied) {
        copy_queries(f, memory, block, row, p.log_sum_at(b, query, head));
        std::memset(memory.d_query.data, 0, static_cast<size_t>(size_rows(p) * QUERIES) * sizeof(float));
        copied = true;
      }
      // Queries beyond the last count as masked, so that nothing of them enters the last step of a sum over queries.
      const bool masked = coverage == Coverage::PART || block.count % Format::STEP != 0;
      const Numbers keys_from = f.key.from(p.key_row(b, key, kv_head));
      const bool whole = !masked || (all_finite(query_from, p.query_stride(), block.count, p.size) &&
                                     all_finite(dy_from, p.query_stride(), block.count, p.size) &&
                                     all_finite(keys_from, p.key_stride(), count, p.size));
      const int64_t chunk_row = key - first_key;
      const BackwardStep<Format> step{f,         memory, block, keys_from,             query_from, dy_from, key,
                                      chunk_row, count,  d_key.from(chunk_row), d_value.from(chunk_row)};
      step.run(masked, whole);
    }
    if (copied) return put_query_gradient(f, memory, block, row, !first_of_queries);
    if (first_of_queries)
      for (int64_t i = 0; i < block.count; ++i)
        std::memset(f.d_query + row + i * p.query_stride(), 0, static_cast<size_t>(p.size) * sizeof(float));
  }
};

/**
 * Chunks of keys and of queries meet in rounds: in round r, keys of chunk c meet queries of chunk c + r, so that within a
 * round each task has its keys' and its queries' gradients for itself, and every gradient is summed in the order of rounds.
 * One pass, five products per block, no partial results in memory; and with long contexts enough tasks per round for many
 * cores even where batch and heads are few.
 */
template <class Format>
int32_t differentiate_attention(const Backward& f) {
  const AttentionProblem& p = f.p;
  // Longer chunks copy less, shorter ones give more tasks; with 32 sequences and heads there are enough.
  const int64_t chunk = p.batch * p.kv_heads >= 32 ? 4 * KEYS : 2 * KEYS;
  Parts parts(nullptr);
  [[maybe_unused]] const BackwardBlock<Format> layout(parts, p, chunk);
  const int64_t key_chunks = divide_up(p.key_time, chunk), query_chunks = divide_up(p.query_time, chunk);
  // The last query of chunk q stands in the chunk of keys that it meets first; earlier ones follow in later rounds.
  for (int64_t round = -key_chunks; round < query_chunks; ++round) {
    if (p.offset() + (round + 1) * chunk <= 0) continue;  // all keys come after all queries
    parallel(p.batch * p.kv_heads * key_chunks, [&](int64_t index, int32_t worker) {
      const int64_t c = index % key_chunks, q = c + round, row = index / key_chunks;
      if (q < 0 || q >= query_chunks) return;
      const int64_t first_key = c * chunk, first_query = q * chunk, query_end = min(p.query_time, first_query + chunk);
      const int64_t last_position = p.offset() + query_end - 1;
      if (last_position < first_key) return;
      float* memory = scratch<float>(worker, 0, parts.used());
      if (memory == nullptr) return;
      Parts own(memory);
      const BackwardBlock<Format> blocks(own, p, chunk);
      const bool first_of_keys = q == 0 || last_position - (query_end - first_query) < first_key;
      const bool first_of_queries = c == key_chunks - 1 || last_position < first_key + chunk;
      const int64_t b = row / p.kv_heads, kv_head = row % p.kv_heads, key_end = min(p.key_time, first_key + chunk);
      BackwardTask<Format> task{f,           blocks,    b,             kv_head,         first_key, key_end,
                                first_query, query_end, first_of_keys, first_of_queries};
      task.run();
    });
  }
  return 0;
}

}  // namespace

LLMX_KERNEL(LlmxAttentionGrad) {
  const AttentionProblem p(call, 6);
  if (call.size(0) == 0) {
    std::memset(call.floats(8), 0, static_cast<size_t>(call.size(8)) * sizeof(float));
    std::memset(call.floats(9), 0, static_cast<size_t>(call.size(9)) * sizeof(float));
    return 0;
  }
  const Backward f{p, numbers(call, 0), numbers(call, 1), numbers(call, 2), numbers(call, 3), numbers(call, 4), call.floats(5),
                   call.floats(7), call.floats(8), call.floats(9)};
  return p.bfloat16 ? differentiate_attention<Bfloat16>(f) : differentiate_attention<Float32>(f);
}

#endif

}  // namespace llmx::LLMX_ISA_NAME
