/**
 * Receive coalescing: frames of a flow that follow one another become one super-frame for the link, which is read by the
 * kernel as one and cut again where it must be (struct virtio_net_hdr, virtio specification section 5.1.6). The rules are those
 * of `test/reference/coalesce.ts`: cutting a super-frame gives back the frames it was made of, byte for byte.
 *
 * A batch's open super-frames are in a table, directly mapped by flow: a flow that finds another in its place ends that
 * one. Nothing stays open beyond the batch.
 */
import { fold, sumBytes } from './checksum';
import { flowHash } from './flow-hash';
import {
  ARENA_RX_DATAGRAMS,
  ARENA_RX_FLOWS,
  ARENA_RX_SCATTERED,
  ARENA_RX_STAMP,
  ARENA_RX_WRITES,
  HEADER_OFFSET,
  HEADER_SEED,
  NONE,
  RX_DATAGRAM_BYTES,
  RX_FLOW_BYTES,
  RX_FLOWS_MAX,
  RX_WRITE_BYTES,
} from './layout';
import {
  ETHERTYPE_IPV4,
  ETHERTYPE_IPV6,
  etherType,
  family,
  IPV4_BYTES,
  IPV6_BYTES,
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
  TCP_BYTES,
  UDP,
  UDP_BYTES,
} from './wire';

// TCP header (RFC 9293 section 3.1).
const TCP_SEQUENCE: usize = 4;
const TCP_ACKNOWLEDGEMENT: usize = 8;
const TCP_DATA_OFFSET: usize = 12;
const TCP_FLAGS: usize = 13;
const TCP_WINDOW: usize = 14;
const TCP_CHECKSUM: usize = 16;
const TCP_URGENT: usize = 18;
const ACK: u8 = 0x10;
const PSH: u8 = 0x08;
const ECE: u8 = 0x40;
const UDP_LENGTH: usize = 4;
const UDP_CHECKSUM: usize = 6;

const BYTES_MAX: u32 = 65535;
/** With the headers they stay below what one writev takes (man 2 readv, IOV_MAX: 1,024). */
const SEGMENTS_MAX: u32 = 512;
/** What kernels before Linux 6.9 take. */
const DATAGRAMS_MAX: u32 = 64;
const TAG_MULTIPLIER: u64 = 0x9e3779b97f4a7c15;

// A place of the table.
const STAMP: usize = 0; // that of the batch, or 0 when nothing is open
const WRITE: usize = 4;
const DEVICE: usize = 8;
const FRAME: usize = 12; // its first frame
const HEADER_BYTES: usize = 16;
const SEGMENT_BYTES: usize = 20;
const NEXT_SEQUENCE: usize = 24;
const NEXT_ID: usize = 28;
const BYTES: usize = 32;
const SEGMENTS: usize = 36;
const FLOW_L3: usize = 40;

/** Of the frame that was looked at last: its checksums have been found right. */
export let isVerified: bool = false;

// The frame that is being looked at.
let network: u32 = 0;
let transport: u32 = 0;
let transportBytes: u32 = 0;
let isIpv4: bool = false;
let isTcp: bool = false;
let headerBytes: u32 = 0;
let payloadBytes: u32 = 0;
let flags: u8 = 0;

/** Ends every open super-frame. */
export function coalesceForget(arena: usize): void {
  let stamp = load<u32>(arena, ARENA_RX_STAMP) + 1;
  if (stamp == 0) {
    memory.fill(arena + ARENA_RX_FLOWS, 0, RX_FLOWS_MAX * RX_FLOW_BYTES);
    stamp = 1;
  }
  store<u32>(arena, stamp, ARENA_RX_STAMP);
}

/**
 * Looks at frame `i` of the batch. True when it has become a part of an open super-frame; false when it is to be written by itself,
 * as `write`, to which others may be joined then.
 */
export function coalesce(
  arena: usize,
  device: u32,
  i: u32,
  write: u32,
  frame: usize,
  length: u32,
  joinsUdp: bool,
): bool {
  isVerified = false;
  if (!findFlow(arena, frame, length)) return false;
  let hash = flowHash(frame, length, load<u64>(HEADER_OFFSET, HEADER_SEED)) + device;
  // Same hosts, other VLAN.
  if (network != PLAIN_L3) hash ^= u32((u64(load<u32>(frame, PLAIN_L3)) * TAG_MULTIPLIER) >> 32);
  const place = arena + ARENA_RX_FLOWS + (hash & (RX_FLOWS_MAX - 1)) * RX_FLOW_BYTES;
  if ((!isTcp && !joinsUdp) || !isPart(frame, length)) {
    store<u32>(place, 0, STAMP);
    return false;
  }
  isVerified = true;
  const stamp = load<u32>(arena, ARENA_RX_STAMP);
  if (load<u32>(place) == stamp && load<u32>(place, DEVICE) == device && continues(place, frame)) {
    join(arena, place, i, frame);
    return true;
  }
  begin(place, stamp, device, write, frame);
  return false;
}

