/**
 * The slow twin of receive coalescing: what it joins comes back byte for byte when it is cut, by segmentation's twin and by the
 * kernel; what should be joined is; and every rule has its case. COALESCE_SEED repeats a run, COALESCE_BURSTS makes it longer.
 */
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { randomBetween } from '../src/sys/random.js';
import { FlowTraffic, timestamps, withZeroChecksum } from './harness/flow-traffic.js';
import { KernelGso } from './harness/kernel-gso.js';
import { testWith } from './harness/needs.js';
import {
  ACK,
  CWR,
  ECE,
  FIN,
  frameOf,
  PSH,
  RST,
  SEGMENT,
  type Segment,
  SYN,
  URG,
} from './harness/segments.js';
import { Xorshift } from './harness/xorshift.js';
import { coalesceFrames, DATAGRAMS_MAX } from './reference/coalesce.js';
import { findFlow } from './reference/flow.js';
import * as frames from './reference/frames.js';
import { read16 } from './reference/headers.js';
import { segmentFrame } from './reference/segment.js';
import { readVnetHeader, VNET_HDR_BYTES } from './reference/vnet-hdr.js';

const SEED = Number(process.env.COALESCE_SEED ?? randomBetween(1, 0x7fffffff));
const BURSTS = Number(process.env.COALESCE_BURSTS ?? 400);
const BURST_FRAMES = 64;
const ROOM = { bytesMax: 65_535, segmentsMax: 64 };

const coalescing = suite('coalescing');

/** Frames that follow one another: identification and sequence go on unless they are said. */
function follow(all: Partial<Segment>, each: readonly Partial<Segment>[]): Uint8Array[] {
  let { id, sequence } = { ...SEGMENT, ...all };
  return each.map((own) => {
    const segment = { ...SEGMENT, ...all, id, sequence, ...own };
    id = segment.id + 1;
    sequence = segment.sequence + segment.payload.length;
    return frameOf(segment);
  });
}

/** How many frames each record has. */
function counts(input: readonly Uint8Array[], options = ROOM): number[] {
  const records = coalesceFrames(input, options);
  const cut = records.map((record) => segmentFrame(record));
  assert.ok(
    cut.every((list) => list !== undefined),
    'every record can be cut',
  );
  return cut.map((list) => list!.length);
}

function text(frame: Uint8Array): string {
  return Buffer.from(frame).toString('hex');
}

const KINDS: readonly Partial<Segment>[] = [
  {},
  { family: 6 },
  { isTcp: false },
  { isTcp: false, family: 6 },
  { tags: frames.VLAN_TAGS },
  { family: 6, tags: frames.VLAN_STACK },
  { tcpOptions: timestamps(1), id: 0xfff0, sequence: 0xffff_fff0 },
];

for (const kind of KINDS) {
  const name = JSON.stringify(kind);
  coalescing(`44 full segments in order become one: ${name}`, () => {
    const run = follow(
      kind,
      Array.from({ length: 44 }, () => ({ payload: frames.counting(1448) })),
    );
    const [record, ...more] = coalesceFrames(run, ROOM);
    assert.is(more.length, 0);
    const header = readVnetHeader(record!)!;
    assert.equal([header.flags, header.gsoSize], [1, 1448]);
    assert.is(header.headerBytes, run[0]!.length - 1448);
    assert.equal(segmentFrame(record!), run);
  });
}

interface Case {
  readonly name: string;
  readonly all?: Partial<Segment>;
  readonly each: readonly Partial<Segment>[];
  /** Frames of each record. */
  readonly becomes: readonly number[];
}

const V6: Partial<Segment> = { family: 6 };
const UDP: Partial<Segment> = { isTcp: false };
const short = { payload: frames.counting(50) };
const long = { payload: frames.counting(101) };
const empty = { payload: new Uint8Array(0) };

/** A field that is another one from the second frame on. */
function changed(name: string, field: Partial<Segment>, all: Partial<Segment> = {}): Case {
  return { name: `${name} changes`, all, each: [{}, field, field], becomes: [1, 2] };
}

/** A frame in the middle that is no part of a super-frame. */
function alone(name: string, middle: Partial<Segment>, all: Partial<Segment> = {}): Case {
  return { name: `${name} goes alone`, all, each: [{}, middle, {}], becomes: [1, 1, 1] };
}

