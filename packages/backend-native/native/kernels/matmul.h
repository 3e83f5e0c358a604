/**
 * One product of matrices on all threads, with an epilogue: what LlmxMatmul and linear + cross-entropy are made of. Uses slots
 * 12 to 14 of scratch memory, the workers' and the shared ones.
 *
 * The sum over k is cut into blocks by its length alone, each added in order; tasks are slices of the product. So the
 * result does not depend on the number of threads.
 */
#pragma once

#include "epilogue.h"
#include "llmx/kernel.h"
#include "tile.h"

namespace llmx::LLMX_ISA_NAME {

/** product [m, n] = epilogue(op(a) op(b)). Operands, the product, second and factor are float32 or bfloat16. */
struct Matmul {
  int64_t m, n, k;
  /** a is [m, k], or [k, m] if transposed; its lines are `a_line` apart. */
  Numbers a;
  int64_t a_line;
  bool transpose_a;
  /** b is [k, n], or [n, k] if transposed; its lines are `b_line` apart. */
  Numbers b;
  int64_t b_line;
  bool transpose_b;
  /** Distance of lines of the product, and of all other tensors of its shape. */
  int64_t line;
  /** Adds to what the product holds, before the epilogue. */
  bool accumulate;
  /** Rounds both operands to bfloat16; sums are float32. */
  bool bfloat16;
  Epilogue epilogue;

  /** The part of a from element (row, p) on; the same of b. */
  Numbers a_from(int64_t row, int64_t p) const { return a.from(transpose_a ? p * a_line + row : row * a_line + p); }
  Numbers b_from(int64_t p, int64_t column) const { return b.from(transpose_b ? column * b_line + p : p * b_line + column); }
};

// ---- Blocks and slices

// Longest block of the sum: 8 rows of 768 words of a (24 KiB) stay in a first-level cache of 32 or 48 KiB. Of tile registers,
// which take 32 rows of half the bytes, it fills the larger one; shorter blocks would read and write sums more often.
template <class Format>
constexpr int64_t DEPTH = 768 * (Format::CONTINUES ? 1 : Format::PER_WORD);
static_assert(DEPTH<Float32> % Float32::STEP == 0 && DEPTH<Bfloat16> % Bfloat16::STEP == 0);
// Columns of packed b that are used for all rows of a task before the next ones: with 768 words 576 KiB of the second-level cache.
constexpr int64_t COLUMNS = 192;
// Floats of an operand that are packed as a whole at a time: 4 MiB, which every task reads again from the last-level cache.
constexpr int64_t WHOLE = 1 << 20;
// Slots of scratch memory.
enum { WHOLE_SLOT = 12, SLICE_SLOT = 13, PARTIAL_SLOT = 14 };

/** How the sum, of at least one term, is cut into blocks of nearly equal length, each but the last a multiple of STEP. */
struct Blocks {
  int64_t depth, count, length;

  template <class Format>
  static Blocks of(int64_t depth) {
    const int64_t count = divide_up(depth, DEPTH<Format>);
    return {depth, count, round_up(divide_up(depth, count), max<int64_t>(4, Format::STEP))};
  }

