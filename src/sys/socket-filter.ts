/** Filters in classic BPF that decide which datagrams a socket gets (man 7 socket, SO_ATTACH_FILTER; linux/filter.h). */
import { SO_ATTACH_FILTER, SOL_SOCKET, structs } from './abi.js';
import { must } from './errno.js';
import * as libc from './libc.js';

/** Code, jump when true, jump when false, operand. */
export type Instruction = readonly [code: number, jt: number, jf: number, k: number];

// Class, size and mode of the codes that are used here.
/** X = 4 * (low half of the byte at k): the length of an IPv4 header. */
export const LOAD_X_HEADER = 0xb1;
/** X = k. */
export const LOAD_X = 0x01;
/** A = length of the datagram. */
export const LOAD_LENGTH = 0x80;
/** A = byte at X + k; a datagram that is too short for it is dropped. */
export const LOAD_BYTE = 0x50;
/** A = 16 bits at X + k, in network order; likewise. */
export const LOAD_HALF = 0x48;
/** A = A - X. */
export const SUBTRACT_X = 0x1c;
/** A = A * k, A = A >> k. */
export const MULTIPLY = 0x24;
export const SHIFT_RIGHT = 0x74;
/** Jumps by A = k, by A >= k. */
export const JUMP_EQUAL = 0x15;
export const JUMP_NOT_LESS = 0x35;
/** Takes k bytes of it: none, or all. */
export const RETURN = 0x06;
export const ALL_BYTES = 0xffffffff;

export const DROP_ALL: readonly Instruction[] = [[RETURN, 0, 0, 0]];

/** Attaches a filter; the kernel checks it. Throws EINVAL for one that it does not take. */
export function filterInput(fd: number, instructions: readonly Instruction[]): void {
  const { code, jt, jf, k, size } = structs.sock_filter;
  const filter = new Uint8Array(size * instructions.length);
  const words = new DataView(filter.buffer);
  for (const [index, instruction] of instructions.entries()) {
    const at = index * size;
    words.setUint16(at + code, instruction[0], true);
    words.setUint8(at + jt, instruction[1]);
    words.setUint8(at + jf, instruction[2]);
    words.setUint32(at + k, instruction[3], true);
  }
  const program = new Uint8Array(structs.sock_fprog.size);
  const view = new DataView(program.buffer);
  view.setUint16(structs.sock_fprog.len, instructions.length, true);
  view.setBigUint64(structs.sock_fprog.filter, BigInt(libc.addressOf(filter)), true);
  must(
    libc.setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, program, program.length),
    'setsockopt SO_ATTACH_FILTER',
  );
}
