// The engine: threads, scratch memory, errors, and finding kernels by name for the machine's instruction set. Everything
// that TypeScript calls stands at the end.
#include <atomic>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <thread>
#include <tuple>
#include <vector>

#include "llmx/kernel.h"

#if defined(__x86_64__) || defined(_M_X64)
#include <immintrin.h>
#if defined(__linux__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif
#endif

extern "C" const llmx_entry* llmx_library_attach(const llmx_host* host);

namespace {

constexpr int MAX_THREADS = 256;
constexpr int SLOTS = 16;

// ---- Errors

std::mutex failure_mutex;
char failure[512];
std::atomic<bool> has_failed{false};

int32_t report(const char* format, ...) {
  const std::lock_guard<std::mutex> guard(failure_mutex);
  if (has_failed.exchange(true)) return 1;
  va_list values;
  va_start(values, format);
  std::vsnprintf(failure, sizeof failure, format, values);
  va_end(values);
  return 1;
}

// ---- Scratch memory

/** Memory that grows to the largest request and stays. */
struct Scratch {
  void* data = nullptr;
  int64_t capacity = 0;
};
Scratch scratch_slots[MAX_THREADS + 1][SLOTS];
std::atomic<int64_t> scratch_total{0};

void* scratch_memory(int32_t worker, int32_t slot, int64_t bytes) {
  Scratch& memory = scratch_slots[worker + 1][slot];
  if (bytes < 64) bytes = 64;
  if (bytes <= memory.capacity) return memory.data;
  std::free(memory.data);
  scratch_total -= memory.capacity;
  // A quarter more than asked for, so that growing sizes do not allocate each time; whole pages.
  memory.capacity = llmx::portable::round_up(bytes + bytes / 4, 4096);
  memory.data = std::aligned_alloc(64, static_cast<size_t>(memory.capacity));
  if (memory.data == nullptr) {
    memory.capacity = 0;
    report("out of memory: %lld bytes of working memory were asked for", static_cast<long long>(bytes));
    return nullptr;
  }
  scratch_total += memory.capacity;
  return memory.data;
}

// ---- Threads

inline void pause() {
#if defined(__x86_64__) || defined(_M_X64)
  _mm_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

/**
 * Threads that wait for work, first spinning, since the next kernel usually follows within microseconds, then asleep.
 * They live as long as the process: nothing joins them. A job is over when its tasks are done, whether or not every thread
 * has looked at it: on a crowded machine nobody waits for a thread that is not running.
 */
class Pool {
 public:
  void run(int64_t count, void (*task)(void*, int64_t, int32_t), void* context) {
    if (threads_ == 1 || count < 2 || count > UINT32_MAX) {
      for (int64_t index = 0; index < count; ++index) task(context, index, 0);
      return;
    }
    const uint32_t round = round_.load(std::memory_order_relaxed) + 1;
    Job& job = jobs_[round % 2];
    job.task = task;
    job.context = context;
    job.count = static_cast<uint32_t>(count);
    job.threads = threads_;
    job.done.store(0, std::memory_order_relaxed);
    ticket_.store(static_cast<uint64_t>(round) << 32, std::memory_order_release);
    round_.store(round, std::memory_order_release);
    round_.notify_all();
    work(round, 0);
    for (int spins = 0; job.done.load(std::memory_order_acquire) != job.count; ++spins)
      if (spins < 10000) pause();
      else std::this_thread::yield();
  }

  /** Sets the number of threads that take tasks; gives the number that could be had. */
  int32_t resize(int32_t threads) {
    while (spawned_ < threads - 1 && spawn(spawned_ + 1)) ++spawned_;
    return threads_ = threads < spawned_ + 1 ? threads : spawned_ + 1;
  }

 private:
  struct Job {
    void (*task)(void*, int64_t, int32_t) = nullptr;
    void* context = nullptr;
    uint32_t count = 0;
    int32_t threads = 1;
    alignas(64) std::atomic<uint32_t> done{0};
  };

  bool spawn(int32_t worker) {
    try {
      std::thread([this, worker, seen = round_.load()] { loop(worker, seen); }).detach();
      return true;
    } catch (...) {
      return false;  // The system has no more threads for us.
    }
  }

  /**
   * Takes tasks of a round until there are none. A ticket names the round and the next task: taking one succeeds only while
   * the round is on, and then its job is what was read, since a job is written again two rounds later at the earliest.
   */
  void work(uint32_t round, int32_t worker) {
    Job& job = jobs_[round % 2];
    uint64_t ticket = ticket_.load(std::memory_order_acquire);
    for (;;) {
      const auto [task, context, count, threads] = std::tuple(job.task, job.context, job.count, job.threads);
      const uint32_t index = static_cast<uint32_t>(ticket);
      if (ticket >> 32 != round || index >= count || worker >= threads) return;
      if (!ticket_.compare_exchange_weak(ticket, ticket + 1, std::memory_order_acq_rel, std::memory_order_acquire)) continue;
      task(context, index, worker);
      job.done.fetch_add(1, std::memory_order_release);
      ticket = ticket_.load(std::memory_order_acquire);
    }
  }

  [[noreturn]] void loop(int32_t worker, uint32_t seen) {
    for (;;) {
      // About 50 microseconds: longer than the gap between two kernels of a step, shorter than a scheduler's slice.
      for (int spins = 0; spins < 2000 && round_.load(std::memory_order_acquire) == seen; ++spins) pause();
      round_.wait(seen, std::memory_order_acquire);
      seen = round_.load(std::memory_order_acquire);
      work(seen, worker);
    }
  }

  int32_t threads_ = 1;
  int32_t spawned_ = 0;
  Job jobs_[2];
  // Each on a cache line of its own: they are written by different threads all the time.
  alignas(64) std::atomic<uint32_t> round_{0};
  alignas(64) std::atomic<uint64_t> ticket_{0};
};

Pool& pool() {
  static Pool* const instance = new Pool;  // Never destroyed: its threads may still look at it while the process ends.
  return *instance;
}

void run_tasks(int64_t count, void (*task)(void*, int64_t, int32_t), void* context) { pool().run(count, task, context); }

// ---- Kernels

llmx_host host = {LLMX_KERNEL_ABI, 1, run_tasks, scratch_memory, report};

std::vector<const llmx_entry*>& libraries() {
  static std::vector<const llmx_entry*> lists;
  return lists;
}

/** Why tile registers that the processor has are not used, as a clause; else null. */
const char* amx_refusal = nullptr;

/**
 * Whether tile registers can be used: by the processor, by an operating system that saves them, and by its leave, which Linux
 * wants to be asked for. Leave once given holds for all threads of the process, earlier ones too; it is refused where a thread
 * has a signal stack too small for the registers.
 */
bool has_amx() {
#if defined(__x86_64__) && defined(__linux__)
  constexpr uint32_t OSXSAVE = 1u << 27, AMX_BF16 = 1u << 22, AMX_TILE = 1u << 24, TILE_STATE = 3u << 17;
  constexpr int REQUEST_PERMISSION = 0x1023, TILE_DATA = 18;
  uint32_t a, b, c, d;
  if (!__get_cpuid(1, &a, &b, &c, &d) || (c & OSXSAVE) == 0) return false;
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || (d & AMX_BF16) == 0 || (d & AMX_TILE) == 0) return false;
  uint32_t enabled, upper;
  asm("xgetbv" : "=a"(enabled), "=d"(upper) : "c"(0));
  if ((enabled & TILE_STATE) != TILE_STATE) amx_refusal = "the operating system does not save tile registers";
  else if (syscall(SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA) != 0) amx_refusal = "the operating system refused tile registers";
  return amx_refusal == nullptr;
#else
  return false;
#endif
}

/** The best level of this machine. */
int32_t machine_level() {
#if (defined(__x86_64__) || defined(_M_X64)) && defined(__GNUC__)
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
                      __builtin_cpu_supports("avx512vl");
  if (avx512 && __builtin_cpu_supports("avx512bf16")) return has_amx() ? LLMX_ISA_AMX : LLMX_ISA_AVX512_BF16;
  return avx512 ? LLMX_ISA_AVX512 : avx2 ? LLMX_ISA_AVX2 : LLMX_ISA_PORTABLE;
#else
  return LLMX_ISA_PORTABLE;
#endif
}

/** Whether this machine runs code of that level. */
bool runs(int32_t level) {
  static const int32_t best = machine_level();
#if defined(LLMX_AMX_MODEL)
  if (level == LLMX_ISA_AMX) return true;  // compiled for this very machine
#endif
  return level <= best;
}

/** The best level that this machine runs and that the compiler of the engine knew. */
int32_t best_instruction_set() {
  int32_t best = LLMX_ISA_REFERENCE;
  for (const llmx_entry* list : libraries())
    for (const llmx_entry* entry = list; entry != nullptr; entry = entry->next)
      if (entry->isa > best && runs(entry->isa)) best = entry->isa;
  return best;
}

std::vector<llmx_function>& functions() {
  static std::vector<llmx_function> found;
  return found;
}

}  // namespace

