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
import { encapFrame } from './encap/registry';
import { flowHash } from './flow-hash';
import {
  ARENA_BYTES,
  ARENA_FRAME,
  ARENA_GROUPS,
  ARENA_SEND_FDS,
  ARENA_TX_FRAMES,
  ARENA_TX_GROUPS,
  ARENA_TX_IOVECS,
  ARENA_TX_MESSAGES,
  ARENA_TX_SOCKETS,
  ARENA_TX_STARTS,
  BANK_MAX,
  BATCH_MAX,
  COUNTER_TX_BYTES,
  COUNTER_TX_FRAMES,
  COUNTER_TX_READ,
  DESTINATION_CONTROL,
  DESTINATION_CONTROL_BYTES,
  DESTINATION_HEADER,
  DESTINATION_HEADER_BYTES,
  DESTINATION_NAME,
  DESTINATION_NAME_BYTES,
  DEVICE_DESTINATION,
  DEVICE_ENCAP,
  DEVICE_MODE,
  DEVICE_MUX,
  DEVICE_STATE,
  DEVICE_STATE_ACTIVE,
  DEVICE_VNETID,
  DEVICES_MAX,
  DROP_TX_BAD_VNET_HDR,
  DROP_TX_CORE_TRAP,
  DROP_TX_DEVICE_STOPPED,
  DROP_TX_NO_TARGET,
  DROP_TX_SHORT_FRAME,
  DROP_TX_TOO_BIG,
  DROP_TX_VLAN_NOT_CARRIED,
  HEADER_BASE,
  HEADER_OFFSET,
  HEADER_SEED,
  MUX_BANK,
  TARGET_MODE_POINT,
  TX_FRAME_BYTES,
  TX_GROUP_BYTES,
  TX_HEADROOM_BYTES,
  TX_SOCKET_DROPPED,
  VERDICT_PASS,
  VNET_HDR_BYTES,
} from './layout';
import { frameBytesMax, isTagAboveLimit } from './limit';
import { IOVEC_BYTES, MESSAGE_BYTES, storeMessage } from './message';
import { destinationRow, deviceRow, muxRow } from './table';
import { isPlain } from './vnet-hdr';
import { ETHERNET_BYTES } from './wire';

// What is the same for all frames of a batch, read from the tables once when it begins.
let isActive: bool = false;
let isPoint: bool = false;
let frameMax: u32 = 0;
let bank: u32 = 0;
let encap: u32 = 0;
let vnetid: u64 = 0;
let template: usize = 0;
let seed: u64 = 0;
let base: u64 = 0;

/** Reads the device's row and what it points to into the globals above. */
function txBegin(device: u32): void {
  const row = deviceRow(device);
  isActive = atomic.load<u32>(row, DEVICE_STATE) == DEVICE_STATE_ACTIVE;
  if (!isActive) return;
  seed = load<u64>(HEADER_OFFSET, HEADER_SEED);
  base = load<u64>(HEADER_OFFSET, HEADER_BASE);
  frameMax = frameBytesMax(row);
  encap = load<u32>(row, DEVICE_ENCAP);
  vnetid = load<u64>(row, DEVICE_VNETID);
  isPoint = load<u32>(row, DEVICE_MODE) == TARGET_MODE_POINT;
  if (!isPoint) return;
  template = destinationRow(load<u32>(row, DEVICE_DESTINATION)) + DESTINATION_HEADER;
  bank = load<u32>(muxRow(load<u32>(row, DEVICE_MUX)), MUX_BANK);
  check(bank - 1 < BANK_MAX);
}

/** Decides frames `first` to `count - 1` of the batch. Call with `first` 0 to begin, higher after a trap. */
export function txDecide(arena: usize, device: u32, first: u32, count: u32): void {
  check(count <= BATCH_MAX && device < DEVICES_MAX);
  if (first == 0) add(deviceCounters(arena, device), COUNTER_TX_READ, count);
  store<u32>(arena, first, ARENA_FRAME);
  txBegin(device);
  for (let i = first; i < count; i++) {
    store<u32>(arena, i, ARENA_FRAME);
    const verdict = decideFrame(arena, device, i);
    if (verdict == VERDICT_PASS) continue;
    store<u8>(arena + i, TX_SOCKET_DROPPED, ARENA_TX_SOCKETS);
    dropDevice(arena, device, verdict, 1);
  }
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
  txBegin(device);
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
  if (!isPlain(offset)) return DROP_TX_BAD_VNET_HDR;
  if (length > frameMax) {
    return isTagAboveLimit(deviceRow(device), frame, length, frameMax)
      ? DROP_TX_VLAN_NOT_CARRIED
      : DROP_TX_TOO_BIG;
  }
  if (!isPoint) return DROP_TX_NO_TARGET;
  const hash = flowHash(frame, length, seed);
  const header = encapFrame(encap, frame, template, vnetid);
  const iovec = arena + ARENA_TX_IOVECS + i * IOVEC_BYTES;
  store<u64>(iovec, base + u64(frame - header));
  store<u64>(iovec, u64(header + length), 8);
  store<u8>(arena + i, u8((u64(hash) * u64(bank)) >> 32), ARENA_TX_SOCKETS);
  return VERDICT_PASS;
}

