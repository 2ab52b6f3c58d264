/**
 * In: a batch of datagrams from one underlay address becomes writes to TAP queues. The TAP's header is written in
 * place over the outer one; no payload byte moves. Mirror of `tx.ts`.
 *
 *   worker: recvmmsg()                  -> rxDecide  each datagram's verdict; a list of {fd, offset, length, device}
 *   worker: write() each                -> rxFailed for those that fail, then rxDelivered
 */
import { check } from './check';
import { add, deviceCounters, dropDevice, dropMux, muxCounters } from './counter';
import { missPush } from './deferred';
import { refusalReason } from './encap/refusal';
import { decapDatagram, SIGNATURE_BYTES, signatureOf, vnetid } from './encap/registry';
import {
  ARENA_BYTES,
  ARENA_FRAME,
  ARENA_RX_BUFFER,
  ARENA_RX_IOVECS,
  ARENA_RX_MESSAGES,
  ARENA_RX_NAMES,
  ARENA_RX_WRITES,
  ARENA_TAP_FDS,
  ARENA_WRITES,
  BATCH_MAX,
  COUNTER_RX_BYTES,
  COUNTER_RX_FRAMES,
  COUNTER_RX_READ,
  COUNTER_RX_SUPER_FRAMES,
  DESTINATION_KIND,
  DESTINATION_KIND_UNICAST,
  DESTINATION_LIST,
  DESTINATION_LIST_COUNT,
  DESTINATION_NAME,
  DEVICE_MTU,
  DEVICE_SOURCE_MODE,
  DEVICE_SOURCES,
  DEVICE_STATE,
  DEVICE_STATE_ACTIVE,
  DEVICE_TARGETS,
  DEVICES_MAX,
  DROP_RX_CORE_TRAP,
  DROP_RX_DEVICE_STOPPED,
  DROP_RX_SHORT_FRAME,
  DROP_RX_SOURCE_MAC,
  DROP_RX_SOURCE_UNKNOWN,
  DROP_RX_TOO_BIG,
  DROP_RX_TRUNCATED,
  DROP_RX_UNKNOWN_VNETID,
  DROP_RX_VLAN_NOT_CARRIED,
  HEADER_BASE,
  HEADER_OFFSET,
  KEY_SHIFT,
  MISS_SOURCE,
  MUX_ENCAP,
  MUX_IS_IPV6,
  MUXES_MAX,
  NONE,
  RX_DATAGRAM_BYTES_MAX,
  RX_HEADROOM_BYTES,
  RX_NAME_BYTES,
  RX_SLOT_BYTES,
  RX_WRITE_BYTES,
  SOURCE_MODE_OFF,
  SOURCE_MODE_STRICT,
  TARGET_DRAINING,
  TARGET_VALID,
  VERDICT_PASS,
  VNET_HDR_BYTES,
} from './layout';
import { frameBytesMax, isTagAboveLimit } from './limit';
import {
  IOVEC_BYTES,
  MESSAGE_BYTES,
  MESSAGE_FLAGS,
  MESSAGE_LENGTH,
  storeIovec,
  storeMessage,
} from './message';
import { isKnownSource, sourceHigh, sourceLow } from './source';
import { destinationRow, deviceRow, findDevice, muxRow } from './table';
import { entryDestination, entryFlags, keyOf, targetFind } from './target';
import { writePlain, writeSuper } from './vnet-hdr';
import { ETHERNET_BYTES } from './wire';

const MSG_TRUNC: u32 = 0x20;
const ETHERNET_SOURCE: usize = 6;
const MAC_MASK: u64 = (u64(1) << KEY_SHIFT) - 1;

/** Verdict of the datagram that was dropped last; what `rxDatagram` tells. */
let rxVerdict: u32 = VERDICT_PASS;

// What is the same for all datagrams of a batch, read from the tables once when it begins.
let encap: u32 = 0;
let base: u64 = 0;

