/**
 * States as flat records of host tensors. The name of a leaf is its path joined by `/`; in keys `~` is written `~0` and
 * `/` is written `~1`, as in JSON Pointer. Numbers are F64 scalars, so that every bit of them survives. An object
 * without keys is an empty U8 tensor whose name ends in `/`; TensorFlow.js has neither type, so nothing is ambiguous.
 */
import { assert, LlmxError } from '../errors/index.ts';
import type { Params, StateTree } from '../plugin/types.ts';
import { tf } from '../tensor/tf.ts';
import type { HostTensor, HostTensors } from './safetensors.ts';

type Nested = ReadonlyMap<string, Nested | HostTensor>;

const escaped = (key: string): string => key.replaceAll('~', '~0').replaceAll('/', '~1');
const unescaped = (key: string): string => key.replaceAll('~1', '/').replaceAll('~0', '~');

const unstorable = (name: string, what: string): LlmxError =>
  new LlmxError('LLMX_PLUGIN_INVALID', `The state "${name}" is ${what}, which a checkpoint cannot hold.`, {
    hint: 'A state consists of float32, int32 and bool tensors and numbers, nested in plain objects.',
  });

/** Copies a tensor; the backend may hand out its own memory, which the next step overwrites. */
function download(tensor: tf.Tensor, name: string): HostTensor {
  const { dtype, shape } = tensor;
  switch (dtype) {
    case 'float32':
      return { dtype: 'F32', shape, data: new Float32Array(tensor.dataSync<'float32'>()) };
    case 'int32':
      return { dtype: 'I32', shape, data: new Int32Array(tensor.dataSync<'int32'>()) };
    case 'bool':
      return { dtype: 'BOOL', shape, data: new Uint8Array(tensor.dataSync<'bool'>()) };
    default:
      throw unstorable(name, `a tensor of type ${dtype}`);
  }
}

function isPlainObject(value: unknown): value is Readonly<Record<string, StateTree>> {
  if (typeof value !== 'object' || value === null) return false;
  const prototype: unknown = Object.getPrototypeOf(value);
  return prototype === Object.prototype || prototype === null;
}

function* leaves(tree: StateTree, name: string): Generator<[string, HostTensor]> {
  if (typeof tree === 'number') return yield [name, { dtype: 'F64', shape: [], data: Float64Array.of(tree) }];
  if (tree instanceof tf.Tensor) return yield [name, download(tree, name)];
  if (!isPlainObject(tree)) throw unstorable(name, Array.isArray(tree) ? 'an array' : `of type ${typeof tree}`);
  const entries = Object.entries(tree);
  if (entries.length === 0 && name !== '') yield [`${name}/`, { dtype: 'U8', shape: [0], data: new Uint8Array(0) }];
  for (const [key, child] of entries) {
    if (key === '') throw unstorable(name, 'an object with an empty key');
    yield* leaves(child, name === '' ? escaped(key) : `${name}/${escaped(key)}`);
  }
}

/**
 * Copies a state to the host, synchronously: when it returns, training may go on. *Borrows* the tensors.
 *
 * @throws LlmxError `LLMX_PLUGIN_INVALID` for a value that cannot be stored
 */
export const downloadTree = (tree: { readonly [key: string]: StateTree }): HostTensors => new Map(leaves(tree, ''));

function nest(tensors: HostTensors): Nested {
  const root = new Map<string, Nested | HostTensor>();
  for (const [name, tensor] of tensors) {
    const keys = name.split('/').map(unescaped);
    const last = keys.pop() ?? '';
    let node = root;
    for (const key of keys) {
      const child = node.get(key) ?? new Map<string, Nested | HostTensor>();
      assert(child instanceof Map, `State "${name}" lies inside a tensor.`);
      node.set(key, child);
      node = child;
    }
    if (last !== '') node.set(last, tensor);
  }
  return root;
}

function upload(node: Nested | HostTensor): StateTree {
  if (node instanceof Map) {
    return Object.fromEntries([...(node as Nested)].map(([key, child]) => [key, upload(child)]));
  }
  const { dtype, shape, data } = node as HostTensor;
  switch (dtype) {
    case 'F64':
      return data[0] ?? Number.NaN;
    case 'F32':
      return tf.tensor(data, [...shape], 'float32');
    case 'I32':
      return tf.tensor(data, [...shape], 'int32');
    case 'U8':
    case 'BOOL':
      return tf.tensor(data, [...shape], 'bool');
  }
}

/** The state that `downloadTree` copied. *Consumes* the arrays; the caller disposes the tensors. */
export const uploadTree = (tensors: HostTensors): { readonly [key: string]: StateTree } =>
  upload(nest(tensors)) as { readonly [key: string]: StateTree };

/**
 * Parameters that `downloadTree` copied. *Consumes* the arrays; the caller disposes the tensors.
 *
 * @throws LlmxError `LLMX_PARAM_MISMATCH` where a value is not a parameter
 */
export function uploadParams(tensors: HostTensors): Params {
  for (const [name, { dtype }] of tensors) {
    if (dtype === 'F32' && !name.includes('/')) continue;
    throw new LlmxError('LLMX_PARAM_MISMATCH', `"${name}" of type ${dtype} is not a float32 parameter of a model.`, {
      hint: 'Name a checkpoint or weights file that llmx has written.',
    });
  }
  return uploadTree(tensors) as Params;
}