/**
 * Puts the messages of the frames that passed into the order of their send sockets (a counting sort, so that
 * a flow keeps its order) and lists the groups {fd, first, count}. Returns how many groups.
 */
export function txArrange(arena: usize, device: u32, count: u32): u32 {
  check(count <= BATCH_MAX);
  const starts = arena + ARENA_TX_STARTS;
  memory.fill(starts, 0, BANK_MAX * 4);
  let passed: u32 = 0;
  for (let i: u32 = 0; i < count; i++) {
    const socket = u32(load<u8>(arena + i, ARENA_TX_SOCKETS));
    if (socket == TX_SOCKET_DROPPED) continue;
    check(socket < BANK_MAX);
    store<u32>(starts + socket * 4, load<u32>(starts + socket * 4) + 1);
    passed++;
  }
  store<u32>(arena, 0, ARENA_GROUPS);
  if (passed == 0) return 0;
  const row = deviceRow(device);
  const mux = load<u32>(row, DEVICE_MUX);
  const sockets = load<u32>(muxRow(mux), MUX_BANK);
  check(sockets <= BANK_MAX);
  let messages: u32 = 0;
  let groups: u32 = 0;
  for (let socket: u32 = 0; socket < sockets; socket++) {
    const size = load<u32>(starts + socket * 4);
    store<u32>(starts + socket * 4, messages);
    if (size == 0) continue;
    const group = arena + ARENA_TX_GROUPS + groups * TX_GROUP_BYTES;
    store<i32>(group, load<i32>(arena + (mux * BANK_MAX + socket) * 4, ARENA_SEND_FDS));
    store<u32>(group, messages, 4);
    store<u32>(group, size, 8);
    messages += size;
    groups++;
  }
  for (let i: u32 = 0; i < count; i++) {
    const socket = u32(load<u8>(arena + i, ARENA_TX_SOCKETS));
    if (socket == TX_SOCKET_DROPPED) continue;
    const slot = load<u32>(starts + socket * 4);
    store<u32>(starts + socket * 4, slot + 1);
    txMessage(arena, row, slot, i);
  }
  store<u32>(arena, groups, ARENA_GROUPS);
  return groups;
}

function txMessage(arena: usize, row: usize, slot: u32, i: u32): void {
  const destination = destinationRow(load<u32>(row, DEVICE_DESTINATION));
  storeMessage(
    arena + ARENA_TX_MESSAGES + slot * MESSAGE_BYTES,
    destination + DESTINATION_NAME,
    load<u32>(destination, DESTINATION_NAME_BYTES),
    arena + ARENA_TX_IOVECS + i * IOVEC_BYTES,
    destination + DESTINATION_CONTROL,
    load<u32>(destination, DESTINATION_CONTROL_BYTES),
  );
}

/** Counts messages `first` to `first + count - 1` as sent. */
export function txSent(arena: usize, device: u32, first: u32, count: u32): void {
  check(first + count <= BATCH_MAX);
  const destination = destinationRow(load<u32>(deviceRow(device), DEVICE_DESTINATION));
  const header = load<u32>(destination, DESTINATION_HEADER_BYTES);
  let bytes: u64 = 0;
  for (let i = first; i < first + count; i++) {
    const message = arena + ARENA_TX_MESSAGES + i * MESSAGE_BYTES;
    const iovec = usize(load<u64>(message, 16) - load<u64>(HEADER_OFFSET, HEADER_BASE));
    bytes += load<u64>(iovec, 8) - header;
  }
  const counters = deviceCounters(arena, device);
  add(counters, COUNTER_TX_FRAMES, count);
  add(counters, COUNTER_TX_BYTES, bytes);
}
