/** Requests that nobody has taken, of all devices, first in, first out. */
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
  #asks: (Ask | undefined)[] = [];
  /** Index of the oldest. */
  #head = 0;
  #sweepAt = SWEEP_MIN;

  /** Places in use, also of requests that have ended. */
  get length(): number {
    return this.#asks.length;
  }

  push(ask: Ask): void {
    if (this.length >= this.#sweepAt) this.#sweep(() => true);
    this.#asks.push(ask);
  }

  /** Takes the oldest that is still open, or undefined. */
  shift(): Ask | undefined {
    while (this.#head < this.#asks.length) {
      const ask = this.#asks[this.#head];
      this.#asks[this.#head] = undefined;
      this.#head++;
      if (ask?.request.isOpen) return ask;
    }
    this.#asks.length = 0;
    this.#head = 0;
    return undefined;
  }

  /** Takes all requests of a device out. */
  forget(overlay: string): void {
    this.#sweep(({ question }) => question.overlay !== overlay);
  }

  #sweep(isKept: (ask: Ask) => boolean): void {
    this.#asks = this.#asks.filter((ask) => ask?.request.isOpen && isKept(ask));
    this.#head = 0;
    this.#sweepAt = Math.max(SWEEP_MIN, 2 * this.#asks.length);
  }
}
