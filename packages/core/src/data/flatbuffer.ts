/**
 * One table of a FlatBuffers message, read where it lies. Every access is checked against the end of the buffer, so
 * damaged bytes give a RangeError or wrong numbers, never anything else; callers check the numbers.
 *
 * A table starts with the signed distance back to its vtable: 16-bit sizes of vtable and table, then one 16-bit offset
 * per field slot, 0 where the field has its default value.
 */
export class FlatTable {
  readonly #view: DataView;
  readonly #position: number;

  private constructor(view: DataView, position: number) {
    this.#view = view;
    this.#position = position;
  }

  /** @throws RangeError */
  static root(bytes: Uint8Array): FlatTable {
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    return new FlatTable(view, view.getUint32(0, true));
  }

  uint8(slot: number): number {
    const at = this.#field(slot);
    return at === undefined ? 0 : this.#view.getUint8(at);
  }

  int16(slot: number): number {
    const at = this.#field(slot);
    return at === undefined ? 0 : this.#view.getInt16(at, true);
  }

  int32(slot: number): number {
    const at = this.#field(slot);
    return at === undefined ? 0 : this.#view.getInt32(at, true);
  }

  int64(slot: number): number {
    const at = this.#field(slot);
    return at === undefined ? 0 : int64At(this.#view, at);
  }

  has(slot: number): boolean {
    return this.#field(slot) !== undefined;
  }

  table(slot: number): FlatTable | undefined {
    const at = this.#field(slot);
    return at === undefined ? undefined : new FlatTable(this.#view, this.#target(at));
  }

  string(slot: number): string {
    const { start, count } = this.#vector(slot, 1);
    return new TextDecoder().decode(new Uint8Array(this.#view.buffer, this.#view.byteOffset + start, count));
  }

  tables(slot: number): FlatTable[] {
    const { start, count } = this.#vector(slot, 4);
    return Array.from({ length: count }, (_, index) => new FlatTable(this.#view, this.#target(start + 4 * index)));
  }

  /** A vector of structs of `size` bytes each. */
  structs(slot: number, size: number): DataView[] {
    const { start, count } = this.#vector(slot, size);
    const { buffer, byteOffset } = this.#view;
    return Array.from({ length: count }, (_, index) => new DataView(buffer, byteOffset + start + size * index, size));
  }

  #field(slot: number): number | undefined {
    const vtable = this.#position - this.#view.getInt32(this.#position, true);
    const entry = 4 + 2 * slot;
    if (entry >= this.#view.getUint16(vtable, true)) return undefined;
    const offset = this.#view.getUint16(vtable + entry, true);
    return offset === 0 ? undefined : this.#position + offset;
  }

  #target(at: number): number {
    return at + this.#view.getUint32(at, true);
  }

  #vector(slot: number, size: number): { start: number; count: number } {
    const at = this.#field(slot);
    if (at === undefined) return { start: 0, count: 0 };
    const target = this.#target(at);
    const count = this.#view.getUint32(target, true);
    if (target + 4 + count * size > this.#view.byteLength) throw new RangeError('A vector ends beyond its message.');
    return { start: target + 4, count };
  }
}

/** @throws RangeError where the value is negative or no safe integer: all lengths and offsets here are counts */
export function int64At(view: DataView, position: number): number {
  const value = Number(view.getBigInt64(position, true));
  if (!Number.isSafeInteger(value) || value < 0) throw new RangeError(`${value} is not a length or an offset.`);
  return value;
}
