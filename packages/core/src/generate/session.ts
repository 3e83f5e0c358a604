import type { Draft, DraftInput, Model, Params, StateTree } from '../plugin/types.ts';
import { dims, stateTensors, tf } from '../tensor/index.ts';

const dispose = (states: readonly StateTree[], except: readonly StateTree[] = []): void => {
  // A model may hand parts of the old state through.
  const kept = new Set(except.flatMap(stateTensors));
  new Set(states.flatMap(stateTensors)).forEach((tensor) => kept.has(tensor) || tensor.dispose());
};

const tokenTensor = (tokens: readonly number[]): tf.Tensor => tf.tensor2d([...tokens], [1, tokens.length], 'int32');

/** Positions from `start` on, `length` of them, of float32 [1, time, dModel]. */
const span = (x: tf.Tensor, start: number, length: number): tf.Tensor => tf.slice(x, [0, start, 0], [1, length, -1]);

/** What a draft reads of the model: states of new positions, float32 [1, time, dModel]. */
interface Shown {
  readonly hidden: tf.Tensor;
  readonly trunk?: tf.Tensor;
}

/** The rows of logits, float32 [1, rows, vocab], once they are there. */
export async function logitRows(logits: tf.Tensor): Promise<Float32Array[]> {
  const [, rows, width] = dims(logits, 3);
  const values = (await logits.data()) as Float32Array;
  return Array.from({ length: rows }, (_, row) => values.subarray(row * width, (row + 1) * width));
}

/** A model and its draft in the middle of a text. Owns their states until `dispose`. */
export class DecodingSession {
  readonly #model: Model;
  readonly #params: Params;
  readonly #draft: Draft | undefined;
  #state: StateTree = {};
  #draftState: StateTree = {};
  #position = 0;
  /** Of the last pass: its tokens, the state before it until `keep`, and what it shows to the draft. */
  #tokens: readonly number[] = [];
  #before: StateTree = {};
  #shown: Shown | undefined;

  constructor({ model, params, draft }: { model: Model; params: Params; draft?: Draft | undefined }) {
    this.#model = model;
    this.#params = params;
    this.#draft = draft;
    this.restart();
  }

  /** How many more positions the model can take. */
  get room(): number {
    return (this.#model.maxPositions ?? Infinity) - this.#position;
  }

  /** Starts again without any text. */
  restart(): void {
    this.dispose();
    this.#state = this.#model.initialState(1);
    this.#draftState = this.#draft?.initialState() ?? {};
    this.#position = 0;
  }

  /**
   * One pass of the model over new tokens; `keep` follows.
   *
   * @returns the logits after each of the last `rows` tokens, float32 [vocab]
   */
  async read(tokens: readonly number[], rows: number): Promise<Float32Array[]> {
    const logits = this.#pass(tokens, rows);
    try {
      return await logitRows(logits);
    } finally {
      logits.dispose();
    }
  }

  #pass(tokens: readonly number[], rows: number): tf.Tensor {
    const model = this.#model;
    const rewindable = rows > 1 && model.rewind !== undefined;
    const { logits, shown, next } = tf.tidy(() => {
      const { hidden, trunk, state } = model.step(this.#params, tokenTensor(tokens), this.#state, { rewindable });
      return {
        logits: model.logits(this.#params, span(hidden, tokens.length - rows, rows)),
        shown: this.#draft && { hidden, ...(trunk && { trunk }) },
        next: state as tf.TensorContainerObject,
      };
    });
    this.#show(shown);
    this.#tokens = tokens;
    this.#before = this.#state;
    this.#state = next as StateTree;
    this.#position += tokens.length;
    return logits;
  }

  #show(shown: Shown | undefined): void {
    dispose([{ ...this.#shown }]);
    this.#shown = shown;
  }

  /**
   * Keeps the first tokens of the last pass, at least one, and takes the others back.
   *
   * @returns how many more passes that took: 1 for a model without `rewind`, where there are others
   */
  keep(count: number): number {
    const rejected = this.#tokens.length - count;
    const after = this.#state;
    if (rejected > 0) this.#takeBack(rejected);
    dispose([this.#before, after], [this.#state]);
    this.#before = {};
    return rejected > 0 && this.#model.rewind === undefined ? 1 : 0;
  }

  #takeBack(rejected: number): void {
    const model = this.#model;
    const kept = this.#tokens.slice(0, -rejected);
    const { hidden, trunk } = this.#shown ?? {};
    const { state, ...shown } = tf.tidy(() => {
      // Without `rewind`, one more pass from the state before.
      const earlier =
        model.rewind === undefined
          ? model.step(this.#params, tokenTensor(kept), this.#before).state
          : model.rewind(this.#params, this.#state, rejected);
      return {
        state: earlier as tf.TensorContainerObject,
        ...(hidden && { hidden: span(hidden, 0, kept.length) }),
        ...(trunk && { trunk: span(trunk, 0, kept.length) }),
      };
    });
    this.#show('hidden' in shown ? (shown as Shown) : undefined);
    this.#state = state as StateTree;
    this.#position -= rejected;
  }

  /** Lets the draft propose what comes after the tokens that were kept and the one after them. */
  async propose(input: Pick<DraftInput, 'tokens' | 'count' | 'draw'>): Promise<void> {
    const before = this.#draftState;
    this.#draftState = await this.#draft!.propose({ params: this.#params, state: before, ...this.#shown!, ...input });
    dispose([before], [this.#draftState]);
  }

  dispose(): void {
    dispose([this.#state, this.#draftState, this.#before, { ...this.#shown }]);
    [this.#state, this.#draftState, this.#before, this.#shown] = [{}, {}, {}, undefined];
  }
}
