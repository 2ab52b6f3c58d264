/**
 * Inner headers: where layer 3 and layer 4 of an Ethernet frame begin. Bounds are checked against the
 * frame's length before every read, so nothing outside `[frame, frame + length)` is ever touched.
 *
 * Formats: Ethernet and 802.1Q/802.1ad tags (IEEE 802.3, 802.1Q), IPv4 (RFC 791), IPv6 and its extension
 * headers (RFC 8200), AH (RFC 4302).
 */

import { NONE } from './layout';

export const ETHERNET_BYTES: u32 = 14;
export const VLAN_TAG_BYTES: u32 = 4;
export const IPV4_BYTES: u32 = 20;
export const IPV6_BYTES: u32 = 40;
export const TCP_BYTES: u32 = 20;
export const UDP_BYTES: u32 = 8;

// EtherTypes as a little-endian load sees them.
export const ETHERTYPE_IPV4: u16 = 0x0008;
export const ETHERTYPE_IPV6: u16 = 0xdd86;
const ETHERTYPE_VLAN: u16 = 0x0081;
const ETHERTYPE_SERVICE_VLAN: u16 = 0xa888;
const ETHERTYPE_OFFSET: u32 = 12;
/** Tags that the kernel looks behind, and so at most those of super-frames that it hands over (VLAN_MAX_DEPTH of if_vlan.h is one more). */
const VLAN_TAGS_MAX: u32 = 7;

export const HOP_BY_HOP: u32 = 0;
export const TCP: u32 = 6;
export const UDP: u32 = 17;
export const ROUTING: u32 = 43;
export const FRAGMENT: u32 = 44;
export const GRE: u32 = 47;
export const AUTHENTICATION: u32 = 51;
export const DESTINATION_OPTIONS: u32 = 60;
/** Extension headers that are walked before giving up on finding layer 4. */
const EXTENSIONS_MAX: u32 = 6;

/** Offset of the IP header from the frame's start; valid when `family` is not 0. */
export let l3: u32 = 0;
/** Offset of the transport header, or 0 when there is none to be seen (a fragment, cut off, unknown). */
export let l4: u32 = 0;
/** IP protocol of the transport header; valid when `l4` is not 0. */
export let protocol: u32 = 0;
/** Bytes of transport header and payload by the IP header; valid when `l4` is not 0. */
export let l4Bytes: u32 = 0;
/** 4, 6, or 0 for anything else. */
export let family: u32 = 0;
/** There is an authentication header (RFC 4302) in front of the transport header. */
export let isAuthenticated: bool = false;

// @ts-expect-error: decorator
@inline
export function isTagged(frame: usize): bool {
  const type = load<u16>(frame, ETHERTYPE_OFFSET);
  return type == ETHERTYPE_VLAN || type == ETHERTYPE_SERVICE_VLAN;
}

// What nearly every frame is: untagged, whole, without options or extension headers. Headers lie where these say.
export const PLAIN_L3: u32 = ETHERNET_BYTES;
export const PLAIN_IPV4_L4: u32 = ETHERNET_BYTES + IPV4_BYTES;
export const PLAIN_IPV6_L4: u32 = ETHERNET_BYTES + IPV6_BYTES;
/** Version 4 and a header of 20 bytes. */
export const VERSION_AND_BYTES: u8 = 0x45;
/** More-fragments flag and offset, as a little-endian load sees them. */
const FRAGMENT_BITS: u16 = 0xff3f;

// @ts-expect-error: decorator
@inline
export function etherType(frame: usize): u16 {
  return load<u16>(frame, ETHERTYPE_OFFSET);
}

/** Bytes of transport header and payload of a plain IPv4 frame, or NONE for any other, which `parse` takes. */
// @ts-expect-error: decorator
@inline
export function plainIpv4Bytes(frame: usize, length: u32): u32 {
  if (length < PLAIN_IPV4_L4) return NONE;
  if (load<u8>(frame, PLAIN_L3) != VERSION_AND_BYTES) return NONE;
  if (load<u16>(frame, PLAIN_L3 + 6) & FRAGMENT_BITS) return NONE;
  const bytes = u32(bswap(load<u16>(frame, PLAIN_L3 + 2))) - IPV4_BYTES;
  return bytes <= length - PLAIN_IPV4_L4 ? bytes : NONE;
}

/**
 * The same of an IPv6 frame whose header is followed by what its protocol says. That may be an extension header; only
 * when it is TCP or UDP is the frame a plain one.
 */
// @ts-expect-error: decorator
@inline
export function plainIpv6Bytes(frame: usize, length: u32): u32 {
  if (length < PLAIN_IPV6_L4) return NONE;
  if (load<u8>(frame, PLAIN_L3) >> 4 != 6) return NONE;
  const bytes = u32(bswap(load<u16>(frame, PLAIN_L3 + 4)));
  return bytes <= length - PLAIN_IPV6_L4 ? bytes : NONE;
}

/** False for what `parse` could find nothing in: neither IP nor a tag that may hide it. */
// @ts-expect-error: decorator
@inline
export function mayCarryIp(type: u16): bool {
  return (
    type == ETHERTYPE_IPV4 ||
    type == ETHERTYPE_IPV6 ||
    type == ETHERTYPE_VLAN ||
    type == ETHERTYPE_SERVICE_VLAN
  );
}

