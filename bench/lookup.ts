/**
 * What does a target lookup cost a frame? Batches of random addresses over the whole table, those that are there and those
 * that are not, without and with the update of the target's counters, while the main thread changes entries; beside the
 * same table in C (`bench/lookup.c`) in alternating rounds. `node dist/bench/lookup.js [--smoke]`.
 *
 * There is no sequence lock to measure: an entry is one word, which changes by one atomic store (`assembly/target.ts`).
 */
import { spawnSync } from 'node:child_process';
import { closeSync, mkdtempSync, openSync, rmSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Worker } from 'node:worker_threads';
import * as layout from '../assembly/layout.js';
import { compileCore, instantiateCore } from '../src/datapath/core.js';
import { createMemory, type MemoryViews } from '../src/datapath/memory.js';
import { Pool } from '../src/datapath/pool.js';
import { Tables } from '../src/datapath/tables.js';
import { TargetTable } from '../src/datapath/target-table.js';
import { every, monotonicMs } from '../src/sys/clock.js';
import { Xorshift } from '../test/harness/xorshift.js';
import type { BenchOptions } from './core.js';
import { median } from './statistics.js';
import { BATCH, type KindFigures, type ReaderFigures, type ReaderTask } from './threads/lookup-reader.js';

const ROUNDS = 9;
/** A run goes over the largest table at least once: 128 chunks of 256 batches of 32. */
const CHUNKS = 128;
const WRITES_PER_SECOND = 100_000;
/** After a pause the writer does not catch up on more than these. */
const WRITES_MAX = 1000;
/** Two workers have two queues each. */
const ARENAS = 4;
const KEY_BYTES = 8;
const MiB = 1024 * 1024;
const sourceFile = fileURLToPath(new URL('../../bench/lookup.c', import.meta.url));

/** A table of a size, and what a frame may cost there. */
interface Size {
  readonly name: string;
  readonly targets: number;
  readonly memoryBytes: number;
  /** Nanoseconds a frame. */
  readonly lookupMax: number;
  readonly countMax: number;
}

const sizes: readonly Size[] = [
  { name: '1k', targets: 1000, memoryBytes: 256 * MiB, lookupMax: 10, countMax: 15 },
  { name: '100k', targets: 100_000, memoryBytes: 256 * MiB, lookupMax: 10, countMax: 20 },
  { name: '1M', targets: 1_000_000, memoryBytes: 1024 * MiB, lookupMax: 15, countMax: 30 },
];

/** Nanoseconds a frame of one step for one kind of address in one size of table. */
export interface LookupFigure {
  readonly size: string;
  readonly kind: 'hit' | 'miss';
  readonly step: 'lookup' | 'count';
  readonly core: number;
  readonly max: number;
  /** The same in C, and the median of the rounds' ratios; undefined where there is no gcc. */
  readonly c: number | undefined;
  readonly ratio: number | undefined;
}

/** A filled table and the keys to look up. */
interface Rig {
  readonly views: MemoryViews;
  readonly module: WebAssembly.Module;
  readonly table: TargetTable;
  readonly macs: Float64Array;
  /** Keys of each kind; a multiple of BATCH. */
  readonly keys: number;
  readonly hits: number;
  readonly misses: number;
}

/** Random unicast addresses, all different. */
function randomMacs(count: number, random: Xorshift): Float64Array {
  const macs = new Set<number>();
  while (macs.size < count) macs.add((0x0200 + random.below(256)) * 2 ** 32 + random.next());
  return Float64Array.from(macs);
}

function shuffle(macs: Float64Array, random: Xorshift): void {
  for (let i = macs.length - 1; i > 0; i--) {
    const other = random.below(i + 1);
    [macs[i], macs[other]] = [macs[other]!, macs[i]!];
  }
}