// ---- Called from TypeScript

LLMX_EXPORT uint32_t llmx_abi() { return LLMX_KERNEL_ABI; }

/** The best level of instruction sets that this machine has, among those of the libraries added so far. */
LLMX_EXPORT int32_t llmx_best_instruction_set() { return best_instruction_set(); }

/** Why the processor's tile registers are not used, as a clause, once the level is known; null if they are, or it has none. */
LLMX_EXPORT const char* llmx_amx_refusal() { return amx_refusal; }

/** Sets the number of threads; gives the number in use. */
LLMX_EXPORT int32_t llmx_set_threads(int32_t threads) {
  const int32_t wanted = threads < 1 ? 1 : threads > MAX_THREADS ? MAX_THREADS : threads;
  return host.threads = pool().resize(wanted);
}

/** Where memory lies, to be written into arguments. */
LLMX_EXPORT uint64_t llmx_address(const void* memory) { return reinterpret_cast<uint64_t>(memory); }

/** The engine's services, for llmx_library_attach of another library. */
LLMX_EXPORT const void* llmx_services() { return &host; }

/** Adds a library's kernels, given what its llmx_library_attach returned; null: the engine's own. */
LLMX_EXPORT void llmx_add_library(const void* entries) {
  libraries().push_back(entries == nullptr ? llmx_library_attach(&host) : static_cast<const llmx_entry*>(entries));
}

