/** What encapsulation puts around the payload of an Ethernet frame: the one place where that is added up. */
import type { Family } from '../ip.js';
import { ENCAP_FLAG_VLAN_TAG, type EncapPlugin } from './plugin.js';

const IP_BYTES: Readonly<Record<Family, number>> = { 4: 20, 6: 40 };
const UDP_BYTES = 8;
const ETHERNET_BYTES = 14;
const VLAN_TAG_BYTES = 4;

export interface Headers {
  readonly encap: Pick<EncapPlugin, 'name' | 'flags' | 'transport'>;
  /** The encapsulation's own header, with its options. */
  readonly encapBytes: number;
  /** Of the outer IP header. */
  readonly family: Family;
}

/** One header. */
export interface Overhead {
  readonly what: string;
  readonly bytes: number;
}

/** Headers in front of an inner frame, from the outside to the inside. */
export function outerOverhead({ encap, encapBytes, family }: Headers): Overhead[] {
  const ip = { what: `IPv${family}`, bytes: IP_BYTES[family] };
  const own = { what: encap.name, bytes: encapBytes };
  return encap.transport === 'gre' ? [ip, own] : [ip, { what: 'UDP', bytes: UDP_BYTES }, own];
}

/** The same and the header of the inner frame: what a packet of the MTU needs beyond itself. */
export function overhead(headers: Headers): Overhead[] {
  return [...outerOverhead(headers), { what: 'Ethernet', bytes: ETHERNET_BYTES }];
}

/** The same for a frame with a tag, where the encapsulation carries such frames: the most there can be. */
export function taggedOverhead(headers: Headers): Overhead[] {
  const isCarried = (headers.encap.flags & ENCAP_FLAG_VLAN_TAG) !== 0;
  return [...overhead(headers), ...(isCarried ? [{ what: 'VLAN', bytes: VLAN_TAG_BYTES }] : [])];
}

/** Bytes of them all. */
export function overheadBytes(parts: readonly Overhead[]): number {
  return parts.reduce((sum, { bytes }) => sum + bytes, 0);
}

/** ` - 20 IPv4 - 8 UDP`: each behind the sign. */
export function formatOverhead(sign: '+' | '-', parts: readonly Overhead[]): string {
  return parts.map(({ what, bytes }) => ` ${sign} ${bytes} ${what}`).join('');
}
