import type { EvaluateResult } from '@llmx/core';
import { Args, Flags } from '@oclif/core';

import { BaseCommand } from '../base-command.ts';
import { backendFlag, bestFlag, countFlag } from '../flags.ts';
import { grouped, joined, shortPath, timeLeft } from '../format.ts';

export class Eval extends BaseCommand {
  static override readonly summary = 'Evaluate a trained model on held-out text.';
  static override readonly description =
    'Loss is in nats per token over windows that do not overlap. Bits per byte do not depend on the tokenizer.';
  static override readonly examples = [
    '<%= config.bin %> eval runs/first',
    '<%= config.bin %> eval first --best --max-tokens 100000',
    '<%= config.bin %> eval runs/first/checkpoints/step-00000100 --data data/other --split train',
  ];
  static override readonly args = {
    target: Args.string({ description: 'Run, by name or path, or checkpoint.', required: true, ignoreStdin: true }),
  };
  static override readonly flags = {
    best: bestFlag(),
    data: Flags.string({ description: "Dataset; default: the run's.", helpValue: 'DIR' }),
    split: Flags.string({ description: 'Split of the dataset; default: the configured one.', helpValue: 'NAME' }),
    'context-length': countFlag({ description: 'Tokens per window; default: as in training.' }),
    'max-tokens': countFlag({ description: 'Score about so many tokens, spread over the split; default: all.' }),
    backend: backendFlag(),
  };

  async run(): Promise<EvaluateResult> {
    const { args, flags } = await this.parse(Eval);
    const { core, environment } = await this.open('stopping');
    const result = await this.display.run(['Evaluating'], (view) => {
      const started = performance.now();
      return core.evaluateRun(
        {
          target: args.target,
          which: flags.best ? 'best' : 'latest',
          data: flags.data,
          split: flags.split,
          contextLength: flags['context-length'],
          maxTokens: flags['max-tokens'],
          backend: flags.backend,
          onProgress: ({ tokens, totalTokens }) => {
            const seconds = (performance.now() - started) / 1000;
            const amount = `${grouped(tokens)} of ${grouped(totalTokens)} tokens`;
            view.status(joined(amount, timeLeft(seconds, tokens, totalTokens)));
          },
        },
        environment,
      );
    });
    const { loss, perplexity, bitsPerByte, tokens, split, data, checkpoint } = result;
    this.print(
      `loss: ${loss.toFixed(4)} nats per token`,
      `perplexity: ${perplexity.toFixed(2)}`,
      `bits per byte: ${bitsPerByte.toFixed(4)}`,
      `tokens: ${grouped(tokens)} of split ${split} in ${shortPath(data)}`,
      `checkpoint: ${shortPath(checkpoint)}`,
    );
    return result;
  }
}
