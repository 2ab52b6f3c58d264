/**
 * IP addresses of links (struct ifaddrmsg, IFA_...) and neighbours (struct ndmsg, NDA_...), man 7 rtnetlink.
 * Neighbours are the entries of the ARP and NDP tables: which MAC an IP address has on a link.
 */
import ipaddr from 'ipaddr.js';
import { OverlayError } from '../../errors.js';
import { familyOf, ipNativeBytes, parseIp } from '../../ip.js';
import { AF_INET, AF_INET6, macros, structs } from '../abi.js';
import { macBytes, macText } from './link.js';
import {
  type Attribute,
  encodeBody,
  fixedPart,
  malformed,
  parseAttributes,
  readU32,
  u32,
  viewOf,
} from './message.js';
import type { RequestSocket } from './socket.js';

const { NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REPLACE } = macros['linux/netlink.h'];
const { RTM_DELADDR, RTM_DELNEIGH, RTM_GETADDR, RTM_GETNEIGH, RTM_NEWADDR, RTM_NEWNEIGH } =
  macros['linux/rtnetlink.h'];
const { IFA_ADDRESS, IFA_F_NODAD, IFA_FLAGS, IFA_LOCAL } = macros['linux/if_addr.h'];
const { NDA_DST, NDA_LLADDR, NUD_PERMANENT } = macros['linux/neighbour.h'];

const ADDRESS = structs.ifaddrmsg;
const NEIGHBOUR = structs.ndmsg;

export interface Address {
  /** Of its link. */
  readonly index: number;
  /** With its prefix length: '192.0.2.1/24'. */
  readonly address: string;
  /** IFA_F_... */
  readonly flags: number;
}

export interface AddressOptions {
  /** An IPv6 address is usable at once, without looking for a duplicate (RFC 4862 section 5.4). */
  readonly noDad?: boolean;
}

export interface Neighbour {
  /** Of its link. */
  readonly index: number;
  readonly ip: string;
  /** '' while it is not known. */
  readonly mac: string;
  /** NUD_... */
  readonly state: number;
}

/**
 * Gives a link an address 'ip/prefix'. Throws EINVAL `bad_address`, SystemError EEXIST when the link has it, ENODEV
 * without the link.
 */
export function addAddress(
  socket: RequestSocket,
  index: number,
  address: string,
  options: AddressOptions = {},
): void {
  const { fixed, attributes, family } = encodeAddress(index, address);
  if (options.noDad && family === 6) attributes.push({ type: IFA_FLAGS, value: u32(IFA_F_NODAD) });
  const flags = NLM_F_CREATE | NLM_F_EXCL;
  const what = `add address ${address} to link ${index}`;
  socket.request({ type: RTM_NEWADDR, flags, body: encodeBody(fixed, attributes), what });
}

/** The reverse of `addAddress`. Throws SystemError EADDRNOTAVAIL when the link does not have it. */
export function removeAddress(socket: RequestSocket, index: number, address: string): void {
  const { fixed, attributes } = encodeAddress(index, address);
  const what = `remove address ${address} from link ${index}`;
  socket.request({ type: RTM_DELADDR, body: encodeBody(fixed, attributes), what });
}

/** IPv4 and IPv6 addresses of one link, or of every link of the namespace. */
export function listAddresses(socket: RequestSocket, index?: number): Address[] {
  const body = new Uint8Array(ADDRESS.size);
  return socket
    .request({ type: RTM_GETADDR, flags: NLM_F_DUMP, body, what: 'list addresses' })
    .map(parseAddress)
    .filter((entry) => entry !== undefined)
    .filter((entry) => index === undefined || entry.index === index);
}

/** Sets the MAC of an IP address on a link for good, in place of what was known. Throws EINVAL, SystemError. */
export function addNeighbour(socket: RequestSocket, index: number, ip: string, mac: string): void {
  const body = encodeNeighbour(index, ip, NUD_PERMANENT, [{ type: NDA_LLADDR, value: macBytes(mac) }]);
  const flags = NLM_F_CREATE | NLM_F_REPLACE;
  socket.request({ type: RTM_NEWNEIGH, flags, body, what: `add neighbour ${ip} ${mac} to link ${index}` });
}

/** Throws SystemError ENOENT when there is no such neighbour. */
export function removeNeighbour(socket: RequestSocket, index: number, ip: string): void {
  const body = encodeNeighbour(index, ip, 0, []);
  socket.request({ type: RTM_DELNEIGH, body, what: `remove neighbour ${ip} from link ${index}` });
}

