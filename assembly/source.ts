/** Who sent a datagram, and whether they may: a set of addresses, immutable while published (layout: SOURCES_). */
import { DESTINATION_NAME, SOURCES_BYTES, SOURCES_SLOTS } from './layout';

const MULTIPLIER_A: u64 = 0x9e3779b97f4a7c15;
const MULTIPLIER_B: u64 = 0xbf58476d1ce4e5b9;

// Offsets in struct sockaddr_in and sockaddr_in6 (man 7 ip, ipv6).
const IN_ADDRESS: usize = 4;
const IN6_ADDRESS: usize = 8;
/** The high half of an IPv4-mapped address is zero, the low half begins with this, as a little-endian load sees it. */
export const MAPPED: u64 = 0xffff0000;

/** First and second eight bytes of a sender's address, IPv4 as IPv4-mapped. */
// @ts-expect-error: decorator
@inline
export function sourceHigh(name: usize, isIpv6: bool): u64 {
  return isIpv6 ? load<u64>(name, IN6_ADDRESS) : 0;
}

// @ts-expect-error: decorator
@inline
export function sourceLow(name: usize, isIpv6: bool): u64 {
  return isIpv6 ? load<u64>(name, IN6_ADDRESS + 8) : MAPPED | (u64(load<u32>(name, IN_ADDRESS)) << 32);
}

/** True when the VTEP of a unicast destination row has the address. */
export function isDestination(row: usize, high: u64, low: u64, isIpv6: bool): bool {
  const name = row + DESTINATION_NAME;
  return sourceHigh(name, isIpv6) == high && sourceLow(name, isIpv6) == low;
}

/** Slot in which a probe for an address begins. Main calls it too, to insert. */
export function sourceSlot(high: u64, low: u64, slots: u32): u32 {
  const hash = high * MULTIPLIER_A + (low ^ (low >> 29)) * MULTIPLIER_B;
  return u32(hash >> 40) & (slots - 1);
}

/** True when the address is in the set. */
export function isKnownSource(set: usize, high: u64, low: u64): bool {
  const slots = load<u32>(set, SOURCES_SLOTS);
  let slot = sourceSlot(high, low, slots);
  for (let probes: u32 = 0; probes < slots; probes++) {
    const at = set + SOURCES_BYTES + slot * 16;
    const there = load<u64>(at, 8);
    // First, since a sender without an address is like an empty slot, and known to nobody.
    if (there == 0 && load<u64>(at) == 0) return false;
    if (there == low && load<u64>(at) == high) return true;
    slot = (slot + 1) & (slots - 1);
  }
  return false;
}
