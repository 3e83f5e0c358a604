/**
 * The contract between llmx's CPU engine and kernels in C++: its own, and those that plugins bring.
 *
 * A kernel is a function over tensors in memory, run by name. Sources include this header, where they need them vector_math.h
 * and blocks.h beside it, and nothing of the C++ standard library but <cmath>, <cstdint> and <cstring>: each source is compiled once per instruction set, and templates shared
 * between those compilations (std::min, std::vector) would be merged by the linker into one copy, perhaps with
 * instructions that the machine lacks. For the same reason everything stands in `namespace llmx::LLMX_ISA_NAME`.
 *
 *     #include "llmx/kernel.h"
 *     namespace llmx::LLMX_ISA_NAME {
 *     // MyPluginScale: x (input), y (output) of equal size; number 0: the factor.
 *     LLMX_KERNEL(MyPluginScale) {
 *       const float* x = call.floats(0);
 *       float* y = call.floats(1);
 *       const float factor = static_cast<float>(call.number(0));
 *       parallel_chunks(call.size(0), 16384, [&](int64_t begin, int64_t end) {
 *         for (int64_t i = begin; i < end; ++i) y[i] = factor * x[i];
 *       });
 *       return 0;
 *     }
 *     }
 *
 * Layout: tensors are dense, row-major (last axis contiguous), float32 or int32. Inputs come first, then outputs, in the
 * order that the kernel documents; one that was left out has no data and size 0.
 * Alignment: data is aligned to 4 bytes; memory of the engine's pool is aligned to 64. Vector loads must be unaligned ones.
 * Aliasing: an output overlaps an input only if the kernel documents that it may be given in place.
 * Threads: a kernel is called on the main thread, one at a time, and spreads work with `parallel`. Tasks are fixed by the
 * shapes alone, never by the number of threads, and each sum is formed in an order fixed by the shapes: the same bits for
 * every number of threads.
 * Errors: return `fail("...")`; nothing throws. Compiled with -fno-exceptions -fno-rtti.
 */
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

/** Version of this contract; a library built against another one is refused. */
#define LLMX_KERNEL_ABI 1

// Levels of instruction sets, better ones higher. REFERENCE is the plain scalar form that the others are tested against.
#define LLMX_ISA_REFERENCE 0
#define LLMX_ISA_PORTABLE 1
#define LLMX_ISA_AVX2 2
#define LLMX_ISA_AVX512 3
/** AVX-512 with products of bfloat16 pairs; only sources that make use of these are compiled for it. */
#define LLMX_ISA_AVX512_BF16 4
/** The above with products of tiles of bfloat16 (AMX-TILE and AMX-BF16); likewise. */
#define LLMX_ISA_AMX 5

#ifndef LLMX_ISA
#define LLMX_ISA LLMX_ISA_PORTABLE
#endif
#if LLMX_ISA == LLMX_ISA_REFERENCE
#define LLMX_ISA_NAME reference
#elif LLMX_ISA == LLMX_ISA_AVX2
#define LLMX_ISA_NAME avx2
#elif LLMX_ISA == LLMX_ISA_AVX512
#define LLMX_ISA_NAME avx512
#elif LLMX_ISA == LLMX_ISA_AVX512_BF16
#define LLMX_ISA_NAME avx512_bf16
#elif LLMX_ISA == LLMX_ISA_AMX
#define LLMX_ISA_NAME amx
#else
#define LLMX_ISA_NAME portable
#endif

#define LLMX_EXPORT extern "C" __attribute__((visibility("default")))
#define LLMX_INLINE inline __attribute__((always_inline))

