/**
 * struct virtio_net_hdr (Linux include/uapi/linux/virtio_net.h), ten bytes in front of every frame on the TAP:
 *
 *   0 flags u8 | 1 gso_type u8 | 2 hdr_len u16 | 4 gso_size u16 | 6 csum_start u16 | 8 csum_offset u16
 *
 * A kernel VXLAN device on the same host leaves inner checksums unfinished (the field holds the folded sum of
 * the pseudo-header alone) and passes TCP super-frames uncut. Both are handed on as what they are.
 */
import { fold, sumBytes } from './checksum';
import { NONE } from './layout';
import {
  ETHERTYPE_IPV4,
  ETHERTYPE_IPV6,
  etherType,
  family,
  l3,
  l4,
  l4Bytes,
  mayCarryIp,
  PLAIN_IPV4_L4,
  PLAIN_IPV6_L4,
  PLAIN_L3,
  parse,
  plainIpv4Bytes,
  plainIpv6Bytes,
  protocol,
  TCP,
  TCP_BYTES,
  UDP,
  UDP_BYTES,
} from './wire';

const NEEDS_CSUM: u32 = 1;
const GSO_TCPV4: u32 = 1;
const GSO_TCPV6: u32 = 4;
const GSO_UDP: u32 = 5;
const GSO_ECN: u32 = 0x80;

const TCP_CHECKSUM: u32 = 16;
const TCP_DATA_OFFSET: u32 = 12;
const TCP_FLAGS: u32 = 13;
const TCP_CWR: u32 = 0x80;
const UDP_CHECKSUM: u32 = 6;
/** Headers that leave less of a segment than this are a peer's try to have us cut thousands of them. */
const SEGMENT_BYTES_MIN: u32 = 256;

/** Flag of a frame whose checksum somebody has verified: a remark, nothing is asked of us. */
const DATA_VALID: u16 = 2;

/** True when the kernel asks nothing of us: no unfinished checksum, no super-frame. */
// @ts-expect-error: decorator
@inline
export function isPlain(header: usize): bool {
  return (load<u16>(header) & ~DATA_VALID) == 0;
}

/** True when the header says that the transport checksum is unfinished. */
// @ts-expect-error: decorator
@inline
export function asksChecksum(header: usize): bool {
  return (load<u8>(header) & NEEDS_CSUM) != 0;
}

/**
 * Writes the header to `at` for a frame that is at most as long as the device allows. Sets NEEDS_CSUM when
 * the transport checksum is unfinished.
 */
// @ts-expect-error: decorator
@inline
export function writePlain(at: usize, frame: usize, length: u32): void {
  writeZero(at);
  const type = etherType(frame);
  let bytes: u32 = 0;
  let carried: u32 = 0;
  let l4: u32 = 0;
  let sum: u64 = 0;
  if (type == ETHERTYPE_IPV4) {
    bytes = plainIpv4Bytes(frame, length);
    if (bytes == NONE) return writeAny(at, frame, length);
    carried = load<u8>(frame, PLAIN_L3 + 9);
    l4 = PLAIN_IPV4_L4;
    sum = sumIpv4(frame + PLAIN_L3);
  } else if (type == ETHERTYPE_IPV6) {
    bytes = plainIpv6Bytes(frame, length);
    if (bytes == NONE) return writeAny(at, frame, length);
    carried = load<u8>(frame, PLAIN_L3 + 6);
    l4 = PLAIN_IPV6_L4;
    sum = sumIpv6(frame + PLAIN_L3);
  } else {
    if (mayCarryIp(type)) writeAny(at, frame, length);
    return;
  }
  const offset = checksumOffset(carried, bytes);
  if (offset == 0) {
    // An extension header, perhaps.
    if (type == ETHERTYPE_IPV6) writeAny(at, frame, length);
  } else if (isUnfinished(load<u16>(frame + l4 + offset), sum + sumLength(carried, bytes))) {
    writeUnfinished(at, l4, offset);
  }
}

/** The same for every kind of frame. */
function writeAny(at: usize, frame: usize, length: u32): void {
  parse(frame, length);
  const offset = unfinishedChecksum(frame);
  if (offset != 0) writeUnfinished(at, l4, offset);
}

function writeUnfinished(at: usize, start: u32, offset: u32): void {
  store<u8>(at, NEEDS_CSUM);
  store<u16>(at, start, 6);
  store<u16>(at, offset, 8);
}

/**
 * Writes the header to `at` for a TCP super-frame, to be cut by the kernel into segments that fit `mtu`.
 * False when the frame is not one: not TCP, or its checksum is finished, so that its segments would be wrong.
 */
export function writeSuper(at: usize, frame: usize, length: u32, mtu: u32): bool {
  parse(frame, length);
  if (unfinishedChecksum(frame) != TCP_CHECKSUM || protocol != TCP) return false;
  const headerBytes = u32(load<u8>(frame + l4, TCP_DATA_OFFSET) >> 4) << 2;
  const networkBytes = l4 - l3 + headerBytes;
  if (headerBytes < TCP_BYTES || headerBytes > l4Bytes || networkBytes + SEGMENT_BYTES_MIN > mtu) {
    return false;
  }
  const ecn = load<u8>(frame + l4, TCP_FLAGS) & TCP_CWR ? GSO_ECN : 0;
  store<u8>(at, NEEDS_CSUM);
  store<u8>(at, (family == 4 ? GSO_TCPV4 : GSO_TCPV6) | ecn, 1);
  store<u16>(at, l4 + headerBytes, 2);
  store<u16>(at, mtu - networkBytes, 4);
  store<u16>(at, l4, 6);
  store<u16>(at, TCP_CHECKSUM, 8);
  return true;
}

