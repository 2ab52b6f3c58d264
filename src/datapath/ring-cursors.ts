/** How far the rings of one kind have got, of which every worker has one in its arena. */
import * as layout from '../../assembly/layout.js';
import type { MemoryViews } from './memory.js';
import type { Workers } from './workers.js';

export class RingCursors {
  constructor(
    readonly views: MemoryViews,
    readonly workers: Workers,
    /** Of the ring in an arena: an ARENA_ offset. */
    readonly offset: number,
  ) {}

  /** Where each ring ends now, by its arena, for `hasPassed`. */
  ends(): ReadonlyMap<number, number> {
    return new Map(
      this.workers.list.map(({ queue }) => [queue.arena, this.#cursor(queue.arena, layout.RING_TAIL)]),
    );
  }

  /** True when what was on the arena's ring then has been taken; also for an arena that had none then. */
  hasPassed(arena: number, ends: ReadonlyMap<number, number>): boolean {
    const end = ends.get(arena);
    return end === undefined || ((this.#cursor(arena, layout.RING_HEAD) - end) | 0) >= 0;
  }

  isEmpty(arena: number): boolean {
    return this.#cursor(arena, layout.RING_HEAD) === this.#cursor(arena, layout.RING_TAIL);
  }

  #cursor(arena: number, cursor: number): number {
    // Signed, so that a difference is right when the count wraps.
    return Atomics.load(this.views.i32, (arena + this.offset + cursor) / 4);
  }
}
