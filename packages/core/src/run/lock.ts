/**
 * One process per run. The lock is a file that is created whole and exclusively, by linking a file that is already
 * written. A dead owner's lock is not deleted, which could hit the lock of a quicker rival, but replaced in one step by
 * whoever holds the claim on exactly that lock. A claim is a lock too, so a dead claimant is succeeded the same way.
 */
import { randomUUID } from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';

import { z } from 'zod';

import { writeSynced } from '../checkpoint/durable-file.ts';
import { foreignReason } from '../data/files.ts';
import { ioError, LlmxError } from '../errors/index.ts';
import type { Host } from '../plugin/host.ts';

const LOCK_FILE = '.lock';

/** Error codes of file systems without hard links. */
const NO_LINKS = new Set(['EPERM', 'ENOTSUP', 'EOPNOTSUPP', 'ENOSYS', 'EMLINK']);

const ownerSchema = z.object({
  pid: z.int(),
  /** Id of the process's start; see `Host`. */
  started: z.string(),
  hostname: z.string(),
  /** Tells this lock from every other; part of a file's name, so it must not lead elsewhere. */
  token: z.string().regex(/^[\w-]+$/),
});
type Owner = z.infer<typeof ownerSchema>;
/** Held by a process that cannot be known, since the file is not readable as a lock. */
const UNKNOWN = 'unknown';

const errorCode = (error: unknown): string => String((error as NodeJS.ErrnoException).code);

/** Who holds the lock `file`; `undefined` if nobody does. */
function readOwner(file: string): Owner | typeof UNKNOWN | undefined {
  if (foreignReason(file) !== undefined) return UNKNOWN;
  try {
    return ownerSchema.parse(JSON.parse(fs.readFileSync(file, 'utf8')));
  } catch (error) {
    return errorCode(error) === 'ENOENT' ? undefined : UNKNOWN;
  }
}

/** Contends for the lock `file` on behalf of one process. */
class Contender {
  readonly owner: Owner;
  readonly #host: Host['process'];

  constructor(host: Host['process']) {
    const { pid, started, hostname } = host;
    this.owner = { pid, started, hostname, token: randomUUID() };
    this.#host = host;
  }

  /** Takes the lock, or returns whoever has it. */
  take(file: string): Owner | typeof UNKNOWN | undefined {
    for (;;) {
      if (this.#create(file)) return undefined;
      const holder = readOwner(file);
      if (holder === undefined) continue; // released in between
      if (holder === UNKNOWN || !this.#isDead(holder)) return holder;
      const claim = `${file}-${holder.token}`;
      const rival = this.take(claim);
      if (rival !== undefined) return rival;
      try {
        if (this.#replace(file, holder)) return undefined;
      } finally {
        fs.rmSync(claim, { force: true });
      }
    }
  }

  isMine(file: string): boolean {
    const holder = readOwner(file);
    return holder !== undefined && holder !== UNKNOWN && holder.token === this.owner.token;
  }

  #isDead({ hostname, pid, started }: Owner): boolean {
    return hostname === this.#host.hostname && !this.#host.isAlive(pid, started);
  }

  /** Creates the lock; `false` if there is one. */
  #create(file: string): boolean {
    const whole = this.#written(file);
    try {
      fs.linkSync(whole, file);
      return true;
    } catch (error) {
      // ENOENT: whoever has taken the lock meanwhile has cleared the file away.
      if (errorCode(error) === 'EEXIST' || errorCode(error) === 'ENOENT') return false;
      if (!NO_LINKS.has(errorCode(error))) throw ioError(error, file, 'create');
    } finally {
      fs.rmSync(whole, { force: true });
    }
    try {
      fs.writeFileSync(file, JSON.stringify(this.owner), { flag: 'wx' });
      return true;
    } catch (error) {
      if (errorCode(error) === 'EEXIST') return false;
      throw ioError(error, file, 'create');
    }
  }

  /** Puts this process in the place of a dead owner; `false` if another one did so before the claim was taken. */
  #replace(file: string, dead: Owner): boolean {
    const holder = readOwner(file);
    if (holder === undefined || holder === UNKNOWN || holder.token !== dead.token) return false;
    fs.renameSync(this.#written(file), file);
    return true;
  }

  /** Removes what contenders left that died; only the lock's holder may call this. A living one tries again. */
  clear(file: string): void {
    const [directory, beside] = [path.dirname(file), `${path.basename(file)}-`];
    for (const name of fs.readdirSync(directory))
      if (name.startsWith(beside)) fs.rmSync(path.join(directory, name), { recursive: true, force: true });
  }

  /** A complete lock of this process under a name that is not contended for. */
  #written(file: string): string {
    const whole = `${file}-new-${randomUUID()}`;
    writeSynced(whole, [JSON.stringify(this.owner)]);
    return whole;
  }
}

function lockedError(directory: string, holder: Owner | typeof UNKNOWN, thisHost: string): LlmxError {
  const file = path.join(directory, LOCK_FILE);
  if (holder === UNKNOWN) {
    const hint = `If no process trains there, delete "${file}".`;
    return new LlmxError('LLMX_RUN_LOCKED', `The run "${directory}" is locked by an unknown process.`, { hint });
  }
  const hint =
    holder.hostname === thisHost
      ? 'Wait until that process ends, stop it, or choose another --name.'
      : `If that process no longer runs on ${holder.hostname}, delete "${file}".`;
  const message = `The run "${directory}" is in use by process ${holder.pid} on ${holder.hostname}.`;
  return new LlmxError('LLMX_RUN_LOCKED', message, { hint });
}

export interface RunLock {
  /** Gives the lock back, if it is still this one. */
  release(): void;
}

/**
 * Makes this process the only one that may write to a run's directory, which must exist. A lock whose process is dead
 * is taken over.
 *
 * @throws LlmxError `LLMX_RUN_LOCKED` naming the process and its host; `LLMX_DISK_FULL`, `LLMX_IO_FAILED`
 */
export function acquireLock(directory: string, host: Host['process']): RunLock {
  const file = path.join(directory, LOCK_FILE);
  const contender = new Contender(host);
  const holder = contender.take(file);
  if (holder !== undefined) throw lockedError(directory, holder, host.hostname);
  contender.clear(file);
  return {
    release: () => {
      if (contender.isMine(file)) fs.rmSync(file, { force: true });
    },
  };
}
