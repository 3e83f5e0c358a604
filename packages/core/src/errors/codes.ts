/**
 * Whose turn it is after an error. `user`: the input, the configuration or the machine's limits need a change (the
 * CLI exits with 2). `failure`: the run itself failed (exit 1). `interrupt`: the user asked to stop (exit 130 or 143).
 */
export type ErrorKind = 'user' | 'failure' | 'interrupt';

interface CodeInfo {
  readonly kind: ErrorKind;
  /** When this error is raised, for docs/reference/errors.md. */
  readonly when: string;
}

/** Every code an llmx error can have. Codes are permanent: they may be added, never renamed or reused. */
export const ERROR_CODES = {
  LLMX_BACKEND_UNAVAILABLE: { kind: 'user', when: 'The backend that was asked for cannot be loaded on this machine.' },
  LLMX_CHECKPOINT_DAMAGED: {
    kind: 'user',
    when: 'A checkpoint file is missing, truncated, a link, or does not match its hash.',
  },
  LLMX_CHECKPOINT_MISSING: { kind: 'user', when: 'A run or folder holds no checkpoint where one is needed.' },
  LLMX_COMPONENT_DUPLICATE: { kind: 'user', when: 'Two plugins register a component of one kind under the same name.' },
  LLMX_COMPONENT_UNKNOWN: { kind: 'user', when: 'No loaded plugin has a component of that kind and name.' },
  LLMX_CONFIG_INVALID: { kind: 'user', when: 'A setting has the wrong type or a value outside its limits.' },
  LLMX_CONFIG_MISSING: { kind: 'user', when: 'The configuration file was not found or could not be read.' },
  LLMX_CONFIG_UNKNOWN_KEY: { kind: 'user', when: 'The configuration has a key that no schema knows.' },
  LLMX_CONTEXT_TOO_LONG: { kind: 'user', when: 'A window is longer than the positions that the model has learned.' },
  LLMX_CORE_DUPLICATE: { kind: 'user', when: 'A plugin would load a second copy of @llmx/core or TensorFlow.js.' },
  LLMX_DATASET_DAMAGED: {
    kind: 'user',
    when: 'A shard is missing, truncated, a link, or does not hold what dataset.json says.',
  },
  LLMX_DATASET_MISSING: { kind: 'user', when: 'There is no prepared dataset, or no such split, at a path.' },
  LLMX_DATASET_TOO_SMALL: { kind: 'user', when: 'A split holds fewer tokens than one window.' },
  LLMX_DISK_FULL: { kind: 'user', when: 'A file could not be written: no space, quota, or file-size limit.' },
  LLMX_DIVERGED: { kind: 'failure', when: 'The loss or a watched quantity left its limits.' },
  LLMX_DRAFT_MISSING: {
    kind: 'user',
    when: 'Speculative decoding needs a draft, or more heads, than the checkpoint has.',
  },
  LLMX_GRADIENT_MISSING: { kind: 'failure', when: 'A loss leads through an op that has no gradient.' },
  LLMX_HOOK_ASYNC: { kind: 'user', when: 'A hook that runs inside the step returned a promise.' },
  LLMX_HOOK_FAILED: { kind: 'user', when: "A plugin's hook threw an error." },
  LLMX_INPUT_EMPTY: { kind: 'user', when: 'The input of data preparation holds no text.' },
  LLMX_INPUT_INVALID: {
    kind: 'user',
    when: 'An input file is binary, not UTF-8, not valid JSON, or of an unknown type.',
  },
  LLMX_INPUT_MISSING: { kind: 'user', when: 'An input file or folder of data preparation does not exist.' },
  LLMX_INTERRUPTED: {
    kind: 'interrupt',
    when: 'A signal asked the command to stop; a training run saved its state first.',
  },
  LLMX_INVARIANT: { kind: 'failure', when: 'A check inside llmx failed: a defect, please report it.' },
  LLMX_IO_FAILED: {
    kind: 'user',
    when: 'A file or folder could not be read or written, for a reason other than its size.',
  },
  LLMX_KERNEL_UNSUPPORTED: { kind: 'user', when: 'A training step needs a kernel that the chosen backend lacks.' },
  LLMX_LEAK: { kind: 'failure', when: 'A step left tensors behind.' },
  LLMX_NATIVE_ARGUMENT: {
    kind: 'failure',
    when: 'A native kernel was given a tensor of another shape, type or memory.',
  },
  LLMX_NATIVE_FAILED: { kind: 'failure', when: 'A native kernel reported a failure, or does not exist.' },
  LLMX_OUTPUT_EXISTS: { kind: 'user', when: 'The output folder exists already and is not empty.' },
  LLMX_OUT_OF_MEMORY: { kind: 'user', when: 'Memory for a tensor, or for the work of a kernel, could not be had.' },
  LLMX_PARAM_MISMATCH: { kind: 'user', when: 'Stored parameters do not fit the model: other names or shapes.' },
  LLMX_PARAM_MISSING: { kind: 'failure', when: 'Code asked for a parameter that the model does not have.' },
  LLMX_PLUGIN_FAILED: {
    kind: 'user',
    when: 'Code of a plugin failed: it could not be imported or set up, or a component or task of it threw an error.',
  },
  LLMX_PLUGIN_INVALID: { kind: 'user', when: 'A module is not a plugin, or its definition breaks a rule.' },
  LLMX_PLUGIN_MISSING: { kind: 'user', when: 'A plugin named in the configuration is not installed.' },
  LLMX_PLUGIN_VERSION: { kind: 'user', when: 'A plugin asks for another version of @llmx/core.' },
  LLMX_PRECISION_UNSUPPORTED: { kind: 'user', when: 'The backend does not have the precision that was asked for.' },
  LLMX_RANK: { kind: 'failure', when: 'A tensor has another number of dimensions than the code expects.' },
  LLMX_RESUME_MISMATCH: {
    kind: 'user',
    when: 'A run is resumed with other settings, data or plugins than it was started with.',
  },
  LLMX_RUN_DAMAGED: { kind: 'user', when: "A file in a run's directory is a link, or not what llmx writes there." },
  LLMX_RUN_EXISTS: { kind: 'user', when: 'The run directory exists already and --resume was not given.' },
  LLMX_RUN_LOCKED: { kind: 'user', when: 'Another live process trains in the run directory.' },
  LLMX_RUN_MISSING: { kind: 'user', when: 'There is no run at a path.' },
  LLMX_TOKENIZER_MISMATCH: { kind: 'user', when: 'Two things that must share a tokenizer do not.' },
  LLMX_USAGE: { kind: 'user', when: 'The command line has an unknown command or flag, or a value it cannot use.' },
  LLMX_VOCAB_TOO_LARGE: { kind: 'user', when: 'The vocabulary does not fit the model or the token format.' },
} as const satisfies Record<`LLMX_${string}`, CodeInfo>;

export type ErrorCode = keyof typeof ERROR_CODES;
