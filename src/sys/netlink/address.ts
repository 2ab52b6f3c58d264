/** Addresses and neighbours as rtnetlink has them (man 7 rtnetlink: ifaddrmsg, ndmsg). */
import ipaddr from 'ipaddr.js';
import { OverlayError } from '../../errors.js';
import { familyOf, ipNativeBytes, parseIp } from '../../ip.js';
import { AF_INET, AF_INET6, macros, structs } from '../abi.js';
import { type Attribute, encodeMac, type Message, readMac, splitBody, viewOf } from './message.js';

const { IFA_ADDRESS, IFA_LOCAL, IFA_F_NODAD } = macros['linux/if_addr.h'];
const { NDA_DST, NDA_LLADDR, NUD_PERMANENT } = macros['linux/neighbour.h'];
const ADDRESS = structs.ifaddrmsg;
const NEIGHBOUR = structs.ndmsg;

export interface Address {
  readonly index: number;
  readonly address: string;
  readonly prefix: number;
}

export interface Neighbour {
  readonly index: number;
  readonly ip: string;
  readonly mac: string;
}

/** Fixed part and attributes for `10.0.0.1/24`. Throws EINVAL. IPv6 addresses skip duplicate detection on request. */
export function encodeAddress(
  index: number,
  text: string,
  options: { noDad?: boolean },
): [fixed: Uint8Array, attributes: Attribute[]] {
  const [ipText = '', prefixText = ''] = text.split('/');
  const ip = parseIp(ipText);
  const prefix = Number(prefixText);
  const most = familyOf(ip) === 4 ? 32 : 128;
  if (!/^\d{1,3}$/.test(prefixText) || prefix > most) {
    throw new OverlayError('EINVAL', 'bad_prefix', `'${text}' needs a prefix length of 0 to ${most}`);
  }
  const fixed = new Uint8Array(ADDRESS.size);
  fixed[ADDRESS.ifa_family] = familyOf(ip) === 4 ? AF_INET : AF_INET6;
  fixed[ADDRESS.ifa_prefixlen] = prefix;
  fixed[ADDRESS.ifa_flags] = options.noDad && familyOf(ip) === 6 ? IFA_F_NODAD : 0;
  viewOf(fixed).setUint32(ADDRESS.ifa_index, index, true);
  const bytes = ipNativeBytes(ip);
  return [
    fixed,
    [
      [IFA_LOCAL, bytes],
      [IFA_ADDRESS, bytes],
    ],
  ];
}

export function decodeAddress({ body }: Message): Address {
  const [fixed, attributes] = splitBody(body, ADDRESS.size);
  const bytes = attributes.get(IFA_LOCAL) ?? attributes.get(IFA_ADDRESS);
  return {
    index: fixed.getUint32(ADDRESS.ifa_index, true),
    address: readIp(bytes),
    prefix: fixed.getUint8(ADDRESS.ifa_prefixlen),
  };
}

/** Fixed part and attributes of a permanent neighbour. */
export function encodeNeighbour(index: number, ipText: string, mac?: string): [Uint8Array, Attribute[]] {
  const ip = parseIp(ipText);
  const fixed = new Uint8Array(NEIGHBOUR.size);
  fixed[NEIGHBOUR.ndm_family] = familyOf(ip) === 4 ? AF_INET : AF_INET6;
  viewOf(fixed).setInt32(NEIGHBOUR.ndm_ifindex, index, true);
  viewOf(fixed).setUint16(NEIGHBOUR.ndm_state, NUD_PERMANENT, true);
  const attributes: Attribute[] = [[NDA_DST, ipNativeBytes(ip)]];
  if (mac !== undefined) attributes.push([NDA_LLADDR, encodeMac(mac)]);
  return [fixed, attributes];
}

export function decodeNeighbour({ body }: Message): Neighbour {
  const [fixed, attributes] = splitBody(body, NEIGHBOUR.size);
  return {
    index: fixed.getInt32(NEIGHBOUR.ndm_ifindex, true),
    ip: readIp(attributes.get(NDA_DST)),
    mac: readMac(attributes.get(NDA_LLADDR)),
  };
}

/** Canonical text; empty for what is no address. */
function readIp(bytes: Uint8Array | undefined): string {
  if (bytes?.length !== 4 && bytes?.length !== 16) return '';
  return parseIp(ipaddr.fromByteArray(Array.from(bytes)).toString());
}
