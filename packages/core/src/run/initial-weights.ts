import { loadCheckpoint } from '../checkpoint/load-checkpoint.ts';
import { TENSOR_FILES } from '../checkpoint/layout.ts';
import type { HostTensor } from '../checkpoint/safetensors.ts';
import { uploadParams } from '../checkpoint/state-tree.ts';
import { LlmxError } from '../errors/index.ts';
import type { Params } from '../plugin/types.ts';
import { mapParams } from '../tensor/index.ts';
import { describedRun } from './checkpoint-run.ts';
import { locateCheckpoint } from './directory.ts';
import { parameterShapes, shownShape } from './model.ts';
import type { Session } from './session.ts';

/** A number of parameters: tensors, and values in them. */
export interface ParameterCount {
  readonly tensors: number;
  readonly values: number;
}

/** The weights of another run that one starts from. */
export interface InitialWeights {
  /** Directory of the checkpoint, and its step. */
  readonly checkpoint: string;
  readonly step: number;
  /** sha256 of the file that holds them. */
  readonly sha256: string;
  /** Parameters that the model takes from there, those of it that are new, and the objective's there that it has not. */
  readonly taken: ParameterCount;
  readonly fresh: ParameterCount;
  readonly leftOut: ParameterCount;
  /** Those that are taken. */
  readonly tensors: Map<string, HostTensor>;
}

type Shapes = ReadonlyMap<string, readonly number[]>;

function count(shapes: Shapes, counts: (path: string) => boolean): ParameterCount {
  const chosen = [...shapes].filter(([path]) => counts(path));
  const values = chosen.reduce((sum, [, shape]) => sum + shape.reduce((size, side) => size * side, 1), 0);
  return { tensors: chosen.length, values };
}

/** A new run may have another objective, whose parameters are its own; a model's are not dropped silently. */
const mayBeLeftOut = (path: string): boolean => path.startsWith('objective.');

/** Fails unless everything that is stored has its place in the model, and something has. */
function checkFit(stored: Shapes, shapes: Shapes, where: string): void {
  const mismatch = (message: string, hint: string) => new LlmxError('LLMX_PARAM_MISMATCH', message, { hint });
  if (![...stored.keys()].some((path) => shapes.has(path)))
    throw mismatch(
      `None of the ${stored.size} parameters in "${where}" is one of the model that is to start from them.`,
      'Give train.initFrom a run of the same architecture.',
    );
  const problems = [...stored].flatMap(([path, shape]) => {
    const wanted = shapes.get(path);
    if (wanted === undefined) return mayBeLeftOut(path) ? [] : [`"${path}" (${shownShape(shape)}) is not in the model`];
    const [there, here] = [shownShape(shape), shownShape(wanted)];
    return there === here ? [] : [`"${path}" is ${there} there and ${here} in the model`];
  });
  const [first, ...rest] = problems;
  if (first === undefined) return;
  const more = rest.length > 0 ? `, and ${rest.length} more` : '';
  throw mismatch(
    `The weights in "${where}" do not fit the model: ${first}${more}.`,
    'Give model and objective the options that run had. Blocks and heads that it did not have are fine: they start as usual.',
  );
}

/**
 * The weights that `train.initFrom` names, checked against the model and the tokenizer; nothing where it names none.
 *
 * @throws LlmxError `LLMX_RUN_MISSING`, `LLMX_CHECKPOINT_MISSING`, `LLMX_CHECKPOINT_DAMAGED`, `LLMX_PARAM_MISMATCH`,
 *   `LLMX_TOKENIZER_MISMATCH`
 */
export function openInitialWeights({ resolved, recipe, dataset }: Session, cwd: string): InitialWeights | undefined {
  const { initFrom } = resolved.config.train;
  if (initFrom === undefined) return undefined;
  const checkpoint = loadCheckpoint(locateCheckpoint(initFrom, cwd).checkpoint);
  const { directory, model, state } = checkpoint;
  const { tokenizer } = describedRun(checkpoint);
  if (tokenizer.hash !== dataset.tokenizer.hash)
    throw new LlmxError(
      'LLMX_TOKENIZER_MISMATCH',
      `"${directory}" was trained with the tokenizer "${tokenizer.name}" (${tokenizer.hash.slice(0, 12)}), the dataset "${dataset.path}" was made with "${dataset.info.tokenizer.name}" (${dataset.tokenizer.hash.slice(0, 12)}).`,
      { hint: 'Prepare the data with the tokenizer of the run that train.initFrom names.' },
    );
  const stored: Shapes = new Map([...model].map(([path, { shape }]) => [path, shape]));
  const shapes = parameterShapes(recipe);
  checkFit(stored, shapes, directory);
  return {
    checkpoint: directory,
    step: state.step,
    sha256: state.files[TENSOR_FILES.model]!.sha256,
    taken: count(shapes, (path) => stored.has(path)),
    fresh: count(shapes, (path) => !stored.has(path)),
    leftOut: count(stored, (path) => !shapes.has(path)),
    tensors: new Map([...model].filter(([path]) => shapes.has(path))),
  };
}

/** Initial parameters with the source's in their place. Disposes what it replaces, *consumes* the source's tensors. */
export function startingFrom({ tensors }: InitialWeights, initial: Params): Params {
  const stored = uploadParams(tensors);
  tensors.clear(); // for a run's whole length nobody needs a second copy
  return mapParams(initial, (value, path) => {
    const taken = stored[path];
    if (taken !== undefined) value.dispose();
    return taken ?? value;
  });
}
