import { LlmxError } from '../errors/index.ts';
import { tf } from '../tensor/index.ts';

/** The parts of the tfjs engine through which every tensor comes and goes. */
interface Engine {
  runKernelFunc(call: { kernelName?: string }): unknown;
  trackTensor(tensor: tf.Tensor, backend: unknown): void;
  disposeTensor(tensor: tf.Tensor): void;
}

/**
 * Finds the ops whose tensors a step leaves behind, by watching the engine. It costs time on every op, so it is for
 * debugging.
 */
export class LeakGuard {
  readonly #engine = tf.engine() as unknown as Engine;
  readonly #restore: () => void;
  /** Op that made each tensor that is alive since `begin`. */
  readonly #makers = new Map<number, string>();
  #before = 0;

  constructor() {
    const engine = this.#engine;
    const { runKernelFunc, trackTensor, disposeTensor } = engine;
    let op = 'an upload';
    engine.runKernelFunc = (call) => {
      const outer = op;
      op = call.kernelName ?? op;
      try {
        return runKernelFunc.call(engine, call);
      } finally {
        op = outer;
      }
    };
    engine.trackTensor = (tensor, backend) => {
      this.#makers.set(tensor.id, op);
      trackTensor.call(engine, tensor, backend);
    };
    engine.disposeTensor = (tensor) => {
      this.#makers.delete(tensor.id);
      disposeTensor.call(engine, tensor);
    };
    this.#restore = () => void Object.assign(engine, { runKernelFunc, trackTensor, disposeTensor });
  }

  /** A step starts. */
  begin(): void {
    this.#makers.clear();
    this.#before = tf.memory().numTensors;
  }

  /**
   * A step has ended with these tensors as its state.
   *
   * @throws LlmxError `LLMX_LEAK` if there are more tensors than at its beginning
   */
  end(step: number, state: readonly tf.Tensor[]): void {
    const extra = tf.memory().numTensors - this.#before;
    if (extra <= 0) return;
    for (const { id } of state) this.#makers.delete(id);
    const ops = [...new Set(this.#makers.values())].toSorted().join(', ');
    const count = extra === 1 ? '1 tensor' : `${extra} tensors`;
    throw new LlmxError('LLMX_LEAK', `Step ${step} left ${count} behind, made by: ${ops}.`, {
      hint: 'Dispose what tf.keep holds, and make tensors inside tf.tidy; hooks that run after the step are not inside one.',
    });
  }

  /** Watches no more. */
  stop(): void {
    this.#restore();
  }
}
