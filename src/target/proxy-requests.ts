/** Requests about single frames that varpd answers in their addressee's name, although the target is VALID. */
import { assert } from '../errors.js';
import type { Held } from './held.js';
import type { RequestOwner, TargetRequest } from './request.js';
import { LOOKUP_DEADLINE_MS, type Requests } from './requests.js';
import type { CacheServices, HeldFrame } from './services.js';

export class ProxyRequests implements RequestOwner {
  readonly #open = new Map<string, { request: TargetRequest; frame: HeldFrame; deadlineMs: number }>();

  constructor(
    readonly requests: Requests,
    readonly held: Held,
    readonly services: CacheServices,
  ) {}

  /** Holds the frame and asks about it; without room for either it is dropped. */
  ask(mac: number, generation: number, frame: HeldFrame): void {
    const { requests, held, services } = this;
    if (requests.isFull) {
      services.drop('tx_requests_full', 1);
      return;
    }
    if (!held.take(frame)) return;
    const request = requests.create('proxy', mac, generation, frame.frame, this);
    this.#open.set(request.id, { request, frame, deadlineMs: services.nowMs() + LOOKUP_DEADLINE_MS });
    requests.put(request);
  }

  /** The target is VALID and its route stands; this frame goes there. */
  respond(request: TargetRequest): void {
    const frame = this.#end(request);
    this.services.send([frame], true);
    this.requests.answered();
  }

  drop(request: TargetRequest, isProxied: boolean): void {
    this.#end(request);
    if (isProxied) this.services.proxied(1);
    else this.services.drop('tx_lookup_drop', 1);
    this.requests.answered();
  }

  unknown(request: TargetRequest): void {
    this.drop(request, false);
  }

  /** Gives up what was not answered in time, the oldest first, until the time of the caller is spent. */
  expire(now: number, isSpent: () => boolean): void {
    for (const { request, deadlineMs } of this.#open.values()) {
      if (now < deadlineMs) return;
      this.requests.late();
      this.#end(request);
      this.services.drop('tx_lookup_timeout', 1);
      if (isSpent()) return;
    }
  }

  /** Every request ends, and every frame is dropped. */
  reset(): void {
    for (const { request } of [...this.#open.values()]) {
      this.#end(request);
      this.services.drop('tx_target_removed', 1);
    }
  }

  #end(request: TargetRequest): HeldFrame {
    const proxy = this.#open.get(request.id);
    assert(proxy, 'an open request without its frame');
    this.#open.delete(request.id);
    this.requests.end(request);
    this.held.giveBack([proxy.frame]);
    return proxy.frame;
  }
}
