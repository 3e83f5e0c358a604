/**
 * The inner part of every matrix product: the product of rows of a, in panels or where they lie, and a packed panel of b (pack.h).
 *
 * `c = a b` with a [rows, depth] and b [depth, columns] is computed in tiles of MR x NR sums that stay in registers. `depth` is in
 * words throughout.
 *
 * In vectors, every element is the sum over depth in order, from 0; `accumulate` adds that sum to what c holds. In tile registers it
 * is the sum over steps of 32 positions in order, from 0 or from what c holds. No sum depends on where an element lies in its
 * tile, nor on which tiles surround it.
 */
#pragma once

#include "pack.h"

namespace llmx::LLMX_ISA_NAME {

/** Memory that is fetched into the second-level cache, a little at a time, while something else is computed. */
class Ahead {
 public:
  Ahead() = default;
  /** `rows` rows of `width` bytes, `stride` bytes apart, to be fetched in `steps` steps. */
  Ahead(const char* data, int64_t stride, int64_t width, int64_t rows, int64_t steps)
      : data_(data), width_(round_up(width, 64)), skip_(stride - width_), left_(width_), rows_(rows),
        lines_(divide_up(rows * width_ / 64, steps)) {}

  LLMX_INLINE void step() {
    for (int64_t i = 0; i < lines_ && rows_ > 0; ++i) {
      __builtin_prefetch(data_, 0, 2);
      data_ += 64;
      if ((left_ -= 64) > 0) continue;
      left_ = width_;
      data_ += skip_;
      --rows_;
    }
  }

 private:
  const char* data_ = nullptr;
  int64_t width_ = 0, skip_ = 0, left_ = 0, rows_ = 0, lines_ = 0;
};

/** Parts of the depth between which a tile of vectors fetches memory: all at once would hold up what the sums need. */
constexpr int STEPS = VECTOR_ROWS + VECTOR_ROWS / 2;

/** Sums that are stored, or added to what is there; lines are `stride` apart. */
struct Sums {
  float* c;
  int64_t stride;
  bool accumulate;

