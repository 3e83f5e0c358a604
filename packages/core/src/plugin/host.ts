/** What core needs from the program around it. Core itself touches neither `process` nor `console`. */
export interface Host {
  /** Folder that relative paths given by the user refer to. */
  readonly cwd: string;
  /** Folder from which plugins are resolved where the experiment's folder has none: the CLI's own. */
  readonly installRoot: string;
  /** Aborted when work has to stop. The reason says by what, for messages: a signal's name, or `train.maxTime 2h`. */
  readonly signal: AbortSignal;
  /** Packages that bring components known by name, e.g. `optimizer:adamw-schedulefree` -> `@llmx/plugin-schedulefree`. */
  readonly firstParty: Readonly<Record<string, string>>;
  readonly process: {
    readonly pid: number;
    /** Version of Node, e.g. `v20.19.0`. */
    readonly version: string;
    /** An id of the process's start that differs when the pid is used again. */
    readonly started: string;
    readonly hostname: string;
    /** Whether the process with this pid and start runs on this machine. */
    isAlive(pid: number, started: string): boolean;
  };
  /** Resident memory now and at its highest, in MiB. */
  memory(): { readonly residentMiB: number; readonly peakMiB: number };
  /** Milliseconds of a clock that never goes back. */
  now(): number;
  /** Whether to look for defects at the cost of time: tensors that a step leaves behind. */
  readonly debug?: boolean;
  log(level: 'info' | 'warn', message: string): void;
}
