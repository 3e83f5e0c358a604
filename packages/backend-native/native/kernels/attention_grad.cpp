/**
 * The gradient of causal attention (attention.cpp), without [time, time] in memory.
 *
 * LlmxAttentionGrad: dy, query, key, value, output, logSum, segments?; dQuery, dKey, dValue. Gradients are shaped like what
 * they belong to, dy like output. query, key, value and output may lie in memory as bfloat16.
 * Numbers: batch, queryTime, keyTime, heads, kvHeads, size, scale, window (0: none).
 */
#include "attention_blocks.h"

namespace llmx::LLMX_ISA_NAME {

using namespace attention;

#if LLMX_ISA == LLMX_ISA_REFERENCE

namespace {

/** All that one query's gradients need. */
struct Gradients {
  const AttentionProblem& p;
  const float *dy, *log_sum;
  Numbers query, key, value, output;

  double probability(int64_t b, int64_t i, int64_t head, int64_t j) const {
    const double score = p.scale * dot(query.from(p.query_row(b, i, head)), key.from(p.key_row(b, j, head / p.group())), p.size);
    return std::exp(score - log_sum[p.log_sum_at(b, i, head)]);
  }
  double score_gradient(int64_t b, int64_t i, int64_t head, int64_t j) const {
    const float* dy_row = dy + p.query_row(b, i, head);
    const double d_probability = dot(dy_row, value.from(p.key_row(b, j, head / p.group())), p.size);
    return probability(b, i, head, j) * (d_probability - dot(dy_row, output.from(p.query_row(b, i, head)), p.size));
  }
  void of_query(int64_t b, int64_t i, int64_t head, double* sums) const {
    for (int64_t j = 0; j < p.key_time; ++j) {
      if (!p.sees(b, p.offset() + i, j)) continue;
      const double weight = p.scale * score_gradient(b, i, head, j);
      for (int64_t d = 0; d < p.size; ++d) sums[d] += weight * key.get(p.key_row(b, j, head / p.group()) + d);
    }
  }
  void of_key(int64_t b, int64_t j, int64_t kv_head, double* key_sums, double* value_sums) const {
    for (int64_t head = kv_head * p.group(); head < (kv_head + 1) * p.group(); ++head)
      for (int64_t i = 0; i < p.query_time; ++i) {
        if (!p.sees(b, p.offset() + i, j)) continue;
        const double weight = p.scale * score_gradient(b, i, head, j), share = probability(b, i, head, j);
        for (int64_t d = 0; d < p.size; ++d) {
          key_sums[d] += weight * query.get(p.query_row(b, i, head) + d);
          value_sums[d] += share * dy[p.query_row(b, i, head) + d];
        }
      }
  }
};

}  // namespace

LLMX_KERNEL(LlmxAttentionGrad) {
  const AttentionProblem p(call, 6);
  const Gradients gradients{p,                call.floats(0),   call.floats(5),  numbers(call, 1),
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
  const float* dy;
  Numbers query, key, value, output;
  const float* log_sum;
  float *d_query, *d_key, *d_value;
};

/** Working memory of a chunk of keys against blocks of queries. */
struct BackwardBlock {
  Lines keys, values;             // [chunk, size]
  Lines query_columns, dy_columns;  // [size, queries]
  Lines query_rows, dy_rows;      // [queries, size]
  Lines weights, d_scores;        // [keys, queries]
  Lines d_query;                  // [size, queries]
  float *log_sums, *dots;         // [queries]: log of the sum of exponentials; dy . output

  BackwardBlock(Parts& parts, const AttentionProblem& p, int64_t chunk)
      : keys(parts.lines(chunk + TILE_ROWS, row_stride(p))), values(parts.lines(chunk + TILE_ROWS, row_stride(p))),
        query_columns(parts.lines(p.size, QUERIES)), dy_columns(parts.lines(p.size, QUERIES)),
        query_rows(parts.lines(QUERIES, row_stride(p))), dy_rows(parts.lines(QUERIES, row_stride(p))),
        weights(parts.lines(KEY_ROWS, QUERIES)), d_scores(parts.lines(KEY_ROWS, QUERIES)),
        d_query(parts.lines(size_rows(p), QUERIES)), log_sums(parts.floats(QUERIES)), dots(parts.floats(QUERIES)) {}
};

/** From scores and d weights to weights and d scores, in place, for TILE_COLUMNS queries. */
void differentiate(const BackwardBlock& memory, const QueryBlock& block, int64_t column, int64_t first_key, KeyRange keys,
                   bool masked) {
  for (int64_t c = column; c < column + TILE_COLUMNS; c += LANES) {
    const vec log_sum = load(memory.log_sums + c), dots = load(memory.dots + c);
    for (int64_t j = keys.begin; j < keys.end; ++j) {
      float *weight_at = memory.weights.data + j * QUERIES + c, *d_score_at = memory.d_scores.data + j * QUERIES + c;
      vec weight = vexp(load(weight_at) - log_sum);
      vec d_score = weight * (load(d_score_at) - dots);
      if (masked) {
        const ivec visible = block.sees(c, first_key + j);
        weight = select(visible, weight, vec{});
        d_score = select(visible, d_score, vec{});
      }
      store(weight_at, weight);
      store(d_score_at, d_score);
    }
  }
}

/** One block of keys against one block of queries. */
struct BackwardStep {
  const Backward& f;
  const BackwardBlock& memory;
  const QueryBlock& block;
  int64_t first_key;   // position
  int64_t chunk_row;   // where the block lies in the chunk's copies
  int64_t count;       // keys
  Lines d_key, d_value;  // rows of the results

  /** Adds what queries [begin, end) contribute to the gradients of the keys. */
  void add_to_keys(int64_t begin, int64_t end, KeyRange keys) const {
    const int64_t depth = min(end, block.count) - begin, size = f.p.size;
    const Lines weights = memory.weights.from(keys.begin, begin), d_scores = memory.d_scores.from(keys.begin, begin);
    const Lines to_key = d_key.from(keys.begin), to_value = d_value.from(keys.begin);
    multiply_block<false, true>(keys.count(), size, depth, weights, memory.dy_rows.from(begin), to_value, true);
    multiply_block<false, true>(keys.count(), size, depth, d_scores, memory.query_rows.from(begin), to_key, true);
  }

  void run(bool masked, bool finite) const {
    const AttentionProblem& p = f.p;
    const Lines keys_copy = memory.keys.from(chunk_row), values_copy = memory.values.from(chunk_row);
    for (int64_t column = 0; column < block.count; column += TILE_COLUMNS) {
      const KeyRange keys = block.seen(column, column + TILE_COLUMNS, first_key, count);
      if (keys.count() <= 0) continue;
      const Lines weights = memory.weights.from(keys.begin, column), d_scores = memory.d_scores.from(keys.begin, column);
      const Lines key_rows = keys_copy.from(keys.begin), value_rows = values_copy.from(keys.begin);
      const Lines queries = memory.query_columns.from(0, column), dy = memory.dy_columns.from(0, column);
      multiply_block<false>(keys.count(), TILE_COLUMNS, p.size, key_rows, queries, weights, false);
      multiply_block<false>(keys.count(), TILE_COLUMNS, p.size, value_rows, dy, d_scores, false);
      differentiate(memory, block, column, first_key, keys, masked);
      if (masked && !finite) continue;
      multiply_block<true>(p.size, TILE_COLUMNS, keys.count(), key_rows, d_scores, memory.d_query.from(0, column), true);
      if (masked) add_to_keys(column, column + TILE_COLUMNS, keys);
    }
    if (!masked) add_to_keys(0, QUERIES, {0, count});
    if (!masked || finite) return;
    add_seen_only<false>(block, first_key, count, p.size, memory.d_scores, keys_copy, memory.d_query.data, 1, QUERIES);
    add_seen_only<true>(block, first_key, count, p.size, memory.weights, memory.dy_rows, d_value.data, d_value.stride, 1);
    add_seen_only<true>(block, first_key, count, p.size, memory.d_scores, memory.query_rows, d_key.data, d_key.stride, 1);
  }
};

/** Copies what a block of queries needs; whether all of it is finite. */
bool copy_queries(const Backward& f, const BackwardBlock& memory, const QueryBlock& block, int64_t row, int64_t log_sum_at) {
  const AttentionProblem& p = f.p;
  copy_columns(memory.query_columns, f.query.from(row), p.query_stride(), block.count, p.size, p.scale);
  copy_columns(memory.dy_columns, f.dy + row, p.query_stride(), block.count, p.size, 1);
  const bool finite_query = copy_rows(memory.query_rows, f.query.from(row), p.query_stride(), block.count, p.size, p.scale);
  const bool finite_dy = copy_rows(memory.dy_rows, f.dy + row, p.query_stride(), block.count, p.size, 1);
  for (int64_t i = 0; i < QUERIES; ++i) {
    memory.log_sums[i] = i < block.count ? f.log_sum[log_sum_at + i] : 0;
    const float* dy_row = memory.dy_rows.data + i * memory.dy_rows.stride;
    memory.dots[i] = i < block.count ? dot(dy_row, f.output.from(row + i * p.query_stride()), p.size) : 0;
  }
  return finite_query && finite_dy;
}

/** d_query (+)= scale * what was summed for a block. */
void put_query_gradient(const Backward& f, const BackwardBlock& memory, const QueryBlock& block, int64_t row, bool add) {
  const AttentionProblem& p = f.p;
  const Lines rows = memory.query_rows;  // no longer needed
  transpose(rows, memory.d_query, p.size, block.count);
  for (int64_t i = 0; i < block.count; ++i) {
    const float* from = rows.data + i * rows.stride;
    float* to = f.d_query + row + i * p.query_stride();
    for (int64_t d = 0; d < p.size; ++d) to[d] = (add ? to[d] : 0) + p.scale * from[d];
  }
}

/** All that the keys of one chunk and the queries of another have to do with each other, for the heads of a group. */
struct BackwardTask {
  const Backward& f;
  const BackwardBlock& memory;
  int64_t b, kv_head;
  int64_t first_key, key_end, first_query, query_end;
  bool first_of_keys, first_of_queries;  // nothing has been written to these keys', these queries' gradients yet
  bool keys_copied = false, keys_finite = false;

  void run() {
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
    keys_finite = copy_rows(memory.keys, f.key.from(row), p.key_stride(), keys, p.size, 1);
    copy_rows(memory.values, f.value.from(row), p.key_stride(), keys, p.size, 1);
    keys_copied = true;
  }

  void run_queries(int64_t head, int64_t query, Lines d_key, Lines d_value) {
    const AttentionProblem& p = f.p;
    const QueryBlock block(p, b, query);
    const int64_t row = p.query_row(b, query, head);
    bool copied = false, queries_finite = false;
    for (int64_t key = first_key; key < key_end; key += KEYS) {
      const int64_t count = min(KEYS, key_end - key);
      const Coverage coverage = block.coverage(key, count);
      if (coverage == Coverage::NONE) continue;
      if (!keys_copied) copy_keys();
      if (!copied) {
        queries_finite = copy_queries(f, memory, block, row, p.log_sum_at(b, query, head));
        std::memset(memory.d_query.data, 0, static_cast<size_t>(size_rows(p) * QUERIES) * sizeof(float));
        copied = true;
      }
      const int64_t chunk_row = key - first_key;
      const BackwardStep step{f, memory, block, key, chunk_row, count, d_key.from(chunk_row), d_value.from(chunk_row)};
      step.run(coverage == Coverage::PART, keys_finite && queries_finite);
    }
    if (copied) return put_query_gradient(f, memory, block, row, !first_of_queries);
    if (first_of_queries)
      for (int64_t i = 0; i < block.count; ++i)
        std::memset(f.d_query + row + i * p.query_stride(), 0, static_cast<size_t>(p.size) * sizeof(float));
  }
};

}  // namespace

/**
 * Chunks of keys and of queries meet in rounds: in round r, keys of chunk c meet queries of chunk c + r, so that within a
 * round each task has its keys' and its queries' gradients for itself, and every gradient is summed in the order of rounds.
 * One pass, five products per block, no partial results in memory; and with long contexts enough tasks per round for many
 * cores even where batch and heads are few.
 */
LLMX_KERNEL(LlmxAttentionGrad) {
  const AttentionProblem p(call, 6);
  if (call.size(0) == 0) {
    std::memset(call.floats(8), 0, static_cast<size_t>(call.size(8)) * sizeof(float));
    std::memset(call.floats(9), 0, static_cast<size_t>(call.size(9)) * sizeof(float));
    return 0;
  }
  // Longer chunks copy less, shorter ones give more tasks; with 32 sequences and heads there are enough.
  const int64_t chunk = p.batch * p.kv_heads >= 32 ? 4 * KEYS : 2 * KEYS;
  const Backward f{p, call.floats(0), numbers(call, 1), numbers(call, 2), numbers(call, 3), numbers(call, 4), call.floats(5),
                   call.floats(7), call.floats(8), call.floats(9)};
  Parts parts(nullptr);
  [[maybe_unused]] const BackwardBlock layout(parts, p, chunk);
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
      const BackwardBlock blocks(own, p, chunk);
      const bool first_of_keys = q == 0 || last_position - (query_end - first_query) < first_key;
      const bool first_of_queries = c == key_chunks - 1 || last_position < first_key + chunk;
      const int64_t b = row / p.kv_heads, kv_head = row % p.kv_heads, key_end = min(p.key_time, first_key + chunk);
      BackwardTask task{f,           blocks,    b,             kv_head,         first_key, key_end,
                        first_query, query_end, first_of_keys, first_of_queries};
      task.run();
    });
  }
  return 0;
}

#endif

}  // namespace llmx::LLMX_ISA_NAME
