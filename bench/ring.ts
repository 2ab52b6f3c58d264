/**
 * What does a record on a ring between threads cost, pushed and popped, beside the same ring in C (`ring.c`, gcc -O3) in the same
 * run? With the calls from JavaScript into the core, by which main pops and workers report. `node dist/bench/ring.js [--smoke]`.
 */
import { execFileSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import * as layout from '../assembly/layout.js';
import { CoreRig } from '../test/harness/core-rig.js';
import { has } from '../test/harness/needs.js';
import { compile } from './compile.js';
import type { BenchOptions } from './core.js';
import { median } from './statistics.js';

const RUNS = 9;
/** Records that are on the ring at a time, and fewer of those that are as long as can be. */
const BATCH = 64;
const LONG_BATCH = 4;
const LONG = 2000;
const LENGTHS = [64, 1410, 65_536 - 64];
const MODULUS = 1_000_000_007;

export interface RingFigure {
  readonly bytes: number;
  /** Nanoseconds for a push and a pop. */
  readonly core: number;
  readonly c: number | undefined;
}

/** Measures, prints a table and returns it. Throws when the core and C come to different results. */
export function main({ smoke }: BenchOptions): RingFigure[] {
  const rounds = smoke ? 20 : 5000;
  const inC = has('gcc') ? measureC(rounds) : undefined;
  const { core, views, arena } = new CoreRig();
  const ring = arena + layout.ARENA_MISSES;
  const from = arena + layout.ARENA_TX_BUFFER;
  const into = arena + layout.ARENA_RX_BUFFER;
  core.ringCreate(ring, layout.MISS_RING_BYTES);
  for (let at = 0; at < 65_536; at++) views.u8[from + at] = at;
  console.log(`\nring, ns for a record pushed and popped, median of ${RUNS} runs`);
  return LENGTHS.map((bytes) => {
    const batch = bytes > LONG ? LONG_BATCH : BATCH;
    const runs: number[] = [];
    let result = 0;
    // One more run at the beginning, for the compiler.
    for (let run = -1; run < RUNS; run++) {
      const begun = process.hrtime.bigint();
      for (let round = 0; round < rounds; round++) {
        for (let i = 0; i < batch; i++) result += Number(core.ringPush(ring, from, bytes));
        for (let i = 0; i < batch; i++) result += core.ringPop(ring, into, 65_536);
      }
      if (run >= 0) runs.push(Number(process.hrtime.bigint() - begun) / rounds / batch);
    }
    const seen = (result % MODULUS) + views.u8[into + bytes - 1]!;
    const c = inC?.get(bytes);
    if (c && c.result !== seen)
      throw new Error(`${bytes} bytes: the core's result is ${seen}, C's ${c.result}`);
    const ns = median(runs);
    const beside = c ? `  C ${c.ns.toFixed(1).padStart(7)}  ratio ${(ns / c.ns).toFixed(2)}` : '';
    console.log(`  ${`${bytes} bytes`.padEnd(12)} ${ns.toFixed(1).padStart(7)}${beside}`);
    return { bytes, core: ns, c: c?.ns };
  });
}

function measureC(rounds: number): Map<number, { readonly ns: number; readonly result: number }> {
  const lines = execFileSync(compile('ring'), [`${rounds}`], { encoding: 'utf8' })
    .trim()
    .split('\n');
  return new Map(
    lines.map((line) => {
      const [bytes, ns, result] = line.split(' ').map(Number);
      return [bytes!, { ns: ns!, result: result! }];
    }),
  );
}

if (process.argv[1] === fileURLToPath(import.meta.url)) main({ smoke: process.argv.includes('--smoke') });
