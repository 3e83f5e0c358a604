import { LlmxError } from '@llmx/core';

/** A piece of an arena. */
export interface Block {
  readonly buffer: ArrayBuffer;
  /** From the start of the buffer; the address is a multiple of 64. */
  readonly offset: number;
  readonly bytes: number;
  readonly address: number;
}

const ALIGNMENT = 64;
const MIB = 2 ** 20;
const SMALLEST_ARENA = 64 * MIB;
const LARGEST_ARENA = 1024 * MIB;

const roundUp = (bytes: number): number => Math.max(ALIGNMENT, Math.ceil(bytes / ALIGNMENT) * ALIGNMENT);

/**
 * Memory for tensors, in a few large ArrayBuffers: the smallest free piece that is large enough is cut to size, and
 * neighbours that are free become one again. A fresh ArrayBuffer per tensor would cost 4 ms for 19 MB, since the system
 * clears every page of it; pieces per size, which are never joined, would hold activations' memory back from gradients.
 */
export class Memory {
  readonly #addressOf: (memory: ArrayBuffer) => number;
  readonly #overwritesReleased: boolean;
  /** Free pieces by size, smallest first; equal sizes by address. */
  readonly #free: Block[] = [];
  /** Free pieces by address of their start and of their end. */
  readonly #byStart = new Map<number, Block>();
  readonly #byEnd = new Map<number, Block>();
  readonly #arenas = new Set<ArrayBuffer>();
  #reserved = 0;
  #used = 0;

  constructor(addressOf: (memory: ArrayBuffer) => number, overwritesReleased = false) {
    this.#addressOf = addressOf;
    this.#overwritesReleased = overwritesReleased;
  }

  /** Bytes of all arenas; pages that were never touched cost nothing. */
  get reservedBytes(): number {
    return this.#reserved;
  }

  /** Bytes of all tensors. */
  get usedBytes(): number {
    return this.#used;
  }

  /** Whether the memory is part of an arena, and so is given to others later. */
  owns(buffer: ArrayBufferLike): boolean {
    return this.#arenas.has(buffer as ArrayBuffer);
  }

  /**
   * @returns a piece of at least `bytes`, its content unspecified
   * @throws LlmxError `LLMX_OUT_OF_MEMORY`
   */
  allocate(bytes: number): Block {
    const size = roundUp(bytes);
    let index = this.#firstOf(size, 0);
    if (index === this.#free.length) {
      this.#grow(size);
      index = this.#firstOf(size, 0);
    }
    const piece = this.#free[index]!;
    this.#remove(piece, index);
    this.#used += size;
    const { buffer, offset, address } = piece;
    if (piece.bytes > size)
      this.#insert({ buffer, offset: offset + size, bytes: piece.bytes - size, address: address + size });
    return { buffer, offset, bytes: size, address };
  }

  release(block: Block): void {
    this.#used -= block.bytes;
    if (this.#overwritesReleased) new Uint8Array(block.buffer, block.offset, block.bytes).fill(0xff);
    const before = this.#byEnd.get(block.address);
    const after = this.#byStart.get(block.address + block.bytes);
    let { offset, bytes, address } = block;
    // Arenas of the system may lie side by side; pieces of different ones are not joined.
    if (before?.buffer === block.buffer) {
      this.#remove(before);
      offset = before.offset;
      address = before.address;
      bytes += before.bytes;
    }
    if (after?.buffer === block.buffer) {
      this.#remove(after);
      bytes += after.bytes;
    }
    this.#insert({ buffer: block.buffer, offset, bytes, address });
  }

  /** Place in `#free` of the first piece that is not before (size, address). */
  #firstOf(size: number, address: number): number {
    let [low, high] = [0, this.#free.length];
    while (low < high) {
      const middle = (low + high) >>> 1;
      const piece = this.#free[middle]!;
      if (piece.bytes < size || (piece.bytes === size && piece.address < address)) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  #insert(piece: Block): void {
    this.#free.splice(this.#firstOf(piece.bytes, piece.address), 0, piece);
    this.#byStart.set(piece.address, piece);
    this.#byEnd.set(piece.address + piece.bytes, piece);
  }

  #remove(piece: Block, index = this.#firstOf(piece.bytes, piece.address)): void {
    this.#free.splice(index, 1);
    this.#byStart.delete(piece.address);
    this.#byEnd.delete(piece.address + piece.bytes);
  }

  /** Adds an arena: as much as there is already, within limits, and enough for the request. */
  #grow(size: number): void {
    const wanted = Math.min(LARGEST_ARENA, Math.max(SMALLEST_ARENA, this.#reserved));
    const buffer = reserve(Math.max(size, wanted) + ALIGNMENT) ?? reserve(size + ALIGNMENT);
    if (buffer === undefined)
      throw new LlmxError(
        'LLMX_OUT_OF_MEMORY',
        `A tensor of ${(size / MIB).toFixed(1)} MiB does not fit into memory beside the ${(this.#used / MIB).toFixed(1)} MiB in use.`,
        { hint: 'Use a smaller batchSize with more gradAccumulation, a shorter contextLength, or a smaller model.' },
      );
    const base = this.#addressOf(buffer);
    const offset = (ALIGNMENT - (base % ALIGNMENT)) % ALIGNMENT;
    const bytes = buffer.byteLength - ALIGNMENT;
    this.#arenas.add(buffer);
    this.#reserved += bytes;
    this.#insert({ buffer, offset, bytes, address: base + offset });
  }
}

function reserve(bytes: number): ArrayBuffer | undefined {
  try {
    return new ArrayBuffer(bytes);
  } catch (error) {
    if (error instanceof RangeError) return undefined;
    throw error;
  }
}
