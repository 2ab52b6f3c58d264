/**
 * System-call arguments in memory: struct iovec and struct mmsghdr of a 64-bit Linux (man 2 recvmmsg, readv),
 * with absolute addresses. `test/abi.ts` compares the offsets with the C compiler's.
 *
 *   iovec    0 base u64 | 8 len u64
 *   mmsghdr  0 name u64 | 8 namelen u32 | 16 iov u64 | 24 iovlen u64 | 32 control u64 | 40 controllen u64
 *            48 flags i32 | 56 len u32
 */
import { HEADER_BASE, HEADER_OFFSET } from './layout';

export const IOVEC_BYTES: u32 = 16;
export const MESSAGE_BYTES: u32 = 64;
const CONTROL_HEADER_BYTES: u32 = 16;
const SOL_UDP: u32 = 17;
const UDP_SEGMENT: u32 = 103;
const UDP_GRO: u32 = 104;
const SOL_IP: u32 = 0;
const IP_TOS: u32 = 1;
const SOL_IPV6: u32 = 41;
const IPV6_TCLASS: u32 = 67;
const IPV6_FLOWINFO: u32 = 11;
export const MESSAGE_NAME_BYTES: usize = 8;
export const MESSAGE_CONTROL: usize = 32;
export const MESSAGE_CONTROL_BYTES: usize = 40;
export const MESSAGE_FLAGS: usize = 48;
export const MESSAGE_LENGTH: usize = 56;

// @ts-expect-error: decorator
@inline
function absolute(offset: usize): u64 {
  return load<u64>(HEADER_OFFSET, HEADER_BASE) + u64(offset);
}

// @ts-expect-error: decorator
@inline
export function storeIovec(at: usize, offset: usize, length: u32): void {
  store<u64>(at, absolute(offset));
  store<u64>(at, u64(length), 8);
}

/**
 * Writes the control message that says in what size the kernel cuts a message (man 7 udp, UDP_SEGMENT): length u64, level
 * u32, type u32, size u16, padding. Returns its bytes.
 */
export function storeSegmentSize(at: usize, bytes: u32): u32 {
  store<u64>(at, CONTROL_HEADER_BYTES + 2);
  store<u32>(at, SOL_UDP, 8);
  store<u32>(at, UDP_SEGMENT, 12);
  store<u64>(at, u64(bytes), 16);
  return CONTROL_HEADER_BYTES + 8;
}

/** Writes the control message that gives the traffic class of the outer header (man 7 ip, man 7 ipv6). Returns its bytes. */
export function storeTrafficClass(at: usize, isIpv6: bool, value: u32): u32 {
  store<u64>(at, CONTROL_HEADER_BYTES + 4);
  store<u32>(at, isIpv6 ? SOL_IPV6 : SOL_IP, 8);
  store<u32>(at, isIpv6 ? IPV6_TCLASS : IP_TOS, 12);
  store<u64>(at, u64(value), 16);
  return CONTROL_HEADER_BYTES + 8;
}

/**
 * Writes the control message that gives the flow label of the outer header, 20 bits that are not all zero (man 7 ipv6; RFC 6437).
 * Returns its bytes.
 */
export function storeFlowLabel(at: usize, label: u32): u32 {
  store<u64>(at, CONTROL_HEADER_BYTES + 4);
  store<u32>(at, SOL_IPV6, 8);
  store<u32>(at, IPV6_FLOWINFO, 12);
  store<u64>(at, u64(bswap(label)), 16);
  return CONTROL_HEADER_BYTES + 8;
}

/** Bytes of that, and whether it is one. */
export const FLOW_LABEL_BYTES: u32 = CONTROL_HEADER_BYTES + 8;

export function isFlowLabel(at: usize): bool {
  return load<u32>(at, 8) == SOL_IPV6 && load<u32>(at, 12) == IPV6_FLOWINFO;
}

/** Size of the datagrams that a received message is made of; 0 when it is one datagram. */
export let segmentSize: u32 = 0;
/** Traffic class of its outer header. */
export let trafficClass: u32 = 0;

/** Level and type of a control message as one little-endian word. */
const KEY_GRO: u64 = (u64(UDP_GRO) << 32) | SOL_UDP;
const KEY_TOS: u64 = (u64(IP_TOS) << 32) | SOL_IP;
const KEY_TCLASS: u64 = (u64(IPV6_TCLASS) << 32) | SOL_IPV6;
/** Each of those that are asked for takes as much, with its padding. */
const CONTROL_BYTES: u32 = 24;

/** Reads the control messages of a received message, `bytes` from `at` on, into the globals above. Mostly there are one or two. */
@inline
export function loadControls(at: usize, bytes: u32): void {
  segmentSize = 0;
  trafficClass = 0;
  const end = at + bytes;
  for (let control = at; control + CONTROL_BYTES <= end; control += CONTROL_BYTES) {
    const key = load<u64>(control, 8);
    if (key == KEY_GRO) segmentSize = load<u32>(control, 16) & 0xffff;
    // One byte, or an int: little endian in both.
    else if (key == KEY_TOS || key == KEY_TCLASS) trafficClass = u32(load<u8>(control, 16));
    else break;
  }
}

/** A message of `count` iovecs. A length of 0 leaves name or control out. */
// @ts-expect-error: decorator
@inline
export function storeMessage(
  at: usize,
  name: usize,
  nameBytes: u32,
  iovec: usize,
  count: u32,
  control: usize,
  controlBytes: u32,
): void {
  store<u64>(at, nameBytes ? absolute(name) : 0);
  store<u64>(at, nameBytes, 8);
  store<u64>(at, absolute(iovec), 16);
  store<u64>(at, count, 24);
  store<u64>(at, controlBytes ? absolute(control) : 0, 32);
  store<u64>(at, controlBytes, 40);
  store<u64>(at, 0, MESSAGE_FLAGS);
  store<u64>(at, 0, MESSAGE_LENGTH);
}
