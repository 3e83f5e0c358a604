import path from 'node:path';

import type { TrainResult } from '@llmx/core';
import { Args, Flags } from '@oclif/core';

import { BaseCommand } from '../base-command.ts';
import { setFlag } from '../flags.ts';
import { REQUEUE_SIGNALS } from '../interrupt.ts';
import { grouped, shellWord, shortPath } from '../format.ts';
import { TrainView } from '../train-view.ts';

/** `run` for an llmx.config file, else the name of the file without its extension. */
function defaultName(file: string | undefined): string {
  const stem = file === undefined ? 'llmx.config' : path.basename(file, path.extname(file));
  return stem === 'llmx.config' ? 'run' : stem;
}

export class Train extends BaseCommand {
  static override readonly summary = 'Train a model, or continue a run.';
  static override readonly description =
    'A run lies in runs/<name> below the current folder. Ctrl+C finishes the step, saves and stops; --resume continues, also after a crash, with the same result as without the interruption.';
  static override readonly examples = [
    '<%= config.bin %> train',
    '<%= config.bin %> train small.yaml --set optimizer.lr=0.003 --name small-high-lr',
    '<%= config.bin %> train small.yaml --resume',
  ];
  static override readonly args = {
    config: Args.string({ description: 'Configuration; default: llmx.config.* of this folder.', ignoreStdin: true }),
  };
  static override readonly flags = {
    name: Flags.string({
      description: "Name of the run; default: the configuration's, or `run` for llmx.config.*.",
      helpValue: 'NAME',
    }),
    resume: Flags.boolean({ description: 'Continue the run if there is one.' }),
    set: setFlag(),
    'allow-changes': Flags.boolean({
      description: 'Resume even if settings, data, plugins or the backend are others than at the start.',
    }),
    'verify-data': Flags.boolean({ description: 'Read the whole dataset first and compare it with its hashes.' }),
    'requeue-signal': Flags.option({ options: REQUEUE_SIGNALS })({
      description: 'This signal, too, saves and stops; the exit status is then 99, for "start me again".',
    }),
  };

  async run(): Promise<TrainResult> {
    const { args, flags } = await this.parse(Train);
    const { core, environment } = await this.open('finishing the step and saving', flags['requeue-signal']);
    const result = await this.display.run(['Opening data and model', 'Training'], (view) =>
      core.train(
        {
          file: args.config,
          sets: flags.set ?? [],
          name: flags.name ?? defaultName(args.config),
          resume: flags.resume,
          allowChanges: flags['allow-changes'],
          verifyData: flags['verify-data'],
          onEvent: new TrainView(view).show,
        },
        environment,
      ),
    );
    this.#printResult(result);
    return result;
  }

  #printResult({
    runDir,
    steps,
    tokens,
    trainLoss,
    valLoss,
    tokensPerSecond,
    peakMemoryMiB,
    backend,
  }: TrainResult): void {
    const run = shortPath(runDir);
    const losses = [
      ...(trainLoss === null ? [] : [`${trainLoss.toFixed(4)} on the last batch`]),
      ...(valLoss === null ? [] : [`${valLoss.toFixed(4)} held out (nats per token)`]),
    ];
    const speed = tokensPerSecond === null ? [] : [`${grouped(tokensPerSecond)} tokens/s`];
    this.print(
      '',
      `Trained ${grouped(steps)} steps, ${grouped(tokens)} tokens, in ${run}`,
      ...(losses.length === 0 ? [] : [`loss     ${losses.join(', ')}`]),
      `machine  ${[...speed, `at most ${grouped(peakMemoryMiB)} MiB`, `backend ${backend}`].join(', ')}`,
      '',
      'Next:',
      `  llmx eval ${shellWord(run)}`,
      `  llmx generate ${shellWord(run)} --prompt 'Once upon a time'`,
    );
  }
}
