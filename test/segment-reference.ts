/**
 * The slow twin of segmentation makes of every record what the kernel makes of it. SEGMENT_SEED repeats a run, SEGMENT_RECORDS
 * makes it longer.
 */
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { randomBetween } from '../src/sys/random.js';
import { KernelGso } from './harness/kernel-gso.js';
import { testWith } from './harness/needs.js';
import { SuperFrames } from './harness/super-frames.js';
import { Xorshift } from './harness/xorshift.js';
import * as frames from './reference/frames.js';
import { findHeaders, read16, read32, transportHeaderBytes } from './reference/headers.js';
import { segmentFrame } from './reference/segment.js';
import { readVnetHeader, recordOf, VNET_HDR_BYTES, type VnetHeader } from './reference/vnet-hdr.js';

const SEED = Number(process.env.SEGMENT_SEED ?? randomBetween(1, 0x7fffffff));
const RECORDS = Number(process.env.SEGMENT_RECORDS ?? 4000);
const needs = ['root', '/dev/net/tun'];

const segmentation = suite('segmentation');

/** What a record is, for the counts. */
function kindOf(record: Uint8Array): string {
  const { gsoType, csumStart } = readVnetHeader(record)!;
  const frame = record.subarray(VNET_HDR_BYTES);
  const headers = findHeaders(frame);
  if (!headers || headers.transport !== csumStart) return 'other';
  const tags = (headers.ip - 14) / 4;
  const transport = headers.protocol === frames.IPPROTO_TCP ? 'tcp' : 'udp';
  const parts = [gsoType === 0 ? 'plain' : 'super', `${transport}${headers.family}`, `${tags} tags`];
  return [...parts, headers.hasMore ? 'with options' : 'without'].join(' ');
}

/**
 * The kernel loses TCP super-frames whose payload fits one segment, but not with the TCP options: it takes options for payload
 * when it looks whether there is something to cut, and then finds nothing. No kernel sends those.
 */
function isLost(record: Uint8Array): boolean {
  const { gsoType, gsoSize } = readVnetHeader(record)!;
  const frame = record.subarray(VNET_HDR_BYTES);
  const headers = findHeaders(frame);
  if (gsoType === 0 || headers?.protocol !== frames.IPPROTO_TCP) return false;
  const payloadBytes = frame.length - headers.transport - transportHeaderBytes(frame, headers)!;
  return payloadBytes <= gsoSize && frame.length - headers.transport - 20 > gsoSize;
}

/** Says where lists of frames differ; undefined when they do not. */
function difference(ours: readonly Uint8Array[], theirs: readonly Uint8Array[]): string | undefined {
  const hex = (frame: Uint8Array | undefined) => frame && Buffer.from(frame.subarray(0, 128)).toString('hex');
  for (let at = 0; at < Math.max(ours.length, theirs.length); at++) {
    const [a, b] = [ours[at], theirs[at]];
    if (a && b && Buffer.compare(a, b) === 0) continue;
    const lengths = `${a?.length} and ${b?.length} bytes`;
    return `frame ${at} of ${ours.length} and ${theirs.length}, ${lengths}:\n${hex(a)}\n${hex(b)}`;
  }
  return undefined;
}

const TCP_FRAME = frames.ethernet(
  frames.ETHERTYPE_IPV4,
  frames.ipv4({
    protocol: frames.IPPROTO_TCP,
    id: 0xffff,
    payload: frames.tcp({
      ends: frames.ENDS_4,
      payload: frames.counting(250),
      flags: 0x99,
      sequence: 0xffffffff,
      checksum: 'partial',
    }),
  }),
);
const TCP_HEADER = { flags: 1, gsoType: 1, headerBytes: 54, gsoSize: 100, csumStart: 34, csumOffset: 16 };

segmentation('a super-frame by hand: lengths, identification, sequence, FIN, PSH and CWR', () => {
  const segments = segmentFrame(recordOf(TCP_HEADER, TCP_FRAME))!;
  const seen = segments.map((frame) => ({
    bytes: frame.length,
    total: read16(frame, 16),
    id: read16(frame, 18),
    sequence: read32(frame, 38),
    flags: frame[47],
  }));
  assert.equal(seen, [
    { bytes: 154, total: 140, id: 0xffff, sequence: 0xffffffff, flags: 0x90 },
    { bytes: 154, total: 140, id: 0, sequence: 99, flags: 0x10 },
    { bytes: 104, total: 90, id: 1, sequence: 199, flags: 0x19 },
  ]);
  for (const frame of segments) {
    const pseudo = frames.pseudoHeader(frame.subarray(26, 30), frame.subarray(30, 34), 6, frame.length - 34);
    assert.is(frames.onesComplementSum(frames.concat(pseudo, frame.subarray(34))), 0xffff);
    assert.is(frames.onesComplementSum(frame.subarray(14, 34)), 0xffff);
  }
});