  /** Has the memory of a row's first vectors arrive while sums are formed. */
  LLMX_INLINE void fetch(int row, int vectors) const {
    for (int j = 0; j < vectors; ++j) __builtin_prefetch(c + row * stride + j * LANES, 1);
  }
  template <int WIDTH>
  LLMX_INLINE void take(int row, const vec (&sums)[WIDTH]) const {
    float* to = c + row * stride;
#pragma GCC unroll 3
    for (int j = 0; j < WIDTH; ++j) store(to + j * LANES, accumulate ? load(to + j * LANES) + sums[j] : sums[j]);
  }
};

/**
 * The first ROWS rows and WIDTH vectors of a tile. The sink fetches what it will need, and takes each row's sums, as `Sums` does.
 * `ahead` is taken STEPS steps on, or fewer where the depth is short.
 */
template <class Format, int ROWS, int WIDTH, class Rows, class Sink>
__attribute__((noinline)) void tile_part(int64_t depth, Rows a, const float* __restrict b, const Sink& sink, Ahead& ahead) {
  vec sums[ROWS][WIDTH];
#pragma GCC unroll 8
  for (int i = 0; i < ROWS; ++i) {
#pragma GCC unroll 3
    for (int j = 0; j < WIDTH; ++j) sums[i][j] = vec{};
  }
  const int64_t part = divide_up(depth, STEPS);
  int64_t p = 0;
  for (int step = 0; p < depth; ++step) {
    if (step < ROWS) sink.fetch(step, WIDTH);
    ahead.step();
    for (const int64_t end = min(depth, p + part); p < end; ++p, b += Format::NR) {
      vec columns[WIDTH];
#pragma GCC unroll 3
      for (int j = 0; j < WIDTH; ++j) columns[j] = load(b + j * LANES);
#pragma GCC unroll 8
      for (int i = 0; i < ROWS; ++i) {
#pragma GCC unroll 3
        for (int j = 0; j < WIDTH; ++j) sums[i][j] = Format::add(sums[i][j], Format::factor(a.word(i, p)), columns[j]);
      }
    }
  }
#pragma GCC unroll 8
  for (int i = 0; i < ROWS; ++i) sink.take(i, sums[i]);
}

#if LLMX_ISA == LLMX_ISA_AMX

/** Where registers of an operand lie: distances, in words, of their lines, of the next step of the depth, of the other half. */
struct TileSource {
  const float* data;
  int64_t line, step, half;
};

/** The first HEIGHT x WIDTH registers of a tile of sums; lines of c are `stride` apart. */
template <int HEIGHT, int WIDTH>
__attribute__((noinline)) void tile_registers(int64_t depth, TileSource left, TileSource right, float* c, int64_t stride,
                                              bool accumulate) {
  constexpr int64_t FLOAT = sizeof(float);
  const int64_t line = stride * FLOAT, left_line = left.line * FLOAT, right_line = right.line * FLOAT;
  const float *a = left.data, *b = right.data;
  float* lower = c + TILE_LINES * stride;
  if (accumulate) {
    amx_load<0>(c, line);
    if constexpr (WIDTH == 2) amx_load<1>(c + TILE_WORDS, line);
    if constexpr (HEIGHT == 2) amx_load<2>(lower, line);
    if constexpr (HEIGHT * WIDTH == 4) amx_load<3>(lower + TILE_WORDS, line);
  } else {
    for (int i = 0; i < HEIGHT * TILE_LINES; ++i)
      for (int j = 0; j < WIDTH; ++j) __builtin_prefetch(c + i * stride + j * TILE_WORDS, 1);
    amx_clear<0>();
    if constexpr (WIDTH == 2) amx_clear<1>();
    if constexpr (HEIGHT == 2) amx_clear<2>();
    if constexpr (HEIGHT * WIDTH == 4) amx_clear<3>();
  }
  for (int64_t p = 0; p < depth; p += TILE_WORDS, a += left.step, b += right.step) {
    amx_load<4>(a, left_line);
    amx_load<6>(b, right_line);
    amx_multiply<0, 4, 6>();
    if constexpr (WIDTH == 2) {
      amx_load<7>(b + right.half, right_line);
      amx_multiply<1, 4, 7>();
    }
    if constexpr (HEIGHT == 2) {
      amx_load<5>(a + left.half, left_line);
      amx_multiply<2, 5, 6>();
    }
    if constexpr (HEIGHT * WIDTH == 4) amx_multiply<3, 5, 7>();
  }
  amx_store<0>(c, line);
  if constexpr (WIDTH == 2) amx_store<1>(c + TILE_WORDS, line);
  if constexpr (HEIGHT == 2) amx_store<2>(lower, line);
  if constexpr (HEIGHT * WIDTH == 4) amx_store<3>(lower + TILE_WORDS, line);
}

#endif

/** The first HEIGHT halves of the rows of a tile, and WIDTH parts of its columns: registers of sums, or vectors. */
template <class Format, int HEIGHT, int WIDTH, class Rows>
LLMX_INLINE void tile_parts(int64_t depth, Rows a, const float* b, const Sums& sums, Ahead& ahead) {
#if LLMX_ISA == LLMX_ISA_AMX
  if constexpr (Format::ROUNDS) {
    constexpr int64_t TILE = TILE_LINES * TILE_WORDS;
    const TileSource rows{a.data, TILE_WORDS, 2 * TILE, TILE}, columns{b, Format::NR, Format::NR * TILE_WORDS, TILE_WORDS};
    tile_registers<HEIGHT, WIDTH>(depth, rows, columns, sums.c, sums.stride, sums.accumulate);
  } else
#endif
    tile_part<Format, Format::MR / 2 * HEIGHT, WIDTH>(depth, a, b, sums, ahead);
}

/** Sums [MR, NR] (+)= rows of a times a panel of b. */
template <class Format, class Rows>
LLMX_INLINE void tile(int64_t depth, Rows a, const float* b, const Sums& sums, Ahead& ahead) {
  tile_parts<Format, 2, Format::NR / LANES>(depth, a, b, sums, ahead);
}

/** As `tile`, at least the first `rows` rows and `columns` columns of it; there must be room for the whole tile. */
template <class Format, class Rows>
inline void tile_first(int rows, int columns, int64_t depth, Rows a, const float* b, const Sums& sums, Ahead& ahead) {
  constexpr int WIDTH = Format::NR / LANES;
  const bool half = rows <= Format::MR / 2;
  const auto parts = [&]<int HEIGHT>() {
    if (WIDTH > 2 && columns > 2 * LANES) tile_parts<Format, HEIGHT, WIDTH>(depth, a, b, sums, ahead);
    else if (columns > LANES) tile_parts<Format, HEIGHT, 2>(depth, a, b, sums, ahead);
    else tile_parts<Format, HEIGHT, 1>(depth, a, b, sums, ahead);
  };
  half ? parts.template operator()<1>() : parts.template operator()<2>();
}

/** As `tile`, but only the first `rows` rows and `columns` columns of the sums exist. */
template <class Format, class Rows>
inline void tile_edge(int rows, int columns, int64_t depth, Rows a, const float* b, const Sums& sums, Ahead& ahead) {
  constexpr int MR = Format::MR, NR = Format::NR;
  if (columns % LANES == 0 && (rows == MR || rows == MR / 2)) return tile_first<Format>(rows, columns, depth, a, b, sums, ahead);
  alignas(64) float whole[MR * NR];
  const auto [c, stride, accumulate] = sums;
  const bool continues = Format::CONTINUES && accumulate;
  for (int i = 0; continues && i < rows; ++i)
    std::memcpy(whole + i * NR, c + i * stride, static_cast<size_t>(columns) * sizeof(float));
  tile_first<Format>(rows, columns, depth, a, b, Sums{whole, NR, continues}, ahead);
  for (int i = 0; i < rows; ++i) {
    float* to = c + i * stride;
    for (int j = 0; j < columns; ++j) to[j] = accumulate && !continues ? to[j] + whole[i * NR + j] : whole[i * NR + j];
  }
}

}  // namespace llmx::LLMX_ISA_NAME
