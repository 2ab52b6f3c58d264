/**
 * The target cache of one DYNAMIC device: owner of its table, of the frames that are held, and of the requests that are
 * open. Main's alone. What changes state goes through `state.ts`. It does no I/O: the store, the data path and the
 * clock are handed in (`CacheServices`).
 *
 * Only targets that are not settled have an object here (pending, draining, remembered as unknown); a VALID one is its
 * entry in the table and nothing else.
 */
import { assert, OverlayError } from '../errors.js';
import {
  Budget,
  HELD_BYTES_PER_DEVICE_MAX,
  HELD_BYTES_PER_TARGET_MAX,
  HELD_FRAMES_PER_TARGET_MAX,
} from './budget.js';
import type { Route } from './destination.js';
import { TargetRequest } from './request.js';
import { accepts, after, type TargetEvent, type TargetState } from './state.js';

/** TARGET_ bits of the table, as the layer below has them. */
export interface TargetFlags {
  readonly valid: number;
  readonly drop: number;
  readonly pending: number;
  readonly draining: number;
  readonly full: number;
}

/** The table of one device. */
export interface TargetStore {
  readonly size: number;
  readonly flags: TargetFlags;
  find(mac: number): Readonly<Record<'flags' | 'destination' | 'id' | 'generation', number>> | undefined;
  /** Throws ENOSPC or ENOMEM when there is no room. */
  insert(mac: number, flags: number, destination: number, generation: number): void;
  update(mac: number, flags: number, destination: number, generation: number): void;
  remove(mac: number): void;
  /** Removes everything at once. Throws ENOMEM when there is no room to do so. */
  clear(): void;
  macs(): Float64Array;
  counts(mac: number): { readonly frames: number; readonly bytes: number; readonly lastUse: number };
}

/** Why main drops a frame. */
export type CacheDrop =
  | 'tx_held_full'
  | 'tx_held_full_device'
  | 'tx_held_full_process'
  | 'tx_table_full'
  | 'tx_requests_full'
  | 'tx_target_drop'
  | 'tx_lookup_drop'
  | 'tx_lookup_timeout'
  | 'tx_target_removed';

/** A frame with its vnet_hdr, and the worker that handed it over. */
export interface HeldFrame {
  readonly frame: Uint8Array;
  readonly worker: number;
}

/** What a cache needs of the rest of main. */
export interface CacheServices {
  /** Row of the route, made when it is new; counted. Throws EINVAL for a bad route, ENOSPC, ENOMEM. */
  holdRoute(route: Route): number;
  /** The reverse; the row is given out again after a quiesce. */
  releaseRoute(row: number): void;
  /** Releases every row as often as it is held. */
  releaseRoutes(): void;
  routeOf(row: number): Route;
  /** Hands a request to varpd, which may answer it at once. */
  ask(request: TargetRequest): void;
  /** The target is draining: call `drain` when every worker has seen that, then `drained`. */
  settle(mac: number, generation: number): void;
  /**
   * Hands frames back to their workers, in order; `isRouted` for those that varpd has seen. A frame that comes back to a
   * target that began to drain in another generation is looked up again, behind those that went to main before it.
   */
  send(frames: readonly HeldFrame[], isRouted: boolean, generation?: number): void;
  drop(reason: CacheDrop, frames: number): void;
  proxied(frames: number): void;
  /** A request was not answered in time, or one was after that. */
  onLate(isLate: boolean): void;
  nowMs(): number;
  nowSeconds(): number;
}

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

/** How an entry came about, for people. */
export type TargetSource = 'lookup' | 'operator' | 'plugin' | 'saved';
const sources: readonly TargetSource[] = ['lookup', 'operator', 'plugin', 'saved'];

/** One target, as it is kept over a restart. */
export interface KnownTarget {
  readonly mac: number;
  readonly route: Route | 'drop';
  readonly source: TargetSource;
}

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
  readonly lastUse: number;
}

export interface CacheStats {
  readonly targets: number;
  readonly requests: number;
  readonly heldFrames: number;
  readonly heldBytes: number;
}