segmentation('a frame of which nothing is asked stays as it is', () => {
  assert.equal(segmentFrame(recordOf({}, TCP_FRAME)), [TCP_FRAME]);
  assert.equal(segmentFrame(recordOf({ flags: 2 }, TCP_FRAME)), [TCP_FRAME]);
});

const wrongHeaders: readonly Partial<VnetHeader>[] = [
  { flags: 0 },
  { flags: 5 },
  { gsoType: 3 },
  { gsoType: 4 },
  { gsoType: 5 },
  { gsoType: 0x80 },
  { gsoSize: 0 },
  { headerBytes: 305 },
  { csumStart: 0 },
  { csumStart: 30 },
  { csumStart: 38 },
  { csumStart: 65_535 },
  { csumOffset: 6 },
  { csumOffset: 65_535 },
];

for (const wrong of wrongHeaders) {
  segmentation(`malformed: ${JSON.stringify(wrong)}`, () => {
    assert.is(segmentFrame(recordOf({ ...TCP_HEADER, ...wrong }, TCP_FRAME)), undefined);
  });
}

const wrongBytes: readonly (readonly [what: string, at: number, byte: number])[] = [
  ['another EtherType', 13, 1],
  ['IP version', 14, 0x65],
  ['IP header too short', 14, 0x44],
  ['IP header up to somewhere else', 14, 0x46],
  ['IP length', 17, 1],
  ['a fragment', 20, 0x20],
  ['UDP', 23, 17],
  ['TCP header too short', 46, 0x40],
];

for (const [what, at, byte] of wrongBytes) {
  segmentation(`malformed: ${what}`, () => {
    const frame = TCP_FRAME.slice();
    frame[at] = byte;
    assert.is(segmentFrame(recordOf(TCP_HEADER, frame)), undefined);
  });
}

segmentation('malformed: cut off anywhere', () => {
  const record = recordOf(TCP_HEADER, TCP_FRAME);
  for (let bytes = 0; bytes < record.length; bytes++) {
    assert.is(segmentFrame(record.subarray(0, bytes)), undefined, `${bytes} bytes`);
  }
});

testWith(segmentation, needs, `${RECORDS} records as the kernel cuts them, seed ${SEED}`, async () => {
  const kernel = new KernelGso();
  try {
    const generator = new SuperFrames(new Xorshift(SEED));
    const kinds = new Map<string, number>();
    let segments = 0;
    let zeros = 0;
    let lost = 0;
    for (let number = 0; number < RECORDS; number++) {
      const record = generator.next();
      const where = `record ${number} of seed ${SEED}, ${Buffer.from(record.subarray(0, 128)).toString('hex')}`;
      const ours = segmentFrame(record);
      const theirs = kernel.segment(record);
      assert.ok(ours && theirs, `${where} is in order`);
      if (isLost(record)) {
        lost++;
        assert.equal([ours.length, theirs.length], [1, 0], where);
        continue;
      }
      assert.is(difference(ours, theirs), undefined, where);
      kinds.set(kindOf(record), (kinds.get(kindOf(record)) ?? 0) + 1);
      const { csumStart, csumOffset } = readVnetHeader(record)!;
      if ([0, 0xffff].includes(read16(ours[0]!, csumStart + csumOffset))) zeros++;
      segments += ours.length;
    }
    // 2 of plain or super, 4 of protocol, 8 of tags, 2 of options, and `other`.
    assert.is(kinds.size, 129, [...kinds.keys()].sort().join('\n'));
    assert.ok(zeros > RECORDS / 20, `${zeros} checksums of zero`);
    assert.ok(lost < RECORDS / 20, `${lost} lost by the kernel`);
    assert.ok(segments > RECORDS * 10, `${segments} segments`);
  } finally {
    await kernel.close();
  }
});

testWith(
  segmentation,
  needs,
  `${RECORDS} spoiled records: what is not refused is as the kernel cuts it, seed ${SEED}`,
  async () => {
    const kernel = new KernelGso();
    try {
      const generator = new SuperFrames(new Xorshift(SEED + 1));
      const refused = new Map<string, number>();
      for (let number = 0; number < RECORDS; number++) {
        const { what, record } = generator.malformed();
        const where = `record ${number} of seed ${SEED}, ${what}, ${Buffer.from(record.subarray(0, 128)).toString('hex')}`;
        const ours = segmentFrame(record);
        if (!ours) {
          refused.set(what, (refused.get(what) ?? 0) + 1);
          continue;
        }
        // The kernel reads more of a header that asks nothing.
        const { flags, gsoSize } = readVnetHeader(record)!;
        // A segment size of 65,535, which nothing needs, is a sign of its own in the kernel.
        if (flags % 2 === 0 || gsoSize === 0xffff || isLost(record)) continue;
        const theirs = kernel.segment(record);
        assert.ok(theirs, `the kernel refuses ${where}`);
        assert.is(difference(ours, theirs), undefined, where);
      }
      assert.ok(refused.size > 12, [...refused.keys()].join(', '));
    } finally {
      await kernel.close();
    }
  },
);

segmentation.run();
