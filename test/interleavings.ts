/**
 * What two threads can do to each other: every interleaving of the settle protocol and of the target table's slots,
 * each written a second time step by step; then the table itself between real threads.
 */
import { once } from 'node:events';
import { Worker } from 'node:worker_threads';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import * as layout from '../assembly/layout.js';
import { randomBetween } from '../src/sys/random.js';
import { type Exploration, explore } from './harness/explore.js';
import {
  allRules,
  isSettled,
  lost,
  mainThread,
  overtaken,
  type SettleRules,
  settleState,
  workerThread,
} from './harness/settle-steps.js';
import {
  allSlotRules,
  isWritten,
  misread,
  readerThread,
  type SlotRules,
  slotState,
  writerThread,
} from './harness/slot-steps.js';
import { markOf } from './harness/target-mark.js';
import { WorkerRig } from './harness/worker-rig.js';
import { Xorshift } from './harness/xorshift.js';
import type { ReaderReport, ReaderTask } from './workers/target-reader.js';

const SEED = Number(process.env.INTERLEAVINGS_SEED ?? randomBetween(1, 0x7fffffff));
/** Frames that a batch of the model holds, twice: the second batch meets what the first has left. */
const FRAMES = 4;

const interleavings = suite('interleavings');

function settle(rules: SettleRules, frames: number, removals = 0): Exploration {
  const isOrdered = removals === 0;
  return explore({
    initial: settleState(frames, removals),
    threads: [workerThread(rules), mainThread(rules)],
    fault: (state) => lost(state, frames) ?? (isOrdered ? overtaken(state) : undefined),
    isOver: isSettled,
  });
}

interleavings('a miss settles: no frame overtakes another of its target, none is lost', () => {
  for (let frames = 1; frames <= FRAMES; frames++) {
    const { states, steps, fault } = settle(allRules, frames);
    assert.is(fault, undefined);
    console.log(`  ${frames} frames: ${states} states, ${steps} steps between them`);
  }
});

for (const rule of Object.keys(allRules) as (keyof SettleRules)[]) {
  interleavings(`without '${rule}' a frame is overtaken`, () => {
    const { fault } = settle({ ...allRules, [rule]: false }, FRAMES);
    assert.match(fault ?? '', /^frame \d is overtaken/);
  });
}

interleavings('a target that is removed at any time loses no frame, and what is under way ends', () => {
  for (const [frames, removals] of [
    [3, 1],
    [2, 2],
  ] as const) {
    const { states, fault } = settle(allRules, frames, removals);
    assert.is(fault, undefined);
    console.log(`  ${frames} frames, ${removals} removals: ${states} states`);
  }
});

function reuse(rules: SlotRules): Exploration {
  return explore({
    initial: slotState(),
    threads: [readerThread, writerThread(rules)],
    fault: misread,
    isOver: (state) => isWritten(state, rules),
  });
}

interleavings('a lookup finds what its address is, while slots change hands and the table grows', () => {
  const { states, steps, fault } = reuse(allSlotRules);
  assert.is(fault, undefined);
  console.log(`  ${states} states, ${steps} steps between them`);
});

for (const rule of Object.keys(allSlotRules) as (keyof SlotRules)[]) {
  interleavings(`without '${rule}' a lookup finds something else`, () => {
    const { fault } = reuse({ ...allSlotRules, [rule]: false });
    assert.match(fault ?? '', /was looked up/);
  });
}

// ─── Real threads ───────────────────────────────────────────────────────────────────────────────────────

const READERS = 2;
/** A fiftieth of what the nightly run does. */
const LOOKUPS = 10_000_000;
const READER_MS_MAX = 120_000;
/** Addresses that are there throughout, and those that come and go. */
const STAYING = 500;
const CHANGING = 8000;
/** Changes in which the table fills, or empties. */
const WAVE = 12_000;
const TABLE_MAX = 200_000;

/** What is given back is spoiled at once, as its next owner would do it: whoever still reads it goes wrong. */
function spoilWhatIsFreed({ pool, views }: WorkerRig): void {
  const free = pool.free.bind(pool);
  pool.free = (offset) => {
    views.u8.fill(0, offset, offset + layout.LINE_BYTES);
    free(offset);
  };
}

