/**
 * In: a batch of datagrams from one underlay address becomes writes to TAP queues. The TAP's header is written in
 * place over the outer one; no payload byte moves. Mirror of `tx.ts`.
 *
 *   worker: recvmmsg()                  -> rxBegin, rxUnfold  the datagrams of the messages
 *                                       -> rxDecide  each datagram's verdict; a list of writes, with frames joined (`coalesce.ts`)
 *                                       -> rxGather  the iovecs of those that are not in one piece
 *   worker: write() or writev() each    -> rxFailed for those that fail, then rxDelivered
 */
import { check } from './check';
import { coalesce, coalesceForget, isVerified } from './coalesce';
import { add, deviceCounters, dropDevice, dropMux } from './counter';
import { missPush } from './deferred';
import { decapEcn, ECN_DROP, ECN_MARK } from './ecn';
import { refusalReason } from './encap/refusal';
import { decapDatagram, hasReservedBits, SIGNATURE_BYTES, signatureOf, vnetid } from './encap/registry';
import {
  ARENA_BYTES,
  ARENA_FRAME,
  ARENA_RX_DATAGRAMS,
  ARENA_RX_HEADERS,
  ARENA_RX_SCATTERED,
  ARENA_RX_NAMES,
  ARENA_RX_WRITES,
  ARENA_RX_WRITE_IOVECS,
  ARENA_SCRATCH,
  ARENA_TAP_FDS,
  ARENA_WRITES,
  COUNTER_RX_BYTES,
  COUNTER_RX_FRAMES,
  COUNTER_RX_JOINED,
  COUNTER_RX_MARKED,
  COUNTER_RX_SUPER_FRAMES,
  COUNTER_RX_WRITES,
  DESTINATION_KIND,
  DESTINATION_KIND_UNICAST,
  DESTINATION_LIST,
  DESTINATION_LIST_COUNT,
  DEVICES_MAX,
  DEVICE_FLAGS,
  DEVICE_FLAG_COALESCE,
  DEVICE_FLAG_COALESCE_UDP,
  DEVICE_FLAG_INNER_TO_MUX,
  DEVICE_FLAG_LEARN,
  DEVICE_FLAG_RESERVED,
  DEVICE_MSS_IPV4,
  DEVICE_MSS_IPV6,
  DEVICE_MTU,
  DEVICE_SOURCES,
  DEVICE_SOURCE_MODE,
  DEVICE_STATE,
  DEVICE_STATE_ACTIVE,
  DEVICE_TARGETS,
  DROP_RX_CONGESTION,
  DROP_RX_CORE_TRAP,
  DROP_RX_DEVICE_STOPPED,
  DROP_RX_INNER_TO_MUX,
  DROP_RX_RESERVED_BITS,
  DROP_RX_SHORT_FRAME,
  DROP_RX_SOURCE_MAC,
  DROP_RX_SOURCE_UNKNOWN,
  DROP_RX_TOO_BIG,
  DROP_RX_TRUNCATED,
  DROP_RX_UNKNOWN_VNETID,
  DROP_RX_VLAN_NOT_CARRIED,
  KEY_SHIFT,
  MISS_SOURCE,
  MUXES_MAX,
  MUX_ENCAP,
  MUX_IS_IPV6,
  NONE,
  RX_DATAGRAMS_MAX,
  RX_DATAGRAM_BYTES,
  RX_DATAGRAM_ECN,
  RX_DATAGRAM_ECN_SHIFT,
  RX_DATAGRAM_FIRST,
  RX_DATAGRAM_MESSAGE,
  RX_DATAGRAM_TRUNCATED,
  RX_HEADER_BYTES,
  RX_HEADROOM_BYTES,
  RX_NAME_BYTES,
  RX_WRITE_BYTES,
  SCRATCH_BYTES,
  SOURCE_MODE_OFF,
  SOURCE_MODE_STRICT,
  TARGET_DRAINING,
  TARGET_VALID,
  VERDICT_PASS,
  VNET_HDR_BYTES,
} from './layout';
import { frameBytesMax, refusesTags } from './limit';
import { IOVEC_BYTES, storeIovec } from './message';
import { clampMss } from './mss';
import { learnSource } from './learn';
import { isToOwnSocket, mayLeadToOwn } from './own';
import { isDestination, isKnownSource, sourceHigh, sourceLow } from './source';
import { destinationRow, deviceRow, findDevice, muxRow } from './table';
import { rxBegin, rxUnfold } from './unfold';
import { entryDestination, entryFlags, keyOf, targetFind } from './target';
import { asksChecksum, writeJoined, writePlain, writeSuper, writeZero } from './vnet-hdr';
import { ETHERNET_BYTES, isTagged } from './wire';

