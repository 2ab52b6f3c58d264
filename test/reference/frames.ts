/**
 * Builders of whole frames for tests, by the RFCs and in the slowest obvious way: Ethernet and VLAN tags
 * (IEEE 802.3, 802.1Q), ARP (RFC 826), IPv4 (RFC 791), IPv6 (RFC 8200), TCP (RFC 9293), UDP (RFC 768) and
 * ICMP (RFC 792, RFC 4443), with right checksums or, like a kernel on the same host, with unfinished ones.
 */

/** What a transport checksum field holds: the right value, the pseudo-header's folded sum alone, or zero. */
export type ChecksumKind = 'finished' | 'partial' | 'none';

export const ETHERTYPE_IPV4 = 0x0800;
export const ETHERTYPE_ARP = 0x0806;
export const ETHERTYPE_VLAN = 0x8100;
export const ETHERTYPE_IPV6 = 0x86dd;
export const ETHERTYPE_SERVICE_VLAN = 0x88a8;
export const IPPROTO_ICMP = 1;
export const IPPROTO_TCP = 6;
export const IPPROTO_UDP = 17;
export const IPPROTO_ICMPV6 = 58;

/** The parts one after the other. */
export function concat(...parts: readonly Uint8Array[]): Uint8Array {
  const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}

/** A number in `count` bytes, most significant first. */
export function bigEndian(value: number, count: number): Uint8Array {
  return Uint8Array.from({ length: count }, (_, i) => Math.floor(value / 256 ** (count - 1 - i)) % 256);
}

/** `count` bytes counting up from `first`. */
export function counting(count: number, first = 0): Uint8Array {
  return Uint8Array.from({ length: count }, (_, i) => (first + i) % 256);
}

/** Ones'-complement sum of big-endian 16-bit words, folded (RFC 1071); an odd byte is padded with zero. */
export function onesComplementSum(bytes: Uint8Array): number {
  let sum = 0;
  for (let i = 0; i < bytes.length; i += 2) sum += bytes[i]! * 256 + (bytes[i + 1] ?? 0);
  while (sum > 0xffff) sum = Math.floor(sum / 0x10000) + (sum % 0x10000);
  return sum;
}

/** Pseudo-header of TCP and UDP over either IP: addresses, length, protocol (RFC 9293, RFC 8200). */
export function pseudoHeader(
  source: Uint8Array,
  destination: Uint8Array,
  protocol: number,
  length: number,
): Uint8Array {
  if (source.length === 4) {
    return concat(source, destination, Uint8Array.of(0, protocol), bigEndian(length, 2));
  }
  return concat(source, destination, bigEndian(length, 4), bigEndian(protocol, 4));
}

/** A segment with its checksum at `offset` filled in. */
function withChecksum(
  segment: Uint8Array,
  offset: number,
  pseudo: Uint8Array,
  kind: ChecksumKind,
): Uint8Array {
  const done = segment.slice();
  if (kind === 'none') return done;
  const partial = onesComplementSum(pseudo);
  const whole = 0xffff - onesComplementSum(concat(pseudo, segment));
  // Zero would mean "no checksum" to UDP, and 0xffff says the same to everyone.
  done.set(bigEndian(kind === 'partial' ? partial : whole || 0xffff, 2), offset);
  return done;
}

/** Addresses that a transport header's checksum covers. */
export interface Ends {
  readonly source: Uint8Array;
  readonly destination: Uint8Array;
}

export const ENDS_4: Ends = { source: Uint8Array.of(10, 0, 0, 1), destination: Uint8Array.of(10, 0, 0, 2) };
export const ENDS_6: Ends = {
  source: concat(Uint8Array.of(0xfd, 0), counting(14, 1)),
  destination: concat(Uint8Array.of(0xfd, 0), counting(14, 101)),
};

export interface Transport {
  readonly ends: Ends;
  readonly sourcePort?: number;
  readonly destinationPort?: number;
  readonly payload?: Uint8Array;
  readonly checksum?: ChecksumKind;
}

/** A UDP datagram. */
export function udp(options: Transport): Uint8Array {
  const { ends, sourcePort = 1000, destinationPort = 2000, payload = counting(18) } = options;
  const length = 8 + payload.length;
  const segment = concat(
    bigEndian(sourcePort, 2),
    bigEndian(destinationPort, 2),
    bigEndian(length, 2),
    bigEndian(0, 2),
    payload,
  );
  const pseudo = pseudoHeader(ends.source, ends.destination, IPPROTO_UDP, length);
  return withChecksum(segment, 6, pseudo, options.checksum ?? 'finished');
}

export interface TcpOptions extends Transport {
  /** Flag bits, FIN lowest. */
  readonly flags?: number;
  readonly sequence?: number;
  /** TCP options, a multiple of four bytes. */
  readonly options?: Uint8Array;
}