/** Sets the globals above, but for what `isPart` sets; false for a frame of no flow. Forgets all when any may be its flow. */
// @ts-expect-error: decorator
@inline
function findFlow(arena: usize, frame: usize, length: u32): bool {
  const type = etherType(frame);
  let carried: u32 = 0;
  let bytes: u32 = NONE;
  network = PLAIN_L3;
  if (type == ETHERTYPE_IPV4) {
    bytes = plainIpv4Bytes(frame, length);
    // A frame that ends before it has none.
    if (bytes != NONE) carried = load<u8>(frame, PLAIN_L3 + 9);
    transport = PLAIN_IPV4_L4;
    isIpv4 = true;
  } else if (type == ETHERTYPE_IPV6) {
    bytes = plainIpv6Bytes(frame, length);
    if (bytes != NONE) carried = load<u8>(frame, PLAIN_L3 + 6);
    transport = PLAIN_IPV6_L4;
    isIpv4 = false;
    // An extension header, perhaps.
    if (carried != TCP && carried != UDP) bytes = NONE;
  } else if (!mayCarryIp(type)) {
    return false;
  }
  if (bytes == NONE) {
    parse(frame, length);
    if (family == 0) return false;
    if (l4 == 0) {
      coalesceForget(arena);
      return false;
    }
    network = l3;
    transport = l4;
    bytes = l4Bytes;
    carried = protocol;
    isIpv4 = family == 4;
  }
  if (carried != TCP && carried != UDP) return false;
  if (bytes < 4) {
    coalesceForget(arena);
    return false;
  }
  transportBytes = bytes;
  isTcp = carried == TCP;
  return true;
}

/** True for a frame that may be a part of a super-frame: PART_RULES. */
// @ts-expect-error: decorator
@inline
function isPart(frame: usize, length: u32): bool {
  const networkBytes = transport - network;
  if (transport + transportBytes != length || networkBytes != (isIpv4 ? IPV4_BYTES : IPV6_BYTES)) return false;
  const header = frame + transport;
  const ip = frame + network;
  let field: u16;
  flags = 0;
  if (isTcp) {
    if (transportBytes < TCP_BYTES) return false;
    flags = load<u8>(header, TCP_FLAGS);
    if ((flags & ~(PSH | ECE)) != ACK) return false;
    const bytes = u32(load<u8>(header, TCP_DATA_OFFSET) >> 4) << 2;
    if (bytes < TCP_BYTES || bytes >= transportBytes) return false;
    headerBytes = transport + bytes;
    field = load<u16>(header, TCP_CHECKSUM);
  } else {
    if (transportBytes <= UDP_BYTES || u32(bswap(load<u16>(header, UDP_LENGTH))) != transportBytes) return false;
    headerBytes = transport + UDP_BYTES;
    field = load<u16>(header, UDP_CHECKSUM);
  }
  payloadBytes = length - headerBytes;
  let sum = (u64(isTcp ? TCP : UDP) << 8) + u64(bswap(u16(transportBytes)));
  if (isIpv4) {
    const written = load<u16>(ip, 10);
    const addresses = load<u64>(ip, 12);
    const shared = (addresses & 0xffffffff) + (addresses >> 32);
    const first = load<u64>(ip);
    const own = (first & 0xffffffff) + (first >> 32) + load<u16>(ip, 8) + shared;
    if (written != ~fold(own)) return false;
    sum += shared;
  } else {
    sum += sumBytes(ip + 8, 32);
  }
  sum += sumBytes(header, transportBytes) - field;
  const right = ~fold(sum);
  return field == (right == 0 && !isTcp ? 0xffff : right);
}