  int64_t begin(int64_t block) const { return block * length; }
  int64_t size(int64_t block) const { return min(length, depth - begin(block)); }
};

/** A part of the product: its rows and columns, and where sums of earlier blocks lie. */
struct Part {
  int64_t row, rows, column, columns;
  float* partial = nullptr;
  int64_t partial_line = 0;
};

/** Whether earlier blocks' sums need memory of their own: the product holds the residual, or is too narrow for them. */
inline bool keeps_apart(const Matmul& matmul, const Blocks& blocks) {
  const Epilogue& epilogue = matmul.epilogue;
  return epilogue.product.narrow || (blocks.count > 1 && epilogue.residual == epilogue.product.floats());
}

/** Decides where the part's sums are kept between blocks; false where memory is short. */
inline bool choose_partial(const Matmul& matmul, const Blocks& blocks, int32_t worker, Part& part) {
  const bool apart = keeps_apart(matmul, blocks);
  part.partial_line = apart ? round_up(part.columns, LANES) : matmul.line;
  part.partial = apart ? scratch<float>(worker, PARTIAL_SLOT, part.rows * part.partial_line)
                       : matmul.epilogue.product.floats() + part.row * matmul.line + part.column;
  return part.partial != nullptr;
}

/** f(i, j, rows, columns) for the tiles of a part, from its beginning on. Panels of a come outermost: see COLUMNS. */
template <class Format, class F>
LLMX_INLINE void for_tiles(const Part& part, const F& f) {
  for (int64_t i = 0; i < part.rows; i += Format::MR)
    for (int64_t j = 0; j < part.columns; j += Format::NR)
      f(i, j, static_cast<int>(min<int64_t>(Format::MR, part.rows - i)),
        static_cast<int>(min<int64_t>(Format::NR, part.columns - j)));
}

/** Forms the last block's sums in tiles and finishes each; `depth` in words. */
template <int ACTIVATION, class Format, class Rows>
inline void multiply_and_finish(const Matmul& matmul, const Part& part, int64_t depth, Rows a, const float* b, bool add,
                                Ahead& ahead) {
  constexpr int MR = Format::MR, NR = Format::NR;
  alignas(64) float sums[MR * NR];
  for_tiles<Format>(part, [&](int64_t i, int64_t j, int rows, int columns) {
    const int64_t column = part.column + j, index = (part.row + i) * matmul.line + column;
    const float* partial = add ? part.partial + i * part.partial_line + j : nullptr;
    const Finish<ACTIVATION> finish{matmul.epilogue, index, matmul.line, column, partial, part.partial_line};
    const Rows panel = a.from(i, depth);
    if constexpr (!Format::CONTINUES)
      if (rows == MR && columns == NR) return tile_part<Format, MR, NR / LANES>(depth, panel, b + j * depth, finish, ahead);
    for (int r = 0; r < rows; ++r) finish.fetch(r, static_cast<int>(divide_up(columns, LANES)));
    tile_first<Format>(rows, columns, depth, panel, b + j * depth, Sums{sums, NR, false}, ahead);
    for (int r = 0; r < rows; ++r)
      finish_line(matmul.epilogue, index + r * matmul.line, column, columns, sums + r * NR,
                  add ? partial + r * part.partial_line : nullptr);
  });
}

/** Adds a block's sums to a part's earlier ones, or begins them; `depth` in words. */
template <class Format, class Rows>
inline void multiply_and_add(const Part& part, int64_t depth, Rows a, const float* b, bool add, Ahead& ahead) {
  for_tiles<Format>(part, [&](int64_t i, int64_t j, int rows, int columns) {
    const Sums sums{part.partial + i * part.partial_line + j, part.partial_line, add};
    const Rows panel = a.from(i, depth);
    if (rows == Format::MR && columns == Format::NR) tile<Format>(depth, panel, b + j * depth, sums, ahead);
    else tile_edge<Format>(rows, columns, depth, panel, b + j * depth, sums, ahead);
  });
}

/** One block of the sum of a part, from packed operands; tiles take `ahead` on. */
template <class Format, class Rows>
inline void multiply_block(const Matmul& matmul, const Part& part, const Blocks& blocks, int64_t block, Rows a, const float* b,
                           Ahead ahead = {}) {
  [[maybe_unused]] const typename Format::Registers registers{};
  const int64_t depth = words<Format>(blocks.size(block)), activation = matmul.epilogue.activation;
  const bool add = block > 0 || matmul.accumulate, finishes = block == blocks.count - 1 && !matmul.epilogue.is_plain();
  for (int64_t j = 0; j < part.columns; j += COLUMNS) {
    Part some = part;
    some.column += j;
    some.columns = min(COLUMNS, part.columns - j);
    some.partial += j;
    const float* columns = b + j * depth;
    if (!finishes) multiply_and_add<Format>(some, depth, a, columns, add, ahead);
    else if (activation == GELU) multiply_and_finish<GELU, Format>(matmul, some, depth, a, columns, add, ahead);
    else if (activation == GELU_BACKWARD) multiply_and_finish<GELU_BACKWARD, Format>(matmul, some, depth, a, columns, add, ahead);
    else multiply_and_finish<NO_ACTIVATION, Format>(matmul, some, depth, a, columns, add, ahead);
  }
}

// ---- Rows of a: how they are prepared for tiles

/** In panels. */
template <class Format>
struct PackedRows {
  static constexpr bool IN_PLACE = false;

