/** Thread that pushes numbered records of many lengths on a ring, for `test/ring.ts`. */
import { parentPort, workerData } from 'node:worker_threads';
import { instantiateCore } from '../../src/datapath/core.js';
import { MemoryViews } from '../../src/datapath/memory.js';
import { recordBytes, writeRecord } from '../harness/ring-record.js';

/** What the test hands over. */
export interface ProducerTask {
  readonly memory: WebAssembly.Memory;
  readonly module: WebAssembly.Module;
  readonly ring: number;
  /** Where the producer may put a record together. */
  readonly scratch: number;
  readonly items: number;
  readonly msMax: number;
}

/** Tries at a full ring before the thread steps aside for a moment. */
const SPINS = 64;

const { memory, module, ring, scratch, items, msMax } = workerData as ProducerTask;
const views = new MemoryViews(memory);
const core = instantiateCore(module, memory);
const pause = new Int32Array(new SharedArrayBuffer(4));
const deadline = Date.now() + msMax;
let checksum = 0;
let refusals = 0;
for (let item = 0; item < items; item++) {
  const bytes = recordBytes(item);
  checksum = (checksum + writeRecord(views.u32, scratch, item, bytes)) >>> 0;
  while (!core.ringPush(ring, scratch, bytes)) {
    if (++refusals % SPINS !== 0) continue;
    if (Date.now() > deadline) throw new Error(`the ring stayed full at item ${item}`);
    Atomics.wait(pause, 0, 0, 0.05);
  }
}
parentPort?.postMessage({ checksum, refusals });
