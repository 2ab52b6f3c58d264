/**
 * Flow hash: 32 bits from the inner addresses and ports, so that a flow keeps to one send socket and different
 * flows spread over the network's paths and the far side's workers (RFC 7348 section 5, source port). All
 * fragments of a datagram hash alike because none of their ports is looked at.
 */
import { NONE } from './layout';
import { family, l3, l4, l4Bytes, PLAIN_IPV4, PLAIN_L4, parse, plainL4Bytes, protocol, TCP, UDP } from './wire';

const SCTP: u32 = 132;
const ESP: u32 = 50;

// Odd constants with well-spread bits (splitmix64's, and 2^64 / golden ratio).
const MULTIPLIER_A: u64 = 0xbf58476d1ce4e5b9;
const MULTIPLIER_B: u64 = 0x94d049bb133111eb;
const MULTIPLIER_C: u64 = 0x9e3779b97f4a7c15;
const MULTIPLIER_D: u64 = 0xd6e8feb86659fd93;

/**
 * Hash of a frame of at least an Ethernet header. The words are multiplied apart from each other and summed, so that
 * the processor need not wait for one before it begins the next.
 */
// @ts-expect-error: decorator
@inline
export function flowHash(frame: usize, length: u32, seed: u64): u32 {
  const bytes = plainL4Bytes(frame, length);
  return bytes == NONE ? hashAny(frame, length, seed) : hashPlain(frame, bytes, seed);
}

// @ts-expect-error: decorator
@inline
function hashPlain(frame: usize, bytes: u32, seed: u64): u32 {
  let hash = hashAddresses(frame, seed) + load<u64>(frame, PLAIN_IPV4 + 12) * MULTIPLIER_B;
  const protocol = u32(load<u8>(frame, PLAIN_IPV4 + 9));
  if (bytes >= 4 && hasPorts(protocol)) hash += hashPorts(protocol, load<u32>(frame, PLAIN_L4));
  return finish(hash);
}

/** The same for every kind of frame: fields at other places hash to the same. */
function hashAny(frame: usize, length: u32, seed: u64): u32 {
  parse(frame, length);
  let hash = hashAddresses(frame, seed);
  if (family == 4) {
    hash += load<u64>(frame + l3, 12) * MULTIPLIER_B;
  } else if (family == 6) {
    hash += load<u64>(frame + l3, 8) * MULTIPLIER_B + load<u64>(frame + l3, 16) * MULTIPLIER_C;
    hash ^= hash >> 29;
    hash += load<u64>(frame + l3, 24) * MULTIPLIER_D + load<u64>(frame + l3, 32) * MULTIPLIER_A;
  } else {
    hash += u64(load<u16>(frame, 12)) * MULTIPLIER_B;
  }
  if (l4 != 0 && l4Bytes >= 4 && hasPorts(protocol)) hash += hashPorts(protocol, load<u32>(frame + l4));
  return finish(hash);
}

// @ts-expect-error: decorator
@inline
function hashAddresses(frame: usize, seed: u64): u64 {
  return (load<u64>(frame) ^ seed) * MULTIPLIER_A + u64(load<u32>(frame, 8)) * MULTIPLIER_D;
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
