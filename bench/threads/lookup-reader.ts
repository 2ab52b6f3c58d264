/**
 * A reader of a target table, for the lookup bench: looks up batches as a worker does, while the main thread, whose table
 * it is, writes. Measures once for each message and answers with a `ReaderFigures`.
 */
import { parentPort, workerData } from 'node:worker_threads';
import * as layout from '../../assembly/layout.js';
import { instantiateCore } from '../../src/datapath/core.js';
import { arenaOffset } from '../../src/datapath/memory.js';
import { median } from '../statistics.js';

export interface ReaderTask {
  readonly module: WebAssembly.Module;
  readonly memory: WebAssembly.Memory;
  readonly table: number;
  /** Offsets of the keys that are in the table and of those that are not, u64 each, in the order of lookup. */
  readonly hits: number;
  readonly misses: number;
  /** Keys of each; a multiple of BATCH. */
  readonly keys: number;
  /** Chunks of a run, of CHUNK_BATCHES batches each. */
  readonly chunks: number;
}

/** Nanoseconds a frame, and what was found, as `lookup.c` folds it. */
export interface KindFigures {
  readonly lookup: number;
  readonly count: number;
  readonly result: number;
}

export interface ReaderFigures {
  readonly hit: KindFigures;
  readonly miss: KindFigures;
}

export const BATCH = 32;
/** Batches between two looks at the clock: long beside the clock's own cost, short beside a time slice. */
export const CHUNK_BATCHES = 256;
const FRAME_BYTES = 1000;
const KEY_BYTES = 8;

function read({ module, memory, table, hits, misses, keys, chunks }: ReaderTask): ReaderFigures {
  const core = instantiateCore(module, memory);
  const arena = arenaOffset(0);
  const u8 = new Uint8Array(memory.buffer);
  const u32 = new Uint32Array(memory.buffer);
  const into = arena + layout.ARENA_TX_KEYS;
  const takeKeys = (from: number) => u8.copyWithin(into, from, from + BATCH * KEY_BYTES);

  /** Median over the chunks: what else runs on the machine disturbs a few of them. The first run is for the caches. */
  const measure = (first: number, work: () => void) => {
    const times: number[] = [];
    const end = first + keys * KEY_BYTES;
    let from = first;
    for (let chunk = -chunks; chunk < chunks; chunk++) {
      const begun = process.hrtime.bigint();
      for (let batch = 0; batch < CHUNK_BATCHES; batch++) {
        takeKeys(from);
        work();
        from += BATCH * KEY_BYTES;
        if (from === end) from = first;
      }
      if (chunk >= 0) times.push(Number(process.hrtime.bigint() - begun) / CHUNK_BATCHES / BATCH);
    }
    return median(times);
  };

  /** Of all entries found, what the writer does not change: their ids. */
  const resultOf = (first: number) => {
    let result = 0;
    for (let from = first; from < first + keys * KEY_BYTES; from += BATCH * KEY_BYTES) {
      takeKeys(from);
      core.targetLookupBatch(table, arena, BATCH);
      for (let i = 0; i < BATCH; i++) {
        const at = (arena + layout.ARENA_TX_ENTRIES + i * 8) / 4;
        const [low, high] = [u32[at]!, u32[at + 1]!];
        if (low === 0 && high === 0) continue;
        const id = ((high & 0xff) << (32 - layout.ENTRY_ID_SHIFT)) | (low >>> layout.ENTRY_ID_SHIFT);
        result = (result * 31 + id + 1) % 1_000_000_007;
      }
    }
    return result;
  };

  const figures = (first: number): KindFigures => {
    const result = resultOf(first);
    const copy = measure(first, () => {});
    const lookup = measure(first, () => core.targetLookupBatch(table, arena, BATCH));
    const count = measure(first, () => {
      core.targetLookupBatch(table, arena, BATCH);
      core.targetCountBatch(table, arena, BATCH, FRAME_BYTES);
    });
    return { lookup: lookup - copy, count: count - copy, result };
  };
  return { hit: figures(hits), miss: figures(misses) };
}

// The bench imports the constants above; only as a thread there is a task.
parentPort?.on('message', () => parentPort!.postMessage(read(workerData as ReaderTask)));