// The vnet that was looked up last; neighbours in a batch mostly share it. The device's state holds for the batch, since
// main waits for our epoch.
let runHeader: u32 = 0;
let runDevice: u32 = NONE;
let isActive: bool = false;
let frameMax: u32 = 0;
let tapFd: i32 = -1;
let sourceMode: u32 = 0;
let sources: usize = 0;
let isIpv6: bool = true;

/** Takes the header off datagram `i` and finds the device; a drop reason, or VERDICT_PASS with the run's globals set. */
function rxSelect(arena: usize, mux: u32, i: u32): u32 {
  const message = arena + ARENA_RX_MESSAGES + i * MESSAGE_BYTES;
  if (load<u32>(message, MESSAGE_FLAGS) & MSG_TRUNC) return DROP_RX_TRUNCATED;
  const bytes = load<u32>(message, MESSAGE_LENGTH);
  const datagram = rxDatagramAt(arena, i, bytes);
  const header = decapDatagram(encap, datagram, bytes);
  if (header < 0) return refusalReason(header);
  const device = findDevice(mux, vnetid);
  if (device == NONE) return DROP_RX_UNKNOWN_VNETID;
  const row = deviceRow(device);
  runDevice = device;
  runHeader = header;
  isActive = atomic.load<u32>(row, DEVICE_STATE) == DEVICE_STATE_ACTIVE;
  frameMax = frameBytesMax(row);
  tapFd = load<i32>(arena + device * 4, ARENA_TAP_FDS);
  sources = atomic.load<u32>(row, DEVICE_SOURCES);
  sourceMode = load<u32>(row, DEVICE_SOURCE_MODE);
  return VERDICT_PASS;
}

/** Where datagram `i` lies; the whole of it is in this worker's arena, headroom included. */
@inline
function rxDatagramAt(arena: usize, i: u32, bytes: u32): usize {
  const datagram = usize(load<u64>(arena + ARENA_RX_IOVECS + i * IOVEC_BYTES) - base);
  // u64 so that a wild length cannot wrap.
  const start = u64(u32(datagram - arena - RX_HEADROOM_BYTES));
  check(start + bytes <= ARENA_BYTES - RX_HEADROOM_BYTES);
  return datagram;
}

/** Lays out the messages and iovecs that recvmmsg fills, once for each arena. */
export function rxPrepare(arena: usize): void {
  for (let i: u32 = 0; i < BATCH_MAX; i++) {
    const iovec = arena + ARENA_RX_IOVECS + i * IOVEC_BYTES;
    const slot = arena + ARENA_RX_BUFFER + i * RX_SLOT_BYTES;
    storeIovec(iovec, slot + RX_HEADROOM_BYTES, RX_DATAGRAM_BYTES_MAX);
    const name = arena + ARENA_RX_NAMES + i * RX_NAME_BYTES;
    storeMessage(arena + ARENA_RX_MESSAGES + i * MESSAGE_BYTES, name, RX_NAME_BYTES, iovec, 0, 0);
  }
}

