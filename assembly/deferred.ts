/**
 * Frames that cannot go out now: to main over the miss ring, back from main over the inject ring, and the wait queue,
 * where a frame stays while those before it to the same target are on their way back. All three hold records of one
 * form (layout: FRAME_RECORD_). Nothing here decides; `tx.ts` does.
 *
 * No frame overtakes another of its target: main makes an entry DRAINING, waits until every worker has seen it, hands
 * back what the miss rings held, and makes it VALID when the inject rings are empty of that. In between a worker puts
 * frames of the target into its wait queue, and behind those every later one.
 */
import { check } from './check';
import {
  ARENA_INJECT_DEVICE,
  ARENA_INJECT_KIND,
  ARENA_INJECTS,
  ARENA_MISSES,
  ARENA_MISSES_PUT,
  ARENA_MISSES_TAKEN,
  ARENA_TX_BUFFER,
  ARENA_TX_ENTRIES,
  ARENA_TX_FRAMES,
  ARENA_TX_KEYS,
  ARENA_TX_TARGETS,
  ARENA_WAIT,
  ARENA_WAIT_SHARES,
  ARENA_WAIT_USED,
  BATCH_MAX,
  DEVICE_MODE,
  DEVICE_STATE,
  DEVICE_STATE_ACTIVE,
  DEVICE_TARGETS,
  DEVICES_MAX,
  DROP_TX_MISS_RING_FULL,
  DROP_TX_MISS_SHARE,
  DROP_TX_WAIT_FULL,
  DROP_TX_WAIT_SHARE,
  FRAME_BYTES_MAX,
  FRAME_RECORD_BYTES,
  HEADER_MISS_SHARE,
  HEADER_OFFSET,
  INJECT_WAITED,
  KEY_SHIFT,
  LINE_BYTES,
  MISS_COST_MIN,
  NONE,
  TARGET_DRAINING,
  TARGET_MODE_DYNAMIC,
  TX_BUFFER_BYTES,
  TX_FRAME_BYTES,
  TX_HEADROOM_BYTES,
  VNET_HDR_BYTES,
  WAIT_BYTES,
} from './layout';
import { ringDrop, ringFree, ringPeek, ringPeekBytes, ringPush } from './ring';
import { deviceRow } from './table';
import { entryFlags, keyOf, targetFind } from './target';
import { ETHERNET_BYTES } from './wire';

const DEVICE: usize = 0;
const KIND: usize = 4;
const WAIT_HEADER_BYTES: u32 = 8;

/** Writes a record's header in front of `[vnetHdr, …)`, where a transmit frame has its headroom. */
// @ts-expect-error: decorator
@inline
export function writeRecord(vnetHdr: usize, device: u32, kind: u32): usize {
  const record = vnetHdr - FRAME_RECORD_BYTES;
  store<u32>(record, device, DEVICE);
  store<u32>(record, kind, KIND);
  store<u64>(record, 0, 8);
  return record;
}

/** What a record on the miss ring counts of its device's share. */
// @ts-expect-error: decorator
@inline
function missCost(bytes: u32): u32 {
  return max(bytes, MISS_COST_MIN);
}

/** Hands main a copy of a transmit frame with its vnet_hdr; NONE, or the drop reason when it may not. */
export function missPush(arena: usize, device: u32, kind: u32, vnetHdr: usize, bytes: u32): u32 {
  return missRecord(arena, device, writeRecord(vnetHdr, device, kind), FRAME_RECORD_BYTES + bytes);
}

/**
 * Puts a record on the miss ring; NONE, or a drop reason. A device that has its share of it, or as much as is free, has to
 * wait for main: however many devices have more than main can take, there is room for the next one.
 */
export function missRecord(arena: usize, device: u32, record: usize, bytes: u32): u32 {
  const ring = arena + ARENA_MISSES;
  const put = arena + ARENA_MISSES_PUT + device * 4;
  const total = load<u32>(put);
  const unread = i32(total - atomic.load<u32>(arena + ARENA_MISSES_TAKEN + device * 4));
  const share = min(load<u32>(HEADER_OFFSET, HEADER_MISS_SHARE), ringFree(ring));
  if (unread > 0 && unread >= i32(share)) return DROP_TX_MISS_SHARE;
  if (!ringPush(ring, record, bytes)) return DROP_TX_MISS_RING_FULL;
  store<u32>(put, total + missCost(bytes));
  return NONE;
}

