/**
 * Writer's side of one device's target table (`assembly/target.ts` has the reader's and the rules). Main alone writes.
 * A slot or an id that has left is given out again only after `reclaim`, which is for after a quiesce; the table grows
 * by filling a larger one, publishing its offset, and freeing the old one after a quiesce.
 *
 *   insert ─► there ─ update ─► there ─ remove ─► left ─ reclaim ─► free
 *                                 ▲                 │
 *                                 └──── insert ─────┘  the same address may come back at once, to the same slot and id
 */
import * as layout from '../../assembly/layout.js';
import { assert, OverlayError } from '../errors.js';
import { random64 } from '../sys/random.js';
import type { Core } from './core.js';
import type { MemoryViews } from './memory.js';
import type { Pool } from './pool.js';
import type { Tables } from './tables.js';

/** What main needs to build a table. */
export interface TargetTableOptions {
  readonly views: MemoryViews;
  readonly core: Core;
  readonly pool: Pool;
  readonly tables: Tables;
  /** How many arenas there are: each has a column. */
  readonly arenas: number;
  /** Device row. */
  readonly row: number;
  /** Most entries, 1 to TARGETS_MAX. */
  readonly max: number;
}

/** An entry as main sees it. */
export interface TableEntry {
  /** TARGET_ bits. */
  readonly flags: number;
  /** Destination row. */
  readonly destination: number;
  /** Low 16 bits of the generation. */
  readonly generation: number;
  readonly id: number;
}

/** What workers have sent to a target. */
export interface TargetCounts {
  readonly frames: number;
  readonly bytes: number;
  /** Seconds (`monotonicSeconds`), 0 for never. */
  readonly lastUse: number;
}

/** A table in memory, with its columns. */
interface Build {
  readonly offset: number;
  readonly columns: number;
  readonly slots: number;
  readonly ids: number;
  /** Its entries were removed with it: its counts are nobody's. */
  isDiscarded: boolean;
}

const IDS_MIN = 256;
/**
 * Slots for each id: at most a quarter of them is taken, so that hardly an address is outside of its first line. With half
 * a miss among a million took 26 ns instead of 19, since most batches had to read second lines.
 */
const SLOTS_PER_ID = 4;
/** Entries that have left and not been reclaimed, as a part of the slots, above which the table is built anew. */
const LEFT_PART_MAX = 1 / 8;

const TAKEN = BigInt(layout.KEY_TAKEN) << BigInt(layout.KEY_SHIFT);
const LEFT = BigInt(layout.KEY_LEFT) << BigInt(layout.KEY_SHIFT);
const FREE = BigInt(layout.KEY_FREE) << BigInt(layout.KEY_SHIFT);

export class TargetTable {
  #build: Build;
  #max: number;
  /** Published before; freed, and their counts kept, when `reclaim` says that nobody reads them. */
  #retired: Build[] = [];
  #size = 0;
  #freeIds: number[] = [];
  #nextId = 0;
  /** Addresses that have left, with their ids; each time another object. */
  readonly #left = new Map<number, { readonly id: number }>();
  /** Slots that were reclaimed and not given out again. */
  #tombstones = 0;
  // Counts of columns that are gone, less what an id's last owner had.
  #baseFrames = new Float64Array(0);
  #baseBytes = new Float64Array(0);
  #baseLastUse = new Float64Array(0);

  constructor(readonly options: TargetTableOptions) {
    assert(
      options.max >= 1 && options.max <= layout.TARGETS_MAX,
      `a table of at most ${options.max} targets`,
    );
    this.#max = options.max;
    this.#build = this.#make(Math.min(IDS_MIN, options.max));
    this.#publish();
  }

  get size(): number {
    return this.#size;
  }