const ETHERNET_SOURCE: usize = 6;
/** No iovecs, one frame: bytes 16 to 23 of a write. */
const ONE_FRAME: u64 = 1 << 32;
/** Puts a number into both halves of a word. */
const FIRST_AND_LAST: u64 = (1 << 32) | 1;
const MAC_MASK: u64 = (u64(1) << KEY_SHIFT) - 1;

/** Verdict of the datagram that was dropped last; what `rxDatagram` tells. */
let rxVerdict: u32 = VERDICT_PASS;

// What is the same for all datagrams of a batch, read from the tables once when it begins.
let encap: u32 = 0;

// The vnet that was looked up last; neighbours in a batch mostly share it. The device's state holds for the batch, since
// main waits for our epoch.
let runHeader: u32 = 0;
let runDevice: u32 = NONE;
let isActive: bool = false;
let frameMax: u32 = 0;
let isUntagged: bool = false;
let tapFd: i32 = -1;
let sourceMode: u32 = 0;
let sources: usize = 0;
let isIpv6: bool = true;
let isCoalescing: bool = false;
let joinsUdp: bool = false;
let refusesReserved: bool = false;
let isLearning: bool = false;
let refusesOwn: bool = true;
/** The largest segments that a SYN may offer, 0 for any. */
let mss4: u32 = 0;
let mss6: u32 = 0;

/** Takes the header off datagram `i` and finds the device; a drop reason, or VERDICT_PASS with the run's globals set. */
function rxSelect(arena: usize, mux: u32, i: u32): u32 {
  const entry = arena + ARENA_RX_DATAGRAMS + i * RX_DATAGRAM_BYTES;
  if (load<u32>(entry, 12) & RX_DATAGRAM_TRUNCATED) return DROP_RX_TRUNCATED;
  const bytes = load<u32>(entry, 4);
  const datagram = datagramAt(arena, entry, bytes);
  const header = decapDatagram(encap, datagram, bytes);
  if (header < 0) return refusalReason(header);
  const device = findDevice(mux, vnetid);
  if (device == NONE) return DROP_RX_UNKNOWN_VNETID;
  const row = deviceRow(device);
  runDevice = device;
  runHeader = header;
  isActive = atomic.load<u32>(row, DEVICE_STATE) == DEVICE_STATE_ACTIVE;
  frameMax = frameBytesMax(row);
  isUntagged = refusesTags(row);
  tapFd = load<i32>(arena + device * 4, ARENA_TAP_FDS);
  sources = atomic.load<u32>(row, DEVICE_SOURCES);
  sourceMode = load<u32>(row, DEVICE_SOURCE_MODE);
  const flags = load<u32>(row, DEVICE_FLAGS);
  isCoalescing = (flags & DEVICE_FLAG_COALESCE) != 0;
  joinsUdp = (flags & DEVICE_FLAG_COALESCE_UDP) != 0;
  refusesReserved = (flags & DEVICE_FLAG_RESERVED) != 0;
  isLearning = (flags & DEVICE_FLAG_LEARN) != 0;
  refusesOwn = (flags & DEVICE_FLAG_INNER_TO_MUX) == 0;
  mss4 = atomic.load<u32>(row, DEVICE_MSS_IPV4);
  mss6 = atomic.load<u32>(row, DEVICE_MSS_IPV6);
  return VERDICT_PASS;
}

/** Where the datagram of an entry lies; the whole of it is in this worker's arena, headroom included. */
// @ts-expect-error: decorator
@inline
function datagramAt(arena: usize, entry: usize, bytes: u32): usize {
  const datagram: usize = load<u32>(entry);
  // u64 so that a wild length cannot wrap.
  check(u64(u32(datagram - arena - RX_HEADROOM_BYTES)) + bytes <= ARENA_BYTES - RX_HEADROOM_BYTES);
  return datagram;
}

