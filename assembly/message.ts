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

/** A message of one iovec. A length of 0 leaves name or control out. */
// @ts-expect-error: decorator
@inline
export function storeMessage(
  at: usize,
  name: usize,
  nameBytes: u32,
  iovec: usize,
  control: usize,
  controlBytes: u32,
): void {
  store<u64>(at, nameBytes ? absolute(name) : 0);
  store<u64>(at, nameBytes, 8);
  store<u64>(at, absolute(iovec), 16);
  store<u64>(at, 1, 24);
  store<u64>(at, controlBytes ? absolute(control) : 0, 32);
  store<u64>(at, controlBytes, 40);
  store<u64>(at, 0, MESSAGE_FLAGS);
  store<u64>(at, 0, MESSAGE_LENGTH);
}
