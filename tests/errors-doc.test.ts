import fs from 'node:fs';

import { ERROR_CODES } from '@llmx/core';
import { expect, test } from 'vitest';

import { errorsPage, errorsPageFile } from '../scripts/errors-doc.mjs';

const page = fs.readFileSync(errorsPageFile, 'utf8');

test('docs/reference/errors.md is the page of the error codes; `npm run docs:errors` writes it', () => {
  expect(page).toBe(errorsPage(ERROR_CODES));
});

test('the page has one section for each code, in order', () => {
  const sections = [...page.matchAll(/^## (.*)$/gm)].map(([, code]) => code);
  expect(sections).toEqual(Object.keys(ERROR_CODES));
});

test('every code says when it is raised in one sentence', () => {
  for (const { when } of Object.values(ERROR_CODES)) expect(when).toMatch(/^[A-Z].*\.$/);
});
