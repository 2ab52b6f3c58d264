/** Requests that nobody has taken: devices take turns, and those of one device are first in, first out. */
import { FairQueue } from '../../fair-queue.js';
import type { TargetRequest } from '../../target/request.js';
import type { LookupRequest } from '../plugin.js';

/** A request, and what is known of the frame it is about. */
export interface Ask {
  readonly request: TargetRequest;
  readonly question: LookupRequest;
}

/** Places that are swept for ended requests at the earliest. */
const SWEEP_MIN = 64;

/**
 * Requests end by themselves and stay where they are until they are swept out. Bounded by twice the open requests of all
 * devices, whose caches bound those.
 */
export class AskQueue {
  #asks = new FairQueue<string, string, Ask>();
  #sweepAt = SWEEP_MIN;

  /** Places in use, also of requests that have ended. */
  get length(): number {
    return this.#asks.size;
  }

  push(ask: Ask): void {
    if (this.length >= this.#sweepAt) this.#sweep();
    this.#put(ask);
  }

  /** Takes the next one that is still open, or undefined. */
  shift(): Ask | undefined {
    for (;;) {
      const ask = this.#asks.take();
      if (!ask || ask.request.isOpen) return ask;
    }
  }

  /** Takes all requests of a device out. */
  forget(overlay: string): void {
    this.#asks.forget(overlay);
  }

  #put(ask: Ask): void {
    this.#asks.put(ask.question.overlay, ask.request.id, ask);
  }

  #sweep(): void {
    const asks = this.#asks;
    this.#asks = new FairQueue();
    for (const ask of asks.values()) if (ask.request.isOpen) this.#put(ask);
    this.#sweepAt = Math.max(SWEEP_MIN, 2 * this.length);
  }
}
