import { expect, test } from 'vitest';

import { isTree, merge, pathsOf } from './tree.ts';

test('objects merge key by key, lists and scalars replace', () => {
  const base = { a: { b: 1, c: [1, 2] }, d: 1 };
  expect(merge(base, { a: { c: [3] }, e: 2 })).toEqual({ a: { b: 1, c: [3] }, d: 1, e: 2 });
  expect(merge(base, { a: undefined })).toEqual(base);
  expect(merge(base, { a: null })).toEqual({ a: null, d: 1 });
});

test('a selection merges with one of the same component only', () => {
  const base = { name: 'adamw', beta1: 0.9 };
  expect(merge(base, { name: 'adamw', lr: 1 })).toEqual({ name: 'adamw', beta1: 0.9, lr: 1 });
  expect(merge(base, { lr: 1 })).toEqual({ name: 'adamw', beta1: 0.9, lr: 1 });
  expect(merge(base, { name: 'lion' })).toEqual({ name: 'lion' });
  expect(merge(base, 'lion')).toBe('lion');
  expect(merge('adamw', { lr: 1 })).toEqual({ name: 'adamw', lr: 1 });
});

test('keys never reach a prototype', () => {
  const hostile: unknown = JSON.parse('{ "__proto__": { "polluted": true }, "constructor": { "polluted": true } }');
  const merged = merge({}, hostile) as object;
  expect(Object.keys(merged)).toEqual(['__proto__', 'constructor']);
  expect(Object.getPrototypeOf(merged)).toBe(Object.prototype);
  expect('polluted' in {}).toBe(false);
});

test('plain objects are trees, instances and lists are not', () => {
  expect([{}, Object.create(null), [], new Date(0), null, 'a'].map(isTree)).toEqual([
    true,
    true,
    false,
    false,
    false,
    false,
  ]);
});

test('paths of everything given', () => {
  expect(pathsOf({ a: { b: [{ c: 1 }] }, d: undefined, e: null })).toEqual(['a', 'a.b', 'a.b.0', 'a.b.0.c', 'e']);
});
