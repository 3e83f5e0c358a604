import type { Metrics, TrainEvent } from '@llmx/core';

import type { View } from './display.ts';
import { grouped, joined, shortPath, timeLeft } from './format.ts';

/** Metrics that have a place and a form of their own in a line. */
const PLACED = new Set(['loss', 'gradNorm', 'lr', 'tokensSeen', 'tokensPerSecond', 'memoryMiB']);

const DIGITS = 4;

/** `loss 5.1234  gradNorm 1.20  lr 3.0e-4  12,345 tok/s  512 MiB`; a plugin's metrics come behind the loss. */
export function metricsLine(metrics: Metrics): string {
  const { loss, gradNorm, lr, tokensPerSecond, memoryMiB } = metrics;
  const others = Object.entries(metrics).filter(([name]) => !PLACED.has(name));
  return joined(
    loss === undefined ? '' : `loss ${loss.toFixed(DIGITS)}`,
    ...others.map(([name, value]) => `${name} ${value.toPrecision(DIGITS)}`),
    gradNorm === undefined ? '' : `gradNorm ${gradNorm.toPrecision(3)}`,
    lr === undefined ? '' : `lr ${lr.toExponential(1)}`,
    tokensPerSecond === undefined ? '' : `${grouped(tokensPerSecond)} tok/s`,
    memoryMiB === undefined ? '' : `${grouped(memoryMiB)} MiB`,
  );
}

type Started = Extract<TrainEvent, { kind: 'started' }>;

/** `started from <checkpoint>: 12 tensors (3,456 values) taken, 2 (78) new` */
function initialisedLine({ checkpoint, taken, fresh, leftOut }: NonNullable<Started['initialised']>): string {
  const counted = ({ tensors, values }: typeof taken, noun = '') =>
    `${grouped(tensors)}${noun} (${grouped(values)}${noun && ' values'})`;
  const parts = [
    `${counted(taken, ' tensors')} taken`,
    `${counted(fresh)} new`,
    ...(leftOut.tensors > 0 ? [`${counted(leftOut)} of its objective left out`] : []),
  ];
  return `started from ${shortPath(checkpoint)}: ${parts.join(', ')}`;
}

/** Shows the events of a run, the first of which is `started`. */
export class TrainView {
  readonly #view: View;
  #run: (Started & { readonly time: number }) | undefined;
  #latest = '';

  constructor(view: View) {
    this.#view = view;
  }

  readonly show = (event: TrainEvent): void => {
    switch (event.kind) {
      case 'started':
        return this.#started(event);
      case 'step':
        return this.#view.status(joined(this.#at(event.step), this.#latest, this.#left(event.step)));
      case 'logged':
        return this.#logged(event.step, event.metrics);
      case 'evaluating': {
        const { tokens, totalTokens } = event.progress;
        return this.#view.status(`${this.#at(event.step)}  evaluating, ${Math.round((100 * tokens) / totalTokens)} %`);
      }
      case 'evaluated': {
        const { loss, perplexity, bitsPerByte } = event.result;
        const numbers = `loss ${loss.toFixed(DIGITS)}  perplexity ${perplexity.toFixed(2)}  bits per byte ${bitsPerByte.toFixed(DIGITS)}`;
        this.#view.status(this.#at(event.step));
        return this.#view.note(`${this.#at(event.step)}  held out: ${numbers}`);
      }
      case 'sampled': // as JSON, since it may hold line breaks and characters that control terminals
        return this.#view.note(`${this.#at(event.step)}  wrote: ${JSON.stringify(event.prompt + event.text)}`);
      case 'saved':
        return this.#view.note(`${this.#at(event.step)}  saved ${shortPath(event.directory)}`);
    }
  };

  #started(event: Started): void {
    const { directory, step, parameters, frozen, initialised, tokensPerStep, windowsPerEpoch, backend } = event;
    this.#run = { ...event, time: performance.now() };
    this.#view.status(`backend ${backend}`);
    this.#view.note(
      `${shortPath(directory)}: ${grouped(parameters)} parameters${frozen > 0 ? ` and ${grouped(frozen)} frozen` : ''}, ${grouped(tokensPerStep)} tokens a step, ${grouped(windowsPerEpoch)} windows an epoch, backend ${backend}`,
    );
    if (initialised !== undefined) this.#view.note(initialisedLine(initialised));
    if (step > 0) this.#view.note(`resumed after step ${step}`);
    this.#view.next();
  }

  #logged(step: number, metrics: Metrics): void {
    const { loss, tokensPerSecond } = metrics;
    this.#latest = metricsLine({
      ...(loss !== undefined && { loss }),
      ...(tokensPerSecond !== undefined && { tokensPerSecond }),
    });
    this.#view.log(`${this.#at(step)}  ${metricsLine(metrics)}`);
  }

  #at(step: number): string {
    return `step ${step}/${this.#run?.totalSteps ?? '?'}`;
  }

  /** Time left at the pace of this process so far, evaluations and checkpoints included. */
  #left(step: number): string {
    if (this.#run === undefined) return '';
    const { step: start, totalSteps, time } = this.#run;
    return timeLeft((performance.now() - time) / 1000, step - start, totalSteps - start);
  }
}
