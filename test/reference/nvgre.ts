/** NVGRE a second time, from RFC 7637, 2784 and 2890: what is sent, and what becomes of what is received. */
import type { DropName } from '../../src/datapath/drop.js';
import { bigEndian, concat } from './frames.js';

/** RFC 7637 section 3.2. */
export function encap(vnetid: number, frame: Uint8Array, flowId = 0): Uint8Array {
  return concat(Uint8Array.of(0x20, 0, 0x65, 0x58), bigEndian(vnetid, 3), Uint8Array.of(flowId), frame);
}

/** Likewise back, in the order of the checks. */
export function decap(datagram: Uint8Array): { vnetid: number; frame: Uint8Array } | DropName {
  if (datagram.length < 8) return 'rx_short_datagram';
  // Bit 0 is the highest: checksum, reserved, key, sequence number, two reserved ones.
  const isKeyAlone = Math.floor(datagram[0]! / 4) === 0b001000;
  const version = datagram[1]! % 8;
  if (!isKeyAlone || version !== 0) return 'rx_bad_header';
  if (datagram[2] !== 0x65 || datagram[3] !== 0x58) return 'rx_not_ethernet';
  const [high, middle, low] = datagram.subarray(4, 7);
  return { vnetid: high! * 65536 + middle! * 256 + low!, frame: datagram.subarray(8) };
}
