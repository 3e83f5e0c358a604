/** A stretch of time. */
export interface Span<Name extends string = string> {
  readonly name: Name;
  /** Clock at its start, ms. */
  readonly start: number;
  readonly milliseconds: number;
}

/** A kernel call and what it had to do; its name is the kernel's. */
export interface TimedCall extends Span {
  /** Read and written. */
  readonly bytes: number;
  /** Of its matrix products; undefined where it has none. */
  readonly operations: number | undefined;
  /** Shapes. */
  readonly inputs: Readonly<Record<string, readonly number[]>>;
  readonly outputs: readonly (readonly number[])[];
}
