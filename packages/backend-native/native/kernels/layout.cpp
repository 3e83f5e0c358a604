// Moving elements: copies between layouts, conversions, constant values.
#include "llmx/blocks.h"
#include "llmx/numbers.h"
#include "memory.h"

namespace llmx::LLMX_ISA_NAME {

constexpr int MAX_AXES = 8;

/** One axis of a copy: its length, and the distance of neighbours in x and in y, in elements. */
struct Axis {
  int64_t length, from, to;
};

struct Axes {
  int count = 0;
  Axis axis[MAX_AXES];

  int64_t size() const {
    int64_t product = 1;
    for (int k = 0; k < count; ++k) product *= axis[k].length;
    return product;
  }
};

#if LLMX_ISA != LLMX_ISA_REFERENCE

/** f(offset in x, offset in y) for the index-th of all positions along the axes. */
template <class F>
LLMX_INLINE void at_position(const Axes& axes, int64_t index, const F& f) {
  int64_t from = 0, to = 0;
  for (int k = axes.count - 1; k >= 0; --k) {
    const int64_t position = index % axes.axis[k].length;
    index /= axes.axis[k].length;
    from += position * axes.axis[k].from;
    to += position * axes.axis[k].to;
  }
  f(from, to);
}

/** Rows that lie together in x and in y. */
static void copy_rows(const Axes& outer, int64_t length, const int32_t* x, int32_t* y) {
  if (outer.count == 0) {
    parallel_chunks(length, TASK_ELEMENTS, [=](int64_t begin, int64_t end) {
      std::memcpy(y + begin, x + begin, static_cast<size_t>(end - begin) * sizeof(int32_t));
    });
    return;
  }
  parallel_chunks(outer.size(), max(int64_t{1}, TASK_ELEMENTS / length), [&](int64_t begin, int64_t end) {
    for (int64_t index = begin; index < end; ++index)
      at_position(outer, index, [=](int64_t from, int64_t to) {
        std::memcpy(y + to, x + from, static_cast<size_t>(length) * sizeof(int32_t));
      });
  });
}

// A tile of 16 x 16 elements: whole cache lines of both x and y are used while they are in the first-level cache.
constexpr int64_t TILE = 16;

/** y[r * to + c] = x[c * from + r] for a tile of columns c and rows r. */
LLMX_INLINE void transpose_tile(const int32_t* x, int64_t from, int32_t* y, int64_t to, int64_t columns, int64_t rows) {
  if (columns == TILE && rows == TILE) {
    for (int64_t r = 0; r < TILE; r += 4)
      for (int64_t c = 0; c < TILE; c += 4)
        transpose_quads(reinterpret_cast<float*>(y + r * to + c), to, reinterpret_cast<const float*>(x + c * from + r), from);
    return;
  }
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t c = 0; c < columns; ++c) y[r * to + c] = x[c * from + r];
}

/** Planes in which x lies together along `rows` and y along `columns`, in strips of 16 rows and up to 1024 columns. */
static void copy_transposed(const Axes& outer, Axis rows, Axis columns, const int32_t* x, int32_t* y) {
  constexpr int64_t WIDTH = 1024;
  const int64_t strips = divide_up(rows.length, TILE), parts = divide_up(columns.length, WIDTH);
  const int64_t per_task = max(int64_t{1}, TASK_ELEMENTS / (TILE * min(columns.length, WIDTH)));
  parallel_chunks(outer.size() * strips * parts, per_task, [&](int64_t begin, int64_t end) {
    for (int64_t index = begin; index < end; ++index) {
      const int64_t r = index / parts % strips * TILE, first = index % parts * WIDTH;
      const int64_t last = min(columns.length, first + WIDTH);
      at_position(outer, index / (strips * parts), [=](int64_t from, int64_t to) {
        for (int64_t c = first; c < last; c += TILE)
          transpose_tile(x + from + r + c * columns.from, columns.from, y + to + r * rows.to + c, rows.to,
                         min(TILE, last - c), min(TILE, rows.length - r));
      });
    }
  });
}

/** Where x has stride 1 along no axis. */
static void copy_strided(const Axes& outer, Axis last, const int32_t* x, int32_t* y) {
  parallel_chunks(outer.size(), max(int64_t{1}, TASK_ELEMENTS / last.length), [&](int64_t begin, int64_t end) {
    for (int64_t index = begin; index < end; ++index)
      at_position(outer, index, [=](int64_t from, int64_t to) {
        for (int64_t i = 0; i < last.length; ++i) y[to + i * last.to] = x[from + i * last.from];
      });
  });
}

