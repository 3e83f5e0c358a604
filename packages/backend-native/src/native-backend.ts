import { LlmxError, type tf } from '@llmx/core';
import { MathBackendCPU } from '@tensorflow/tfjs-backend-cpu';

import type { Engine, TensorInfo } from './engine.ts';
import type { Library, NativeTensor } from './library.ts';
import { type Block, Memory } from './memory.ts';

type Values = Parameters<MathBackendCPU['write']>[0];
type DataId = TensorInfo['dataId'];
type Plain = Float32Array | Int32Array;

const sizeOf = (shape: readonly number[]): number => shape.reduce((product, size) => product * size, 1);

/** What the data of a float32 or int32 tensor of this backend carries besides its values. */
interface Place {
  readonly block: Block;
  readonly length: number;
  /** Whether the block holds bfloat16. */
  readonly isNarrow: boolean;
}

/** A tensor that lies in memory as bfloat16: whatever reads the values, a kernel of tfjs-backend-cpu or the user, sees float32. */
class NarrowData {
  readonly dtype = 'float32';
  refCount = 1;
  place: Place;
  readonly #widened: (data: NarrowData) => Float32Array;
  #values: Float32Array | undefined;

  /** @param widened moves it to float32 for good and gives its values */
  constructor(place: Place, widened: (data: NarrowData) => Float32Array) {
    this.place = place;
    this.#widened = widened;
  }

  get values(): Float32Array {
    return (this.#values ??= this.#widened(this));
  }
}

/**
 * The tensors of `native`: typed arrays, so that the kernels of tfjs-backend-cpu work on them too, but in memory that is
 * used again at once when a tensor is disposed. So values are copied in, and copied out when they are read.
 */
export class NativeBackend extends MathBackendCPU implements Engine {
  readonly library: Library;
  readonly memoryPool: Memory;
  roundsProducts = false;
  /** Tensors that lie in memory as bfloat16. */
  #narrowTensors = 0;
  /** Blocks released by kernels of tfjs-backend-cpu that are still running; see `borrowed`. */
  #heldBack: Block[] | undefined;

  /** @param overwritesReleased whether memory is filled with NaN when it is released, to find whoever still reads it */
  constructor(library: Library, { overwritesReleased = false }: { overwritesReleased?: boolean } = {}) {
    super();
    // The parent greets Node users with an advertisement on its first tensor.
    Object.assign(this, { firstUse: false });
    this.library = library;
    this.memoryPool = new Memory((buffer) => library.addressOf(buffer), overwritesReleased);
  }

  override write(values: Values, shape: number[], dtype: tf.DataType): DataId {
    if ((dtype !== 'float32' && dtype !== 'int32') || values === undefined || values === null)
      return super.write(values, shape, dtype);
    const { dataId } = this.allocate([values.length], dtype);
    (this.data.get(dataId).values as Plain).set(values as Plain);
    return dataId;
  }

  override move(dataId: DataId, values: Values, shape: number[], dtype: tf.DataType, refCount: number): void {
    if (dtype !== 'float32' && dtype !== 'int32') return super.move(dataId, values, shape, dtype, refCount);
    const { block, view } = this.#reserve(values.length, dtype);
    view.set(values as Plain);
    super.move(dataId, view, shape, dtype, refCount);
    Object.assign(this.data.get(dataId), { place: { block, length: values.length, isNarrow: false } satisfies Place });
  }

  override readSync(dataId: DataId): ReturnType<MathBackendCPU['readSync']> {
    const values = super.readSync(dataId);
    return this.#place(dataId) === undefined ? values : (values as Plain).slice();
  }

  override disposeData(dataId: DataId, force = false): boolean {
    const place = this.#place(dataId);
    const isGone = super.disposeData(dataId, force);
    if (!isGone || place === undefined) return isGone;
    if (place.isNarrow) this.#narrowTensors--;
    this.#release(place.block);
    return isGone;
  }

  allocate(shape: readonly number[], dtype: 'float32' | 'int32' = 'float32'): TensorInfo {
    const length = sizeOf(shape);
    const { block, view } = this.#reserve(length, dtype);
    const dataId = super.write(view, [...shape], dtype);
    Object.assign(this.data.get(dataId), { place: { block, length, isNarrow: false } satisfies Place });
    return { dataId, shape: [...shape], dtype };
  }