/** The IP header that `innerIpAt` found last is IPv6. */
export let isInnerIpv6: bool = false;

/** Where the IP header of a frame begins, behind at most VLAN_TAGS_MAX tags, when all of its fixed part is there; else 0. */
export function innerIpAt(frame: usize, length: u32): u32 {
  let at = PLAIN_L3;
  let type = etherType(frame);
  for (let tags: u32 = 0; tags < VLAN_TAGS_MAX; tags++) {
    if (type != ETHERTYPE_VLAN && type != ETHERTYPE_SERVICE_VLAN) break;
    if (at + VLAN_TAG_BYTES > length) return 0;
    type = load<u16>(frame + at, 2);
    at += VLAN_TAG_BYTES;
  }
  if (type != ETHERTYPE_IPV4 && type != ETHERTYPE_IPV6) return 0;
  isInnerIpv6 = type == ETHERTYPE_IPV6;
  if (at + (isInnerIpv6 ? IPV6_BYTES : IPV4_BYTES) > length) return 0;
  return load<u8>(frame + at) >> 4 == (isInnerIpv6 ? 6 : 4) ? at : 0;
}

/** Finds the headers of a frame of at least ETHERNET_BYTES; sets the globals above. */
export function parse(frame: usize, length: u32): void {
  let at = ETHERNET_BYTES;
  let type = load<u16>(frame, ETHERTYPE_OFFSET);
  for (let tags: u32 = 0; tags < VLAN_TAGS_MAX; tags++) {
    if (type != ETHERTYPE_VLAN && type != ETHERTYPE_SERVICE_VLAN) break;
    if (at + VLAN_TAG_BYTES > length) break;
    type = load<u16>(frame + at, 2);
    at += VLAN_TAG_BYTES;
  }
  l3 = at;
  l4 = 0;
  family = 0;
  isAuthenticated = false;
  if (type == ETHERTYPE_IPV4) parseIpv4(frame, at, length);
  else if (type == ETHERTYPE_IPV6) parseIpv6(frame, at, length);
}

function parseIpv4(frame: usize, at: u32, length: u32): void {
  if (at + IPV4_BYTES > length) return;
  const ip = frame + at;
  const first = load<u8>(ip);
  if (first >> 4 != 4) return;
  const header = u32(first & 15) << 2;
  const total = u32(bswap(load<u16>(ip, 2)));
  if (header < IPV4_BYTES || total < header || at + total > length) return;
  family = 4;
  // More-fragments flag or an offset: the ports are not in every fragment, so in none.
  if (bswap(load<u16>(ip, 6)) & 0x3fff) return;
  protocol = load<u8>(ip, 9);
  l4 = at + header;
  l4Bytes = total - header;
}

function parseIpv6(frame: usize, at: u32, length: u32): void {
  if (at + IPV6_BYTES > length) return;
  const ip = frame + at;
  if (load<u8>(ip) >> 4 != 6) return;
  const end = at + IPV6_BYTES + u32(bswap(load<u16>(ip, 4)));
  if (end > length) return;
  family = 6;
  let next = u32(load<u8>(ip, 6));
  let cursor = at + IPV6_BYTES;
  for (let i: u32 = 0; i < EXTENSIONS_MAX; i++) {
    if (next == TCP || next == UDP) break;
    if (next == FRAGMENT) return;
    const isOptions = next == HOP_BY_HOP || next == ROUTING || next == DESTINATION_OPTIONS;
    if (!isOptions && next != AUTHENTICATION) break;
    if (cursor + 8 > end) return;
    const units = u32(load<u8>(frame + cursor, 1));
    next = load<u8>(frame + cursor);
    if (!isOptions) isAuthenticated = true;
    cursor += isOptions ? (units + 1) << 3 : (units + 2) << 2;
    if (cursor > end) return;
  }
  protocol = next;
  l4 = cursor;
  l4Bytes = end - cursor;
}

const ETHERTYPE_ARP: u16 = 0x0608;
const ICMPV6: u32 = 58;
const NEIGHBOUR_SOLICITATION: u8 = 135;
/** Destination port 67 as a little-endian load sees it. */
const DHCP_SERVER: u16 = 0x4300;

/** True for what varpd may answer in another's name: ARP, neighbour solicitations and DHCP, to group addresses. */
export function isProxied(frame: usize, length: u32): bool {
  if ((load<u8>(frame) & 1) == 0) return false;
  const type = etherType(frame);
  if (type == ETHERTYPE_ARP) return true;
  if (type != ETHERTYPE_IPV4 && type != ETHERTYPE_IPV6 && !isTagged(frame)) return false;
  parse(frame, length);
  if (family == 0) return load<u16>(frame + l3 - 2) == ETHERTYPE_ARP;
  if (l4 == 0) return false;
  if (family == 4) return protocol == UDP && l4Bytes >= UDP_BYTES && load<u16>(frame + l4, 2) == DHCP_SERVER;
  return protocol == ICMPV6 && l4Bytes > 0 && load<u8>(frame + l4) == NEIGHBOUR_SOLICITATION;
}