function createRig({ targets, memoryBytes }: Size): Rig {
  const random = new Xorshift(targets);
  const views = createMemory(memoryBytes, ARENAS, 1n);
  const module = compileCore();
  const core = instantiateCore(module, views.memory);
  const pool = new Pool(views);
  const tables = new Tables(views, core);
  const row = tables.devices.take();
  const table = new TargetTable({ views, core, pool, tables, arenas: ARENAS, row, max: targets });
  const all = randomMacs(targets * 2, random);
  const macs = all.subarray(0, targets);
  for (const mac of macs) table.insert(mac, layout.TARGET_VALID, 0, 0);
  // The smaller tables that it has grown out of; nobody reads yet.
  table.leaving()();
  shuffle(macs, random);
  const keys = targets - (targets % BATCH);
  const place = (from: Float64Array) => {
    const offset = pool.take(keys * KEY_BYTES, 'keys to look up');
    for (let i = 0; i < keys; i++) {
      const at = (offset + i * KEY_BYTES) / 4;
      views.u32[at] = from[i]! % 2 ** 32;
      views.u32[at + 1] = Math.floor(from[i]! / 2 ** 32) | (layout.KEY_TAKEN << (layout.KEY_SHIFT - 32));
    }
    return offset;
  };
  return { views, module, table, macs, keys, hits: place(macs), misses: place(all.subarray(targets)) };
}

/** Changes random entries until the returned function is called, which says how many a second it were. */
function startWriter({ table, macs }: Rig): () => number {
  const random = new Xorshift(1);
  const begun = monotonicMs();
  let due = begun;
  let writes = 0;
  const stop = every(1, () => {
    const now = monotonicMs();
    for (let i = 0; due < now && i < WRITES_MAX; i++, due += 1000 / WRITES_PER_SECOND) {
      const generation = ++writes & 0xffff;
      table.update(macs[random.below(macs.length)]!, layout.TARGET_VALID, writes & 1023, generation);
    }
    due = Math.max(due, now);
  });
  return () => {
    stop();
    return (writes / (monotonicMs() - begun)) * 1000;
  };
}

/** A thread that reads the table; measures at each call. */
class Reader {
  readonly #worker: Worker;

  constructor({ views, module, table, hits, misses, keys }: Rig, chunks: number) {
    const workerData: ReaderTask = {
      module,
      memory: views.memory,
      table: table.offset,
      hits,
      misses,
      keys,
      chunks,
    };
    this.#worker = new Worker(new URL('./threads/lookup-reader.js', import.meta.url), { workerData });
  }

  measure(): Promise<ReaderFigures> {
    return new Promise((resolve, reject) => {
      this.#worker.once('message', resolve);
      this.#worker.once('error', reject);
      this.#worker.postMessage('measure');
    });
  }

  async close(): Promise<void> {
    await this.#worker.terminate();
  }
}

/** The program in C with a dump of the table to read. */
class Twin {
  readonly #folder = mkdtempSync(join(tmpdir(), 'overlayd-bench-'));
  readonly #program = join(this.#folder, 'lookup');
  readonly #file = join(this.#folder, 'table');

