/**
 * Direct access to the memory of the two backends whose tensors are typed arrays: `cpu` and `wasm`. Kernels written in
 * TypeScript on top of it serve both.
 */
import { assert } from '../../errors/index.ts';
import { tf } from '../../tensor/index.ts';

/** Backends that the kernels of this folder run on. */
export type TypedArrayBackend = 'cpu' | 'wasm';

export type TensorInfo = tf.TensorInfo;
export type Values = Float32Array | Int32Array;

interface CpuBackend {
  readonly data: { get(dataId: object): { readonly values: Values } };
  makeTensorInfo(shape: number[], dtype: tf.DataType, values?: Values): TensorInfo;
}

interface WasmBackend {
  typedArrayFromHeap(info: TensorInfo): Values;
  makeOutput(shape: number[], dtype: tf.DataType): TensorInfo;
}

/** What a kernel needs of a backend. */
export interface Storage {
  /** A new tensor of unspecified content (cpu: zeros). */
  allocate(shape: readonly number[], dtype?: 'float32' | 'int32'): TensorInfo;
  /** The tensor's memory. On wasm a view dies when memory grows: allocate everything first, then look. */
  values(info: TensorInfo): Values;
}

const size = (shape: readonly number[]): number => shape.reduce((product, length) => product * length, 1);

const cpuStorage = (backend: CpuBackend): Storage => ({
  allocate(shape, dtype = 'float32') {
    const values = dtype === 'int32' ? new Int32Array(size(shape)) : new Float32Array(size(shape));
    return backend.makeTensorInfo([...shape], dtype, values);
  },
  values: (info) => backend.data.get(info.dataId).values,
});

const wasmStorage = (backend: WasmBackend): Storage => ({
  allocate: (shape, dtype = 'float32') => backend.makeOutput([...shape], dtype),
  values: (info) => backend.typedArrayFromHeap(info),
});

/** float32 memory of a tensor. */
export function floats(storage: Storage, info: TensorInfo | undefined): Float32Array {
  assert(info?.dtype === 'float32', 'A kernel got a tensor that is missing or not float32.');
  return storage.values(info) as Float32Array;
}

/** int32 memory of a tensor. */
export function integers(storage: Storage, info: TensorInfo | undefined): Int32Array {
  assert(info?.dtype === 'int32', 'A kernel got a tensor that is missing or not int32.');
  return storage.values(info) as Int32Array;
}

export type Kernel = (
  storage: Storage,
  inputs: Readonly<Record<string, TensorInfo>>,
  attributes: Readonly<Record<string, unknown>>,
) => TensorInfo[];

/** Registers a kernel for one of the backends. */
export function registerKernel(name: `Llmx${string}`, backendName: TypedArrayBackend, kernel: Kernel): void {
  tf.registerKernel({
    kernelName: name,
    backendName,
    kernelFunc({ inputs, attrs, backend }) {
      const storage =
        backendName === 'wasm'
          ? wasmStorage(backend as unknown as WasmBackend)
          : cpuStorage(backend as unknown as CpuBackend);
      return kernel(storage, inputs as unknown as Record<string, TensorInfo>, attrs ?? {});
    },
  });
}
