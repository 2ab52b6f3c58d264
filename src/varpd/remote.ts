/**
 * Third-party lookup plugins: each runs in a worker thread of its own, and is a `LookupPlugin` like any other to the
 * rest of varpd. Nothing it does wrong gets past here. It throws: the call fails. It does not answer: the call ends at
 * its deadline. It loops, ends or takes too much memory: its thread is replaced, and its instances are started again
 * with their properties and what they saved. It lies or answers twice: the answer is refused or ignored. Meanwhile its
 * devices are degraded, and what is in their target caches is forwarded as before.
 *
 *   device ─ RemoteInstance ─┐                           ┌─ Hosted ─ the plugin's instance
 *   device ─ RemoteInstance ─┼─ Supervisor ─ Life ═══════┼─ Hosted ─ the plugin's instance
 *                            │  replaces it   one worker └─ ...
 *
 * This contains faults, not malice: a thread has the rights of its process, so that whoever installs a plugin trusts
 * it as much as the daemon itself. What a thread shares with its process it can harm: by native code that crashes, by
 * signals, and by a single call of the engine's own, such as the filling of a huge array, which nothing can interrupt
 * and which ends the process where it takes more than eight times the memory a plugin may hold.
 */
import { OverlayError } from '../errors.js';
import type { Log } from '../log.js';
import { LOOKUP_VERSION, type LookupInstance, type LookupPlugin } from './plugin.js';
import { RemoteInstance } from './remote/instance.js';
import { resolveModule } from './remote/resolve.js';
import { type RemoteCounts, Supervisor } from './remote/supervisor.js';

export type { RemoteCounts };

/** The longest a plugin's module may take to be imported. */
const IMPORT_MS_MAX = 10_000;
/** The deadline of a lookup (design, section 6), also of `arp`, `dhcp`, `save` and of a property's change. */
const LOOKUP_MS_MAX = 2000;
const START_MS_MAX = 10_000;
const STOP_MS_MAX = 10_000;
/** Four pings without an answer, 2 s, are an endless loop. */
const PING_MS = 500;
/** The wait before the first replacement; 32 s in the end. */
const BACKOFF_MS = 1000;
/** What a thread may hold, on its heap and beside it: a map of 65,536 targets takes some 30 MiB. */
const MEMORY_MB_MAX = 256;

export interface RemotePluginOptions {
  readonly log: Log;
  /** Where relative paths begin and packages are looked for; the working directory by default. */
  readonly directory?: string;
  /** Milliseconds; each has a default. */
  readonly importMs?: number;
  readonly lookupMs?: number;
  readonly startMs?: number;
  readonly stopMs?: number;
  readonly pingMs?: number;
  readonly backoffMs?: number;
  readonly memoryMb?: number;
}

export interface RemotePlugin extends LookupPlugin {
  readonly counts: RemoteCounts;
  /** Ends its thread for good; resolves when it is gone. Instances that still run reject every call with EAGAIN. */
  close(): Promise<void>;
}

/**
 * Loads a plugin from the path of its module (absolute, or relative to `directory`; a directory is loaded as its
 * package.json says) or the name of its npm package. The module exports it as `plugin` or as its default. Rejects with
 * ENOENT when there is no such module, EINVAL when its import fails or its plugin is not well declared, ETIME when the
 * import takes too long, EIO when its thread dies of it.
 */
export async function loadRemotePlugin(
  specifier: string,
  options: RemotePluginOptions,
): Promise<RemotePlugin> {
  const module = resolveModule(specifier, options.directory ?? process.cwd());
  let supervisor: Supervisor;
  try {
    supervisor = await Supervisor.start({
      specifier,
      module,
      log: options.log,
      importMs: options.importMs ?? IMPORT_MS_MAX,
      lookupMs: options.lookupMs ?? LOOKUP_MS_MAX,
      startMs: options.startMs ?? START_MS_MAX,
      stopMs: options.stopMs ?? STOP_MS_MAX,
      pingMs: options.pingMs ?? PING_MS,
      backoffMs: options.backoffMs ?? BACKOFF_MS,
      memoryMb: options.memoryMb ?? MEMORY_MB_MAX,
    });
  } catch (error) {
    if (!(error instanceof OverlayError)) throw error;
    const { errno, code, message } = error;
    throw new OverlayError(
      errno,
      code,
      `lookup plugin '${specifier}' cannot be loaded: ${message}; mend it or load another`,
    );
  }
  return pluginOf(supervisor);
}

function pluginOf(supervisor: Supervisor): RemotePlugin {
  const { name, mode, kinds } = supervisor.declaration;
  const kindOf = (destinations: number) => kinds[destinations - 1];
  return {
    version: LOOKUP_VERSION,
    name,
    mode,
    get counts() {
      return supervisor.counts;
    },
    properties: (destinations) => {
      const kind = kindOf(destinations);
      return kind && 'infos' in kind ? kind.infos.map((info) => info.name) : [];
    },
    create: (destinations): LookupInstance => {
      const kind = kindOf(destinations);
      if (!kind) {
        const text = `destination kinds ${destinations} are none or not all known`;
        throw new OverlayError('ENOTSUP', 'destination_not_supported', text);
      }
      if ('fault' in kind) throw new OverlayError(kind.fault.errno, kind.fault.code, kind.fault.message);
      return new RemoteInstance(supervisor, destinations, kind);
    },
    close: () => supervisor.close(),
  };
}
