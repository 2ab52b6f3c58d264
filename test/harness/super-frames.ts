/**
 * Random records as a guest's kernel hands them to a TAP: TCP and UDP super-frames and frames with an unfinished checksum
 * alone, with every header that may lie in front; and the same with one thing wrong with them. All from one seed.
 */
import {
  bigEndian,
  concat,
  type Ends,
  ETHERTYPE_IPV4,
  ETHERTYPE_IPV6,
  ETHERTYPE_SERVICE_VLAN,
  ETHERTYPE_VLAN,
  type Extension,
  ethernet,
  IPPROTO_TCP,
  IPPROTO_UDP,
  ipv6,
  onesComplementSum,
  pseudoHeader,
} from '../reference/frames.js';
import { findHeaders, read16, transportHeaderBytes } from '../reference/headers.js';
import { segmentFrame } from '../reference/segment.js';
import {
  GSO_ECN,
  GSO_TCPV4,
  GSO_TCPV6,
  GSO_UDP_L4,
  NEEDS_CSUM,
  readVnetHeader,
  recordOf,
  VNET_HDR_BYTES,
  type VnetHeader,
} from '../reference/vnet-hdr.js';
import type { Xorshift } from './xorshift.js';

/** gso_max_size of a link, which Linux leaves at 65,536 and stays below. */
const FRAME_BYTES_MAX = 65_535;
/** More would take a test its time; some records have them nevertheless. */
const SEGMENTS_USUAL = 200;
const DATAGRAMS_MAX = 128;
const CWR = 0x80;
/** Segment sizes of MTUs that are met: 576, 1280, 1500, 1450, 9000, with and without timestamps. */
const USUAL_SIZES = [536, 1208, 1220, 1398, 1428, 1440, 1448, 1460, 8948];

export class SuperFrames {
  constructor(readonly random: Xorshift) {}

  /** A record that is in order: mostly a super-frame, else a frame with an unfinished checksum. */
  next(): Uint8Array {
    const { random } = this;
    const record = random.below(5) === 0 ? this.plain() : this.superFrame();
    return random.below(8) === 0 ? withZeroChecksum(record) : record;
  }

  /** A TCP or UDP super-frame. Now and then its payload fits one segment. */
  superFrame(): Uint8Array {
    const { random } = this;
    const family = random.below(2) === 0 ? 4 : 6;
    const isTcp = random.below(3) > 0;
    const transport = this.#transportHeader(isTcp);
    const { payloadBytes, gsoSize } = this.#sizes(isTcp);
    const { frame, csumStart } = this.#frame(family, isTcp, transport, payloadBytes);
    const hasCwr = isTcp && transport[13]! >= CWR;
    const tcpType = (family === 4 ? GSO_TCPV4 : GSO_TCPV6) + (hasCwr ? GSO_ECN : 0);
    const headerBytes = csumStart + transport.length;
    return recordOf(
      {
        flags: NEEDS_CSUM,
        gsoType: isTcp ? tcpType : GSO_UDP_L4,
        // A hint, which some leave out.
        headerBytes: random.below(8) === 0 ? random.below(frame.length + 1) : headerBytes,
        gsoSize,
        csumStart,
        csumOffset: isTcp ? 16 : 6,
      },
      frame,
    );
  }

  /** A frame that is not to be cut: TCP or UDP, or something the kernel knows and we do not. */
  plain(): Uint8Array {
    const { random } = this;
    const family = random.below(2) === 0 ? 4 : 6;
    const isTcp = random.below(2) === 0;
    const payloadBytes = random.below(random.below(8) === 0 ? 60_000 : 1500);
    const { frame, csumStart } = this.#frame(family, isTcp, this.#transportHeader(isTcp), payloadBytes);
    if (random.below(8) > 0) {
      return recordOf({ flags: NEEDS_CSUM, csumStart, csumOffset: isTcp ? 16 : 6 }, frame);
    }
    // As of an inner header of the guest's own tunnel: anywhere behind the IP header.
    const start = csumStart + random.below(frame.length - csumStart - 1);
    const csumOffset = random.below(Math.min(64, frame.length - start - 1));
    return recordOf({ flags: NEEDS_CSUM, csumStart: start, csumOffset }, frame);
  }

