/**
 * The maximum segment size that a TCP SYN offers (RFC 9293 section 3.7.1), lowered where it is more than fits: the peers then
 * never send segments that are too big. The checksum follows by what has changed (RFC 1624 section 3); an unfinished one holds
 * the sum of the pseudo-header alone, which has not changed.
 */
import { fold } from './checksum';
import {
  ETHERTYPE_IPV4,
  ETHERTYPE_IPV6,
  etherType,
  family,
  IPV4_BYTES,
  IPV6_BYTES,
  l3,
  l4,
  l4Bytes,
  mayCarryIp,
  PLAIN_IPV4_L4,
  PLAIN_IPV6_L4,
  PLAIN_L3,
  parse,
  protocol,
  TCP,
  TCP_BYTES,
} from './wire';

const IPV4_PROTOCOL: u32 = 9;
const IPV6_NEXT_HEADER: u32 = 6;
const IPV4_FIRST: u8 = 0x45;
const TCP_DATA_OFFSET: u32 = 12;
const TCP_FLAGS: u32 = 13;
const TCP_CHECKSUM: u32 = 16;
const SYN: u8 = 0x02;
// Options: kind, and but for the first two a length that counts both (RFC 9293 section 3.2).
const END: u8 = 0;
const NO_OPERATION: u8 = 1;
const MSS: u8 = 2;
const MSS_BYTES: u32 = 4;
/** Below it nothing useful is sent: what is told us of paths may be anything. */
const MSS_MIN: u32 = 88;

/**
 * @param length of the frame, at least ETHERNET_BYTES
 * @param most4 the largest that may be offered over IPv4, @param most6 over IPv6
 * @param room bytes of the largest frame that the way takes, or 0 for any
 * @param isUnfinished the checksum is
 */
export function clampMss(
  frame: usize,
  length: u32,
  most4: u32,
  most6: u32,
  room: u32,
  isUnfinished: bool,
): void {
  if (!mayBeSyn(frame, length)) return;
  parse(frame, length);
  if (family == 0 || l4 == 0 || protocol != TCP || l4Bytes < TCP_BYTES) return;
  const header = frame + l4;
  if ((load<u8>(header, TCP_FLAGS) & SYN) == 0) return;
  const bytes = u32(load<u8>(header, TCP_DATA_OFFSET) >> 4) << 2;
  if (bytes > l4Bytes) return;
  let most = family == 4 ? most4 : most6;
  if (room != 0) {
    const headers = l3 + TCP_BYTES + (family == 4 ? IPV4_BYTES : IPV6_BYTES);
    most = min(most, room > headers + MSS_MIN ? room - headers : MSS_MIN);
  }
  walkOptions(header, bytes, most, isUnfinished);
}

/** False for what cannot be a SYN, which nearly everything is, found out without a walk over the headers. */
// @ts-expect-error: decorator
@inline
function mayBeSyn(frame: usize, length: u32): bool {
  const type = etherType(frame);
  if (type == ETHERTYPE_IPV4) {
    if (length < PLAIN_IPV4_L4 + TCP_BYTES) return false;
    if (load<u8>(frame, PLAIN_L3 + IPV4_PROTOCOL) != TCP) return false;
    return load<u8>(frame, PLAIN_L3) != IPV4_FIRST || (load<u8>(frame, PLAIN_IPV4_L4 + TCP_FLAGS) & SYN) != 0;
  }
  if (type == ETHERTYPE_IPV6) {
    if (length < PLAIN_IPV6_L4 + TCP_BYTES) return false;
    return (
      load<u8>(frame, PLAIN_L3 + IPV6_NEXT_HEADER) != TCP || (load<u8>(frame, PLAIN_IPV6_L4 + TCP_FLAGS) & SYN) != 0
    );
  }
  return mayCarryIp(type);
}

/** Each turn moves on by a byte at least, of 40 at most. */
function walkOptions(header: usize, bytes: u32, most: u32, isUnfinished: bool): void {
  let at = TCP_BYTES;
  while (at < bytes) {
    const kind = load<u8>(header + at);
    if (kind == END) return;
    if (kind == NO_OPERATION) {
      at++;
      continue;
    }
    if (at + 2 > bytes) return;
    const length = u32(load<u8>(header + at, 1));
    if (length < 2 || at + length > bytes) return;
    if (kind == MSS && length == MSS_BYTES) lower(header, at + 2, most, isUnfinished);
    at += length;
  }
}

function lower(header: usize, at: u32, most: u32, isUnfinished: bool): void {
  const field = load<u16>(header + at);
  if (u32(bswap(field)) <= most) return;
  const lowered = bswap(u16(most));
  store<u16>(header + at, lowered);
  if (isUnfinished) return;
  // At an odd place its bytes count in the words on both sides, the other way round.
  const was = at & 1 ? bswap(field) : field;
  const is = at & 1 ? bswap(lowered) : lowered;
  const sum = u64(u16(~load<u16>(header, TCP_CHECKSUM))) + u64(u16(~was)) + u64(is);
  store<u16>(header, ~fold(sum), TCP_CHECKSUM);
}
