/**
 * The core alone, without system calls: nanoseconds a frame for encap with the flow hash, the arranging of
 * messages, and decap, beside the same work in C (`bench/core.c`) in the same run.
 * `node dist/bench/core.js [--smoke]`.
 */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import * as layout from '../assembly/layout.js';
import { CoreRig } from '../test/harness/core-rig.js';
import * as frames from '../test/reference/frames.js';
import * as twin from '../test/reference/vxlan.js';

const RUNS = 9;
const BATCH = layout.BATCH_MAX;
const TARGET_NS = 10;
const VXLAN_BYTES = 8;
const sourceFile = fileURLToPath(new URL('../../bench/core.c', import.meta.url));

export interface BenchOptions {
  /** As short as can be: shows that it runs, says nothing about speed. */
  readonly smoke: boolean;
}

/** Nanoseconds a frame of one step for one kind of frame. */
export interface CoreFigure {
  readonly kind: string;
  readonly step: 'encap' | 'arrange' | 'decap';
  readonly core: number;
  /** The same in C; not measured for the arranging, which is there for the system calls alone. */
  readonly c: number | undefined;
  /** Of all outcomes, the same for the core and for C. */
  readonly result: number;
}

interface Kind {
  readonly name: string;
  readonly frames: readonly Uint8Array[];
}

/** 64 flows of each kind, which differ in their source ports. */
function kinds(): Kind[] {
  const batch = (build: (sourcePort: number) => Uint8Array) =>
    Array.from({ length: BATCH }, (_, i) => build(20_000 + i));
  const over = (family: 4 | 6, protocol: 6 | 17, frameBytes: number, checksum: frames.ChecksumKind) =>
    batch((sourcePort) => {
      const ends = family === 4 ? frames.ENDS_4 : frames.ENDS_6;
      const headerBytes = 14 + (family === 4 ? 20 : 40) + (protocol === 6 ? 20 : 8);
      const payload = frames.counting(frameBytes - headerBytes);
      const segment = (protocol === 6 ? frames.tcp : frames.udp)({ ends, sourcePort, payload, checksum });
      const given = { protocol, payload: segment };
      return family === 4
        ? frames.ethernet(frames.ETHERTYPE_IPV4, frames.ipv4(given))
        : frames.ethernet(frames.ETHERTYPE_IPV6, frames.ipv6(given));
    });
  return [
    { name: 'udp4-64', frames: over(4, 17, 64, 'finished') },
    { name: 'tcp4-1400', frames: over(4, 6, 1400, 'finished') },
    { name: 'tcp4-1400-partial', frames: over(4, 6, 1400, 'partial') },
    { name: 'tcp6-1400', frames: over(6, 6, 1400, 'finished') },
    { name: 'arp-42', frames: batch(() => frames.ethernet(frames.ETHERTYPE_ARP, frames.arp())) },
  ];
}

/** Median over the runs of the nanoseconds that one frame of a round takes. */
function measure(rounds: number, round: () => void): number {
  const runs: number[] = [];
  // One more run at the beginning, for the compiler.
  for (let run = -1; run < RUNS; run++) {
    const begun = process.hrtime.bigint();
    for (let i = 0; i < rounds; i++) round();
    if (run >= 0) runs.push(Number(process.hrtime.bigint() - begun) / rounds / BATCH);
  }
  return runs.sort((a, b) => a - b)[RUNS >> 1]!;
}

/** Folds an outcome into a result; `core.c` does the same. */
function fold(result: number, high: number, low: number): number {
  return (result * 31 + high * 65536 + low) % 1_000_000_007;
}

function benchEncap(rig: CoreRig, device: number, kind: Kind, rounds: number): CoreFigure[] {
  const { arena, core, views } = rig;
  rig.placeFrames(kind.frames);
  const encap = measure(rounds, () => core.txDecide(arena, device, 0, BATCH));
  let result = 0;
  for (let i = 0; i < BATCH; i++) {
    // The outer header that was written, and how long the datagram is with it.
    const entry = (arena + layout.ARENA_TX_FRAMES + i * layout.TX_FRAME_BYTES) / 4;
    const header = views.u32[entry]! + layout.VNET_HDR_BYTES - VXLAN_BYTES;
    const isWritten = views.u8[header] === 8 && views.u8[header + 6] === 1;
    const length = isWritten ? views.u32[entry + 1]! - layout.VNET_HDR_BYTES + VXLAN_BYTES : 0;
    result = fold(result, rig.socketOf(i), length);
  }
  const arrange = measure(rounds, () => core.txArrange(arena, device, BATCH));
  return [
    { kind: kind.name, step: 'encap', core: encap, c: undefined, result },
    {
      kind: kind.name,
      step: 'arrange',
      core: arrange,
      c: undefined,
      result: rig.groups(device, BATCH).length,
    },
  ];
}