/** Decides datagrams `first` to `count - 1`. Call with `first` 0 to begin, higher after a trap. Returns the writes. */
export function rxDecide(arena: usize, mux: u32, first: u32, count: u32): u32 {
  check(count <= RX_DATAGRAMS_MAX && mux < MUXES_MAX);
  if (first == 0) {
    store<u32>(arena, 0, ARENA_WRITES);
    store<u32>(arena, 0, ARENA_RX_SCATTERED);
  }
  coalesceForget(arena);
  encap = load<u32>(muxRow(mux), MUX_ENCAP);
  isIpv6 = load<u32>(muxRow(mux), MUX_IS_IPV6) != 0;
  let i = first;
  while (i < count) {
    store<u32>(arena, i, ARENA_FRAME);
    const verdict = rxSelect(arena, mux, i);
    if (verdict != VERDICT_PASS) {
      rxVerdict = verdict;
      dropMux(arena, mux, verdict, 1);
      i++;
      continue;
    }
    if (refusesReserved && hasReservedBits(encap, load<u32>(arena + i * RX_DATAGRAM_BYTES, ARENA_RX_DATAGRAMS))) {
      rxVerdict = DROP_RX_RESERVED_BITS;
      dropDevice(arena, runDevice, DROP_RX_RESERVED_BITS, 1);
      i++;
      continue;
    }
    // Reserved bits are in no signature.
    const last = refusesReserved ? i + 1 : count;
    const end = sourceMode == SOURCE_MODE_OFF ? last : endOfPermitted(arena, i, last);
    if (end == i) {
      dropDevice(arena, runDevice, rxVerdict, 1);
      i++;
    } else {
      // Decides datagram i at least, since its signature is its own.
      i = decideRun(arena, i, end);
    }
  }
  return load<u32>(arena, ARENA_WRITES);
}

/** After a trap: drops the datagram that was being decided and returns the index to go on with. */
export function rxTrapped(arena: usize, mux: u32): u32 {
  dropMux(arena, mux, DROP_RX_CORE_TRAP, 1);
  return load<u32>(arena, ARENA_FRAME) + 1;
}

/** Verdict on the one datagram of the one message that was received. */
export function rxDatagram(arena: usize, mux: u32): u32 {
  rxVerdict = VERDICT_PASS;
  rxBegin(arena, mux, 1);
  rxDecide(arena, mux, 0, rxUnfold(arena, mux));
  rxGather(arena);
  return rxVerdict;
}

/**
 * Decides datagrams from `first` on that share its vnet and header, which were just selected, and returns the index of
 * the first that does not. What a run has in common is in locals: this is the loop that costs.
 */
