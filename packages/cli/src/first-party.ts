import type { Host } from '@llmx/core';

/** Packages that bring components known by name, as `kind:name`; a configuration that asks for one gets this hint. */
export const FIRST_PARTY: Host['firstParty'] = {};