extern "C" {

/** Bfloat16 is given only where the kernel's caller says that it takes it; see numbers.h. */
enum { LLMX_FLOAT32 = 0, LLMX_INT32 = 1, LLMX_BFLOAT16 = 2 };
enum { LLMX_MAX_RANK = 8, LLMX_MAX_TENSORS = 48, LLMX_MAX_NUMBERS = 256 };

/** 64 bytes. */
typedef struct llmx_tensor {
  void* data;
  int64_t size; /* elements */
  int32_t dtype;
  int32_t rank;
  int32_t shape[LLMX_MAX_RANK];
  int64_t reserved;
} llmx_tensor;

/** What a kernel is called with. */
typedef struct llmx_arguments {
  int32_t tensor_count;
  int32_t number_count;
  int64_t reserved[7];
  llmx_tensor tensors[LLMX_MAX_TENSORS];
  double numbers[LLMX_MAX_NUMBERS];
} llmx_arguments;

/** Services of the engine. */
typedef struct llmx_host {
  uint32_t abi;
  /** Threads that take tasks, the calling one included; worker indices are below it. */
  int32_t threads;
  /** Runs task(context, index, worker) for each index in [0, count), in any order, on all threads; returns when all ran. */
  void (*parallel)(int64_t count, void (*task)(void* context, int64_t index, int32_t worker), void* context);
  /**
   * Memory that stays until the next use of the same slot, aligned to 64 bytes, its content unspecified. Slots 0 to 15 of
   * each worker are private to it; worker -1 names slots shared by all, to be taken before `parallel`. Slots 12 to 15 of
   * either belong to helpers of the engine's matrix products. Null where memory is short: the call then fails.
   */
  void* (*scratch)(int32_t worker, int32_t slot, int64_t bytes);
  /** Keeps the text (printf style) of the first failure of the call; returns 1. */
  int32_t (*fail)(const char* format, ...) __attribute__((format(printf, 1, 2)));
} llmx_host;

typedef int32_t (*llmx_function)(const llmx_arguments* arguments);

/** One kernel for one instruction set. */
typedef struct llmx_entry {
  const char* name;
  int32_t isa;
  llmx_function function;
  struct llmx_entry* next;
} llmx_entry;

/** This library's services and kernels; defined in library.cpp, which is part of every library. */
extern const llmx_host* llmx_engine;
extern llmx_entry* llmx_entries;
}

namespace llmx::LLMX_ISA_NAME {

/** Reports the failure of a call; printf style. */
template <class... Values>
int32_t fail(const char* format, Values... values) {
  return llmx_engine->fail(format, values...);
}

/** The arguments, read. */
struct Call {
  const llmx_arguments& arguments;

  const llmx_tensor& tensor(int index) const { return arguments.tensors[index]; }
  bool has(int index) const { return index < arguments.tensor_count && tensor(index).data != nullptr; }
  int64_t size(int index) const { return tensor(index).size; }
  int64_t dim(int index, int axis) const { return tensor(index).shape[axis]; }
  /** Null where the tensor was left out. */
  float* floats(int index) const { return has(index) ? static_cast<float*>(tensor(index).data) : nullptr; }
  int32_t* integers(int index) const { return has(index) ? static_cast<int32_t*>(tensor(index).data) : nullptr; }
  double number(int index) const { return arguments.numbers[index]; }
  int64_t integer(int index) const { return static_cast<int64_t>(arguments.numbers[index]); }
  bool flag(int index) const { return arguments.numbers[index] != 0; }
};

/** Adds a kernel to the library's list when the library is loaded. */
struct Registration {
  llmx_entry entry;
  Registration(const char* name, llmx_function function) : entry{name, LLMX_ISA, function, llmx_entries} {
    llmx_entries = &entry;
  }
};

/** Defines the kernel NAME for the instruction set being compiled; its body has `const Call& call` and returns 0 or `fail(...)`. */
#define LLMX_KERNEL(NAME)                                                                   \
  static int32_t NAME##_body(const Call& call);                                             \
  static int32_t NAME##_entry(const llmx_arguments* arguments) { return NAME##_body(Call{*arguments}); } \
  static Registration NAME##_registration(#NAME, NAME##_entry);                             \
  static int32_t NAME##_body([[maybe_unused]] const Call& call)

template <class T>
LLMX_INLINE T min(T a, T b) {
  return b < a ? b : a;
}
template <class T>
LLMX_INLINE T max(T a, T b) {
  return a < b ? b : a;
}
LLMX_INLINE int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }
LLMX_INLINE int64_t round_up(int64_t a, int64_t b) { return divide_up(a, b) * b; }

