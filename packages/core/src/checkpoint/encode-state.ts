import { createHash } from 'node:crypto';

function sorted(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(sorted);
  if (typeof value !== 'object' || value === null) return value;
  const entries = Object.entries(value).toSorted(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0));
  return Object.fromEntries(entries.map(([key, item]) => [key, sorted(item)]));
}

/**
 * The text of state.json: JSON with sorted keys and an indent of 2, where `sha256` is the hash of the same object
 * without that key, as JSON with sorted keys and no white space.
 */
export function encodeState(state: object): string {
  const sha256 = createHash('sha256')
    .update(JSON.stringify(sorted(state)))
    .digest('hex');
  return `${JSON.stringify(sorted({ ...state, sha256 }), null, 2)}\n`;
}
