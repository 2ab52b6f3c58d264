/**
 * This daemon's own sockets: a received frame may not lead to one. The link may be in the namespace of the underlay, or a
 * bridge or a route may lead there; the kernel would hand the inner packet to a mux, and the sender would be in every network
 * of that mux, whatever `source_check` says.
 *
 * Only UDP to the port and address of a mux counts, and GRE to the address of one. Sockets of other protocols are none of
 * ours. In doubt, a packet to an address of a mux counts: with more headers than are walked here, or with less of them than
 * the port needs. A later fragment passes: it comes to nothing without the first one, which has the port.
 */
import {
  MUX_PORT,
  OWN_OFFSET,
  OWN_PORTS,
  OWN_PREFIX_ADDRESS,
  OWN_PREFIX_BYTES,
  OWN_PREFIX_MASK,
  OWN_PREFIX_MUXES,
  OWN_PREFIXES_MAX,
  OWN_SET,
  OWN_SET_BYTES,
  OWN_SET_MUXES,
  OWN_SET_PREFIXES,
  OWN_SET_SLOTS,
  OWN_SLOT_ADDRESS,
  OWN_SLOT_BYTES,
  OWN_SLOT_MUXES,
} from './layout';
import { check } from './check';
import { MAPPED, sourceSlot } from './source';
import { muxRow } from './table';
import {
  AUTHENTICATION,
  DESTINATION_OPTIONS,
  ETHERNET_BYTES,
  ETHERTYPE_IPV4,
  ETHERTYPE_IPV6,
  etherType,
  FRAGMENT,
  GRE,
  HOP_BY_HOP,
  IPV4_BYTES,
  IPV6_BYTES,
  isTagged,
  PLAIN_IPV4_L4,
  PLAIN_IPV6_L4,
  PLAIN_L3,
  ROUTING,
  TCP,
  UDP,
  VERSION_AND_BYTES,
  VLAN_TAG_BYTES,
} from './wire';

/**
 * The kernel strips any number of tags of VLAN 0 (IEEE 802.1Q, priority tags), and one of each VLAN link that stands on
 * another. A frame with more tags than this counts, since nobody can say where it leads.
 */
const TAGS_MAX: u32 = 8;
/** Extension headers that are walked; the kernel has no bound but the packet's length. */
const EXTENSIONS_MAX: u32 = 16;
const DESTINATION_PORT: u32 = 2;
/** Source and destination port. */
const PORTS_BYTES: u32 = 4;
/** Where a plain frame says what its packet carries. */
const IPV4_PROTOCOL: usize = PLAIN_L3 + 9;
const IPV6_NEXT_HEADER: usize = PLAIN_L3 + 6;
const LATER_FRAGMENT: u16 = 0x1fff;
/** Offset of an IPv6 fragment, behind which the flags are. */
const LATER_FRAGMENT_6: u16 = 0xfff8;
const EXTENSION_BYTES: u32 = 8;

// IPv4 options (RFC 791 section 3.1).
const END_OF_OPTIONS: u8 = 0;
const NO_OPERATION: u8 = 1;
const LOOSE_SOURCE_ROUTE: u8 = 131;
const STRICT_SOURCE_ROUTE: u8 = 137;

// What a mux is looked for by: 0 for GRE, a port, or one of these.
const NO_KEY: u32 = 0x10000;
const ANY_KEY: u32 = 0x10001;

/** True when a mux listens on the port, whatever its address. @param port as a little-endian load sees it */
// @ts-expect-error: decorator
@inline
function isOwnPort(port: u32): bool {
  return ((u32(load<u8>(OWN_OFFSET + OWN_PORTS + (port >> 3))) >> (port & 7)) & 1) != 0;
}

/**
 * False for nearly every frame of at least ETHERNET_BYTES, and for none that leads to a socket of ours: `isToOwnSocket` decides the
 * others. This one is in the loop that costs.
 */
