import type { Environment } from '@llmx/core';
import { Command, Flags } from '@oclif/core';

import { bundledPlugins } from './first-party.ts';
import { type Display, plainDisplay } from './display.ts';
import { reportFailure } from './failure.ts';
import { createHost } from './host.ts';
import { interruptSignal, type RequeueSignal } from './interrupt.ts';
import { liveDisplay } from './live-display.ts';
import { printJson, reserveStdout, wantsJson } from './output.ts';

const createDisplay = (stream: NodeJS.WriteStream): Display =>
  stream.isTTY ? liveDisplay(stream) : plainDisplay(stream);

/**
 * What all commands share: `--json`, the display of progress, the way errors end, and core. A command returns the object
 * that `--json` prints, and prints for people itself.
 */
export abstract class BaseCommand extends Command {
  static override readonly enableJsonFlag = true;
  static override readonly baseFlags = {
    json: Flags.boolean({
      description: 'Print one line of JSON to standard output, all else to standard error.',
      helpGroup: 'global',
    }),
  };

  readonly display: Display = createDisplay(this.jsonEnabled() ? process.stderr : process.stdout);
  #signal: AbortSignal | undefined;

  override async init(): Promise<void> {
    await super.init();
    if (this.jsonEnabled()) reserveStdout();
  }

  override jsonEnabled(): boolean {
    return wantsJson(this.argv);
  }

  override logJson(json: unknown): void {
    printJson(json);
  }

  override async catch(error: unknown): Promise<void> {
    this.parsed = true; // oclif would warn that the command did not parse its arguments
    process.exitCode = await reportFailure(error, {
      json: this.jsonEnabled(),
      command: this.ctor,
      signal: this.#signal,
    });
  }

  /**
   * Core, and what it needs of this process.
   *
   * @param stopping what the command does when it is asked to stop, for the user; without it an interrupt ends it at once
   * @param requeueSignal a further signal that asks to stop, with exit status 99
   */
  protected async open(
    stopping?: string,
    requeueSignal?: RequeueSignal,
  ): Promise<{ core: typeof import('@llmx/core'); environment: Environment }> {
    const core = await import('@llmx/core');
    if (stopping !== undefined)
      this.#signal = interruptSignal(
        (by) => this.display.note(`${by}: ${stopping}${by === requeueSignal ? '' : '; a second one stops at once'}.`),
        requeueSignal,
      );
    const host = createHost({
      signal: this.#signal ?? new AbortController().signal,
      log: (level, message) => this.display.note(level === 'warn' ? `Warning: ${message}` : message),
    });
    return { core, environment: { host, coreModule: core, bundled: await bundledPlugins() } };
  }

  /** Prints lines for people. */
  protected print(...lines: readonly string[]): void {
    for (const line of lines) this.log(line);
  }
}
