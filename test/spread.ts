/**
 * Routes that are spread over several destinations: flows share them evenly, and each keeps to one, whatever send socket it has;
 * fragments of a datagram do not part.
 */
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import * as layout from '../assembly/layout.js';
import { AF_INET6 } from '../src/sys/abi.js';
import { randomBetween } from '../src/sys/random.js';
import { sockaddr } from '../src/sys/sockaddr.js';
import { WorkerRig } from './harness/worker-rig.js';
import { Xorshift } from './harness/xorshift.js';
import * as frames from './reference/frames.js';

const spread = suite('routes that are spread');
const SEED = randomBetween(1, 0x7fffffff);
const FLOWS = 10_000;
const BANK = 8;
const MAC = 0x020820000007;
const COUNTS = [2, 3, 8] as const;
/** Of a table with so many degrees of freedom chi-square is above this once in a million runs. */
const CHI_MAX: Readonly<Record<number, number>> = { 1: 24, 2: 28, 7: 42, 14: 56, 49: 112 };

interface Way {
  /** Of the list, by number. */
  readonly destination: number;
  readonly socket: number;
}

/** The core with one target behind a list of so many destinations. */
class SpreadRig {
  readonly rig = new WorkerRig({ workers: 1 });
  readonly #members = new Map<number, number>();

  constructor(count: number) {
    const { tables, destinations, mux } = this.rig;
    tables.writeMux(mux, layout.ENCAP_VXLAN, BANK, true);
    const names = Array.from({ length: count }, (_, i) => sockaddr(AF_INET6, `fd00::1:${i}`, 4789));
    const header = new Uint8Array(8);
    const list = destinations.holdList('', layout.DESTINATION_KIND_SPREAD, names, header);
    for (const [i, name] of names.entries()) this.#members.set(destinations.hold('', name, header), i);
    this.rig.createTable(10).insert(MAC, layout.TARGET_VALID, list, 0);
  }

  /** The one way that frames to the target take. */
  way(batch: readonly Uint8Array[]): Way {
    const { core, views, device, arenas } = this.rig;
    const { u8, u32 } = views;
    const arena = arenas[0]!;
    let at = arena + layout.ARENA_TX_BUFFER + layout.TX_HEADROOM_BYTES;
    for (const [index, frame] of batch.entries()) {
      u8.fill(0, at, at + layout.VNET_HDR_BYTES);
      u8.set(frame, at + layout.VNET_HDR_BYTES);
      u32.set([at, layout.VNET_HDR_BYTES + frame.length], (arena + layout.ARENA_TX_FRAMES) / 4 + index * 2);
      at += layout.TX_HEADROOM_BYTES + Math.ceil(frame.length / layout.LINE_BYTES + 1) * layout.LINE_BYTES;
    }
    core.txDecide(arena, device, 0, batch.length);
    const ways = batch.map((_, index) => ({
      destination: this.#members.get(u32[(arena + layout.ARENA_TX_ROUTES) / 4 + index]!)!,
      socket: u8[arena + layout.ARENA_TX_SOCKETS + index]!,
    }));
    const [{ destination, socket }, ...others] = ways as [Way, ...Way[]];
    assert.ok(destination !== undefined && socket < BANK, 'it is sent to one of the list');
    for (const other of others) {
      assert.ok(other.destination === destination && other.socket === socket, `one way, seed ${SEED}`);
    }
    return { destination, socket };
  }
}

interface Flow {
  readonly ends: frames.Ends;
  readonly sourcePort: number;
}

/** Flows as they come: between random addresses of one network, and from one host with ports that follow each other. */
const traffics = {
  'random flows': (random: Xorshift): Flow => {
    const isIpv6 = random.below(2) === 0;
    const address = (network: readonly number[], bytes: number) =>
      Uint8Array.from({ length: bytes }, (_, i) => network[i] ?? random.below(256));
    const end = () => (isIpv6 ? address([0xfd, 0, 0, 0, 0, 0, 0, 0], 16) : address([10, 0], 4));
    return { ends: { source: end(), destination: end() }, sourcePort: 1024 + random.below(60_000) };
  },
  'ports that follow each other': (_: Xorshift, number: number): Flow => ({
    ends: frames.ENDS_4,
    sourcePort: 20_000 + number,
  }),
} as const;