// @ts-expect-error: decorator
@inline
export function mayLeadToOwn(frame: usize, length: u32): bool {
  const type = etherType(frame);
  if (type == ETHERTYPE_IPV4) {
    if (length < PLAIN_IPV4_L4 + PORTS_BYTES) return true;
    const carried = load<u8>(frame, IPV4_PROTOCOL);
    if (carried == TCP) return false;
    // Of a later fragment these are not the ports; what looks like one of ours is looked at again.
    if (carried != UDP || load<u8>(frame, PLAIN_L3) != VERSION_AND_BYTES) return true;
    return isOwnPort(load<u16>(frame, PLAIN_IPV4_L4 + DESTINATION_PORT));
  }
  if (type == ETHERTYPE_IPV6) {
    if (length < PLAIN_IPV6_L4 + PORTS_BYTES) return true;
    const carried = load<u8>(frame, IPV6_NEXT_HEADER);
    if (carried == TCP) return false;
    return carried != UDP || isOwnPort(load<u16>(frame, PLAIN_IPV6_L4 + DESTINATION_PORT));
  }
  return isTagged(frame);
}

/** True when the kernel may hand the packet in a frame of at least ETHERNET_BYTES to a socket of ours. */
export function isToOwnSocket(frame: usize, length: u32): bool {
  const set: usize = atomic.load<u32>(OWN_OFFSET, OWN_SET);
  if (set == 0) return false;
  let at = ETHERNET_BYTES;
  for (let tags: u32 = 0; isTagged(frame + at - ETHERNET_BYTES); tags++) {
    if (tags == TAGS_MAX) return true;
    if (at + VLAN_TAG_BYTES > length) return false;
    at += VLAN_TAG_BYTES;
  }
  const type = etherType(frame + at - ETHERNET_BYTES);
  if (type == ETHERTYPE_IPV4) return isIpv4ToOwn(set, frame, at, length);
  if (type == ETHERTYPE_IPV6) return isIpv6ToOwn(set, frame, at, length);
  return false;
}

function isIpv4ToOwn(set: usize, frame: usize, at: u32, length: u32): bool {
  if (at + IPV4_BYTES > length) return false;
  const ip = frame + at;
  const first = load<u8>(ip);
  const header = u32(first & 15) << 2;
  if (first >> 4 != 4 || header < IPV4_BYTES || at + header > length) return false;
  if (bswap(load<u16>(ip, 6)) & LATER_FRAGMENT) return false;
  const key = keyOf(load<u8>(ip, 9), frame, at + header, length);
  if (key == NO_KEY) return false;
  if (isSourceRouted(ip, header)) return hasKey(atomic.load<u64>(set, OWN_SET_MUXES), key);
  return hasKey(muxesAt(set, 0, MAPPED | (u64(load<u32>(ip, 16)) << 32)), key);
}

function isIpv6ToOwn(set: usize, frame: usize, at: u32, length: u32): bool {
  if (at + IPV6_BYTES > length) return false;
  const ip = frame + at;
  if (load<u8>(ip) >> 4 != 6) return false;
  let next = u32(load<u8>(ip, 6));
  let cursor = at + IPV6_BYTES;
  let key = ANY_KEY;
  let isRouted = false;
  for (let i: u32 = 0; i < EXTENSIONS_MAX; i++) {
    const isFragment = next == FRAGMENT;
    const isOptions = next == HOP_BY_HOP || next == ROUTING || next == DESTINATION_OPTIONS;
    if (!isFragment && !isOptions && next != AUTHENTICATION) {
      key = keyOf(next, frame, cursor, length);
      break;
    }
    if (cursor + EXTENSION_BYTES > length) break;
    const header = frame + cursor;
    if (isFragment) {
      // The first one, or a whole packet (RFC 6946), goes on with its headers.
      if (bswap(load<u16>(header, 2)) & LATER_FRAGMENT_6) return false;
      cursor += EXTENSION_BYTES;
    } else {
      // Segments left: the kernel may put another destination in place of this one (RFC 8754 section 4.3).
      if (next == ROUTING && load<u8>(header, 3) != 0) isRouted = true;
      const units = u32(load<u8>(header, 1));
      cursor += isOptions ? (units + 1) << 3 : (units + 2) << 2;
    }
    next = load<u8>(header);
  }
  if (key == NO_KEY) return false;
  if (isRouted) return hasKey(atomic.load<u64>(set, OWN_SET_MUXES), key);
  return hasKey(muxesAt(set, load<u64>(ip, 24), load<u64>(ip, 32)), key);
}

