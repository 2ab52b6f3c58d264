/**
 * struct virtio_net_hdr (Linux include/uapi/linux/virtio_net.h), ten bytes in front of every frame on the TAP:
 *
 *   0 flags u8 | 1 gso_type u8 | 2 hdr_len u16 | 4 gso_size u16 | 6 csum_start u16 | 8 csum_offset u16
 *
 * A kernel VXLAN device on the same host leaves inner checksums unfinished (the field holds the folded sum of
 * the pseudo-header alone) and passes TCP super-frames uncut. Both are handed on as what they are.
 */
import { NONE, VNET_HDR_BYTES } from './layout';
import {
  family,
  l3,
  l4,
  l4Bytes,
  PLAIN_IPV4,
  PLAIN_L4,
  parse,
  plainL4Bytes,
  protocol,
  TCP,
  TCP_BYTES,
  UDP,
  UDP_BYTES,
} from './wire';

const NEEDS_CSUM: u32 = 1;
const GSO_TCPV4: u32 = 1;
const GSO_TCPV6: u32 = 4;
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

/**
 * Writes the header in front of a frame that is at most as long as the device allows. Sets NEEDS_CSUM when
 * the transport checksum is unfinished.
 */
// @ts-expect-error: decorator
@inline
export function writePlain(frame: usize, length: u32): void {
  const at = frame - VNET_HDR_BYTES;
  store<u64>(at, 0);
  store<u16>(at, 0, 8);
  const bytes = plainL4Bytes(frame, length);
  if (bytes == NONE) return writeAny(frame, length);
  const carried = u32(load<u8>(frame, PLAIN_IPV4 + 9));
  const offset = checksumOffset(carried, bytes);
  if (offset == 0) return;
  const sum = halves(load<u64>(frame, PLAIN_IPV4 + 12)) + lengthSum(carried, bytes);
  if (load<u16>(frame + PLAIN_L4 + offset) == fold(sum)) writeUnfinished(at, PLAIN_L4, offset);
}

/** The same for every kind of frame. */
function writeAny(frame: usize, length: u32): void {
  parse(frame, length);
  const offset = unfinishedChecksum(frame);
  if (offset != 0) writeUnfinished(frame - VNET_HDR_BYTES, l4, offset);
}

function writeUnfinished(at: usize, start: u32, offset: u32): void {
  store<u8>(at, NEEDS_CSUM);
  store<u16>(at, start, 6);
  store<u16>(at, offset, 8);
}

/**
 * Writes the header in front of a TCP super-frame, to be cut by the kernel into segments that fit `mtu`.
 * False when the frame is not one: not TCP, or its checksum is finished, so that its segments would be wrong.
 */
export function writeSuper(frame: usize, length: u32, mtu: u32): bool {
  parse(frame, length);
  if (unfinishedChecksum(frame) != TCP_CHECKSUM || protocol != TCP) return false;
  const headerBytes = u32(load<u8>(frame + l4, TCP_DATA_OFFSET) >> 4) << 2;
  const networkBytes = l4 - l3 + headerBytes;
  if (headerBytes < TCP_BYTES || headerBytes > l4Bytes || networkBytes + SEGMENT_BYTES_MIN > mtu) {
    return false;
  }
  const ecn = load<u8>(frame + l4, TCP_FLAGS) & TCP_CWR ? GSO_ECN : 0;
  const at = frame - VNET_HDR_BYTES;
  store<u8>(at, NEEDS_CSUM);
  store<u8>(at, (family == 4 ? GSO_TCPV4 : GSO_TCPV6) | ecn, 1);
  store<u16>(at, l4 + headerBytes, 2);
  store<u16>(at, mtu - networkBytes, 4);
  store<u16>(at, l4, 6);
  store<u16>(at, TCP_CHECKSUM, 8);
  return true;
}

/**
 * Offset of the checksum in the transport header when it holds the pseudo-header's sum alone, else 0. A finished
 * checksum looks so once in 65,536; that is harmless, since finishing it again gives the right value.
 */
function unfinishedChecksum(frame: usize): u32 {
  if (l4 == 0) return 0;
  const offset = checksumOffset(protocol, l4Bytes);
  if (offset == 0) return 0;
  return load<u16>(frame + l4 + offset) == pseudoHeaderSum(frame) ? offset : 0;
}

/** Where the transport header has its checksum; 0 when it has none that we know, or is cut off. */
// @ts-expect-error: decorator
@inline
function checksumOffset(carried: u32, bytes: u32): u32 {
  if (carried == TCP && bytes >= TCP_BYTES) return TCP_CHECKSUM;
  if (carried == UDP && bytes >= UDP_BYTES) return UDP_CHECKSUM;
  return 0;
}

/** Folded sum, in memory order, of addresses, protocol and length (RFC 9293 section 3.1, RFC 8200 section 8.1). */
function pseudoHeaderSum(frame: usize): u16 {
  const ip = frame + l3;
  let sum = lengthSum(protocol, l4Bytes);
  if (family == 4) return fold(sum + halves(load<u64>(ip, 12)));
  sum += halves(load<u64>(ip, 8)) + halves(load<u64>(ip, 16));
  return fold(sum + halves(load<u64>(ip, 24)) + halves(load<u64>(ip, 32)));
}

/** Protocol and length, both big endian; widened before the addition, where two 16-bit numbers would wrap. */
// @ts-expect-error: decorator
@inline
function lengthSum(carried: u32, bytes: u32): u64 {
  return u64(bswap<u16>(u16(bytes))) + u64(carried << 8);
}

// @ts-expect-error: decorator
@inline
function halves(word: u64): u64 {
  return (word & 0xffffffff) + (word >> 32);
}

// @ts-expect-error: decorator
@inline
function fold(sum: u64): u16 {
  sum = (sum & 0xffff) + ((sum >> 16) & 0xffff) + (sum >> 32);
  sum = (sum & 0xffff) + (sum >> 16);
  return u16((sum & 0xffff) + (sum >> 16));
}
