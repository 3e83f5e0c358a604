import { expect, test } from 'vitest';

import { componentOptions } from './component-lines.ts';

test('options have types in words, defaults, and whether they are required', () => {
  const properties = {
    lr: { type: 'number', default: 0.1, description: 'Rate.' },
    norm: { enum: ['a', 'b'] },
    sizes: { type: 'array', items: { anyOf: [{ type: 'integer' }, { const: 'auto' }] } },
    anything: {},
  };
  expect(componentOptions({ properties, required: ['norm'] })).toEqual([
    { name: 'lr', type: 'number', default: 0.1, required: false, description: 'Rate.' },
    { name: 'norm', type: 'a | b', required: true, description: undefined },
    { name: 'sizes', type: 'list of integer | auto', required: false, description: undefined },
    { name: 'anything', type: 'any', required: false, description: undefined },
  ]);
});
