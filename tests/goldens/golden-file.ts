import { existsSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

import { readSafetensors } from '../../packages/core/src/checkpoint/safetensors.ts';
import { largestDifference, type Numbers, toArray } from '../../packages/core/src/testing/close.ts';
import { tf } from '../../packages/core/src/tensor/index.ts';

/** Folder of the reference vectors: LLMX_GOLDENS_DIR, or the one in the repository. */
export const GOLDENS_DIRECTORY = process.env['LLMX_GOLDENS_DIR'] ?? fileURLToPath(new URL('.', import.meta.url));

interface Tolerance {
  /** Largest absolute error of any value. */
  readonly atol: number;
  /** Larger than `atol`: for another form of the same computation than the reference's. */
  readonly atol_any_form?: number;
  /** With `bulk_frac`: the share of values that must be within this smaller error. */
  readonly atol_bulk?: number;
  readonly bulk_frac?: number;
  /** Half-open range of flat indices that mean nothing. */
  readonly skip?: readonly [number, number];
}

/** One group of reference vectors: `<name>.safetensors` with its tolerances. */
export class GoldenFile {
  readonly cases: Readonly<Record<string, Readonly<Record<string, unknown>>>>;
  readonly metadata: Readonly<Record<string, string>>;
  readonly #tensors: ReturnType<typeof readSafetensors>['tensors'];
  readonly #tolerances: Readonly<Record<string, Tolerance>>;

  private constructor(path: string) {
    const { metadata, tensors } = readSafetensors(`${path}.safetensors`);
    this.metadata = metadata;
    this.#tensors = tensors;
    this.#tolerances = JSON.parse(readFileSync(`${path}.tol.json`, 'utf8')) as Record<string, Tolerance>;
    this.cases = JSON.parse(metadata['cases'] ?? '{}') as GoldenFile['cases'];
  }

  /** The group, or nothing where a folder given by the user does not have it. */
  static open(name: string): GoldenFile | undefined {
    const path = `${GOLDENS_DIRECTORY}/${name}`;
    if (process.env['LLMX_GOLDENS_DIR'] !== undefined && !existsSync(`${path}.safetensors`)) return undefined;
    return new GoldenFile(path);
  }

  /** Names of the tensors that start with a prefix, without it. */
  names(prefix: string): string[] {
    return [...this.#tensors.keys()].flatMap((name) => (name.startsWith(prefix) ? [name.slice(prefix.length)] : []));
  }

  values(name: string): { shape: readonly number[]; data: ArrayLike<number> } {
    const tensor = this.#tensors.get(name);
    if (tensor === undefined) throw new Error(`The reference vectors have no tensor "${name}".`);
    return { shape: tensor.shape, data: tensor.data };
  }

  tensor(name: string): tf.Tensor {
    const { shape, data } = this.values(name);
    const dtype = data instanceof Int32Array ? 'int32' : 'float32';
    return tf.tensor(data, [...shape], dtype);
  }

  /** Fails unless `actual` is as close to the tensor as its tolerance asks. */
  expect(actual: Numbers, name: string, { anyForm = false }: { readonly anyForm?: boolean } = {}): void {
    const tolerance = this.#tolerances[name];
    if (tolerance === undefined) throw new Error(`There is no tolerance for "${name}".`);
    const counts = indicesToCompare(toArray(actual).length, tolerance.skip);
    const [mine, theirs] = [toArray(actual), this.values(name).data].map((all) => counts.map((index) => all[index]!));
    const { difference, index } = largestDifference(mine!, theirs!);
    const allowed = anyForm ? (tolerance.atol_any_form ?? tolerance.atol) : tolerance.atol;
    if (!(difference <= allowed)) {
      const place = `${name}[${counts[index]}]: ${mine![index]}, expected ${theirs![index]}`;
      throw new Error(`${place}; off by ${difference}, allowed ${allowed}.`);
    }
    const { atol_bulk: bulk, bulk_frac: share } = tolerance;
    if (bulk === undefined || share === undefined) return;
    const close = mine!.filter((value, place) => Math.abs(value - theirs![place]!) <= bulk).length;
    if (close < share * mine!.length)
      throw new Error(`${name}: ${close} of ${mine!.length} values are within ${bulk}, ${share * 100} % must be.`);
  }
}

function indicesToCompare(length: number, [start, end]: readonly [number, number] = [0, 0]): number[] {
  const all = Array.from({ length }, (_, index) => index);
  return all.filter((index) => index < start || index >= end);
}
