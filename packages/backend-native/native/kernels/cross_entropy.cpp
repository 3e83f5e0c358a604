/**
 * Cross-entropy of softmax(logits) in nats, and linear + cross-entropy without holding all logits where they are many.
 *
 * LlmxCrossEntropy: logits [rows, vocab], labels int32 [rows], outputs loss [rows], gradient [rows, vocab] (the loss's
 * derivative by the logits).
 *
 * LlmxLinearCrossEntropy: hidden [rows, width], weight, labels int32 [rows], outputs loss [rows], logits? [rows, vocab]
 * (kept if given), logSum [rows] (log of the sum of the logits' exponentials). LlmxLinearCrossEntropyGrad: dy [rows],
 * hidden, weight, labels, logits? (computed again if left out), logSum, outputs dHidden [rows, width], dWeight. Numbers of
 * both: rows, width, vocab, transposed, bfloat16 (whether operands of products are rounded to it; nothing else is). The
 * weight is [width, vocab], or [vocab, width] if transposed. hidden may lie in memory as bfloat16.
 *
 * A negative label is ignored: its loss and gradient are 0. One of vocab or more is an error. No output overlaps an input.
 */
#include "llmx/vector_math.h"
#include "matmul.h"
#include "memory.h"

namespace llmx::LLMX_ISA_NAME {

namespace {

/** 0 if all labels name an entry of the vocabulary or are negative. */
int32_t check_labels(const int32_t* labels, int64_t rows, int64_t vocab) {
  for (int64_t row = 0; row < rows; ++row)
    if (labels[row] >= vocab)
      return fail("label %d of row %lld is not below the vocabulary's size of %lld", labels[row],
                  static_cast<long long>(row), static_cast<long long>(vocab));
  return 0;
}

/** Log of a sum of exponentials that grows by some of its terms at a time, kept as exp(peak) * sum. */
struct LogSum {
  double sum = 0;
  float peak = -INFINITY;

  /** What is taken from terms before the exponential: no infinity where there is nothing but -infinity yet. */
  float shift() const { return peak == -INFINITY ? 0 : peak; }
  void raise(float value) {
    if (!(value > peak)) return;
    sum *= std::exp(static_cast<double>(peak) - value);
    peak = value;
  }
  double value() const { return peak + std::log(sum); }
};

struct Head {
  int64_t rows, width, vocab;
  bool transposed, bfloat16;
  Numbers hidden;
  const float* weight;
  const int32_t* labels;

  Head(const Call& call, int first)
      : rows(call.integer(0)), width(call.integer(1)), vocab(call.integer(2)), transposed(call.flag(3)), bfloat16(call.flag(4)),
        hidden(numbers(call, first)), weight(call.floats(first + 1)), labels(call.integers(first + 2)) {}

