/** Numbers in frames: big endian, as all protocols of the proxies have them. */

/** The 16-bit number at `at`, which must be inside. */
export function uint16At(bytes: Uint8Array, at: number): number {
  return bytes[at]! * 256 + bytes[at + 1]!;
}

/** Writes a 16-bit number at `at`. */
export function putUint16(bytes: Uint8Array, at: number, value: number): void {
  bytes[at] = value >>> 8;
  bytes[at + 1] = value & 0xff;
}

/** True when `expected` stands at `at`; all of it must be inside. */
export function hasBytes(bytes: Uint8Array, at: number, expected: ArrayLike<number>): boolean {
  for (let i = 0; i < expected.length; i++) if (bytes[at + i] !== expected[i]) return false;
  return true;
}