function benchDecap(rig: CoreRig, kind: Kind, rounds: number): CoreFigure {
  const { arena, core, mux, views } = rig;
  const { u32, u8 } = views;
  rig.placeDatagrams(kind.frames.map((frame) => twin.encap(1, frame)));
  const u16 = new Uint16Array(views.memory.buffer);
  const words = Uint32Array.from({ length: BATCH }, (_, i) => rig.rxSlot(i) / 2);
  // Decap writes over the outer header, so it is put back; that alone is measured too and taken off.
  const restore = () => {
    for (let i = 0; i < BATCH; i++) {
      const word = words[i]!;
      u16[word] = 8;
      u16[word + 1] = 0;
      u16[word + 2] = 0;
      u16[word + 3] = 1;
    }
  };
  const decap = () => {
    core.rxBegin(arena, mux, BATCH);
    const writes = core.rxDecide(arena, mux, 0, core.rxUnfold(arena, mux));
    core.rxGather(arena);
    return writes;
  };
  const both = measure(rounds, () => {
    restore();
    decap();
  });
  const alone = measure(rounds, restore);
  restore();
  const writes = decap();
  if (writes !== BATCH) throw new Error(`${kind.name}: only ${writes} of ${BATCH} datagrams pass`);
  let result = 0;
  for (let write = 0; write < writes; write++) {
    const entry = (arena + layout.ARENA_RX_WRITES + write * layout.RX_WRITE_BYTES) / 4;
    result = fold(result, u8[u32[entry + 1]!]!, u32[entry + 2]!);
  }
  return { kind: kind.name, step: 'decap', core: both - alone, c: undefined, result };
}

/** Compiles and runs `core.c` over the same frames; undefined where there is no gcc. */
function benchC(
  all: readonly Kind[],
  rounds: number,
): Map<string, { ns: number; result: number }> | undefined {
  const folder = mkdtempSync(join(tmpdir(), 'overlayd-bench-'));
  try {
    const program = join(folder, 'core');
    const built = spawnSync('gcc', ['-O3', '-o', program, sourceFile], { encoding: 'utf8' });
    if (built.error) return undefined;
    if (built.status !== 0) throw new Error(`gcc: ${built.stderr}`);
    const file = join(folder, 'frames');
    const parts = all.flatMap((kind) =>
      kind.frames.flatMap((frame) => [frames.bigEndian(frame.length, 4).reverse(), frame]),
    );
    writeFileSync(file, frames.concat(...parts));
    const names = all.map(({ name }) => name);
    const ran = spawnSync(program, [file, `${rounds}`, ...names], { encoding: 'utf8' });
    if (ran.status !== 0) throw new Error(`core.c ended with ${ran.status}`);
    const lines = ran.stdout.trim().split('\n');
    return new Map(
      lines.map((line) => {
        const [kind, step, ns, result] = line.split(' ');
        return [`${kind} ${step}`, { ns: Number(ns), result: Number(result) }];
      }),
    );
  } finally {
    rmSync(folder, { recursive: true });
  }
}

/** Measures, prints a table and returns it. Throws when the core and C come to different results. */
export function main({ smoke }: BenchOptions): CoreFigure[] {
  const rounds = smoke ? 20 : 20_000;
  const all = kinds();
  const rig = new CoreRig();
  const device = rig.addDevice({ vnetid: 1, mtu: 1500 });
  const inC = benchC(all, rounds);
  const figures = all.flatMap((kind) => [
    ...benchEncap(rig, device, kind, rounds),
    benchDecap(rig, kind, rounds),
  ]);
  const done = figures.map((figure) => ({ ...figure, c: inC?.get(`${figure.kind} ${figure.step}`)?.ns }));
  console.log(
    `core, ns a frame, median of ${RUNS} runs of ${rounds} batches of ${BATCH}; target ${TARGET_NS}`,
  );
  for (const { kind, step, core, c, result } of done) {
    const expected = inC?.get(`${kind} ${step}`)?.result ?? result;
    if (expected !== result)
      throw new Error(`${kind} ${step}: the core's result is ${result}, that of C ${expected}`);
    const beside = c === undefined ? '' : `  C ${c.toFixed(1).padStart(6)}  ratio ${(core / c).toFixed(2)}`;
    console.log(
      `  ${kind.padEnd(18)} ${step.padEnd(8)} ${core.toFixed(1).padStart(6)}${beside}  result ${result}`,
    );
  }
  if (!inC) console.log('  no gcc here: not compared with C');
  return done;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) main({ smoke: process.argv.includes('--smoke') });