function decideRun(arena: usize, first: u32, count: u32): u32 {
  const header = runHeader;
  const fd = tapFd;
  const device = runDevice;
  const untagged = isUntagged;
  const learns = isLearning;
  const guards = refusesOwn;
  const most4 = mss4;
  const kind = encap;
  const signature = signatureOf(kind, load<u32>(arena + first * RX_DATAGRAM_BYTES, ARENA_RX_DATAGRAMS));
  // One comparison finds the datagrams that are too short and those that are too long. A stopped device has no others.
  const shortest = header + ETHERNET_BYTES;
  const lengths = isActive ? frameMax - ETHERNET_BYTES + 1 : 0;
  let writes = load<u32>(arena, ARENA_WRITES);
  let i = first;
  for (; i < count; i++) {
    store<u32>(arena, i, ARENA_FRAME);
    const entry = arena + ARENA_RX_DATAGRAMS + i * RX_DATAGRAM_BYTES;
    const bytes = load<u32>(entry, 4);
    const datagram = datagramAt(arena, entry, bytes);
    const flags = load<u32>(entry, 12);
    if (bytes < SIGNATURE_BYTES) break;
    if (signatureOf(kind, datagram) != signature) break;
    if (flags & RX_DATAGRAM_TRUNCATED) break;
    const frame = datagram + header;
    const length = bytes - header;
    // In front of the first frame of a message there is only the outer header; in front of others the end of another frame.
    const at = flags & RX_DATAGRAM_FIRST ? frame - VNET_HDR_BYTES : arena + ARENA_RX_HEADERS + writes * RX_HEADER_BYTES;
    // Hardly ever: the field is that of the sender's guest, and most guests do not use it.
    if (flags & RX_DATAGRAM_ECN && bytes - shortest < lengths && !(untagged && isTagged(frame))) {
      if (!takesEcn(arena, frame, length, flags)) {
        rxVerdict = DROP_RX_CONGESTION;
        dropDevice(arena, device, DROP_RX_CONGESTION, 1);
        continue;
      }
    }
    // Of what is too long as well: it is there, whatever becomes of the frame.
    if (learns && isActive && bytes >= shortest) learnSource(arena, device, frame, senderOf(arena, i), isIpv6);
    if (bytes - shortest >= lengths) {
      const verdict = decideOdd(arena, at, frame, length, flags);
      if (verdict != VERDICT_PASS) {
        rxVerdict = verdict;
        dropDevice(arena, device, verdict, 1);
        continue;
      }
      coalesceForget(arena);
    } else if (untagged && isTagged(frame)) {
      rxVerdict = DROP_RX_VLAN_NOT_CARRIED;
      dropDevice(arena, device, DROP_RX_VLAN_NOT_CARRIED, 1);
      continue;
    } else if (guards && mayLeadToOwn(frame, length) && isToOwnSocket(frame, length)) {
      // Of super-frames, which are odd, none is: they are of TCP.
      rxVerdict = DROP_RX_INNER_TO_MUX;
      dropDevice(arena, device, DROP_RX_INNER_TO_MUX, 1);
      continue;
    } else if (!isCoalescing) {
      writePlain(at, frame, length);
    } else if (coalesce(arena, device, i, writes, frame, length, joinsUdp)) {
      continue;
    } else if (isVerified) {
      writeZero(at);
    } else {
      writePlain(at, frame, length);
    }
    if (most4 != 0) clampMss(frame, length, most4, mss6, 0, asksChecksum(at));
    store<u64>(entry, u64(u32(frame)) | (u64(length) << 32));
    // At most one a datagram, so never more than RX_DATAGRAMS_MAX. Two words at a time.
    const write = arena + ARENA_RX_WRITES + writes * RX_WRITE_BYTES;
    store<u64>(write, u64(u32(fd)) | (u64(u32(at)) << 32));
    store<u64>(write, u64(length + VNET_HDR_BYTES) | (u64(device) << 32), 8);
    store<u64>(write, ONE_FRAME, 16);
    store<u64>(write, u64(i) * FIRST_AND_LAST, 24);
    if (!(flags & RX_DATAGRAM_FIRST)) store<u32>(arena, 1, ARENA_RX_SCATTERED);
    // In memory, so that a trap loses none.
    store<u32>(arena, ++writes, ARENA_WRITES);
  }
  return i;
}

/** Finishes the super-frames of the batch, and gives iovecs to all writes whose bytes do not lie one behind the other. */
export function rxGather(arena: usize): void {
  if (load<u32>(arena, ARENA_RX_SCATTERED) == 0) return;
  const writes = load<u32>(arena, ARENA_WRITES);
  check(writes <= RX_DATAGRAMS_MAX);
  let iovec = arena + ARENA_RX_WRITE_IOVECS;
  for (let i: u32 = 0; i < writes; i++) {
    const write = arena + ARENA_RX_WRITES + i * RX_WRITE_BYTES;
    const frames = load<u32>(write, 20);
    const at: usize = load<u32>(write, 4);
    let datagram = arena + ARENA_RX_DATAGRAMS + load<u32>(write, 24) * RX_DATAGRAM_BYTES;
    const frame: usize = load<u32>(datagram);
    const isInFront = at + VNET_HDR_BYTES == frame;
    if (frames == 1 && isInFront) continue;
    const length = load<u32>(datagram, 4);
    if (frames > 1) writeJoined(at, frame, length, load<u32>(write, 8) - VNET_HDR_BYTES);
    store<u32>(write, u32(iovec), 4);
    if (isInFront) {
      storeIovec(iovec, at, VNET_HDR_BYTES + length);
    } else {
      storeIovec(iovec, at, VNET_HDR_BYTES);
      iovec += IOVEC_BYTES;
      storeIovec(iovec, frame, length);
    }
    iovec += IOVEC_BYTES;
    for (let part: u32 = 1; part < frames; part++) {
      datagram = arena + ARENA_RX_DATAGRAMS + load<u32>(datagram, 8) * RX_DATAGRAM_BYTES;
      storeIovec(iovec, load<u32>(datagram), load<u32>(datagram, 4));
      iovec += IOVEC_BYTES;
    }
    store<u32>(write, frames + u32(!isInFront), 16);
  }
}