  /** `depth` positions from `begin` on of the rows from `row` on; packs them to `memory`. */
  static Panels<Format> take(float* memory, const Matmul& matmul, int64_t row, int64_t rows, int64_t begin, int64_t depth) {
    pack_rows<Format>(memory, matmul.a_from(row, begin), matmul.a_line, matmul.transpose_a, rows, depth);
    return {memory};
  }
};

/** Where they are. */
template <class Format>
struct RowsInPlace {
  static constexpr bool IN_PLACE = true;

  /** Whether tiles of the format can read a where it lies: they hold vectors, and it need not be rounded. */
  static constexpr bool POSSIBLE = !Format::CONTINUES && Format::ROUNDS == (Format::PER_WORD == 2);
  /** Whether a's memory is what they read: lines of words, and no tile with fewer rows. */
  static bool fits(const Matmul& matmul) {
    if (matmul.transpose_a || matmul.m % Format::MR != 0) return false;
    return matmul.a.narrow == Format::ROUNDS && matmul.k % Format::PER_WORD == 0 && matmul.a_line % Format::PER_WORD == 0;
  }
  static WordLines take(float*, const Matmul& matmul, int64_t row, int64_t, int64_t begin, int64_t) {
    return {matmul.a_from(row, begin).floats(), matmul.a_line / Format::PER_WORD};
  }
};

/** The whole product in one task. */
template <class Format, class Operand>
inline void multiply_alone(const Matmul& matmul, int32_t worker) {
  const auto blocks = Blocks::of<Format>(matmul.k);
  const int64_t line = words<Format>(blocks.length);
  float* a = scratch<float>(worker, WHOLE_SLOT, Operand::IN_PLACE ? 0 : round_up(matmul.m, Format::MR) * line);
  float* b = scratch<float>(worker, SLICE_SLOT, round_up(matmul.n, Format::NR) * line);
  Part part{0, matmul.m, 0, matmul.n};
  if (a == nullptr || b == nullptr || !choose_partial(matmul, blocks, worker, part)) return;
  for (int64_t block = 0; block < blocks.count; ++block) {
    const int64_t begin = blocks.begin(block), depth = blocks.size(block);
    const auto rows = Operand::take(a, matmul, 0, matmul.m, begin, depth);
    pack_columns<Format>(b, matmul.b_from(begin, 0), matmul.b_line, matmul.transpose_b, matmul.n, depth);
    multiply_block<Format>(matmul, part, blocks, block, rows, b);
  }
}

/**
 * f(first, count, memory) for groups of blocks, for which the whole operand, of `extent` lines, is packed at a time. Where sums
 * of earlier blocks are not kept in the product there is one group.
 */
template <class Format, class F>
inline int32_t for_groups(const Matmul& matmul, const Blocks& blocks, int64_t extent, const F& f) {
  const int64_t size = extent * words<Format>(blocks.length), fitting = min(blocks.count, max<int64_t>(1, WHOLE / size));
  const int64_t group = keeps_apart(matmul, blocks) ? blocks.count : fitting;
  float* whole = scratch<float>(-1, WHOLE_SLOT, group * size);
  if (whole == nullptr) return 1;
  for (int64_t first = 0; first < blocks.count; first += group) f(first, min(group, blocks.count - first), whole);
  return 0;
}

/**
 * The fewest of `lines` to a slice, whose task reads the other operand whole, `numbers` of it. With tile registers, where that is
 * more than half of the second-level cache (2 MiB with them): 1,500 GFLOP/s on slices of 32 would take 47 GB/s per thread from the
 * last level, on slices of 64 half of that, where a dozen tasks are left. Reckoned, not measured. No sum depends on slices.
 */
template <class Format>
inline int64_t fewest_lines([[maybe_unused]] int64_t lines, [[maybe_unused]] int64_t numbers, int64_t otherwise) {
#if LLMX_ISA == LLMX_ISA_AMX
  if (Format::ROUNDS && numbers * 2 > 1 << 20 && lines >= 12 * 64) return 64;
#endif
  return otherwise;
}

/** A matrix in memory, to be fetched while a part is multiplied; nothing if it has no rows or columns. */
inline Ahead matrix_ahead(Numbers from, int64_t stride, bool transposed, int64_t rows, int64_t columns, int64_t tiles) {
  if (transposed) return matrix_ahead(from, stride, false, columns, rows, tiles);
  if (rows <= 0 || columns <= 0) return {};
  const int64_t each = from.bytes_each();
  return {from.data, stride * each, columns * each, rows, tiles * STEPS};
}

/** What a worker packs after a block: the next one of its slice, or the first of the slice it takes next, if workers take turns. */
struct Following {
  int64_t block, slice;

