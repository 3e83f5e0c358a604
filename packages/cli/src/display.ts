/** What a command says about its work while it goes on. */
export interface View {
  /** What is going on right now; takes the place of the status before. Shown on a terminal only. */
  status(text: string): void;
  /** A line of progress, where there is no terminal that shows a status. */
  log(text: string): void;
  /** A line that stays, on a terminal too. */
  note(text: string): void;
  /** The work has come to its next step. */
  next(): void;
}

/** Shows the progress of a command. */
export interface Display {
  /** Does some work that consists of the named steps, of which the first begins now. */
  run<T>(steps: readonly [string, ...string[]], work: (view: View) => Promise<T>): Promise<T>;
  /** A line that stays, from outside of the work. */
  note(text: string): void;
}

/** Plain lines, for files, pipes and logs; what comes from outside of the work goes to standard error. */
export function plainDisplay(progress: NodeJS.WriteStream): Display {
  const note = (text: string): void => void progress.write(`${text}\n`);
  const view: View = { status: () => undefined, log: note, note, next: () => undefined };
  return { run: (_steps, work) => work(view), note: (text) => void process.stderr.write(`${text}\n`) };
}
