/**
 * The sLSTM's scan over time in plain TypeScript, one row and head after another: a step is a few hundred operations, too
 * little for an op of TensorFlow.js each. Sums are formed in float64.
 */

export interface ScanSizes {
  readonly batch: number;
  readonly time: number;
  readonly heads: number;
  /** Units per head. */
  readonly size: number;
}

type Values = Float32Array;

/** What goes in, with the shapes of kernel-contract.md. */
export interface ScanInputs {
  /** What the input contributes to the gates i, f, z, o, each [batch, time, width]. */
  readonly inputs: readonly [Values, Values, Values, Values];
  /** [heads, size, 4 size]. */
  readonly recurrent: Values;
  /** [4 width]. */
  readonly bias: Values;
  /** [batch, time]. */
  readonly segments?: Int32Array | undefined;
  /** y, c, n, m before the first position, [4, batch, width]. */
  readonly state?: Values | undefined;
}

export interface ScanResult {
  /** [batch, time, width]. */
  readonly y: Values;
  /** [4, batch, width]. */
  readonly state: Values;
  /** Gates before their nonlinearities, [batch, time, 4 width]. */
  readonly gates: Values;
  /** c, n, m after each position, [batch, time, 3 width]. */
  readonly cells: Values;
}

const sigmoid = (x: number): number => 1 / (1 + Math.exp(-x));
const logSigmoid = (x: number): number => Math.min(x, 0) - Math.log1p(Math.exp(-Math.abs(x)));

/** Whether the state is reset before a position. */
const startsDocument = (segments: Int32Array | undefined, row: number, t: number): boolean =>
  segments !== undefined && t > 0 && segments[row + t] !== segments[row + t - 1];

/** Adds y R to `sums`, R [size, columns] from `offset` on. */
function addProduct(y: Float64Array, recurrent: Values, offset: number, sums: Float64Array): void {
  const columns = sums.length;
  for (let unit = 0; unit < y.length; unit++) {
    const factor = y[unit]!;
    if (factor === 0) continue;
    const row = offset + unit * columns;
    for (let column = 0; column < columns; column++) sums[column]! += factor * recurrent[row + column]!;
  }
}

/** y, c, n, m of one head in one row. */
class Cell {
  readonly y: Float64Array;
  readonly c: Float64Array;
  readonly n: Float64Array;
  readonly m: Float64Array;

  constructor(size: number) {
    [this.y, this.c, this.n, this.m] = [0, 1, 2, 3].map(() => new Float64Array(size)) as [
      Float64Array,
      Float64Array,
      Float64Array,
      Float64Array,
    ];
  }

  get parts(): readonly Float64Array[] {
    return [this.y, this.c, this.n, this.m];
  }

  /** One step from the gates of unit k, before their nonlinearities. */
  advance(k: number, i: number, f: number, z: number, o: number): void {
    const kept = logSigmoid(f) + this.m[k]!;
    const m = this.n[k] === 0 ? i : Math.max(i, kept);
    const input = Math.min(Math.exp(i - m), 1);
    const forget = Math.min(Math.exp(kept - m), 1);
    this.c[k] = forget * this.c[k]! + input * Math.tanh(z);
    this.n[k] = forget * this.n[k]! + input;
    this.m[k] = m;
    this.y[k] = (sigmoid(o) * this.c[k]) / this.n[k];
  }
}

/** The kernel `XlstmSlstmScan`. */
export function scanForward(sizes: ScanSizes, given: ScanInputs): ScanResult {
  const { batch, time, heads, size } = sizes;
  const width = heads * size;
  const result = {
    y: new Float32Array(batch * time * width),
    state: new Float32Array(4 * batch * width),
    gates: new Float32Array(batch * time * 4 * width),
    cells: new Float32Array(batch * time * 3 * width),
  };
  for (let row = 0; row < batch; row++)
    for (let head = 0; head < heads; head++) scanHead(sizes, given, row, head, result);
  return result;
}