  /** What a product takes for x. */
  double factor(float x) const { return bfloat16 ? rounded(x) : x; }
};

#if LLMX_ISA == LLMX_ISA_REFERENCE

double log_sum(const float* x, int64_t count) {
  LogSum total;
  for (int64_t j = 0; j < count; ++j) total.raise(x[j]);
  for (int64_t j = 0; j < count; ++j) total.sum += std::exp(static_cast<double>(x[j]) - total.shift());
  return total.value();
}

int32_t cross_entropy(const float* logits, const int32_t* labels, int64_t rows, int64_t vocab, float* loss, float* gradient) {
  for (int64_t row = 0; row < rows; ++row, logits += vocab, gradient += vocab) {
    const double total = log_sum(logits, vocab);
    const bool counts = labels[row] >= 0;
    loss[row] = counts ? static_cast<float>(total - logits[labels[row]]) : 0;
    for (int64_t j = 0; j < vocab; ++j)
      gradient[j] = counts ? static_cast<float>(std::exp(logits[j] - total) - (j == labels[row])) : 0;
  }
  return 0;
}

float head_logit(const Head& head, int64_t row, int64_t entry) {
  double sum = 0;
  for (int64_t p = 0; p < head.width; ++p)
    sum += head.factor(head.hidden.get(row * head.width + p)) *
           head.factor(head.weight[head.transposed ? entry * head.width + p : p * head.vocab + entry]);
  return static_cast<float>(sum);
}

int32_t head_loss(const Head& head, float* loss, float* logits, float* log_sums) {
  float* line = scratch<float>(-1, 0, max<int64_t>(1, head.vocab));
  if (line == nullptr) return 1;
  for (int64_t row = 0; row < head.rows; ++row) {
    for (int64_t j = 0; j < head.vocab; ++j) {
      line[j] = head_logit(head, row, j);
      if (logits != nullptr) logits[row * head.vocab + j] = line[j];
    }
    const double total = log_sum(line, head.vocab);
    log_sums[row] = static_cast<float>(total);
    loss[row] = head.labels[row] < 0 ? 0 : static_cast<float>(total - line[head.labels[row]]);
  }
  return 0;
}

int32_t head_gradient(const Head& head, const float* dy, const float* logits, const float* log_sums, float* d_hidden,
                      float* d_weight) {
  const int64_t width = head.width;
  double* sums = scratch<double>(-1, 0, max<int64_t>(1, (head.rows + head.vocab) * width));
  if (sums == nullptr) return 1;
  double* by_hidden = sums;
  double* by_weight = sums + head.rows * width;
  std::memset(sums, 0, static_cast<size_t>((head.rows + head.vocab) * width) * sizeof(double));
  for (int64_t row = 0; row < head.rows; ++row)
    for (int64_t j = 0; j < head.vocab; ++j) {
      const double logit = logits != nullptr ? logits[row * head.vocab + j] : head_logit(head, row, j);
      const bool counts = head.labels[row] >= 0;
      const double by_logit = counts ? (std::exp(logit - log_sums[row]) - (j == head.labels[row])) * dy[row] : 0;
      const double factor = head.bfloat16 ? rounded(static_cast<float>(by_logit)) : by_logit;
      for (int64_t p = 0; p < width; ++p) {
        const int64_t at = head.transposed ? j * width + p : p * head.vocab + j;
        by_hidden[row * width + p] += factor * head.factor(head.weight[at]);
        by_weight[at] += factor * head.factor(head.hidden.get(row * width + p));
      }
    }
  for (int64_t i = 0; i < head.rows * width; ++i) d_hidden[i] = static_cast<float>(by_hidden[i]);
  for (int64_t i = 0; i < head.vocab * width; ++i) d_weight[i] = static_cast<float>(by_weight[i]);
  return 0;
}

#else

// Logits that are summed in float32 before they are added to a sum in float64: 2 KiB, read twice from the first-level cache.
constexpr int64_t SPAN = 512;

void add_terms(const float* x, int64_t count, LogSum& total) {
  for (int64_t begin = 0; begin < count; begin += SPAN) {
    const float* from = x + begin;
    const int64_t size = min(SPAN, count - begin);
    vec peak = broadcast(-INFINITY);
    for_vectors(size, [&](int64_t i, int64_t lanes) {
      const vec v = load_some(from + i, lanes, -INFINITY);
      peak = v > peak ? v : peak;
    });
    total.raise(largest(peak));
    const float shift = total.shift();
    total.sum += sum_vectors(size, [&](int64_t i, int64_t lanes) {
      return vexp(load_some(from + i, lanes, -INFINITY) - shift);
    });
  }
}

/**
 * The derivative of one row's loss by its logits, times dy; `label` may lie beyond the logits or before them. `to` may be the
 * logits' own memory.
 */
void row_gradient(const float* logits, int64_t count, float log_sum, float dy, int64_t label, Numbers to) {
  const auto by_logit = [=](vec logit) { return vexp(logit - log_sum) * dy; };
  const bool has_label = label >= 0 && label < count;
  const float by_label = has_label ? by_logit(broadcast(logits[label]))[0] - dy : 0;
  for_vectors(count, [&](int64_t i, int64_t lanes) { to.store_some(i, by_logit(load_some(logits + i, lanes)), lanes); });
  if (has_label) to.put(label, by_label);
}

int32_t cross_entropy(const float* logits, const int32_t* labels, int64_t rows, int64_t vocab, float* loss, float* gradient) {
  parallel_chunks(rows, max<int64_t>(1, TASK_ELEMENTS / max<int64_t>(1, vocab)), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const float* x = logits + row * vocab;
      float* to = gradient + row * vocab;
      const int32_t label = labels[row];
      if (label < 0) {
        loss[row] = 0;
        for (int64_t j = 0; j < vocab; ++j) to[j] = 0;
        continue;
      }
      LogSum total;
      add_terms(x, vocab, total);
      loss[row] = static_cast<float>(total.value() - x[label]);
      row_gradient(x, vocab, static_cast<float>(total.value()), 1, label, to);
    }
  });
  return 0;
}

