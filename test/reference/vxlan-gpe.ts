/** VXLAN-GPE a second time, from draft-ietf-nvo3-vxlan-gpe-13 section 3: what is sent, and what becomes of what is received. */
import type { DropName } from '../../src/datapath/drop.js';
import { bigEndian, concat } from './frames.js';

export function encap(vnetid: number, frame: Uint8Array): Uint8Array {
  return concat(Uint8Array.of(0b00001100, 0, 0, 3), bigEndian(vnetid, 3), Uint8Array.of(0), frame);
}

/** Likewise back, in the order of the checks. */
export function decap(datagram: Uint8Array): { vnetid: number; frame: Uint8Array } | DropName {
  if (datagram.length < 8) return 'rx_short_datagram';
  const bits = [...datagram[0]!.toString(2).padStart(8, '0')].map((bit) => bit === '1');
  const [, , high, low, hasVni, hasProtocol, , isOam] = bits;
  if (high || low || !hasVni) return 'rx_bad_header';
  if (isOam) return 'rx_control_packet';
  if (hasProtocol && datagram[3] !== 3) return 'rx_not_ethernet';
  const [first, second, third] = datagram.subarray(4, 7);
  return { vnetid: first! * 65536 + second! * 256 + third!, frame: datagram.subarray(8) };
}
