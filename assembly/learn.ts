/**
 * Sources of received frames, of devices whose lookup learns: one that is in the table behind its sender is noted as seen, any
 * other reported to main, once a second at most. Nothing is learned here: main decides, and writes the table.
 */
import { add, deviceCounters } from './counter';
import { missPush } from './deferred';
import {
  ARENA_LEARN_COUNT,
  ARENA_LEARN_SECOND,
  ARENA_NOW,
  ARENA_RX_LEARNED,
  ARENA_SCRATCH,
  COUNTER_RX_LEARN_LIMITED,
  DESTINATION_KIND,
  DESTINATION_KIND_UNICAST,
  DEVICE_TARGETS,
  KEY_SHIFT,
  LEARN_REPORTS_MAX,
  MISS_LEARN,
  NONE,
  RX_LEARNED_MAX,
  SCRATCH_BYTES,
  TARGET_DRAINING,
  TARGET_VALID,
  VNET_HDR_BYTES,
} from './layout';
import { isDestination, sourceHigh, sourceLow } from './source';
import { destinationRow, deviceRow } from './table';
import { entryDestination, entryFlags, entryId, keyOf, targetFind, targetSeen } from './target';
import { writeZero } from './vnet-hdr';
import { ETHERNET_BYTES } from './wire';

const ETHERNET_SOURCE: usize = 6;
const ADDRESS_BYTES: u32 = 16;
const RECORD_BYTES: u32 = VNET_HDR_BYTES + ETHERNET_BYTES + ADDRESS_BYTES;
const MAC_MASK: u64 = (u64(1) << KEY_SHIFT) - 1;
const MULTIPLIER: u64 = 0x9e3779b97f4a7c15;

/** @param frame of an Ethernet header at least, @param name socket address of who sent it */
export function learnSource(arena: usize, device: u32, frame: usize, name: usize, isIpv6: bool): void {
  // Nobody sends from a group address.
  if (load<u8>(frame, ETHERNET_SOURCE) & 1) return;
  const source = keyOf(frame + ETHERNET_SOURCE) & MAC_MASK;
  if (source == 0) return;
  const high = sourceHigh(name, isIpv6);
  const low = sourceLow(name, isIpv6);
  const table: usize = atomic.load<u32>(deviceRow(device), DEVICE_TARGETS);
  const entry = targetFind(table, source);
  if (entryFlags(entry) & (TARGET_VALID | TARGET_DRAINING)) {
    const row = destinationRow(entryDestination(entry));
    if (load<u32>(row, DESTINATION_KIND) == DESTINATION_KIND_UNICAST && isDestination(row, high, low, isIpv6)) {
      targetSeen(table, arena, entryId(entry));
      return;
    }
  }
  report(arena, device, frame, source, high, low);
}

function report(arena: usize, device: u32, frame: usize, source: u64, high: u64, low: u64): void {
  const now = load<u32>(arena, ARENA_NOW);
  let digest = (source ^ (u64(device) << KEY_SHIFT)) * MULTIPLIER;
  digest = (digest ^ (digest >> 29) ^ high) * MULTIPLIER;
  digest = (digest ^ (digest >> 31) ^ low ^ now) * MULTIPLIER;
  const slot = arena + ARENA_RX_LEARNED + usize(u32(digest >> 40) & (RX_LEARNED_MAX - 1)) * 8;
  if (load<u64>(slot) == digest) return;
  if (load<u32>(arena, ARENA_LEARN_SECOND) != now) {
    store<u32>(arena, now, ARENA_LEARN_SECOND);
    store<u32>(arena, 0, ARENA_LEARN_COUNT);
  }
  const count = load<u32>(arena, ARENA_LEARN_COUNT);
  // From a copy, since what lies in front of the frame may be another one's.
  const copy = arena + ARENA_SCRATCH + SCRATCH_BYTES - RECORD_BYTES;
  writeZero(copy);
  memory.copy(copy + VNET_HDR_BYTES, frame, ETHERNET_BYTES);
  store<u64>(copy + VNET_HDR_BYTES + ETHERNET_BYTES, high);
  store<u64>(copy + VNET_HDR_BYTES + ETHERNET_BYTES, low, 8);
  if (count >= LEARN_REPORTS_MAX || missPush(arena, device, MISS_LEARN, copy, RECORD_BYTES) != NONE) {
    add(deviceCounters(arena, device), COUNTER_RX_LEARN_LIMITED, 1);
    return;
  }
  store<u32>(arena, count + 1, ARENA_LEARN_COUNT);
  store<u64>(slot, digest);
}