/** An IP packet to the target. */
function packetTo(
  { ends }: Flow,
  payload: Uint8Array,
  fragment?: { readonly offset: number; readonly more: boolean },
): Uint8Array {
  const isIpv6 = ends.source.length === 16;
  const extensions = fragment ? [frames.fragmentHeader(fragment.offset, fragment.more)] : [];
  const packet = isIpv6
    ? frames.ipv6({ ends, protocol: 17, payload, extensions })
    : frames.ipv4({ ends, protocol: 17, payload, ...(fragment ? { fragment } : {}) });
  const frame = frames.ethernet(isIpv6 ? 0x86dd : 0x0800, packet);
  frame.set(frames.bigEndian(MAC, 6));
  return frame;
}

/** A datagram of the flow; what is not part of its identity differs from one to the next. */
function datagramOf(flow: Flow, random: Xorshift): Uint8Array {
  return frames.udp({ ...flow, payload: frames.counting(16 + random.below(100), random.below(256)) });
}

/** Frames of three fragments, of which only the first has the ports. */
function fragmentsOf(flow: Flow, datagram: Uint8Array): Uint8Array[] {
  const parts = [
    { from: 0, to: 8, more: true },
    { from: 8, to: 16, more: true },
    { from: 16, to: datagram.length, more: false },
  ];
  return parts.map(({ from, to, more }) =>
    packetTo(flow, datagram.subarray(from, to), { offset: from / 8, more }),
  );
}

/** How far counts are from all alike. */
function chiSquare(counts: readonly number[]): number {
  const mean = counts.reduce((sum, count) => sum + count, 0) / counts.length;
  return counts.reduce((sum, count) => sum + (count - mean) ** 2 / mean, 0);
}

/** How far a table is from one whose columns know nothing of its rows. */
function dependence(table: readonly (readonly number[])[]): number {
  const rows = table.map((row) => row.reduce((sum, count) => sum + count, 0));
  const columns = table[0]!.map((_, column) => table.reduce((sum, row) => sum + row[column]!, 0));
  const total = rows.reduce((sum, count) => sum + count, 0);
  return table.reduce(
    (sum, row, r) =>
      row.reduce((part, count, column) => {
        const expected = (rows[r]! * columns[column]!) / total;
        return part + (count - expected) ** 2 / expected;
      }, sum),
    0,
  );
}

for (const count of COUNTS) {
  for (const [what, flowOf] of Object.entries(traffics)) {
    spread(`${FLOWS} flows over ${count} destinations, ${what}: even, whichever send socket`, () => {
      const random = new Xorshift(SEED);
      const rig = new SpreadRig(count);
      const table = Array.from({ length: BANK }, () => new Array<number>(count).fill(0));
      for (let number = 0; number < FLOWS; number++) {
        const flow = flowOf(random, number);
        const batch = [0, 1].map(() => packetTo(flow, datagramOf(flow, random)));
        const { destination, socket } = rig.way(batch);
        table[socket]![destination]!++;
      }
      const shares = table[0]!.map((_, to) => table.reduce((sum, row) => sum + row[to]!, 0));
      const even = chiSquare(shares);
      const joint = dependence(table);
      console.log(`  ${shares.join(' ')}: chi-square ${even.toFixed(1)}, with sockets ${joint.toFixed(1)}`);
      assert.ok(even < CHI_MAX[count - 1]!, `chi-square ${even}, seed ${SEED}`);
      assert.ok(joint < CHI_MAX[(count - 1) * (BANK - 1)]!, `chi-square ${joint}, seed ${SEED}`);
    });
  }

  spread(`${FLOWS} datagrams in fragments over ${count} destinations: those of one stay together`, () => {
    const random = new Xorshift(SEED);
    const rig = new SpreadRig(count);
    const shares = new Array<number>(count).fill(0);
    for (let number = 0; number < FLOWS; number++) {
      const flow = traffics['random flows'](random);
      shares[rig.way(fragmentsOf(flow, datagramOf(flow, random))).destination]!++;
    }
    assert.ok(chiSquare(shares) < CHI_MAX[count - 1]!, `${shares}, seed ${SEED}`);
  });
}

spread.run();
