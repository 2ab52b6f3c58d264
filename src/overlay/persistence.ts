/**
 * What of the devices is kept over a restart, and when it is written: the device's record before a change comes into force,
 * so that nothing that was acknowledged is lost; its targets at most TARGETS_SAVE_MS late, apart from it.
 *
 * Record and link can part only in one way, wherever the process is killed: a link stays behind its descriptors only while its
 * record is on disk. A record without a link is harmless, since a restart makes the link anew.
 *
 *   begin    record written ─► link kept
 *   forget   link no longer kept ─► record removed ─► descriptors closed
 *   move     link no longer kept ─► record names the new namespace ─► link moved ─► link kept
 */
import type { Device } from '../device.js';
import { OverlayError } from '../errors.js';
import type { Fma } from '../fma.js';
import type { Log } from '../log.js';
import type { DeviceRecord, TargetRecord } from '../state/record.js';
import { every, nextTurn } from '../sys/clock.js';
import type { TargetCache } from '../target/cache.js';
import { checkRoute } from '../target/destination.js';
import { recordOf } from './record.js';
import type { Entry } from './setprop.js';

/** Targets on disk are at most twice this old. */
const TARGETS_SAVE_MS = 15_000;

/** Where records are kept: `StateStore`, or memory in tests. */
export interface Store {
  /** Throws EIO, ENOSPC and the like: what was kept before is as it was then. */
  save(record: DeviceRecord): void;
  /** The device with its targets. Throws like `save`. */
  remove(name: string): void;
  saveTargets(name: string, rows: Iterable<TargetRecord>): Promise<void>;
  loadTargets(name: string): AsyncIterable<readonly TargetRecord[]>;
}

export class Persistence {
  readonly #stopSaving: () => void;
  #isSaving = false;
  /** Devices whose targets of before a restart are being read. */
  readonly #loading = new Set<Device>();

  /** @param store undefined for an engine that keeps nothing */
  constructor(
    readonly store: Store | undefined,
    readonly entries: () => Iterable<Entry>,
    readonly fma: Fma,
    readonly log: Log,
  ) {
    this.#stopSaving = every(TARGETS_SAVE_MS, () => {
      this.saveTargets().catch((error: unknown) => log.error({ err: error }, 'saving targets failed'));
    });
  }

  close(): void {
    this.#stopSaving();
  }

  /**
   * Writes what a device is about to be, before it is. Returns how to write what it is instead, for when it does not come
   * about. Throws EIO, ENOSPC and the like: what is on disk is as it was then.
   */
  announce(entry: Entry, next: (record: DeviceRecord) => DeviceRecord): () => void {
    const { store } = this;
    if (!store || !entry.device.isKept) return () => {};
    store.save(next(recordOf(entry)));
    return () => this.saveAside(entry);
  }

  /** The device is kept from here on. Throws like `announce`. */
  begin(entry: Entry): void {
    if (!this.store) return;
    const { device } = entry;
    this.store.save(recordOf(entry));
    try {
      device.port.keep(true);
    } catch (error) {
      // It does not come about: a restart must not bring it back.
      this.store.remove(device.name);
      throw error;
    }
    device.isKept = true;
  }

  /** The device is deleted: a restart does not bring it back, and its link goes with its descriptors. Throws like `announce`. */
  forget(entry: Entry): void {
    const { device } = entry;
    if (!this.store || !device.isKept) return;
    const keepAgain = this.loosen(entry);
    try {
      this.store.remove(device.name);
    } catch (error) {
      keepAgain();
      throw error;
    }
    device.isKept = false;
  }

  /**
   * The link goes with its descriptors until the returned function is called, so that a process which is killed meanwhile leaves
   * none that no record knows.
   */
  loosen({ device }: Entry): () => void {
    if (!device.isKept || device.isAway) return () => {};
    const keep = (isKept: boolean) => {
      try {
        device.port.keep(isKept);
      } catch (error) {
        // The kernel has taken the link away: there is nothing to be kept.
        if (!(error instanceof OverlayError)) throw error;
      }
    };
    keep(false);
    return () => keep(true);
  }

  /** Likewise of one that did not come back. */
  forgetRecord(name: string): void {
    this.store?.remove(name);
  }

  /** Writes what has changed without an operator who would hear of a failure: that degrades the device. */
  saveAside(entry: Entry): void {
    const { store, fma } = this;
    const { name, isKept } = entry.device;
    if (!store || !isKept) return;
    try {
      store.save(recordOf(entry));
      fma.restore(name, 'state_failed');
    } catch (error) {
      if (!(error instanceof OverlayError)) throw error;
      fma.degrade(name, 'state_failed', error.message);
    }
  }

  /** Writes the targets of every device that has changed since they were written. */
  async saveTargets(): Promise<void> {
    if (!this.store || this.#isSaving) return;
    this.#isSaving = true;
    try {
      for (const entry of [...this.entries()]) await this.#saveTargetsOf(this.store, entry);
    } finally {
      this.#isSaving = false;
    }
  }

  async #saveTargetsOf(store: Store, { device, lookup }: Entry): Promise<void> {
    const { dynamic } = lookup;
    // What is in the file is more than what has been read of it so far.
    if (!dynamic || !device.isKept || this.#loading.has(device) || !dynamic.cache.takeDirty()) return;
    try {
      await store.saveTargets(device.name, dynamic.cache.records());
      this.fma.restore(device.name, 'targets_unsaved');
    } catch (error) {
      if (!(error instanceof OverlayError)) throw error;
      // Deleted meanwhile: nobody misses them.
      if (!device.isKept) return;
      dynamic.cache.markDirty();
      this.fma.degrade(device.name, 'targets_unsaved', error.message);
    }
  }

  /**
   * Puts a device's last-known targets into its cache, to be served until its plugin is asked. Beside everything else: what has been
   * learned or set meanwhile is newer and stays.
   */
  async loadTargets({ device, lookup }: Entry): Promise<void> {
    const { dynamic } = lookup;
    if (!this.store || !dynamic) return;
    const { cache } = dynamic;
    let refused = 0;
    this.#loading.add(device);
    cache.beginLoading();
    try {
      for await (const rows of this.store.loadTargets(device.name)) {
        for (const row of rows) {
          // Those that somebody can be asked about are not served on trust any more.
          if (row.source !== 'operator' && lookup.instance.isActive) continue;
          const taken = load(cache, row, device.encap.destinations);
          if (taken === 'refused') refused++;
          if (taken === 'unwanted') return;
        }
        await nextTurn();
      }
    } catch (error) {
      // A damaged file: the device does without, and asks anew.
      if (!(error instanceof OverlayError)) throw error;
      this.log.error({ device: device.name, errno: error.errno }, error.message);
    } finally {
      cache.endLoading();
      this.#loading.delete(device);
    }
    if (refused > 0)
      this.log.warn({ device: device.name, refused }, 'targets of before the restart were refused');
  }
}

/** Refused when there is no room for it, or when it is no route of the device's encapsulation; unwanted after a flush. */
function load(
  cache: Pick<TargetCache, 'load'>,
  { mac, route, source }: TargetRecord,
  kinds: number,
): 'taken' | 'refused' | 'unwanted' {
  const as = source === 'operator' ? 'operator' : 'saved';
  try {
    return cache.load(mac, route === 'drop' ? route : checkRoute(route, kinds), as) ? 'taken' : 'unwanted';
  } catch (error) {
    if (!(error instanceof OverlayError)) throw error;
    return error.code === 'not_active' ? 'unwanted' : 'refused';
  }
}
