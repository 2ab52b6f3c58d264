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
    if (!this.has(weight)) return false;
    this.#tokens -= weight;
    return true;
  }

  /** Whether something of this weight could pass now. */
  has(weight = 1): boolean {
    this.#refill();
    return this.#tokens >= weight;
  }

  /** Counts work that is done already, as a debt of at most one burst where too little is there. Returns how much was there. */
  charge(weight: number): number {
    this.#refill();
    const covered = Math.max(0, Math.min(this.#tokens, weight));
    this.#tokens = Math.max(-this.rate.burst, this.#tokens - weight);
    return covered;
  }

  /** Nothing has been taken for so long that a new bucket would be the same. */
  get isFull(): boolean {
    this.#refill();
    return this.#tokens === this.rate.burst;
  }

  #refill(): void {
    const now = this.nowMs();
    const { perSecond, burst } = this.rate;
    this.#tokens = Math.min(burst, this.#tokens + ((now - this.#atMs) * perSecond) / 1000);
    this.#atMs = now;
  }
}