/** A TCP segment. */
export function tcp(given: TcpOptions): Uint8Array {
  const { ends, sourcePort = 1000, destinationPort = 2000, payload = counting(18) } = given;
  const { flags = 0x10, sequence = 1, options = new Uint8Array(0) } = given;
  const header = concat(
    bigEndian(sourcePort, 2),
    bigEndian(destinationPort, 2),
    bigEndian(sequence, 4),
    bigEndian(77, 4),
    Uint8Array.of((5 + options.length / 4) * 16, flags),
    bigEndian(8192, 2),
    bigEndian(0, 4),
    options,
  );
  const segment = concat(header, payload);
  const pseudo = pseudoHeader(ends.source, ends.destination, IPPROTO_TCP, segment.length);
  return withChecksum(segment, 16, pseudo, given.checksum ?? 'finished');
}

/** An echo request: ICMP, or ICMPv6 when the addresses are IPv6. */
export function icmp(ends: Ends, payload = counting(32)): Uint8Array {
  const is6 = ends.source.length === 16;
  const message = concat(
    Uint8Array.of(is6 ? 128 : 8, 0),
    bigEndian(0, 2),
    bigEndian(1, 2),
    bigEndian(1, 2),
    payload,
  );
  const pseudo = is6
    ? pseudoHeader(ends.source, ends.destination, IPPROTO_ICMPV6, message.length)
    : new Uint8Array(0);
  return withChecksum(message, 2, pseudo, 'finished');
}

export interface Ipv4Options {
  readonly ends?: Ends;
  readonly protocol: number;
  readonly payload: Uint8Array;
  readonly id?: number;
  readonly ttl?: number;
  /** Fragment offset in units of eight bytes, and whether more follow. */
  readonly fragment?: { readonly offset: number; readonly more: boolean };
  /** IPv4 options, a multiple of four bytes. */
  readonly options?: Uint8Array;
}

/** An IPv4 packet. */
export function ipv4(given: Ipv4Options): Uint8Array {
  const { ends = ENDS_4, protocol, payload, id = 7, ttl = 64, fragment, options = new Uint8Array(0) } = given;
  const headerBytes = 20 + options.length;
  const header = concat(
    Uint8Array.of(0x40 + headerBytes / 4, 0),
    bigEndian(headerBytes + payload.length, 2),
    bigEndian(id, 2),
    // DF unless it is a fragment.
    bigEndian(fragment ? (fragment.more ? 0x2000 : 0) + fragment.offset : 0x4000, 2),
    Uint8Array.of(ttl, protocol, 0, 0),
    ends.source,
    ends.destination,
    options,
  );
  header.set(bigEndian(0xffff - onesComplementSum(header), 2), 10);
  return concat(header, payload);
}

export interface Extension {
  readonly type: number;
  /** Without its first byte, the next header. */
  readonly rest: Uint8Array;
}

/** An extension header of `8 * (units + 1)` bytes of padding: hop-by-hop, routing, destination options. */
export function optionsHeader(type: number, units = 0): Extension {
  return { type, rest: concat(Uint8Array.of(units, 1, 4 + 8 * units), new Uint8Array(4 + 8 * units)) };
}

/** An authentication header of `4 * (units + 2)` bytes (RFC 4302). */
export function authenticationHeader(units = 4): Extension {
  return { type: 51, rest: concat(Uint8Array.of(units), new Uint8Array(4 * (units + 2) - 2)) };
}

/** A fragment header (RFC 8200 section 4.5). */
export function fragmentHeader(offset: number, more: boolean, id = 9): Extension {
  return {
    type: 44,
    rest: concat(Uint8Array.of(0), bigEndian(offset * 8 + (more ? 1 : 0), 2), bigEndian(id, 4)),
  };
}

export interface Ipv6Options {
  readonly ends?: Ends;
  readonly protocol: number;
  readonly payload: Uint8Array;
  readonly extensions?: readonly Extension[];
  readonly flowLabel?: number;
}

/** An IPv6 packet with its extension headers chained. */
export function ipv6(given: Ipv6Options): Uint8Array {
  const { ends = ENDS_6, protocol, payload, extensions = [], flowLabel = 0 } = given;
  let body = payload;
  let next = protocol;
  for (const { type, rest } of [...extensions].reverse()) {
    body = concat(Uint8Array.of(next), rest, body);
    next = type;
  }
  return concat(
    bigEndian(0x60000000 + flowLabel, 4),
    bigEndian(body.length, 2),
    Uint8Array.of(next, 64),
    ends.source,
    ends.destination,
    body,
  );
}

