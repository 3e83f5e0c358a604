import type { ProfileResult } from '@llmx/core';
import { Args, Flags } from '@oclif/core';

import { BaseCommand } from '../base-command.ts';
import { numberFlag, setFlag } from '../flags.ts';
import { shortPath } from '../format.ts';
import { profileLines } from '../profile-lines.ts';

/** A trace holds every call of these steps. */
const MOST_STEPS = 1000;

export class Profile extends BaseCommand {
  static override readonly summary = 'Run some training steps and show where their time goes.';
  static override readonly description =
    'Times every kernel and sets it against what this machine can do at best, measured in the same run. Nothing is trained: no run directory is made or touched.';
  static override readonly examples = [
    '<%= config.bin %> profile',
    '<%= config.bin %> profile small.yaml --set backend=wasm --steps 10',
    '<%= config.bin %> profile small.yaml --trace trace.json',
  ];
  static override readonly args = {
    config: Args.string({ description: 'Configuration; default: llmx.config.* of this folder.', ignoreStdin: true }),
  };
  static override readonly flags = {
    steps: numberFlag({ integer: true, min: 1, max: MOST_STEPS })({ description: 'Steps to measure.', default: 5 }),
    warmup: numberFlag({ integer: true, min: 0, max: MOST_STEPS })({
      description: 'Steps before these, which compile and allocate.',
      default: 2,
    }),
    set: setFlag(),
    trace: Flags.string({
      description: 'Write every kernel call to this file, for https://ui.perfetto.dev or chrome://tracing.',
      helpValue: 'FILE',
    }),
    all: Flags.boolean({ description: 'Give kernels below 0.5% of the step lines of their own.' }),
  };

  async run(): Promise<ProfileResult> {
    const { args, flags } = await this.parse(Profile);
    const { core, environment } = await this.open('stopping');
    const result = await this.display.run(['Opening data and model', 'Profiling'], (view) =>
      core.profileTraining(
        {
          file: args.config,
          sets: flags.set ?? [],
          steps: flags.steps,
          warmup: flags.warmup,
          trace: flags.trace,
          onProgress: ({ step, totalSteps, backend }) => {
            if (step > 0) return view.status(`step ${step}/${totalSteps}`);
            view.status(`backend ${backend}`);
            view.next();
          },
        },
        environment,
      ),
    );
    this.print(...profileLines(result, flags.all));
    if (result.trace !== null)
      this.print('', `Trace in ${shortPath(result.trace)}: open it in https://ui.perfetto.dev or chrome://tracing.`);
    return result;
  }
}
