import { describeObjective } from '../testing/index.ts';

describeObjective({ name: 'next-token' });
