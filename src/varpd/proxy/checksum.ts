/** The Internet checksum (RFC 1071). */
import { uint16At } from './bytes.js';

/**
 * Ones'-complement sum of the 16-bit words from `from` to before `to`, folded to 16 bits, an odd last byte as
 * if zero followed. A checksum is its complement; over data with its right checksum the sum is 0xffff.
 *
 * @param start a sum to go on from, such as that of a pseudo-header
 */
export function onesComplementSum(bytes: Uint8Array, from: number, to: number, start = 0): number {
  let sum = start;
  for (let at = from; at + 1 < to; at += 2) sum += uint16At(bytes, at);
  if ((to - from) % 2 === 1) sum += bytes[to - 1]! * 256;
  while (sum > 0xffff) sum = Math.floor(sum / 0x10000) + (sum % 0x10000);
  return sum;
}