/** f(index, worker) for each index in [0, count). */
template <class F>
LLMX_INLINE void parallel(int64_t count, const F& f) {
  if (count == 1) return f(int64_t{0}, int32_t{0});
  if (count < 1) return;
  const auto task = [](void* context, int64_t index, int32_t worker) { (*static_cast<const F*>(context))(index, worker); };
  llmx_engine->parallel(count, task, const_cast<F*>(&f));
}

/** f(begin, end) for chunks of [0, size) of a fixed length: the chunks do not depend on the number of threads. */
template <class F>
LLMX_INLINE void parallel_chunks(int64_t size, int64_t chunk, const F& f) {
  parallel(divide_up(size, chunk), [&](int64_t index, int32_t) {
    const int64_t begin = index * chunk;
    f(begin, min(size, begin + chunk));
  });
}

/** See llmx_host::scratch; null where memory is short, and then the failure is already reported. */
template <class T>
LLMX_INLINE T* scratch(int32_t worker, int32_t slot, int64_t count) {
  return static_cast<T*>(llmx_engine->scratch(worker, slot, count * static_cast<int64_t>(sizeof(T))));
}

// ---- Vectors of the widest float32 register; arithmetic and comparisons are the compiler's own operators.

#if LLMX_ISA >= LLMX_ISA_AVX512
constexpr int LANES = 16;
#elif LLMX_ISA == LLMX_ISA_AVX2
constexpr int LANES = 8;
#else
constexpr int LANES = 4;
#endif
typedef float vec __attribute__((vector_size(LANES * 4)));
typedef int32_t ivec __attribute__((vector_size(LANES * 4)));
typedef float unaligned_vec __attribute__((vector_size(LANES * 4), aligned(4), may_alias));

LLMX_INLINE vec load(const float* p) { return *reinterpret_cast<const unaligned_vec*>(p); }
LLMX_INLINE void store(float* p, vec v) { *reinterpret_cast<unaligned_vec*>(p) = v; }
LLMX_INLINE vec broadcast(float x) { return x - vec{}; }
LLMX_INLINE vec select(ivec condition, vec a, vec b) {
  return reinterpret_cast<vec>((condition & reinterpret_cast<ivec>(a)) | (~condition & reinterpret_cast<ivec>(b)));
}
/** The first `count` (0 to LANES) elements; the others are `fill`. */
LLMX_INLINE vec load_first(const float* p, int count, float fill = 0) {
  vec v = broadcast(fill);
  std::memcpy(&v, p, static_cast<size_t>(count) * 4);
  return v;
}
LLMX_INLINE void store_first(float* p, vec v, int count) { std::memcpy(p, &v, static_cast<size_t>(count) * 4); }
template <int COUNT>
struct Lanes {
  typedef float type __attribute__((vector_size(COUNT * 4)));
};
/** Combines halves until one element is left, all in registers: g++ 12 keeps a loop over the elements in memory. */
template <int COUNT, class F>
LLMX_INLINE float combine(typename Lanes<COUNT>::type v, const F& f) {
  if constexpr (COUNT == 2) {
    return f(v[0], v[1]);
  } else {
    typename Lanes<COUNT / 2>::type halves[2];
    std::memcpy(halves, &v, sizeof v);
    return combine<COUNT / 2>(f(halves[0], halves[1]), f);
  }
}
/** Sum of the elements, in pairs, halves first. */
LLMX_INLINE float sum(vec v) {
  return combine<LANES>(v, [](auto a, auto b) { return a + b; });
}
/** The largest element; which one of a NaN and another counts is not defined. */
LLMX_INLINE float largest(vec v) {
  return combine<LANES>(v, [](auto a, auto b) { return a < b ? b : a; });
}

}  // namespace llmx::LLMX_ISA_NAME