/**
 * Writes the header to `at`, and what changes in the frame's own, for a super-frame made of `frame` and the payload of others.
 * @param length of `frame`, @param total bytes of the super-frame
 */
export function writeJoined(at: usize, frame: usize, length: u32, total: u32): void {
  parse(frame, length);
  const header = frame + l4;
  const isTcp = protocol == TCP;
  const headers = l4 + (isTcp ? u32(load<u8>(header, TCP_DATA_OFFSET) >> 4) << 2 : UDP_BYTES);
  const ip = frame + l3;
  const bytes = total - l4;
  let sum = sumLength(protocol, bytes);
  if (family == 4) {
    store<u16>(ip, bswap(u16(total - l3)), 2);
    store<u16>(ip, 0, 10);
    store<u16>(ip, ~fold(sumBytes(ip, l4 - l3)), 10);
    sum += sumBytes(ip + 12, 8);
  } else {
    store<u16>(ip, bswap(u16(bytes)), 4);
    sum += sumBytes(ip + 8, 32);
  }
  if (!isTcp) store<u16>(header, bswap(u16(bytes)), 4);
  const offset = isTcp ? TCP_CHECKSUM : UDP_CHECKSUM;
  store<u16>(header + offset, fold(sum));
  store<u8>(at, NEEDS_CSUM);
  store<u8>(at, u8(isTcp ? (family == 4 ? GSO_TCPV4 : GSO_TCPV6) : GSO_UDP), 1);
  store<u16>(at, u16(headers), 2);
  store<u16>(at, u16(length - headers), 4);
  store<u16>(at, u16(l4), 6);
  store<u16>(at, u16(offset), 8);
}

/** Header of a frame of which nothing is asked. */
// @ts-expect-error: decorator
@inline
export function writeZero(at: usize): void {
  store<u64>(at, 0);
  store<u16>(at, 0, 8);
}

/** Offset of the checksum in the transport header when it holds the pseudo-header's sum alone, else 0. */
function unfinishedChecksum(frame: usize): u32 {
  if (l4 == 0) return 0;
  const offset = checksumOffset(protocol, l4Bytes);
  if (offset == 0) return 0;
  const sum = family == 4 ? sumIpv4(frame + l3) : sumIpv6(frame + l3);
  return isUnfinished(load<u16>(frame + l4 + offset), sum + sumLength(protocol, l4Bytes)) ? offset : 0;
}

/** Where the transport header has its checksum; 0 when it has none that we know, or is cut off. */
// @ts-expect-error: decorator
@inline
function checksumOffset(carried: u32, bytes: u32): u32 {
  if (carried == TCP) return bytes >= TCP_BYTES ? TCP_CHECKSUM : 0;
  if (carried == UDP) return bytes >= UDP_BYTES ? UDP_CHECKSUM : 0;
  return 0;
}

// The pseudo-header (RFC 9293 section 3.1, RFC 8200 section 8.1) as a number that is congruent to its ones' complement
// sum modulo 65,535: words of 32 bits may be added as they are, and bytes swapped by a shift.

/** 1 / 65535 modulo 2^64: a product with it is small for multiples of 65,535 and large for all other numbers. */
const INVERSE: u64 = 0xfffefffefffeffff;
/** The largest such product: (2^64 - 1) / 65535. */
const MULTIPLES: u64 = 0x0001000100010001;

/**
 * True when the field is the sum. A finished checksum looks so once in 65,535; that is harmless, since finishing it
 * again gives the right value. So is that 0 and 65,535 are the same here, as they are in ones' complement.
 */
// @ts-expect-error: decorator
@inline
function isUnfinished(field: u16, sum: u64): bool {
  return (sum + 65535 - u64(field)) * INVERSE <= MULTIPLES;
}

// @ts-expect-error: decorator
@inline
function sumIpv4(ip: usize): u64 {
  return halves(load<u64>(ip, 12));
}

// @ts-expect-error: decorator
@inline
function sumIpv6(ip: usize): u64 {
  // Sixteen words of 16 bits become four sums of 32; two of those are a congruent number of 64.
  const sums = i32x4.add(
    i32x4.extadd_pairwise_i16x8_u(v128.load(ip, 8)),
    i32x4.extadd_pairwise_i16x8_u(v128.load(ip, 24)),
  );
  return u64(i64x2.extract_lane(sums, 0) + i64x2.extract_lane(sums, 1));
}

// @ts-expect-error: decorator
@inline
function sumLength(carried: u32, bytes: u32): u64 {
  return u64(carried + bytes) << 8;
}

// @ts-expect-error: decorator
@inline
function halves(word: u64): u64 {
  return (word & 0xffffffff) + (word >> 32);
}