/** Main: frees the oldest record of a miss ring, which `ringPeek` has found. */
export function missDrop(arena: usize): void {
  const ring = arena + ARENA_MISSES;
  const device = load<u32>(ringPeek(ring), DEVICE);
  check(device < DEVICES_MAX);
  const taken = arena + ARENA_MISSES_TAKEN + device * 4;
  const cost = missCost(ringPeekBytes(ring));
  ringDrop(ring);
  atomic.store<u32>(taken, atomic.load<u32>(taken) + cost);
}

/** Nobody works on the arena: each device has nothing of what all have in common. */
export function sharesForget(arena: usize): void {
  memory.fill(arena + ARENA_MISSES_PUT, 0, DEVICES_MAX * 4);
  memory.fill(arena + ARENA_MISSES_TAKEN, 0, DEVICES_MAX * 4);
  memory.fill(arena + ARENA_WAIT_SHARES, 0, DEVICES_MAX * 4);
}

/** Appends a copy of a transmit frame to the wait queue; NONE, or the drop reason when it may not. */
export function waitPush(arena: usize, device: u32, vnetHdr: usize, bytes: u32): u32 {
  const used = load<u32>(arena, ARENA_WAIT_USED);
  const record = FRAME_RECORD_BYTES + bytes;
  const padded = WAIT_HEADER_BYTES + ((record + 7) & ~7);
  const share = arena + ARENA_WAIT_SHARES + device * 4;
  const own = load<u32>(share);
  if (own != 0 && own >= WAIT_BYTES - used) return DROP_TX_WAIT_SHARE;
  if (used + padded > WAIT_BYTES) return DROP_TX_WAIT_FULL;
  const at = arena + ARENA_WAIT + used;
  store<u32>(at, record);
  memory.copy(at + WAIT_HEADER_BYTES, writeRecord(vnetHdr, device, INJECT_WAITED), record);
  store<u32>(arena, used + padded, ARENA_WAIT_USED);
  store<u32>(share, own + padded);
  return NONE;
}

/** True when a frame of the device to the same address waits. */
export function waitHolds(arena: usize, device: u32, key: u64): bool {
  if (load<u32>(arena + ARENA_WAIT_SHARES + device * 4) == 0) return false;
  const used = load<u32>(arena, ARENA_WAIT_USED);
  let at: u32 = 0;
  while (at < used) {
    const header = arena + ARENA_WAIT + at;
    const record = header + WAIT_HEADER_BYTES;
    if (load<u32>(record, DEVICE) == device) {
      if (keyOf(record + FRAME_RECORD_BYTES + VNET_HDR_BYTES) == key) return true;
    }
    at += WAIT_HEADER_BYTES + ((load<u32>(header) + 7) & ~7);
  }
  return false;
}

/** The entry of a waiting frame's target; 0 when it is gone, or the device has none any more. */
function entryOf(device: u32, key: u64): u64 {
  const row = deviceRow(device);
  if (atomic.load<u32>(row, DEVICE_STATE) != DEVICE_STATE_ACTIVE) return 0;
  if (load<u32>(row, DEVICE_MODE) != TARGET_MODE_DYNAMIC) return 0;
  return targetFind(atomic.load<u32>(row, DEVICE_TARGETS), key & ((u64(1) << KEY_SHIFT) - 1));
}

/** Device and address of a frame in one word. */
// @ts-expect-error: decorator
@inline
function nameOf(device: u32, key: u64): u64 {
  return key | (u64(device) << (KEY_SHIFT + 4));
}

/** True when the name is one of `count` at `names`. */
function isAmong(names: usize, count: u32, name: u64): bool {
  for (let i: u32 = 0; i < count; i++) if (load<u64>(names + i * 8) == name) return true;
  return false;
}

/**
 * Moves frames that may go on out of the wait queue into the transmit batch: of one device, in order. Returns how
 * many; 0 when none may. Sets ARENA_INJECT_DEVICE and ARENA_INJECT_KIND.
 */
