import type { DecodingReport } from '@llmx/core';
import { Args, Flags } from '@oclif/core';

import { BaseCommand } from '../base-command.ts';
import { backendFlag, bestFlag, countFlag, numberFlag } from '../flags.ts';
import { grouped, joined, visible } from '../format.ts';
import { style } from '../style.ts';

interface Generated {
  readonly prompt: string;
  /** What follows the prompt. */
  readonly text: string;
  readonly tokens: number;
  readonly seconds: number;
  readonly tokensPerSecond: number;
  readonly checkpoint: string;
  /** With --speculative. */
  readonly speculative?: DecodingReport & { readonly draftTokens: number };
}

/** `81 %  60 %  41 %` */
const percentages = (shares: readonly number[]): string =>
  joined(...shares.map((share) => `${(100 * share).toFixed(0)} %`));

/** What a model writes may be anything: a terminal gets no control characters of it. */
const printable = (text: string): string => (process.stdout.isTTY ? visible(text, '\n\t') : text);

export class Generate extends BaseCommand {
  static override readonly summary = 'Let a trained model continue a text.';
  static override readonly examples = [
    "<%= config.bin %> generate runs/first --prompt 'Once upon a time'",
    '<%= config.bin %> generate first --best --temperature 0 --max-tokens 50',
    '<%= config.bin %> generate first --speculative --draft-tokens 3',
  ];
  static override readonly args = {
    target: Args.string({ description: 'Run, by name or path, or checkpoint.', required: true, ignoreStdin: true }),
  };
  static override readonly flags = {
    best: bestFlag(),
    prompt: Flags.string({ description: 'Text to continue; empty: a new document.', default: '', helpValue: 'TEXT' }),
    'max-tokens': countFlag({ description: 'Generate at most so many tokens.', default: 200 }),
    temperature: numberFlag({ min: 0 })({
      description: 'Divides the logits; 0 takes the most likely token.',
      default: 0.8,
    }),
    'top-k': numberFlag({ integer: true, min: 0 })({
      description: 'Choose among the so many most likely tokens; 0: all.',
      default: 0,
    }),
    'top-p': numberFlag({ min: 0, exclusive: true, max: 1 })({
      description: 'Choose among the most likely tokens that together have this probability; 1: all.',
      default: 1,
    }),
    seed: numberFlag({ integer: true, min: 0 })({ description: 'The same seed gives the same text.', default: 1 }),
    speculative: Flags.boolean({
      description: "Let the objective's heads propose tokens, which the model verifies several at a time.",
    }),
    'draft-tokens': countFlag({
      description: 'Tokens that heads propose at a time; default: one for each head.',
      dependsOn: ['speculative'],
    }),
    backend: backendFlag(),
  };

  async run(): Promise<Generated> {
    const { args, flags } = await this.parse(Generate);
    const { core, environment } = await this.open('stopping');
    const { prompt, best, backend } = flags;
    const saved = await core.openSavedModel(
      { target: args.target, which: best ? 'best' : 'latest', backend },
      environment,
    );
    try {
      const draft = flags.speculative ? core.openDraft(saved) : undefined;
      const statistics = new core.DecodingStatistics();
      const options = {
        maxTokens: flags['max-tokens'],
        temperature: flags.temperature,
        topK: flags['top-k'],
        topP: flags['top-p'],
        seed: flags.seed,
        draftTokens: flags['draft-tokens'],
        onRound: statistics.add,
      };
      const started = performance.now();
      const pieces = core.generateText({ ...saved, draft }, prompt, options, environment.host.signal);
      const { text, tokens } = await this.#stream(prompt, pieces);
      const seconds = (performance.now() - started) / 1000;
      const tokensPerSecond = tokens / seconds;
      const result = { prompt, text, tokens, seconds, tokensPerSecond, checkpoint: saved.checkpoint };
      if (draft === undefined) return result;
      const speculative = { draftTokens: flags['draft-tokens'] ?? draft.length, ...statistics.report() };
      this.#report(speculative, tokensPerSecond);
      return { ...result, speculative };
    } finally {
      saved.close();
    }
  }

  /** Says how speculative decoding went, apart from the text. */
  #report({ passes, tokensPerPass, acceptance }: DecodingReport, tokensPerSecond: number): void {
    const pace = `${tokensPerSecond.toFixed(1)} tokens/s`;
    this.logToStderr(joined(`${grouped(passes)} passes`, `${tokensPerPass.toFixed(2)} tokens a pass`, pace));
    if (acceptance.length > 0) this.logToStderr(`accepted, head by head: ${percentages(acceptance)}`);
  }

  /** Prints the text as it comes, unless the result is printed as JSON. */
  async #stream(
    prompt: string,
    pieces: AsyncIterable<{ text: string; tokens: number }>,
  ): Promise<{ text: string; tokens: number }> {
    const write = (text: string): boolean => this.jsonEnabled() || process.stdout.write(text);
    let [text, tokens] = ['', 0];
    write(style('bold', prompt));
    try {
      for await (const piece of pieces) {
        text += piece.text;
        ({ tokens } = piece);
        write(printable(piece.text));
        if (process.stdout.destroyed) break; // nobody reads on
      }
    } finally {
      write('\n');
    }
    return { text, tokens };
  }
}
