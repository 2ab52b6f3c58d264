/**
 * Receive coalescing, slow and obvious: frames of a flow that follow one another become one super-frame, as Linux joins them
 * (generic receive offload) and as RFC 9293 and RFC 768 allow. One sentence decides every case: cutting a super-frame again
 * (`segmentFrame`) must give back the frames it was made of, byte for byte.
 *
 *   frame ─► which flow?  none: alone │ not to be seen: every super-frame ends, alone │ one:
 *              may it be a part?  (PART_RULES)      no:  the flow's super-frame ends, alone
 *              does it continue?  (NEXT_RULES)      no:  the flow's super-frame ends, it begins another
 *              is it the last?    (LAST_RULES)      yes: the super-frame ends with it
 *
 * Records come out in the order in which they were begun: frames of a flow stay in order, those of others may move.
 */

import { findFlow } from './flow.js';
import { bigEndian, concat, IPPROTO_TCP, IPPROTO_UDP, onesComplementSum, pseudoHeader } from './frames.js';
import { findHeaders, type Headers, read16, read32, transportHeaderBytes } from './headers.js';
import { GSO_TCPV4, GSO_TCPV6, GSO_UDP_L4, NEEDS_CSUM, recordOf } from './vnet-hdr.js';

export interface CoalesceOptions {
  /** Most bytes of a super-frame from its Ethernet header on; at most 65,535. */
  readonly bytesMax: number;
  /** Most segments of a super-frame; of UDP never more than DATAGRAMS_MAX. */
  readonly segmentsMax: number;
}

/** The most that a kernel before Linux 6.9 takes of UDP. */
export const DATAGRAMS_MAX = 64;

const ACK = 0x10;
const PSH = 0x08;
const ECE = 0x40;
const IPV6_BYTES = 40;

/** A frame of TCP or UDP that fills its packet, taken apart. */
export interface Part {
  readonly frame: Uint8Array;
  readonly headers: Headers;
  readonly isTcp: boolean;
  /** Where the payload begins. */
  readonly payload: number;
  readonly payloadBytes: number;
  /** TCP flags; 0 of UDP. */
  readonly flags: number;
}

/** A super-frame that is being made. */
export interface Open {
  readonly options: CoalesceOptions;
  readonly parts: readonly [Part, ...Part[]];
  /** Of all parts. */
  readonly payloadBytes: number;
}

export interface Rule<Subject> {
  readonly rule: string;
  readonly why: string;
  readonly holds: (subject: Subject) => boolean;
}

/** What a frame must be to be a part of a super-frame. */
export const PART_RULES: readonly Rule<Part>[] = [
  {
    rule: 'no IPv4 options, no IPv6 extension headers',
    why: 'some mean one packet (router alert, timestamp), and they are too rare to tell apart',
    holds: ({ headers }) => !headers.hasMore,
  },
  {
    rule: 'IPv4 header checksum as cutting would write it: right, and not 0xffff',
    why: 'cutting makes it anew: a wrong one would be put right, and 0xffff, which is right too, would become 0',
    holds: ({ frame, headers: { family, ip } }) =>
      family === 6 || read16(frame, ip + 10) === ipv4Checksum(frame, ip),
  },
  {
    rule: 'transport checksum as cutting would write it: right; of TCP not 0xffff, of UDP not 0',
    why: 'the receiver takes the checksum of a super-frame on trust; UDP without one cannot say so in a super-frame',
    holds: (part) => read16(part.frame, checksumAt(part)) === transportChecksum(part),
  },
  {
    rule: 'a payload',
    why: 'every pure acknowledgement counts (RFC 5681), and a super-frame cannot have empty segments',
    holds: ({ payloadBytes }) => payloadBytes > 0,
  },
  {
    rule: 'of TCP: ACK, perhaps PSH and ECE, and no other flag',
    why: 'SYN, FIN, RST and URG are events of one segment; CWR stays on the first segment alone when cut, so it goes alone',
    holds: ({ isTcp, flags }) => !isTcp || (flags & ~(PSH | ECE)) === ACK,
  },
];

