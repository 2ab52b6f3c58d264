/**
 * The data path's rules for point devices, written a second time: slow, obvious, and from RFC 7348, the
 * virtio_net_hdr of the virtio specification (section 5.1.6) and the sentences of `src/datapath/drop.ts`.
 * Tests compare the core with this.
 */
import type { DropName } from '../../src/datapath/drop.js';
import { bigEndian, concat, onesComplementSum, pseudoHeader } from './frames.js';
import { segmentFrame } from './segment.js';
import { readVnetHeader } from './vnet-hdr.js';

/** The part of a device that decides about frames. */
export interface DeviceRules {
  readonly vnetid: number;
  readonly mtu: number;
  readonly carriesVlan: boolean;
  readonly isActive: boolean;
  readonly hasTarget: boolean;
}

export type Verdict = DropName | 'pass';

/** Longest IPv6 extension chain that is followed. */
const EXTENSIONS_MAX = 6;
const ETHERNET_BYTES = 14;
const TAG_BYTES = 4;
const VIRTIO_HEADER_BYTES = 10;
const SEGMENTS_MAX = 2048;
/** Of Ethernet, IP and transport. */
const SUPER_HEADER_BYTES_MAX = 728;

/** RFC 7348 section 5: I flag and VNI, the rest zero, then the frame. */
export function encap(vnetid: number, frame: Uint8Array): Uint8Array {
  const out = new Uint8Array(8 + frame.length);
  out.set([0x08, 0, 0, 0]);
  out.set(bigEndian(vnetid, 3), 4);
  out.set(frame, 8);
  return out;
}

/** Likewise back; reserved bits are ignored. */
export function decap(datagram: Uint8Array): { vnetid: number; frame: Uint8Array } | DropName {
  if (datagram.length < 8) return 'rx_short_datagram';
  const hasVni = Math.floor(datagram[0]! / 8) % 2 === 1;
  if (!hasVni) return 'rx_bad_header';
  const [high, middle, low] = datagram.subarray(4, 7);
  return { vnetid: high! * 65536 + middle! * 256 + low!, frame: datagram.subarray(8) };
}

/** Length rule: MTU + 14, and 4 more when tags are carried. */
function lengthLimit(device: DeviceRules): number {
  return device.mtu + ETHERNET_BYTES + (device.carriesVlan ? TAG_BYTES : 0);
}

function typeAt(frame: Uint8Array, at: number): number {
  return frame[at]! * 256 + frame[at + 1]!;
}

function isTag(type: number): boolean {
  return type === 0x8100 || type === 0x88a8;
}

/** True for a frame with a tag on a device that does not carry tags. */
function isUncarriedTag(device: DeviceRules, frame: Uint8Array): boolean {
  return !device.carriesVlan && isTag(typeAt(frame, 12));
}

/** What becomes of what a TAP hands over: a virtio_net_hdr and a frame. */
export function txVerdict(device: DeviceRules, read: Uint8Array): Verdict {
  if (!device.isActive) return 'tx_device_stopped';
  if (read.length < VIRTIO_HEADER_BYTES + ETHERNET_BYTES) return 'tx_short_frame';
  const segments = sendable(read);
  if (!segments) return 'tx_bad_vnet_hdr';
  const longest = segments[0]!;
  if (isUncarriedTag(device, longest)) return 'tx_vlan_not_carried';
  if (longest.length > lengthLimit(device)) return 'tx_too_big';
  return device.hasTarget ? 'pass' : 'tx_no_target';
}

/** Frames that a record becomes; undefined when what is asked cannot be done. Nobody sends so many segments, or such headers. */
export function sendable(read: Uint8Array): Uint8Array[] | undefined {
  const frames = segmentFrame(read);
  if (!frames || frames.length === 1) return frames;
  const payloadBytes = readVnetHeader(read)!.gsoSize;
  const isMuch = frames.length > SEGMENTS_MAX || frames[0]!.length - payloadBytes > SUPER_HEADER_BYTES_MAX;
  return isMuch ? undefined : frames;
}

export interface Received {
  readonly verdict: Verdict;
  /** Whose the datagram is, when that is known. */
  readonly device?: DeviceRules;
  /** What the TAP gets: virtio_net_hdr and frame. */
  readonly written?: Uint8Array;
}

/** What becomes of a datagram from the underlay. */
export function receive(
  devices: readonly DeviceRules[],
  datagram: Uint8Array,
  isTruncated: boolean,
  unwrap: typeof decap = decap,
): Received {
  if (isTruncated) return { verdict: 'rx_truncated' };
  const inner = unwrap(datagram);
  if (typeof inner === 'string') return { verdict: inner };
  const device = devices.find(({ vnetid }) => vnetid === inner.vnetid);
  if (!device) return { verdict: 'rx_unknown_vnetid' };
  if (!device.isActive) return { verdict: 'rx_device_stopped', device };
  const { frame } = inner;
  if (frame.length < ETHERNET_BYTES) return { verdict: 'rx_short_frame', device };
  if (isUncarriedTag(device, frame)) return { verdict: 'rx_vlan_not_carried', device };
  const transport = findTransport(frame);
  const unfinished = transport && unfinishedChecksum(transport);
  if (frame.length <= lengthLimit(device)) {
    const header = unfinished && transport ? checksumHeader(transport, unfinished) : plainHeader();
    return { verdict: 'pass', device, written: joined(header, frame) };
  }
  const header = transport && unfinished && superHeader(transport, device.mtu);
  if (!header) return { verdict: 'rx_too_big', device };
  return { verdict: 'pass', device, written: joined(header, frame) };
}