/** An ARP request. */
export function arp(): Uint8Array {
  return concat(
    Uint8Array.of(0, 1, 8, 0, 6, 4, 0, 1),
    Uint8Array.of(2, 0, 0, 0, 0, 1, 10, 0, 0, 1),
    Uint8Array.of(0, 0, 0, 0, 0, 0, 10, 0, 0, 2),
  );
}

export interface EthernetOptions {
  readonly source?: Uint8Array;
  readonly destination?: Uint8Array;
  /** Tags, outermost first: EtherType and tag control information. */
  readonly tags?: readonly { readonly type: number; readonly control: number }[];
}

/** An Ethernet frame without its frame check sequence. */
export function ethernet(type: number, payload: Uint8Array, options: EthernetOptions = {}): Uint8Array {
  const { source = Uint8Array.of(2, 0, 0, 0, 0, 1), destination = Uint8Array.of(2, 0, 0, 0, 0, 2) } = options;
  const tags = (options.tags ?? []).map((tag) => concat(bigEndian(tag.type, 2), bigEndian(tag.control, 2)));
  return concat(destination, source, ...tags, bigEndian(type, 2), payload);
}

/** One 802.1Q tag. */
export const VLAN_TAGS = [{ type: ETHERTYPE_VLAN, control: 5 }];
/** An 802.1ad tag around an 802.1Q tag. */
export const VLAN_STACK = [
  { type: ETHERTYPE_SERVICE_VLAN, control: 100 },
  { type: ETHERTYPE_VLAN, control: 5 },
];

export interface Sample {
  readonly name: string;
  readonly frame: Uint8Array;
}

/** One frame of each kind, with `payloadBytes` behind the transport header. */
export function sampleFrames(payloadBytes: number): readonly Sample[] {
  const payload = counting(payloadBytes);
  const samples: Sample[] = [{ name: 'arp', frame: ethernet(ETHERTYPE_ARP, arp()) }];
  const add = (name: string, type: number, packet: Uint8Array, options: EthernetOptions = {}) =>
    samples.push({ name, frame: ethernet(type, packet, options) });
  for (const checksum of ['finished', 'partial'] as const) {
    const over4 = { ends: ENDS_4, payload, checksum };
    const over6 = { ends: ENDS_6, payload, checksum };
    const datagram4 = ipv4({ protocol: IPPROTO_UDP, payload: udp(over4) });
    const segment4 = ipv4({ protocol: IPPROTO_TCP, payload: tcp(over4) });
    const datagram6 = ipv6({ protocol: IPPROTO_UDP, payload: udp(over6) });
    const segment6 = ipv6({ protocol: IPPROTO_TCP, payload: tcp(over6) });
    add(`udp4 ${checksum}`, ETHERTYPE_IPV4, datagram4);
    add(`tcp4 ${checksum}`, ETHERTYPE_IPV4, segment4);
    add(`udp6 ${checksum}`, ETHERTYPE_IPV6, datagram6);
    add(`tcp6 ${checksum}`, ETHERTYPE_IPV6, segment6);
    add(`tagged tcp4 ${checksum}`, ETHERTYPE_IPV4, segment4, { tags: VLAN_TAGS });
    add(`tagged udp6 ${checksum}`, ETHERTYPE_IPV6, datagram6, { tags: VLAN_TAGS });
    add(`stacked udp4 ${checksum}`, ETHERTYPE_IPV4, datagram4, { tags: VLAN_STACK });
    const options4 = { protocol: IPPROTO_TCP, payload: tcp({ ...over4, options: counting(12, 1) }) };
    add(`tcp4 with options ${checksum}`, ETHERTYPE_IPV4, ipv4({ ...options4, options: counting(8, 1) }));
    const extensions = [optionsHeader(0), authenticationHeader(), optionsHeader(60, 1)];
    const chained = ipv6({ protocol: IPPROTO_TCP, payload: tcp({ ...over6, flags: 0x90 }), extensions });
    add(`tcp6 behind extensions ${checksum}`, ETHERTYPE_IPV6, chained);
  }
  const more = { offset: 0, more: true };
  add('icmp4', ETHERTYPE_IPV4, ipv4({ protocol: IPPROTO_ICMP, payload: icmp(ENDS_4) }));
  add('icmp6', ETHERTYPE_IPV6, ipv6({ protocol: IPPROTO_ICMPV6, payload: icmp(ENDS_6) }));
  const partial = udp({ ends: ENDS_4, payload, checksum: 'partial' });
  add('udp4 fragment', ETHERTYPE_IPV4, ipv4({ protocol: IPPROTO_UDP, payload: partial, fragment: more }));
  add(
    'udp4 unchecked',
    ETHERTYPE_IPV4,
    ipv4({ protocol: IPPROTO_UDP, payload: udp({ ends: ENDS_4, payload, checksum: 'none' }) }),
  );
  return samples;
}