/** A target that is not settled. */
class Unsettled {
  readonly held: HeldFrame[] = [];
  heldBytes = 0;
  request: TargetRequest | undefined;
  /** Generation with which it began to drain. */
  life = 0;
  /** Times it was asked about without an answer. */
  attempts = 0;
  deadlineMs = 0;
  isFull = false;
  /** In the table; a target that is answered at once never is while pending. */
  isPublished = false;

  constructor(
    public state: TargetState,
    public generation: number,
  ) {}
}

/** How long an answer may take, doubled each time it is asked for again. */
export const LOOKUP_DEADLINE_MS = 2000;
export const LOOKUP_ATTEMPTS_MAX = 3;
/** Destination row of an entry that has none. */
const NO_ROUTE = 0;
/** Questions put within a window: more than a target holds frames, and more than any plugin answers. */
const QUESTIONS_PER_WINDOW_MAX = 4096;
const QUESTIONS_WINDOW_MS = 10;
/** Walks over the targets that are remembered: one more begins all anew, and costs the others a sort each. */
const WALKS_MAX = 16;

export class TargetCache {
  readonly #unsettled = new Map<number, Unsettled>();
  /** Requests about a frame whose target is VALID, by id. */
  readonly #proxies = new Map<string, { request: TargetRequest; frame: HeldFrame; deadlineMs: number }>();
  readonly #held: Budget;
  #heldFrames = 0;
  #requests = 0;
  /** Something has changed since `takeDirty`. */
  #isDirty = false;
  #negativeMs: number;
  #generation = 0;
  #sorted: Float64Array | undefined;
  /** Where walks with that order go on. */
  readonly #markers = new Set<number>();
  /** Of each id: seconds at which it came into its state, and how. */
  #since = new Uint32Array(256);
  #source = new Uint8Array(256);
  /** While targets of before a restart come in: addresses that were removed meanwhile. */
  #removed: Set<number> | undefined;
  #isLate = false;
  #isClosed = false;
  readonly #questions: TargetRequest[] = [];
  #isAsking = false;
  /** Questions put since then. */
  #asked = 0;
  #askedSinceMs = Number.NEGATIVE_INFINITY;

  constructor(readonly options: CacheOptions) {
    this.#held = new Budget(HELD_BYTES_PER_DEVICE_MAX, options.held);
    this.#negativeMs = options.negativeMs;
  }

  get stats(): CacheStats {
    return {
      targets: this.options.store.size,
      requests: this.#requests,
      heldFrames: this.#heldFrames,
      heldBytes: this.#held.bytes,
    };
  }

  /** State of an address. */
  stateOf(mac: number): TargetState {
    const unsettled = this.#unsettled.get(mac);
    if (unsettled) return unsettled.state;
    const { store } = this.options;
    const flags = store.find(mac)?.flags ?? 0;
    if (flags & store.flags.valid) return 'valid';
    return flags & store.flags.drop ? 'drop' : 'absent';
  }

  // ─── Frames that workers hand over ────────────────────────────────────────────────────────────────────

  /** A frame to an address that is not VALID. */
  miss(mac: number, frame: HeldFrame): void {
    if (this.#isClosed) {
      this.options.services.drop('tx_target_removed', 1);
      return;
    }
    const state = this.stateOf(mac);
    switch (state) {
      case 'valid':
        this.options.services.send([frame], false);
        return;
      case 'drop':
        this.options.services.drop('tx_target_drop', 1);
        return;
      case 'absent':
        this.#begin(mac, frame);
        return;
      default:
        this.#hold(mac, this.#unsettled.get(mac)!, frame);
    }
  }