// ---- Linear + cross-entropy
//
// The vocabulary is taken in chunks, each for all rows: products of matrices on all threads, then the softmax of the
// chunk's logits, row by row, while they are in the last-level cache. So the weight is read once per product, gradients of
// hidden states are added in the order of chunks, and nothing grows with the number of threads. Rows are never cut: small
// chunks of rows would each read the whole weight again.

// Logits of a chunk, 4 MiB, and the fewest of a row: fewer would read and write the hidden states' gradient too often.
constexpr int64_t CHUNK = int64_t{1} << 20, NARROWEST = 4 * COLUMNS;

struct Chunks {
  int64_t size, count;

  explicit Chunks(const Head& head)
      : size(max(NARROWEST, CHUNK / max<int64_t>(1, head.rows) / COLUMNS * COLUMNS)),
        count(max<int64_t>(1, divide_up(head.vocab, size))) {}
};

/** Distance of rows of a chunk's logits: not a multiple of 4 KiB, with which neighbouring rows would compete in the caches. */
int64_t chunk_line(int64_t size) { return size % 1024 == 0 ? size + 16 : size; }

/** The logits of entries `begin` on, to lines that are `line` apart. */
Matmul logits_of(const Head& head, int64_t begin, int64_t count, float* to, int64_t line) {
  Matmul matmul{};
  matmul.bfloat16 = head.bfloat16;
  matmul.m = head.rows;
  matmul.n = count;
  matmul.k = matmul.a_line = head.width;
  matmul.a = head.hidden;
  matmul.b = head.weight + (head.transposed ? begin * head.width : begin);
  matmul.b_line = head.transposed ? head.width : head.vocab;
  matmul.transpose_b = head.transposed;
  matmul.line = line;
  matmul.epilogue.product = to;
  return matmul;
}

/** f(row) on all threads, where a row is work on `count` logits. */
template <class F>
void for_rows(int64_t rows, int64_t count, const F& f) {
  parallel_chunks(rows, max<int64_t>(1, TASK_ELEMENTS / max<int64_t>(1, count)), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) f(row);
  });
}

int32_t head_loss(const Head& head, float* loss, float* logits, float* log_sums) {
  const Chunks chunks(head);
  const int64_t line = logits != nullptr ? head.vocab : chunk_line(min(chunks.size, head.vocab));
  LogSum* totals = scratch<LogSum>(-1, 0, max<int64_t>(1, head.rows));
  float* chunk = logits != nullptr ? logits : scratch<float>(-1, 1, max<int64_t>(1, head.rows * line));
  if (totals == nullptr || chunk == nullptr) return 1;
  for (int64_t index = 0; index < chunks.count; ++index) {
    const int64_t begin = index * chunks.size, count = min(chunks.size, head.vocab - begin);
    float* to = logits != nullptr ? logits + begin : chunk;
    if (multiply(logits_of(head, begin, count, to, line)) != 0) return 1;
    for_rows(head.rows, count, [&](int64_t row) {
      if (index == 0) totals[row] = LogSum{};
      add_terms(to + row * line, count, totals[row]);
      const int64_t label = head.labels[row] - begin;
      if (label >= 0 && label < count) loss[row] = to[row * line + label];
    });
  }
  for (int64_t row = 0; row < head.rows; ++row) {
    const double total = totals[row].value();
    log_sums[row] = static_cast<float>(total);
    loss[row] = head.labels[row] < 0 ? 0 : static_cast<float>(total - loss[row]);
  }
  return 0;
}

