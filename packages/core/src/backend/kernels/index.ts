import { crossEntropy } from './cross-entropy.ts';
import { elementwise } from './elementwise.ts';
import { embedding, embeddingGrad } from './embedding.ts';
import { norm, normGrad } from './norm.ts';
import { registerKernel, type TypedArrayBackend } from './storage.ts';
import { wasmLinear, wasmMatmul } from './wasm-matmul.ts';

const registered = new Set<TypedArrayBackend>();

/**
 * Registers llmx's TypeScript kernels for a backend whose tensors are typed arrays, once. They make one pass over memory
 * where the composites make many, and fill wasm's gaps (it has no unsortedSegmentSum; its gather is slow).
 */
export function registerTypedArrayKernels(backend: TypedArrayBackend): void {
  if (registered.has(backend)) return;
  registered.add(backend);
  registerKernel('LlmxElementwise', backend, elementwise);
  registerKernel('LlmxEmbedding', backend, embedding);
  registerKernel('LlmxEmbeddingGrad', backend, embeddingGrad);
  registerKernel('LlmxNorm', backend, norm);
  registerKernel('LlmxNormGrad', backend, normGrad);
  registerKernel('LlmxCrossEntropy', backend, crossEntropy);
  if (backend !== 'wasm') return;
  registerKernel('LlmxMatmul', backend, wasmMatmul);
  registerKernel('LlmxLinear', backend, wasmLinear);
}
