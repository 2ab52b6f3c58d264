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

/** Size of the datagrams that a received message is made of, by its first control message; 0 when it is one datagram. */
export function loadSegmentSize(at: usize): u32 {
  if (load<u32>(at, 8) != SOL_UDP || load<u32>(at, 12) != UDP_GRO) return 0;
  return load<u32>(at, 16) & 0xffff;
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