  /** A received frame's source that is not in the table: it is asked about, with nothing held. */
  missSource(mac: number, header: Uint8Array): void {
    if (this.#isClosed || this.stateOf(mac) !== 'absent' || this.#requests >= this.options.requestsMax)
      return;
    this.#askFirst(mac, new Unsettled(after('absent', 'miss'), this.#next()), header);
  }

  /** A frame that varpd answers in its addressee's name, although the target is VALID. */
  missProxy(mac: number, frame: HeldFrame): void {
    const { services, requestsMax } = this.options;
    if (this.#isClosed) {
      services.drop('tx_target_removed', 1);
      return;
    }
    if (this.#requests >= requestsMax) {
      services.drop('tx_requests_full', 1);
      return;
    }
    if (!this.#take(frame)) return;
    const request = this.#request('proxy', mac, this.#generation, frame.frame);
    const deadlineMs = services.nowMs() + LOOKUP_DEADLINE_MS;
    this.#proxies.set(request.id, { request, frame, deadlineMs });
    this.#put(request);
  }

  #begin(mac: number, frame: HeldFrame): void {
    const { services, requestsMax } = this.options;
    if (this.#requests >= requestsMax) {
      services.drop('tx_requests_full', 1);
      return;
    }
    if (!this.#take(frame)) return;
    const target = new Unsettled(after('absent', 'miss'), this.#next());
    target.held.push(frame);
    target.heldBytes = frame.frame.length;
    this.#askFirst(mac, target, frame.frame);
  }

  #askFirst(mac: number, target: Unsettled, frame: Uint8Array): void {
    this.#unsettled.set(mac, target);
    // Asked before it is published: most plugins answer at once, and then the workers never see it pending.
    this.#ask(mac, target, frame);
    this.#publishPending(mac, target);
  }

  /** A target that was not answered at once gets into the table; without room it ends. */
  #publishPending(mac: number, target: Unsettled): void {
    const isPending = this.#unsettled.get(mac) === target && target.state === 'pending';
    if (!isPending || target.isPublished) return;
    try {
      this.#publish(mac, target);
      this.#mark(mac, 'lookup');
    } catch (error) {
      if (!(error instanceof OverlayError)) throw error;
      this.#endRequest(target);
      this.#dropHeld(target, 'tx_table_full');
      this.#unsettled.delete(mac);
    }
  }

  #hold(mac: number, target: Unsettled, frame: HeldFrame): void {
    const { services } = this.options;
    const bytes = target.heldBytes + frame.frame.length;
    if (bytes > HELD_BYTES_PER_TARGET_MAX || target.held.length >= HELD_FRAMES_PER_TARGET_MAX) {
      services.drop('tx_held_full', 1);
      if (!target.isFull && target.state === 'pending') {
        target.isFull = true;
        this.#publish(mac, target);
      }
      return;
    }
    if (!this.#take(frame)) return;
    target.held.push(frame);
    target.heldBytes = bytes;
  }

  /** Charges a frame to the accounts; false when one refuses, and the frame is dropped. */
  #take({ frame }: HeldFrame): boolean {
    const refusing = this.#held.refuses(frame.length);
    if (refusing) {
      this.options.services.drop(refusing === this.#held ? 'tx_held_full_device' : 'tx_held_full_process', 1);
      return false;
    }
    this.#held.take(frame.length);
    this.#heldFrames++;
    return true;
  }

  #giveBack(frames: readonly HeldFrame[]): void {
    for (const { frame } of frames) this.#held.giveBack(frame.length);
    this.#heldFrames -= frames.length;
  }