  allocateRounded(shape: readonly number[]): TensorInfo {
    if (!this.roundsProducts) return this.allocate(shape);
    const length = sizeOf(shape);
    const block = this.memoryPool.allocate(length * 2);
    const dataId = {};
    const place: Place = { block, length, isNarrow: true };
    this.data.set(dataId, new NarrowData(place, this.#widened));
    this.#narrowTensors++;
    return { dataId, shape: [...shape], dtype: 'float32' };
  }

  /** Moves a tensor from bfloat16 to float32; gives its values. */
  readonly #widened = (data: NarrowData): Float32Array => {
    const { block: narrow, length } = data.place;
    const { block, view } = this.#reserve(length, 'float32');
    const shape = [length];
    this.library.run(
      'LlmxCast',
      [
        { address: narrow.address, size: length, dtype: 'bfloat16', shape },
        { address: block.address, size: length, dtype: 'float32', shape },
      ],
      [],
    );
    data.place = { block, length, isNarrow: false };
    this.#narrowTensors--;
    this.#release(narrow);
    return view as Float32Array;
  };

  run(
    name: string,
    tensors: readonly (TensorInfo | undefined)[],
    numbers: readonly number[] = [],
    bfloat16: readonly number[] = [],
  ): void {
    // All of them before any address is taken: one memory may be given twice.
    if (this.#narrowTensors > 0)
      tensors.forEach((info, index) => {
        if (info !== undefined && !bfloat16.includes(index) && this.#place(info.dataId)?.isNarrow === true)
          void this.data.get(info.dataId).values;
      });
    this.library.run(
      name,
      tensors.map((info) => info && this.#native(info, name)),
      numbers,
    );
  }

  isSoleOwner(info: TensorInfo): boolean {
    return this.refCount(info.dataId) === 1 && this.#place(info.dataId)?.isNarrow !== true;
  }

  share(info: TensorInfo, shape: readonly number[] = info.shape): TensorInfo {
    this.incRef(info.dataId);
    return { dataId: info.dataId, shape: [...shape], dtype: info.dtype };
  }

  borrowed(kernel: (backend: tf.KernelBackend) => TensorInfo | TensorInfo[]): TensorInfo[] {
    const isOutermost = this.#heldBack === undefined;
    const heldBack = (this.#heldBack ??= []);
    try {
      const outputs = kernel(this);
      return (Array.isArray(outputs) ? outputs : [outputs]).map((info) => this.#asNative(info));
    } finally {
      if (isOutermost) {
        this.#heldBack = undefined;
        for (const block of heldBack) this.memoryPool.release(block);
      }
    }
  }

  /** The tensor, its values converted where they are of another type than it claims. */
  #asNative(info: TensorInfo): TensorInfo {
    const { dataId, shape, dtype } = info;
    // Asking for the values of bfloat16 would widen it.
    if ((dtype !== 'float32' && dtype !== 'int32') || this.#place(dataId)?.isNarrow === true) return info;
    const { values } = this.data.get(dataId);
    const View = dtype === 'int32' ? Int32Array : Float32Array;
    if (values instanceof View) return info;
    const converted = this.allocate(shape, dtype);
    (this.data.get(converted.dataId).values as Plain).set(values as Plain);
    this.disposeData(dataId);
    return converted;
  }

  override memory(): ReturnType<MathBackendCPU['memory']> {
    return { unreliable: false, reasons: [] };
  }

  #reserve(length: number, dtype: 'float32' | 'int32'): { block: Block; view: Plain } {
    const block = this.memoryPool.allocate(length * 4);
    const View = dtype === 'int32' ? Int32Array : Float32Array;
    return { block, view: new View(block.buffer, block.offset, length) };
  }

  #release(block: Block): void {
    if (this.#heldBack === undefined) this.memoryPool.release(block);
    else this.#heldBack.push(block);
  }

  #place(dataId: DataId): Place | undefined {
    if (!this.data.has(dataId)) return undefined;
    return (this.data.get(dataId) as { place?: Place }).place;
  }

  #native({ dataId, shape, dtype }: TensorInfo, kernel: string): NativeTensor {
    // Reading the data brings a tensor here that was made on another backend.
    const { place } = this.data.get(dataId) as { place?: Place };
    if (place === undefined)
      throw new LlmxError(
        'LLMX_NATIVE_ARGUMENT',
        `${kernel} was given ${dtype} [${shape.join(', ')}] that does not lie in the native backend's memory.`,
        { hint: 'Kernels take float32 and int32 tensors that were made on this backend.' },
      );
    const size = sizeOf(shape);
    if (size > place.length)
      throw new LlmxError(
        'LLMX_NATIVE_ARGUMENT',
        `${kernel} was given a tensor of shape [${shape.join(', ')}] over memory of ${place.length} elements.`,
      );
    return {
      address: place.block.address,
      size,
      dtype: place.isNarrow ? 'bfloat16' : (dtype as 'float32' | 'int32'),
      shape,
    };
  }
}
