/**
 * Target table: MAC address -> entry, read by every worker while main writes it (layout: TABLE_ and ENTRY_).
 *
 * There is no lock and no retry. A slot's KEY does not change while a worker may read it: main gives a slot to another
 * address only after a quiesce. What does change is in one word, ENTRY, and changes by one atomic store. So a reader
 * sees an entry as it is or as it just was, never half of each. Growth fills a second table and publishes its offset.
 *
 * | who    | writes                         | when                                                       |
 * |--------|--------------------------------|------------------------------------------------------------|
 * | main   | ENTRY, then KEY                | an address gets a slot                                     |
 * | main   | ENTRY                          | state, destination or generation of an entry changes       |
 * | main   | KEY (free)                     | the entry is gone and every worker has moved on since      |
 * | worker | the entry's column in its arena| a frame was sent                                           |
 *
 * PROHIBITED: a KEY that goes from one address to another at once; a worker that writes a slot.
 */
import { check } from './check';
import {
  ARENA_BYTES,
  ARENA_NOW,
  ARENA_TX_ENTRIES,
  ARENA_TX_FRAMES,
  ARENA_TX_KEYS,
  ARENAS_OFFSET,
  BATCH_MAX,
  COLUMN_BYTES,
  COLUMN_FRAMES,
  COLUMN_LAST_USE,
  COLUMN_TX_BYTES,
  DEVICE_TARGETS,
  ENTRY_DESTINATION_BITS,
  ENTRY_FLAGS_SHIFT,
  ENTRY_ID_SHIFT,
  KEY_LEFT,
  KEY_SHIFT,
  KEY_TAKEN,
  NONE,
  SLOT_BYTES,
  SLOT_ENTRY,
  SLOT_KEY,
  TABLE_BYTES,
  TABLE_COLUMNS,
  TABLE_IDS,
  TABLE_MULTIPLIER,
  TABLE_SEED,
  TABLE_SHIFT,
  TABLE_SLOTS,
  TARGET_PROBES_MAX,
  TARGETS_MAX,
  TX_FRAME_BYTES,
  VNET_HDR_BYTES,
} from './layout';
import { ETHERNET_BYTES } from './wire';

const MIX: u64 = 0xbf58476d1ce4e5b9; // splitmix64's: odd, with well-spread bits
const TAKEN: u64 = u64(KEY_TAKEN) << KEY_SHIFT;
const LEFT: u64 = u64(KEY_LEFT) << KEY_SHIFT;

/** Destination address of a frame as a key: the octets in the order of the wire. */
// @ts-expect-error: decorator
@inline
export function keyOf(frame: usize): u64 {
  return (bswap(load<u64>(frame)) >> 16) | TAKEN;
}

/** Slot in which a probe for the key begins. The secret multiplier makes the hash universal. */
// @ts-expect-error: decorator
@inline
function slotOf(key: u64, seed: u64, multiplier: u64, shift: u64): u32 {
  const hash = (key ^ seed) * multiplier;
  return u32(((hash ^ (hash >> 32)) * MIX) >> shift);
}

/** The same for main, which inserts. @param mac number below 2^48 */
export function targetSlot(table: usize, mac: u64): u32 {
  return slotOf(
    mac | TAKEN,
    load<u64>(table, TABLE_SEED),
    load<u64>(table, TABLE_MULTIPLIER),
    load<u32>(table, TABLE_SHIFT),
  );
}

/** Entry of a key, or 0. */
// @ts-expect-error: decorator
@inline
function probe(table: usize, key: u64, first: u32, mask: u32): u64 {
  let slot = first;
  for (let probes: u32 = 0; probes < TARGET_PROBES_MAX; probes++) {
    const at = table + TABLE_BYTES + slot * SLOT_BYTES;
    const there = atomic.load<u64>(at, SLOT_KEY);
    if (there == key) return atomic.load<u64>(at, SLOT_ENTRY);
    if (there == 0) return 0;
    slot = (slot + 1) & mask;
  }
  return 0;
}

