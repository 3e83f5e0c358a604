/** Recording of ops by TensorFlow.js's engine: what is kept, and where. */
import { tf } from './tf.ts';

export interface TapeNode {
  readonly kernelName: string;
  readonly inputs: Readonly<Record<string, tf.Tensor>>;
  readonly outputs: readonly tf.Tensor[];
  /** Clones kept for the backward pass; whoever walks the tape disposes them. */
  readonly saved: readonly tf.Tensor[];
  readonly gradient?: (dys: (tf.Tensor | null)[]) => Readonly<Record<string, () => tf.Tensor>>;
}

/** What is recorded of a function: the ops that depend on `xs`. No gradient goes through any other. */
export class Tape {
  readonly nodes: TapeNode[] = [];
  /** Ids of the tensors that depend on `xs`. */
  readonly #reached: Set<number>;

  constructor(xs: readonly tf.Tensor[]) {
    this.#reached = new Set(xs.map((x) => x.id));
  }

  reaches(x: tf.Tensor): boolean {
    return this.#reached.has(x.id);
  }

  /** The engine calls this after every op. What an op saved that is not kept is freed at once. */
  push(node: TapeNode): void {
    if (!Object.values(node.inputs).some((input) => this.reaches(input))) return disposeSaved(node);
    // Integer and boolean results have no derivative, so they end a path.
    for (const output of node.outputs) if (output.dtype === 'float32') this.#reached.add(output.id);
    this.nodes.push(node);
  }
}

/** The part of the engine's state that decides whether and where ops are recorded. */
interface TapeState {
  activeTape: Pick<Tape, 'push'> | null | undefined;
  gradientDepth: number;
  kernelDepth: number;
}

const tapeState = (): TapeState => tf.engine().state as unknown as TapeState;

/** Whether a tape is there, recorded to at the moment or not. */
export const hasTape = (): boolean => (tapeState().activeTape ?? undefined) !== undefined;

/** Runs `f` with the tape state replaced; the caller's recording goes on unchanged afterwards. */
function withTape<T>(replacement: TapeState, f: () => T): T {
  const state = tapeState();
  const { activeTape, gradientDepth, kernelDepth } = state;
  Object.assign(state, replacement);
  try {
    return f();
  } finally {
    Object.assign(state, { activeTape, gradientDepth, kernelDepth });
  }
}

export const disposeSaved = (node: TapeNode): void => node.saved.forEach((tensor) => tensor.dispose());

/** Whether ops are being recorded here: whether an op should save what its backward pass needs. */
export const isRecording = (): boolean => (tf.engine() as unknown as { isTapeOn(): boolean }).isTapeOn();

/**
 * Whether a gradient can go to `x` here: not where nothing is recorded, nor to what does not depend on the tensors that the
 * recorded function is differentiated by, e.g. to a frozen parameter.
 */
export function isDifferentiated(x: tf.Tensor): boolean {
  const { activeTape } = tapeState();
  return isRecording() && (!(activeTape instanceof Tape) || activeTape.reaches(x));
}

/** Runs `f` unrecorded, e.g. to build constants inside a loss. */
export const unrecorded = <T>(f: () => T): T => withTape({ activeTape: null, gradientDepth: 0, kernelDepth: 0 }, f);

/** Runs `f`, recorded; whoever walks the tape frees what it saved. */
export function record<T>(f: () => T, xs: readonly tf.Tensor[]): { result: T; tape: Tape } {
  const tape = new Tape(xs);
  try {
    return { result: withTape({ activeTape: tape, gradientDepth: 1, kernelDepth: 0 }, f), tape };
  } catch (error) {
    tape.nodes.forEach(disposeSaved);
    throw error;
  }
}
