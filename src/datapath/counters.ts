/** Reader's side of the counters: sums a row over all arenas. Each word is read whole, rows are not snapshots. */
import * as layout from '../../assembly/layout.js';
import { type CounterName, counterNumbers, type DropName, dropNames } from './drop.js';
import type { MemoryViews } from './memory.js';

/** Counts of one row. `drops` holds every name, zero or not. */
export interface Counts {
  readonly drops: Readonly<Record<DropName, bigint>>;
  readonly counters: Readonly<Record<CounterName, bigint>>;
}

export class Counters {
  /** What main itself counts for devices, by row and counter: it has no arena. */
  readonly #main = new Map<number, BigUint64Array>();

  constructor(
    readonly views: MemoryViews,
    readonly arenas: readonly number[],
  ) {}

  device(row: number): Counts {
    return this.#row(row, this.arenas, this.#main.get(row));
  }

  /** Main's own: adds to a counter or drop reason of a device. */
  add(row: number, counter: number, amount: number): void {
    let counts = this.#main.get(row);
    if (!counts) {
      counts = new BigUint64Array(layout.COUNTERS_MAX);
      this.#main.set(row, counts);
    }
    counts[counter]! += BigInt(amount);
  }

  mux(row: number): Counts {
    return this.#row(layout.DEVICES_MAX + row, this.arenas);
  }

  /** What the arena's worker did for the devices and muxes together is not here, only its own counts. */
  worker(arena: number): Counts {
    return this.#row(layout.COUNTER_ROWS - 1, [arena]);
  }

  /** Zeroes a row that is being given to another device or mux; call only after a quiesce. */
  clear(row: number): void {
    for (const arena of this.arenas) {
      const start = (arena + layout.ARENA_COUNTERS + row * layout.COUNTER_ROW_BYTES) / 8;
      for (let word = 0; word < layout.COUNTERS_MAX; word++) Atomics.store(this.views.u64, start + word, 0n);
    }
  }

  clearDevice(row: number): void {
    this.clear(row);
    this.#main.delete(row);
  }

  clearMux(row: number): void {
    this.clear(layout.DEVICES_MAX + row);
  }

  #row(row: number, arenas: readonly number[], main?: BigUint64Array): Counts {
    const sum = (counter: number): bigint => {
      let total = main?.[counter] ?? 0n;
      for (const arena of arenas) {
        const at = arena + layout.ARENA_COUNTERS + row * layout.COUNTER_ROW_BYTES + counter * 8;
        total += Atomics.load(this.views.u64, at / 8);
      }
      return total;
    };
    const drops = Object.fromEntries(dropNames.map((name, reason) => [name, sum(reason)]));
    const counters = Object.fromEntries(
      Object.entries(counterNumbers).map(([name, counter]) => [name, sum(counter)]),
    );
    return { drops: drops as Counts['drops'], counters: counters as Counts['counters'] };
  }
}