const cases: readonly Case[] = [
  { name: 'in order', each: [{}, {}, {}], becomes: [3] },
  {
    name: 'identification and sequence wrap',
    all: { id: 0xffff, sequence: 2 ** 32 - 150 },
    each: [{}, {}, {}],
    becomes: [3],
  },
  { name: 'without DF', all: { fragment: 0 }, each: [{}, {}, {}], becomes: [3] },
  { name: 'ECE on all', all: { flags: ACK | ECE }, each: [{}, {}, {}], becomes: [3] },
  changed('TOS', { tos: 1 }),
  changed('TTL', { ttl: 63 }),
  changed('DF', { fragment: 0 }),
  changed('the reserved bit', { fragment: 0xc000 }),
  changed('traffic class', { tos: 1 }, V6),
  changed('hop limit', { ttl: 63 }, V6),
  changed('flow label', { flowLabel: 1 }, V6),
  changed('TOS of UDP', { tos: 1 }, UDP),
  changed('acknowledgement', { acknowledgement: 78 }),
  changed('window', { window: 501 }),
  changed('urgent pointer', { urgent: 1 }),
  changed('a reserved TCP bit', { reserved: 1 }),
  changed('ECE', { flags: ACK | ECE }),
  changed('timestamps', { tcpOptions: timestamps(2) }, { tcpOptions: timestamps(1) }),
  changed('length of the options', { tcpOptions: timestamps(1) }),
  changed('segment length', long),
  changed('datagram length', long, UDP),
  { name: 'identification jumps', each: [{}, { id: 1002 }, {}], becomes: [1, 2] },
  { name: 'identification jumps in UDP', all: UDP, each: [{}, { id: 1002 }, {}], becomes: [1, 2] },
  { name: 'identification stays, under DF', each: [{}, { id: 1000 }, { id: 1000 }], becomes: [1, 1, 1] },
  { name: 'a hole', each: [{}, { sequence: 5101 }, {}], becomes: [1, 2] },
  { name: 'a repetition', each: [{}, { sequence: 5000 }, {}], becomes: [1, 2] },
  { name: 'a shorter one is the last', each: [{}, short, short], becomes: [2, 1] },
  { name: 'a shorter datagram is the last', all: UDP, each: [{}, short, short], becomes: [2, 1] },
  { name: 'PSH is the last', each: [{}, { flags: ACK | PSH }, {}], becomes: [2, 1] },
  { name: 'PSH on the first', each: [{ flags: ACK | PSH }, {}, {}], becomes: [1, 2] },
  alone('FIN', { flags: ACK | FIN }),
  alone('SYN', { flags: ACK | SYN }),
  alone('RST', { flags: ACK | RST }),
  alone('URG', { flags: ACK | URG }),
  alone('CWR', { flags: ACK | CWR }),
  alone('CWR, also when all have it', { flags: ACK | CWR }, { flags: ACK | CWR }),
  alone('a segment without ACK', { flags: 0 }),
  alone('a pure acknowledgement', empty),
  alone('a pure acknowledgement in IPv6', empty, V6),
  alone('an empty datagram', empty, UDP),
  alone('a padded frame', { padding: 5 }),
  alone('a padded datagram', { padding: 5 }, UDP),
  alone('one with IPv4 options', { ipOptions: Uint8Array.of(1, 1, 1, 0) }),
  alone('one with an extension header', { extensions: [frames.optionsHeader(60)] }, V6),
  alone('every one with IPv4 options', {}, { ipOptions: Uint8Array.of(1, 1, 1, 0) }),
  alone('every one with an extension header', {}, { ...V6, extensions: [frames.optionsHeader(60)] }),
  alone('one with an authentication header', { extensions: [frames.authenticationHeader()] }, V6),
  alone('a fragment', { fragment: 0x2000 }),
  alone('a later fragment', { fragment: 3 }, UDP),
  alone('an IPv6 fragment', { extensions: [frames.fragmentHeader(0, true)] }, V6),
];

for (const { name, all = {}, each, becomes } of cases) {
  coalescing(name, () => assert.equal(counts(follow(all, each)), becomes));
}

