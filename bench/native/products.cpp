// What products of matrices are held against: multiply-adds in registers, and tiles whose operands the caches hold.
#include "../../packages/backend-native/native/kernels/blur.h"
#include "../../packages/backend-native/native/kernels/tile.h"

namespace llmx::LLMX_ISA_NAME {

namespace {

#if LLMX_ISA == LLMX_ISA_REFERENCE
using Format = Float32;
#else
using Format = Bfloat16;
#endif

// As in limits.cpp: enough sums to hide the latency, with registers left.
constexpr int CHAINS = 24;

#if LLMX_ISA == LLMX_ISA_AMX

/** Multiply-adds of a round, each of a word of bfloat16. */
constexpr int64_t ADDS = 4 * TILE_LINES * TILE_WORDS * TILE_WORDS;

/** Products of tile registers alone. */
void multiply_registers(int64_t iterations) {
  const Format::Registers registers{};
  amx_clear<0>(), amx_clear<1>(), amx_clear<2>(), amx_clear<3>();
  amx_clear<4>(), amx_clear<5>(), amx_clear<6>(), amx_clear<7>();
  for (int64_t i = 0; i < iterations; ++i) {
    amx_multiply<0, 4, 6>();
    amx_multiply<1, 4, 7>();
    amx_multiply<2, 5, 6>();
    amx_multiply<3, 5, 7>();
  }
}

#else

constexpr int64_t ADDS = CHAINS * LANES;

/** Multiply-adds of registers alone, of pairs of bfloat16 where the machine has them. */
void multiply_registers(int64_t iterations) {
  vec sums[CHAINS], factor = broadcast(1e-3f), column = broadcast(1e-3f);
#pragma GCC unroll 24
  for (int j = 0; j < CHAINS; ++j) blur(sums[j] = broadcast(static_cast<float>(j)));
  for (int64_t i = 0; i < iterations; ++i) {
    blur(factor);
#pragma GCC unroll 24
    for (int j = 0; j < CHAINS; ++j) sums[j] = Format::add(sums[j], factor, column);
  }
#pragma GCC unroll 24
  for (int j = 0; j < CHAINS; ++j) blur(sums[j]);
}

#endif

constexpr int64_t DEPTH = 384;

/** A panel of a, one of b and a tile of sums, again and again. */
void multiply_tiles(int64_t iterations, int32_t worker) {
  float* a = scratch<float>(worker, 0, Format::MR * DEPTH);
  float* b = scratch<float>(worker, 1, Format::NR * DEPTH);
  float* c = scratch<float>(worker, 2, Format::MR * Format::NR);
  if (a == nullptr || b == nullptr || c == nullptr) return;
  std::memset(a, 0, Format::MR * DEPTH * sizeof(float));
  std::memset(b, 0, Format::NR * DEPTH * sizeof(float));
  [[maybe_unused]] const Format::Registers registers{};
  Ahead nothing;
  for (int64_t i = 0; i < iterations; ++i) tile<Format>(DEPTH, Panels<Format>{a}, b, Sums{c, Format::NR, false}, nothing);
}

}  // namespace

/** Tensor: floating-point operations done (output, 1 float), equal on every thread. Numbers: whether in tiles; iterations of each. */
LLMX_KERNEL(BenchProducts) {
  const bool tiled = call.flag(0);
  const int64_t iterations = call.integer(1);
  const int32_t threads = llmx_engine->threads;
  parallel(threads, [&](int64_t, int32_t worker) { tiled ? multiply_tiles(iterations, worker) : multiply_registers(iterations); });
  const int64_t each = tiled ? Format::MR * Format::NR * DEPTH : ADDS;
  call.floats(0)[0] = static_cast<float>(iterations * threads * each * 2 * Format::PER_WORD);
  return 0;
}

}  // namespace llmx::LLMX_ISA_NAME
