/**
 * Out: a batch of frames from one device's TAP queue becomes messages for sendmmsg, grouped by send socket.
 * The outer header is written in place, in front of the frame; no payload byte moves. Mirror of `rx.ts`.
 *
 *   worker: read() each frame, note {offset, length}      -> txDecide  each frame's verdict and send socket
 *                                                         -> txArrange messages in socket order, groups
 *   worker: sendmmsg() each group                         -> txSent / dropDevice
 */
import { check } from './check';
import { add, deviceCounters, dropDevice } from './counter';
import { missPush, waitHolds, waitPush } from './deferred';
import { ECN_MASK } from './ecn';
import { encapFrame } from './encap/registry';
import { flowClass, flowHash } from './flow-hash';
import {
  ARENA_BYTES,
  ARENA_FRAME,
  ARENA_INJECTS,
  ARENA_TX_CLASSES,
  ARENA_TX_ENTRIES,
  ARENA_TX_FLOWS,
  ARENA_TX_FRAMES,
  ARENA_TX_HEADER_BYTES,
  ARENA_TX_REPLICAS,
  ARENA_TX_SEGMENT_BYTES,
  ARENA_TX_KEYS,
  ARENA_TX_REPLICA_SOCKETS,
  ARENA_TX_ROUTES,
  ARENA_TX_SOCKETS,
  ARENA_TX_TARGETS,
  ARENA_WAIT_USED,
  BANK_MAX,
  BATCH_MAX,
  COUNTER_TX_DEFERRED,
  COUNTER_TX_READ,
  COUNTER_TX_RESUMED,
  DESTINATION_FRAME_MAX,
  DESTINATION_HEADER,
  DESTINATION_KIND,
  DESTINATION_KIND_SPREAD,
  DESTINATION_KIND_UNICAST,
  DESTINATION_LIST,
  DESTINATION_LIST_COUNT,
  DEVICE_DESTINATION,
  DEVICE_DSCP,
  DEVICE_ENCAP,
  DEVICE_FLAG_ECN_CLEAR,
  DEVICE_FLAG_MSS_PATH,
  DEVICE_FLAG_PROXY,
  DEVICE_FLAGS,
  DEVICE_MODE,
  DEVICE_MSS_IPV4,
  DEVICE_MSS_IPV6,
  DEVICE_MUX,
  DEVICE_STATE,
  DEVICE_STATE_ACTIVE,
  DEVICE_VNETID,
  DEVICES_MAX,
  DROP_TX_CORE_TRAP,
  DROP_TX_DEVICE_STOPPED,
  DROP_TX_HELD_FULL,
  DROP_TX_NO_TARGET,
  DROP_TX_PATH_MTU,
  DROP_TX_SHORT_FRAME,
  DROP_TX_TARGET_DROP,
  DROP_TX_TOO_BIG,
  DROP_TX_VLAN_NOT_CARRIED,
  DSCP_INHERIT,
  ENTRY_GENERATION_SHIFT,
  HEADER_OFFSET,
  HEADER_SEED,
  INJECT_TX_ROUTED,
  INJECT_WAITED,
  MISS_PROXY,
  MISS_TARGET,
  MUX_BANK,
  NONE,
  TARGET_DRAINING,
  TARGET_DROP,
  TARGET_FULL,
  TARGET_MODE_DYNAMIC,
  TARGET_MODE_POINT,
  TARGET_VALID,
  TX_FRAME_BYTES,
  TX_HEADROOM_BYTES,
  TX_SOCKET_DROPPED,
  TX_SOCKET_REPLICATE,
  VERDICT_MISS,
  VERDICT_MISS_PROXY,
  VERDICT_PASS,
  VERDICT_WAIT,
  VNET_HDR_BYTES,
} from './layout';
import { frameBytesMax, refusesTags } from './limit';
import { IOVEC_BYTES, MESSAGE_BYTES, storeMessage } from './message';
import { clampMss } from './mss';
import { ringPeek } from './ring';
import { destinationRow, deviceRow, muxRow } from './table';
import {
  entryDestination,
  entryFlags,
  entryId,
  targetLookupFrames,
} from './target';
import { acceptRequest, headerBytes, segmentBytes } from './segment';
import { tellTooBig } from './too-big';
import { isPlain } from './vnet-hdr';
import { ETHERNET_BYTES, isProxied, isTagged } from './wire';

