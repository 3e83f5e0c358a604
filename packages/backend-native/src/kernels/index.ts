import type { NativeKernel } from '../engine.ts';

/** Every kernel that this package brings, by its TensorFlow.js name. */
export const KERNELS: Readonly<Record<string, NativeKernel>> = {};
