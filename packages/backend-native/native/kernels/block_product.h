/** Products of blocks (llmx/blocks.h), whole or up to their last element. */
#pragma once

#include <type_traits>

#include "tile.h"

namespace llmx::LLMX_ISA_NAME {

/** What multiplies one tile of a block: c [ROWS, COLUMNS] (+)= a b, or at least its first `rows` rows and `columns` columns. */
template <bool CROSSWISE, class Words>
struct BlockTile {
  static constexpr int ROWS = TILE_ROWS, COLUMNS = TILE_COLUMNS;

  static void multiply(int, int, int64_t depth, Lines a, Lines b, Lines c, bool accumulate) {
    multiply_tile<CROSSWISE, Words>(depth, a, b, c, c, accumulate ? 1 : 0);
  }
};

#if LLMX_ISA == LLMX_ISA_AMX

/** In tile registers, which take a left operand by its rows alone: it is [m, depth] even if CROSSWISE. */
template <bool CROSSWISE>
struct BlockTile<CROSSWISE, Bfloat16> {
  static constexpr int ROWS = Bfloat16::MR, COLUMNS = Bfloat16::NR;

  static void multiply(int rows, int columns, int64_t depth, Lines a, Lines b, Lines c, bool accumulate) {
    const TileSource left{a.data, a.stride, TILE_WORDS, TILE_LINES * a.stride};
    const TileSource right{b.data, b.stride, TILE_LINES * b.stride, TILE_WORDS};
    const auto run = [&]<int HEIGHT, int WIDTH>() { tile_registers<HEIGHT, WIDTH>(depth, left, right, c.data, c.stride, accumulate); };
    if (rows > TILE_LINES) columns > TILE_WORDS ? run.template operator()<2, 2>() : run.template operator()<2, 1>();
    else columns > TILE_WORDS ? run.template operator()<1, 2>() : run.template operator()<1, 1>();
  }
};

#endif

/** Whether products are formed in tile registers. They take a left operand by its rows alone, and whole steps of the depth. */
template <class Format>
constexpr bool IN_REGISTERS = !std::is_same_v<typename Format::Registers, NoRegisters>;

/**
 * c [m, n] (+)= a b with b [depth, n] and a [m, depth], or (CROSSWISE, and not in tile registers) a [depth, m]; `depth` in words.
 * Every element is the sum over depth in order. Whole tiles are read and, unless EXACT, written: a, b and c must have room for m
 * and n rounded up to them (in registers, to 16), and depth to a step.
 */
template <bool CROSSWISE, class Format, bool EXACT = false>
inline void multiply_block(int64_t m, int64_t n, int64_t depth, Lines a, Lines b, Lines c, bool accumulate) {
  using Tile = BlockTile<CROSSWISE, Format>;
  constexpr int ROWS = Tile::ROWS, COLUMNS = Tile::COLUMNS;
  // Columns outermost: their part of b stays in the first cache.
  for (int64_t j = 0; j < n; j += COLUMNS) {
    for (int64_t i = 0; i < m; i += ROWS) {
      const int rows = static_cast<int>(min<int64_t>(ROWS, m - i)), columns = static_cast<int>(min<int64_t>(COLUMNS, n - j));
      const Lines left = CROSSWISE && !IN_REGISTERS<Format> ? a.from(0, i) : a.from(i), to = c.from(i, j);
      if (!EXACT || (rows == ROWS && columns == COLUMNS)) {
        Tile::multiply(rows, columns, depth, left, b.from(0, j), to, accumulate);
        continue;
      }
      alignas(64) float whole[ROWS * COLUMNS];
      Tile::multiply(rows, columns, depth, left, b.from(0, j), {whole, COLUMNS}, false);
      for (int64_t y = 0; y < rows; ++y)
        for (int64_t x = 0; x < columns; ++x) {
          float& element = to.data[y * c.stride + x];
          element = (accumulate ? element : 0) + whole[y * COLUMNS + x];
        }
    }
  }
}

}  // namespace llmx::LLMX_ISA_NAME