/** Entry of one address, or 0. @param mac number below 2^48 */
export function targetFind(table: usize, mac: u64): u64 {
  const mask = load<u32>(table, TABLE_SLOTS) - 1;
  return probe(table, mac | TAKEN, targetSlot(table, mac), mask);
}

/** Main: slot of an address, also of one that has left and not been reclaimed, or NONE. */
export function targetPlace(table: usize, mac: u64): u32 {
  const mask = load<u32>(table, TABLE_SLOTS) - 1;
  let slot = targetSlot(table, mac);
  for (let probes: u32 = 0; probes < TARGET_PROBES_MAX; probes++) {
    const there = load<u64>(table + TABLE_BYTES + slot * SLOT_BYTES, SLOT_KEY);
    if (there == (mac | TAKEN) || there == (mac | LEFT)) return slot;
    if (there == 0) return NONE;
    slot = (slot + 1) & mask;
  }
  return NONE;
}

/** Main: slot for an address that has none, or NONE when all within reach are taken. */
export function targetRoom(table: usize, mac: u64): u32 {
  const mask = load<u32>(table, TABLE_SLOTS) - 1;
  let slot = targetSlot(table, mac);
  for (let probes: u32 = 0; probes < TARGET_PROBES_MAX; probes++) {
    const there = load<u64>(table + TABLE_BYTES + slot * SLOT_BYTES, SLOT_KEY);
    const state = u32(there >> KEY_SHIFT);
    if (state != KEY_TAKEN && state != KEY_LEFT) return slot;
    slot = (slot + 1) & mask;
  }
  return NONE;
}

/** Main: copies the entries of a table to another that nobody reads yet; false when one finds no room there. */
export function targetRehash(from: usize, to: usize): bool {
  const slots = load<u32>(from, TABLE_SLOTS);
  for (let slot: u32 = 0; slot < slots; slot++) {
    const at = from + TABLE_BYTES + slot * SLOT_BYTES;
    const key = load<u64>(at, SLOT_KEY);
    const entry = load<u64>(at, SLOT_ENTRY);
    if (key >> KEY_SHIFT != KEY_TAKEN || entry == 0) continue;
    const room = targetRoom(to, key & ~TAKEN);
    if (room == NONE) return false;
    const into = to + TABLE_BYTES + room * SLOT_BYTES;
    store<u64>(into, entry, SLOT_ENTRY);
    store<u64>(into, key, SLOT_KEY);
  }
  return true;
}

/** Stands for an entry that is further on than its first slot; no entry has this value, since it has no flag. */
const FURTHER: u64 = 1;

/**
 * Entries of `count` keys at `keys` (u64 each) go to `entries`, 0 for those that are absent. First every first slot is
 * read, with nothing that depends on what is there, so that the waits for memory overlap; then the few that are further
 * on are looked for.
 */
// @ts-expect-error: decorator
@inline
export function targetLookup(table: usize, keys: usize, entries: usize, count: u32): void {
  const seed = load<u64>(table, TABLE_SEED);
  const multiplier = load<u64>(table, TABLE_MULTIPLIER);
  const shift = u64(load<u32>(table, TABLE_SHIFT));
  const first = table + TABLE_BYTES;
  let further: u64 = 0;
  const end = keys + count * 8;
  const step = entries - keys;
  for (let at = keys; at < end; at += 8) {
    const key = load<u64>(at);
    const hash = (key ^ seed) * multiplier;
    const slot = first + usize(((hash ^ (hash >> 32)) * MIX) >> shift) * SLOT_BYTES;
    const there = atomic.load<u64>(slot, SLOT_KEY);
    const found = select<u64>(atomic.load<u64>(slot, SLOT_ENTRY), u64(there != 0), there == key);
    further |= u64(found == FURTHER);
    store<u64>(at + step, found);
  }
  if (further == 0) return;
  const mask = load<u32>(table, TABLE_SLOTS) - 1;
  for (let i: u32 = 0; i < count; i++) {
    if (load<u64>(entries + i * 8) != FURTHER) continue;
    const key = load<u64>(keys + i * 8);
    const next = (slotOf(key, seed, multiplier, shift) + 1) & mask;
    store<u64>(entries + i * 8, probe(table, key, next, mask));
  }
}

