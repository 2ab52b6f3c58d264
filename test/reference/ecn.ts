/** ECN at the end of a tunnel a second time, from RFC 6040 section 4.2 and RFC 791, RFC 8200 for where the field is. */
import { adjusted } from './adjust.js';
import { bigEndian } from './frames.js';

const NOT_ECT = 0;
const ECT_1 = 1;
const ECT_0 = 2;
const CE = 3;

/** Figure 4: inner field, then outer field; undefined for a drop. */
const table: Readonly<Record<number, Readonly<Record<number, number | undefined>>>> = {
  [NOT_ECT]: { [NOT_ECT]: NOT_ECT, [ECT_0]: NOT_ECT, [ECT_1]: NOT_ECT, [CE]: undefined },
  [ECT_0]: { [NOT_ECT]: ECT_0, [ECT_0]: ECT_0, [ECT_1]: ECT_1, [CE]: CE },
  [ECT_1]: { [NOT_ECT]: ECT_1, [ECT_0]: ECT_1, [ECT_1]: ECT_1, [CE]: CE },
  [CE]: { [NOT_ECT]: CE, [ECT_0]: CE, [ECT_1]: CE, [CE]: CE },
};

interface IpHeader {
  readonly family: 4 | 6;
  readonly at: number;
}

/** The IP header of a frame behind at most seven tags, when all of its fixed part is there. */
export function findIp(frame: Uint8Array): IpHeader | undefined {
  let at = 12;
  const typeAt = () => frame[at]! * 256 + frame[at + 1]!;
  for (let tags = 0; tags < 7 && (typeAt() === 0x8100 || typeAt() === 0x88a8); tags++) {
    if (frame.length < at + 6) return undefined;
    at += 4;
  }
  const family = typeAt() === 0x0800 ? 4 : typeAt() === 0x86dd ? 6 : undefined;
  at += 2;
  if (family === undefined || frame.length < at + (family === 4 ? 20 : 40)) return undefined;
  return Math.floor(frame[at]! / 16) === family ? { family, at } : undefined;
}

/** Traffic class of the inner header, 0 without one. */
export function innerClass(frame: Uint8Array): number {
  const ip = findIp(frame);
  if (!ip) return 0;
  const [first, second] = frame.subarray(ip.at, ip.at + 2) as unknown as [number, number];
  return ip.family === 4 ? second : (first % 16) * 16 + Math.floor(second / 16);
}

/** The frame with the field it has behind the tunnel; undefined when it is dropped. */
export function decapEcn(frame: Uint8Array, outer: number): Uint8Array | undefined {
  const ip = findIp(frame);
  if (!ip) return frame;
  const inner = innerClass(frame) % 4;
  const field = table[inner]![outer];
  if (field === undefined) return undefined;
  if (field === inner) return frame;
  const out = frame.slice();
  const { at, family } = ip;
  if (family === 6) {
    out[at + 1] = (out[at + 1]! & 0xcf) + field * 16;
    return out;
  }
  out[at + 1] = (out[at + 1]! & 0xfc) + field;
  const checksum = frame[at + 10]! * 256 + frame[at + 11]!;
  out.set(bigEndian(adjusted(checksum, frame.slice(at, at + 2), out.slice(at, at + 2)), 2), at + 10);
  return out;
}