/**
 * Index of the first datagram from `first` on that its sender may not send to the device of `first`, or that is of another
 * sender; `first` itself with `rxVerdict` set when it is the one.
 */
function endOfPermitted(arena: usize, first: u32, count: u32): u32 {
  const name = senderOf(arena, first);
  const high = sourceHigh(name, isIpv6);
  const low = sourceLow(name, isIpv6);
  if (sources != 0 && !isKnownSource(sources, high, low)) {
    rxVerdict = DROP_RX_SOURCE_UNKNOWN;
    return first;
  }
  if (sourceMode == SOURCE_MODE_STRICT) {
    // Frame by frame: each may have another inner source.
    const entry = arena + ARENA_RX_DATAGRAMS + first * RX_DATAGRAM_BYTES;
    if (load<u32>(entry, 4) < runHeader + ETHERNET_BYTES) return first + 1;
    rxVerdict = checkSourceMac(arena, runDevice, load<u32>(entry) + runHeader, high, low);
    return rxVerdict == VERDICT_PASS ? first + 1 : first;
  }
  let i = first + 1;
  while (i < count) {
    const next = senderOf(arena, i);
    if (next == name) {
      i++;
      continue;
    }
    if (sourceHigh(next, isIpv6) != high || sourceLow(next, isIpv6) != low) break;
    i++;
  }
  return i;
}

/** Address of the sender of datagram `i`. */
// @ts-expect-error: decorator
@inline
function senderOf(arena: usize, i: u32): usize {
  const message = load<u32>(arena + i * RX_DATAGRAM_BYTES, ARENA_RX_DATAGRAMS + 12) & RX_DATAGRAM_MESSAGE;
  return arena + ARENA_RX_NAMES + message * RX_NAME_BYTES;
}

/**
 * STRICT: the inner source must be a target, and the sender one of its destinations. A source that is not in the table
 * is asked about; the answer comes from the lookup plugin, never from the frame.
 */
function checkSourceMac(arena: usize, device: u32, frame: usize, high: u64, low: u64): u32 {
  // Nobody sends from a group address, or from none: not even asked about.
  if (load<u8>(frame, ETHERNET_SOURCE) & 1) return DROP_RX_SOURCE_MAC;
  const source = keyOf(frame + ETHERNET_SOURCE) & MAC_MASK;
  if (source == 0) return DROP_RX_SOURCE_MAC;
  const entry = targetFind(atomic.load<u32>(deviceRow(device), DEVICE_TARGETS), source);
  const flags = entryFlags(entry);
  if ((flags & (TARGET_VALID | TARGET_DRAINING)) == 0) {
    // Nobody waits for this frame, so a full ring costs nothing but a later try.
    if (flags == 0) askSource(arena, device, frame);
    return DROP_RX_SOURCE_MAC;
  }
  const row = destinationRow(entryDestination(entry));
  if (load<u32>(row, DESTINATION_KIND) == DESTINATION_KIND_UNICAST) {
    return isDestination(row, high, low, isIpv6) ? VERDICT_PASS : DROP_RX_SOURCE_MAC;
  }
  const rows: usize = load<u32>(row, DESTINATION_LIST);
  const count = load<u32>(row, DESTINATION_LIST_COUNT);
  for (let i: u32 = 0; i < count; i++) {
    if (isDestination(destinationRow(load<u32>(rows + i * 4)), high, low, isIpv6)) return VERDICT_PASS;
  }
  return DROP_RX_SOURCE_MAC;
}

