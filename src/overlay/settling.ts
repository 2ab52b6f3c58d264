/**
 * Targets that are draining, of all devices, until a round takes them. Devices take turns, and a round is short: thousands of
 * targets of one device are many rounds, in each of which others have their share.
 */
import { FairQueue } from '../fair-queue.js';
import type { Dynamic } from './dynamic.js';

export interface Settling {
  readonly dynamic: Dynamic;
  readonly mac: number;
  readonly generation: number;
}

/** Targets of one round, and frames that are held for them; a target is taken whole. */
const ROUND_TARGETS_MAX = 96;
const ROUND_FRAMES_MAX = 1024;

export class SettlingTargets {
  /** By address: what became of a target since it was put here counts alone. Bounded by the targets that are not settled. */
  readonly #waiting = new FairQueue<Dynamic, number, Settling>();

  get isEmpty(): boolean {
    return this.#waiting.size === 0;
  }

  put(settling: Settling): void {
    this.#waiting.put(settling.dynamic, settling.mac, settling);
  }

  /** Those of the next round, which are not here any more. */
  takeRound(): readonly Settling[] {
    const round: Settling[] = [];
    for (let frames = 0; round.length < ROUND_TARGETS_MAX && frames < ROUND_FRAMES_MAX; ) {
      const next = this.#waiting.take();
      if (!next) break;
      round.push(next);
      frames += next.dynamic.cache.heldOf(next.mac);
    }
    return round;
  }

  forget(dynamic: Dynamic): void {
    this.#waiting.forget(dynamic);
  }
}
