/**
 * What the core's offloads cost, without system calls: the checksum, a segment that is cut, a frame that is joined or looked at for
 * joining. Beside the same work in C (`offload.c`, gcc -O3) in the same run, with results that must agree.
 */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import * as layout from '../assembly/layout.js';
import { structs } from '../src/sys/abi.js';
import { CoreRig } from '../test/harness/core-rig.js';
import { ACK, frameOf, SEGMENT } from '../test/harness/segments.js';
import * as frames from '../test/reference/frames.js';
import { GSO_TCPV4, NEEDS_CSUM, recordOf } from '../test/reference/vnet-hdr.js';
import * as twin from '../test/reference/vxlan.js';
import { compile } from './compile.js';

const RUNS = 9;
const BATCH = layout.BATCH_MAX;
/** Payload of a segment at an MTU of 1,450. */
const SEGMENT_BYTES = 1410;
/** Shorter ones would show what a call from JavaScript costs, and nothing of the kind happens in the core. */
const SUM_BYTES = [1400, 65_536];
const HEADER_BYTES = 54;
/** Of a datagram, what the core may change. */
const CHANGED_BYTES = 128;

export interface OffloadFigure {
  readonly name: string;
  /** Nanoseconds: of one sum, of one segment, of one frame. */
  readonly core: number;
  readonly c: number | undefined;
  /** The same for the core and for C. */
  readonly result: number;
}

/** Median over the runs of the nanoseconds that one round takes. */
function measure(rounds: number, round: () => void): number {
  const runs: number[] = [];
  // One more run at the beginning, for the compiler.
  for (let run = -1; run < RUNS; run++) {
    const begun = process.hrtime.bigint();
    for (let i = 0; i < rounds; i++) round();
    if (run >= 0) runs.push(Number(process.hrtime.bigint() - begun) / rounds);
  }
  return runs.sort((a, b) => a - b)[RUNS >> 1]!;
}

function mix(result: number, value: number): number {
  return (result * 31 + value) % 1_000_000_007;
}

/** A TCP frame without options. @param flow 0 to 63 */
function segmentOf(flow: number, number: number, bytes: number): Uint8Array {
  const payload = frames.counting(bytes);
  const sequence = 5000 + number * bytes;
  return frameOf({ ...SEGMENT, sourcePort: 20_000 + flow, id: 1000 + number, sequence, payload, flags: ACK });
}

/** A super-frame as a link hands it over, 64 KiB less its headers. */
function superFrame(): Uint8Array {
  const payload = frames.counting(46 * SEGMENT_BYTES + 100);
  const tcp = frames.tcp({ ends: frames.ENDS_4, payload, flags: 0x18, checksum: 'partial' });
  const frame = frames.ethernet(frames.ETHERTYPE_IPV4, frames.ipv4({ protocol: 6, payload: tcp }));
  const header = {
    flags: NEEDS_CSUM,
    gsoType: GSO_TCPV4,
    headerBytes: HEADER_BYTES,
    gsoSize: SEGMENT_BYTES,
    csumStart: 34,
    csumOffset: 16,
  };
  return recordOf(header, frame);
}

const kinds: readonly { readonly name: string; readonly frames: readonly Uint8Array[] }[] = [
  {
    name: 'coalesce-1-flow',
    frames: Array.from({ length: BATCH }, (_, i) => segmentOf(0, i, SEGMENT_BYTES)),
  },
  {
    name: 'coalesce-64-flows',
    frames: Array.from({ length: BATCH }, (_, i) => segmentOf(i, 0, SEGMENT_BYTES)),
  },
];

function benchSum(bytes: Uint8Array, rounds: number): Omit<OffloadFigure, 'c'>[] {
  const { core, views, arena } = new CoreRig();
  const at = arena + layout.ARENA_RX_BUFFER;
  views.u8.set(bytes, at);
  return SUM_BYTES.map((length) => {
    const each = length > 2000 ? Math.floor(rounds / 16) + 1 : rounds;
    const ns = measure(each, () => core.sumBytes(at, length));
    let sum = Number(core.sumBytes(at, length));
    while (sum > 0xffff) sum = (sum % 65_536) + Math.floor(sum / 65_536);
    return { name: `checksum-${length}`, core: ns, result: sum };
  });
}

function benchSegment(record: Uint8Array, rounds: number): Omit<OffloadFigure, 'c'> {
  const rig = new CoreRig({ bank: 1 });
  const device = rig.addDevice({ vnetid: 1, mtu: 1500, flags: layout.DEVICE_FLAG_UDP_SEGMENT });
  const { core, arena } = rig;
  rig.placeFrameAtEnd(record);
  const ns = measure(Math.floor(rounds / 16) + 1, () => {
    core.txDecide(arena, device, 0, 1);
    core.txArrange(arena, device, 1);
  });
  core.txDecide(arena, device, 0, 1);
  const datagrams = rig.groups(device, 1).flatMap((group) => group.datagrams);
  const checksums = datagrams.map((datagram) => datagram[8 + 34 + 16]! + datagram[8 + 34 + 17]! * 256);
  const result = checksums.reduce(mix, datagrams.length);
  return { name: 'segment', core: ns / datagrams.length, result };
}