#endif

/**
 * Copies elements of four bytes between layouts: along each axis (one at least), x and y advance by strides of their own. No length is 0.
 * Tensors: x, y (not overlapping). Numbers: offset in x, offset in y, axes, then for each axis, the outermost first: length,
 * stride in x, stride in y.
 */
LLMX_KERNEL(LlmxCopy) {
  const auto* x = static_cast<const int32_t*>(call.tensor(0).data) + call.integer(0);
  auto* y = static_cast<int32_t*>(call.tensor(1).data) + call.integer(1);
  Axes axes;
  axes.count = static_cast<int>(call.integer(2));
  for (int k = 0; k < axes.count; ++k)
    axes.axis[k] = {call.integer(3 + 3 * k), call.integer(4 + 3 * k), call.integer(5 + 3 * k)};
#if LLMX_ISA == LLMX_ISA_REFERENCE
  for (int64_t index = 0; index < axes.size(); ++index) {
    int64_t from = 0, to = 0;
    for (int64_t k = axes.count - 1, rest = index; k >= 0; rest /= axes.axis[k--].length) {
      from += rest % axes.axis[k].length * axes.axis[k].from;
      to += rest % axes.axis[k].length * axes.axis[k].to;
    }
    y[to] = x[from];
  }
#else
  const Axis last = axes.axis[--axes.count];
  if (last.from == 1 && last.to == 1) {
    copy_rows(axes, last.length, x, y);
    return 0;
  }
  int inner = axes.count - 1;
  while (inner >= 0 && axes.axis[inner].from != 1) --inner;
  if (inner < 0 || last.to != 1) {
    copy_strided(axes, last, x, y);
    return 0;
  }
  const Axis rows = axes.axis[inner];
  for (int k = inner + 1; k < axes.count; ++k) axes.axis[k - 1] = axes.axis[k];
  --axes.count;
  copy_transposed(axes, rows, last, x, y);
#endif
  return 0;
}

/** As ToInt32 of ECMAScript: towards 0, modulo 2^32; 0 for NaN, infinity and what has no bits below 2^32. */
LLMX_INLINE int32_t to_integer(float x) {
  // Within these limits the conversion to 64 bits is exact; beyond, a float is a multiple of 2^40.
  const bool fits = x > -9.0e18f && x < 9.0e18f;
  return static_cast<int32_t>(static_cast<uint64_t>(static_cast<int64_t>(fits ? x : 0.0f)));
}

/** float32 to int32, or int32 or bfloat16 to float32. Tensors: x, y of equal size. */
LLMX_KERNEL(LlmxCast) {
  if (const Numbers x = numbers(call, 0); x.narrow) {
    parallel_chunks(call.size(0), TASK_ELEMENTS, [&](int64_t begin, int64_t end) {
      for_vectors(end - begin, [&](int64_t i, int64_t n) { store_some(call.floats(1) + begin + i, x.load_some(begin + i, n), n); });
    });
    return 0;
  }
  const bool from_float = call.tensor(0).dtype == LLMX_FLOAT32;
  parallel_chunks(call.size(0), TASK_ELEMENTS, [&](int64_t begin, int64_t end) {
    if (from_float)
      for (int64_t i = begin; i < end; ++i) call.integers(1)[i] = to_integer(call.floats(0)[i]);
    else
      for (int64_t i = begin; i < end; ++i) call.floats(1)[i] = static_cast<float>(call.integers(0)[i]);
  });
  return 0;
}

/** Every element the same. Tensors: y, float32 or int32. Numbers: value. */
LLMX_KERNEL(LlmxFill) {
  if (call.tensor(0).dtype == LLMX_FLOAT32) {
    fill(call.floats(0), call.size(0), static_cast<float>(call.number(0)));
    return 0;
  }
  float pattern;
  const int32_t value = static_cast<int32_t>(call.integer(0));
  std::memcpy(&pattern, &value, sizeof value);
  // Vector and scalar moves keep the bits of any float.
  fill(static_cast<float*>(call.tensor(0).data), call.size(0), pattern);
  return 0;
}

}  // namespace llmx::LLMX_ISA_NAME
