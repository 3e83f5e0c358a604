import type { CheckpointStore } from '../checkpoint/store.ts';
import type { LlmxError } from '../errors/index.ts';
import type { Host } from '../plugin/host.ts';
import type { StepInfo } from '../plugin/plugin-types.ts';
import type { Metrics, Params, Sink } from '../plugin/types.ts';
import { evaluate } from '../train/evaluate.ts';
import { generateText } from '../generate/index.ts';
import type { LoopEvents, LoopPosition } from '../train/loop.ts';
import type { TrainState } from '../train/step.ts';
import { overMemory } from './memory-limit.ts';
import type { MetricsLog } from './metrics-log.ts';
import { checkpointContent, type CheckpointRecord, evaluationWeights } from './saved-state.ts';
import type { Session } from './session.ts';
import type { TrainEvent } from './train-event.ts';
import type { Activity, Watchdog } from './watchdog.ts';

export interface RecorderParts {
  readonly session: Session;
  readonly store: CheckpointStore;
  readonly log: MetricsLog;
  readonly sinks: readonly Sink[];
  readonly host: Host;
  readonly onEvent: (event: TrainEvent) => void;
  readonly watchdog?: Watchdog | undefined;
  /** What the checkpoint that the run goes on from remembers. */
  readonly record: CheckpointRecord | undefined;
}

type Saved = { readonly info: StepInfo; readonly directory: string };

/** Carries what the training loop does to metrics, sinks, checkpoints and hooks. */
export class Recorder implements LoopEvents {
  readonly signal: AbortSignal;
  readonly #parts: RecorderParts;
  readonly #saved: (Saved | { readonly error: unknown })[] = [];
  /** Loss of the latest logged step and of the latest evaluation. */
  #trainLoss: number | null;
  #evaluation: { readonly step: number; readonly loss: number } | undefined;
  #bestLoss: number | null;

  constructor(parts: RecorderParts) {
    this.#parts = parts;
    this.signal = parts.host.signal;
    this.#trainLoss = parts.record?.trainLoss ?? null;
    this.#bestLoss = parts.record?.bestLoss ?? null;
  }

  get trainLoss(): number | null {
    return this.#trainLoss;
  }

  now(): number {
    return this.#parts.host.now();
  }

  residentMiB(): number {
    return this.#parts.host.memory().residentMiB;
  }

  stepped(step: number): void {
    this.#parts.onEvent({ kind: 'step', step });
  }

  exceeded(state: TrainState): LlmxError | undefined {
    const { maxMemory } = this.#parts.session.resolved.config.train;
    return maxMemory === undefined ? undefined : overMemory(maxMemory, this.residentMiB(), state);
  }

  turnsTo(step: number, activity: Activity): void {
    this.#parts.watchdog?.beat(step, activity);
  }

  skipped(step: number, reason: string): void {
    this.#parts.host.log('warn', `Step ${step} was left out: ${reason}.`);
  }

  async logged({ step }: StepInfo, metrics: Metrics): Promise<void> {
    const { loss } = metrics;
    this.#trainLoss = loss !== undefined && Number.isFinite(loss) ? loss : null; // JSON has no others
    await this.#record('train', step, metrics);
    this.#parts.onEvent({ kind: 'logged', step, metrics });
  }

  async #record(kind: 'train' | 'eval', step: number, metrics: Metrics): Promise<void> {
    this.#parts.log.append({ kind, step, metrics });
    for (const sink of this.#parts.sinks) await sink.write({ ...metrics, step });
  }

  async evaluate({ step }: StepInfo, state: TrainState): Promise<void> {
    const { session, onEvent } = this.#parts;
    const { recipe, evaluation } = session;
    if (evaluation === undefined) return;
    const { weights, release } = evaluationWeights(recipe.optimizer, state);
    try {
      const result = await evaluate({ model: recipe.model, params: weights }, evaluation, this.signal, (progress) =>
        onEvent({ kind: 'evaluating', step, progress }),
      );
      // Before anything is recorded: a signal that stops it has the whole evaluation done again.
      const sampled = await this.#sample(weights);
      this.#evaluation = { step, loss: result.loss };
      const { loss: valLoss, perplexity: valPerplexity, bitsPerByte: valBitsPerByte } = result;
      await this.#record('eval', step, { valLoss, valPerplexity, valBitsPerByte });
      onEvent({ kind: 'evaluated', step, result });
      if (sampled !== undefined) onEvent({ kind: 'sampled', step, ...sampled });
    } finally {
      release();
    }
  }

  /** Text of the weights, where `train.sample` asks for it. */
  async #sample(params: Params): Promise<{ prompt: string; text: string } | undefined> {
    const { recipe, resolved, dataset } = this.#parts.session;
    const { sample, seed } = resolved.config.train;
    if (sample === undefined) return undefined;
    const { prompt, tokens: maxTokens, temperature } = sample;
    const source = { model: recipe.model, params, tokenizer: dataset.tokenizer };
    const options = { maxTokens, temperature, topK: 0, topP: 1, seed };
    let text = '';
    for await (const piece of generateText(source, prompt, options, this.signal)) text += piece.text;
    return { prompt, text };
  }

  async save(info: StepInfo, position: LoopPosition): Promise<void> {
    const { session, store } = this.#parts;
    const valLoss = this.valLossAt(info.step);
    const best = Number.isFinite(valLoss) && !(this.#bestLoss !== null && this.#bestLoss <= valLoss!);
    if (best) this.#bestLoss = valLoss;
    const { step, evaluated, guard } = position;
    const record = { step, evaluated, guard, trainLoss: this.#trainLoss, valLoss, bestLoss: this.#bestLoss };
    const keepsBest = session.resolved.config.train.keepBest && best;
    const { written } = await store.save(() => checkpointContent(session, info, position, { record, best: keepsBest }));
    void written.then(
      (directory) => this.#saved.push({ info, directory }),
      (error: unknown) => this.#saved.push({ error }),
    );
    await this.drain();
  }

  /** Evaluation loss after a step, if that was evaluated; the one in the checkpoint that the run goes on from counts. */
  valLossAt(step: number): number | null {
    if (this.#evaluation !== undefined) return this.#evaluation.step === step ? this.#evaluation.loss : null;
    return this.#parts.record?.step === step ? this.#parts.record.valLoss : null;
  }

  /** Saves the state before the first step; complete when this resolves. */
  async saveStart(position: LoopPosition): Promise<void> {
    await this.save({ step: 0, tokensSeen: 0 }, position);
    await this.settle();
  }

  async drain(): Promise<void> {
    for (let saved = this.#saved.shift(); saved !== undefined; saved = this.#saved.shift()) {
      if ('error' in saved) throw saved.error;
      const { info, directory } = saved;
      this.#parts.onEvent({ kind: 'saved', step: info.step, directory });
      await this.#parts.session.recipe.hooks.series('checkpointSaved', { ...info, directory });
    }
  }

  async settle(): Promise<void> {
    await this.#parts.store.flush();
    await new Promise((resolve) => setImmediate(resolve));
    await this.drain();
  }

  /** Waits for the last checkpoint, closes the sinks. */
  async finish(): Promise<void> {
    await this.settle();
    for (const sink of this.#parts.sinks) await sink.close?.();
  }
}