  /** Bytes of the pool in use. */
  get bytes(): number {
    return [this.#build, ...this.#retired].reduce((sum, build) => sum + this.#bytesOf(build), 0);
  }

  /** True when `reclaim` has something to do. */
  get hasLeft(): boolean {
    return this.#left.size > 0 || this.#retired.length > 0;
  }

  /** Changes how many entries there may be. Throws EBUSY when there are more already. */
  limit(max: number): void {
    assert(max >= 1 && max <= layout.TARGETS_MAX, `a table of at most ${max} targets`);
    if (this.#size > max) {
      throw new OverlayError(
        'EBUSY',
        'targets_above',
        `targets cannot be ${max}: there are ${this.#size}; flush them first`,
      );
    }
    this.#max = max;
  }

  /** Offset, for the core's functions. */
  get offset(): number {
    return this.#build.offset;
  }

  find(mac: number): TableEntry | undefined {
    const entry = BigInt.asUintN(64, this.options.core.targetFind(this.#build.offset, BigInt(mac)));
    return entry === 0n ? undefined : decode(entry);
  }

  /**
   * A new entry; the address must not be there. Throws ENOSPC when the device has as many as it may, ENOMEM when the
   * pool has no room to grow: nothing is changed then.
   */
  insert(mac: number, flags: number, destination: number, generation: number): void {
    assert(flags !== 0, 'an entry without a flag is none');
    if (this.#size >= this.#max) {
      throw new OverlayError(
        'ENOSPC',
        'target_table_full',
        `the target cache is full: it holds ${this.#max}, set targets to a higher number`,
      );
    }
    const before = this.#left.get(mac);
    const place = this.options.core.targetPlace(this.#build.offset, BigInt(mac)) >>> 0;
    if (before !== undefined && place !== layout.NONE) {
      this.#left.delete(mac);
      this.#size++;
      this.#store(place, before.id, flags, destination, generation);
      Atomics.store(this.options.views.u64, this.#at(place), BigInt(mac) | TAKEN);
      return;
    }
    if (!before && this.#freeIds.length === 0 && this.#nextId >= this.#build.ids) {
      if (this.#build.ids === layout.TARGETS_MAX) {
        throw new OverlayError(
          'ENOSPC',
          'target_table_full',
          'the target cache is full until what has left is given back: try again',
        );
      }
      this.#rebuild();
    }
    let slot = this.options.core.targetRoom(this.#build.offset, BigInt(mac)) >>> 0;
    if (slot === layout.NONE) {
      this.#rebuild();
      slot = this.options.core.targetRoom(this.#build.offset, BigInt(mac)) >>> 0;
      assert(slot !== layout.NONE, 'no room near a slot of a table that is mostly empty');
    }
    const fresh = before?.id ?? this.#freeIds.pop() ?? this.#nextId++;
    this.#left.delete(mac);
    this.#size++;
    const { u64 } = this.options.views;
    const at = this.#at(slot);
    if (u64[at] !== 0n) this.#tombstones--;
    this.#store(slot, fresh, flags, destination, generation);
    Atomics.store(u64, at, BigInt(mac) | TAKEN);
  }

  /** Changes an entry that is there, in one store. */
  update(mac: number, flags: number, destination: number, generation: number): void {
    assert(flags !== 0, 'an entry without a flag is none');
    const entry = this.find(mac);
    assert(entry, 'an entry is changed that is not there');
    this.#store(this.#slotOf(mac), entry.id, flags, destination, generation);
  }

  /** Workers no longer find it. Its destination may be freed after a quiesce. */
  remove(mac: number): void {
    const entry = this.find(mac);
    assert(entry, 'an entry is removed that is not there');
    const at = this.#at(this.#slotOf(mac));
    Atomics.store(this.options.views.u64, at + 1, 0n);
    // Whoever comes from now on does not find the slot, so that a quiesce is for all who have.
    Atomics.store(this.options.views.u64, at, BigInt(mac) | LEFT);
    this.#left.set(mac, { id: entry.id });
    this.#size--;
    this.#zero(entry.id);
  }

  /** Whoever has the id next begins at zero. */
  #zero(id: number): void {
    const counts = this.#countsOf(id);
    this.#baseFrames[id]! -= counts.frames;
    this.#baseBytes[id]! -= counts.bytes;
    this.#baseLastUse[id] = 0;
  }

  /** Removes every entry at once. Throws ENOMEM when the pool has no room for an empty table: nothing has changed then. */
  clear(): void {
    const next = this.#make(Math.min(IDS_MIN, this.#max));
    this.#retired.push(this.#build);
    this.#build = next;
    this.#size = 0;
    this.#freeIds = [];
    this.#nextId = 0;
    this.#left.clear();
    this.#tombstones = 0;
    this.#publish();
    // Tables before this one have nothing to tell to whoever has their ids next.
    for (const build of this.#retired) build.isDiscarded = true;
    this.#baseFrames.fill(0);
    this.#baseBytes.fill(0);
    this.#baseLastUse.fill(0);
  }

  /** What had left before this is remembered; hand it to `reclaim` after a quiesce. */
  leaving(): () => void {
    const left = [...this.#left];
    const retired = [...this.#retired];
    return () => this.#reclaim(left, retired);
  }

  /** Sums over all workers. */
  counts(mac: number): TargetCounts {
    const entry = this.find(mac);
    if (!entry) return { frames: 0, bytes: 0, lastUse: 0 };
    const counts = this.#countsOf(entry.id);
    // The stamp may be that of an earlier owner of the id.
    return counts.frames > 0 ? counts : { ...counts, lastUse: 0 };
  }

  /** Every address that is there, in no order. */
  macs(): Float64Array {
    // Halves of words: a million of them as bigint would keep main busy for a good part of a second.
    const { u32 } = this.options.views;
    const found = new Float64Array(this.#size);
    let count = 0;
    for (let slot = 0; slot < this.#build.slots; slot++) {
      const at = this.#at(slot) * 2;
      const high = u32[at + 1]!;
      if (high >>> 16 !== layout.KEY_TAKEN || (u32[at + 2] === 0 && u32[at + 3] === 0)) continue;
      found[count++] = (high & 0xffff) * 2 ** 32 + u32[at]!;
    }
    assert(count === this.#size, `a table of ${this.#size} entries has ${count}`);
    return found;
  }

  /** Gives everything back; call after a quiesce. */
  close(): void {
    for (const build of [this.#build, ...this.#retired]) this.#free(build);
    this.#retired = [];
    // A `leaving` that is under way finds nothing to do.
    this.#left.clear();
    this.#tombstones = 0;
  }

  #reclaim(left: readonly (readonly [number, { readonly id: number }])[], retired: readonly Build[]): void {
    for (const [mac, leaver] of left) {
      // It has come back in the meantime, and may have left again.
      if (this.#left.get(mac) !== leaver) continue;
      this.#left.delete(mac);
      this.#freeIds.push(leaver.id);
      // What was under way when it left was counted since.
      this.#zero(leaver.id);
      const slot = this.options.core.targetPlace(this.#build.offset, BigInt(mac)) >>> 0;
      // In a table that was built anew it has no slot.
      if (slot === layout.NONE) continue;
      Atomics.store(this.options.views.u64, this.#at(slot), FREE);
      this.#tombstones++;
    }
    for (const build of retired) {
      if (!this.#retired.includes(build)) continue;
      this.#retired = this.#retired.filter((each) => each !== build);
      for (let id = 0; id < build.ids && !build.isDiscarded; id++) {
        const { frames, bytes, lastUse } = this.#columnsOf(build, id);
        this.#baseFrames[id]! += frames;
        this.#baseBytes[id]! += bytes;
        this.#baseLastUse[id] = Math.max(this.#baseLastUse[id]!, lastUse);
      }
      this.#free(build);
    }
    if (this.#tombstones > this.#build.slots * LEFT_PART_MAX) this.#tidy();
  }

  /** Builds the table anew if there is room for that; probes are longer until there is. */
  #tidy(): void {
    try {
      this.#rebuild();
    } catch (error) {
      if (!(error instanceof OverlayError)) throw error;
    }
  }

  /** Builds the table anew, larger when its ids are used up, and publishes it. */
  #rebuild(): void {
    const isFull = this.#freeIds.length === 0 && this.#nextId >= this.#build.ids;
    const ids = isFull ? Math.min(this.#build.ids * 2, layout.TARGETS_MAX) : this.#build.ids;
    const next = this.#make(ids);
    if (!this.options.core.targetRehash(this.#build.offset, next.offset)) {
      this.#free(next);
      assert(false, 'no room near a slot of a table that is mostly empty');
    }
    this.#retired.push(this.#build);
    this.#build = next;
    this.#tombstones = 0;
    this.#publish();
  }

  #make(ids: number): Build {
    const { pool, arenas, views } = this.options;
    const slots = 2 ** Math.ceil(Math.log2(ids * SLOTS_PER_ID));
    const offset = pool.take(layout.TABLE_BYTES + slots * layout.SLOT_BYTES, `a table of ${ids} targets`);
    let columns: number;
    try {
      columns = pool.take(arenas * ids * layout.COLUMN_BYTES, `the counters of ${ids} targets`);
    } catch (error) {
      pool.free(offset);
      throw error;
    }
    const { u32, u64 } = views;
    u32[(offset + layout.TABLE_SLOTS) / 4] = slots;
    u32[(offset + layout.TABLE_IDS) / 4] = ids;
    u32[(offset + layout.TABLE_COLUMNS) / 4] = columns;
    u32[(offset + layout.TABLE_SHIFT) / 4] = 64 - Math.log2(slots);
    u64[(offset + layout.TABLE_MULTIPLIER) / 8] = random64() | 1n;
    u64[(offset + layout.TABLE_SEED) / 8] = random64();
    this.#baseFrames = grown(this.#baseFrames, ids);
    this.#baseBytes = grown(this.#baseBytes, ids);
    this.#baseLastUse = grown(this.#baseLastUse, ids);
    return { offset, columns, slots, ids, isDiscarded: false };
  }

  #publish(): void {
    this.options.tables.setTargets(this.options.row, this.#build.offset);
  }

  #free({ offset, columns }: Build): void {
    this.options.pool.free(offset);
    this.options.pool.free(columns);
  }

  #bytesOf({ slots, ids }: Build): number {
    return layout.TABLE_BYTES + slots * layout.SLOT_BYTES + this.options.arenas * ids * layout.COLUMN_BYTES;
  }

  #store(slot: number, id: number, flags: number, destination: number, generation: number): void {
    assert(destination < 2 ** layout.ENTRY_DESTINATION_BITS, `destination row ${destination}`);
    const high = ((generation & 0xffff) << 16) | (flags << 8) | (id >>> 12);
    const low = ((id & 0xfff) << 20) | destination;
    const entry = (BigInt(high >>> 0) << 32n) | BigInt(low >>> 0);
    Atomics.store(this.options.views.u64, this.#at(slot) + 1, entry);
  }

  #slotOf(mac: number): number {
    const slot = this.options.core.targetPlace(this.#build.offset, BigInt(mac)) >>> 0;
    assert(slot !== layout.NONE, 'an address without a slot');
    return slot;
  }

  /** Index of a slot's key in the view of 64-bit words. */
  #at(slot: number): number {
    return (this.#build.offset + layout.TABLE_BYTES + slot * layout.SLOT_BYTES) / 8;
  }

  /** Seconds (`monotonicSeconds`) at which a frame from the address came in, as far as this table knows; 0 for never. */
  lastSeen(mac: number): number {
    const entry = this.find(mac);
    if (!entry) return 0;
    let last = 0;
    for (const build of [this.#build, ...this.#retired]) {
      if (entry.id >= build.ids || build.isDiscarded) continue;
      for (let arena = 0; arena < this.options.arenas; arena++) {
        const at = build.columns + (arena * build.ids + entry.id) * layout.COLUMN_BYTES;
        last = Math.max(last, Atomics.load(this.options.views.u32, (at + layout.COLUMN_LAST_SEEN) / 4));
      }
    }
    return last;
  }

  #countsOf(id: number): TargetCounts {
    const sum = {
      frames: this.#baseFrames[id]!,
      bytes: this.#baseBytes[id]!,
      lastUse: this.#baseLastUse[id]!,
    };
    for (const build of [this.#build, ...this.#retired]) {
      if (id >= build.ids || build.isDiscarded) continue;
      const { frames, bytes, lastUse } = this.#columnsOf(build, id);
      sum.frames += frames;
      sum.bytes += bytes;
      sum.lastUse = Math.max(sum.lastUse, lastUse);
    }
    return sum;
  }

  #columnsOf(build: Build, id: number): TargetCounts {
    const { u32, u64 } = this.options.views;
    const sum = { frames: 0, bytes: 0, lastUse: 0 };
    for (let arena = 0; arena < this.options.arenas; arena++) {
      const at = build.columns + (arena * build.ids + id) * layout.COLUMN_BYTES;
      sum.frames += Number(Atomics.load(u64, (at + layout.COLUMN_FRAMES) / 8));
      sum.bytes += Number(Atomics.load(u64, (at + layout.COLUMN_TX_BYTES) / 8));
      sum.lastUse = Math.max(sum.lastUse, Atomics.load(u32, (at + layout.COLUMN_LAST_USE) / 4));
    }
    return sum;
  }
}

function decode(entry: bigint): TableEntry {
  const high = Number(entry >> 32n);
  const low = Number(entry & 0xffffffffn);
  return {
    flags: (high >>> 8) & 0xff,
    generation: high >>> 16,
    id: ((high & 0xff) << 12) | (low >>> 20),
    destination: low & 0xfffff,
  };
}

function grown(values: Float64Array<ArrayBuffer>, length: number): Float64Array<ArrayBuffer> {
  if (values.length >= length) return values;
  const longer = new Float64Array(length);
  longer.set(values);
  return longer;
}
