// Part of every library of kernels: where the engine attaches, and the list of kernels it finds.
#include "llmx/kernel.h"

const llmx_host* llmx_engine = nullptr;
llmx_entry* llmx_entries = nullptr;

/** The version of the contract that this library was built against. */
LLMX_EXPORT uint32_t llmx_library_abi() { return LLMX_KERNEL_ABI; }

/** Hands the engine's services to the library, and its kernels to the engine. */
LLMX_EXPORT const llmx_entry* llmx_library_attach(const llmx_host* host) {
  llmx_engine = host;
  return llmx_entries;
}
