/** The slow twin of `assembly/mss.ts`: a SYN that offers no more than it may, by RFC 9293 section 3.2, and a checksum that follows. */
import { adjusted } from './adjust.js';
import { bigEndian } from './frames.js';
import { findTransport } from './vxlan.js';

const SYN = 2;

export interface MssLimits {
  readonly 4: number;
  readonly 6: number;
}

/** Where the TCP header of a frame begins, with its bytes by the IP header; undefined when there is none to be seen. */
function tcpOf(frame: Uint8Array): { family: 4 | 6; ip: number; at: number; bytes: number } | undefined {
  const found = findTransport(frame);
  if (found?.protocol !== 6) return undefined;
  return { family: found.family, ip: found.networkStart, at: found.start, bytes: found.segment.length };
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
  const was = given.slice(tcp.at, tcp.at + header);
  const is = frame.slice(tcp.at, tcp.at + header);
  frame.set(bigEndian(adjusted(was[16]! * 256 + was[17]!, was, is), 2), tcp.at + 16);
  return frame;
}