/** For the bench and for main: `targetLookup` on the scratch space of an arena. */
export function targetLookupBatch(table: usize, arena: usize, count: u32): void {
  check(count <= BATCH_MAX);
  targetLookup(table, arena + ARENA_TX_KEYS, arena + ARENA_TX_ENTRIES, count);
}

/** Looks up frames `first` to `count - 1` of the transmit batch; a frame too short to have an address is absent. */
export function targetLookupFrames(arena: usize, row: usize, first: u32, count: u32): void {
  const table: usize = atomic.load<u32>(row, DEVICE_TARGETS);
  for (let i = first; i < count; i++) {
    const entry = arena + ARENA_TX_FRAMES + i * TX_FRAME_BYTES;
    const offset: usize = load<u32>(entry);
    const bytes = load<u32>(entry, 4);
    let key = TAKEN;
    if (bytes >= VNET_HDR_BYTES + ETHERNET_BYTES) {
      check(offset - arena < ARENA_BYTES - VNET_HDR_BYTES - ETHERNET_BYTES);
      key = keyOf(offset + VNET_HDR_BYTES);
    }
    store<u64>(arena + i * 8, key, ARENA_TX_KEYS);
  }
  targetLookup(
    table,
    arena + ARENA_TX_KEYS + first * 8,
    arena + ARENA_TX_ENTRIES + first * 8,
    count - first,
  );
}

// @ts-expect-error: decorator
@inline
export function entryFlags(entry: u64): u32 {
  return u32(entry >> ENTRY_FLAGS_SHIFT) & 0xff;
}

// @ts-expect-error: decorator
@inline
export function entryId(entry: u64): u32 {
  return u32(entry >> ENTRY_ID_SHIFT) & (TARGETS_MAX - 1);
}

// @ts-expect-error: decorator
@inline
export function entryDestination(entry: u64): u32 {
  return u32(entry) & ((1 << ENTRY_DESTINATION_BITS) - 1);
}

/** Counts a frame in the entry's column of this arena. */
// @ts-expect-error: decorator
@inline
export function targetCount(table: usize, arena: usize, id: u32, bytes: u64): void {
  const ids = load<u32>(table, TABLE_IDS);
  // An id of a table that has grown since: its column is in the next one.
  if (id >= ids) return;
  const index = u32(arena - ARENAS_OFFSET) / ARENA_BYTES;
  const at: usize = load<u32>(table, TABLE_COLUMNS) + (index * ids + id) * COLUMN_BYTES;
  // Not atomic: that would be a fence for each, and the waits for memory would not overlap. There is one writer, and an
  // aligned word of 8 bytes is one store on every machine V8 runs on in 64 bits.
  store<u64>(at, load<u64>(at, COLUMN_FRAMES) + 1, COLUMN_FRAMES);
  store<u64>(at, load<u64>(at, COLUMN_TX_BYTES) + bytes, COLUMN_TX_BYTES);
  store<u32>(at, load<u32>(arena, ARENA_NOW), COLUMN_LAST_USE);
}

/** For the bench: counts the entries of a looked-up batch that are there. */
export function targetCountBatch(table: usize, arena: usize, count: u32, bytes: u32): void {
  check(count <= BATCH_MAX);
  for (let i: u32 = 0; i < count; i++) {
    const entry = load<u64>(arena + i * 8, ARENA_TX_ENTRIES);
    if (entry != 0) targetCount(table, arena, entryId(entry), bytes);
  }
}
