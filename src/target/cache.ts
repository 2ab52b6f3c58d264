/**
 * The target cache of one DYNAMIC device: owner of its table, of the frames that are held, and of the requests that are
 * open. Main's alone. What changes state goes through `state.ts`. It does no I/O: the store, the data path and the
 * clock are handed in (`services.ts`).
 *
 * What workers, operators, plugins and restarts want of an address comes in here; what becomes of it has an object for each
 * thing that there is to own:
 *
 *   entries.ts          the table: a settled target is its entry there and nothing else
 *   unsettled.ts        targets that are not settled, of which `pending.ts` and `draining.ts` know how they go on
 *   proxy-requests.ts   single frames that are asked about
 *   held.ts             what all of these hold together
 *   requests.ts         what all of these ask together
 *   walks.ts            who reads all of it in order
 */
import { OverlayError } from '../errors.js';
import { TURN_MS, timeShare } from '../sys/clock.js';
import type { Budget } from './budget.js';
import type { Route } from './destination.js';
import { Draining } from './draining.js';
import { Entries, NO_ROUTE, type TargetSource, type TargetView } from './entries.js';
import { Held } from './held.js';
import { Pending } from './pending.js';
import { ProxyRequests } from './proxy-requests.js';
import { Requests } from './requests.js';
import type { CacheServices, HeldFrame } from './services.js';
import { accepts, after, type TargetState } from './state.js';
import type { TargetStore } from './store.js';
import { Unsettled, UnsettledTargets } from './unsettled.js';
import { Walks } from './walks.js';

export interface CacheOptions {
  readonly store: TargetStore;
  readonly services: CacheServices;
  /** The process's account of held bytes. */
  readonly held: Budget;
  /** Milliseconds for which an address that is unknown is remembered; 0 for not at all. At first; see `rememberUnknown`. */
  readonly negativeMs: number;
  /** Requests open at a time. */
  readonly requestsMax: number;
}

/** One target, as it is kept over a restart. */
export interface KnownTarget {
  readonly mac: number;
  readonly route: Route | 'drop';
  readonly source: TargetSource;
}

export interface CacheStats {
  readonly targets: number;
  readonly requests: number;
  readonly heldFrames: number;
  readonly heldBytes: number;
}

export class TargetCache {
  readonly #services: CacheServices;
  readonly #entries: Entries;
  readonly #held: Held;
  readonly #requests: Requests;
  readonly #unsettled: UnsettledTargets;
  readonly #pending: Pending;
  readonly #draining: Draining;
  readonly #proxies: ProxyRequests;
  readonly #walks: Walks;
  /** While targets of before a restart come in: addresses that were removed meanwhile. */
  #removed: Set<number> | undefined;
  /** Where `tick` goes on. */
  #overdue: IterableIterator<[mac: number, target: Unsettled]> | undefined;
  #isClosed = false;

