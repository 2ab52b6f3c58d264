/**
 * Where the headers of a frame lie: up to two VLAN tags (IEEE 802.1Q), IPv4 (RFC 791), IPv6 and its extension headers
 * (RFC 8200). Only what may be cut or joined is found: whole packets of TCP or UDP that fill their frame.
 */
import {
  ETHERTYPE_IPV4,
  ETHERTYPE_IPV6,
  ETHERTYPE_SERVICE_VLAN,
  ETHERTYPE_VLAN,
  IPPROTO_UDP,
} from './frames.js';

const TCP_BYTES = 20;
const UDP_BYTES = 8;
const TCP_DATA_OFFSET = 12;
const ETHERNET_BYTES = 14;
const TAG_BYTES = 4;
const TAGS_MAX = 7;
const IPV4_BYTES = 20;
const IPV6_BYTES = 40;
/** Hop-by-hop options, routing, destination options: those behind which the kernel cuts segments. */
const EXTENSION_TYPES = [0, 43, 60];
const EXTENSIONS_MAX = 6;

export interface Headers {
  readonly family: 4 | 6;
  /** What the transport header is, by the IP header. */
  readonly protocol: number;
  /** Offset of the IP header in the frame. */
  readonly ip: number;
  /** Offset of the transport header in the frame. */
  readonly transport: number;
  /** Behind the IP header there are IPv4 options or IPv6 extension headers. */
  readonly hasMore: boolean;
}

/** Two bytes, most significant first. */
export function read16(bytes: Uint8Array, at: number): number {
  return bytes[at]! * 256 + bytes[at + 1]!;
}

/** Four bytes, most significant first. */
export function read32(bytes: Uint8Array, at: number): number {
  return read16(bytes, at) * 65536 + read16(bytes, at + 2);
}

/** Undefined for what is not IP, is a fragment, or is not as long as its IP header says. */
export function findHeaders(frame: Uint8Array): Headers | undefined {
  let ip = ETHERNET_BYTES;
  for (let tags = 0; tags < TAGS_MAX && isTag(frame, ip - 2); tags++) ip += TAG_BYTES;
  if (frame.length < ip) return undefined;
  const type = read16(frame, ip - 2);
  if (type === ETHERTYPE_IPV4) return findIpv4(frame, ip);
  if (type === ETHERTYPE_IPV6) return findIpv6(frame, ip);
  return undefined;
}

function isTag(frame: Uint8Array, at: number): boolean {
  if (frame.length < at + 2) return false;
  return [ETHERTYPE_VLAN, ETHERTYPE_SERVICE_VLAN].includes(read16(frame, at));
}

function findIpv4(frame: Uint8Array, ip: number): Headers | undefined {
  if (frame.length < ip + IPV4_BYTES) return undefined;
  const version = Math.floor(frame[ip]! / 16);
  const headerBytes = (frame[ip]! % 16) * 4;
  const totalBytes = read16(frame, ip + 2);
  if (version !== 4 || headerBytes < IPV4_BYTES) return undefined;
  if (totalBytes < headerBytes || ip + totalBytes !== frame.length) return undefined;
  // Without the reserved bit and DF: More-Fragments and the offset.
  const isFragment = read16(frame, ip + 6) % 0x4000 !== 0;
  if (isFragment) return undefined;
  const hasMore = headerBytes > IPV4_BYTES;
  return { family: 4, protocol: frame[ip + 9]!, ip, transport: ip + headerBytes, hasMore };
}

function findIpv6(frame: Uint8Array, ip: number): Headers | undefined {
  if (frame.length < ip + IPV6_BYTES) return undefined;
  if (Math.floor(frame[ip]! / 16) !== 6) return undefined;
  if (ip + IPV6_BYTES + read16(frame, ip + 4) !== frame.length) return undefined;
  let protocol = frame[ip + 6]!;
  let at = ip + IPV6_BYTES;
  for (let seen = 0; seen < EXTENSIONS_MAX && EXTENSION_TYPES.includes(protocol); seen++) {
    if (frame.length < at + 8) return undefined;
    protocol = frame[at]!;
    at += (frame[at + 1]! + 1) * 8;
    if (frame.length < at) return undefined;
  }
  return { family: 6, protocol, ip, transport: at, hasMore: at > ip + IPV6_BYTES };
}

/** Bytes of the TCP or UDP header; undefined when it is cut off, or says of itself what cannot be. */
export function transportHeaderBytes(frame: Uint8Array, headers: Headers): number | undefined {
  const { transport, protocol } = headers;
  const left = frame.length - transport;
  if (protocol === IPPROTO_UDP) {
    const isWhole = left >= UDP_BYTES && read16(frame, transport + 4) === left;
    return isWhole ? UDP_BYTES : undefined;
  }
  if (left < TCP_BYTES) return undefined;
  const bytes = Math.floor(frame[transport + TCP_DATA_OFFSET]! / 16) * 4;
  return bytes >= TCP_BYTES && bytes <= left ? bytes : undefined;
}