/** Hands the Ethernet header to main; from a copy, since what lies in front of the frame may be another one's. */
function askSource(arena: usize, device: u32, frame: usize): void {
  const copy = arena + ARENA_SCRATCH + SCRATCH_BYTES - VNET_HDR_BYTES - ETHERNET_BYTES;
  writeZero(copy);
  memory.copy(copy + VNET_HDR_BYTES, frame, ETHERNET_BYTES);
  missPush(arena, device, MISS_SOURCE, copy, VNET_HDR_BYTES + ETHERNET_BYTES);
}

/** Verdict on a frame that is shorter or longer than those of an active device; one that passes has its vnet_hdr. */
function decideOdd(arena: usize, at: usize, frame: usize, length: u32, flags: u32): u32 {
  if (!isActive) return DROP_RX_DEVICE_STOPPED;
  if (i32(length) < i32(ETHERNET_BYTES)) return DROP_RX_SHORT_FRAME;
  return decideLong(arena, at, frame, length, flags);
}

/** A frame above the limit: a super-frame of a kernel on the same host passes, everything else does not. */
function decideLong(arena: usize, at: usize, frame: usize, length: u32, flags: u32): u32 {
  const row = deviceRow(runDevice);
  if (isUntagged && isTagged(frame)) return DROP_RX_VLAN_NOT_CARRIED;
  if (!writeSuper(at, frame, length, atomic.load<u32>(row, DEVICE_MTU))) return DROP_RX_TOO_BIG;
  if (flags & RX_DATAGRAM_ECN && !takesEcn(arena, frame, length, flags)) return DROP_RX_CONGESTION;
  add(deviceCounters(arena, runDevice), COUNTER_RX_SUPER_FRAMES, 1);
  return VERDICT_PASS;
}

/** Puts the outer ECN field, which is in an entry's flags, into a frame that passes otherwise; false when that drops it. */
function takesEcn(arena: usize, frame: usize, length: u32, flags: u32): bool {
  const ecn = decapEcn(frame, length, (flags & RX_DATAGRAM_ECN) >> RX_DATAGRAM_ECN_SHIFT);
  if (ecn == ECN_MARK) add(deviceCounters(arena, runDevice), COUNTER_RX_MARKED, 1);
  return ecn != ECN_DROP;
}

/** Counts a write that failed; `rxDelivered` then passes over it. */
export function rxFailed(arena: usize, index: u32, reason: u32): void {
  check(index < load<u32>(arena, ARENA_WRITES));
  const entry = arena + ARENA_RX_WRITES + index * RX_WRITE_BYTES;
  store<u32>(entry, 0, 8);
  dropDevice(arena, load<u32>(entry, 12), reason, load<u32>(entry, 20));
}

/** Counts the writes of the batch that did not fail. */
export function rxDelivered(arena: usize): void {
  const writes = load<u32>(arena, ARENA_WRITES);
  check(writes <= RX_DATAGRAMS_MAX);
  let i: u32 = 0;
  while (i < writes) {
    // One addition for each run of frames to one device.
    const device = load<u32>(arena + ARENA_RX_WRITES + i * RX_WRITE_BYTES, 12);
    let frames: u64 = 0;
    let joined: u64 = 0;
    let records: u64 = 0;
    let bytes: u64 = 0;
    do {
      const entry = arena + ARENA_RX_WRITES + i * RX_WRITE_BYTES;
      if (load<u32>(entry, 12) != device) break;
      const length = load<u32>(entry, 8);
      if (length != 0) {
        const parts = load<u32>(entry, 20);
        frames += parts;
        if (parts > 1) joined += parts;
        records++;
        bytes += length - VNET_HDR_BYTES;
      }
      i++;
    } while (i < writes);
    check(device < DEVICES_MAX);
    const counters = deviceCounters(arena, device);
    add(counters, COUNTER_RX_FRAMES, frames);
    add(counters, COUNTER_RX_JOINED, joined);
    add(counters, COUNTER_RX_WRITES, records);
    add(counters, COUNTER_RX_BYTES, bytes);
  }
}
