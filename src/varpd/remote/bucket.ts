/** A token bucket: so many at once, so many a second after that. */
import { monotonicMs } from '../../sys/clock.js';

export interface Rate {
  readonly perSecond: number;
  readonly burst: number;
}

export class Bucket {
  #tokens: number;
  #atMs: number;

  constructor(
    readonly rate: Rate,
    readonly nowMs: () => number = monotonicMs,
  ) {
    this.#tokens = rate.burst;
    this.#atMs = nowMs();
  }

  /** Whether something of this weight may pass; it is counted if so. @param weight at most the burst */
  take(weight = 1): boolean {
    const now = this.nowMs();
    const { perSecond, burst } = this.rate;
    this.#tokens = Math.min(burst, this.#tokens + ((now - this.#atMs) * perSecond) / 1000);
    this.#atMs = now;
    if (this.#tokens < weight) return false;
    this.#tokens -= weight;
    return true;
  }
}