/** Odd: spreads the hash's bits anew. */
const SPREAD_MULTIPLIER: u32 = 0x9e3779b1;
/** Below it are the two bits of ECN (RFC 3168 section 5). */
const DSCP_SHIFT: u32 = 2;
const DSCP_MASK: u32 = 0xfc;

// What is the same for all frames of a batch, read from the tables once when it begins.
let isActive: bool = false;
let isPoint: bool = false;
let frameMax: u32 = 0;
let isUntagged: bool = false;
let bank: u32 = 0;
let encap: u32 = 0;
let vnetid: u64 = 0;
let destination: u32 = NONE;
/** Bytes of the largest frame that the way takes of the frame that was dropped last as longer. */
let pathMax: u32 = 0;
let isDynamic: bool = false;
let isProxying: bool = false;
/** Frames of the batch that varpd has seen: they are not asked about again. */
let isRouted: bool = false;
/** Frames that main hands back: they go on while their target is DRAINING. */
let isReturning: bool = false;
/** Something waits, so that frames to VALID targets may have to queue up. */
let isWaiting: bool = false;
/** Frames that come from the link, behind all that is with this worker already. */
let isFresh: bool = false;
/** Frames that waited with this worker: their entries are there, as `waitTake` judged by them. */
let isWaited: bool = false;
let seed: u64 = 0;
/** The largest segments that may be offered, 0 for any; and whether the way counts too. */
let mss4: u32 = 0;
let mss6: u32 = 0;
let mssPath: bool = false;
/** What the outer header takes from the inner one's traffic class, and what it has of its own. */
let classMask: u32 = 0;
let dscpClass: u32 = 0;

/** Reads the device's row and what it points to into the globals above. */
function txBegin(device: u32): void {
  const row = deviceRow(device);
  isActive = atomic.load<u32>(row, DEVICE_STATE) == DEVICE_STATE_ACTIVE;
  if (!isActive) return;
  seed = load<u64>(HEADER_OFFSET, HEADER_SEED);
  frameMax = frameBytesMax(row);
  isUntagged = refusesTags(row);
  encap = load<u32>(row, DEVICE_ENCAP);
  vnetid = load<u64>(row, DEVICE_VNETID);
  const mode = load<u32>(row, DEVICE_MODE);
  isPoint = mode == TARGET_MODE_POINT;
  isDynamic = mode == TARGET_MODE_DYNAMIC;
  if (isPoint) destination = load<u32>(row, DEVICE_DESTINATION);
  const flags = load<u32>(row, DEVICE_FLAGS);
  isProxying = (flags & DEVICE_FLAG_PROXY) != 0;
  mss4 = atomic.load<u32>(row, DEVICE_MSS_IPV4);
  mss6 = atomic.load<u32>(row, DEVICE_MSS_IPV6);
  mssPath = (flags & DEVICE_FLAG_MSS_PATH) != 0;
  const dscp = load<u32>(row, DEVICE_DSCP);
  const ecnMask = flags & DEVICE_FLAG_ECN_CLEAR ? 0 : ECN_MASK;
  classMask = dscp == DSCP_INHERIT ? DSCP_MASK | ecnMask : ecnMask;
  dscpClass = dscp == DSCP_INHERIT ? 0 : dscp << DSCP_SHIFT;
  bank = load<u32>(muxRow(load<u32>(row, DEVICE_MUX)), MUX_BANK);
  check(bank - 1 < BANK_MAX);
}

/** Decides frames `first` to `count - 1` of the batch. Call with `first` 0 to begin, higher after a trap. */
export function txDecide(arena: usize, device: u32, first: u32, count: u32): void {
  check(count <= BATCH_MAX && device < DEVICES_MAX);
  if (first == 0) add(deviceCounters(arena, device), COUNTER_TX_READ, count);
  isRouted = false;
  isReturning = false;
  isFresh = true;
  isWaited = false;
  isWaiting = load<u32>(arena, ARENA_WAIT_USED) != 0;
  decideFrames(arena, device, first, count);
}

/** `txDecide` for frames that come back: from main (`kind` is an INJECT_ number) or from the wait queue. */
export function txDecideDeferred(arena: usize, device: u32, kind: u32, first: u32, count: u32): void {
  check(count <= BATCH_MAX && device < DEVICES_MAX);
  if (first == 0) add(deviceCounters(arena, device), COUNTER_TX_RESUMED, count);
  isRouted = kind == INJECT_TX_ROUTED;
  isReturning = kind != INJECT_WAITED;
  isFresh = false;
  isWaited = kind == INJECT_WAITED;
  isWaiting = false;
  decideFrames(arena, device, first, count);
}