/** True when a part goes on where the super-frame ends: NEXT_RULES. */
// @ts-expect-error: decorator
@inline
function continues(place: usize, frame: usize): bool {
  if (load<u32>(place, HEADER_BYTES) != headerBytes || load<u32>(place, FLOW_L3) != network) return false;
  const segments = load<u32>(place, SEGMENTS);
  if (payloadBytes > load<u32>(place, SEGMENT_BYTES)) return false;
  if (load<u32>(place, BYTES) + payloadBytes > BYTES_MAX) return false;
  const first: usize = load<u32>(place, FRAME);
  // Ethernet header and tags.
  if (load<u64>(first) != load<u64>(frame) || load<u64>(first, 6) != load<u64>(frame, 6)) return false;
  if (network > 14 && load<u32>(first, 14) != load<u32>(frame, 14)) return false;
  if (network > 18 && load<u32>(first, 18) != load<u32>(frame, 18)) return false;
  const ip = frame + network;
  const ip0 = first + network;
  if (isIpv4) {
    // TOS; flags, TTL, protocol; addresses.
    if (load<u16>(ip0) != load<u16>(ip) || load<u32>(ip0, 6) != load<u32>(ip, 6)) return false;
    if (load<u64>(ip0, 12) != load<u64>(ip, 12)) return false;
    if (load<u32>(place, NEXT_ID) != u32(bswap(load<u16>(ip, 4)))) return false;
  } else {
    // Traffic class and flow label; next header and hop limit; addresses.
    if (load<u32>(ip0) != load<u32>(ip) || load<u16>(ip0, 6) != load<u16>(ip, 6)) return false;
    const source = v128.xor(v128.load(ip0, 8), v128.load(ip, 8));
    const destination = v128.xor(v128.load(ip0, 24), v128.load(ip, 24));
    if (v128.any_true(v128.or(source, destination))) return false;
  }
  const header = frame + transport;
  const header0 = first + transport;
  if (load<u32>(header0) != load<u32>(header)) return false;
  if (!isTcp) return segments < DATAGRAMS_MAX;
  if (segments >= SEGMENTS_MAX) return false;
  if (load<u32>(place, NEXT_SEQUENCE) != bswap(load<u32>(header, TCP_SEQUENCE))) return false;
  if (load<u32>(header0, TCP_ACKNOWLEDGEMENT) != load<u32>(header, TCP_ACKNOWLEDGEMENT)) return false;
  if (load<u8>(header0, TCP_DATA_OFFSET) != load<u8>(header, TCP_DATA_OFFSET)) return false;
  if ((load<u8>(header0, TCP_FLAGS) ^ flags) & ECE) return false;
  if (load<u16>(header0, TCP_WINDOW) != load<u16>(header, TCP_WINDOW)) return false;
  if (load<u16>(header0, TCP_URGENT) != load<u16>(header, TCP_URGENT)) return false;
  for (let at = transport + TCP_BYTES; at < headerBytes; at += 4) {
    if (load<u32>(first + at) != load<u32>(frame + at)) return false;
  }
  return true;
}

/** Opens a super-frame of one frame, unless nothing may follow it. */
// @ts-expect-error: decorator
@inline
function begin(place: usize, stamp: u32, device: u32, write: u32, frame: usize): void {
  store<u32>(place, flags & PSH ? 0 : stamp, STAMP);
  store<u32>(place, write, WRITE);
  store<u32>(place, device, DEVICE);
  store<u32>(place, u32(frame), FRAME);
  store<u32>(place, headerBytes, HEADER_BYTES);
  store<u32>(place, network, FLOW_L3);
  store<u32>(place, payloadBytes, SEGMENT_BYTES);
  store<u32>(place, bswap(load<u32>(frame + transport, TCP_SEQUENCE)) + payloadBytes, NEXT_SEQUENCE);
  store<u32>(place, (u32(bswap(load<u16>(frame + network, 4))) + 1) & 0xffff, NEXT_ID);
  store<u32>(place, headerBytes + payloadBytes, BYTES);
  store<u32>(place, 1, SEGMENTS);
}

/** Appends the payload of frame `i`; ends the super-frame with it when LAST_RULES say so. */
// @ts-expect-error: decorator
@inline
function join(arena: usize, place: usize, i: u32, frame: usize): void {
  const write = arena + ARENA_RX_WRITES + load<u32>(place, WRITE) * RX_WRITE_BYTES;
  const datagram = arena + ARENA_RX_DATAGRAMS + i * RX_DATAGRAM_BYTES;
  store<u32>(datagram, u32(frame) + headerBytes);
  store<u32>(datagram, payloadBytes, 4);
  store<u32>(arena, 1, ARENA_RX_SCATTERED);
  store<u32>(arena + ARENA_RX_DATAGRAMS + load<u32>(write, 28) * RX_DATAGRAM_BYTES, i, 8);
  store<u32>(write, i, 28);
  store<u32>(write, load<u32>(write, 20) + 1, 20);
  store<u32>(write, load<u32>(write, 8) + payloadBytes, 8);
  store<u32>(place, load<u32>(place, NEXT_SEQUENCE) + payloadBytes, NEXT_SEQUENCE);
  store<u32>(place, (load<u32>(place, NEXT_ID) + 1) & 0xffff, NEXT_ID);
  store<u32>(place, load<u32>(place, BYTES) + payloadBytes, BYTES);
  store<u32>(place, load<u32>(place, SEGMENTS) + 1, SEGMENTS);
  if (flags & PSH) {
    const at = usize(load<u32>(place, FRAME)) + transport;
    store<u8>(at, load<u8>(at, TCP_FLAGS) | PSH, TCP_FLAGS);
    store<u32>(place, 0, STAMP);
  } else if (payloadBytes < load<u32>(place, SEGMENT_BYTES)) {
    store<u32>(place, 0, STAMP);
  }
}
