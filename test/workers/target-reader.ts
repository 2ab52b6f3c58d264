/** Thread that looks addresses up in a table that main changes, for `test/interleavings.ts`. */
import { parentPort, workerData } from 'node:worker_threads';
import * as layout from '../../assembly/layout.js';
import { instantiateCore } from '../../src/datapath/core.js';
import { MemoryViews } from '../../src/datapath/memory.js';
import { markOf } from '../harness/target-mark.js';
import { Xorshift } from '../harness/xorshift.js';

/** What the test hands over. Even addresses are there throughout, odd ones come and go. */
export interface ReaderTask {
  readonly memory: WebAssembly.Memory;
  readonly module: WebAssembly.Module;
  readonly arena: number;
  readonly device: number;
  readonly lookups: number;
  readonly staying: number;
  readonly changing: number;
  readonly seed: number;
  readonly msMax: number;
}

export interface ReaderReport {
  readonly lookups: number;
  readonly found: number;
  /** Addresses that are there throughout and were not found. */
  readonly misses: number;
  /** Entries that are of another address, or half of one version and half of another. */
  readonly strangers: number;
  readonly late: boolean;
}

const { memory, module, arena, device, staying, changing, seed, msMax, ...task } = workerData as ReaderTask;
const { i32, u32 } = new MemoryViews(memory);
const core = instantiateCore(module, memory);
const random = new Xorshift(seed);
const KEYS = (arena + layout.ARENA_TX_KEYS) / 4;
const ENTRIES = (arena + layout.ARENA_TX_ENTRIES) / 4;
const EPOCH = (arena + layout.ARENA_EPOCH) / 4;
const TABLE = (layout.DEVICES_OFFSET + device * layout.DEVICE_BYTES + layout.DEVICE_TARGETS) / 4;
const TAKEN = layout.KEY_TAKEN << (layout.KEY_SHIFT - 32);
const DESTINATION = 2 ** layout.ENTRY_DESTINATION_BITS - 1;
/** Enough that main has time to do something wrong. */
const BATCHES_PER_EPOCH = 64;
const deadline = Date.now() + msMax;
let lookups = 0;
let found = 0;
let misses = 0;
let strangers = 0;
let late = false;
/** Looks a batch up and checks what was found. */
function lookUp(table: number): void {
  for (let index = 0; index < layout.BATCH_MAX; index++) {
    const isStaying = random.next() % 2 === 0;
    u32[KEYS + index * 2] = isStaying ? random.below(staying) * 2 : random.below(changing) * 2 + 1;
    u32[KEYS + index * 2 + 1] = TAKEN;
  }
  core.targetLookupBatch(table, arena, layout.BATCH_MAX);
  core.targetCountBatch(table, arena, layout.BATCH_MAX, 60);
  for (let index = 0; index < layout.BATCH_MAX; index++) {
    const mac = u32[KEYS + index * 2]!;
    const low = u32[ENTRIES + index * 2]!;
    const high = u32[ENTRIES + index * 2 + 1]!;
    if (low === 0 && high === 0) {
      if (mac % 2 === 0) misses++;
      continue;
    }
    found++;
    const version = high >>> (layout.ENTRY_GENERATION_SHIFT - 32);
    if ((low & DESTINATION) !== markOf(mac, version)) strangers++;
  }
  lookups += layout.BATCH_MAX;
}

while (lookups < task.lookups && !late) {
  // As a worker does: odd while it may be reading a table, and a slow one reads it for long.
  Atomics.add(i32, EPOCH, 1);
  const table = Atomics.load(u32, TABLE);
  for (let batch = 0; batch < BATCHES_PER_EPOCH && lookups < task.lookups; batch++) lookUp(table);
  Atomics.add(i32, EPOCH, 1);
  late = Date.now() > deadline;
}
const report: ReaderReport = { lookups, found, misses, strangers, late };
parentPort?.postMessage(report);
