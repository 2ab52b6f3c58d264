/**
 * Segmentation: a TCP or UDP super-frame that the link hands over (struct virtio_net_hdr, virtio specification section
 * 5.1.6) becomes the frames that fit its device. The headers of each are made in scratch space, the payload stays where
 * it is.
 *
 *   super-frame   | Ethernet, tags | IP | TCP or UDP | payload ........................ |
 *   segment k     | the same headers, lengths, number k |   slice k   |
 *
 * What changes from segment to segment: IPv4 identification + k (RFC 6864), lengths, TCP sequence number + k * size, FIN
 * and PSH on the last alone, CWR on the first alone (RFC 3168 section 6.1.2), checksums.
 */
import { fold, sumBytes } from './checksum';
import { DROP_TX_BAD_VNET_HDR, TX_SEGMENT_HEADER_BYTES_MAX, DESTINATION_HEADER_BYTES_MAX, VERDICT_PASS } from './layout';
import { IPV6_BYTES, TCP, TCP_BYTES, UDP, UDP_BYTES, family, isAuthenticated, l3, l4, l4Bytes, parse, protocol } from './wire';

const NEEDS_CSUM: u8 = 1;
const DATA_VALID: u8 = 2;
const GSO_NONE: u8 = 0;
const GSO_TCPV4: u8 = 1;
const GSO_TCPV6: u8 = 4;
const GSO_UDP: u8 = 5;
const GSO_ECN: u8 = 0x80;

// TCP header (RFC 9293 section 3.1).
const TCP_SEQUENCE: usize = 4;
const TCP_DATA_OFFSET: usize = 12;
const TCP_FLAGS: usize = 13;
const TCP_CHECKSUM: u32 = 16;
const FIN_AND_PSH: u8 = 0x09;
const CWR: u8 = 0x80;
const UDP_LENGTH: usize = 4;
const UDP_CHECKSUM: u32 = 6;

/** Nothing that has such a checksum begins before the shortest IP header has ended. */
const START_MIN: u32 = 34;
/** The most datagrams that a kernel makes one UDP super-frame of (from Linux 6.9; 64 before). */
const DATAGRAMS_MAX: u32 = 128;
/** A guest that asks for smaller segments than any TCP sends would keep a worker from everybody else. */
const SEGMENTS_MAX: u32 = 2048;
/** With the largest outer header in front, that one's length rounded up to 16, and the next one's place rounded up too. */
const INNER_HEADER_BYTES_MAX: u32 = TX_SEGMENT_HEADER_BYTES_MAX - DESTINATION_HEADER_BYTES_MAX - 32;

/** Of the super-frame that `acceptRequest` has accepted last: bytes of its headers; 0 when the frame is none. */
export let headerBytes: u32 = 0;
/** Payload bytes of each segment but the last, which may have fewer. */
export let segmentBytes: u32 = 0;

/**
 * Does what the link asks for in its header: finishes a checksum, after which the header asks for nothing, or takes in a
 * super-frame. VERDICT_PASS, or DROP_TX_BAD_VNET_HDR for what makes no sense. @param length of the frame, at least 14
 */
export function acceptRequest(vnetHdr: usize, frame: usize, length: u32): u32 {
  headerBytes = 0;
  const flags = load<u8>(vnetHdr);
  const type = load<u8>(vnetHdr, 1);
  if (flags & ~(NEEDS_CSUM | DATA_VALID)) return DROP_TX_BAD_VNET_HDR;
  if ((flags & NEEDS_CSUM) == 0) return type == GSO_NONE ? VERDICT_PASS : DROP_TX_BAD_VNET_HDR;
  const start = u32(load<u16>(vnetHdr, 6));
  const offset = u32(load<u16>(vnetHdr, 8));
  if (start < START_MIN || start + offset + 2 > length) return DROP_TX_BAD_VNET_HDR;
  if (u32(load<u16>(vnetHdr, 2)) > length) return DROP_TX_BAD_VNET_HDR;
  if (type != GSO_NONE) {
    if (!acceptSuper(type, u32(load<u16>(vnetHdr, 4)), start, offset, frame, length)) return DROP_TX_BAD_VNET_HDR;
    // One segment is a frame of which only the checksum is asked.
    if (headerBytes != 0) return VERDICT_PASS;
  }
  const sum = ~fold(sumBytes(frame + start, length - start));
  store<u16>(frame + start + offset, sum ? sum : 0xffff);
  store<u64>(vnetHdr, 0);
  store<u16>(vnetHdr, 0, 8);
  return VERDICT_PASS;
}

