/**
 * Targets that are not settled: pending, draining, or remembered as unknown. Each has an object here, with the frames that are
 * held for it and the request that is open about it; a settled one is its entry in the table and nothing else.
 */
import { assert } from '../errors.js';
import { HELD_BYTES_PER_TARGET_MAX, HELD_FRAMES_PER_TARGET_MAX } from './budget.js';
import { type Entries, NO_ROUTE } from './entries.js';
import type { Held } from './held.js';
import type { TargetRequest } from './request.js';
import type { Requests } from './requests.js';
import type { CacheDrop, CacheServices, HeldFrame } from './services.js';
import { after, type TargetState } from './state.js';

/** A target that is not settled. */
export class Unsettled {
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

/** Those of one device. */
export class UnsettledTargets {
  readonly #byMac = new Map<number, Unsettled>();
  #generation = 0;

  constructor(
    readonly entries: Entries,
    readonly requests: Requests,
    readonly held: Held,
    readonly services: Pick<CacheServices, 'drop'>,
  ) {}

  /** The last one that was given out. */
  get generation(): number {
    return this.#generation;
  }

  /** A new one, with which answers and rounds that are under way are out of date. */
  nextGeneration(): number {
    this.#generation++;
    return this.#generation;
  }

  get(mac: number): Unsettled | undefined {
    return this.#byMac.get(mac);
  }

  add(mac: number, target: Unsettled): void {
    this.#byMac.set(mac, target);
  }

  /** It has settled, or is no more. */
  delete(mac: number): void {
    this.#byMac.delete(mac);
  }

  /** With their addresses; whoever leaves meanwhile is not among them. */
  all(): IterableIterator<[mac: number, target: Unsettled]> {
    return this.#byMac.entries();
  }

  macs(): number[] {
    return [...this.#byMac.keys()];
  }

  /** Writes a target that has no route to the table. Throws ENOSPC or ENOMEM when there is no room. */
  publish(mac: number, target: Unsettled): void {
    this.entries.write(mac, target.state, target.isFull, NO_ROUTE, target.generation);
    target.isPublished = true;
  }

  /** The table has been emptied. */
  unpublish(): void {
    for (const target of this.#byMac.values()) target.isPublished = false;
  }

  /** Holds a frame behind the others of its target, or drops it. */
  hold(mac: number, target: Unsettled, frame: HeldFrame): void {
    const bytes = target.heldBytes + frame.frame.length;
    if (bytes > HELD_BYTES_PER_TARGET_MAX || target.held.length >= HELD_FRAMES_PER_TARGET_MAX) {
      this.services.drop('tx_held_full', 1);
      if (!target.isFull && target.state === 'pending') {
        target.isFull = true;
        this.publish(mac, target);
      }
      return;
    }
    if (!this.held.take(frame)) return;
    target.held.push(frame);
    target.heldBytes = bytes;
  }

  /** All that is held for the target, which is the caller's from here on. */
  takeHeld(target: Unsettled): HeldFrame[] {
    const frames = target.held.splice(0);
    target.heldBytes = 0;
    this.held.giveBack(frames);
    return frames;
  }

  dropHeld(target: Unsettled, reason: CacheDrop): void {
    const frames = this.takeHeld(target);
    if (frames.length > 0) this.services.drop(reason, frames.length);
  }

  endRequest(target: Unsettled): void {
    if (!target.request) return;
    this.requests.end(target.request);
    target.request = undefined;
  }

  /** What it was remembered for as unknown is old. */
  expire(mac: number, target: Unsettled): void {
    target.state = after('drop', 'expire');
    this.forget(mac, target);
  }

  /** It leaves, and its entry with it. */
  forget(mac: number, target: Unsettled): void {
    assert(target.held.length === 0 && !target.request, 'a target is forgotten with something held');
    this.#byMac.delete(mac);
    if (target.isPublished) this.entries.remove(mac);
  }
}
