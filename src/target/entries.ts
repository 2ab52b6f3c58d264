/**
 * What a device's table has of its targets, each entry with the row of its route, which is held as long as it stands there,
 * and with how and when it came about.
 */
import { assert, OverlayError } from '../errors.js';
import type { Route } from './destination.js';
import type { CacheServices } from './services.js';
import type { TargetState } from './state.js';
import type { TargetStore } from './store.js';

/** How an entry came about, for people. */
export type TargetSource = 'lookup' | 'operator' | 'plugin' | 'saved';
const sources: readonly TargetSource[] = ['lookup', 'operator', 'plugin', 'saved'];

/** One target, as `show-overlay -t` has it. */
export interface TargetView {
  readonly mac: number;
  readonly state: Exclude<TargetState, 'absent'>;
  /** Where its frames go; undefined while it is pending or dropped. */
  readonly route: Route | undefined;
  readonly source: TargetSource;
  /** Seconds since it came into its state. */
  readonly ageSeconds: number;
  readonly frames: number;
  readonly bytes: number;
  /** Seconds (`monotonicSeconds`) at which a frame went there, 0 for never. */
  readonly lastUse: number;
}

/** Destination row of an entry that has none. */
export const NO_ROUTE = 0;

export class Entries {
  /** Something has changed since the cache was asked. */
  isDirty = false;
  /** Of each id: seconds at which it came into its state, and how. */
  #since = new Uint32Array(256);
  #source = new Uint8Array(256);

  constructor(
    readonly store: TargetStore,
    readonly services: CacheServices,
  ) {}

  get size(): number {
    return this.store.size;
  }

  macs(): Float64Array {
    return this.store.macs();
  }

  /** State of an address that has settled. */
  stateOf(mac: number): 'valid' | 'drop' | 'absent' {
    const { store } = this;
    const flags = store.find(mac)?.flags ?? 0;
    if (flags & store.flags.valid) return 'valid';
    return flags & store.flags.drop ? 'drop' : 'absent';
  }

  /** Row of the entry's route, or undefined when it has none. */
  rowOf(mac: number): number | undefined {
    const { store } = this;
    const entry = store.find(mac);
    if (!entry) return undefined;
    return entry.flags & (store.flags.valid | store.flags.draining) ? entry.destination : undefined;
  }

  /** How the entry came about, undefined where there is none. */
  sourceOf(mac: number): TargetSource | undefined {
    const entry = this.store.find(mac);
    return entry && sources[this.#source[entry.id]!];
  }

  /** Throws ENOSPC or ENOMEM when there is no room for a new entry. The row that stood there is the caller's to release. */
  write(mac: number, state: TargetState, isFull: boolean, row: number, generation: number): void {
    this.isDirty = true;
    const { store } = this;
    const { drop, draining, full, pending, valid } = store.flags;
    assert(state !== 'absent', 'an absent target is not in the table');
    const flags = { pending, draining, valid, drop }[state] | (isFull ? full : 0);
    if (store.find(mac)) store.update(mac, flags, row, generation);
    else store.insert(mac, flags, row, generation);
  }

  /** Takes an entry out, and releases its row. */
  remove(mac: number): void {
    this.isDirty = true;
    const row = this.rowOf(mac);
    this.store.remove(mac);
    if (row !== undefined) this.services.releaseRoute(row);
  }

  /** Takes out every entry in one step, which takes a million no longer than one; false when there is no room to. */
  clear(): boolean {
    this.isDirty = true;
    try {
      this.store.clear();
    } catch (error) {
      if (!(error instanceof OverlayError)) throw error;
      return false;
    }
    this.services.releaseRoutes();
    return true;
  }

  /** The route of an entry that has one is held anew. False when that fails: it stands as it was then. */
  rehold(mac: number): boolean {
    const { services, store } = this;
    const row = this.rowOf(mac);
    if (row === undefined) return true;
    const { flags, generation } = store.find(mac)!;
    try {
      store.update(mac, flags, services.holdRoute(services.routeOf(row)), generation);
    } catch (error) {
      if (!(error instanceof OverlayError)) throw error;
      // An operator's list stays when this host has all of its addresses for a while; it is held anew when one goes.
      return error.code === 'own_address' && this.sourceOf(mac) === 'operator';
    }
    services.releaseRoute(row);
    return true;
  }

  /** An entry has come into its state now, and how. */
  mark(mac: number, source: TargetSource): void {
    const id = this.store.find(mac)!.id;
    if (id >= this.#since.length) {
      const length = 2 ** Math.ceil(Math.log2(id + 1));
      const since = new Uint32Array(length);
      since.set(this.#since);
      this.#since = since;
      const source = new Uint8Array(length);
      source.set(this.#source);
      this.#source = source;
    }
    this.#since[id] = this.services.nowSeconds();
    this.#source[id] = sources.indexOf(source);
  }

  /** An address that is in a state; it may not be in the table yet. */
  view(mac: number, state: Exclude<TargetState, 'absent'>): TargetView {
    const { services, store } = this;
    const entry = store.find(mac);
    const row = this.rowOf(mac);
    return {
      mac,
      state,
      route: row === undefined ? undefined : services.routeOf(row),
      source: sources[entry ? this.#source[entry.id]! : 0]!,
      ageSeconds: entry ? Math.max(0, services.nowSeconds() - this.#since[entry.id]!) : 0,
      ...store.counts(mac),
    };
  }
}
