/**
 * Addresses as 32-bit words, read from the bytes of a file without making text of them. A MAC address is two words
 * (16 and 32 bits), an IP address four (IPv4 as IPv4-mapped, RFC 4291 section 2.5.5.2).
 */
import { parseIp } from '../../ip.js';

export const MAC_WORDS = 2;
export const IP_WORDS = 4;
const MAPPED = 0xffff;
const COLON = 0x3a;
const POINT = 0x2e;

function hexDigit(byte: number): number {
  if (byte >= 0x30 && byte <= 0x39) return byte - 0x30;
  const letter = byte | 0x20;
  return letter >= 0x61 && letter <= 0x66 ? letter - 0x57 : -1;
}

/** `2:8:20:1:2:3`, in either case, leading zeros optional, into `out`. False when it is something else. */
export function readMac(bytes: Uint8Array, start: number, end: number, out: Uint32Array): boolean {
  let high = 0;
  let low = 0;
  let at = start;
  for (let octet = 0; octet < 6; octet++) {
    if (octet > 0 && bytes[at++] !== COLON) return false;
    let value = at < end ? hexDigit(bytes[at]!) : -1;
    if (value < 0) return false;
    at++;
    const second = at < end ? hexDigit(bytes[at]!) : -1;
    if (second >= 0) {
      value = value * 16 + second;
      at++;
    }
    if (octet < 2) high = (high << 8) | value;
    else low = (low << 8) | value;
  }
  out[0] = high;
  out[1] = low;
  return at === end;
}

/** Words of a number below 2^48. */
export function macWords(mac: number): Uint32Array {
  return Uint32Array.of(Math.floor(mac / 2 ** 32), mac % 2 ** 32);
}

/** The reverse of `macWords`, for the words at `at`. */
export function macOf(words: Uint32Array, at: number): number {
  return words[at]! * 2 ** 32 + words[at + 1]!;
}

/** The text of an IPv4 or IPv6 address into `out`: the family in which it is written, or 0 for anything else. */
export function readIp(bytes: Uint8Array, start: number, end: number, out: Uint32Array): 0 | 4 | 6 {
  for (let at = start; at < end && at < start + 5; at++) {
    if (bytes[at] === COLON) return readIpv6(bytes, start, end, out) ? 6 : 0;
  }
  const address = ipv4Of(bytes, start, end);
  if (address === undefined) return 0;
  out[0] = 0;
  out[1] = 0;
  out[2] = MAPPED;
  out[3] = address;
  return 4;
}

/** Four decimal octets without leading zeros. */
function ipv4Of(bytes: Uint8Array, start: number, end: number): number | undefined {
  let address = 0;
  let at = start;
  for (let octet = 0; octet < 4; octet++) {
    if (octet > 0 && bytes[at++] !== POINT) return undefined;
    const first = at;
    let value = 0;
    for (; at < end && at < first + 3 && bytes[at]! >= 0x30 && bytes[at]! <= 0x39; at++) {
      value = value * 10 + bytes[at]! - 0x30;
    }
    if (at === first || value > 255 || (at > first + 1 && bytes[first] === 0x30)) return undefined;
    address = address * 256 + value;
  }
  return at === end ? address : undefined;
}

const groups = new Uint16Array(8);

/** RFC 4291 section 2.2: eight groups, `::` for one or more of zeros, IPv4 for the last two. */
function readIpv6(bytes: Uint8Array, start: number, end: number, out: Uint32Array): boolean {
  let count = 0;
  let gapAt = -1;
  let at = start;
  if (bytes[at] === COLON && (at + 1 >= end || bytes[at + 1] !== COLON)) return false;
  while (at < end) {
    if (at + 1 < end && bytes[at] === COLON && bytes[at + 1] === COLON) {
      if (gapAt >= 0) return false;
      gapAt = count;
      at += 2;
      if (at === end) break;
    } else if (count > 0 && bytes[at++] !== COLON) return false;
    if (count === 8) return false;
    const first = at;
    let value = 0;
    for (; at < end && at < first + 4; at++) {
      const digit = hexDigit(bytes[at]!);
      if (digit < 0) break;
      value = value * 16 + digit;
    }
    if (at < end && bytes[at] === POINT) {
      const tail = ipv4Of(bytes, first, end);
      if (tail === undefined || count > 6) return false;
      groups[count++] = tail >>> 16;
      groups[count++] = tail & 0xffff;
      at = end;
    } else {
      if (at === first) return false;
      groups[count++] = value;
    }
  }
  if (gapAt < 0 ? count !== 8 : count > 7) return false;
  if (gapAt >= 0) {
    groups.copyWithin(8 - (count - gapAt), gapAt, count);
    groups.fill(0, gapAt, 8 - (count - gapAt));
  }
  for (let word = 0; word < IP_WORDS; word++) out[word] = groups[word * 2]! * 65536 + groups[word * 2 + 1]!;
  return true;
}

/** Canonical text of the address whose words are at `at`. */
export function formatIpWords(words: Uint32Array, at: number): string {
  if (words[at] === 0 && words[at + 1] === 0 && words[at + 2] === MAPPED) {
    const address = words[at + 3]!;
    return `${address >>> 24}.${(address >>> 16) & 255}.${(address >>> 8) & 255}.${address & 255}`;
  }
  const text: string[] = [];
  for (let word = at; word < at + IP_WORDS; word++) {
    text.push((words[word]! >>> 16).toString(16), (words[word]! & 0xffff).toString(16));
  }
  return parseIp(text.join(':'));
}

/** Words of a canonical address. */
export function ipWords(ip: string): Uint32Array {
  const out = new Uint32Array(IP_WORDS);
  const bytes = Buffer.from(ip, 'latin1');
  readIp(bytes, 0, bytes.length, out);
  return out;
}
