import { z } from 'zod';

import { pathPatterns } from '../config/path-patterns.ts';
import { LlmxError, suggestion } from '../errors/index.ts';
import type { ElementwiseRule } from '../plugin/types.ts';

/** Options of decoupled weight decay (Loshchilov & Hutter, arXiv 1711.05101) that optimizers share. */
export const decayOptions = (weightDecay: number) => ({
  weightDecay: z
    .number()
    .min(0)
    .default(weightDecay)
    .describe('Decoupled: a weight shrinks by lr * weightDecay a step.'),
  decay: z
    .union([z.enum(['matrices', 'all']), z.array(z.string())])
    .default('matrices')
    .describe(
      'What decays: parameters of two or more dimensions, all, or those whose path matches a pattern (* is any text).',
    ),
});

interface DecayConfig {
  readonly weightDecay: number;
  readonly decay: 'matrices' | 'all' | readonly string[];
}

/** The decay of each parameter, and the check that every pattern means something. */
export function decayRule({ weightDecay, decay }: DecayConfig): Pick<ElementwiseRule, 'decay' | 'checkPaths'> {
  if (decay === 'all') return { decay: () => weightDecay };
  if (decay === 'matrices') return { decay: (_path, shape) => (shape.length >= 2 ? weightDecay : 0) };
  const patterns = pathPatterns(decay);
  return {
    decay: (path) => (patterns.matches(path) ? weightDecay : 0),
    checkPaths(paths) {
      const idle = patterns.idle(paths);
      if (idle !== undefined)
        throw new LlmxError(
          'LLMX_CONFIG_INVALID',
          `The decay pattern "${idle}" matches no parameter that is trained.`,
          {
            hint: suggestion(idle, paths),
          },
        );
    },
  };
}
