/** A checksum that follows what has changed, by RFC 1624 section 3: one that was wrong stays as wrong as it was. */
import { bigEndian, concat, onesComplementSum } from './frames.js';

/** HC' = ~(~HC + ~m + m'). @param before what is summed, of even length, @param after the same bytes as they are now */
export function adjusted(checksum: number, before: Uint8Array, after: Uint8Array): number {
  const complement = before.map((byte) => 255 - byte);
  return 0xffff - onesComplementSum(concat(bigEndian(0xffff - checksum, 2), complement, after));
}
