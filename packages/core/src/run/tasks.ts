import { throwProblems, unwrap } from '../config/problems.ts';
import { parseSelections } from '../config/selections.ts';
import { LlmxError } from '../errors/index.ts';
import { failureOf } from '../plugin/registry.ts';
import type { Metrics, Selected, Task } from '../plugin/types.ts';
import type { Environment } from './environment.ts';
import { openSavedModel, type SavedModel, type SavedModelOptions } from './saved-model.ts';

export interface TasksOptions extends SavedModelOptions {
  /** What to run, in order; each entry is `a`, `a,b` or `{ name: a, option: 1 }`. */
  readonly tasks: readonly string[];
  /** Called before each task. */
  readonly onTask?: (progress: { readonly name: string; readonly number: number; readonly count: number }) => void;
}

export interface TaskResult {
  /** The task with all its options, defaults filled in. */
  readonly task: Selected;
  readonly metrics: Metrics;
  readonly seconds: number;
}

export interface TasksResult {
  readonly tasks: readonly TaskResult[];
  readonly checkpoint: string;
  readonly step: number;
  readonly backend: string;
}

/**
 * Runs tasks on a trained model. They are components of the plugins that the run was configured with.
 *
 * @throws LlmxError what `openSavedModel` throws; `LLMX_USAGE`, `LLMX_COMPONENT_UNKNOWN`, `LLMX_CONFIG_INVALID`,
 *   `LLMX_CONFIG_UNKNOWN_KEY`, `LLMX_PLUGIN_FAILED`, `LLMX_INTERRUPTED`, and a task's own
 */
export async function runTasks(options: TasksOptions, environment: Environment): Promise<TasksResult> {
  const { host } = environment;
  const named = options.tasks.flatMap((text) => parseSelections(text, '--task'));
  const saved = await openSavedModel(options, environment);
  try {
    const selected = checked(saved, named);
    const tasks: TaskResult[] = [];
    for (const [index, task] of selected.entries()) {
      options.onTask?.({ name: task.name, number: index + 1, count: selected.length });
      const started = host.now();
      const metrics = await runTask(saved, task, host.signal);
      tasks.push({ task, metrics, seconds: (host.now() - started) / 1000 });
    }
    return { tasks, checkpoint: saved.checkpoint, step: saved.step, backend: saved.backend.name };
  } finally {
    saved.close();
  }
}

/** All tasks with all their options; every problem of every task at once. */
function checked({ resolved: { registry } }: SavedModel, named: readonly Selected[]): readonly Selected[] {
  const found = named.map((task) => registry.check('task', task));
  throwProblems(found.flatMap(({ problems }) => problems ?? []));
  return found.map(unwrap);
}

async function runTask(saved: SavedModel, selected: Selected, signal: AbortSignal): Promise<Metrics> {
  const { model, params, tokenizer } = saved;
  const { registry } = saved.resolved;
  const task: Task = registry.create('task', selected, {});
  try {
    const metrics = await task.run({ model, params, tokenizer, signal });
    if (!signal.aborted) return metrics;
  } catch (cause) {
    // A task may end in any way once it is asked to stop.
    if (!signal.aborted)
      throw failureOf(registry.owner('task', selected.name), `task "${selected.name}" failed`, cause);
  }
  throw new LlmxError('LLMX_INTERRUPTED', `The task "${selected.name}" was stopped by ${String(signal.reason)}.`);
}