/** Decides datagrams `first` to `count - 1`. Call with `first` 0 to begin, higher after a trap. Returns the writes. */
export function rxDecide(arena: usize, mux: u32, first: u32, count: u32): u32 {
  check(count <= BATCH_MAX && mux < MUXES_MAX);
  if (first == 0) {
    store<u32>(arena, 0, ARENA_WRITES);
    add(muxCounters(arena, mux), COUNTER_RX_READ, count);
  }
  encap = load<u32>(muxRow(mux), MUX_ENCAP);
  isIpv6 = load<u32>(muxRow(mux), MUX_IS_IPV6) != 0;
  base = load<u64>(HEADER_OFFSET, HEADER_BASE);
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
    const end = sourceMode == SOURCE_MODE_OFF ? count : endOfPermitted(arena, i, count);
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

/** Verdict on one datagram, decided as a batch of its own. */
export function rxDatagram(arena: usize, mux: u32, i: u32): u32 {
  rxVerdict = VERDICT_PASS;
  store<u32>(arena, 0, ARENA_WRITES);
  rxDecide(arena, mux, i, i + 1);
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
  const kind = encap;
  const signature = signatureOf(kind, rxDatagramAt(arena, first, SIGNATURE_BYTES));
  // One comparison finds the datagrams that are too short and those that are too long. A stopped device has no others.
  const shortest = header + ETHERNET_BYTES;
  const lengths = isActive ? frameMax - ETHERNET_BYTES + 1 : 0;
  let writes = load<u32>(arena, ARENA_WRITES);
  let i = first;
  for (; i < count; i++) {
    store<u32>(arena, i, ARENA_FRAME);
    const message = arena + ARENA_RX_MESSAGES + i * MESSAGE_BYTES;
    const bytes = load<u32>(message, MESSAGE_LENGTH);
    const datagram = rxDatagramAt(arena, i, bytes);
    if (bytes < SIGNATURE_BYTES) break;
    if (signatureOf(kind, datagram) != signature) break;
    if (load<u32>(message, MESSAGE_FLAGS) & MSG_TRUNC) break;
    const frame = datagram + header;
    const length = bytes - header;
    if (bytes - shortest >= lengths) {
      const verdict = decideOdd(arena, frame, length);
      if (verdict != VERDICT_PASS) {
        rxVerdict = verdict;
        dropDevice(arena, device, verdict, 1);
        continue;
      }
    } else {
      writePlain(frame, length);
    }
    // At most one a datagram, so never more than BATCH_MAX.
    const entry = arena + ARENA_RX_WRITES + writes * RX_WRITE_BYTES;
    store<i32>(entry, fd);
    store<u32>(entry, u32(frame - VNET_HDR_BYTES), 4);
    store<u32>(entry, length + VNET_HDR_BYTES, 8);
    store<u32>(entry, device, 12);
    // In memory, so that a trap loses none.
    store<u32>(arena, ++writes, ARENA_WRITES);
  }
  return i;
}

/**
 * Index of the first datagram from `first` on that its sender may not send to the device of `first`, or that is of another
 * sender; `first` itself with `rxVerdict` set when it is the one.
 */
function endOfPermitted(arena: usize, first: u32, count: u32): u32 {
  const name = arena + ARENA_RX_NAMES + first * RX_NAME_BYTES;
  const high = sourceHigh(name, isIpv6);
  const low = sourceLow(name, isIpv6);
  if (sources != 0 && !isKnownSource(sources, high, low)) {
    rxVerdict = DROP_RX_SOURCE_UNKNOWN;
    return first;
  }
  if (sourceMode == SOURCE_MODE_STRICT) {
    // Frame by frame: each may have another inner source.
    const bytes = load<u32>(arena + ARENA_RX_MESSAGES + first * MESSAGE_BYTES, MESSAGE_LENGTH);
    if (bytes < runHeader + ETHERNET_BYTES) return first + 1;
    rxVerdict = checkSourceMac(arena, runDevice, rxDatagramAt(arena, first, bytes) + runHeader, high, low);
    return rxVerdict == VERDICT_PASS ? first + 1 : first;
  }
  let i = first + 1;
  while (i < count) {
    const next = arena + ARENA_RX_NAMES + i * RX_NAME_BYTES;
    if (sourceHigh(next, isIpv6) != high || sourceLow(next, isIpv6) != low) break;
    i++;
  }
  return i;
}

/**
 * STRICT: the inner source must be a target, and the sender one of its destinations. A source that is not in the table
 * is asked about; the answer comes from the lookup plugin, never from the frame.
 */
function checkSourceMac(arena: usize, device: u32, frame: usize, high: u64, low: u64): u32 {
  if (load<u8>(frame, ETHERNET_SOURCE) & 1) return DROP_RX_SOURCE_MAC;
  const source = keyOf(frame + ETHERNET_SOURCE);
  const entry = targetFind(atomic.load<u32>(deviceRow(device), DEVICE_TARGETS), source & MAC_MASK);
  const flags = entryFlags(entry);
  if ((flags & (TARGET_VALID | TARGET_DRAINING)) == 0) {
    // Nobody waits for this frame, so a full ring costs nothing but a later try.
    if (flags == 0) missPush(arena, device, MISS_SOURCE, frame - VNET_HDR_BYTES, VNET_HDR_BYTES + ETHERNET_BYTES);
    return DROP_RX_SOURCE_MAC;
  }
  const row = destinationRow(entryDestination(entry));
  if (load<u32>(row, DESTINATION_KIND) == DESTINATION_KIND_UNICAST) {
    return isDestination(row, high, low) ? VERDICT_PASS : DROP_RX_SOURCE_MAC;
  }
  const rows: usize = load<u32>(row, DESTINATION_LIST);
  const count = load<u32>(row, DESTINATION_LIST_COUNT);
  for (let i: u32 = 0; i < count; i++) {
    if (isDestination(destinationRow(load<u32>(rows + i * 4)), high, low)) return VERDICT_PASS;
  }
  return DROP_RX_SOURCE_MAC;
}

function isDestination(row: usize, high: u64, low: u64): bool {
  const name = row + DESTINATION_NAME;
  return sourceHigh(name, isIpv6) == high && sourceLow(name, isIpv6) == low;
}

/** Verdict on a frame that is shorter or longer than those of an active device; one that passes has its vnet_hdr. */
function decideOdd(arena: usize, frame: usize, length: u32): u32 {
  if (!isActive) return DROP_RX_DEVICE_STOPPED;
  if (i32(length) < i32(ETHERNET_BYTES)) return DROP_RX_SHORT_FRAME;
  return decideLong(arena, frame, length);
}

/** A frame above the limit: a super-frame of a kernel on the same host passes, everything else does not. */
function decideLong(arena: usize, frame: usize, length: u32): u32 {
  const row = deviceRow(runDevice);
  if (isTagAboveLimit(row, frame, length, frameMax)) return DROP_RX_VLAN_NOT_CARRIED;
  if (!writeSuper(frame, length, atomic.load<u32>(row, DEVICE_MTU))) return DROP_RX_TOO_BIG;
  add(deviceCounters(arena, runDevice), COUNTER_RX_SUPER_FRAMES, 1);
  return VERDICT_PASS;
}

/** Counts a write that failed; `rxDelivered` then passes over it. */
export function rxFailed(arena: usize, index: u32, reason: u32): void {
  check(index < load<u32>(arena, ARENA_WRITES));
  const entry = arena + ARENA_RX_WRITES + index * RX_WRITE_BYTES;
  store<u32>(entry, 0, 8);
  dropDevice(arena, load<u32>(entry, 12), reason, 1);
}

/** Counts the writes of the batch that did not fail. */
export function rxDelivered(arena: usize): void {
  const writes = load<u32>(arena, ARENA_WRITES);
  check(writes <= BATCH_MAX);
  let i: u32 = 0;
  while (i < writes) {
    // One addition for each run of frames to one device.
    const device = load<u32>(arena + ARENA_RX_WRITES + i * RX_WRITE_BYTES, 12);
    let frames: u64 = 0;
    let bytes: u64 = 0;
    do {
      const entry = arena + ARENA_RX_WRITES + i * RX_WRITE_BYTES;
      if (load<u32>(entry, 12) != device) break;
      const length = load<u32>(entry, 8);
      if (length != 0) {
        frames++;
        bytes += length - VNET_HDR_BYTES;
      }
      i++;
    } while (i < writes);
    check(device < DEVICES_MAX);
    const counters = deviceCounters(arena, device);
    add(counters, COUNTER_RX_FRAMES, frames);
    add(counters, COUNTER_RX_BYTES, bytes);
  }
}
