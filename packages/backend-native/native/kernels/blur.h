/** Keeping the compiler from knowing a value, where what is timed would otherwise be computed beforehand or once. */
#pragma once

#include "llmx/kernel.h"

namespace llmx::LLMX_ISA_NAME {

LLMX_INLINE void blur(vec& v) {
#if defined(__x86_64__)
  asm volatile("" : "+x"(v));
#elif defined(__aarch64__)
  asm volatile("" : "+w"(v));
#else
  volatile float first = v[0];
  v[0] = first;
#endif
}

}  // namespace llmx::LLMX_ISA_NAME