const others: readonly Partial<Segment>[] = [
  { sourcePort: 40_001 },
  { host: 9 },
  { family: 6 },
  { isTcp: false },
  { tags: frames.VLAN_TAGS },
];

for (const other of others) {
  coalescing(`two flows in turn: ${JSON.stringify(other)}`, () => {
    const one = follow({}, [{}, {}, {}]);
    const two = follow(other, [{}, {}, {}]);
    const mixed = one.flatMap((frame, at) => [frame, two[at]!]);
    const records = coalesceFrames(mixed, ROOM);
    assert.equal(
      records.map((record) => segmentFrame(record)),
      [one, two],
    );
  });
}

coalescing('what is of no flow ends nothing', () => {
  const [a, b] = follow({}, [{}, {}]);
  const ping = frames.ipv4({ protocol: 1, payload: frames.icmp(frames.ENDS_4) });
  for (const frame of [
    frames.ethernet(0x0806, frames.arp()),
    frames.ethernet(0x0800, ping),
    new Uint8Array(3),
  ]) {
    const records = coalesceFrames([a!, frame, b!], ROOM);
    assert.equal(segmentFrame(records[0]!), [a, b]);
    assert.equal(records[1]!.subarray(VNET_HDR_BYTES), frame);
  }
});

coalescing('a frame with a wrong checksum stays as it is, and ends its flow', () => {
  const damaged = [
    [{}, 60],
    [{}, 50],
    [{}, 24],
    [{ family: 6 }, 80],
    [{ isTcp: false }, 60],
    [{ isTcp: false, family: 6 }, 80],
  ] as const;
  for (const [kind, at] of damaged) {
    const run = follow(kind, [{}, {}, {}]);
    run[1]![at]! ^= 1;
    const records = coalesceFrames(run, ROOM);
    assert.equal(
      records.map((record) => text(record.subarray(VNET_HDR_BYTES))),
      run.map(text),
      `${JSON.stringify(kind)}, byte ${at}`,
    );
    assert.ok(records.every((record) => record.subarray(0, VNET_HDR_BYTES).every((byte) => byte === 0)));
  }
});

coalescing('a checksum of zero in both its forms', () => {
  const of = (kind: Partial<Segment>, written: 0 | 0xffff) => {
    const run = follow(kind, [{}, {}, {}]);
    run[1] = withZeroChecksum(run[1]!, written);
    return counts(run);
  };
  assert.equal(of({}, 0), [3]);
  assert.equal(of({}, 0xffff), [1, 1, 1], 'cutting would write 0');
  assert.equal(of(UDP, 0xffff), [3]);
  assert.equal(of(UDP, 0), [1, 1, 1], 'there is no checksum');
});

coalescing('an IPv4 header checksum of 0xffff', () => {
  // One identification in 65,535 makes it zero.
  const zero = Array.from({ length: 65_535 }, (_, id) => id).find(
    (id) => id > 0 && read16(frameOf({ ...SEGMENT, id, payload: new Uint8Array(0) }), 24) === 0,
  );
  // The payload's length is in the header as well.
  const run = follow({ id: zero! - 101, payload: frames.counting(100) }, [{}, {}, {}]);
  assert.is(read16(run[1]!, 24), 0);
  assert.equal(counts(run), [3]);
  run[1]!.set([0xff, 0xff], 24);
  assert.equal(counts(run), [1, 1, 1]);
});

coalescing('no more bytes and segments than there is room for', () => {
  const run = follow(
    {},
    Array.from({ length: 70 }, () => ({})),
  );
  assert.equal(counts(run, { bytesMax: 65_535, segmentsMax: 70 }), [70]);
  assert.equal(counts(run, { bytesMax: 65_535, segmentsMax: 30 }), [30, 30, 10]);
  assert.equal(counts(run, { bytesMax: 54 + 5000, segmentsMax: 70 }), [50, 20]);
  assert.equal(counts(run, { bytesMax: 54 + 4999, segmentsMax: 70 }), [49, 21]);
  const datagrams = follow(
    UDP,
    Array.from({ length: 70 }, () => ({})),
  );
  assert.equal(counts(datagrams, { bytesMax: 65_535, segmentsMax: 70 }), [DATAGRAMS_MAX, 6]);
  const big = follow(
    {},
    Array.from({ length: 10 }, () => ({ payload: frames.counting(16_000) })),
  );
  assert.equal(counts(big), [4, 4, 2]);
});