  /** False where there is no gcc. */
  build(): boolean {
    const flags = ['-O3', '-pthread', '-o', this.#program, sourceFile];
    const built = spawnSync('gcc', flags, { encoding: 'utf8' });
    if (built.error) return false;
    if (built.status !== 0) throw new Error(`gcc: ${built.stderr}`);
    return true;
  }

  dump({ views, table, hits, misses, keys }: Rig): void {
    const slots = views.u32[(table.offset + layout.TABLE_SLOTS) / 4]!;
    const file = openSync(this.#file, 'w');
    const write = (offset: number, bytes: number) => {
      for (let done = 0; done < bytes; ) done += writeSync(file, views.u8, offset + done, bytes - done);
    };
    write(table.offset, layout.TABLE_BYTES + slots * layout.SLOT_BYTES);
    write(hits, keys * KEY_BYTES);
    write(misses, keys * KEY_BYTES);
    closeSync(file);
  }

  measure({ keys }: Rig, chunks: number): ReaderFigures {
    const ran = spawnSync(this.#program, [this.#file, `${keys}`, `${chunks}`], { encoding: 'utf8' });
    if (ran.status !== 0) throw new Error(`lookup.c ended with ${ran.status}`);
    const lines = ran.stdout.trim().split('\n');
    const found = new Map(lines.map((line) => [line.split(' ')[0], line.split(' ').slice(1).map(Number)]));
    const kind = (name: string): KindFigures => {
      const [lookup, result] = found.get(`${name}-lookup`)!;
      return { lookup: lookup!, count: found.get(`${name}-count`)![0]!, result: result! };
    };
    return { hit: kind('hit'), miss: kind('miss') };
  }

  close(): void {
    rmSync(this.#folder, { recursive: true });
  }
}

function summarize(
  size: Size,
  core: readonly ReaderFigures[],
  c: readonly ReaderFigures[],
): readonly LookupFigure[] {
  return (['hit', 'miss'] as const).flatMap((kind) =>
    (['lookup', 'count'] as const).map((step) => {
      const of = (rounds: readonly ReaderFigures[]) => rounds.map((round) => round[kind][step]);
      return {
        size: size.name,
        kind,
        step,
        core: median(of(core)),
        max: step === 'lookup' ? size.lookupMax : size.countMax,
        c: c.length > 0 ? median(of(c)) : undefined,
        // Of the same round: load that both saw falls out.
        ratio: c.length > 0 ? median(of(core).map((ns, round) => ns / of(c)[round]!)) : undefined,
      };
    }),
  );
}

/** The keys are there or not, as they were made, and C finds the same. */
function checkResults({ name }: Size, all: readonly ReaderFigures[]): void {
  const { hit, miss } = all[0]!;
  if (hit.result === 0 || miss.result !== 0) throw new Error(`${name}: hits miss or misses hit`);
  for (const other of all) {
    if (other.hit.result === hit.result && other.miss.result === miss.result) continue;
    throw new Error(`${name}: results are ${hit.result} and ${other.hit.result}`);
  }
}

function print({ name }: Size, { table }: Rig, writes: number, figures: readonly LookupFigure[]): void {
  const perTarget = (table.bytes / table.size).toFixed(0);
  console.log(
    `  ${name}: ${perTarget} bytes a target with the counters of ${ARENAS} arenas, ` +
      `${(writes / 1000).toFixed(0)} thousand entries changed a second`,
  );
  for (const { kind, step, core, max, c, ratio } of figures) {
    const beside =
      c === undefined ? '' : `  C ${c.toFixed(1).padStart(6)}  ratio ${ratio!.toFixed(2)} (at most 1.5)`;
    const what = step === 'lookup' ? 'lookup' : 'lookup and count';
    console.log(
      `    ${kind.padEnd(5)} ${what.padEnd(16)} ${core.toFixed(1).padStart(6)} (at most ${max})${beside}`,
    );
  }
}

async function benchSize(size: Size, smoke: boolean): Promise<readonly LookupFigure[]> {
  const chunks = smoke ? 2 : CHUNKS;
  const rig = createRig(size);
  const reader = new Reader(rig, chunks);
  const twin = new Twin();
  const core: ReaderFigures[] = [];
  const c: ReaderFigures[] = [];
  const writes: number[] = [];
  try {
    twin.dump(rig);
    const hasTwin = twin.build();
    for (let round = 0; round < (smoke ? 1 : ROUNDS); round++) {
      if (hasTwin) c.push(twin.measure(rig, chunks));
      const stopWriter = startWriter(rig);
      try {
        core.push(await reader.measure());
      } finally {
        writes.push(stopWriter());
      }
    }
  } finally {
    await reader.close();
    twin.close();
  }
  checkResults(size, [...core, ...c]);
  const figures = summarize(size, core, c);
  print(size, rig, median(writes), figures);
  if (c.length === 0) console.log('    no gcc here: not compared with C');
  return figures;
}

/** Measures, prints a table and returns it. Throws when the core and C find different entries. */
export async function main({ smoke }: BenchOptions): Promise<readonly LookupFigure[]> {
  console.log(`\ntarget lookup, ns a frame, median of ${smoke ? 1 : ROUNDS} runs, batches of ${BATCH}`);
  const all: LookupFigure[] = [];
  for (const size of smoke ? sizes.slice(0, 1) : sizes) all.push(...(await benchSize(size, smoke)));
  return all;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  await main({ smoke: process.argv.includes('--smoke') });
}