/** False for what cannot be cut; sets `headerBytes` and `segmentBytes` when there is something to cut. */
function acceptSuper(type: u8, size: u32, start: u32, offset: u32, frame: usize, length: u32): bool {
  parse(frame, length);
  if (size == 0 || l4 == 0 || isAuthenticated || start != l4 || l4 + l4Bytes != length) return false;
  let bytes: u32;
  if (type == GSO_UDP) {
    if (protocol != UDP || offset != UDP_CHECKSUM || l4Bytes < UDP_BYTES) return false;
    if (u32(bswap(load<u16>(frame + l4, UDP_LENGTH))) != l4Bytes) return false;
    bytes = l4 + UDP_BYTES;
    if (length - bytes > DATAGRAMS_MAX * size) return false;
  } else {
    if ((type & ~GSO_ECN) != (family == 4 ? GSO_TCPV4 : GSO_TCPV6)) return false;
    if (protocol != TCP || offset != TCP_CHECKSUM || l4Bytes < TCP_BYTES) return false;
    const header = u32(load<u8>(frame + l4, TCP_DATA_OFFSET) >> 4) << 2;
    if (header < TCP_BYTES || header > l4Bytes) return false;
    bytes = l4 + header;
  }
  if (length - bytes <= size) return true;
  if (bytes > INNER_HEADER_BYTES_MAX) return false;
  if ((length - bytes + size - 1) / size > SEGMENTS_MAX) return false;
  headerBytes = bytes;
  segmentBytes = size;
  return true;
}

// The super-frame that is being cut.
let source: usize = 0;
let headers: u32 = 0;
let size: u32 = 0;
let payload: u32 = 0;
let network: u32 = 0;
let transport: u32 = 0;
let isIpv4: bool = false;
let isTcp: bool = false;
/** Sum of the IPv4 header without length, identification and checksum. */
let networkSum: u64 = 0;
/**
 * Sum of the transport header without sequence number, flags and length. Its checksum field holds the sum of the pseudo-header,
 * from which the length of the super-frame is taken away.
 */
let transportSum: u64 = 0;
let identification: u32 = 0;
let sequence: u32 = 0;
let tcpFlags: u8 = 0;

/** Begins with a super-frame that was accepted with these numbers. Returns how many segments it has. */
export function segmentBegin(frame: usize, length: u32, headerLength: u32, segmentLength: u32): u32 {
  parse(frame, length);
  source = frame;
  headers = headerLength;
  size = segmentLength;
  payload = length - headerLength;
  network = l3;
  transport = l4;
  isIpv4 = family == 4;
  isTcp = protocol == TCP;
  const ip = frame + l3;
  if (isIpv4) {
    identification = u32(bswap(load<u16>(ip, 4)));
    networkSum = sumBytes(ip, l4 - l3) - load<u16>(ip, 2) - load<u16>(ip, 4) - load<u16>(ip, 10);
  }
  const header = frame + l4;
  transportSum = sumBytes(header, headerLength - l4) + u64(0xffff - bswap(u16(length - l4)));
  if (isTcp) {
    sequence = bswap(load<u32>(header, TCP_SEQUENCE));
    tcpFlags = load<u8>(header, TCP_FLAGS);
    transportSum -= u64(load<u16>(header, 4)) + load<u16>(header, 6) + load<u16>(header, 12);
  } else {
    transportSum -= load<u16>(header, 4);
  }
  return (payload + segmentLength - 1) / segmentLength;
}

/** Where the payload of segment `k` begins. */
// @ts-expect-error: decorator
@inline
export function segmentPayload(k: u32): usize {
  return source + headers + k * size;
}

/** Payload bytes of segment `k`. */
// @ts-expect-error: decorator
@inline
export function segmentPayloadBytes(k: u32): u32 {
  return min(size, payload - k * size);
}

/** Writes the headers of segment `k` to `into`. */
export function segmentHeaders(k: u32, into: usize): void {
  copyHeaders(into);
  const bytes = segmentPayloadBytes(k);
  const ip = into + network;
  const l4Length = headers - transport + bytes;
  if (isIpv4) {
    const total = bswap(u16(headers - network + bytes));
    const id = bswap(u16(identification + k));
    store<u16>(ip, total, 2);
    store<u16>(ip, id, 4);
    store<u16>(ip, ~fold(networkSum + total + id), 10);
  } else {
    store<u16>(ip, bswap(u16(headers - network - IPV6_BYTES + bytes)), 4);
  }
  const header = into + transport;
  let sum = transportSum + bswap(u16(l4Length)) + sumBytes(segmentPayload(k), bytes);
  if (isTcp) {
    const isLast = (k + 1) * size >= payload;
    let flags = tcpFlags;
    if (!isLast) flags &= ~FIN_AND_PSH;
    if (k != 0) flags &= ~CWR;
    store<u8>(header, flags, TCP_FLAGS);
    const number = bswap(sequence + k * size);
    store<u32>(header, number, TCP_SEQUENCE);
    sum += u64(number & 0xffff) + (number >> 16) + load<u16>(header, 12);
    store<u16>(header, ~fold(sum), TCP_CHECKSUM);
  } else {
    const length = bswap(u16(l4Length));
    store<u16>(header, length, UDP_LENGTH);
    const checksum = ~fold(sum + length);
    store<u16>(header, checksum ? checksum : 0xffff, UDP_CHECKSUM);
  }
}

/** No byte more than there are is read: behind the headers the memory may end. */
function copyHeaders(into: usize): void {
  let at: u32 = 0;
  for (; at + 16 <= headers; at += 16) v128.store(into + at, v128.load(source + at));
  if (headers & 8) {
    store<u64>(into + at, load<u64>(source + at));
    at += 8;
  }
  if (headers & 4) {
    store<u32>(into + at, load<u32>(source + at));
    at += 4;
  }
  if (headers & 2) {
    store<u16>(into + at, load<u16>(source + at));
    at += 2;
  }
  if (headers & 1) store<u8>(into + at, load<u8>(source + at));
}
