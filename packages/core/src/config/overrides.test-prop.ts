import * as fc from 'fast-check';
import { expect, test } from 'vitest';

import { applyOverrides } from './overrides.ts';
import { isTree } from './tree.ts';

const key = fc.stringMatching(/^[a-zA-Z][a-zA-Z0-9_-]{0,8}$/);
const text = fc.stringMatching(/^[ -~]{0,12}$/);
const scalar = fc.oneof(fc.integer(), fc.boolean(), fc.constant(null), text);
const value = fc.oneof(scalar, fc.array(scalar, { maxLength: 3 }), fc.dictionary(key, scalar, { maxKeys: 3 }));

test('what is set stands at its path, and nothing else changes', () => {
  const config = { other: { kept: [1] } };
  fc.assert(
    fc.property(fc.array(key, { minLength: 1, maxLength: 4 }), value, ([first = '', ...rest], wanted) => {
      fc.pre(first !== 'other' && first !== 'extends');
      const path = [first, ...rest];
      const result = applyOverrides(config, [`${path.join('.')}=${JSON.stringify(wanted)}`]);
      expect(path.reduce<unknown>((target, name) => (isTree(target) ? target[name] : undefined), result)).toEqual(
        wanted,
      );
      expect(result['other']).toBe(config.other);
      expect(config).toEqual({ other: { kept: [1] } });
    }),
  );
});
