/**
 * The bytes that are transferred. They repeat with a period that is prime, so that a piece that is lost,
 * doubled or moved does not fit where it lands.
 */
const PERIOD_BYTES = 65521;
export const PIECE_BYTES_MAX = 256 * 1024;

const bytes = Buffer.alloc(PERIOD_BYTES + PIECE_BYTES_MAX);
for (let at = 0; at < PERIOD_BYTES; at++) bytes[at] = Math.imul(at + 1, 0x9e3779b1) >>> 24;
for (let at = PERIOD_BYTES; at < bytes.length; at++) bytes[at] = bytes[at - PERIOD_BYTES]!;

/** The bytes from `position` on, at most PIECE_BYTES_MAX of them. Not to be written to. */
export function piece(position: number, length: number): Buffer {
  const start = position % PERIOD_BYTES;
  return bytes.subarray(start, start + length);
}

/** True when these are the bytes from `position` on. */
export function isPiece(received: Uint8Array, position: number): boolean {
  for (let at = 0; at < received.length; at += PIECE_BYTES_MAX) {
    const part = received.subarray(at, at + PIECE_BYTES_MAX);
    if (piece(position + at, part.length).compare(part) !== 0) return false;
  }
  return true;
}