/** What a part must be to continue a super-frame of its flow. */
export const NEXT_RULES: readonly Rule<{ readonly open: Open; readonly next: Part }>[] = [
  {
    rule: 'same TOS, TTL, DF and reserved bit; same traffic class, flow label and hop limit',
    why: 'one header stands for all; a congestion mark (RFC 3168) must neither spread nor vanish',
    holds: ({ open, next }) => isSame(sharedIp(open.parts[0]), sharedIp(next)),
  },
  {
    rule: 'IPv4 identification one more than the last, DF or not',
    why: 'so the kernel numbers what it cuts; one that stays the same under DF (RFC 6864) would not come back',
    holds: ({ open, next }) =>
      next.headers.family === 6 || identification(next) === (identification(lastOf(open)) + 1) % 2 ** 16,
  },
  {
    rule: 'TCP sequence number right behind the last',
    why: 'a hole, a repetition or another order is news for the receiver',
    holds: ({ open, next }) =>
      !next.isTcp || sequence(next) === (sequence(open.parts[0]) + open.payloadBytes) % 2 ** 32,
  },
  {
    rule: 'same TCP acknowledgement, window, urgent pointer, reserved bits and ECE',
    why: 'one header stands for all, and what has changed is news for the receiver',
    holds: ({ open, next }) => !next.isTcp || isSame(sharedTcp(open.parts[0]), sharedTcp(next)),
  },
  {
    rule: 'same TCP options, byte for byte',
    why: 'one header stands for all; another timestamp is a measurement of its own, and SACK blocks are news',
    holds: ({ open, next }) => !next.isTcp || isSame(tcpOptions(open.parts[0]), tcpOptions(next)),
  },
  {
    rule: 'no longer than the first',
    why: 'segments are cut to one size, and only the last is shorter',
    holds: ({ open, next }) => next.payloadBytes <= open.parts[0].payloadBytes,
  },
  {
    rule: 'room for its bytes and for one segment more',
    why: 'length fields have 16 bits, and kernels take no more at once',
    holds: ({ open, next }) => {
      const { bytesMax, segmentsMax } = open.options;
      const countMax = next.isTcp ? segmentsMax : Math.min(segmentsMax, DATAGRAMS_MAX);
      const bytes = open.parts[0].payload + open.payloadBytes + next.payloadBytes;
      return open.parts.length < countMax && bytes <= bytesMax;
    },
  },
];

/** What ends a super-frame with the part that was added last. */
export const LAST_RULES: readonly Rule<Open>[] = [
  {
    rule: 'PSH',
    why: 'the sender wants it delivered, and cutting puts PSH on the last segment alone',
    holds: (open) => (lastOf(open).flags & PSH) !== 0,
  },
  {
    rule: 'shorter than the first',
    why: 'only the last may be',
    holds: (open) => lastOf(open).payloadBytes < open.parts[0].payloadBytes,
  },
];

/** Records, with virtio_net_hdr, of what frames become. One that stays alone is as it was, behind a header of zeros. */
export function coalesceFrames(frames: readonly Uint8Array[], options: CoalesceOptions): Uint8Array[] {
  const begun: (Uint8Array | Open)[] = [];
  /** Where in `begun` the super-frames are that may continue, by flow. */
  const places = new Map<string, number>();
  for (const frame of frames) {
    const flow = findFlow(frame);
    if (flow === 'hidden') places.clear();
    const key = typeof flow === 'object' ? flow.key : undefined;
    const part = key === undefined ? undefined : partOf(frame);
    if (key === undefined || !part) {
      places.delete(key ?? '');
      begun.push(frame);
      continue;
    }
    const place = places.get(key);
    const continued = place === undefined ? undefined : continuedBy(begun[place] as Open, part);
    const at = continued ? place! : begun.length;
    const open = continued ?? { options, parts: [part], payloadBytes: part.payloadBytes };
    begun[at] = open;
    places.set(key, at);
    if (LAST_RULES.some(({ holds }) => holds(open))) places.delete(key);
  }
  return begun.map((each) => (each instanceof Uint8Array ? recordOf({}, each) : joined(each)));
}

/** The super-frame with one part more; undefined when it cannot be. */
function continuedBy(open: Open, next: Part): Open | undefined {
  if (!NEXT_RULES.every(({ holds }) => holds({ open, next }))) return undefined;
  return { ...open, parts: [...open.parts, next], payloadBytes: open.payloadBytes + next.payloadBytes };
}

/**
 * Undefined for what is no part of a super-frame: when a rule says so, when its lengths do not fit together, or when there is
 * anything behind the packet (Ethernet padding): cutting would not give that back.
 */