/** A handle of the kernel's form for the highest level up to `instruction_set` that the machine runs; -1 if there is none. */
LLMX_EXPORT int32_t llmx_find(const char* name, int32_t instruction_set) {
  const llmx_entry* best = nullptr;
  for (const llmx_entry* list : libraries())
    for (const llmx_entry* entry = list; entry != nullptr; entry = entry->next)
      if (std::strcmp(entry->name, name) == 0 && entry->isa <= instruction_set && runs(entry->isa) &&
          (best == nullptr || entry->isa > best->isa))
        best = entry;
  if (best == nullptr) return -1;
  functions().push_back(best->function);
  return static_cast<int32_t>(functions().size()) - 1;
}

/** Runs the kernel on an llmx_arguments, given by its address; not 0 if it failed, and then llmx_failure says why. */
LLMX_EXPORT int32_t llmx_run(int32_t kernel, uint64_t address) {
  const auto* arguments = reinterpret_cast<const llmx_arguments*>(address);
  has_failed.store(false, std::memory_order_relaxed);
  const int32_t status = functions()[static_cast<size_t>(kernel)](arguments);
  return status != 0 || has_failed.load(std::memory_order_relaxed) ? 1 : 0;
}

LLMX_EXPORT const char* llmx_failure() { return failure; }

/** Bytes of scratch memory held. */
LLMX_EXPORT int64_t llmx_scratch_bytes() { return scratch_total.load(); }
