/**
 * The mappings of a file that may change at any time. A change is loaded once the file has been quiet for a moment;
 * mappings that are good replace the old ones in one assignment, those that are not change nothing: the device is
 * degraded with what is wrong and where, until a good file is there again.
 */
import { assert, OverlayError } from '../../errors.js';
import { after, monotonicMs } from '../../sys/clock.js';
import type { LookupServices } from '../plugin.js';
import { compare, MOVES_MAX } from './difference.js';
import { FileWatch } from './file-watch.js';
import { loadMappings } from './load.js';
import type { Mappings } from './mappings.js';
import { inSlices } from './slices.js';

/** Quiet for so long, a file is taken for written. */
const QUIET_MS = 100;
/** One that is never quiet is loaded all the same. */
const QUIET_MS_MAX = 2000;

export interface LiveMappingsOptions {
  readonly path: string;
  /** DESTINATION_ bits of the encapsulation. */
  readonly kinds: number;
  /** This host's own VTEP, left out of floods. */
  readonly localIp: string | undefined;
  readonly services: LookupServices;
}

export class LiveMappings {
  readonly #options: LiveMappingsOptions;
  readonly #abort = new AbortController();
  readonly #watch: FileWatch;
  readonly #reserved = new Set<string>();
  #mappings: Mappings | undefined;
  /** The load that runs. */
  #work: Promise<void> | undefined;
  /** Since when there is a change that no load has taken up. */
  #changedAt: number | undefined;
  /** A load that took long is followed by a rest as long: half of main's time at most. */
  #restUntil = 0;
  #cancel: () => void = () => {};
  /** Why the newest file is not in use. */
  #fault: string | undefined;

  constructor(options: LiveMappingsOptions) {
    this.#options = options;
    const { path, services } = options;
    this.#watch = new FileWatch(path, () => this.#changed(), services.log);
  }

  get current(): Mappings {
    assert(this.#mappings, 'files was asked before its mappings were loaded');
    return this.#mappings;
  }

  /** Resolves with the first mappings loaded; nothing is left behind when that fails. Throws as `loadMappings`. */
  async start(): Promise<void> {
    this.#work = this.#first();
    await this.#work;
  }

  /** Resolves when nothing runs any more. */
  async stop(): Promise<void> {
    const reason = new OverlayError(
      'ECANCELED',
      'stopped',
      `${this.#options.path} is not loaded: files was stopped`,
    );
    this.#abort.abort(reason);
    this.#cancel();
    this.#watch.stop();
    // What it ended with is its starter's business.
    await this.#work?.catch(() => {});
  }

  async #first(): Promise<void> {
    try {
      // Watched before it is read: no change falls in between.
      await this.#watch.start();
      this.#mappings = await this.#load();
      this.#ended();
    } catch (error) {
      this.#cancel();
      this.#watch.stop();
      throw error;
    }
  }

  async #load(): Promise<Mappings> {
    const { path, kinds, localIp, services } = this.#options;
    const { signal } = this.#abort;
    await this.#watch.mark();
    signal.throwIfAborted();
    const { log } = services;
    const optionsFault = (text: string) => services.optionsFault?.(text);
    const vtepFault = (ip: string) => vtepFaultOf(services, ip);
    const reserved = this.#reserved;
    const mappings = await loadMappings({
      path,
      kinds,
      localIp,
      optionsFault,
      vtepFault,
      log,
      signal,
      reserved,
    });
    signal.throwIfAborted();
    return mappings;
  }

  #changed(): void {
    if (this.#abort.signal.aborted) return;
    const now = monotonicMs();
    this.#changedAt ??= now;
    const quiet = Math.min(QUIET_MS, this.#changedAt + QUIET_MS_MAX - now);
    this.#cancel();
    // A running load takes nothing up; its end comes back here.
    if (this.#work) return;
    this.#cancel = after(Math.max(0, quiet, this.#restUntil - now), () => {
      this.#changedAt = undefined;
      this.#work = this.#reload();
    });
  }

  #ended(): void {
    this.#work = undefined;
    if (this.#changedAt !== undefined) this.#changed();
  }

  async #reload(): Promise<void> {
    const begun = monotonicMs();
    try {
      await this.#replace();
    } catch (error) {
      if (!this.#abort.signal.aborted) throw error;
    } finally {
      const now = monotonicMs();
      this.#restUntil = now + (now - begun);
      this.#ended();
    }
  }

  async #replace(): Promise<void> {
    let loaded: Mappings;
    try {
      loaded = await this.#load();
    } catch (error) {
      if (this.#abort.signal.aborted || !(error instanceof OverlayError)) throw error;
      this.#keep(error.message);
      return;
    }
    const before = this.current;
    this.#mappings = loaded;
    if (this.#fault !== undefined) this.#options.services.restore();
    this.#fault = undefined;
    await this.#tell(before, loaded);
  }

  #keep(fault: string): void {
    if (fault === this.#fault) return;
    this.#fault = fault;
    const { services } = this.#options;
    services.degrade(`${fault}; the mappings from before stay in use`);
    services.log('error', `${fault}; the mappings from before stay in use`);
  }

  /** The cache, the guests and the peers hear of what is different. An IPv6 address that moved heals by itself (NUD). */
  async #tell(before: Mappings, now: Mappings): Promise<void> {
    const { path, services } = this.#options;
    const slicing = { signal: this.#abort.signal, onProgress: () => {} };
    const { changed, moved, isMovedCut, arePeersOther } = await inSlices(compare(before, now), slicing);
    if (arePeersOther) services.peersChanged();
    if (changed) for (const mac of changed) services.invalidate(mac);
    else services.invalidateAll();
    for (const { mac, ip } of moved) services.gratuitousArp({ mac, ip, vlan: 0 });
    if (isMovedCut) {
      services.log(
        'warn',
        `${path}: more than ${MOVES_MAX} addresses moved; guests learn of the others when they ask again`,
      );
    }
  }
}

/** Why the device can never send to a VTEP, undefined when it can. */
function vtepFaultOf(services: LookupServices, ip: string): string | undefined {
  try {
    services.refuseVtep?.(ip);
    return undefined;
  } catch (error) {
    if (!(error instanceof OverlayError)) throw error;
    return error.message;
  }
}