function joined(header: Uint8Array, frame: Uint8Array): Uint8Array {
  const out = new Uint8Array(header.length + frame.length);
  out.set(header);
  out.set(frame, header.length);
  return out;
}

export interface TransportHeader {
  readonly family: 4 | 6;
  readonly protocol: number;
  readonly source: Uint8Array;
  readonly destination: Uint8Array;
  /** Offset in the frame of the IP header and of the transport header. */
  readonly networkStart: number;
  readonly start: number;
  /** Transport header and payload. */
  readonly segment: Uint8Array;
}

/** Transport header of a frame, unless there is none, it is in a fragment, or a length field lies. */
export function findTransport(frame: Uint8Array): TransportHeader | undefined {
  let at = 12;
  for (let tags = 0; tags < 2 && isTag(typeAt(frame, at)); tags++) {
    if (frame.length < at + 2 + TAG_BYTES) return undefined;
    at += TAG_BYTES;
  }
  const type = typeAt(frame, at);
  const start = at + 2;
  const packet = frame.subarray(start);
  if (type === 0x0800) return inIpv4(packet, start);
  if (type === 0x86dd) return inIpv6(packet, start);
  return undefined;
}

function inIpv4(packet: Uint8Array, networkStart: number): TransportHeader | undefined {
  if (packet.length < 20) return undefined;
  const version = Math.floor(packet[0]! / 16);
  const headerBytes = (packet[0]! % 16) * 4;
  const total = typeAt(packet, 2);
  if (version !== 4 || headerBytes < 20 || total < headerBytes || total > packet.length) return undefined;
  const fragmentOffset = typeAt(packet, 6) % 8192;
  const hasMore = Math.floor(packet[6]! / 32) % 2 === 1;
  if (hasMore || fragmentOffset > 0) return undefined;
  return {
    family: 4,
    protocol: packet[9]!,
    source: packet.subarray(12, 16),
    destination: packet.subarray(16, 20),
    networkStart,
    start: networkStart + headerBytes,
    segment: packet.subarray(headerBytes, total),
  };
}

function inIpv6(packet: Uint8Array, networkStart: number): TransportHeader | undefined {
  if (packet.length < 40) return undefined;
  const bodyBytes = typeAt(packet, 4);
  if (Math.floor(packet[0]! / 16) !== 6 || 40 + bodyBytes > packet.length) return undefined;
  let protocol = packet[6]!;
  let segment = packet.subarray(40, 40 + bodyBytes);
  let start = networkStart + 40;
  for (let seen = 0; seen < EXTENSIONS_MAX; seen++) {
    if (protocol === 44) return undefined;
    if (![0, 43, 51, 60].includes(protocol)) break;
    if (segment.length < 8) return undefined;
    const bytes = protocol === 51 ? (segment[1]! + 2) * 4 : (segment[1]! + 1) * 8;
    if (bytes > segment.length) return undefined;
    protocol = segment[0]!;
    segment = segment.subarray(bytes);
    start += bytes;
  }
  const source = packet.subarray(8, 24);
  const destination = packet.subarray(24, 40);
  return { family: 6, protocol, source, destination, networkStart, start, segment };
}

/** Offset of the checksum in the transport header when it holds the pseudo-header's sum alone. */
function unfinishedChecksum(transport: TransportHeader): number | undefined {
  const { protocol, segment, source, destination } = transport;
  const isTcp = protocol === 6 && segment.length >= 20;
  const isUdp = protocol === 17 && segment.length >= 8;
  if (!isTcp && !isUdp) return undefined;
  const offset = isTcp ? 16 : 6;
  const sum = onesComplementSum(pseudoHeader(source, destination, protocol, segment.length));
  return typeAt(segment, offset) === sum ? offset : undefined;
}

function littleEndian16(value: number): Uint8Array {
  return bigEndian(value, 2).reverse();
}

/** Nothing is to be done to the frame. */
export function plainHeader(): Uint8Array {
  return new Uint8Array(VIRTIO_HEADER_BYTES);
}

/** NEEDS_CSUM: the kernel sums from csum_start and puts the result csum_offset further. */
function checksumHeader(transport: TransportHeader, offset: number): Uint8Array {
  return concat(Uint8Array.of(1, 0, 0, 0, 0, 0), littleEndian16(transport.start), littleEndian16(offset));
}

/** A TCP super-frame, whose segments' IP packets are to be no longer than the MTU. */
function superHeader(transport: TransportHeader, mtu: number): Uint8Array | undefined {
  const { family, protocol, networkStart, start, segment } = transport;
  if (protocol !== 6) return undefined;
  const headerBytes = Math.floor(segment[12]! / 16) * 4;
  if (headerBytes < 20 || headerBytes > segment.length) return undefined;
  const payloadBytes = mtu - (start - networkStart) - headerBytes;
  // Fewer would let a peer have one datagram cut into thousands of segments.
  if (payloadBytes < 256) return undefined;
  const hasCwr = segment[13]! >= 128;
  const gsoType = (family === 4 ? 1 : 4) + (hasCwr ? 128 : 0);
  return concat(
    Uint8Array.of(1, gsoType),
    littleEndian16(start + headerBytes),
    littleEndian16(payloadBytes),
    littleEndian16(start),
    littleEndian16(16),
  );
}