function scanHead(sizes: ScanSizes, given: ScanInputs, row: number, head: number, result: ScanResult): void {
  const { batch, time, heads, size } = sizes;
  const width = heads * size;
  const { inputs, recurrent, bias, segments, state } = given;
  const unit = head * size;
  const cell = new Cell(size);
  const raw = new Float64Array(4 * size);
  const statePlace = (part: number): number => (part * batch + row) * width + unit;
  if (state !== undefined)
    cell.parts.forEach((values, part) => values.set(state.subarray(statePlace(part), statePlace(part) + size)));
  for (let t = 0; t < time; t++) {
    if (startsDocument(segments, row * time, t)) cell.parts.forEach((values) => values.fill(0));
    const at = row * time + t;
    for (let gate = 0; gate < 4; gate++)
      for (let k = 0; k < size; k++)
        raw[gate * size + k] = inputs[gate]![at * width + unit + k]! + bias[gate * width + unit + k]!;
    addProduct(cell.y, recurrent, head * size * 4 * size, raw);
    for (let k = 0; k < size; k++) cell.advance(k, raw[k]!, raw[size + k]!, raw[2 * size + k]!, raw[3 * size + k]!);
    result.y.set(cell.y, at * width + unit);
    for (let gate = 0; gate < 4; gate++)
      result.gates.set(raw.subarray(gate * size, (gate + 1) * size), (at * 4 + gate) * width + unit);
    cell.parts.slice(1).forEach((values, part) => result.cells.set(values, (at * 3 + part) * width + unit));
  }
  cell.parts.forEach((values, part) => result.state.set(values, statePlace(part)));
}

/** What the gradient needs of the forward pass. */
export interface ScanSaved extends Pick<ScanInputs, 'recurrent' | 'segments' | 'state'> {
  readonly y: Values;
  readonly gates: Values;
  readonly cells: Values;
}

export interface ScanGradients {
  readonly inputs: readonly [Values, Values, Values, Values];
  readonly recurrent: Values;
  readonly bias: Values;
  readonly state: Values;
}

/** The kernel `XlstmSlstmScanGrad`: the stabiliser m is a constant, on which y does not depend. */
export function scanBackward(sizes: ScanSizes, dy: Values, saved: ScanSaved): ScanGradients {
  const { batch, time, heads, size } = sizes;
  const width = heads * size;
  const like = (): Values => new Float32Array(batch * time * width);
  const sums = { recurrent: new Float64Array(heads * size * 4 * size), bias: new Float64Array(4 * width) };
  const gradients = {
    inputs: [like(), like(), like(), like()] as const,
    state: new Float32Array(4 * batch * width),
  };
  for (let row = 0; row < batch; row++)
    for (let head = 0; head < heads; head++) new HeadGradient(sizes, saved, row, head).run(dy, gradients, sums);
  return { ...gradients, recurrent: Float32Array.from(sums.recurrent), bias: Float32Array.from(sums.bias) };
}

/** Gradients of one head in one row, walking back in time. */
class HeadGradient {
  readonly #sizes: ScanSizes;
  readonly #saved: ScanSaved;
  readonly #row: number;
  readonly #head: number;
  /** Gradients of y, c, n, m before the position that was walked last. */
  readonly #carried: Cell;
  /** Gradients of the gates at a position. */
  readonly #raw: Float64Array;

  constructor(sizes: ScanSizes, saved: ScanSaved, row: number, head: number) {
    this.#sizes = sizes;
    this.#saved = saved;
    this.#row = row;
    this.#head = head;
    this.#carried = new Cell(sizes.size);
    this.#raw = new Float64Array(4 * sizes.size);
  }