/** The frames of one flow and those that may belong to any, in order. */
function ofFlow(list: readonly Uint8Array[], key: string | undefined): string[] {
  return list
    .filter((frame) => {
      const flow = findFlow(frame);
      if (key === undefined) return flow === undefined;
      return flow === 'hidden' || (typeof flow === 'object' && flow.key === key);
    })
    .map(text);
}

/** Says where lists differ; undefined when they do not. */
function difference(a: readonly string[], b: readonly string[]): string | undefined {
  const at = Array.from({ length: Math.max(a.length, b.length) }, (_, i) => i).find((i) => a[i] !== b[i]);
  if (at === undefined) return undefined;
  return `at ${at} of ${a.length} and ${b.length}:\n${a[at]?.slice(0, 256)}\n${b[at]?.slice(0, 256)}`;
}

/** What must hold of any frames: nothing is lost, made up or changed, and each flow stays in order. */
function check(input: readonly Uint8Array[], records: readonly Uint8Array[], where: string): void {
  const output = records.flatMap((record) => {
    const cut = segmentFrame(record);
    assert.ok(cut, `${where}: a record that cannot be cut`);
    return cut;
  });
  assert.is(output.length, input.length, where);
  const keys = new Set<string | undefined>([undefined, '']);
  for (const frame of input) {
    const flow = findFlow(frame);
    if (typeof flow === 'object') keys.add(flow.key);
  }
  for (const key of keys) {
    assert.is(difference(ofFlow(output, key), ofFlow(input, key)), undefined, `${where}, flow ${key}`);
  }
  // In the order in which they were begun.
  const firsts = records.map((record) => text(segmentFrame(record)![0]!));
  let at = 0;
  for (const frame of input) if (text(frame) === firsts[at]) at++;
  assert.is(at, firsts.length, `${where}: the order of the records`);
}

/** Neighbours in a flow that could still be joined by themselves. */
function leftApart(records: readonly Uint8Array[]): number {
  const lastOf = new Map<string, Uint8Array[]>();
  let found = 0;
  for (const record of records) {
    const cut = segmentFrame(record)!;
    const flow = findFlow(cut[0]!);
    if (flow === 'hidden') lastOf.clear();
    if (typeof flow !== 'object') continue;
    const before = lastOf.get(flow.key);
    if (before && coalesceFrames([...before, cut[0]!], ROOM).length === 1) found++;
    lastOf.set(flow.key, cut);
  }
  return found;
}

coalescing(`${BURSTS} bursts of ${BURST_FRAMES} frames, seed ${SEED}`, () => {
  const traffic = new FlowTraffic(new Xorshift(SEED));
  let joined = 0;
  let records = 0;
  for (let burst = 0; burst < BURSTS; burst++) {
    const input = traffic.next(BURST_FRAMES);
    const output = coalesceFrames(input, ROOM);
    const where = `burst ${burst} of seed ${SEED}`;
    check(input, output, where);
    assert.is(leftApart(output), 0, where);
    records += output.length;
    joined += input.length - output.length;
  }
  assert.ok(joined > records, `${joined} frames joined to others, ${records} records`);
});

testWith(
  coalescing,
  ['root', '/dev/net/tun'],
  `the kernel cuts the same frames out of them, seed ${SEED}`,
  async () => {
    const kernel = new KernelGso();
    try {
      const traffic = new FlowTraffic(new Xorshift(SEED + 1));
      let asked = 0;
      for (let burst = 0; burst < BURSTS; burst++) {
        for (const record of coalesceFrames(traffic.next(BURST_FRAMES), ROOM)) {
          if (readVnetHeader(record)!.gsoType === 0) continue;
          asked++;
          const [theirs, ours] = [kernel.segment(record)!, segmentFrame(record)!];
          assert.is(
            difference(theirs.map(text), ours.map(text)),
            undefined,
            `burst ${burst} of seed ${SEED}`,
          );
        }
      }
      assert.ok(asked > BURSTS, `${asked} super-frames`);
    } finally {
      await kernel.close();
    }
  },
);

coalescing.run();
