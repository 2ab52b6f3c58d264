/**
 * The pool behind the arenas, from which main gives out room for target tables, columns, lists and sets. First fit over
 * a list of free ranges in order, neighbours merged. What workers may read is freed after a quiesce only.
 */
import * as layout from '../../assembly/layout.js';
import { assert, OverlayError } from '../errors.js';
import type { MemoryViews } from './memory.js';

interface Range {
  readonly offset: number;
  readonly bytes: number;
}

export class Pool {
  #free: Range[];
  readonly #taken = new Map<number, number>();
  readonly bytes: number;
  /** Everything from this offset on is zero, since it was never taken. */
  #used: number;

  /** @param isFresh the memory was never used, as a new one of the engine's */
  constructor(
    readonly views: MemoryViews,
    isFresh = true,
  ) {
    const header = layout.HEADER_OFFSET;
    const offset = views.u32[(header + layout.HEADER_POOL) / 4]!;
    this.bytes = views.u32[(header + layout.HEADER_POOL_BYTES) / 4]!;
    this.#used = isFresh ? offset : offset + this.bytes;
    this.#free = [{ offset, bytes: this.bytes }];
  }

  get freeBytes(): number {
    return this.#free.reduce((sum, { bytes }) => sum + bytes, 0);
  }

  /** Zeroed room of at least `bytes`, on a line. Throws ENOMEM naming what it is for when there is none. */
  take(bytes: number, what: string): number {
    const size = Math.ceil(bytes / layout.LINE_BYTES) * layout.LINE_BYTES;
    const index = this.#free.findIndex((range) => range.bytes >= size);
    const range = this.#free[index];
    if (!range) {
      throw new OverlayError(
        'ENOMEM',
        'pool_full',
        `no room for ${what}: it needs ${Math.ceil(size / 1024)} KiB and the largest free part of the tables' pool has ` +
          `${Math.floor(Math.max(0, ...this.#free.map((each) => each.bytes)) / 1024)}; start the daemon with more --memory`,
      );
    }
    const rest = { offset: range.offset + size, bytes: range.bytes - size };
    this.#free.splice(index, 1, ...(rest.bytes > 0 ? [rest] : []));
    this.#taken.set(range.offset, size);
    // What was never taken is zero, and to write it would have the kernel find a page for each part of it now.
    const end = range.offset + size;
    if (range.offset < this.#used) this.views.u8.fill(0, range.offset, Math.min(end, this.#used));
    this.#used = Math.max(this.#used, end);
    return range.offset;
  }

  free(offset: number): void {
    const bytes = this.#taken.get(offset);
    assert(bytes !== undefined, `pool offset ${offset} is freed and not taken`);
    this.#taken.delete(offset);
    const at = this.#free.findIndex((range) => range.offset > offset);
    this.#free.splice(at < 0 ? this.#free.length : at, 0, { offset, bytes });
    const merged: Range[] = [];
    for (const range of this.#free) {
      const last = merged.at(-1);
      if (last && last.offset + last.bytes === range.offset) {
        merged[merged.length - 1] = { offset: last.offset, bytes: last.bytes + range.bytes };
      } else {
        merged.push(range);
      }
    }
    this.#free = merged;
  }
}
