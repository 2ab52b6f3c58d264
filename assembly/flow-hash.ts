/**
 * Flow hash: 32 bits from the inner addresses and ports, so that a flow keeps to one send socket and different
 * flows spread over the network's paths and the far side's workers (RFC 7348 section 5, source port). All
 * fragments of a datagram hash alike because none of their ports is looked at.
 */
import { family, l3, l4, l4Bytes, parse, protocol, TCP, UDP } from './wire';

const SCTP: u32 = 132;
const ESP: u32 = 50;

// Odd constants with well-spread bits (splitmix64's).
const MULTIPLIER_A: u64 = 0xbf58476d1ce4e5b9;
const MULTIPLIER_B: u64 = 0x94d049bb133111eb;

// @ts-ignore: decorator
@inline
function mix(hash: u64, word: u64): u64 {
  const product = (hash ^ word) * MULTIPLIER_A;
  return product ^ (product >> 32);
}

/** Hash of a frame of at least an Ethernet header. Parses the frame (see `wire.ts`). */
export function flowHash(frame: usize, length: u32, seed: u64): u32 {
  parse(frame, length);
  let hash = mix(seed, load<u64>(frame));
  if (family == 4) {
    hash = mix(hash ^ load<u32>(frame, 8), load<u64>(frame + l3, 12));
  } else if (family == 6) {
    const source = mix(load<u64>(frame + l3, 8), load<u64>(frame + l3, 16));
    hash = mix(hash ^ load<u32>(frame, 8) ^ source, load<u64>(frame + l3, 24));
    hash = mix(hash, load<u64>(frame + l3, 32));
  } else {
    hash = mix(hash, (u64(load<u32>(frame, 8)) << 16) | load<u16>(frame, 12));
  }
  if (l4 != 0 && l4Bytes >= 4) {
    if (protocol == TCP || protocol == UDP || protocol == SCTP || protocol == ESP) {
      hash = mix(hash, (u64(protocol) << 32) | load<u32>(frame + l4));
    }
  }
  hash *= MULTIPLIER_B;
  return u32(hash >> 32);
}
