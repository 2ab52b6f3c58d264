/** Frames of TCP and UDP flows, every field of which can be said, with right checksums. */
import {
  bigEndian,
  concat,
  counting,
  ENDS_4,
  ENDS_6,
  ETHERTYPE_IPV4,
  ETHERTYPE_IPV6,
  type EthernetOptions,
  type Extension,
  ethernet,
  IPPROTO_TCP,
  IPPROTO_UDP,
  ipv6,
  onesComplementSum,
  pseudoHeader,
} from '../reference/frames.js';

export const FIN = 0x01;
export const SYN = 0x02;
export const RST = 0x04;
export const PSH = 0x08;
export const ACK = 0x10;
export const URG = 0x20;
export const ECE = 0x40;
export const CWR = 0x80;

export interface Segment {
  readonly family: 4 | 6;
  readonly isTcp: boolean;
  readonly tags: NonNullable<EthernetOptions['tags']>;
  /** Last byte of the source's Ethernet address and IP address. */
  readonly host: number;
  readonly sourcePort: number;
  /** TOS or traffic class. */
  readonly tos: number;
  /** TTL or hop limit. */
  readonly ttl: number;
  readonly flowLabel: number;
  /** IPv4 flags and fragment offset. */
  readonly fragment: number;
  readonly id: number;
  readonly sequence: number;
  readonly acknowledgement: number;
  readonly window: number;
  readonly urgent: number;
  /** The four bits beside the data offset. */
  readonly reserved: number;
  readonly flags: number;
  readonly tcpOptions: Uint8Array;
  readonly ipOptions: Uint8Array;
  readonly extensions: readonly Extension[];
  readonly payload: Uint8Array;
  /** Bytes behind the packet. */
  readonly padding: number;
}

export const SEGMENT: Segment = {
  family: 4,
  isTcp: true,
  tags: [],
  host: 1,
  sourcePort: 40_000,
  tos: 0,
  ttl: 64,
  flowLabel: 0,
  fragment: 0x4000,
  id: 1000,
  sequence: 5000,
  acknowledgement: 77,
  window: 500,
  urgent: 0,
  reserved: 0,
  flags: ACK,
  tcpOptions: new Uint8Array(0),
  ipOptions: new Uint8Array(0),
  extensions: [],
  payload: counting(100),
  padding: 0,
};

/** The frame of a segment or datagram. */
export function frameOf(segment: Segment): Uint8Array {
  const { family, isTcp, host, tags, padding, extensions, tos, ttl, flowLabel } = segment;
  const protocol = isTcp ? IPPROTO_TCP : IPPROTO_UDP;
  const { source, destination } = family === 4 ? ENDS_4 : ENDS_6;
  const ends = { source: concat(source.subarray(0, -1), Uint8Array.of(host)), destination };
  const header = isTcp ? tcpHeader(segment) : udpHeader(segment);
  const payload = concat(header, segment.payload);
  const pseudo = pseudoHeader(ends.source, ends.destination, protocol, payload.length);
  const sum = 0xffff - onesComplementSum(concat(pseudo, payload));
  payload.set(bigEndian(isTcp ? sum : sum || 0xffff, 2), isTcp ? 16 : 6);
  let packet: Uint8Array;
  if (family === 4) {
    packet = ipv4(segment, ends.source, ends.destination, payload);
  } else {
    packet = ipv6({ ends, protocol, extensions, payload });
    packet.set(bigEndian(0x60000000 + tos * 2 ** 20 + flowLabel, 4));
    packet[7] = ttl;
  }
  const type = family === 4 ? ETHERTYPE_IPV4 : ETHERTYPE_IPV6;
  return concat(
    ethernet(type, packet, { tags, source: Uint8Array.of(2, 0, 0, 0, 1, host) }),
    new Uint8Array(padding),
  );
}

function tcpHeader(segment: Segment): Uint8Array {
  const { sourcePort, sequence, acknowledgement, reserved, flags, window, urgent, tcpOptions } = segment;
  return concat(
    bigEndian(sourcePort, 2),
    bigEndian(443, 2),
    bigEndian(sequence % 2 ** 32, 4),
    bigEndian(acknowledgement, 4),
    Uint8Array.of((5 + tcpOptions.length / 4) * 16 + reserved, flags),
    bigEndian(window, 2),
    new Uint8Array(2),
    bigEndian(urgent, 2),
    tcpOptions,
  );
}

function udpHeader({ sourcePort, payload }: Segment): Uint8Array {
  return concat(
    bigEndian(sourcePort, 2),
    bigEndian(443, 2),
    bigEndian(8 + payload.length, 2),
    new Uint8Array(2),
  );
}

function ipv4(
  segment: Segment,
  source: Uint8Array,
  destination: Uint8Array,
  payload: Uint8Array,
): Uint8Array {
  const { isTcp, tos, ttl, id, fragment, ipOptions } = segment;
  const headerBytes = 20 + ipOptions.length;
  const header = concat(
    Uint8Array.of(0x40 + headerBytes / 4, tos),
    bigEndian(headerBytes + payload.length, 2),
    bigEndian(id % 2 ** 16, 2),
    bigEndian(fragment, 2),
    Uint8Array.of(ttl, isTcp ? IPPROTO_TCP : IPPROTO_UDP, 0, 0),
    source,
    destination,
    ipOptions,
  );
  header.set(bigEndian(0xffff - onesComplementSum(header), 2), 10);
  return concat(header, payload);
}
