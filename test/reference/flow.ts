/**
 * Which flow a frame belongs to: Ethernet addresses, VLAN tags, IP addresses, protocol and ports, all the same. More is seen here
 * than can be joined: order within a flow matters to frames with padding, options and wrong checksums as well.
 */
import {
  ETHERTYPE_IPV4,
  ETHERTYPE_IPV6,
  ETHERTYPE_SERVICE_VLAN,
  ETHERTYPE_VLAN,
  IPPROTO_TCP,
  IPPROTO_UDP,
} from './frames.js';
import { read16 } from './headers.js';

export interface Flow {
  /** The same for frames of one flow alone. */
  readonly key: string;
}

const TAGS_MAX = 7;
const EXTENSIONS_MAX = 6;
const FRAGMENT = 44;
/** RFC 4302; its length counts in other units. */
const AUTHENTICATION = 51;
/** Hop-by-hop options, routing, destination options. */
const OPTION_TYPES = [0, 43, 60];

/** Where the ports are, or would be. */
interface Transport {
  readonly protocol: number;
  readonly at: number;
  readonly end: number;
}

/**
 * Undefined for what has no flow: not IP, neither TCP nor UDP, or an IP header that lies. 'hidden' for IP whose ports are not to
 * be seen, which may belong to any flow: fragments, headers that are cut off.
 */
export function findFlow(frame: Uint8Array): Flow | 'hidden' | undefined {
  let ip = 14;
  for (let tags = 0; tags < TAGS_MAX && frame.length >= ip + 4; tags++) {
    if (![ETHERTYPE_VLAN, ETHERTYPE_SERVICE_VLAN].includes(read16(frame, ip - 2))) break;
    ip += 4;
  }
  if (frame.length < ip) return undefined;
  const type = read16(frame, ip - 2);
  if (type === ETHERTYPE_IPV4) return keyOf(frame, ip, findIpv4(frame, ip), 12, 20);
  if (type === ETHERTYPE_IPV6) return keyOf(frame, ip, findIpv6(frame, ip), 8, 40);
  return undefined;
}

/** @param from where in the IP header the addresses are, up to `to` */
function keyOf(
  frame: Uint8Array,
  ip: number,
  transport: Transport | 'hidden' | undefined,
  from: number,
  to: number,
): Flow | 'hidden' | undefined {
  if (typeof transport !== 'object') return transport;
  const { protocol, at, end } = transport;
  if (protocol !== IPPROTO_TCP && protocol !== IPPROTO_UDP) return undefined;
  if (end < at + 4) return 'hidden';
  const parts = [frame.subarray(0, ip), frame.subarray(ip + from, ip + to), frame.subarray(at, at + 4)];
  return { key: [protocol, ...parts.map((part) => Buffer.from(part).toString('hex'))].join(' ') };
}

function findIpv4(frame: Uint8Array, ip: number): Transport | 'hidden' | undefined {
  if (frame.length < ip + 20) return undefined;
  const headerBytes = (frame[ip]! % 16) * 4;
  const end = ip + read16(frame, ip + 2);
  if (Math.floor(frame[ip]! / 16) !== 4 || headerBytes < 20) return undefined;
  if (end < ip + headerBytes || end > frame.length) return undefined;
  const isFragment = read16(frame, ip + 6) % 0x4000 !== 0;
  return isFragment ? 'hidden' : { protocol: frame[ip + 9]!, at: ip + headerBytes, end };
}

function findIpv6(frame: Uint8Array, ip: number): Transport | 'hidden' | undefined {
  if (frame.length < ip + 40) return undefined;
  const end = ip + 40 + read16(frame, ip + 4);
  if (Math.floor(frame[ip]! / 16) !== 6 || end > frame.length) return undefined;
  let protocol = frame[ip + 6]!;
  let at = ip + 40;
  for (let seen = 0; seen < EXTENSIONS_MAX; seen++) {
    if (protocol === FRAGMENT) return 'hidden';
    const isAuthentication = protocol === AUTHENTICATION;
    if (!isAuthentication && !OPTION_TYPES.includes(protocol)) break;
    if (end < at + 8) return 'hidden';
    protocol = frame[at]!;
    at += isAuthentication ? (frame[at + 1]! + 2) * 4 : (frame[at + 1]! + 1) * 8;
    if (end < at) return 'hidden';
  }
  return { protocol, at, end };
}
