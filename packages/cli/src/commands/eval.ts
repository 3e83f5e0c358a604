import type { EvaluateResult, SavedModelOptions, TasksResult } from '@llmx/core';
import { Args, Flags } from '@oclif/core';

import { BaseCommand } from '../base-command.ts';
import { backendFlag, bestFlag, countFlag } from '../flags.ts';
import { grouped, joined, shortPath, timeLeft } from '../format.ts';
import { taskLines } from '../task-lines.ts';

type Opened = Awaited<ReturnType<BaseCommand['open']>>;
/** What part of a text is evaluated, and how. */
interface TextFlags {
  readonly data: string | undefined;
  readonly split: string | undefined;
  readonly 'context-length': number | undefined;
  readonly 'max-tokens': number | undefined;
}

export class Eval extends BaseCommand {
  static override readonly summary = 'Evaluate a trained model on held-out text, or on tasks.';
  static override readonly description =
    'Loss is in nats per token over windows that do not overlap. Bits per byte do not depend on the tokenizer. With --task, what the tasks measure is shown instead; tasks come with the plugins of the run, and llmx components --kind task lists them.';
  static override readonly examples = [
    '<%= config.bin %> eval runs/first',
    '<%= config.bin %> eval first --best --max-tokens 100000',
    '<%= config.bin %> eval runs/first/checkpoints/step-00000100 --data data/other --split train',
    "<%= config.bin %> eval first --task parity --task '{ name: parity, minLength: 3, maxLength: 40 }'",
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
    task: Flags.custom({
      description: 'Run these tasks, with options as in a configuration, instead; may be repeated.',
      helpValue: 'NAME[,...]',
      multiple: true,
      multipleNonGreedy: true,
      exclusive: ['data', 'split', 'context-length', 'max-tokens'],
    })(),
    backend: backendFlag(),
  };

  async run(): Promise<EvaluateResult | TasksResult> {
    const { args, flags } = await this.parse(Eval);
    const opened = await this.open('stopping');
    const saved = { target: args.target, which: flags.best ? 'best' : 'latest', backend: flags.backend } as const;
    return flags.task === undefined ? this.#onText(opened, saved, flags) : this.#onTasks(opened, saved, flags.task);
  }

  async #onTasks({ core, environment }: Opened, saved: SavedModelOptions, tasks: string[]): Promise<TasksResult> {
    const result = await this.display.run(['Evaluating'], (view) =>
      core.runTasks(
        {
          ...saved,
          tasks,
          onTask: ({ name, number, count }) => view.status(`task ${name}, ${number} of ${count}`),
        },
        environment,
      ),
    );
    this.print(...result.tasks.flatMap(taskLines), `checkpoint: ${shortPath(result.checkpoint)}`);
    return result;
  }

  async #onText({ core, environment }: Opened, saved: SavedModelOptions, flags: TextFlags): Promise<EvaluateResult> {
    const result = await this.display.run(['Evaluating'], (view) => {
      const started = performance.now();
      return core.evaluateRun(
        {
          ...saved,
          data: flags.data,
          split: flags.split,
          contextLength: flags['context-length'],
          maxTokens: flags['max-tokens'],
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
