/** The event ring: against an array, and between two threads. */
import { once } from 'node:events';
import { Worker } from 'node:worker_threads';
import fc from 'fast-check';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import * as layout from '../assembly/layout.js';
import { CoreRig } from './harness/core-rig.js';
import { readRecord, recordBytes } from './harness/ring-record.js';
import type { ProducerTask } from './workers/ring-producer.js';

const RECORD_HEADER_BYTES = 8;

const ring = suite('ring');
const rig = new CoreRig();
const { core } = rig;
const { u8, u32 } = rig.views;
/** Nobody else uses the buffers of the rig's arena. */
const RING = rig.arena + layout.ARENA_RX_BUFFER;
const FROM = RING + 1024 * 1024;
const INTO = FROM + 64 * 1024;

/** What a ring should be: an array of records and the bytes they take. */
class ModelRing {
  readonly records: Uint8Array[] = [];
  #tail: number;
  #head: number;
  readonly #ends: number[] = [];

  constructor(
    readonly capacity: number,
    start: number,
  ) {
    this.#tail = start;
    this.#head = start;
  }

  /** Records are not cut at the end: one that does not fit there begins anew at the start. */
  push(record: Uint8Array): boolean {
    const bytes = Math.ceil((RECORD_HEADER_BYTES + record.length) / 8) * 8;
    const rest = this.capacity - (this.#tail % this.capacity);
    const needed = bytes > rest ? rest + bytes : bytes;
    if (this.#tail - this.#head + needed > this.capacity) return false;
    this.#tail += needed;
    this.#ends.push(this.#tail);
    this.records.push(record);
    return true;
  }

  pop(): Uint8Array | undefined {
    this.#head = this.#ends.shift() ?? this.#head;
    return this.records.shift();
  }
}

/** Moves both cursors, so that a test reaches their overflow. */
function setCursors(at: number): void {
  u32[(RING + layout.RING_HEAD) / 4] = at;
  u32[(RING + layout.RING_TAIL) / 4] = at;
}

function push(record: Uint8Array): boolean {
  u8.set(record, FROM);
  return core.ringPush(RING, FROM, record.length) !== 0;
}

function pop(max = 65536): Uint8Array | undefined {
  const length = core.ringPop(RING, INTO, max);
  return length < 0 ? undefined : u8.slice(INTO, INTO + Math.min(length, max));
}

/** Pops from both and asserts that they are the same. */
function popBoth(model: ModelRing): void {
  const expected = model.pop();
  const seen = pop();
  assert.is(seen === undefined, expected === undefined);
  if (expected) assert.is(Buffer.compare(seen!, expected), 0);
}

ring('does what an array does, for any sizes, full, empty and over the end', () => {
  const run = fc.record({
    bits: fc.integer({ min: 6, max: 14 }),
    start: fc.constantFrom(0, 8, 0xffffffc0, 0xffffe000),
    steps: fc.array(
      fc.oneof(
        { weight: 3, arbitrary: fc.double({ min: 0, max: 1, noNaN: true }) },
        { weight: 1, arbitrary: fc.constantFrom(0, 1) },
        { weight: 2, arbitrary: fc.constant('pop' as const) },
      ),
      { minLength: 1, maxLength: 400, size: 'max' },
    ),
  });
  let full = 0;
  let empty = 0;
  fc.assert(
    fc.property(run, ({ bits, start, steps }) => {
      const capacity = 2 ** bits;
      core.ringCreate(RING, capacity);
      setCursors(start);
      u8.fill(0xee, RING + layout.RING_DATA + capacity, RING + layout.RING_DATA + capacity + 64);
      const model = new ModelRing(capacity, start);
      for (const [step, what] of steps.entries()) {
        if (what === 'pop') {
          if (model.records.length === 0) empty++;
          popBoth(model);
          continue;
        }
        const length = Math.round(what * (capacity / 2 - RECORD_HEADER_BYTES));
        const record = Uint8Array.from({ length }, (_, i) => i * 7 + step);
        const expected = model.push(record);
        if (!expected) full++;
        assert.is(push(record), expected, `${length} bytes in ${capacity}`);
      }
      while (model.records.length > 0) popBoth(model);
      popBoth(model);
      for (let i = 0; i < 64; i++) assert.is(u8[RING + layout.RING_DATA + capacity + i], 0xee);
    }),
    { numRuns: 1000 },
  );
  assert.ok(full > 1000 && empty > 100, `${full} full, ${empty} empty`);
});

ring('a refused push changes nothing', () => {
  core.ringCreate(RING, 64);
  const record = new Uint8Array(24).fill(1);
  assert.ok(push(record) && push(record));
  const before = u8.slice(RING, RING + layout.RING_DATA + 64);
  assert.not(push(record));
  assert.not(push(new Uint8Array(0)));
  assert.is(Buffer.compare(u8.slice(RING, RING + layout.RING_DATA + 64), before), 0);
});

ring('the longest record fits an empty ring wherever its cursors stand; a longer one traps', () => {
  for (const capacity of [64, 1024, layout.EVENT_RING_BYTES]) {
    const longest = capacity / 2 - RECORD_HEADER_BYTES;
    for (let at = 0; at < capacity; at += 8) {
      core.ringCreate(RING, capacity);
      setCursors(at);
      assert.ok(push(new Uint8Array(longest)), `${longest} bytes at ${at} of ${capacity}`);
      assert.is(pop()?.length, longest);
    }
    core.ringCreate(RING, capacity);
    for (const length of [longest + 1, capacity, 0xffffffff, 0xfffffff8]) {
      assert.throws(() => core.ringPush(RING, FROM, length), /unreachable/);
    }
    assert.is(pop(), undefined);
  }
});

ring('a record longer than the reader has room for is cut and freed', () => {
  core.ringCreate(RING, 256);
  push(Uint8Array.of(1, 2, 3, 4, 5));
  push(Uint8Array.of(6));
  u8.fill(0, INTO, INTO + 8);
  assert.is(core.ringPop(RING, INTO, 2), 5);
  assert.equal([...u8.slice(INTO, INTO + 4)], [1, 2, 0, 0]);
  assert.equal([...pop()!], [6]);
  assert.is(pop(), undefined);
});

ring('a capacity that is no power of two, or too small, traps', () => {
  for (const capacity of [0, 32, 63, 65, 96]) {
    assert.throws(() => core.ringCreate(RING, capacity), /unreachable/);
  }
});

const ITEMS = 20_000_000;
const MS_MAX = 200_000;

ring(`two threads, ${ITEMS} records: none lost, doubled, out of order or torn`, async () => {
  core.ringCreate(RING, layout.EVENT_RING_BYTES);
  const task: ProducerTask = {
    memory: rig.views.memory,
    module: rig.module,
    ring: RING,
    scratch: FROM,
    items: ITEMS,
    msMax: MS_MAX,
  };
  const producer = new Worker(new URL('./workers/ring-producer.js', import.meta.url), { workerData: task });
  const pause = new Int32Array(new SharedArrayBuffer(4));
  const deadline = Date.now() + MS_MAX;
  let checksum = 0;
  let waits = 0;
  try {
    await once(producer, 'online');
    for (let item = 0; item < ITEMS; ) {
      const length = core.ringPop(RING, INTO, 128);
      if (length < 0) {
        if (++waits % 64 !== 0) continue;
        if (Date.now() > deadline) assert.unreachable(`the ring stayed empty before item ${item}`);
        Atomics.wait(pause, 0, 0, 0.05);
        continue;
      }
      const sum = length === recordBytes(item) ? readRecord(u32, INTO, item, length) : -1;
      if (sum < 0) assert.unreachable(`item ${item}: record of ${length} bytes, number ${u32[INTO / 4]}`);
      checksum = (checksum + sum) >>> 0;
      item++;
    }
    assert.is(core.ringPop(RING, INTO, 128), -1, 'nothing more');
    const [told] = (await once(producer, 'message')) as [{ checksum: number; refusals: number }];
    assert.is(told.checksum, checksum);
    assert.ok(told.refusals > 0 && waits > 0, `full ${told.refusals} times, empty ${waits} times`);
  } finally {
    await producer.terminate();
  }
});

ring.run();