interleavings(
  `${READERS} threads look ${LOOKUPS} addresses up while main changes the table, seed ${SEED}`,
  async () => {
    const rig = new WorkerRig({ workers: READERS, poolBytes: 96 * 2 ** 20 });
    const random = new Xorshift(SEED);
    const before = rig.pool.freeBytes;
    spoilWhatIsFreed(rig);
    const table = rig.createTable(TABLE_MAX);
    const insert = (mac: number, version: number) =>
      table.insert(mac, layout.TARGET_VALID, markOf(mac, version), version);
    for (let index = 0; index < STAYING; index++) insert(index * 2, 0);
    table.leaving()();
    const { memory } = rig.views;
    const reports = rig.arenas.map(async (arena, index): Promise<ReaderReport> => {
      const workerData: ReaderTask = {
        memory,
        module: rig.module,
        arena,
        device: rig.device,
        lookups: LOOKUPS / READERS,
        staying: STAYING,
        changing: CHANGING,
        seed: SEED + index,
        msMax: READER_MS_MAX,
      };
      const thread = new Worker(new URL('./workers/target-reader.js', import.meta.url), { workerData });
      const [report] = (await once(thread, 'message')) as [ReaderReport];
      await thread.terminate();
      return report;
    });
    let isReading = true;
    const all = Promise.all(reports).finally(() => {
      isReading = false;
    });
    const epochs = rig.arenas.map((arena) => (arena + layout.ARENA_EPOCH) / 4);
    const { i32 } = rig.views;
    const turn = () => new Promise((resolve) => setImmediate(resolve));
    const quiesce = async () => {
      await turn();
      for (const epoch of epochs) {
        const seen = Atomics.load(i32, epoch);
        while (isReading && seen % 2 !== 0 && Atomics.load(i32, epoch) === seen) await turn();
      }
    };
    let changes = 0;
    let tables = 1;
    let { offset } = table;
    const there = new Map<number, number>();
    while (isReading) {
      const leaving = random.below(2) === 0 ? undefined : table.leaving();
      // Waves: the table fills and empties, so that it grows, is built anew and gives slots away.
      const isFilling = Math.floor(changes / WAVE) % 2 === 0;
      for (let each = 0; each < 500; each++) {
        const mac = random.below(CHANGING) * 2 + 1;
        const version = there.get(mac);
        if (version === undefined && isFilling) {
          insert(mac, 0);
          there.set(mac, 0);
        } else if (version !== undefined && random.below(2) === 0) {
          table.update(mac, layout.TARGET_VALID, markOf(mac, version + 1), version + 1);
          there.set(mac, version + 1);
        } else if (version !== undefined && !isFilling) {
          table.remove(mac);
          there.delete(mac);
        }
        const staying = random.below(STAYING) * 2;
        table.update(staying, layout.TARGET_VALID, markOf(staying, changes), changes);
        changes++;
        if (table.offset !== offset) {
          tables++;
          offset = table.offset;
        }
      }
      // Nothing is read of what had left before this, once the readers have moved on.
      const giveBack = leaving ?? table.leaving();
      await quiesce();
      giveBack();
    }
    const ended = await all;
    for (const { lookups, misses, strangers, late } of ended) {
      assert.is(late, false, 'it took too long');
      assert.is(lookups, LOOKUPS / READERS);
      assert.is(misses, 0, 'an entry that is there throughout was not found');
      assert.is(strangers, 0, 'an entry of another address was found');
    }
    const found = ended.reduce((sum, report) => sum + report.found, 0);
    console.log(`  ${changes} changes, ${tables} tables, ${found} of ${LOOKUPS} lookups found something`);
    assert.ok(changes > 10_000 && tables > 3, `${changes} changes, ${tables} tables`);
    for (const mac of table.macs()) table.remove(mac);
    table.leaving()();
    table.leaving()();
    table.close();
    assert.is(rig.pool.freeBytes, before);
  },
);

interleavings.run();