function decideFrames(arena: usize, device: u32, first: u32, count: u32): void {
  store<u32>(arena, first, ARENA_FRAME);
  txBegin(device);
  if (isActive && isDynamic && !isWaited) targetLookupFrames(arena, deviceRow(device), first, count);
  for (let i = first; i < count; i++) {
    store<u32>(arena, i, ARENA_FRAME);
    const verdict = decideFrame(arena, device, i);
    if (verdict == VERDICT_PASS) continue;
    store<u8>(arena + i, TX_SOCKET_DROPPED, ARENA_TX_SOCKETS);
    const reason = verdict < VERDICT_PASS ? verdict : defer(arena, device, i, verdict);
    if (reason == DROP_TX_TOO_BIG) tell(arena, device, i, NONE, frameMax);
    else if (reason == DROP_TX_PATH_MTU) tell(arena, device, i, destination, pathMax);
    if (reason != VERDICT_PASS) dropDevice(arena, device, reason, 1);
  }
}

/** Has main tell the sender of a frame that it is too big. */
function tell(arena: usize, device: u32, i: u32, route: u32, most: u32): void {
  const entry = arena + ARENA_TX_FRAMES + i * TX_FRAME_BYTES;
  tellTooBig(arena, device, load<u32>(entry) + VNET_HDR_BYTES, load<u32>(entry, 4) - VNET_HDR_BYTES, route, most);
}

/** Puts a frame aside as the verdict says; a drop reason when there is no room, else VERDICT_PASS. */
function defer(arena: usize, device: u32, i: u32, verdict: u32): u32 {
  const entry = arena + ARENA_TX_FRAMES + i * TX_FRAME_BYTES;
  const offset: usize = load<u32>(entry);
  const bytes = load<u32>(entry, 4);
  if (verdict == VERDICT_WAIT) {
    const refused = waitPush(arena, device, offset, bytes);
    if (refused != NONE) return refused;
    isWaiting = true;
  } else {
    const kind = verdict == VERDICT_MISS_PROXY ? MISS_PROXY : MISS_TARGET;
    const refused = missPush(arena, device, kind, offset, bytes);
    if (refused != NONE) return refused;
  }
  add(deviceCounters(arena, device), COUNTER_TX_DEFERRED, 1);
  return VERDICT_PASS;
}

/** After a trap: drops the frame that was being decided and returns the index to go on with. */
export function txTrapped(arena: usize, device: u32): u32 {
  const i = load<u32>(arena, ARENA_FRAME);
  store<u8>(arena + i, TX_SOCKET_DROPPED, ARENA_TX_SOCKETS);
  dropDevice(arena, device, DROP_TX_CORE_TRAP, 1);
  return i + 1;
}

/** Verdict on one frame; when it passes, its outer header, iovec and send socket are written. */
export function txFrame(arena: usize, device: u32, i: u32): u32 {
  isRouted = false;
  isReturning = false;
  isWaiting = load<u32>(arena, ARENA_WAIT_USED) != 0;
  txBegin(device);
  if (isActive && isDynamic) targetLookupFrames(arena, deviceRow(device), i, i + 1);
  return decideFrame(arena, device, i);
}