/** What to look for a mux by, when the transport header begins at `at`: that may be behind the end of the frame. */
function keyOf(protocol: u32, frame: usize, at: u32, length: u32): u32 {
  if (protocol == GRE) return isOwnPort(0) ? 0 : NO_KEY;
  if (protocol != UDP) return NO_KEY;
  if (at + PORTS_BYTES > length) return ANY_KEY;
  const port = load<u16>(frame + at, DESTINATION_PORT);
  // No socket has port 0, which stands for GRE here.
  return port != 0 && isOwnPort(port) ? u32(bswap(port)) : NO_KEY;
}

/** The packet says by which hosts it goes: its destination may not be the last (RFC 791 section 3.1). */
function isSourceRouted(ip: usize, header: u32): bool {
  let at = IPV4_BYTES;
  // Each turn takes a byte at least, of 40.
  while (at < header) {
    const kind = load<u8>(ip + at);
    if (kind == LOOSE_SOURCE_ROUTE || kind == STRICT_SOURCE_ROUTE) return true;
    if (kind == END_OF_OPTIONS) return false;
    if (kind == NO_OPERATION) {
      at++;
      continue;
    }
    if (at + 2 > header) return false;
    const bytes = u32(load<u8>(ip + at, 1));
    // The kernel takes no packet with such options.
    if (bytes < 2) return false;
    at += bytes;
  }
  return false;
}

/** Muxes that listen on an address, a bit for each row. */
function muxesAt(set: usize, high: u64, low: u64): u64 {
  const slots = load<u32>(set, OWN_SET_SLOTS);
  let muxes: u64 = 0;
  let slot = sourceSlot(high, low, slots);
  for (let probes: u32 = 0; probes < slots; probes++) {
    const at = set + OWN_SET_BYTES + usize(slot) * OWN_SLOT_BYTES;
    const slotHigh = load<u64>(at, OWN_SLOT_ADDRESS);
    const slotLow = load<u64>(at, OWN_SLOT_ADDRESS + 8);
    if (slotHigh == 0 && slotLow == 0) break;
    if (slotHigh == high && slotLow == low) {
      muxes = atomic.load<u64>(at, OWN_SLOT_MUXES);
      break;
    }
    slot = (slot + 1) & (slots - 1);
  }
  const prefixes = load<u32>(set, OWN_SET_PREFIXES);
  check(prefixes <= OWN_PREFIXES_MAX);
  let at = set + OWN_SET_BYTES + usize(slots) * OWN_SLOT_BYTES;
  for (let i: u32 = 0; i < prefixes; i++) {
    const differs =
      ((high ^ load<u64>(at, OWN_PREFIX_ADDRESS)) & load<u64>(at, OWN_PREFIX_MASK)) |
      ((low ^ load<u64>(at, OWN_PREFIX_ADDRESS + 8)) & load<u64>(at, OWN_PREFIX_MASK + 8));
    if (differs == 0) muxes |= atomic.load<u64>(at, OWN_PREFIX_MUXES);
    at += OWN_PREFIX_BYTES;
  }
  return muxes;
}

/** True when one of the muxes has the port, or is of GRE for key 0. */
function hasKey(muxes: u64, key: u32): bool {
  if (key == ANY_KEY) return muxes != 0;
  // Each turn takes a bit, of 64.
  for (let left = muxes; left != 0; left &= left - 1) {
    if (load<u32>(muxRow(u32(ctz(left))), MUX_PORT) == key) return true;
  }
  return false;
}
