/** What the gates need beyond llmx/vector_math.h. */
#pragma once

#include "llmx/vector_math.h"

namespace llmx::LLMX_ISA_NAME::xlstm {

#if LLMX_ISA == LLMX_ISA_REFERENCE

inline double log_sigmoid(double x) { return x < 0 ? x - std::log1p(std::exp(x)) : -std::log1p(std::exp(-x)); }
inline double sigmoid(double x) { return std::exp(log_sigmoid(x)); }

#else

LLMX_INLINE vec larger(vec a, vec b) { return select(a < b, b, a); }
LLMX_INLINE vec vlog_sigmoid(vec x) { return -vsoftplus(-x); }

#endif

}  // namespace llmx::LLMX_ISA_NAME::xlstm