  /** A record with one thing wrong, and what that is. It may be in order by chance. */
  malformed(): { readonly what: string; readonly record: Uint8Array } {
    const { random } = this;
    const record = this.next();
    const [what, spoil] = faults[random.below(faults.length)]!;
    return { what, record: spoil(record, random) };
  }

  #sizes(isTcp: boolean): { payloadBytes: number; gsoSize: number } {
    const { random } = this;
    const kind = random.below(8);
    let gsoSize = USUAL_SIZES[random.below(USUAL_SIZES.length)]!;
    if (kind === 0) gsoSize = 1 + random.below(16);
    if (kind === 1) gsoSize = 1 + random.below(2000);
    if (kind === 2) gsoSize = 1 + random.below(65_000);
    const countMax =
      isTcp && random.below(64) === 0 ? FRAME_BYTES_MAX : isTcp ? SEGMENTS_USUAL : DATAGRAMS_MAX;
    const most = Math.min(65_000, gsoSize * countMax);
    let payloadBytes = 1 + random.below(random.below(2) === 0 ? most : Math.min(most, gsoSize * 8));
    // Whole segments, and one byte more or less.
    if (random.below(4) === 0) payloadBytes += random.below(3) - 1 - (payloadBytes % gsoSize);
    return { payloadBytes: Math.min(most, Math.max(1, payloadBytes)), gsoSize };
  }

  /** Without length and checksum. */
  #transportHeader(isTcp: boolean): Uint8Array {
    const { random } = this;
    const ports = this.#bytes(4);
    if (!isTcp) return concat(ports, new Uint8Array(4));
    const options = this.#tcpOptions();
    const flags = [0x10, 0x18, 0x11, 0x19, 0x98, 0xd8, random.below(256)][random.below(7)]!;
    // The four bits beside the data offset are reserved, but for the lowest (RFC 9768).
    const reserved = random.below(8) === 0 ? random.below(16) : 0;
    const sequence = random.below(4) === 0 ? 0xffffffff - random.below(60_000) : random.next();
    return concat(
      ports,
      bigEndian(sequence, 4),
      this.#bytes(4),
      Uint8Array.of((5 + options.length / 4) * 16 + reserved, flags),
      this.#bytes(2),
      new Uint8Array(2),
      random.below(8) === 0 ? this.#bytes(2) : new Uint8Array(2),
      options,
    );
  }

  /** None, timestamps (RFC 7323), timestamps and SACK (RFC 2018), or anything of that form. */
  #tcpOptions(): Uint8Array {
    const { random } = this;
    const timestamps = concat(Uint8Array.of(1, 1, 8, 10), this.#bytes(8));
    const kind = random.below(8);
    if (kind < 3) return new Uint8Array(0);
    if (kind < 6) return timestamps;
    if (kind === 6) {
      const blocks = 1 + random.below(3);
      return concat(timestamps, Uint8Array.of(1, 1, 5, 2 + 8 * blocks), this.#bytes(8 * blocks));
    }
    const units = 1 + random.below(10);
    return concat(Uint8Array.of(253, units * 4), this.#bytes(units * 4 - 2));
  }

  /** A frame whose transport checksum holds the sum of the pseudo-header. Cuts the payload where it is too long. */
  #frame(
    family: 4 | 6,
    isTcp: boolean,
    transportHeader: Uint8Array,
    payloadBytes: number,
  ): { frame: Uint8Array; csumStart: number } {
    const { random } = this;
    const protocol = isTcp ? IPPROTO_TCP : IPPROTO_UDP;
    const addressBytes = family === 4 ? 4 : 16;
    const ends = { source: this.#bytes(addressBytes), destination: this.#bytes(addressBytes) };
    const tags = Array.from({ length: Math.max(0, random.below(9) - 1) }, () => ({
      type: random.below(2) === 0 ? ETHERTYPE_VLAN : ETHERTYPE_SERVICE_VLAN,
      control: random.below(65_536),
    }));
    const options = random.below(3) === 0 ? this.#bytes(4 * random.below(11)) : new Uint8Array(0);
    const extensions = family === 6 && random.below(3) === 0 ? this.#extensions() : [];
    const before = 14 + 4 * tags.length + (family === 4 ? 20 + options.length : 40 + chainBytes(extensions));
    const most = FRAME_BYTES_MAX - before - transportHeader.length;
    const segment = concat(transportHeader, this.#bytes(Math.min(payloadBytes, most)));
    if (!isTcp) segment.set(bigEndian(segment.length, 2), 4);
    const pseudo = pseudoHeader(ends.source, ends.destination, protocol, segment.length);
    segment.set(bigEndian(onesComplementSum(pseudo), 2), isTcp ? 16 : 6);
    const packet =
      family === 4
        ? this.#ipv4(ends, protocol, options, segment)
        : this.#ipv6(ends, protocol, extensions, segment);
    const type = family === 4 ? ETHERTYPE_IPV4 : ETHERTYPE_IPV6;
    // Sources and destinations never meet, or a bridge would learn where those are.
    const source = concat(Uint8Array.of(2, 0x5c), this.#bytes(4));
    const destination = concat(Uint8Array.of(2, 0xde), this.#bytes(4));
    return { frame: ethernet(type, packet, { source, destination, tags }), csumStart: before };
  }

  #ipv4(ends: Ends, protocol: number, options: Uint8Array, payload: Uint8Array): Uint8Array {
    const { random } = this;
    const headerBytes = 20 + options.length;
    const id = random.below(4) === 0 ? 0xffff - random.below(40) : random.below(65_536);
    const header = concat(
      Uint8Array.of(0x40 + headerBytes / 4, random.below(256)),
      bigEndian(headerBytes + payload.length, 2),
      bigEndian(id, 2),
      // DF mostly; now and then the reserved bit.
      bigEndian([0x4000, 0x4000, 0, 0xc000][random.below(4)]!, 2),
      Uint8Array.of(1 + random.below(255), protocol, 0, 0),
      ends.source,
      ends.destination,
      options,
    );
    header.set(bigEndian(0xffff - onesComplementSum(header), 2), 10);
    return concat(header, payload);
  }

  #ipv6(ends: Ends, protocol: number, extensions: readonly Extension[], payload: Uint8Array): Uint8Array {
    const { random } = this;
    const packet = ipv6({ ends, protocol, extensions, payload });
    // Traffic class, flow label and hop limit.
    packet.set(bigEndian(0x60000000 + random.below(0x10000000), 4));
    packet[7] = 1 + random.below(255);
    return packet;
  }

  /** Hop-by-hop options first, as they must be; then routing and destination options. */
  #extensions(): Extension[] {
    const { random } = this;
    const types = [0, 43, 60].filter(() => random.below(2) === 0);
    if (random.below(4) === 0) types.push(60);
    return types.map((type) => {
      const units = random.below(4) === 0 ? random.below(6) : 0;
      return { type, rest: concat(Uint8Array.of(units), this.#bytes(6 + 8 * units)) };
    });
  }

  #bytes(count: number): Uint8Array {
    const words = Uint32Array.from({ length: Math.ceil(count / 4) }, () => this.random.next());
    return new Uint8Array(words.buffer).slice(0, count);
  }
}

function chainBytes(extensions: readonly Extension[]): number {
  return extensions.reduce((sum, { rest }) => sum + 1 + rest.length, 0);
}

/** The same with a payload that makes the first checksum zero, which is written in two ways. */
function withZeroChecksum(record: Uint8Array): Uint8Array {
  const header = readVnetHeader(record);
  const [first] = segmentFrame(record) ?? [];
  const headers = first && findHeaders(first);
  const bytes = headers && transportHeaderBytes(first, headers);
  if (!header || !headers || bytes === undefined || headers.transport !== header.csumStart) return record;
  const at = headers.transport + bytes;
  if (first.length < at + 2) return record;
  const checksum = first.subarray(header.csumStart + header.csumOffset).subarray(0, 2);
  const spoiled = record.slice();
  // What is missing to a sum of all ones.
  spoiled.set(
    bigEndian(onesComplementSum(concat(checksum, first.subarray(at, at + 2))), 2),
    VNET_HDR_BYTES + at,
  );
  return spoiled;
}

type Fault = readonly [what: string, spoil: (record: Uint8Array, random: Xorshift) => Uint8Array];

/** Everything that a reader must check, each wrong by itself. */
const faults: readonly Fault[] = [
  ['cut off', (record, random) => record.slice(0, random.below(record.length))],
  ['cut off in the headers', (record, random) => record.slice(0, random.below(Math.min(record.length, 120)))],
  ['bytes behind the packet', (record, random) => concat(record, new Uint8Array(1 + random.below(64)))],
  headerFault('flags', (random) => random.below(256)),
  headerFault(
    'gsoType',
    (random) => [0, 1, 3, 4, 5, 0x80, 0x81, 0x84, 0x85, random.below(256)][random.below(10)]!,
  ),
  headerFault('headerBytes', (random) => random.below(65_536)),
  headerFault('gsoSize', (random) => [0, 0, 1, 65_535, random.below(65_536)][random.below(5)]!),
  headerFault('csumStart', (random, before) => offBy(random, before)),
  headerFault('csumOffset', (random, before) => offBy(random, before)),
  ['EtherType', (record, random) => withByte(record, VNET_HDR_BYTES + 12 + random.below(2), random)],
  ipFault('version and header length', 0),
  ipFault('IP length, high', 2, 4),
  ipFault('IP length, low', 3, 5),
  ipFault('fragment', 6, 6),
  ipFault('protocol', 9, 6),
  ['extension header', (record, random) => withByte(record, ipOf(record) + 40 + random.below(2), random)],
  ['data offset', (record, random) => withByte(record, transportOf(record) + 12, random)],
  ['UDP length', (record, random) => withByte(record, transportOf(record) + 4 + random.below(2), random)],
  [
    'checksum',
    (record, random) => {
      const { csumStart, csumOffset } = readVnetHeader(record)!;
      return withByte(record, VNET_HDR_BYTES + csumStart + csumOffset + random.below(2), random);
    },
  ],
];

function headerFault(field: keyof VnetHeader, value: (random: Xorshift, before: number) => number): Fault {
  return [
    field,
    (record, random) => {
      const header = readVnetHeader(record)!;
      const wrong = value(random, header[field]) & 0xffff;
      return recordOf({ ...header, [field]: wrong }, record.subarray(VNET_HDR_BYTES));
    },
  ];
}

/** One byte of the IP header, which lies elsewhere in IPv6. */
function ipFault(what: string, offset4: number, offset6 = offset4): Fault {
  return [
    what,
    (record, random) => {
      const ip = ipOf(record);
      return withByte(record, ip + (record[ip]! >= 0x60 ? offset6 : offset4), random);
    },
  ];
}

function offBy(random: Xorshift, before: number): number {
  return [before + 1, before - 1, before + 4, before - 4, 0, random.below(65_536)][random.below(6)]!;
}

function withByte(record: Uint8Array, at: number, random: Xorshift): Uint8Array {
  const spoiled = record.slice();
  if (at < spoiled.length) spoiled[at] = random.below(256);
  return spoiled;
}

/** Offset in a record that is in order. */
function ipOf(record: Uint8Array): number {
  let at = VNET_HDR_BYTES + 14;
  while ([ETHERTYPE_VLAN, ETHERTYPE_SERVICE_VLAN].includes(read16(record, at - 2))) at += 4;
  return at;
}

function transportOf(record: Uint8Array): number {
  return VNET_HDR_BYTES + readVnetHeader(record)!.csumStart;
}