  #dropHeld(target: Unsettled, reason: CacheDrop): void {
    const { held } = target;
    if (held.length > 0) this.options.services.drop(reason, held.length);
    this.#giveBack(held);
    held.length = 0;
    target.heldBytes = 0;
  }

  // ─── Requests and their answers ───────────────────────────────────────────────────────────────────────

  #next(): number {
    this.#generation++;
    return this.#generation;
  }

  #request(kind: 'target' | 'proxy', mac: number, generation: number, frame: Uint8Array): TargetRequest {
    this.#requests++;
    requestNumber++;
    return new TargetRequest(`${requestNumber.toString(36)}`, kind, mac, generation, frame, {
      respond: (request, route) => this.#respond(request, route),
      drop: (request, proxied) => this.#drop(request, proxied),
      unknown: (request) => this.#unknown(request),
    });
  }

  #ask(mac: number, target: Unsettled, frame: Uint8Array): void {
    const { services } = this.options;
    target.request = this.#request('target', mac, target.generation, frame);
    target.deadlineMs = services.nowMs() + LOOKUP_DEADLINE_MS * 2 ** target.attempts;
    this.#put(target.request);
  }

  /** Puts a question. One that comes up while another is answered waits its turn: a thousand frames are no recursion. */
  #put(request: TargetRequest): void {
    this.#questions.push(request);
    this.#putQuestions();
  }

  #putQuestions(): void {
    if (this.#isAsking) return;
    this.#isAsking = true;
    try {
      // Bounded: a plugin that invalidates what it is asked about would never come to an end. The rest waits for a tick.
      const now = this.options.services.nowMs();
      if (now - this.#askedSinceMs >= QUESTIONS_WINDOW_MS) {
        this.#askedSinceMs = now;
        this.#asked = 0;
      }
      for (; this.#asked < QUESTIONS_PER_WINDOW_MAX; this.#asked++) {
        const next = this.#questions.shift();
        if (!next) break;
        if (next.isOpen) this.options.services.ask(next);
      }
    } finally {
      this.#isAsking = false;
    }
  }

  #endRequest(target: Unsettled): void {
    if (!target.request) return;
    target.request.end();
    target.request = undefined;
    this.#requests--;
  }

  /** The target that an open request is about; its generation is the one that was asked with. */
  #targetOf(request: TargetRequest): Unsettled {
    const target = this.#unsettled.get(request.mac);
    assert(target?.request === request, 'an open request without its target');
    return target;
  }

  #respond(request: TargetRequest, route: Route): void {
    const { services } = this.options;
    if (request.kind === 'proxy') {
      // The target is VALID and its route stands; this frame goes there.
      const frame = this.#endProxy(request);
      services.send([frame], true);
      this.#answered();
      return;
    }
    const target = this.#targetOf(request);
    const row = services.holdRoute(route);
    this.#settleTo(request.mac, target, 'answer', row, 'lookup');
    this.#answered();
  }

  #drop(request: TargetRequest, isProxied: boolean): void {
    const { services } = this.options;
    const count = () => (isProxied ? services.proxied(1) : services.drop('tx_lookup_drop', 1));
    if (request.kind === 'proxy') {
      this.#endProxy(request);
      count();
      this.#answered();
      return;
    }
    const target = this.#targetOf(request);
    this.#endRequest(target);
    // None is held when it is the source of a received frame that was asked about.
    const first = target.held[0];
    if (first?.frame === request.frame) {
      target.held.shift();
      count();
      this.#giveBack([first]);
      target.heldBytes -= first.frame.length;
    }
    this.#answered();
    this.#askNext(request.mac, target);
  }

  #askNext(mac: number, target: Unsettled): void {
    const next = target.held[0];
    const isMore = next !== undefined;
    target.state = after(target.state, isMore ? 'answer_drop_more' : 'answer_drop_last');
    if (!isMore) {
      this.#forget(mac, target);
      return;
    }
    target.attempts = 0;
    target.generation = this.#next();
    if (target.isFull) {
      target.isFull = false;
      this.#publish(mac, target);
    }
    this.#ask(mac, target, next.frame);
  }

  #unknown(request: TargetRequest): void {
    const { services } = this.options;
    const negativeMs = this.#negativeMs;
    if (request.kind === 'proxy' || negativeMs === 0) {
      this.#drop(request, false);
      return;
    }
    const target = this.#targetOf(request);
    this.#endRequest(target);
    this.#dropHeld(target, 'tx_lookup_drop');
    target.state = after(target.state, 'answer_unknown');
    target.deadlineMs = services.nowMs() + negativeMs;
    try {
      this.#publish(request.mac, target);
      this.#mark(request.mac, 'lookup');
    } catch (error) {
      if (!(error instanceof OverlayError)) throw error;
      // No room to remember it in: it is asked about again.
      this.#unsettled.delete(request.mac);
    }
    this.#answered();
  }

  #endProxy(request: TargetRequest): HeldFrame {
    const proxy = this.#proxies.get(request.id);
    assert(proxy, 'an open request without its frame');
    this.#proxies.delete(request.id);
    request.end();
    this.#requests--;
    this.#giveBack([proxy.frame]);
    return proxy.frame;
  }

  #answered(): void {
    if (!this.#isLate) return;
    this.#isLate = false;
    this.options.services.onLate(false);
  }

  /** Asks again for what was not answered in time, gives up what was asked too often, forgets what is old. */
  tick(): void {
    const { services } = this.options;
    this.#putQuestions();
    const now = services.nowMs();
    for (const [mac, target] of this.#unsettled) {
      if (target.state === 'draining' || now < target.deadlineMs) continue;
      if (target.state === 'drop') {
        target.state = after('drop', 'expire');
        this.#forget(mac, target);
        continue;
      }
      this.#late();
      this.#endRequest(target);
      target.attempts++;
      const next = target.held[0];
      if (target.attempts < LOOKUP_ATTEMPTS_MAX && next) {
        target.generation = this.#next();
        this.#ask(mac, target, next.frame);
        continue;
      }
      this.#dropHeld(target, 'tx_lookup_timeout');
      target.state = after(target.state, 'give_up');
      this.#forget(mac, target);
    }
    for (const { request, deadlineMs } of [...this.#proxies.values()]) {
      if (now < deadlineMs) continue;
      this.#late();
      this.#endProxy(request);
      services.drop('tx_lookup_timeout', 1);
    }
  }

  #late(): void {
    if (this.#isLate) return;
    this.#isLate = true;
    this.options.services.onLate(true);
  }

  // ─── Settling ─────────────────────────────────────────────────────────────────────────────────────────

  /** An unsettled target gets a route: draining, with the row that is held for it. */
  #settleTo(mac: number, target: Unsettled, event: TargetEvent, row: number, source: TargetSource): void {
    const { services } = this.options;
    const before = this.#rowOf(mac);
    const next = after(target.state, event);
    const generation = this.#next();
    const life = target.state === 'draining' ? target.life : generation;
    try {
      this.#write(mac, next, false, row, life);
    } catch (error) {
      services.releaseRoute(row);
      if (!(error instanceof OverlayError) || event !== 'answer') throw error;
      // The answer is good and there is no room for it.
      this.#endRequest(target);
      this.#dropHeld(target, 'tx_table_full');
      this.#unsettled.delete(mac);
      return;
    }
    target.isPublished = true;
    target.life = life;
    this.#endRequest(target);
    target.state = next;
    target.generation = generation;
    target.isFull = false;
    if (before !== undefined) services.releaseRoute(before);
    this.#mark(mac, source);
    services.settle(mac, target.generation);
  }

  /** Every worker has seen that the target is draining: what is held goes back to them. False when it is another by now. */
  drain(mac: number, generation: number): boolean {
    const target = this.#unsettled.get(mac);
    if (target?.state !== 'draining' || target.generation !== generation) return false;
    const held = target.held.splice(0);
    target.heldBytes = 0;
    this.#giveBack(held);
    if (held.length > 0) this.options.services.send(held, false, target.life & 0xffff);
    return true;
  }

  /** The workers have sent what `drain` gave them. */
  drained(mac: number, generation: number): void {
    const target = this.#unsettled.get(mac);
    if (target?.state !== 'draining' || target.generation !== generation) return;
    if (target.held.length > 0) {
      // Something came in between: once more, so that it is not overtaken.
      this.options.services.settle(mac, generation);
      return;
    }
    target.state = after(target.state, 'drained');
    this.#write(mac, target.state, false, this.#rowOf(mac)!, generation);
    this.#unsettled.delete(mac);
  }

  // ─── Operators and plugins ────────────────────────────────────────────────────────────────────────────

  /**
   * CACHE_SET. Ends a request, clears drop. Throws EINVAL for a bad route, ENXIO once closed, ENOSPC and ENOMEM: nothing has
   * changed then.
   */
  set(mac: number, route: Route, source: TargetSource): void {
    const { services } = this.options;
    this.#refuseClosed();
    const state = this.stateOf(mac);
    const row = services.holdRoute(route);
    if (state === 'valid') {
      const before = this.#rowOf(mac)!;
      this.#write(mac, after(state, 'set'), false, row, this.#next());
      services.releaseRoute(before);
      this.#mark(mac, source);
      return;
    }
    const known = this.#unsettled.get(mac);
    const target = known ?? new Unsettled(state, this.#generation);
    this.#unsettled.set(mac, target);
    try {
      this.#settleTo(mac, target, 'set', row, source);
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
    const before = this.#rowOf(mac);
    this.#write(mac, after(state, 'set_drop'), false, NO_ROUTE, this.#next());
    if (before !== undefined) this.options.services.releaseRoute(before);
    if (target) {
      this.#endRequest(target);
      this.#dropHeld(target, 'tx_target_removed');
      this.#unsettled.delete(mac);
    }
    this.#mark(mac, source);
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
      target.state = after(state, 'remove');
      const { request } = target;
      assert(request, 'a pending target without a request');
      this.#endRequest(target);
      target.generation = this.#next();
      this.#ask(mac, target, target.held[0]?.frame ?? request.frame);
      // A flush has emptied the table.
      this.#publishPending(mac, target);
      return true;
    }
    after(state, 'remove');
    if (target) {
      // Draining: what is not with the workers yet is asked about anew, behind what is.
      const held = target.held.splice(0);
      this.#giveBack(held);
      this.#forget(mac, target);
      for (const frame of held) this.miss(mac, frame);
      return true;
    }
    this.#unwrite(mac);
    return true;
  }

  /** For how many milliseconds an address that turns out unknown is remembered from here on; 0 for not at all. */
  rememberUnknown(ms: number): void {
    this.#negativeMs = ms;
  }

  /** Whether anything has changed since this was asked before. */
  takeDirty(): boolean {
    const isDirty = this.#isDirty;
    this.#isDirty = false;
    return isDirty;
  }

  markDirty(): void {
    this.#isDirty = true;
  }

  /** What a restart may serve until somebody can be asked: every settled target, less what is only remembered as unknown. */
  *records(): Generator<KnownTarget> {
    for (const mac of this.options.store.macs()) {
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
    return [...this.options.store.macs()].filter((mac) => this.#sourceOf(mac) === 'saved');
  }

  /** Removes a target if it still is one of `saved`. */
  forgetSaved(mac: number): void {
    if (this.options.store.find(mac) && this.#sourceOf(mac) === 'saved') this.remove(mac);
  }

  #sourceOf(mac: number): TargetSource {
    return sources[this.#source[this.options.store.find(mac)!.id]!]!;
  }

  /** CACHE_FLUSH: removes every target. */
  flush(): void {
    this.endLoading();
    const unsettled = [...this.#unsettled.keys()];
    if (!this.#clear()) {
      for (const mac of this.options.store.macs()) if (!this.#unsettled.has(mac)) this.remove(mac);
    }
    for (const mac of unsettled) this.remove(mac);
  }

  /** Empties the table in one step, which takes a million entries no longer than one; false when there is no room to. */
  #clear(): boolean {
    this.#isDirty = true;
    const { services, store } = this.options;
    try {
      store.clear();
    } catch (error) {
      if (!(error instanceof OverlayError)) throw error;
      return false;
    }
    services.releaseRoutes();
    this.#sorted = undefined;
    for (const target of this.#unsettled.values()) target.isPublished = false;
    return true;
  }

  /** CACHE_GET: undefined when there is nothing of that address. */
  get(mac: number): TargetView | undefined {
    const state = this.stateOf(mac);
    if (state === 'absent') return undefined;
    const { services, store } = this.options;
    const entry = store.find(mac);
    const row = this.#rowOf(mac);
    const now = services.nowSeconds();
    return {
      mac,
      state,
      route: row === undefined ? undefined : services.routeOf(row),
      source: sources[entry ? this.#source[entry.id]! : 0]!,
      ageSeconds: entry ? Math.max(0, now - this.#since[entry.id]!) : 0,
      ...store.counts(mac),
    };
  }

  /**
   * CACHE_ITER: up to `count` targets from address `marker` on, in order, and where to go on; `next` is undefined behind
   * the last. A target that is there throughout an iteration is in it exactly once, any other at most once.
   */
  iterate(marker: number, count: number): { targets: TargetView[]; next: number | undefined } {
    // A walk that is under way may go on with the order it began with: whoever has left is passed over.
    if (!this.#sorted || !this.#markers.delete(marker)) {
      // Other walks may go on with the new order.
      if (!this.#sorted || this.#markers.size >= WALKS_MAX) this.#markers.clear();
      this.#sorted = this.options.store.macs().sort();
    }
    const sorted = this.#sorted;
    let at = firstNotBelow(sorted, marker);
    const targets: TargetView[] = [];
    for (; at < sorted.length && targets.length < count; at++) {
      const view = this.get(sorted[at]!);
      if (view) targets.push(view);
    }
    const next = sorted[at];
    if (next !== undefined) this.#markers.add(next);
    else if (this.#markers.size === 0) this.#sorted = undefined;
    return { targets, next };
  }

  /** The device stops being looked up for: every request ends, every frame is dropped, the table is empty. */
  close(): void {
    this.#isClosed = true;
    this.reset();
  }

  /** As when the device had just been activated: every request ends, every frame is dropped, the table is empty. */
  reset(): void {
    for (const [mac, target] of [...this.#unsettled]) {
      this.#endRequest(target);
      this.#dropHeld(target, 'tx_target_removed');
      this.#forget(mac, target);
    }
    for (const { request } of [...this.#proxies.values()]) {
      this.#endProxy(request);
      this.options.services.drop('tx_target_removed', 1);
    }
    if (this.#clear()) return;
    for (const mac of this.options.store.macs()) this.#unwrite(mac);
  }

  /** Every address there is an entry of, for `rehold`. */
  macs(): Float64Array {
    return this.options.store.macs();
  }

  /**
   * What stands in front of frames has changed: the route of the address, should it have one, is held anew. A target of which that
   * fails leaves, and is looked up again.
   */
  rehold(mac: number): void {
    const { services, store } = this.options;
    const row = this.#rowOf(mac);
    if (row === undefined) return;
    const { flags, generation } = store.find(mac)!;
    try {
      store.update(mac, flags, services.holdRoute(services.routeOf(row)), generation);
    } catch (error) {
      if (!(error instanceof OverlayError)) throw error;
      this.remove(mac);
      return;
    }
    services.releaseRoute(row);
  }

  // ─── The table ────────────────────────────────────────────────────────────────────────────────────────

  /** Row of the entry's route, or undefined when it has none. */
  #rowOf(mac: number): number | undefined {
    const { store } = this.options;
    const entry = store.find(mac);
    if (!entry) return undefined;
    return entry.flags & (store.flags.valid | store.flags.draining) ? entry.destination : undefined;
  }

  /** Writes a target that has no route to the table. */
  #publish(mac: number, target: Unsettled): void {
    this.#write(mac, target.state, target.isFull, NO_ROUTE, target.generation);
    target.isPublished = true;
  }

  #write(mac: number, state: TargetState, isFull: boolean, row: number, generation: number): void {
    this.#isDirty = true;
    const { store } = this.options;
    const { drop, draining, full, pending, valid } = store.flags;
    assert(state !== 'absent', 'an absent target is not in the table');
    const flags = { pending, draining, valid, drop }[state] | (isFull ? full : 0);
    if (store.find(mac)) store.update(mac, flags, row, generation);
    else store.insert(mac, flags, row, generation);
  }

  #unwrite(mac: number): void {
    this.#isDirty = true;
    const row = this.#rowOf(mac);
    this.options.store.remove(mac);
    if (row !== undefined) this.options.services.releaseRoute(row);
  }

  #forget(mac: number, target: Unsettled): void {
    assert(target.held.length === 0 && !target.request, 'a target is forgotten with something held');
    this.#unsettled.delete(mac);
    if (target.isPublished) this.#unwrite(mac);
  }

  #mark(mac: number, source: TargetSource): void {
    const id = this.options.store.find(mac)!.id;
    if (id >= this.#since.length) {
      const length = 2 ** Math.ceil(Math.log2(id + 1));
      const since = new Uint32Array(length);
      since.set(this.#since);
      this.#since = since;
      const source = new Uint8Array(length);
      source.set(this.#source);
      this.#source = source;
    }
    this.#since[id] = this.options.services.nowSeconds();
    this.#source[id] = sources.indexOf(source);
  }
}

/** Of the process, so that no two requests of any device have the same id. */
let requestNumber = 0;

/** Index of the first value that is not below `limit`, in an ordered array. */
function firstNotBelow(sorted: Float64Array, limit: number): number {
  let low = 0;
  let high = sorted.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (sorted[middle]! < limit) low = middle + 1;
    else high = middle;
  }
  return low;
}
