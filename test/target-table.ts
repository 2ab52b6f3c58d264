/** The target table, main's side and the workers', against a Map. TABLE_SEED repeats a run. */
import fc from 'fast-check';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import * as layout from '../assembly/layout.js';
import type { TargetTable } from '../src/datapath/target-table.js';
import { OverlayError } from '../src/errors.js';
import { randomBetween } from '../src/sys/random.js';
import { WorkerRig } from './harness/worker-rig.js';
import { Xorshift } from './harness/xorshift.js';

const SEED = Number(process.env.TABLE_SEED ?? randomBetween(1, 0x7fffffff));
const SEQUENCES = 5000;
const { TARGET_DROP, TARGET_VALID } = layout;
/** Entries of the large tables. */
const LARGE = 200_000;
/** How many further lines most probes of a table that is mostly empty need at most, and what none may reach. */
const LINES_USUAL = 8;

const tables = suite('target table');
const rig = new WorkerRig();
const large = new WorkerRig({ workers: 2, poolBytes: 96 * 2 ** 20 });

/** A batch that a worker has looked up and not yet counted. */
interface Batch {
  readonly arena: number;
  readonly macs: readonly number[];
  readonly bytes: number;
}

interface Expected {
  flags: number;
  destination: number;
  generation: number;
  frames: number;
  bytes: number;
  lastUse: number;
}

function lookUp({ views, core }: WorkerRig, table: number, arena: number, macs: readonly number[]): void {
  for (const [index, mac] of macs.entries()) {
    views.u64[(arena + layout.ARENA_TX_KEYS) / 8 + index] =
      BigInt(mac) | (BigInt(layout.KEY_TAKEN) << BigInt(layout.KEY_SHIFT));
  }
  core.targetLookupBatch(table, arena, macs.length);
}

/** Entry that a worker's lookup has found, 0n for none. */
function foundEntry({ views }: WorkerRig, arena: number, index: number): bigint {
  return views.u64[(arena + layout.ARENA_TX_ENTRIES) / 8 + index]!;
}

function tellTime({ views }: WorkerRig, arena: number, seconds: number): void {
  views.u32[(arena + layout.ARENA_NOW) / 4] = seconds;
}

/** How many lines the entry of an address is from the one in which a probe for it begins. */
function linesTo({ core, views }: WorkerRig, table: TargetTable, mac: number): number {
  const lines = views.u32[(table.offset + layout.TABLE_SLOTS) / 4]! / layout.LINE_SLOTS;
  const place = core.targetPlace(table.offset, BigInt(mac)) >>> 0;
  assert.is.not(place, layout.NONE);
  const lineOf = (slot: number) => Math.floor(slot / layout.LINE_SLOTS);
  return (lineOf(place) - lineOf(core.targetSlot(table.offset, BigInt(mac)) >>> 0) + lines) % lines;
}

function refusal(work: () => void): string {
  try {
    work();
  } catch (error) {
    if (error instanceof OverlayError) return error.errno;
    throw error;
  }
  return '';
}

/** A table, its Map, and a worker in each arena that is always in the middle of something. */
class TableWorld {
  readonly table: TargetTable;
  readonly entries = new Map<number, Expected>();
  readonly #free: number;
  /** Of addresses that have left: what was counted for them since. */
  readonly #since = new Map<number, { frames: number; bytes: number; lastUse: number }>();
  #batches: Batch[] = [];
  #leaving: { readonly giveBack: () => void; readonly batches: readonly Batch[] } | undefined;
  #squeezed: number[] = [];
  #now = 1000;
  /** How often the pool, and the table's maximum, refused. */
  static readonly refused = { ENOMEM: 0, ENOSPC: 0 };

  constructor(readonly max: number) {
    rig.reset();
    this.#free = rig.pool.freeBytes;
    this.table = rig.createTable(max);
  }

