import fs from 'node:fs';

import { z } from 'zod';

import { foreignReason } from '../data/files.ts';
import { encodeState } from './encode-state.ts';
import { damaged, unreadable } from './safetensors-header.ts';

const stateSchema = z.strictObject({
  format: z.literal('llmx-checkpoint'),
  version: z.literal(1),
  /** Optimizer steps done. */
  step: z.int().min(0),
  /** Tokens consumed up to and including that step. */
  tokensSeen: z.int().min(0),
  /** Whether it was the run's best so far when it was written. */
  best: z.boolean(),
  /** The optimizer whose state is stored. */
  optimizer: z.object({ name: z.string() }).catchall(z.unknown()).readonly(),
  /** Plugins that took part; loading needs those that have a state. */
  plugins: z.array(z.strictObject({ name: z.string(), version: z.string() })).readonly(),
  /** What the training loop remembers, as JSON: last metrics, best evaluation. */
  record: z.unknown(),
  /** What evaluation and generation need where the checkpoint was copied elsewhere, as JSON: configuration, tokenizer. */
  run: z.unknown(),
  /** Size and hash of each file beside this one. */
  files: z.record(z.string(), z.strictObject({ bytes: z.int().min(0), sha256: z.string() })),
});

/** Content of state.json, without its checksum. */
export type CheckpointState = z.infer<typeof stateSchema>;
/** The part of it that is known before the files are written. */
export type CheckpointFacts = Omit<CheckpointState, 'format' | 'version' | 'files'>;

function readJson(file: string): { bytes: Buffer; state: object } {
  const foreign = foreignReason(file);
  if (foreign !== undefined) throw damaged(file, foreign);
  let bytes: Buffer;
  try {
    bytes = fs.readFileSync(file);
  } catch (cause) {
    throw unreadable(file, cause);
  }
  try {
    const { sha256: _sha256, ...state } = JSON.parse(bytes.toString()) as { sha256?: unknown };
    return { bytes, state };
  } catch (cause) {
    throw damaged(file, 'it is not JSON', cause);
  }
}

/**
 * Reads and checks a state.json.
 *
 * @throws LlmxError `LLMX_CHECKPOINT_DAMAGED`, `LLMX_IO_FAILED`
 */
export function readState(file: string): CheckpointState {
  const { bytes, state } = readJson(file);
  // All bytes are compared, since some changed ones, e.g. the case of an exponent's letter, parse to the same.
  if (!bytes.equals(Buffer.from(encodeState(state)))) throw damaged(file, 'its content does not match its checksum');
  const { data, error } = stateSchema.safeParse(state);
  if (data !== undefined) return data;
  const [issue] = error.issues;
  const reason = issue === undefined ? '' : ` (${issue.path.join('.')}: ${issue.message})`;
  throw damaged(file, `it is not of the form that this version of llmx reads${reason}`, error);
}