/** The part of the weight's gradient that belongs to a chunk, from the derivative by its logits. */
Matmul weight_gradient(const Head& head, int64_t begin, int64_t count, Numbers by_logits, int64_t line, float* d_weight) {
  Matmul matmul{};
  matmul.bfloat16 = head.bfloat16;
  matmul.k = head.rows;
  matmul.transpose_a = true;
  if (head.transposed) {
    matmul.m = count;
    matmul.n = matmul.b_line = matmul.line = head.width;
    matmul.a = by_logits;
    matmul.a_line = line;
    matmul.b = head.hidden;
    matmul.epilogue.product = d_weight + begin * head.width;
  } else {
    matmul.m = matmul.a_line = head.width;
    matmul.n = count;
    matmul.a = head.hidden;
    matmul.b = by_logits;
    matmul.b_line = line;
    matmul.line = head.vocab;
    matmul.epilogue.product = d_weight + begin;
  }
  return matmul;
}

/** A chunk's part of the gradient by the hidden states, added to what earlier chunks gave. */
Matmul hidden_gradient(const Head& head, int64_t begin, int64_t count, Numbers by_logits, int64_t line, float* d_hidden) {
  Matmul matmul = logits_of(head, begin, count, d_hidden, head.width);
  matmul.n = head.width;
  matmul.k = count;
  matmul.a = by_logits;
  matmul.a_line = line;
  matmul.transpose_b = !head.transposed;
  matmul.accumulate = begin > 0;
  return matmul;
}

int32_t head_gradient(const Head& head, const float* dy, const float* logits, const float* log_sums, float* d_hidden,
                      float* d_weight) {
  const Chunks chunks(head);
  const int64_t line = chunk_line(min(chunks.size, head.vocab));
  // Products round their operands anyway: half the memory traffic, and one of them reads it where it is.
  const bool narrow = head.bfloat16 && LLMX_ISA >= LLMX_ISA_AVX512_BF16;
  const int64_t size = max<int64_t>(1, head.rows * line);
  // Logits that were not kept are overwritten, unless the derivative takes less room.
  float* chunk = logits != nullptr && narrow ? nullptr : scratch<float>(-1, 1, size);
  const Numbers by_logits = narrow ? Numbers(scratch<uint16_t>(-1, 2, size), true) : Numbers(chunk);
  if (!by_logits || (logits == nullptr && chunk == nullptr)) return 1;
  for (int64_t index = 0; index < chunks.count; ++index) {
    const int64_t begin = index * chunks.size, count = min(chunks.size, head.vocab - begin);
    if (logits == nullptr && multiply(logits_of(head, begin, count, chunk, line)) != 0) return 1;
    for_rows(head.rows, count, [&](int64_t row) {
      const Numbers to = by_logits.from(row * line);
      if (head.labels[row] < 0) {
        std::memset(to.data, 0, static_cast<size_t>(count * to.bytes_each()));
        return;
      }
      const float* from = logits != nullptr ? logits + row * head.vocab + begin : chunk + row * line;
      row_gradient(from, count, log_sums[row], dy[row], head.labels[row] - begin, to);
    });
    if (multiply(weight_gradient(head, begin, count, by_logits, line, d_weight)) != 0) return 1;
    if (multiply(hidden_gradient(head, begin, count, by_logits, line, d_hidden)) != 0) return 1;
  }
  return 0;
}

#endif

}  // namespace

LLMX_KERNEL(LlmxCrossEntropy) {
  const int64_t rows = call.dim(0, 0), vocab = call.dim(0, 1);
  if (check_labels(call.integers(1), rows, vocab) != 0) return 1;
  return cross_entropy(call.floats(0), call.integers(1), rows, vocab, call.floats(2), call.floats(3));
}

LLMX_KERNEL(LlmxLinearCrossEntropy) {
  const Head head(call, 0);
  if (check_labels(head.labels, head.rows, head.vocab) != 0) return 1;
  return head_loss(head, call.floats(3), call.floats(4), call.floats(5));
}

LLMX_KERNEL(LlmxLinearCrossEntropyGrad) {
  const Head head(call, 1);
  if (check_labels(head.labels, head.rows, head.vocab) != 0) return 1;
  return head_gradient(head, call.floats(0), call.floats(4), call.floats(5), call.floats(6), call.floats(7));
}

}  // namespace llmx::LLMX_ISA_NAME
