/** What attention works on, and which keys a query sees. */
#pragma once

#include "llmx/kernel.h"

namespace llmx::LLMX_ISA_NAME::attention {

/** The numbers of LlmxAttention and LlmxAttentionGrad, in their order. */
struct AttentionProblem {
  int64_t batch, query_time, key_time, heads, kv_heads, size;
  float scale;
  int64_t window;           // 0: none
  bool bfloat16;            // whether operands of products are rounded to it
  const int32_t* segments;  // [batch, key_time], or null

  AttentionProblem(const Call& call, int segments_index)
      : batch(call.integer(0)), query_time(call.integer(1)), key_time(call.integer(2)), heads(call.integer(3)),
        kv_heads(call.integer(4)), size(call.integer(5)), scale(static_cast<float>(call.number(6))),
        window(call.integer(7)), bfloat16(call.flag(8)), segments(call.integers(segments_index)) {}

  int64_t group() const { return heads / kv_heads; }
  /** Position of the first query: queries are the last positions. */
  int64_t offset() const { return key_time - query_time; }
  /** Where a row of query, output and their gradients starts, and the distance to the next position's. */
  int64_t query_row(int64_t b, int64_t i, int64_t head) const { return ((b * query_time + i) * heads + head) * size; }
  int64_t query_stride() const { return heads * size; }
  /** The same for key and value. */
  int64_t key_row(int64_t b, int64_t j, int64_t head) const { return ((b * key_time + j) * kv_heads + head) * size; }
  int64_t key_stride() const { return kv_heads * size; }
  /** Where a query stands in logSum [batch, heads, query_time]. */
  int64_t log_sum_at(int64_t b, int64_t i, int64_t head) const { return (b * heads + head) * query_time + i; }
  /** The segments of one sequence, or null. */
  const int32_t* segments_of(int64_t b) const { return segments == nullptr ? nullptr : segments + b * key_time; }
  /** The first key that the query at `position` may see. */
  int64_t oldest(int64_t position) const { return window == 0 ? 0 : max<int64_t>(0, position - window + 1); }
  bool sees(int64_t b, int64_t position, int64_t key) const {
    const int32_t* segment = segments_of(b);
    return key <= position && key >= oldest(position) && (segment == nullptr || segment[key] == segment[position]);
  }
};

#if LLMX_ISA != LLMX_ISA_REFERENCE

/** Queries in a block: long enough that copying a block of keys costs 3% of the products with it. */
constexpr int64_t QUERIES = 64;
/** Keys in a block: with 64 queries and heads of 64, keys, values and scores take 48 KiB. */
constexpr int64_t KEYS = 64;

/** Some consecutive keys of a block. */
struct KeyRange {
  int64_t begin, end;

  int64_t count() const { return end - begin; }
};

/** How much of a block of keys a block of queries sees. */
enum class Coverage { NONE, PART, ALL };

struct SegmentRange {
  int32_t low, high;

  SegmentRange(const int32_t* segments, int64_t count) : low(segments[0]), high(segments[0]) {
    for (int64_t i = 1; i < count; ++i) {
      low = min(low, segments[i]);
      high = max(high, segments[i]);
    }
  }
};

/** Up to QUERIES consecutive queries of one sequence, and what they see. */
class QueryBlock {
 public:
  QueryBlock(const AttentionProblem& problem, int64_t b, int64_t first_query)
      : count(min(QUERIES, problem.query_time - first_query)), problem_(problem), segments_(problem.segments_of(b)),
        first_(problem.offset() + first_query) {
    for (int64_t i = 0; i < QUERIES; ++i) {
      const int64_t position = first_ + i;
      position_[i] = i < count ? static_cast<int32_t>(position) : -1;
      oldest_[i] = static_cast<int32_t>(problem.oldest(position));
      segment_[i] = segments_ != nullptr && i < count ? segments_[position] : 0;
    }
  }

  int64_t first_key() const { return problem_.oldest(first_); }
  int64_t last_key() const { return first_ + count - 1; }

  Coverage coverage(int64_t first_of_keys, int64_t keys) const {
    const int64_t last_of_keys = first_of_keys + keys - 1;
    if (first_of_keys > last_key() || last_of_keys < first_key()) return Coverage::NONE;
    bool all = last_of_keys <= first_ && first_of_keys >= problem_.oldest(last_key());
    if (segments_ != nullptr) {
      const SegmentRange own(segment_, count), others(segments_ + first_of_keys, keys);
      if (own.low > others.high || own.high < others.low) return Coverage::NONE;
      all = all && own.low == own.high && others.low == others.high;
    }
    return all ? Coverage::ALL : Coverage::PART;
  }

  /** The keys of a block between the first and the last that queries [begin, end) see, by causality and window. */
  KeyRange seen(int64_t begin, int64_t end, int64_t first_of_keys, int64_t keys) const {
    const int64_t last = first_ + min(end, count) - 1;
    const int64_t from = max<int64_t>(0, problem_.oldest(first_ + begin) - first_of_keys);
    return {from, max(from, min(keys, last - first_of_keys + 1))};
  }

  /** -1 where the queries of the vector from `query` on see the key, else 0. */
  ivec sees(int64_t query, int64_t key) const {
    const ivec keys = static_cast<int32_t>(key) - ivec{};
    const ivec visible = (load_integers(position_ + query) >= keys) & (load_integers(oldest_ + query) <= keys);
    return segments_ == nullptr ? visible : visible & (load_integers(segment_ + query) == segments_[key]);
  }
  bool sees_one(int64_t query, int64_t key) const {
    return position_[query] >= key && oldest_[query] <= key && (segments_ == nullptr || segment_[query] == segments_[key]);
  }

  const int64_t count;

 private:
  static ivec load_integers(const int32_t* p) { return *reinterpret_cast<const ivec*>(p); }

  const AttentionProblem& problem_;
  const int32_t* segments_;
  const int64_t first_;  // position of the first query
  // Of each query; those beyond `count` stand at -1 and see nothing.
  alignas(64) int32_t position_[QUERIES];
  alignas(64) int32_t oldest_[QUERIES];
  alignas(64) int32_t segment_[QUERIES];
};

#endif

}  // namespace llmx::LLMX_ISA_NAME::attention
