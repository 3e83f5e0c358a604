import type { Command } from '@oclif/core';

import { Components } from './components.ts';
import { ConfigSchema } from './config/schema.ts';
import { ConfigShow } from './config/show.ts';
import { DataInspect } from './data/inspect.ts';
import { DataPrepare } from './data/prepare.ts';
import { Doctor } from './doctor.ts';
import { Eval } from './eval.ts';
import { Generate } from './generate.ts';
import { Init } from './init.ts';
import { Profile } from './profile.ts';
import { RunsVerify } from './runs/verify.ts';
import { Train } from './train.ts';

/** Every command by its id; package.json points oclif here. */
export const COMMANDS: Readonly<Record<string, typeof Command>> = {
  components: Components,
  'config:schema': ConfigSchema,
  'config:show': ConfigShow,
  'data:inspect': DataInspect,
  'data:prepare': DataPrepare,
  doctor: Doctor,
  eval: Eval,
  generate: Generate,
  init: Init,
  profile: Profile,
  'runs:verify': RunsVerify,
  train: Train,
};
