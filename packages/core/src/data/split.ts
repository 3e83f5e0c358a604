import { createHash } from 'node:crypto';

import { LlmxError } from '../errors/index.ts';
import type { DatasetWriter, NamedTokenizer } from './dataset-writer.ts';
import type { TextDocument } from './documents.ts';

const HASH_BYTES = 6;

/** A document whose split is not decided yet. */
interface HeldDocument extends TextDocument {
  readonly hash: Buffer;
}

/**
 * Sends documents to the splits `train` and `val` by the hash of their text, so that a document stays where it is when
 * others come or go. At most two documents are held back: the only one so far, and the one that becomes `val` if no hash
 * chooses any.
 */
export class Splitter {
  readonly #fraction: number;
  readonly #tokenizer: NamedTokenizer;
  readonly #writer: Pick<DatasetWriter, 'add'>;
  #count = 0;
  #only: HeldDocument | undefined;
  #candidate: HeldDocument | undefined;
  #written = { train: 0, val: 0 };

  /** `fraction` of the documents, 0 to 0.5, go to `val`. */
  constructor(fraction: number, tokenizer: NamedTokenizer, writer: Pick<DatasetWriter, 'add'>) {
    this.#fraction = fraction;
    this.#tokenizer = tokenizer;
    this.#writer = writer;
  }

  add(document: TextDocument): void {
    this.#count++;
    if (this.#fraction === 0) return this.#write('train', document);
    const held = { ...document, hash: createHash('sha256').update(document.text).digest() };
    if (this.#count === 1) {
      this.#only = held;
      return;
    }
    if (this.#only !== undefined) this.#place(this.#only);
    this.#only = undefined;
    this.#place(held);
  }

  /**
   * Decides about what was held back.
   *
   * @throws LlmxError `LLMX_INPUT_EMPTY` if there was no document, or none for `train`
   */
  finish(): void {
    if (this.#count === 0)
      throw new LlmxError('LLMX_INPUT_EMPTY', 'The input holds no text: every document is empty.', {
        hint: 'Name files that hold text.',
      });
    if (this.#only !== undefined) return this.#cut(this.#only);
    if (this.#candidate !== undefined) this.#write('val', this.#candidate);
    if (this.#written.train === 0)
      throw noTraining(`all ${this.#count} documents fall into the held-out fraction of ${this.#fraction}`);
  }

  #place(document: HeldDocument): void {
    if (hashFraction(document.hash) < this.#fraction) {
      if (this.#candidate !== undefined) this.#write('train', this.#candidate);
      this.#candidate = undefined;
      return this.#write('val', document);
    }
    if (this.#written.val > 0) return this.#write('train', document);
    const current = this.#candidate;
    const smaller = current !== undefined && current.hash.compare(document.hash) <= 0 ? current : document;
    const other = smaller === document ? current : document;
    if (other !== undefined) this.#write('train', other);
    this.#candidate = smaller;
  }

  #write(split: 'train' | 'val', { text, source }: TextDocument): void {
    this.#written[split]++;
    this.#writer.add(split, { ids: this.#tokenizer.instance.encode(text), bytes: text.length, source });
  }

  /** The only document: its last tokens are `val`, at least one. */
  #cut({ text, source }: TextDocument): void {
    const tokenizer = this.#tokenizer.instance;
    const ids = tokenizer.encode(text);
    const end = ids.length - Math.max(1, Math.floor(ids.length * this.#fraction));
    if (end <= 0) throw noTraining('the only document is too short to hold out a part of it');
    let held = 0;
    for (let index = end; index < ids.length; index++) held += tokenizer.byteLengths[ids[index]!] ?? 0;
    this.#writer.add('train', { ids: ids.subarray(0, end), bytes: text.length - held, source });
    this.#writer.add('val', { ids: ids.subarray(end), bytes: held, source });
  }
}

/** The first 48 bits of a hash as a number in [0, 1). */
const hashFraction = (hash: Buffer): number => hash.readUIntBE(0, HASH_BYTES) / 2 ** (8 * HASH_BYTES);

const noTraining = (reason: string): LlmxError =>
  new LlmxError('LLMX_INPUT_EMPTY', `No text is left to train on: ${reason}.`, {
    hint: 'Lower --val-fraction (0 holds nothing out), or add documents.',
  });
