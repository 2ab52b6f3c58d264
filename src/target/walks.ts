/** Walks over the targets of one device in the order of their addresses, some at a time, while they come and go. */
import type { TargetView } from './entries.js';

/** Those that are remembered: one more begins all anew, and costs the others a sort each. */
const WALKS_MAX = 16;

export class Walks {
  #sorted: Float64Array | undefined;
  /** Where walks with that order go on. */
  readonly #markers = new Set<number>();

  constructor(
    readonly macs: () => Float64Array,
    readonly get: (mac: number) => TargetView | undefined,
  ) {}

  /** See `TargetCache.iterate`. */
  step(marker: number, count: number): { targets: TargetView[]; next: number | undefined } {
    // A walk that is under way may go on with the order it began with: whoever has left is passed over.
    if (!this.#sorted || !this.#markers.delete(marker)) {
      // Other walks may go on with the new order.
      if (!this.#sorted || this.#markers.size >= WALKS_MAX) this.#markers.clear();
      this.#sorted = this.macs().sort();
    }
    const sorted = this.#sorted;
    let at = firstNotBelow(sorted, marker);
    const targets: TargetView[] = [];
    for (; at < sorted.length && targets.length < count; at++) {
      const view = this.get(sorted[at]!);
      if (view) targets.push(view);
    }
    const next = sorted[at];
    if (next !== undefined) this.#markers.add(next);
    else if (this.#markers.size === 0) this.#sorted = undefined;
    return { targets, next };
  }

  /** Every target has left: each walk begins with a new order. */
  restart(): void {
    this.#sorted = undefined;
  }
}

/** Index of the first value that is not below `limit`, in an ordered array. */
function firstNotBelow(sorted: Float64Array, limit: number): number {
  let low = 0;
  let high = sorted.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (sorted[middle]! < limit) low = middle + 1;
    else high = middle;
  }
  return low;
}