  Following(const Blocks& blocks, int64_t block, int64_t slice)
      : block(block + 1 < blocks.count ? block + 1 : 0), slice(this->block > 0 ? slice : slice + llmx_engine->threads) {}
};

/** b packed as a whole; each task takes a slice of rows, whose part of a it packs. */
template <class Format, class Operand>
inline int32_t multiply_by_rows(const Matmul& matmul) {
  const auto blocks = Blocks::of<Format>(matmul.k);
  const int64_t line = words<Format>(blocks.length);
  const int64_t columns = round_up(matmul.n, Format::NR), group = 2 * Format::NR, groups = divide_up(matmul.n, group);
  // 32 tasks or more where the rows suffice; at least 32 rows, so that b from the last-level cache keeps up.
  const int64_t fewest = fewest_lines<Format>(matmul.m, columns * matmul.k, 32);
  const int64_t slice = min<int64_t>(96, round_up(max(fewest, divide_up(matmul.m, 32)), Format::MR));
  return for_groups<Format>(matmul, blocks, columns, [&](int64_t first, int64_t count, float* b) {
    parallel(count * groups, [&](int64_t task, int32_t) {
      const int64_t block = first + task / groups, column = task % groups * group, depth = blocks.size(block);
      float* to = b + (block - first) * columns * line + column * words<Format>(depth);
      pack_columns<Format>(to, matmul.b_from(blocks.begin(block), column), matmul.b_line, matmul.transpose_b,
                   min(group, matmul.n - column), depth);
    });
    parallel(divide_up(matmul.m, slice), [&](int64_t task, int32_t worker) {
      Part part{task * slice, min(slice, matmul.m - task * slice), 0, matmul.n};
      float* a = scratch<float>(worker, SLICE_SLOT, Operand::IN_PLACE ? 0 : round_up(slice, Format::MR) * line);
      if (a == nullptr || !choose_partial(matmul, blocks, worker, part)) return;
      for (int64_t block = first; block < first + count; ++block) {
        const auto rows = Operand::take(a, matmul, part.row, part.rows, blocks.begin(block), blocks.size(block));
        const Following next(blocks, block, task);
        const int64_t row = next.slice * slice, tiles = divide_up(part.rows, Format::MR) * divide_up(matmul.n, Format::NR);
        const Ahead ahead = matrix_ahead(matmul.a_from(row, blocks.begin(next.block)), matmul.a_line, matmul.transpose_a,
                                         min(slice, matmul.m - row), blocks.size(next.block), tiles);
        multiply_block<Format>(matmul, part, blocks, block, rows, b + (block - first) * columns * line, ahead);
      }
    });
  });
}

/** a packed as a whole, if at all; each task takes a slice of columns, whose part of b it packs. */
template <class Format, class Operand>
inline int32_t multiply_by_columns(const Matmul& matmul) {
  const auto blocks = Blocks::of<Format>(matmul.k);
  const int64_t line = words<Format>(blocks.length);
  const int64_t rows = round_up(matmul.m, Format::MR), group = round_up(64, Format::MR), groups = divide_up(matmul.m, group);
  const int64_t fewest = fewest_lines<Format>(matmul.n, rows * matmul.k, 1);
  const int64_t slice = min<int64_t>(2 * COLUMNS, round_up(max(fewest, divide_up(matmul.n, 32)), Format::NR));
  const auto multiply_group = [&](int64_t first, int64_t count, float* a) {
    const auto to = [&](int64_t block, int64_t row) {
      return a + (block - first) * rows * line + row * words<Format>(blocks.size(block));
    };
    if (!Operand::IN_PLACE)
      parallel(count * groups, [&](int64_t task, int32_t) {
        const int64_t block = first + task / groups, row = task % groups * group;
        Operand::take(to(block, row), matmul, row, min(group, matmul.m - row), blocks.begin(block), blocks.size(block));
      });
    parallel(divide_up(matmul.n, slice), [&](int64_t task, int32_t worker) {
      Part part{0, matmul.m, task * slice, min(slice, matmul.n - task * slice)};
      float* b = scratch<float>(worker, SLICE_SLOT, round_up(slice, Format::NR) * line);
      if (b == nullptr || !choose_partial(matmul, blocks, worker, part)) return;
      for (int64_t block = first; block < first + count; ++block) {
        const int64_t begin = blocks.begin(block);
        pack_columns<Format>(b, matmul.b_from(begin, part.column), matmul.b_line, matmul.transpose_b, part.columns,
                             blocks.size(block));
        const Following next(blocks, block, task);
        const int64_t column = next.slice * slice, columns = min(slice, matmul.n - column);
        const Ahead ahead = matrix_ahead(matmul.b_from(blocks.begin(next.block), column), matmul.b_line, matmul.transpose_b,
                                         blocks.size(next.block), columns, rows / Format::MR * divide_up(part.columns, Format::NR));
        const auto multiply_rows = [&](auto lines) { multiply_block<Format>(matmul, part, blocks, block, lines, b, ahead); };
        if constexpr (Operand::IN_PLACE) multiply_rows(Operand::take(nullptr, matmul, 0, 0, begin, 0));
        else multiply_rows(Panels<Format>{to(block, 0)});
      }
    });
  };
  if (!Operand::IN_PLACE) return for_groups<Format>(matmul, blocks, rows, multiply_group);
  multiply_group(0, blocks.count, nullptr);
  return 0;
}

// ---- Products with a vector: bound by memory, so nothing is packed

/** The number as the format holds it. */
template <class Format>
LLMX_INLINE float as(float x) {
  return Format::ROUNDS ? rounded(x) : x;
}

/**
 * Sum of x times a line. One line at a time and 4 KiB fetched ahead, across its end: reading one stream gives the memory's full
 * rate, four side by side two thirds of it.
 */
template <class Format>
inline float dot(const float* x, const float* line, int64_t length) {
  const auto get = [](const float* from) { return Format::ROUNDS ? rounded(load(from)) : load(from); };
  vec even{}, odd{};
  int64_t p = 0;
  for (; p + 2 * LANES <= length; p += 2 * LANES) {
    for (int i = 0; i < 2 * LANES; i += 16) __builtin_prefetch(line + p + 1024 + i);
    even += get(x + p) * get(line + p);
    odd += get(x + p + LANES) * get(line + p + LANES);
  }
  float rest = 0;
  for (; p < length; ++p) rest += as<Format>(x[p]) * as<Format>(line[p]);
  return sum(even + odd) + rest;
}

/** sums[j] = sum over p of x[p] * matrix[p * line + j], for `count` columns. */
template <class Format>
inline void add_lines(const float* __restrict x, const float* __restrict matrix, int64_t line, int64_t length,
                      int64_t count, float* __restrict sums) {
  for (int64_t j = 0; j < count; ++j) sums[j] = 0;
  int64_t p = 0;
  for (; p + 8 <= length; p += 8) {
    const float* from = matrix + p * line;
    for (int64_t j = 0; j < count; ++j) {
      float s = sums[j];
      for (int q = 0; q < 8; ++q) s += as<Format>(x[p + q]) * as<Format>(from[q * line + j]);
      sums[j] = s;
    }
  }
  for (; p < length; ++p)
    for (int64_t j = 0; j < count; ++j) sums[j] += as<Format>(x[p]) * as<Format>(matrix[p * line + j]);
}

/** A product with m = 1, and a without gaps; both in float32. */
template <class Format>
inline void multiply_vector(const Matmul& matmul) {
  constexpr int64_t LONGEST = 1024;
  const int64_t chunk = min<int64_t>(LONGEST, max<int64_t>(4 * LANES, round_up(divide_up(matmul.n, 32), LANES)));
  parallel_chunks(matmul.n, chunk, [&](int64_t begin, int64_t end) {
    alignas(64) float sums[LONGEST];
    if (matmul.transpose_b) {
      for (int64_t j = begin; j < end; ++j)
        sums[j - begin] = dot<Format>(matmul.a.floats(), matmul.b.floats() + j * matmul.b_line, matmul.k);
    } else {
      add_lines<Format>(matmul.a.floats(), matmul.b.floats() + begin, matmul.b_line, matmul.k, end - begin, sums);
    }
    const float* partial = matmul.accumulate ? matmul.epilogue.product.floats() + begin : nullptr;
    finish_line(matmul.epilogue, begin, begin, end - begin, sums, partial);
  });
}

/** The product with a column, without gaps, as one with a row: of the transposed operands. */
inline Matmul as_row(const Matmul& matmul) {
  Matmul row = matmul;
  row.m = 1;
  row.n = matmul.m;
  row.a = matmul.b;
  row.transpose_a = false;
  row.b = matmul.a;
  row.b_line = matmul.a_line;
  row.transpose_b = !matmul.transpose_a;
  row.epilogue.one_bias = true;
  return row;
}

// ---- Products with few rows: b is read where it lies, since packing it would cost more than the product

/** Columns of a task. */
constexpr int64_t FEW_COLUMNS = 4 * TILE_COLUMNS;

/** Sums of at most TILE_ROWS rows and `columns` columns from `column` on, from a [m, k] without gaps, filled up to whole tiles. */
template <class Format>
inline void multiply_few(const Matmul& matmul, const float* a, int64_t column, int64_t columns, Lines sums) {
  if (matmul.transpose_b) {
    for (int64_t j = 0; j < columns; ++j)
      for (int64_t i = 0; i < matmul.m; ++i)
        sums.row(i)[j] = dot<Format>(a + i * matmul.k, matmul.b.floats() + (column + j) * matmul.b_line, matmul.k);
    return;
  }
  const Lines rows{const_cast<float*>(a), matmul.k};
  for (int64_t j = 0; j < columns; j += TILE_COLUMNS) {
    const Lines to = sums.from(0, j), b{matmul.b.floats() + column + j, matmul.b_line};
    if (j + TILE_COLUMNS <= columns) {
      multiply_tile<false, FloatWords, true>(matmul.k, rows, b, to, to, 0);
    } else {
      for (int64_t i = 0; i < matmul.m; ++i)
        add_lines<Format>(a + i * matmul.k, b.data, matmul.b_line, matmul.k, columns - j, to.row(i));
    }
  }
}

/** A product with at most TILE_ROWS rows, b in float32; not 0 where memory is short. */
template <class Format>
inline int32_t multiply_few_rows(const Matmul& matmul) {
  float* a = scratch<float>(-1, WHOLE_SLOT, TILE_ROWS * matmul.k);
  if (a == nullptr) return 1;
  for (int64_t i = 0; i < TILE_ROWS; ++i)
    for (int64_t p = 0; p < matmul.k; ++p) a[i * matmul.k + p] = i < matmul.m ? matmul.a_from(i, p).get(0) : 0;
  parallel_chunks(matmul.n, FEW_COLUMNS, [&](int64_t begin, int64_t end) {
    alignas(64) float memory[TILE_ROWS * FEW_COLUMNS];
    const Lines sums{memory, FEW_COLUMNS};
    multiply_few<Format>(matmul, a, begin, end - begin, sums);
    for (int64_t i = 0; i < matmul.m; ++i) {
      const int64_t at = i * matmul.line + begin;
      const float* partial = matmul.accumulate ? matmul.epilogue.product.floats() + at : nullptr;
      finish_line(matmul.epilogue, at, begin, end - begin, sums.row(i), partial);
    }
  });
  return 0;
}

// ---- Choice

/** A product with k = 0: the epilogue of 0. */
inline void multiply_nothing(const Matmul& matmul) {
  constexpr int64_t SPAN = 256;
  const float zeros[SPAN] = {};
  for (int64_t i = 0; i < matmul.m; ++i)
    for (int64_t j = 0; j < matmul.n; j += SPAN) {
      const int64_t at = i * matmul.line + j;
      const float* partial = matmul.accumulate ? matmul.epilogue.product.floats() + at : nullptr;
      finish_line(matmul.epilogue, at, j, min(SPAN, matmul.n - j), zeros, partial);
    }
}

/** A vector, widened where it is bfloat16; null where memory is short. */
inline const float* widened_vector(Numbers x, int64_t length) {
  if (!x.narrow) return x.floats();
  float* wide = scratch<float>(-1, WHOLE_SLOT, length);
  if (wide == nullptr) return nullptr;
  for (int64_t p = 0; p < length; ++p) wide[p] = x.get(p);
  return wide;
}

/** f(how rows of a are prepared). */
template <class Format, class F>
inline auto by_layout(const Matmul& matmul, const F& f) {
  if constexpr (RowsInPlace<Format>::POSSIBLE)
    if (RowsInPlace<Format>::fits(matmul)) return f(RowsInPlace<Format>{});
  return f(PackedRows<Format>{});
}

/** A product whose operands are packed. */
template <class Format, class Operand>
inline int32_t multiply_packed(const Matmul& matmul) {
  // Below a few microseconds of work threads cost more than they bring.
  if (matmul.m * matmul.n * matmul.k <= 1 << 17) return multiply_alone<Format, Operand>(matmul, 0), 0;
  // The smaller operand is packed as a whole: less memory, and each task reads all of it.
  return matmul.m < matmul.n ? multiply_by_columns<Format, Operand>(matmul) : multiply_by_rows<Format, Operand>(matmul);
}

template <class Format>
inline int32_t multiply_as(const Matmul& matmul) {
  const bool row = matmul.m == 1 && (!matmul.transpose_a || matmul.a_line == 1) && !matmul.b.narrow;
  const bool column = matmul.n == 1 && matmul.line == 1 && (matmul.transpose_b || matmul.b_line == 1) && !matmul.a.narrow;
  if (row || column) {
    Matmul line = row ? matmul : as_row(matmul);
    line.a = widened_vector(line.a, line.k);
    if (!line.a) return 1;
    return multiply_vector<Format>(line), 0;
  }
  // Bound by reading b. Rounding it again for each row would cost more than packing it.
  if (matmul.m <= TILE_ROWS && matmul.n >= 8 * matmul.m && !Format::ROUNDS && !matmul.b.narrow) return multiply_few_rows<Format>(matmul);
  return by_layout<Format>(matmul, [&](auto operand) { return multiply_packed<Format, decltype(operand)>(matmul); });
}

/** The product, on all threads; not 0 where memory is short. */
inline int32_t multiply(const Matmul& matmul) {
  if (matmul.m == 0 || matmul.n == 0) return 0;
  if (matmul.k == 0) return multiply_nothing(matmul), 0;
  return matmul.bfloat16 ? multiply_as<Bfloat16>(matmul) : multiply_as<Float32>(matmul);
}

}  // namespace llmx::LLMX_ISA_NAME
