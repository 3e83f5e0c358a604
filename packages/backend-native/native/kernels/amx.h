/**
 * The instructions of AMX (Intel's manual, volume 2, "TDPBF16PS" and what it refers to), and nothing else: all use of tile
 * registers goes through here. There are eight, of 16 lines of 64 bytes once `amx_configure` has run in the thread; before that,
 * and after `amx_release`, no instruction may touch them.
 *
 * Written as assembly, with the memory that they read and write declared: g++ 12's own forms do not say what they do to it.
 *
 * With LLMX_AMX_MODEL 1 the same functions compute what the manual says in plain C++, for tests on machines without AMX; with 2 they
 * are a processor that does something else, which must be noticed.
 */
#pragma once

#include "llmx/kernel.h"

#if LLMX_ISA == LLMX_ISA_AMX

namespace llmx::LLMX_ISA_NAME {

/** Lines of a tile register, and 32-bit words of a line: a float, or two bfloat16. */
constexpr int TILE_LINES = 16, TILE_WORDS = 16;

/** The operand of LDTILECFG, 64 bytes. */
struct TileConfiguration {
  uint8_t palette;
  uint8_t start_row;
  uint8_t reserved[14];
  uint16_t line_bytes[16];
  uint8_t lines[16];
};
static_assert(sizeof(TileConfiguration) == 64);

#if defined(LLMX_AMX_MODEL)

/** A thread's tile registers. What the processor refuses (#UD, #GP) traps. */
struct TileModel {
  TileConfiguration configuration;
  uint32_t words[8][TILE_LINES][TILE_WORDS];

  void configure(const TileConfiguration& wanted) {
    bool valid = wanted.palette == 1;
    for (int i = 0; i < 14; ++i) valid = valid && wanted.reserved[i] == 0;
    for (int i = 0; i < 16; ++i) {
      const bool is_used = wanted.line_bytes[i] != 0;
      valid = valid && wanted.line_bytes[i] <= 64 && wanted.lines[i] <= 16 && is_used == (wanted.lines[i] != 0);
      valid = valid && (i < 8 || !is_used);
    }
    if (!valid) __builtin_trap();
    configuration = wanted;
    std::memset(words, 0, sizeof words);
  }
  int lines(int tile) const {
    if (configuration.palette == 0 || configuration.lines[tile] == 0) __builtin_trap();
    return configuration.lines[tile];
  }
  int line_bytes(int tile) const { return configuration.line_bytes[tile]; }
};
inline thread_local TileModel tile_model;

/** Subnormal numbers count as 0, in operands and results. */
inline float flushed(float x) { return std::fabs(x) < 0x1p-126f ? std::copysign(0.0f, x) : x; }

inline float bfloat16_of(uint32_t word, int half) {
  const uint32_t bits = half == 0 ? word << 16 : word & 0xffff0000u;
  float x;
  std::memcpy(&x, &bits, 4);
  return flushed(x);
}

inline void amx_configure(const TileConfiguration& configuration) { tile_model.configure(configuration); }

inline void amx_release() { tile_model.configuration.palette = 0; }

template <int TILE>
inline void amx_clear() {
  tile_model.lines(TILE);
  std::memset(tile_model.words[TILE], 0, sizeof tile_model.words[TILE]);
}

template <int TILE>
inline void amx_load(const float* from, int64_t stride) {
  const int lines = tile_model.lines(TILE);
  amx_clear<TILE>();
  for (int i = 0; i < lines; ++i)
    std::memcpy(tile_model.words[TILE][i], reinterpret_cast<const char*>(from) + i * stride,
                static_cast<size_t>(tile_model.line_bytes(TILE)));
}

template <int TILE>
inline void amx_store(float* to, int64_t stride) {
  for (int i = 0; i < tile_model.lines(TILE); ++i)
    std::memcpy(reinterpret_cast<char*>(to) + i * stride, tile_model.words[TILE][i],
                static_cast<size_t>(tile_model.line_bytes(TILE)));
}

/** The manual's loops: products of even positions and those of odd ones are summed apart, then with each other, then with SUMS. */
template <int SUMS, int A, int B>
inline void amx_multiply() {
  TileModel& model = tile_model;
  const int columns = model.line_bytes(SUMS) / 4, pairs = model.line_bytes(A) / 4;
  if (model.lines(A) != model.lines(SUMS) || model.line_bytes(B) != model.line_bytes(SUMS) || model.lines(B) != pairs)
    __builtin_trap();
  float factors[2][TILE_LINES][TILE_WORDS];
  for (int half = 0; half < 2; ++half)
    for (int p = 0; p < pairs; ++p)
      for (int j = 0; j < columns; ++j) factors[half][p][j] = bfloat16_of(model.words[B][p][j], half);
  for (int i = 0; i < model.lines(SUMS); ++i) {
    float sums[2][TILE_WORDS] = {};
    for (int half = 0; half < (LLMX_AMX_MODEL == 2 ? 1 : 2); ++half)
      for (int p = 0; p < pairs; ++p) {
        const float factor = bfloat16_of(model.words[A][i][p], half);
        for (int j = 0; j < columns; ++j) sums[half][j] = flushed(std::fma(factor, factors[half][p][j], sums[half][j]));
      }
    for (int j = 0; j < columns; ++j) {
      float sum;
      std::memcpy(&sum, &model.words[SUMS][i][j], 4);
      sum = flushed(flushed(sum) + flushed(sums[0][j] + sums[1][j]));
      std::memcpy(&model.words[SUMS][i][j], &sum, 4);
    }
  }
}

#else

/** Gives the thread its tile registers, of these shapes and filled with zeros. */
LLMX_INLINE void amx_configure(const TileConfiguration& configuration) {
  asm volatile("ldtilecfg %0" : : "m"(configuration) : "memory");
}

/** Gives them up: from here on a switch of threads saves nothing of them. */
LLMX_INLINE void amx_release() { asm volatile("tilerelease" : : : "memory"); }

template <int TILE>
LLMX_INLINE void amx_clear() {
  asm volatile("tilezero %%tmm%c0" : : "i"(TILE));
}

/** Lines that are `stride` bytes apart. */
template <int TILE>
LLMX_INLINE void amx_load(const float* from, int64_t stride) {
  asm volatile("tileloadd (%0,%1,1), %%tmm%c2" : : "r"(from), "r"(stride), "i"(TILE) : "memory");
}

template <int TILE>
LLMX_INLINE void amx_store(float* to, int64_t stride) {
  asm volatile("tilestored %%tmm%c2, (%0,%1,1)" : : "r"(to), "r"(stride), "i"(TILE) : "memory");
}

/** SUMS [i][j] += the sum over p of the products of the pairs A [i][p] and B [p][j]. Subnormal numbers count as 0. */
template <int SUMS, int A, int B>
LLMX_INLINE void amx_multiply() {
  asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(SUMS), "i"(A), "i"(B));
}

#endif

}  // namespace llmx::LLMX_ISA_NAME

#endif