function benchCoalesce(name: string, batch: readonly Uint8Array[], rounds: number): Omit<OffloadFigure, 'c'> {
  const rig = new CoreRig();
  rig.addDevice({ vnetid: 1, mtu: 1500, flags: layout.DEVICE_FLAG_COALESCE });
  const { core, arena, mux, views } = rig;
  rig.placeDatagrams(batch.map((frame) => twin.encap(1, frame)));
  const saved = batch.map((_, i) => views.u8.slice(rig.rxSlot(i), rig.rxSlot(i) + CHANGED_BYTES));
  // Joining writes over the outer header and the first frame's; that is put back, which is measured too and taken off.
  const restore = () => {
    for (let i = 0; i < BATCH; i++) views.u8.set(saved[i]!, rig.rxSlot(i));
  };
  const join = () => {
    core.rxBegin(arena, mux, BATCH);
    core.rxDecide(arena, mux, 0, core.rxUnfold(arena, mux));
    core.rxGather(arena);
  };
  const both = measure(rounds, () => {
    restore();
    join();
  });
  const alone = measure(rounds, restore);
  restore();
  join();
  return { name, core: (both - alone) / BATCH, result: iovecLengths(rig).reduce(mix, rig.writeCount) };
}

/** Of all writes, piece by piece. */
function iovecLengths({ arena, views: { u32 }, writeCount }: CoreRig): number[] {
  return Array.from({ length: writeCount }, (_, write) => {
    const entry = (arena + layout.ARENA_RX_WRITES + write * layout.RX_WRITE_BYTES) / 4;
    const [offset, length, count] = [u32[entry + 1]!, u32[entry + 2]!, u32[entry + 4]!];
    if (count === 0) return [length];
    const lengthAt = (iovec: number) => offset + iovec * structs.iovec.size + structs.iovec.iov_len;
    return Array.from({ length: count }, (_, iovec) => u32[lengthAt(iovec) / 4]!);
  }).flat();
}

/** Runs `offload.c` over the same bytes; undefined where there is no gcc. */
function benchC(
  parts: readonly Uint8Array[],
  rounds: number,
): Map<string, { ns: number; result: number }> | undefined {
  if (spawnSync('gcc', ['--version']).error) return undefined;
  const folder = mkdtempSync(join(tmpdir(), 'overlayd-bench-'));
  try {
    const file = join(folder, 'parts');
    writeFileSync(
      file,
      frames.concat(...parts.flatMap((part) => [frames.bigEndian(part.length, 4).reverse(), part])),
    );
    const names = kinds.map(({ name }) => name);
    const words = [file, `${rounds}`, `${SEGMENT_BYTES}`, ...names];
    const ran = spawnSync(compile('offload'), words, { encoding: 'utf8' });
    if (ran.status !== 0) throw new Error(`offload.c ended with ${ran.status}`);
    const lines = ran.stdout.trim().split('\n');
    return new Map(
      lines.map((line) => {
        const [name, ns, result] = line.split(' ');
        return [name!, { ns: Number(ns), result: Number(result) }];
      }),
    );
  } finally {
    rmSync(folder, { recursive: true });
  }
}

/** Measures, prints a table and returns it. Throws when the core and C come to different results. */
export function main({ smoke }: { readonly smoke: boolean }): OffloadFigure[] {
  const rounds = smoke ? 20 : 5000;
  const bytes = frames.counting(65_536);
  const record = superFrame();
  const inC = benchC(
    [bytes, record.subarray(layout.VNET_HDR_BYTES), ...kinds.flatMap((kind) => kind.frames)],
    rounds,
  );
  const figures = [
    ...benchSum(bytes, rounds * 8),
    benchSegment(record, rounds),
    ...kinds.map((kind) => benchCoalesce(kind.name, kind.frames, rounds)),
  ].map((figure) => ({ ...figure, c: inC?.get(figure.name)?.ns }));
  console.log(
    `offloads, ns a sum, a segment or a frame of ${SEGMENT_BYTES} bytes of payload, median of ${RUNS} runs`,
  );
  for (const { name, core, c, result } of figures) {
    const expected = inC?.get(name)?.result ?? result;
    if (expected !== result)
      throw new Error(`${name}: the core's result is ${result}, that of C ${expected}`);
    const beside = c === undefined ? '' : `  C ${c.toFixed(1).padStart(7)}  ratio ${(core / c).toFixed(2)}`;
    console.log(`  ${name.padEnd(18)} ${core.toFixed(1).padStart(7)}${beside}  result ${result}`);
  }
  if (!inC) console.log('  no gcc here: not compared with C');
  return figures;
}
