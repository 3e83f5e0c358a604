export { type ChosenBackend, chooseBackend, type ProbedBackend, probeBackends } from './choose.ts';
export { registerTypedArrayKernels } from './kernels/index.ts';
export { tfjsNodeBackend, tfjsNodeGpuBackend } from './tfjs-node-backends.ts';
export { cpuBackend, wasmBackend } from './typed-array-backends.ts';