  run(
    dy: Values,
    gradients: Pick<ScanGradients, 'inputs' | 'state'>,
    sums: { recurrent: Float64Array; bias: Float64Array },
  ): void {
    const { batch, time, heads, size } = this.#sizes;
    const [width, unit] = [heads * size, this.#head * size];
    for (let t = time - 1; t >= 0; t--) {
      const fresh = startsDocument(this.#saved.segments, this.#row * time, t);
      for (let k = 0; k < size; k++) this.#unit(t, k, dy, fresh);
      const at = this.#row * time + t;
      for (let gate = 0; gate < 4; gate++)
        for (let k = 0; k < size; k++) {
          const value = this.#raw[gate * size + k]!;
          gradients.inputs[gate]![at * width + unit + k] = value;
          sums.bias[gate * width + unit + k]! += value;
        }
      if (fresh) this.#carried.parts.forEach((values) => values.fill(0));
      else this.#throughRecurrence(t, sums.recurrent);
    }
    this.#carried.parts.forEach((values, part) =>
      gradients.state.set(values, (part * batch + this.#row) * width + unit),
    );
  }

  /** The value of y (0), c (1), n (2) or m (3) of unit k before position t, which begins no document. */
  #before(t: number, part: number, k: number): number {
    const { batch, time, heads, size } = this.#sizes;
    const width = heads * size;
    const unit = this.#head * size + k;
    if (t === 0) return this.#saved.state?.[(part * batch + this.#row) * width + unit] ?? 0;
    const at = this.#row * time + t - 1;
    return part === 0 ? this.#saved.y[at * width + unit]! : this.#saved.cells[(at * 3 + part - 1) * width + unit]!;
  }

  /** Gradients of the gates of unit k at position t, and of the c, n and m before it. */
  #unit(t: number, k: number, dy: Values, fresh: boolean): void {
    const { time, heads, size } = this.#sizes;
    const width = heads * size;
    const unit = this.#head * size + k;
    const at = this.#row * time + t;
    const { gates, cells } = this.#saved;
    const [gate, cell] = [at * 4 * width + unit, at * 3 * width + unit];
    const i = gates[gate]!;
    const f = gates[gate + width]!;
    const z = gates[gate + 2 * width]!;
    const o = gates[gate + 3 * width]!;
    const c = cells[cell]!;
    const n = cells[cell + width]!;
    const m = cells[cell + 2 * width]!;
    const c0 = fresh ? 0 : this.#before(t, 1, k);
    const n0 = fresh ? 0 : this.#before(t, 2, k);
    const m0 = fresh ? 0 : this.#before(t, 3, k);
    const input = Math.min(Math.exp(i - m), 1);
    const forget = Math.min(Math.exp(logSigmoid(f) + m0 - m), 1);
    const open = sigmoid(o);
    const candidate = Math.tanh(z);
    const dOut = dy[at * width + unit]! + this.#carried.y[k]!;
    const dc = this.#carried.c[k]! + (dOut * open) / n;
    const dn = this.#carried.n[k]! - (dOut * open * c) / (n * n);
    const dForget = (dc * c0 + dn * n0) * forget;
    this.#raw[k] = (dc * candidate + dn) * input;
    this.#raw[size + k] = dForget * sigmoid(-f);
    this.#raw[2 * size + k] = dc * input * (1 - candidate * candidate);
    this.#raw[3 * size + k] = ((dOut * c) / n) * open * (1 - open);
    this.#carried.c[k] = dc * forget;
    this.#carried.n[k] = dn * forget;
    this.#carried.m[k] = dForget;
  }

  /** Gradients of R and of the y before position t. */
  #throughRecurrence(t: number, sums: Float64Array): void {
    const { size } = this.#sizes;
    const columns = 4 * size;
    for (let k = 0; k < size; k++) {
      const y = this.#before(t, 0, k);
      const row = (this.#head * size + k) * columns;
      let gradient = 0;
      for (let column = 0; column < columns; column++) {
        sums[row + column]! += y * this.#raw[column]!;
        gradient += this.#saved.recurrent[row + column]! * this.#raw[column]!;
      }
      this.#carried.y[k] = gradient;
    }
  }
}
