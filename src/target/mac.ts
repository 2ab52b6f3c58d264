/**
 * MAC addresses. In tables and maps they are numbers below 2^48, made of the octets in the order of the wire, so that
 * numbers order as bytes do; elsewhere they are canonical text, `02:08:20:01:02:03`.
 */
import { OverlayError } from '../errors.js';

const octet = /^[0-9a-f]{1,2}$/i;

export const BROADCAST = 0xffffffffffff;

/** Number of text such as `2:8:20:1:2:3` or `02-08-20-01-02-03`. Throws EINVAL naming the text. */
export function parseMac(text: string): number {
  const octets = text.split(text.includes('-') ? '-' : ':');
  if (octets.length !== 6 || octets.some((part) => !octet.test(part))) {
    throw new OverlayError(
      'EINVAL',
      'bad_mac',
      `'${text.slice(0, 64)}' is not a MAC address such as 2:8:20:1:2:3`,
    );
  }
  return octets.reduce((mac, part) => mac * 256 + Number.parseInt(part, 16), 0);
}

/** Canonical text of a number below 2^48. */
export function formatMac(mac: number): string {
  const hex = mac.toString(16).padStart(12, '0');
  return `${hex.slice(0, 2)}:${hex.slice(2, 4)}:${hex.slice(4, 6)}:${hex.slice(6, 8)}:${hex.slice(8, 10)}:${hex.slice(10)}`;
}

/** Number of the six bytes at `at`. */
export function macAt(bytes: Uint8Array, at: number): number {
  const high = (bytes[at]! << 16) | (bytes[at + 1]! << 8) | bytes[at + 2]!;
  const low = (bytes[at + 3]! << 16) | (bytes[at + 4]! << 8) | bytes[at + 5]!;
  return high * 2 ** 24 + low;
}

/** The reverse of `macAt`. */
export function macBytes(mac: number): Uint8Array {
  const bytes = new Uint8Array(6);
  let rest = mac;
  for (let at = 5; at >= 0; at--) {
    bytes[at] = rest % 256;
    rest = Math.floor(rest / 256);
  }
  return bytes;
}

/** True for broadcast and multicast (IEEE 802, the first octet's lowest bit). */
export function isGroupMac(mac: number): boolean {
  return Math.floor(mac / 2 ** 40) % 2 === 1;
}