export function waitTake(arena: usize): u32 {
  const used = load<u32>(arena, ARENA_WAIT_USED);
  let device = NONE;
  let count: u32 = 0;
  let place: usize = arena + ARENA_TX_BUFFER + TX_HEADROOM_BYTES;
  let kept: u32 = 0;
  // Targets that were found DRAINING: they stay so for this pass, whatever main does meanwhile.
  const draining = arena + ARENA_TX_KEYS;
  let drainings: u32 = 0;
  let at: u32 = 0;
  while (at < used) {
    const header = arena + ARENA_WAIT + at;
    const length = load<u32>(header);
    const size = WAIT_HEADER_BYTES + ((length + 7) & ~7);
    const record = header + WAIT_HEADER_BYTES;
    const owner = load<u32>(record, DEVICE);
    const key = keyOf(record + FRAME_RECORD_BYTES + VNET_HDR_BYTES);
    let isTaken = (device == NONE || owner == device) && hasRoom(arena, place, count) && drainings < BATCH_MAX;
    if (isTaken) {
      const name = nameOf(owner, key);
      if (isAmong(draining, drainings, name)) {
        isTaken = false;
      } else {
        const entry = entryOf(owner, key);
        if (entryFlags(entry) & TARGET_DRAINING) {
          store<u64>(draining + drainings * 8, name);
          drainings++;
          isTaken = false;
        } else store<u64>(arena + count * 8, entry, ARENA_TX_ENTRIES);
      }
    }
    if (isTaken) {
      device = owner;
      place = placeFrame(arena, place, count, record, length);
      count++;
      const share = arena + ARENA_WAIT_SHARES + owner * 4;
      store<u32>(share, load<u32>(share) - size);
    } else {
      if (kept != at) memory.copy(arena + ARENA_WAIT + kept, header, size);
      kept += size;
    }
    at += size;
  }
  store<u32>(arena, kept, ARENA_WAIT_USED);
  store<u32>(arena, device, ARENA_INJECT_DEVICE);
  store<u32>(arena, INJECT_WAITED, ARENA_INJECT_KIND);
  return count;
}

/**
 * Moves frames from the inject ring into the transmit batch: of one device and kind, in order. Returns how many; 0 when
 * the ring is empty. Sets ARENA_INJECT_DEVICE and ARENA_INJECT_KIND.
 */
export function injectTake(arena: usize): u32 {
  const ring = arena + ARENA_INJECTS;
  let device = NONE;
  let kind: u32 = 0;
  let count: u32 = 0;
  let place: usize = arena + ARENA_TX_BUFFER + TX_HEADROOM_BYTES;
  while (hasRoom(arena, place, count)) {
    const record = ringPeek(ring);
    if (record == 0) break;
    const owner = load<u32>(record, DEVICE);
    check(owner < DEVICES_MAX);
    if (count != 0 && (owner != device || load<u32>(record, KIND) != kind)) break;
    device = owner;
    kind = load<u32>(record, KIND);
    store<u32>(arena + count * 4, load<u32>(record, 8), ARENA_TX_TARGETS);
    place = placeFrame(arena, place, count, record, ringPeekBytes(ring));
    count++;
    ringDrop(ring);
  }
  store<u32>(arena, device, ARENA_INJECT_DEVICE);
  store<u32>(arena, kind, ARENA_INJECT_KIND);
  return count;
}

// @ts-expect-error: decorator
@inline
function hasRoom(arena: usize, place: usize, count: u32): bool {
  return count < BATCH_MAX && place <= arena + ARENA_TX_BUFFER + TX_BUFFER_BYTES - FRAME_BYTES_MAX;
}

/** Copies a record's frame to a place in the transmit batch, as `workers/tx.ts` reads frames to; returns the next. */
function placeFrame(arena: usize, place: usize, count: u32, record: usize, length: u32): usize {
  const bytes = length - FRAME_RECORD_BYTES;
  check(bytes >= VNET_HDR_BYTES + ETHERNET_BYTES && bytes <= FRAME_BYTES_MAX);
  memory.copy(place, record + FRAME_RECORD_BYTES, bytes);
  const entry = arena + ARENA_TX_FRAMES + count * TX_FRAME_BYTES;
  store<u32>(entry, u32(place));
  store<u32>(entry, bytes, 4);
  return ((place + bytes + LINE_BYTES - 1) & ~(LINE_BYTES - 1)) + TX_HEADROOM_BYTES;
}
