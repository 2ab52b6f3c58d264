/**
 * What does the choice of the encapsulation cost a frame in the core? Encap and decap of the same frames, as ratios to VXLAN of
 * the same run. `node dist/bench/encapsulation.js [--smoke]`.
 */
import { fileURLToPath } from 'node:url';
import * as layout from '../assembly/layout.js';
import { CoreRig } from '../test/harness/core-rig.js';
import { type Encapsulation, encapsulations } from '../test/harness/encapsulations.js';
import * as frames from '../test/reference/frames.js';
import type { BenchOptions } from './core.js';
import { median } from './statistics.js';

const RUNS = 9;
const BATCH = layout.BATCH_MAX;
const VNETID = 1;
/** Bytes of the outer header that decap writes over. */
const OVERWRITTEN = layout.VNET_HDR_BYTES;

export interface EncapsulationFigure {
  readonly name: string;
  /** Nanoseconds a frame, medians. */
  readonly encap: number;
  readonly decap: number;
}

/** One encapsulation with a batch of 64 flows. */
class Bench {
  readonly #rig: CoreRig;
  readonly #device: number;
  readonly #frames: readonly Uint8Array[];
  readonly #datagrams: readonly Uint8Array[];
  readonly encap: number[] = [];
  readonly decap: number[] = [];

  constructor(
    readonly encapsulation: Encapsulation,
    readonly rounds: number,
  ) {
    this.#rig = new CoreRig({ encapsulation });
    this.#device = this.#rig.addDevice({ vnetid: VNETID, mtu: 1500 });
    const header = encapsulation.header(VNETID);
    this.#frames = Array.from({ length: BATCH }, (_, index) => {
      const payload = frames.counting(1346);
      const segment = frames.tcp({ ends: frames.ENDS_4, sourcePort: 20_000 + index, payload });
      return frames.ethernet(frames.ETHERTYPE_IPV4, frames.ipv4({ protocol: 6, payload: segment }));
    });
    this.#datagrams = this.#frames.map((frame) => frames.concat(header, frame));
  }

  run(): void {
    const { arena, core, mux, views } = this.#rig;
    this.#rig.placeFrames(this.#frames);
    // Headers longer than the vnet_hdr are written over all of it, so that is put back, and taken off.
    const starts = this.#frames.map(
      (_, i) => views.u32[(arena + layout.ARENA_TX_FRAMES + i * layout.TX_FRAME_BYTES) / 4]!,
    );
    const clear = () => {
      for (const start of starts) {
        views.u8[start] = 0;
        views.u8[start + 1] = 0;
      }
    };
    const encap = this.#time(() => {
      clear();
      core.txDecide(arena, this.#device, 0, BATCH);
    });
    this.encap.push(encap - this.#time(clear));
    if (this.#rig.socketOf(BATCH - 1) === layout.TX_SOCKET_DROPPED) {
      throw new Error(`${this.encapsulation.name}: not all frames pass`);
    }
    this.#rig.placeDatagrams(this.#datagrams);
    // Put back by halves of words, and that alone taken off.
    const u16 = new Uint16Array(views.memory.buffer);
    const header = this.encapsulation.header(VNETID);
    const tail = new Uint8Array(OVERWRITTEN);
    tail.set(header.subarray(-OVERWRITTEN), Math.max(0, OVERWRITTEN - header.length));
    const words = new Uint16Array(tail.buffer);
    const places = this.#datagrams.map((_, i) => (this.#rig.rxSlot(i) + header.length - OVERWRITTEN) / 2);
    const restore = () => {
      for (const place of places) {
        for (let word = 0; word < words.length; word++) u16[place + word] = words[word]!;
      }
    };
    const decide = () => {
      core.rxBegin(arena, mux, BATCH);
      return core.rxDecide(arena, mux, 0, core.rxUnfold(arena, mux));
    };
    const both = this.#time(() => {
      restore();
      decide();
    });
    this.decap.push(both - this.#time(restore));
    restore();
    if (decide() !== BATCH) throw new Error(`${this.encapsulation.name}: not all datagrams pass`);
  }

  #time(round: () => void): number {
    const begun = process.hrtime.bigint();
    for (let i = 0; i < this.rounds; i++) round();
    return Number(process.hrtime.bigint() - begun) / this.rounds / BATCH;
  }
}

/** Measures in rounds that take turns, prints a table and returns it. */
export function main({ smoke }: BenchOptions): EncapsulationFigure[] {
  const compared = encapsulations.filter(({ hasIpHeader }) => !hasIpHeader);
  const benches = compared.map((each) => new Bench(each, smoke ? 20 : 10_000));
  for (let run = -1; run < RUNS; run++) {
    for (const bench of benches) bench.run();
    if (run >= 0) continue;
    // The first is for the compiler.
    for (const bench of benches) bench.encap.length = bench.decap.length = 0;
  }
  console.log(`\nencapsulations, ns a frame of 1400 bytes, median of ${RUNS} runs, and its ratio to VXLAN`);
  const [anchor] = benches;
  const ratio = (of: readonly number[], to: readonly number[]) => median(of.map((ns, run) => ns / to[run]!));
  for (const { encapsulation, encap, decap } of benches) {
    const cell = (of: readonly number[], to: readonly number[]) =>
      `${median(of).toFixed(1).padStart(6)} ${ratio(of, to).toFixed(2)}x`;
    console.log(
      `  ${encapsulation.name.padEnd(32)} encap ${cell(encap, anchor!.encap)}  decap ${cell(decap, anchor!.decap)}`,
    );
  }
  return benches.map(({ encapsulation, encap, decap }) => ({
    name: encapsulation.name,
    encap: median(encap),
    decap: median(decap),
  }));
}

if (process.argv[1] === fileURLToPath(import.meta.url)) main({ smoke: process.argv.includes('--smoke') });
