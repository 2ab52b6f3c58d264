/**
 * Flow hash: 32 bits from the inner addresses and ports, so that a flow keeps to one send socket and different
 * flows spread over the network's paths and the far side's workers (RFC 7348 section 5, source port). All
 * fragments of a datagram hash alike because none of their ports is looked at.
 */
import { NONE } from './layout';
import {
  ETHERTYPE_IPV4,
  ETHERTYPE_IPV6,
  etherType,
  family,
  l3,
  l4,
  l4Bytes,
  mayCarryIp,
  PLAIN_IPV4_L4,
  PLAIN_IPV6_L4,
  PLAIN_L3,
  parse,
  plainIpv4Bytes,
  plainIpv6Bytes,
  protocol,
  TCP,
  UDP,
} from './wire';

/** Odd, with well-spread bits: 2^32 / golden ratio. */
const LABEL_MULTIPLIER: u32 = 0x9e3779b1;
const LABEL_SHIFT: u32 = 12;
const SCTP: u32 = 132;
const ESP: u32 = 50;

// Odd constants with well-spread bits (splitmix64's, and 2^64 / golden ratio).
const MULTIPLIER_A: u64 = 0xbf58476d1ce4e5b9;
const MULTIPLIER_B: u64 = 0x94d049bb133111eb;
const MULTIPLIER_C: u64 = 0x9e3779b97f4a7c15;
const MULTIPLIER_D: u64 = 0xd6e8feb86659fd93;

/** Traffic class of the IP header in the frame that was hashed last, 0 where there is none. */
export let flowClass: u32 = 0;

/**
 * Hash of a frame of at least an Ethernet header. The words are multiplied apart from each other and summed, so that
 * the processor need not wait for one before it begins the next.
 */
// @ts-expect-error: decorator
@inline
export function flowHash(frame: usize, length: u32, seed: u64): u32 {
  const type = etherType(frame);
  let hash = hashEthernet(frame, seed);
  if (type == ETHERTYPE_IPV4) {
    const bytes = plainIpv4Bytes(frame, length);
    if (bytes == NONE) return hashAny(frame, length, seed);
    flowClass = load<u8>(frame, PLAIN_L3 + 1);
    hash += hashIpv4(frame + PLAIN_L3);
    const carried = u32(load<u8>(frame, PLAIN_L3 + 9));
    if (bytes >= 4 && hasPorts(carried)) hash += hashPorts(carried, load<u32>(frame, PLAIN_IPV4_L4));
  } else if (type == ETHERTYPE_IPV6) {
    const bytes = plainIpv6Bytes(frame, length);
    if (bytes == NONE) return hashAny(frame, length, seed);
    const carried = u32(load<u8>(frame, PLAIN_L3 + 6));
    if (carried != TCP && carried != UDP) return hashAny(frame, length, seed);
    flowClass = classOfIpv6(frame + PLAIN_L3);
    hash += hashIpv6(frame + PLAIN_L3);
    if (bytes >= 4) hash += hashPorts(carried, load<u32>(frame, PLAIN_IPV6_L4));
  } else if (mayCarryIp(type)) {
    return hashAny(frame, length, seed);
  } else {
    flowClass = 0;
    hash += hashType(type);
  }
  return finish(hash);
}

/**
 * Flow label for the outer header of a frame with the low byte of its flow hash (RFC 6438): 20 bits, of which one is set. For what
 * has no ports, of which the kernel would make one.
 */
export function flowLabel(flow: u8): u32 {
  return ((u32(flow) + 1) * LABEL_MULTIPLIER) >> LABEL_SHIFT;
}

/** The same for every kind of frame: fields at other places hash to the same. */
function hashAny(frame: usize, length: u32, seed: u64): u32 {
  parse(frame, length);
  flowClass = family == 4 ? u32(load<u8>(frame + l3, 1)) : family == 6 ? classOfIpv6(frame + l3) : 0;
  let hash = hashEthernet(frame, seed);
  if (family == 4) hash += hashIpv4(frame + l3);
  else if (family == 6) hash += hashIpv6(frame + l3);
  else hash += hashType(etherType(frame));
  if (l4 != 0 && l4Bytes >= 4 && hasPorts(protocol)) hash += hashPorts(protocol, load<u32>(frame + l4));
  return finish(hash);
}

/** Behind the version (RFC 8200 section 3). */
// @ts-expect-error: decorator
@inline
function classOfIpv6(ip: usize): u32 {
  return (u32(bswap(load<u16>(ip))) >> 4) & 0xff;
}

// @ts-expect-error: decorator
@inline
function hashEthernet(frame: usize, seed: u64): u64 {
  return (load<u64>(frame) ^ seed) * MULTIPLIER_A + u64(load<u32>(frame, 8)) * MULTIPLIER_D;
}

// @ts-expect-error: decorator
@inline
function hashIpv4(ip: usize): u64 {
  return load<u64>(ip, 12) * MULTIPLIER_B;
}

// @ts-expect-error: decorator
@inline
function hashIpv6(ip: usize): u64 {
  const source = load<u64>(ip, 8) * MULTIPLIER_B + load<u64>(ip, 16) * MULTIPLIER_C;
  // Turned, so that what is alike in source and destination does not cancel out.
  return rotr(source, 29) + load<u64>(ip, 24) * MULTIPLIER_D + load<u64>(ip, 32) * MULTIPLIER_A;
}

// @ts-expect-error: decorator
@inline
function hashType(type: u16): u64 {
  return u64(type) * MULTIPLIER_B;
}

/** Protocols whose first four bytes tell flows apart: ports, or ESP's SPI. */
// @ts-expect-error: decorator
@inline
function hasPorts(protocol: u32): bool {
  return protocol == TCP || protocol == UDP || protocol == SCTP || protocol == ESP;
}

// @ts-expect-error: decorator
@inline
function hashPorts(protocol: u32, ports: u32): u64 {
  return ((u64(protocol) << 32) | ports) * MULTIPLIER_C;
}

// @ts-expect-error: decorator
@inline
function finish(hash: u64): u32 {
  return u32(((hash ^ (hash >> 32)) * MULTIPLIER_B) >> 32);
}