function partOf(frame: Uint8Array): Part | undefined {
  const headers = findHeaders(frame);
  if (!headers) return undefined;
  const isTcp = headers.protocol === IPPROTO_TCP;
  if (!isTcp && headers.protocol !== IPPROTO_UDP) return undefined;
  const bytes = transportHeaderBytes(frame, headers);
  if (bytes === undefined) return undefined;
  const payload = headers.transport + bytes;
  const flags = isTcp ? frame[headers.transport + 13]! : 0;
  const part = { frame, headers, isTcp, payload, payloadBytes: frame.length - payload, flags };
  return PART_RULES.every(({ holds }) => holds(part)) ? part : undefined;
}

/** The record of a super-frame that is done, with its checksum left unfinished. */
function joined({ parts }: Open): Uint8Array {
  const [first] = parts;
  if (parts.length === 1) return recordOf({}, first.frame);
  const { headers, isTcp, payload } = first;
  const { family, ip, transport, protocol } = headers;
  const frame = concat(
    first.frame.subarray(0, payload),
    ...parts.map((part) => part.frame.subarray(part.payload)),
  );
  if (isTcp) frame[transport + 13]! |= parts[parts.length - 1]!.flags & PSH;
  else frame.set(bigEndian(frame.length - transport, 2), transport + 4);
  if (family === 4) {
    frame.set(bigEndian(frame.length - ip, 2), ip + 2);
    frame.set(bigEndian(ipv4Checksum(frame, ip), 2), ip + 10);
  } else {
    frame.set(bigEndian(frame.length - ip - IPV6_BYTES, 2), ip + 4);
  }
  const pseudo = pseudoHeader(...addresses(first), protocol, frame.length - transport);
  frame.set(bigEndian(onesComplementSum(pseudo), 2), checksumAt(first));
  const tcpType = family === 4 ? GSO_TCPV4 : GSO_TCPV6;
  const header = {
    flags: NEEDS_CSUM,
    gsoType: isTcp ? tcpType : GSO_UDP_L4,
    headerBytes: payload,
    gsoSize: first.payloadBytes,
    csumStart: transport,
    csumOffset: checksumAt(first) - transport,
  };
  return recordOf(header, frame);
}

/** What the field should hold. */
function ipv4Checksum(frame: Uint8Array, ip: number): number {
  const header = frame.slice(ip, ip + (frame[ip]! % 16) * 4);
  header.set([0, 0], 10);
  return 0xffff - onesComplementSum(header);
}

/** What the field should hold. Zero is written as 0xffff in UDP, where it would say that there is none. */
function transportChecksum(part: Part): number {
  const { frame, headers, isTcp } = part;
  const segment = frame.slice(headers.transport);
  segment.set([0, 0], checksumAt(part) - headers.transport);
  const pseudo = pseudoHeader(...addresses(part), headers.protocol, segment.length);
  const sum = 0xffff - onesComplementSum(concat(pseudo, segment));
  return isTcp ? sum : sum || 0xffff;
}

function checksumAt({ headers, isTcp }: Part): number {
  return headers.transport + (isTcp ? 16 : 6);
}

function addresses(part: Part): [source: Uint8Array, destination: Uint8Array] {
  return part.headers.family === 4
    ? [ipField(part, 12, 16), ipField(part, 16, 20)]
    : [ipField(part, 8, 24), ipField(part, 24, 40)];
}

function ipField({ frame, headers: { ip } }: Part, from: number, to: number): Uint8Array {
  return frame.subarray(ip + from, ip + to);
}

function tcpField({ frame, headers: { transport } }: Part, from: number, to: number): Uint8Array {
  return frame.subarray(transport + from, transport + to);
}

/** What one IP header says for all segments, but for lengths, identification and checksum. */
function sharedIp(part: Part): Uint8Array {
  return part.headers.family === 4
    ? concat(ipField(part, 1, 2), ipField(part, 6, 10))
    : concat(ipField(part, 0, 4), ipField(part, 6, 8));
}

/** Acknowledgement, data offset with the reserved bits, ECE, window, urgent pointer. */
function sharedTcp(part: Part): Uint8Array {
  const ece = Uint8Array.of(part.flags & ECE);
  return concat(tcpField(part, 8, 13), ece, tcpField(part, 14, 16), tcpField(part, 18, 20));
}

function tcpOptions(part: Part): Uint8Array {
  return part.frame.subarray(part.headers.transport + 20, part.payload);
}

function identification(part: Part): number {
  return read16(part.frame, part.headers.ip + 4);
}

function sequence(part: Part): number {
  return read32(part.frame, part.headers.transport + 4);
}

function lastOf(open: Open): Part {
  return open.parts[open.parts.length - 1]!;
}

function isSame(a: Uint8Array, b: Uint8Array): boolean {
  return Buffer.compare(a, b) === 0;
}
