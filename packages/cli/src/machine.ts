import fs from 'node:fs';
import os from 'node:os';

const MIB = 2 ** 20;

/** Instruction sets that matter for matrix products, as Linux names them. */
const FEATURES = [
  'avx',
  'avx2',
  'fma',
  'f16c',
  'avx512f',
  'avx512_bf16',
  'avx512_vnni',
  'amx_tile',
  'amx_bf16',
  'amx_int8',
  'asimd',
  'sve',
  'bf16',
];

export interface Machine {
  readonly platform: string;
  readonly arch: string;
  readonly cpu: string;
  /** Logical cores that this process may use. */
  readonly cores: number;
  readonly memoryMiB: number;
  /** Instruction sets; `null` where the system does not tell. */
  readonly features: readonly string[] | null;
}

function cpuFeatures(): string[] | null {
  try {
    const flags = /^(?:flags|Features)\s*:(.*)$/m.exec(fs.readFileSync('/proc/cpuinfo', 'utf8'))?.[1]?.split(' ');
    return flags === undefined ? null : FEATURES.filter((feature) => flags.includes(feature));
  } catch {
    return null; // not Linux
  }
}

export const describeMachine = (): Machine => ({
  platform: `${os.platform()} ${os.release()}`,
  arch: os.arch(),
  cpu: os.cpus()[0]?.model.trim() || 'unknown',
  cores: os.availableParallelism(),
  memoryMiB: Math.round(os.totalmem() / MIB),
  features: cpuFeatures(),
});