  constructor(options: CacheOptions) {
    const { services } = options;
    const entries = new Entries(options.store, services);
    const held = new Held(options.held, services);
    const requests = new Requests(services, options.requestsMax);
    const unsettled = new UnsettledTargets(entries, requests, held, services);
    const draining = new Draining(unsettled, entries, services);
    const context = { unsettled, draining, entries, requests, held, services };
    this.#services = services;
    this.#entries = entries;
    this.#held = held;
    this.#requests = requests;
    this.#unsettled = unsettled;
    this.#draining = draining;
    this.#pending = new Pending(context, options.negativeMs);
    this.#proxies = new ProxyRequests(requests, held, services);
    this.#walks = new Walks(
      () => entries.macs(),
      (mac) => this.get(mac),
    );
  }

  get stats(): CacheStats {
    return {
      targets: this.#entries.size,
      requests: this.#requests.open,
      heldFrames: this.#held.frames,
      heldBytes: this.#held.bytes,
    };
  }

  /** State of an address. */
  stateOf(mac: number): TargetState {
    return this.#unsettled.get(mac)?.state ?? this.#entries.stateOf(mac);
  }

  /** Nothing of it is under way: what takes it out leaves no frame to ask about again. */
  isSettled(mac: number): boolean {
    const state = this.stateOf(mac);
    return state !== 'pending' && state !== 'draining';
  }

  /** Frames that are held for it. */
  heldOf(mac: number): number {
    return this.#unsettled.get(mac)?.held.length ?? 0;
  }

  // ─── Frames that workers hand over ────────────────────────────────────────────────────────────────────

  /** A frame to an address that is not VALID. */
  miss(mac: number, frame: HeldFrame): void {
    if (this.#isClosed) {
      this.#services.drop('tx_target_removed', 1);
      return;
    }
    switch (this.stateOf(mac)) {
      case 'valid':
        this.#services.send([frame], false);
        return;
      case 'drop':
        this.#services.drop('tx_target_drop', 1);
        return;
      case 'absent':
        this.#pending.begin(mac, frame);
        return;
      default:
        this.#unsettled.hold(mac, this.#unsettled.get(mac)!, frame);
    }
  }

  /** A received frame's source that is not in the table: it is asked about, with nothing held. */
  missSource(mac: number, header: Uint8Array): void {
    if (!this.#isClosed && this.stateOf(mac) === 'absent') this.#pending.beginEmpty(mac, header);
  }

  /** A frame that varpd answers in its addressee's name, although the target is VALID. */
  missProxy(mac: number, frame: HeldFrame): void {
    if (this.#isClosed) this.#services.drop('tx_target_removed', 1);
    else this.#proxies.ask(mac, this.#unsettled.generation, frame);
  }

  // ─── The clock, and rounds of draining ────────────────────────────────────────────────────────────────

  /**
   * Asks again for what was not answered in time, gives up what was asked too often, forgets what is old. Spends no more than
   * TURN_MS, and goes on the next time where it left off.
   */
  tick(): void {
    const isSpent = timeShare(TURN_MS, this.#services.nowMs);
    const now = this.#services.nowMs();
    this.#proxies.expire(now, isSpent);
    this.#overdue ??= this.#unsettled.all();
    while (!isSpent()) {
      const { done, value } = this.#overdue.next();
      if (done) {
        this.#overdue = undefined;
        return;
      }
      const [mac, target] = value;
      if (target.state === 'draining' || now < target.deadlineMs) continue;
      if (target.state === 'drop') this.#unsettled.expire(mac, target);
      else this.#pending.late(mac, target);
    }
  }

  /** Puts questions that wait their turn. */
  putWaiting(): void {
    this.#requests.putWaiting();
  }

  /** Every worker has seen that the target is draining: what is held goes back to them. False when it is another by now. */
  drain(mac: number, generation: number): boolean {
    return this.#draining.drain(mac, generation);
  }

  /** The workers have sent what `drain` gave them. */
  drained(mac: number, generation: number): void {
    this.#draining.drained(mac, generation);
  }

  // ─── Operators and plugins ────────────────────────────────────────────────────────────────────────────

  /**
   * CACHE_SET. Ends a request, clears drop. Throws EINVAL for a bad route, ENXIO once closed, ENOSPC and ENOMEM: nothing has
   * changed then.
   */
  set(mac: number, route: Route, source: TargetSource): void {
    this.#refuseClosed();
    const state = this.stateOf(mac);
    const row = this.#services.holdRoute(route);
    if (state === 'valid') {
      const before = this.#entries.rowOf(mac)!;
      this.#entries.write(mac, after(state, 'set'), false, row, this.#unsettled.nextGeneration());
      this.#services.releaseRoute(before);
      this.#entries.mark(mac, source);
      return;
    }
    const known = this.#unsettled.get(mac);
    const target = known ?? new Unsettled(state, this.#unsettled.generation);
    this.#unsettled.add(mac, target);
    try {
      this.#draining.begin(mac, target, 'set', row, source);
    } catch (error) {
      if (!known) this.#unsettled.delete(mac);
      throw error;
    }
  }

  /** CACHE_SET with DROP. Ends a request and drops what is held. Throws ENXIO once closed, ENOSPC and ENOMEM. */
  setDrop(mac: number, source: TargetSource): void {
    this.#refuseClosed();
    const state = this.stateOf(mac);
    const target = this.#unsettled.get(mac);
    const before = this.#entries.rowOf(mac);
    this.#entries.write(mac, after(state, 'set_drop'), false, NO_ROUTE, this.#unsettled.nextGeneration());
    if (before !== undefined) this.#services.releaseRoute(before);
    if (target) {
      this.#unsettled.endRequest(target);
      this.#unsettled.dropHeld(target, 'tx_target_removed');
      this.#unsettled.delete(mac);
    }
    this.#entries.mark(mac, source);
  }

  /** Its table may be somebody else's memory soon. */
  #refuseClosed(): void {
    if (!this.#isClosed) return;
    throw new OverlayError('ENXIO', 'not_active', 'the device has no targets any more');
  }

  /** CACHE_REMOVE. False when there is nothing of that address. */
  remove(mac: number): boolean {
    this.#removed?.add(mac);
    const state = this.stateOf(mac);
    if (!accepts(state, 'remove')) return false;
    const target = this.#unsettled.get(mac);
    if (target && state === 'pending') {
      // An answer that is under way may be what was to be removed.
      this.#pending.restart(mac, target);
      return true;
    }
    after(state, 'remove');
    if (target) {
      // Draining: what is not with the workers yet is asked about anew, behind what is.
      const held = this.#unsettled.takeHeld(target);
      this.#unsettled.forget(mac, target);
      for (const frame of held) this.miss(mac, frame);
      return true;
    }
    this.#entries.remove(mac);
    return true;
  }

  /** For how many milliseconds an address that turns out unknown is remembered from here on; 0 for not at all. */
  rememberUnknown(ms: number): void {
    this.#pending.negativeMs = ms;
  }

  /** CACHE_FLUSH: removes every target. */
  flush(): void {
    this.endLoading();
    const unsettled = this.#unsettled.macs();
    if (!this.#clear()) {
      for (const mac of this.macs()) if (!this.#unsettled.get(mac)) this.remove(mac);
    }
    for (const mac of unsettled) this.remove(mac);
  }

  /** Empties the table in one step; false when there is no room to. */
  #clear(): boolean {
    if (!this.#entries.clear()) return false;
    this.#walks.restart();
    this.#unsettled.unpublish();
    return true;
  }

  /**
   * What stands in front of frames has changed: the route of the address, should it have one, is held anew. A target of which that
   * fails leaves, and is looked up again.
   */
  rehold(mac: number): void {
    if (!this.#entries.rehold(mac)) this.remove(mac);
  }

  /** The device stops being looked up for: every request ends, every frame is dropped, the table is empty. */
  close(): void {
    this.#isClosed = true;
    this.reset();
  }

  /** As when the device had just been activated: every request ends, every frame is dropped, the table is empty. */
  reset(): void {
    for (const [mac, target] of [...this.#unsettled.all()]) {
      this.#unsettled.endRequest(target);
      this.#unsettled.dropHeld(target, 'tx_target_removed');
      this.#unsettled.forget(mac, target);
    }
    this.#proxies.reset();
    if (this.#clear()) return;
    for (const mac of this.macs()) this.#entries.remove(mac);
  }

  // ─── Reading ──────────────────────────────────────────────────────────────────────────────────────────

  /** CACHE_GET: undefined when there is nothing of that address. */
  get(mac: number): TargetView | undefined {
    const state = this.stateOf(mac);
    return state === 'absent' ? undefined : this.#entries.view(mac, state);
  }

  /**
   * CACHE_ITER: up to `count` targets from address `marker` on, in order, and where to go on; `next` is undefined behind
   * the last. A target that is there throughout an iteration is in it exactly once, any other at most once.
   */
  iterate(marker: number, count: number): { targets: TargetView[]; next: number | undefined } {
    return this.#walks.step(marker, count);
  }

  /** Every address there is an entry of, for `rehold`. */
  macs(): Float64Array {
    return this.#entries.macs();
  }

  // ─── Over a restart ───────────────────────────────────────────────────────────────────────────────────

  /** Whether anything has changed since this was asked before. */
  takeDirty(): boolean {
    const { isDirty } = this.#entries;
    this.#entries.isDirty = false;
    return isDirty;
  }

  markDirty(): void {
    this.#entries.isDirty = true;
  }

  /** What a restart may serve until somebody can be asked: every settled target, less what is only remembered as unknown. */
  *records(): Generator<KnownTarget> {
    for (const mac of this.macs()) {
      const view = this.get(mac);
      if (view?.state === 'valid') yield { mac, route: view.route!, source: view.source };
      else if (view?.state === 'drop' && view.source === 'operator')
        yield { mac, route: 'drop', source: 'operator' };
    }
  }

  /** From here on `load` takes targets of before a restart, until all are there, or a flush says that none is wanted. */
  beginLoading(): void {
    this.#removed = new Set();
  }

  endLoading(): void {
    this.#removed = undefined;
  }

  /**
   * A target of before a restart, unless what is known of its address is newer: that one stays, and one that was removed meanwhile
   * does not come back. False when no more are wanted. Throws like `set` and `setDrop`.
   */
  load(mac: number, route: Route | 'drop', source: 'operator' | 'saved'): boolean {
    if (!this.#removed) return false;
    const state = this.stateOf(mac);
    if (this.#removed.has(mac) || (state !== 'absent' && state !== 'pending')) return true;
    if (route === 'drop') this.setDrop(mac, source);
    else this.set(mac, route, source);
    return true;
  }

  /** Addresses of targets that are known from before a restart only. */
  saved(): number[] {
    return [...this.macs()].filter((mac) => this.#entries.sourceOf(mac) === 'saved');
  }

  /** Removes a target if it still is one of `saved`. */
  forgetSaved(mac: number): void {
    if (this.#entries.sourceOf(mac) === 'saved') this.remove(mac);
  }
}