  insert(mac: number, flags: number, value: number): void {
    if (this.entries.has(mac)) {
      this.update(mac, flags, value);
      return;
    }
    const before = this.#image();
    const errno = refusal(() => this.table.insert(mac, flags, value, value));
    if (errno === '') {
      const expected = { flags, destination: value, generation: value & 0xffff };
      // Frames to the same address that were counted since it left may be its again, and no others.
      const counts = this.table.counts(mac);
      const since = this.#since.get(mac) ?? { frames: 0, bytes: 0, lastUse: 0 };
      if (counts.frames > 0) assert.equal(counts, since, `counts of ${mac}, which is new`);
      this.entries.set(mac, { ...expected, ...counts });
      assert.ok(this.entries.size <= this.max, 'more than the table may have');
      return;
    }
    if (errno === 'ENOSPC') assert.is(this.entries.size, this.max);
    else assert.ok(errno === 'ENOMEM' && this.#squeezed.length > 0, errno);
    TableWorld.refused[errno as 'ENOMEM']++;
    assert.equal(this.#image(), before, 'a refused insertion changes something');
  }

  update(mac: number, flags: number, value: number): void {
    const entry = this.entries.get(mac);
    if (!entry) return;
    this.table.update(mac, flags, value, value);
    Object.assign(entry, { flags, destination: value, generation: value & 0xffff });
  }

  remove(mac: number): void {
    if (!this.entries.delete(mac)) return;
    this.#since.set(mac, { frames: 0, bytes: 0, lastUse: 0 });
    this.table.remove(mac);
  }

  /** Everything goes at once. What is under way is counted first: its ids are others' from then on. */
  clear(): void {
    this.#count(() => true);
    const before = this.#image();
    const errno = refusal(() => this.table.clear());
    if (errno === '') {
      this.entries.clear();
      this.#since.clear();
      return;
    }
    assert.ok(errno === 'ENOMEM' && this.#squeezed.length > 0, errno);
    assert.equal(this.#image(), before, 'a refused clearing changes something');
  }

  /** A worker looks a batch up; it counts it later, when more may have happened. */
  look(worker: number, macs: readonly number[]): void {
    const arena = rig.arenas[worker]!;
    this.#count((batch) => batch.arena === arena);
    lookUp(rig, rig.publishedTable, arena, macs);
    for (const [index, mac] of macs.entries()) this.#checkEntry(mac, foundEntry(rig, arena, index));
    this.#batches.push({ arena, macs: macs.filter((mac) => this.entries.has(mac)), bytes: 60 + worker });
  }

  /** What has left is remembered, or given back after every worker has moved on. */
  reclaim(): void {
    const leaving = this.#leaving;
    if (!leaving) {
      this.#leaving = { giveBack: this.table.leaving(), batches: [...this.#batches] };
      return;
    }
    this.#leaving = undefined;
    this.#count((batch) => leaving.batches.includes(batch));
    leaving.giveBack();
  }

  squeeze(isTight: boolean): void {
    for (const offset of this.#squeezed) rig.pool.free(offset);
    this.#squeezed = [];
    for (let bytes = 2 ** 20; isTight && bytes >= layout.LINE_BYTES; bytes /= 2) {
      while (refusal(() => this.#squeezed.push(rig.pool.take(bytes, 'a test'))) === '');
    }
  }

  #count(isDone: (batch: Batch) => boolean): void {
    for (const batch of this.#batches.filter(isDone)) {
      this.#now++;
      tellTime(rig, batch.arena, this.#now);
      rig.core.targetCountBatch(rig.publishedTable, batch.arena, 8, batch.bytes);
      // A frame that was under way when its target left belongs to whoever has the address.
      for (const mac of batch.macs) {
        const entry = this.entries.get(mac) ?? this.#since.get(mac);
        if (!entry) continue;
        entry.frames++;
        entry.bytes += batch.bytes;
        entry.lastUse = this.#now;
      }
    }
    this.#batches = this.#batches.filter((batch) => !isDone(batch));
  }

  check(macs: readonly number[]): void {
    assert.is(this.table.size, this.entries.size);
    assert.is(rig.publishedTable, this.table.offset);
    const there = [...this.table.macs()].sort((a, b) => a - b);
    const wanted = [...this.entries.keys()].sort((a, b) => a - b);
    assert.equal(there, wanted);
    const ids = new Set<number>();
    for (const mac of macs) {
      const entry = this.entries.get(mac);
      const found = this.table.find(mac);
      assert.is(found === undefined, entry === undefined, `${mac}`);
      const { frames = 0, bytes = 0, lastUse = 0 } = entry ?? {};
      assert.equal(this.table.counts(mac), { frames, bytes, lastUse }, `counts of ${mac}`);
      if (!entry || !found) continue;
      const { flags, destination, generation } = entry;
      assert.equal({ ...found, id: 0 }, { flags, destination, generation, id: 0 });
      assert.not.ok(ids.has(found.id), `two entries with id ${found.id}`);
      ids.add(found.id);
    }
  }

  #checkEntry(mac: number, found: bigint): void {
    const entry = this.entries.get(mac);
    assert.is(found === 0n, entry === undefined, `a worker looks for ${mac}`);
    if (!entry) return;
    assert.is(Number(found & 0xfffffn), entry.destination);
    assert.is(Number((found >> BigInt(layout.ENTRY_FLAGS_SHIFT)) & 0xffn), entry.flags);
    assert.is(Number(found >> BigInt(layout.ENTRY_GENERATION_SHIFT)), entry.generation);
  }

  /** What a refusal must leave alone. */
  #image(): unknown {
    const { offset, size, bytes, hasLeft } = this.table;
    return [offset, size, bytes, hasLeft, rig.publishedTable, rig.pool.freeBytes];
  }

  finish(macs: readonly number[]): void {
    this.squeeze(false);
    if (this.#leaving) this.reclaim();
    this.#count(() => true);
    for (const mac of [...this.entries.keys()]) this.remove(mac);
    this.table.leaving()();
    this.check(macs);
    // Once more where the table was built anew.
    this.table.leaving()();
    assert.not.ok(this.table.hasLeft);
    this.table.close();
    assert.is(rig.pool.freeBytes, this.#free, 'bytes of the pool that are still taken');
  }
}

/** Few enough to meet again and again. */
const addresses = Array.from({ length: 12 }, (_, index) => 0x020820000000 + index);

tables(`does what a Map does, whatever comes in between, seed ${SEED}`, () => {
  const mac = fc.constantFrom(...addresses);
  const value = fc.nat({ max: layout.DESTINATIONS_MAX - 1 });
  const flags = fc.constantFrom(TARGET_VALID, TARGET_DROP, 0xff);
  const step = fc.oneof(
    {
      weight: 6,
      arbitrary: fc.tuple(mac, flags, value).map(
        ([m, f, v]) =>
          (world: TableWorld) =>
            world.insert(m, f, v),
      ),
    },
    {
      weight: 2,
      arbitrary: fc.tuple(mac, flags, value).map(
        ([m, f, v]) =>
          (world: TableWorld) =>
            world.update(m, f, v),
      ),
    },
    { weight: 4, arbitrary: mac.map((m) => (world: TableWorld) => world.remove(m)) },
    {
      weight: 4,
      arbitrary: fc
        .tuple(fc.nat({ max: 1 }), fc.shuffledSubarray(addresses, { minLength: 8, maxLength: 8 }))
        .map(
          ([worker, macs]) =>
            (world: TableWorld) =>
              world.look(worker, macs),
        ),
    },
    { weight: 3, arbitrary: fc.constant((world: TableWorld) => world.reclaim()) },
    { weight: 1, arbitrary: fc.constant((world: TableWorld) => world.clear()) },
    { weight: 1, arbitrary: fc.boolean().map((isTight) => (world: TableWorld) => world.squeeze(isTight)) },
  );
  const max = fc.constantFrom(1, 2, 4, 8, 100);
  fc.assert(
    fc.property(max, fc.array(step, { maxLength: 60, size: 'max' }), (most, steps) => {
      const world = new TableWorld(most);
      for (const perform of steps) {
        perform(world);
        world.check(addresses);
      }
      world.finish(addresses);
    }),
    { numRuns: SEQUENCES, seed: SEED, includeErrorInReport: true },
  );
  assert.ok(TableWorld.refused.ENOMEM > 100 && TableWorld.refused.ENOSPC > 100);
});

/** Key of a slot as workers compare it; 0n for none. */
function keyAt({ views }: WorkerRig, table: TargetTable, slot: number): bigint {
  return views.u64[(table.offset + layout.TABLE_BYTES + slot * layout.SLOT_BYTES) / 8]!;
}

const takenBy = (mac: number) => BigInt(mac) | (BigInt(layout.KEY_TAKEN) << BigInt(layout.KEY_SHIFT));
const isTaken = (key: bigint) => key >> BigInt(layout.KEY_SHIFT) === BigInt(layout.KEY_TAKEN);

tables(
  'nobody who begins after an address has left finds its slot, so that a quiesce is for all who have',
  () => {
    rig.reset();
    const table = rig.createTable(4);
    table.insert(1, TARGET_VALID, 1, 1);
    const slot = rig.core.targetPlace(table.offset, 1n) >>> 0;
    assert.is(keyAt(rig, table, slot), takenBy(1));
    table.remove(1);
    assert.is.not(keyAt(rig, table, slot), takenBy(1), 'a worker could find the slot after the quiesce');
    for (let mac = 2; mac < 5; mac++) table.insert(mac, TARGET_VALID, 1, 1);
    assert.not.ok(isTaken(keyAt(rig, table, slot)), 'the slot is given out before the quiesce');
  },
);

tables('what has left again since is not given back', () => {
  rig.reset();
  const table = rig.createTable(100);
  table.insert(1, TARGET_VALID, 1, 1);
  table.remove(1);
  const giveBack = table.leaving();
  // A worker that looks it up now is not one that the quiesce waits for.
  table.insert(1, TARGET_VALID, 1, 2);
  const { id } = table.find(1)!;
  const slot = rig.core.targetPlace(table.offset, 1n) >>> 0;
  table.remove(1);
  giveBack();
  assert.ok(table.hasLeft, 'a worker may still be reading it');
  for (let mac = 2; mac < 6; mac++) {
    table.insert(mac, TARGET_VALID, 1, 1);
    assert.is.not(table.find(mac)!.id, id, 'its id was given away');
    const key = keyAt(rig, table, slot);
    assert.ok(!isTaken(key) || key === takenBy(1), 'its slot was given away');
  }
});

tables('a table that was replaced since is not given back by who began before', () => {
  large.reset();
  const table = large.createTable(10_000);
  let mac = 0;
  const grow = () => {
    const { offset } = table;
    while (table.offset === offset) table.insert(mac++, TARGET_VALID, 1, 1);
    return offset;
  };
  const first = grow();
  // Two wait for the workers at the same time: a settle round, and whoever gives back what no round does.
  const [giveBack, giveBackLate] = [table.leaving(), table.leaving()];
  giveBack();
  // The room of the first table is another's now, which is replaced in turn.
  table.clear();
  assert.is(table.offset, first);
  grow();
  const { bytes } = table;
  giveBackLate();
  assert.is(table.bytes, bytes, 'a worker may still be reading it');
  table.close();
});

tables('is empty at once, and what comes then is new', () => {
  large.reset();
  const before = large.pool.freeBytes;
  const table = large.createTable(10_000);
  const [arena] = large.arenas;
  tellTime(large, arena!, 5);
  for (let round = 0; round < 3; round++) {
    for (let mac = 0; mac < 3000; mac++) table.insert(mac, TARGET_VALID, 1, round);
    lookUp(large, table.offset, arena!, [1, 2, 3]);
    large.core.targetCountBatch(table.offset, arena!, 3, 60);
    assert.equal(table.counts(1), { frames: 1, bytes: 60, lastUse: 5 });
    const giveBack = table.leaving();
    table.remove(7);
    table.clear();
    assert.is(table.size, 0);
    assert.is(table.macs().length, 0);
    lookUp(large, large.publishedTable, arena!, [1, 2, 3]);
    for (let each = 0; each < 3; each++) assert.is(foundEntry(large, arena!, each), 0n);
    if (round === 1) giveBack();
  }
  table.leaving()();
  assert.not.ok(table.hasLeft);
  table.close();
  assert.is(large.pool.freeBytes, before);
});

tables('what was under way is done with after the table was closed', () => {
  rig.reset();
  const before = rig.pool.freeBytes;
  const table = rig.createTable(8);
  for (let mac = 1; mac < 9; mac++) table.insert(mac, TARGET_VALID, 1, 1);
  for (let mac = 1; mac < 9; mac++) table.remove(mac);
  const giveBack = table.leaving();
  table.close();
  const other = rig.createTable(8);
  for (let mac = 1; mac < 9; mac++) other.insert(mac, TARGET_VALID, mac, 1);
  const free = rig.pool.freeBytes;
  giveBack();
  assert.is(rig.publishedTable, other.offset, 'a table that is closed is published');
  assert.is(rig.pool.freeBytes, free);
  for (let mac = 1; mac < 9; mac++) assert.is(other.find(mac)?.destination, mac);
  other.close();
  assert.is(rig.pool.freeBytes, before);
});

tables('a pool that is full keeps nothing from being given back', () => {
  rig.reset();
  const world = new TableWorld(4);
  for (const mac of addresses.slice(0, 4)) world.insert(mac, TARGET_VALID, 1);
  for (const mac of addresses.slice(0, 4)) world.remove(mac);
  world.squeeze(true);
  world.table.leaving()();
  assert.not.ok(world.table.hasLeft);
  world.insert(addresses[5]!, TARGET_VALID, 7);
  world.check(addresses);
  world.finish(addresses);
});

tables('a frame that was under way when its target left is not counted for the next one', () => {
  rig.reset();
  const table = rig.createTable(1);
  const [arena] = rig.arenas;
  table.insert(1, TARGET_VALID, 1, 1);
  lookUp(rig, table.offset, arena!, [1]);
  table.remove(1);
  const giveBack = table.leaving();
  tellTime(rig, arena!, 77);
  rig.core.targetCountBatch(table.offset, arena!, 1, 60);
  giveBack();
  table.insert(2, TARGET_VALID, 1, 1);
  assert.equal(table.counts(2), { frames: 0, bytes: 0, lastUse: 0 });
});

tables('counts and the time of the last use outlast growth', () => {
  large.reset();
  const table = large.createTable(10_000);
  const [first, second] = large.arenas;
  const macs = Array.from({ length: 64 }, (_, index) => 1000 + index);
  for (const mac of macs) table.insert(mac, TARGET_VALID, 1, 1);
  for (const [arena, seconds] of [
    [first!, 500],
    [second!, 600],
  ] as const) {
    tellTime(large, arena, seconds);
    lookUp(large, table.offset, arena, macs);
    large.core.targetCountBatch(table.offset, arena, 64, 100);
  }
  const expected = { frames: 2, bytes: 200, lastUse: 600 };
  const { offset } = table;
  for (let mac = 5000; table.offset === offset; mac++) table.insert(mac, TARGET_VALID, 1, 1);
  for (const mac of macs) assert.equal(table.counts(mac), expected, 'just after it');
  // A worker that had the old table counts there until it has moved on.
  large.core.targetCountBatch(offset, first!, 64, 100);
  table.leaving()();
  for (const mac of macs) assert.equal(table.counts(mac), { frames: 3, bytes: 300, lastUse: 600 });
  table.close();
});

/** Sets of addresses that a poor hash would put next to each other. */
const adversaries: readonly [what: string, macAt: (index: number) => number][] = [
  ['one after the other', (index) => 0x020820000000 + index],
  ['from zero', (index) => index],
  ['that differ in the upper bits alone', (index) => (index * 2 ** 28) % 2 ** 48],
  ['that differ in the middle alone', (index) => 0x020000000001 + index * 2 ** 16],
  ['at a distance that is a power of two less one', (index) => (index * (2 ** 20 - 1)) % 2 ** 48],
  [
    'with a manufacturer in each half',
    (index) => (index % 2 ? 0x001122000000 : 0xaabbcc000000) + (index >>> 1),
  ],
];

for (const [what, macOf] of adversaries) {
  tables(`probes stay short for addresses ${what}`, () => {
    large.reset();
    const count = 40_000;
    const table = large.createTable(count);
    for (let index = 0; index < count; index++) {
      table.insert(macOf(index), TARGET_VALID, index % layout.DESTINATIONS_MAX, index);
      if (index % 4096 === 0) table.leaving()();
    }
    let longest = 0;
    let sum = 0;
    for (let index = 0; index < count; index++) {
      const lines = linesTo(large, table, macOf(index));
      longest = Math.max(longest, lines);
      sum += lines;
    }
    assert.ok(longest < LINES_USUAL, `a probe of ${longest} further lines`);
    assert.ok(sum / count < 0.05, `${sum / count} further lines on average`);
    table.close();
  });
}

tables(`grows to ${LARGE} entries and is emptied, with counts that stay`, () => {
  large.reset();
  const before = large.pool.freeBytes;
  const random = new Xorshift(SEED);
  const table = large.createTable(LARGE);
  const [arena] = large.arenas;
  const macOf = (index: number) => 0x020000000000 + index * 7919;
  tellTime(large, arena!, 9);
  for (let index = 0; index < LARGE; index++) {
    table.insert(macOf(index), TARGET_VALID, index % layout.DESTINATIONS_MAX, index);
    if (index % 64 === 63) {
      const macs = Array.from({ length: 64 }, (_, each) => macOf(index - each));
      lookUp(large, large.publishedTable, arena!, macs);
      for (let each = 0; each < 64; each++) {
        const found = foundEntry(large, arena!, each);
        assert.is(Number(found & 0xfffffn), (index - each) % layout.DESTINATIONS_MAX);
      }
      large.core.targetCountBatch(large.publishedTable, arena!, 64, 100);
    }
    if (random.below(1000) === 0) table.leaving()();
  }
  assert.is(
    refusal(() => table.insert(1, TARGET_VALID, 1, 1)),
    'ENOSPC',
  );
  assert.is(table.macs().length, LARGE);
  const ids = new Set<number>();
  for (let index = 0; index < LARGE; index++) {
    const found = table.find(macOf(index))!;
    assert.is(found.destination, index % layout.DESTINATIONS_MAX);
    assert.is(found.generation, index & 0xffff);
    ids.add(found.id);
    if (index < LARGE - 64) assert.equal(table.counts(macOf(index)), { frames: 1, bytes: 100, lastUse: 9 });
  }
  assert.is(ids.size, LARGE);
  // Half of them go, in no order, and others come: ids and slots are used again, counts begin at nothing.
  for (let index = 0; index < LARGE; index += 2) {
    table.remove(macOf(index));
    if (random.below(5000) === 0) table.leaving()();
  }
  table.leaving()();
  for (let index = 0; index < LARGE; index += 2) table.insert(macOf(index) + 1, TARGET_DROP, 5, 1);
  for (let index = 0; index < LARGE; index += 2) {
    assert.is(table.find(macOf(index)), undefined);
    assert.equal(table.counts(macOf(index) + 1), { frames: 0, bytes: 0, lastUse: 0 });
    assert.is(table.find(macOf(index + 1))?.flags, TARGET_VALID);
  }
  for (const mac of table.macs()) table.remove(mac);
  table.leaving()();
  assert.is(table.size, 0);
  table.close();
  assert.is(large.pool.freeBytes, before);
});

tables('as many as there are ids, one goes and another comes before anything is given back', () => {
  const most = new WorkerRig({ workers: 1, poolBytes: 320 * 2 ** 20 });
  const table = most.createTable(layout.TARGETS_MAX);
  for (let mac = 0; mac < layout.TARGETS_MAX; mac++) {
    table.insert(mac, TARGET_DROP, 3, 1);
    if ((mac & (mac - 1)) === 0) table.leaving()();
  }
  table.remove(5);
  const added = layout.TARGETS_MAX;
  const errno = refusal(() => table.insert(added, TARGET_DROP, 3, 1));
  if (errno === '') {
    const { id, flags } = table.find(added)!;
    assert.is(flags, TARGET_DROP, 'the id is in the flags');
    assert.is(id, table.find(added)!.id);
  }
  assert.is(table.find(6)?.flags, TARGET_DROP);
  table.leaving()();
  if (errno !== '') table.insert(added, TARGET_DROP, 3, 1);
  assert.is(table.find(added)?.flags, TARGET_DROP);
  assert.is(table.size, layout.TARGETS_MAX);
});

tables.run();
