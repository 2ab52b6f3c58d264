/** The slow twin of `assembly/mss.ts`: a SYN that offers no more than it may, by RFC 9293 section 3.2, checksum made anew. */
import { onesComplementSum, pseudoHeader } from './frames.js';

const SYN = 2;

export interface MssLimits {
  readonly 4: number;
  readonly 6: number;
}

/** Where the TCP header of a frame begins, with its bytes by the IP header; undefined when there is none to be seen. */
function tcpOf(
  frame: Uint8Array,
): { family: 4 | 6; ip: number; at: number; bytes: number; ends: [Uint8Array, Uint8Array] } | undefined {
  const view = new DataView(frame.buffer, frame.byteOffset, frame.length);
  let at = 14;
  let type = view.getUint16(12);
  for (let tags = 0; tags < 2 && (type === 0x8100 || type === 0x88a8); tags++) {
    type = view.getUint16(at + 2);
    at += 4;
  }
  const ip = at;
  if (type === 0x0800) {
    const header = (frame[at]! & 15) * 4;
    if ((view.getUint16(at + 6) & 0x3fff) !== 0 || frame[at + 9] !== 6) return undefined;
    const bytes = view.getUint16(at + 2) - header;
    return {
      family: 4,
      ip,
      at: at + header,
      bytes,
      ends: [frame.slice(at + 12, at + 16), frame.slice(at + 16, at + 20)],
    };
  }
  if (type !== 0x86dd) return undefined;
  const end = at + 40 + view.getUint16(at + 4);
  const ends: [Uint8Array, Uint8Array] = [frame.slice(at + 8, at + 24), frame.slice(at + 24, at + 40)];
  let next = frame[at + 6]!;
  at += 40;
  while (next === 0 || next === 43 || next === 60 || next === 51) {
    const bytes = next === 51 ? (frame[at + 1]! + 2) * 4 : (frame[at + 1]! + 1) * 8;
    next = frame[at]!;
    at += bytes;
  }
  return next === 6 ? { family: 6, ip, at, bytes: end - at, ends } : undefined;
}

/** @param isUnfinished the checksum field holds the pseudo-header's sum, @param room largest frame of the way, 0 for any */
export function clamped(given: Uint8Array, limits: MssLimits, isUnfinished: boolean, room = 0): Uint8Array {
  const frame = given.slice();
  const tcp = tcpOf(frame);
  if (!tcp || tcp.bytes < 20 || (frame[tcp.at + 13]! & SYN) === 0) return frame;
  const header = (frame[tcp.at + 12]! >> 4) * 4;
  if (header > tcp.bytes) return frame;
  const byRoom = Math.max(88, room - tcp.ip - (tcp.family === 4 ? 40 : 60));
  const most = room === 0 ? limits[tcp.family] : Math.min(limits[tcp.family], byRoom);
  let isChanged = false;
  for (let at = 20; at < header; ) {
    const kind = frame[tcp.at + at]!;
    if (kind === 0) break;
    if (kind === 1) {
      at++;
      continue;
    }
    const length = at + 1 < header ? frame[tcp.at + at + 1]! : 0;
    if (length < 2 || at + length > header) break;
    const offered = frame[tcp.at + at + 2]! * 256 + frame[tcp.at + at + 3]!;
    if (kind === 2 && length === 4 && offered > most) {
      frame[tcp.at + at + 2] = most >> 8;
      frame[tcp.at + at + 3] = most & 255;
      isChanged = true;
    }
    at += length;
  }
  if (!isChanged || isUnfinished) return frame;
  const segment = frame.slice(tcp.at, tcp.at + tcp.bytes);
  segment.set([0, 0], 16);
  const pseudo = pseudoHeader(...tcp.ends, 6, tcp.bytes);
  const whole = new Uint8Array([...pseudo, ...segment]);
  const sum = 0xffff - onesComplementSum(whole);
  frame.set([sum >> 8, sum & 255], tcp.at + 16);
  return frame;
}
