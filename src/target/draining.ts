/**
 * Targets that are draining: they have a route, and frames that are held for them, or wait in the workers, go out first. How a
 * round of that goes on is in `src/overlay/targets.ts`.
 */
import { OverlayError } from '../errors.js';
import type { Entries, TargetSource } from './entries.js';
import type { CacheServices } from './services.js';
import { after } from './state.js';
import type { Unsettled, UnsettledTargets } from './unsettled.js';

export class Draining {
  constructor(
    readonly unsettled: UnsettledTargets,
    readonly entries: Entries,
    readonly services: CacheServices,
  ) {}

  /**
   * An unsettled target gets a route, with the row that is held for it. An answer that there is no room for ends the target; what
   * is set throws ENOSPC or ENOMEM then, and nothing has changed.
   */
  begin(mac: number, target: Unsettled, event: 'answer' | 'set', row: number, source: TargetSource): void {
    const { unsettled, entries, services } = this;
    const before = entries.rowOf(mac);
    const next = after(target.state, event);
    const generation = unsettled.nextGeneration();
    const life = target.state === 'draining' ? target.life : generation;
    try {
      entries.write(mac, next, false, row, life);
    } catch (error) {
      services.releaseRoute(row);
      if (!(error instanceof OverlayError) || event !== 'answer') throw error;
      // The answer is good and there is no room for it.
      unsettled.endRequest(target);
      unsettled.dropHeld(target, 'tx_table_full');
      unsettled.delete(mac);
      return;
    }
    target.isPublished = true;
    target.life = life;
    unsettled.endRequest(target);
    target.state = next;
    target.generation = generation;
    target.isFull = false;
    if (before !== undefined) services.releaseRoute(before);
    entries.mark(mac, source);
    services.settle(mac, target.generation);
  }

  /** See `TargetCache.drain`. */
  drain(mac: number, generation: number): boolean {
    const target = this.#target(mac, generation);
    if (!target) return false;
    const frames = this.unsettled.takeHeld(target);
    if (frames.length > 0) this.services.send(frames, false, target.life & 0xffff);
    return true;
  }

  /** See `TargetCache.drained`. */
  drained(mac: number, generation: number): void {
    const target = this.#target(mac, generation);
    if (!target) return;
    if (target.held.length > 0) {
      // Something came in between: once more, so that it is not overtaken.
      this.services.settle(mac, generation);
      return;
    }
    target.state = after(target.state, 'drained');
    this.entries.write(mac, target.state, false, this.entries.rowOf(mac)!, generation);
    this.unsettled.delete(mac);
  }

  /** Undefined when it is another by now. */
  #target(mac: number, generation: number): Unsettled | undefined {
    const target = this.unsettled.get(mac);
    return target?.state === 'draining' && target.generation === generation ? target : undefined;
  }
}
