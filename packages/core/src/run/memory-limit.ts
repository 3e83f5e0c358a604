import { sizeOf } from '../config/durations.ts';
import { LlmxError } from '../errors/index.ts';
import { stateTensors, tf } from '../tensor/index.ts';
import type { TrainState } from '../train/step.ts';

const MIB = 2 ** 20;

const bytesOf = (tensors: readonly tf.Tensor[]): number =>
  tensors.reduce((sum, { size, dtype }) => sum + size * tf.util.bytesPerElement(dtype), 0);

/** The error that says what holds a process's memory, if that is more than `train.maxMemory`. */
export function overMemory(limit: string, residentMiB: number, state: TrainState): LlmxError | undefined {
  if (residentMiB * MIB <= sizeOf(limit)) return undefined;
  const params = bytesOf(Object.values(state.params));
  const optimizer = bytesOf(stateTensors(state.optimizer));
  const others = tf.memory().numBytes - params - optimizer;
  const shown = (bytes: number): string => `${Math.round(bytes / MIB)} MiB`;
  const rest = Math.max(0, residentMiB * MIB - params - optimizer - others);
  return new LlmxError(
    'LLMX_OUT_OF_MEMORY',
    `The process holds ${shown(residentMiB * MIB)}, more than train.maxMemory ${limit}: ${shown(params)} in parameters, ${shown(optimizer)} in the optimizer's state, ${shown(others)} in other tensors, and ${shown(rest)} in work memory, code and buffers.`,
    {
      hint: 'The state is saved. Lower train.batchSize (and raise train.gradAccumulation) or model.contextLength in a new run, or raise train.maxMemory and continue with --resume.',
    },
  );
}
