/** Records of the ring test: what a record of a number looks like, the same on both ends. */

/** Multiplier of Knuth's multiplicative hash. */
const SPREAD = 0x9e3779b1;

/** Length of record `item`, 8 to 67 bytes. */
export function recordBytes(item: number): number {
  return 8 + ((Math.imul(item, SPREAD) >>> 8) % 60);
}

/** Word `index` of record `item`. */
function word(item: number, index: number): number {
  return index === 0 ? item >>> 0 : (Math.imul(item ^ index, SPREAD) ^ index) >>> 0;
}

/** Writes the whole words of record `item` at `at`; returns their sum. */
export function writeRecord(u32: Uint32Array, at: number, item: number, bytes: number): number {
  let sum = 0;
  for (let index = 0; index < bytes >> 2; index++) {
    const value = word(item, index);
    u32[(at >> 2) + index] = value;
    sum = (sum + value) >>> 0;
  }
  return sum;
}

/** Sum of the whole words at `at` when they are those of record `item`, else -1. */
export function readRecord(u32: Uint32Array, at: number, item: number, bytes: number): number {
  let sum = 0;
  for (let index = 0; index < bytes >> 2; index++) {
    const value = u32[(at >> 2) + index]!;
    if (value !== word(item, index)) return -1;
    sum = (sum + value) >>> 0;
  }
  return sum;
}
