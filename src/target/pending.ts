/** Targets that are pending: how they come about, are asked about, and what an answer, or none, makes of them. */
import { assert, OverlayError } from '../errors.js';
import type { Route } from './destination.js';
import type { Draining } from './draining.js';
import type { Entries } from './entries.js';
import type { Held } from './held.js';
import type { RequestOwner, TargetRequest } from './request.js';
import { LOOKUP_DEADLINE_MS, type Requests } from './requests.js';
import type { CacheServices, HeldFrame } from './services.js';
import { after } from './state.js';
import { Unsettled, type UnsettledTargets } from './unsettled.js';

/** Times that a target is asked about; see LOOKUP_DEADLINE_MS. */
const LOOKUP_ATTEMPTS_MAX = 3;

export interface PendingContext {
  readonly unsettled: UnsettledTargets;
  readonly draining: Draining;
  readonly entries: Entries;
  readonly requests: Requests;
  readonly held: Held;
  readonly services: CacheServices;
}

export class Pending implements RequestOwner {
  constructor(
    readonly context: PendingContext,
    /** Milliseconds for which an address that is unknown is remembered; 0 for not at all. */
    public negativeMs: number,
  ) {}

  /** The first frame of an absent target; without room for it or for a request it is dropped. */
  begin(mac: number, frame: HeldFrame): void {
    const { services, requests, held } = this.context;
    if (requests.isFull) {
      services.drop('tx_requests_full', 1);
      return;
    }
    if (!held.take(frame)) return;
    const target = this.#create();
    target.held.push(frame);
    target.heldBytes = frame.frame.length;
    this.#askFirst(mac, target, frame.frame);
  }

  /** An absent target is asked about with nothing held, where there is room for a request. */
  beginEmpty(mac: number, frame: Uint8Array): void {
    if (!this.context.requests.isFull) this.#askFirst(mac, this.#create(), frame);
  }

  /** What was asked may be out of date: it is asked anew. */
  restart(mac: number, target: Unsettled): void {
    const { unsettled } = this.context;
    target.state = after(target.state, 'remove');
    const { request } = target;
    assert(request, 'a pending target without a request');
    unsettled.endRequest(target);
    target.generation = unsettled.nextGeneration();
    this.#ask(mac, target, target.held[0]?.frame ?? request.frame);
    // A flush has emptied the table.
    this.#publish(mac, target);
  }

  /** There was no answer in time: it is asked for again, or given up. */
  late(mac: number, target: Unsettled): void {
    const { unsettled, requests } = this.context;
    requests.late();
    unsettled.endRequest(target);
    target.attempts++;
    const next = target.held[0];
    if (target.attempts < LOOKUP_ATTEMPTS_MAX && next) {
      target.generation = unsettled.nextGeneration();
      this.#ask(mac, target, next.frame);
      return;
    }
    unsettled.dropHeld(target, 'tx_lookup_timeout');
    target.state = after(target.state, 'give_up');
    unsettled.forget(mac, target);
  }

  // ─── Asking ───────────────────────────────────────────────────────────────────────────────────────────

  #create(): Unsettled {
    return new Unsettled(after('absent', 'miss'), this.context.unsettled.nextGeneration());
  }

  #askFirst(mac: number, target: Unsettled, frame: Uint8Array): void {
    this.context.unsettled.add(mac, target);
    // Asked before it is published: most plugins answer at once, and then the workers never see it pending.
    this.#ask(mac, target, frame);
    this.#publish(mac, target);
  }

  #ask(mac: number, target: Unsettled, frame: Uint8Array): void {
    const { services, requests } = this.context;
    target.request = requests.create('target', mac, target.generation, frame, this);
    target.deadlineMs = services.nowMs() + LOOKUP_DEADLINE_MS * 2 ** target.attempts;
    requests.put(target.request);
  }

  /** A target that was not answered at once gets into the table; without room it ends. */
  #publish(mac: number, target: Unsettled): void {
    const { unsettled, entries } = this.context;
    const isPending = unsettled.get(mac) === target && target.state === 'pending';
    if (!isPending || target.isPublished) return;
    try {
      unsettled.publish(mac, target);
      entries.mark(mac, 'lookup');
    } catch (error) {
      if (!(error instanceof OverlayError)) throw error;
      unsettled.endRequest(target);
      unsettled.dropHeld(target, 'tx_table_full');
      unsettled.delete(mac);
    }
  }

  // ─── Answers ──────────────────────────────────────────────────────────────────────────────────────────

  respond(request: TargetRequest, route: Route): void {
    const { services, draining, requests } = this.context;
    const target = this.#targetOf(request);
    const row = services.holdRoute(route);
    draining.begin(request.mac, target, 'answer', row, 'lookup');
    requests.answered();
  }

  drop(request: TargetRequest, isProxied: boolean): void {
    const { services, unsettled, requests, held } = this.context;
    const target = this.#targetOf(request);
    unsettled.endRequest(target);
    // None is held when it is the source of a received frame that was asked about.
    const first = target.held[0];
    if (first?.frame === request.frame) {
      target.held.shift();
      if (isProxied) services.proxied(1);
      else services.drop('tx_lookup_drop', 1);
      held.giveBack([first]);
      target.heldBytes -= first.frame.length;
    }
    requests.answered();
    this.#askNext(request.mac, target);
  }

  unknown(request: TargetRequest): void {
    if (this.negativeMs === 0) {
      this.drop(request, false);
      return;
    }
    const { services, unsettled, requests, entries } = this.context;
    const target = this.#targetOf(request);
    unsettled.endRequest(target);
    unsettled.dropHeld(target, 'tx_lookup_drop');
    target.state = after(target.state, 'answer_unknown');
    target.deadlineMs = services.nowMs() + this.negativeMs;
    try {
      unsettled.publish(request.mac, target);
      entries.mark(request.mac, 'lookup');
    } catch (error) {
      if (!(error instanceof OverlayError)) throw error;
      // No room to remember it in: it is asked about again.
      unsettled.delete(request.mac);
    }
    requests.answered();
  }

  /** One frame has its answer: the next is asked about, and without one the target ends. */
  #askNext(mac: number, target: Unsettled): void {
    const { unsettled } = this.context;
    const next = target.held[0];
    const isMore = next !== undefined;
    target.state = after(target.state, isMore ? 'answer_drop_more' : 'answer_drop_last');
    if (!isMore) {
      unsettled.forget(mac, target);
      return;
    }
    target.attempts = 0;
    target.generation = unsettled.nextGeneration();
    if (target.isFull) {
      target.isFull = false;
      unsettled.publish(mac, target);
    }
    this.#ask(mac, target, next.frame);
  }

  /** The target that an open request is about; its generation is the one that was asked with. */
  #targetOf(request: TargetRequest): Unsettled {
    const target = this.context.unsettled.get(request.mac);
    assert(target?.request === request, 'an open request without its target');
    return target;
  }
}