/** IPv4 and IPv6 neighbours on one link, or on every link of the namespace. */
export function listNeighbours(socket: RequestSocket, index?: number): Neighbour[] {
  const body = new Uint8Array(NEIGHBOUR.size);
  return socket
    .request({ type: RTM_GETNEIGH, flags: NLM_F_DUMP, body, what: 'list neighbours' })
    .map(parseNeighbour)
    .filter((entry) => entry !== undefined)
    .filter((entry) => index === undefined || entry.index === index);
}

/** An address from the body of an RTM_NEWADDR or RTM_DELADDR; undefined when it is not IP. Throws EIO. */
export function parseAddress(body: Uint8Array): Address | undefined {
  const fixed = fixedPart(body, ADDRESS.size);
  const attributes = parseAttributes(body, ADDRESS.size);
  const family = fixed.getUint8(ADDRESS.ifa_family);
  if (family !== AF_INET && family !== AF_INET6) return undefined;
  // On a point-to-point link IFA_ADDRESS is the other end's.
  const bytes = attributes.get(IFA_LOCAL) ?? attributes.get(IFA_ADDRESS);
  return {
    index: fixed.getUint32(ADDRESS.ifa_index, true),
    address: `${ipText(family, bytes)}/${fixed.getUint8(ADDRESS.ifa_prefixlen)}`,
    flags: readU32(attributes.get(IFA_FLAGS)) ?? fixed.getUint8(ADDRESS.ifa_flags),
  };
}

/** A neighbour from the body of an RTM_NEWNEIGH; undefined when it is not IP. Throws EIO. */
export function parseNeighbour(body: Uint8Array): Neighbour | undefined {
  const fixed = fixedPart(body, NEIGHBOUR.size);
  const attributes = parseAttributes(body, NEIGHBOUR.size);
  const family = fixed.getUint8(NEIGHBOUR.ndm_family);
  if (family !== AF_INET && family !== AF_INET6) return undefined;
  return {
    index: fixed.getInt32(NEIGHBOUR.ndm_ifindex, true),
    ip: ipText(family, attributes.get(NDA_DST)),
    mac: macText(attributes.get(NDA_LLADDR) ?? new Uint8Array()),
    state: fixed.getUint16(NEIGHBOUR.ndm_state, true),
  };
}

/** Fixed struct and attributes of a message about an address. Throws EINVAL `bad_address`. */
function encodeAddress(
  index: number,
  address: string,
): { fixed: Uint8Array; attributes: Attribute[]; family: 4 | 6 } {
  const [host = '', length = '', ...rest] = address.split('/');
  const ip = parseIp(host);
  const family = familyOf(ip);
  const longest = family === 4 ? 32 : 128;
  if (!/^\d{1,3}$/.test(length) || Number(length) > longest || rest.length > 0) {
    const message = `'${address.slice(0, 64)}' needs a prefix length of 0 to ${longest}, such as ${ip}/${longest}`;
    throw new OverlayError('EINVAL', 'bad_address', message);
  }
  const fixed = new Uint8Array(ADDRESS.size);
  const view = viewOf(fixed);
  view.setUint8(ADDRESS.ifa_family, family === 4 ? AF_INET : AF_INET6);
  view.setUint8(ADDRESS.ifa_prefixlen, Number(length));
  view.setUint32(ADDRESS.ifa_index, index, true);
  const value = ipNativeBytes(ip);
  const attributes = [
    { type: IFA_LOCAL, value },
    { type: IFA_ADDRESS, value },
  ];
  return { fixed, attributes, family };
}

/** Body of a message about a neighbour. Throws EINVAL `bad_address`. */
function encodeNeighbour(
  index: number,
  ip: string,
  state: number,
  attributes: readonly Attribute[],
): Uint8Array {
  const canonical = parseIp(ip);
  const fixed = new Uint8Array(NEIGHBOUR.size);
  const view = viewOf(fixed);
  view.setUint8(NEIGHBOUR.ndm_family, familyOf(canonical) === 4 ? AF_INET : AF_INET6);
  view.setInt32(NEIGHBOUR.ndm_ifindex, index, true);
  view.setUint16(NEIGHBOUR.ndm_state, state, true);
  return encodeBody(fixed, [{ type: NDA_DST, value: ipNativeBytes(canonical) }, ...attributes]);
}

/** Canonical text of an address in an attribute, which must be there and of its family's length. */
export function ipText(family: number, bytes: Uint8Array | undefined): string {
  const length = family === AF_INET ? 4 : 16;
  if (bytes?.length !== length) throw malformed('an IP address is missing or of a wrong length');
  const ip = ipaddr.fromByteArray([...bytes]);
  return ip instanceof ipaddr.IPv6 ? ip.toRFC5952String() : ip.toString();
}
