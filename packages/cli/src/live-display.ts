import type { ListrDefaultRendererLogLevels } from 'listr2';

import type { Display, View } from './display.ts';
import { style } from './style.ts';

/** How many of the latest notes stay in sight below a step. */
const NOTES = 6;

/** What the task list gives to write to. */
interface Entry {
  title: string;
  output: string;
}

/** One step of the work. What is said before the list has come to it is kept until then. */
class Step {
  readonly title: string;
  readonly #ended: Promise<void>;
  #settle: { resolve(): void; reject(error: unknown): void } = { resolve: () => undefined, reject: () => undefined };
  #entry: Entry | undefined;
  #status = '';
  #early: string[] = [];

  constructor(title: string) {
    this.title = title;
    this.#ended = new Promise((resolve, reject) => (this.#settle = { resolve, reject }));
    this.#ended.catch(() => undefined); // the list may be told later than the command
  }

  /** The step is in sight; resolves at its end. */
  show(entry: Entry): Promise<void> {
    this.#entry = entry;
    if (this.#status !== '') this.status(this.#status);
    for (const text of this.#early) entry.output = text;
    return this.#ended;
  }

  status(text: string): void {
    this.#status = text;
    if (this.#entry !== undefined) this.#entry.title = `${this.title}  ${style('dim', text)}`;
  }

  note(text: string): void {
    if (this.#entry === undefined) this.#early.push(text);
    else this.#entry.output = text;
  }

  end(): void {
    this.#settle.resolve();
  }

  fail(error: unknown): void {
    this.#settle.reject(error);
  }
}

/** The steps of one piece of work, and the one that it has come to. */
class Steps implements View {
  readonly all: readonly Step[];
  #current: Step;

  constructor(titles: readonly [string, ...string[]]) {
    const [first, ...others] = titles;
    this.#current = new Step(first);
    this.all = [this.#current, ...others.map((title) => new Step(title))];
  }

  status(text: string): void {
    this.#current.status(text);
  }

  log(): void {
    // The status says it.
  }

  note(text: string): void {
    this.#current.note(text);
  }

  next(): void {
    this.#current.end();
    this.#current = this.all[this.all.indexOf(this.#current) + 1] ?? this.#current;
  }

  end(): void {
    for (const step of this.all) step.end();
  }

  fail(error: unknown): void {
    this.#current.fail(error);
  }
}

async function runListed<T>(steps: Steps, stream: NodeJS.WriteStream, work: () => Promise<T>): Promise<T> {
  const { DefaultRenderer, Listr, ListrLogger, ProcessOutput } = await import('listr2');
  /** listr2 asks whether standard output is a terminal; here `stream` is. */
  class Renderer extends DefaultRenderer {
    static override readonly nonTTY = true;
  }
  const logger = new ListrLogger<ListrDefaultRendererLogLevels>({
    useIcons: true,
    processOutput: new ProcessOutput(stream, process.stderr),
  });
  const list = new Listr(
    steps.all.map((step) => ({
      title: step.title,
      task: (_context: unknown, entry: Entry) => step.show(entry),
      rendererOptions: { persistentOutput: true, outputBar: NOTES },
    })),
    // The command's own handlers decide what an interrupt does, and how an error is told.
    { renderer: Renderer, registerSignalListeners: false, rendererOptions: { showErrorMessage: false, logger } },
  );
  // A second interrupt ends the process here: the terminal gets its streams and its cursor back.
  const leave = (): void => {
    logger.process.toStdout('');
    logger.process.release();
  };
  process.once('exit', leave);
  const listed = list.run().catch(() => undefined); // what fails is `work`
  try {
    const result = await work();
    steps.end();
    return result;
  } catch (error) {
    steps.fail(error);
    throw error;
  } finally {
    await listed;
    process.off('exit', leave);
  }
}

/** A task list on a terminal. */
export function liveDisplay(stream: NodeJS.WriteStream): Display {
  let current: Steps | undefined;
  return {
    async run(titles, work) {
      const steps = new Steps(titles);
      current = steps;
      try {
        return await runListed(steps, stream, () => work(steps));
      } finally {
        current = undefined;
      }
    },
    note(text) {
      if (current === undefined) process.stderr.write(`${text}\n`);
      else current.note(text);
    },
  };
}
