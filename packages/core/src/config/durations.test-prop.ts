import * as fc from 'fast-check';
import { expect, test } from 'vitest';

import { stepsOf } from './durations.ts';

test('tokens round up to whole steps', () => {
  fc.assert(
    fc.property(fc.integer({ min: 0, max: 1e12 }), fc.integer({ min: 1, max: 1e7 }), (tokens, tokensPerStep) => {
      const steps = stepsOf(`${tokens}tok`, { tokensPerStep });
      expect(steps * tokensPerStep).toBeGreaterThanOrEqual(tokens);
      expect((steps - 1) * tokensPerStep).toBeLessThan(tokens);
    }),
  );
});

test('a share is between one step and the whole run', () => {
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 100 }), fc.integer({ min: 1, max: 1e9 }), (percent, totalSteps) => {
      const steps = stepsOf(`${percent}%`, { tokensPerStep: 1, totalSteps });
      expect(steps).toBeGreaterThanOrEqual(1);
      expect(steps).toBeLessThanOrEqual(totalSteps);
      expect(Math.abs(steps - (totalSteps * percent) / 100)).toBeLessThan(1);
    }),
  );
});
