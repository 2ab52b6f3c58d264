/** Marks by which an entry is known to be of an address: in its destination row, while its generation is a version. */
import { ENTRY_DESTINATION_BITS } from '../../assembly/layout.js';

const MARKS = 2 ** ENTRY_DESTINATION_BITS;

/** A destination row that stands for the address and the version, of which the low 16 bits count. */
export function markOf(mac: number, version: number): number {
  const mixed = Math.imul(mac ^ 0x9e3779b9, 0x85ebca6b) ^ Math.imul(version & 0xffff, 0xc2b2ae35);
  return ((mixed ^ (mixed >>> 15)) >>> 0) % MARKS;
}