// @ts-expect-error: decorator
@inline
function decideFrame(arena: usize, device: u32, i: u32): u32 {
  if (!isActive) return DROP_TX_DEVICE_STOPPED;
  const entry = arena + ARENA_TX_FRAMES + i * TX_FRAME_BYTES;
  const offset: usize = load<u32>(entry);
  const bytes = load<u32>(entry, 4);
  // The whole of it in this worker's arena, headroom included; u64 so that a wild length cannot wrap.
  const start = u64(u32(offset - arena - TX_HEADROOM_BYTES));
  check(start + bytes <= ARENA_BYTES - TX_HEADROOM_BYTES);
  if (bytes < VNET_HDR_BYTES + ETHERNET_BYTES) return DROP_TX_SHORT_FRAME;
  const frame = offset + VNET_HDR_BYTES;
  const length = bytes - VNET_HDR_BYTES;
  let inner: u32 = 0;
  let largest = length;
  if (!isPlain(offset)) {
    const verdict = acceptRequest(offset, frame, length);
    if (verdict != VERDICT_PASS) return verdict;
    inner = headerBytes;
    if (inner != 0) {
      largest = min(length, inner + segmentBytes);
      store<u32>(arena + i * 4, segmentBytes, ARENA_TX_SEGMENT_BYTES);
    }
  }
  store<u32>(arena + i * 4, inner, ARENA_TX_HEADER_BYTES);
  if (isUntagged && isTagged(frame)) return DROP_TX_VLAN_NOT_CARRIED;
  if (largest > frameMax) return DROP_TX_TOO_BIG;
  if (!isPoint) {
    if (!isDynamic) return DROP_TX_NO_TARGET;
    const verdict = selectTarget(arena, device, i, frame, length);
    if (verdict != VERDICT_PASS) return verdict;
  }
  const hash = flowHash(frame, length, seed);
  let row = destinationRow(destination);
  const kind = load<u32>(row, DESTINATION_KIND);
  let socket = u8((u64(hash) * u64(bank)) >> 32);
  if (kind != DESTINATION_KIND_UNICAST) {
    if (kind == DESTINATION_KIND_SPREAD) {
      destination = spreadOver(row, hash);
      row = destinationRow(destination);
    } else {
      store<u8>(arena + i, socket, ARENA_TX_REPLICA_SOCKETS);
      store<u32>(arena + i * 4, destination, ARENA_TX_REPLICAS);
      socket = u8(TX_SOCKET_REPLICATE);
    }
  }
  // Less 1, so that 0 is beyond every length.
  const most = load<u32>(row, DESTINATION_FRAME_MAX);
  if (largest - 1 > most - 1) {
    pathMax = most;
    return DROP_TX_PATH_MTU;
  }
  if (mss4 != 0) clampMss(frame, length, mss4, mss6, mssPath ? most : 0, inner != 0);
  store<u32>(arena + i * 4, destination, ARENA_TX_ROUTES);
  store<u8>(arena + i, u8((flowClass & classMask) | dscpClass), ARENA_TX_CLASSES);
  store<u8>(arena + i, u8(hash), ARENA_TX_FLOWS);
  // Segments get theirs where they get the others.
  if (inner == 0) encapFrame(encap, frame, row + DESTINATION_HEADER, vnetid, u8(hash));
  store<u8>(arena + i, socket, ARENA_TX_SOCKETS);
  return VERDICT_PASS;
}

/** DYNAMIC: sets `destination` when the frame's target is VALID and nothing is in its way. */
function selectTarget(arena: usize, device: u32, i: u32, frame: usize, length: u32): u32 {
  const entry = load<u64>(arena + i * 8, ARENA_TX_ENTRIES);
  const flags = entryFlags(entry);
  if (flags & TARGET_VALID) {
    if (isProxying && !isRouted && isProxied(frame, length)) return VERDICT_MISS_PROXY;
    if (isWaiting && waitHolds(arena, device, load<u64>(arena + i * 8, ARENA_TX_KEYS))) return VERDICT_WAIT;
    destination = entryDestination(entry);
    store<u32>(arena + i * 4, entryId(entry), ARENA_TX_TARGETS);
    return VERDICT_PASS;
  }
  if (flags & TARGET_DROP) return DROP_TX_TARGET_DROP;
  if (flags & TARGET_DRAINING) {
    // What comes back from main is what the others wait for.
    if (!isReturning) return VERDICT_WAIT;
    // One of before the target was removed: others may be on their way to main, and it goes behind them.
    const generation = load<u32>(arena + i * 4, ARENA_TX_TARGETS);
    if (generation != NONE && generation != u32(entry >> ENTRY_GENERATION_SHIFT)) return VERDICT_MISS;
    destination = entryDestination(entry);
    store<u32>(arena + i * 4, entryId(entry), ARENA_TX_TARGETS);
    return VERDICT_PASS;
  }
  if (flags & TARGET_FULL) return DROP_TX_HELD_FULL;
  // It was removed while frames of it were with this worker: those go to main first.
  if (isFresh) {
    if (ringPeek(arena + ARENA_INJECTS) != 0) return VERDICT_WAIT;
    if (isWaiting && waitHolds(arena, device, load<u64>(arena + i * 8, ARENA_TX_KEYS))) return VERDICT_WAIT;
  }
  return VERDICT_MISS;
}

/** The destination of a list that the flow keeps to. */
function spreadOver(row: usize, hash: u32): u32 {
  const count = load<u32>(row, DESTINATION_LIST_COUNT);
  // Not the bits that choose the send socket.
  const index = u32((u64(hash * SPREAD_MULTIPLIER) * u64(count)) >> 32);
  check(index < count);
  return load<u32>(load<u32>(row, DESTINATION_LIST) + index * 4);
}
