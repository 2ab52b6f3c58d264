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
  ARENA_TX_COUNT_BYTES,
  ARENA_TX_COUNT_IDS,
  ARENA_TX_ENTRIES,
  ARENA_TX_FRAMES,
  ARENA_TX_FURTHER,
  ARENA_TX_KEYS,
  ARENA_TX_SLOTS,
  ARENAS_OFFSET,
  BATCH_MAX,
  COLUMN_BYTES,
  COLUMN_FRAMES,
  COLUMN_LAST_SEEN,
  COLUMN_LAST_USE,
  COLUMN_TX_BYTES,
  DEVICE_TARGETS,
  ENTRY_DESTINATION_BITS,
  ENTRY_FLAGS_SHIFT,
  ENTRY_ID_SHIFT,
  KEY_LEFT,
  KEY_SHIFT,
  KEY_TAKEN,
  LINE_SLOTS,
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

/** Slot of the nth probe: round the line of the first, then round the next line. */
// @ts-expect-error: decorator
@inline
function probed(first: u32, probes: u32, mask: u32): u32 {
  const line = (first & ~(LINE_SLOTS - 1)) + (probes & ~(LINE_SLOTS - 1));
  return (line + ((first + probes) & (LINE_SLOTS - 1))) & mask;
}

/** Entry of a key, or 0. */
// @ts-expect-error: decorator
@inline
function probe(table: usize, key: u64, first: u32, mask: u32): u64 {
  for (let probes: u32 = 0; probes < TARGET_PROBES_MAX; probes++) {
    const at = table + TABLE_BYTES + probed(first, probes, mask) * SLOT_BYTES;
    const there = atomic.load<u64>(at, SLOT_KEY);
    if (there == key) return atomic.load<u64>(at, SLOT_ENTRY);
    if (there == 0) return 0;
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
  const first = targetSlot(table, mac);
  for (let probes: u32 = 0; probes < TARGET_PROBES_MAX; probes++) {
    const slot = probed(first, probes, mask);
    const there = load<u64>(table + TABLE_BYTES + slot * SLOT_BYTES, SLOT_KEY);
    if (there == (mac | TAKEN) || there == (mac | LEFT)) return slot;
    if (there == 0) return NONE;
  }
  return NONE;
}

/** Main: slot for an address that has none, or NONE when all within reach are taken. */
export function targetRoom(table: usize, mac: u64): u32 {
  const mask = load<u32>(table, TABLE_SLOTS) - 1;
  const first = targetSlot(table, mac);
  for (let probes: u32 = 0; probes < TARGET_PROBES_MAX; probes++) {
    const slot = probed(first, probes, mask);
    const there = load<u64>(table + TABLE_BYTES + slot * SLOT_BYTES, SLOT_KEY);
    const state = u32(there >> KEY_SHIFT);
    if (state != KEY_TAKEN && state != KEY_LEFT) return slot;
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

/**
 * Entry of a key in the line at `line`, or 0, by comparing all slots at once: a branch on what is there would be guessed
 * wrongly every other time. `isEnd` is set when a slot was never used, so that the key is in no later line.
 *
 * Not atomic, since there are no atomic vectors: each half of a vector is an aligned word of 8 bytes, which every machine
 * V8 runs on in 64 bits reads at once, and the key of a slot does not change while its entry does.
 */
// @ts-expect-error: decorator
@inline
function findInLine(line: usize, key: u64): u64 {
  const a = v128.load(line);
  const b = v128.load(line, 16);
  const c = v128.load(line, 32);
  const d = v128.load(line, 48);
  const wanted = v128.splat<u64>(key);
  const low = v128.shuffle<u64>(a, b, 0, 2);
  const high = v128.shuffle<u64>(c, d, 0, 2);
  const found = v128.or(
    v128.and(v128.eq<u64>(low, wanted), v128.shuffle<u64>(a, b, 1, 3)),
    v128.and(v128.eq<u64>(high, wanted), v128.shuffle<u64>(c, d, 1, 3)),
  );
  const zero = v128.splat<u64>(0);
  isEnd = v128.any_true(v128.or(v128.eq<u64>(low, zero), v128.eq<u64>(high, zero)));
  return v128.extract_lane<u64>(found, 0) | v128.extract_lane<u64>(found, 1);
}
let isEnd: bool = false;

/**
 * Entries of the keys of frames `first` to `count - 1` at ARENA_TX_KEYS go to ARENA_TX_ENTRIES, 0 for those that are
 * absent. The lines of all are read first, with as few instructions as can be, so that as many waits for memory overlap
 * as the machine has room for; then each line is searched; then the next lines of the few that are in none, and so on.
 */
// @ts-expect-error: decorator
@inline
export function targetLookup(table: usize, arena: usize, first: u32, count: u32): void {
  const seed = load<u64>(table, TABLE_SEED);
  const multiplier = load<u64>(table, TABLE_MULTIPLIER);
  const shift = u64(load<u32>(table, TABLE_SHIFT));
  const mask = load<u32>(table, TABLE_SLOTS) - 1;
  const lines = table + TABLE_BYTES;
  const slots = arena + ARENA_TX_SLOTS;
  for (let i = first; i < count; i++) {
    const slot = slotOf(load<u64>(arena + i * 8, ARENA_TX_KEYS), seed, multiplier, shift);
    store<u32>(slots + i * 4, slot & ~(LINE_SLOTS - 1));
  }
  let read: u64 = 0;
  let i = first;
  for (; i + 4 <= count; i += 4) {
    const at = slots + i * 4;
    read |=
      load<u64>(lines + load<u32>(at) * SLOT_BYTES) |
      load<u64>(lines + load<u32>(at, 4) * SLOT_BYTES) |
      load<u64>(lines + load<u32>(at, 8) * SLOT_BYTES) |
      load<u64>(lines + load<u32>(at, 12) * SLOT_BYTES);
  }
  for (; i < count; i++) read |= load<u64>(lines + load<u32>(slots + i * 4) * SLOT_BYTES);
  // Kept, so that the reads are not thought needless.
  store<u64>(arena, read, ARENA_TX_FURTHER);
  const further = arena + ARENA_TX_FURTHER;
  let left: u32 = 0;
  for (let i = first; i < count; i++) {
    const line = lines + load<u32>(slots + i * 4) * SLOT_BYTES;
    const entry = findInLine(line, load<u64>(arena + i * 8, ARENA_TX_KEYS));
    store<u64>(arena + i * 8, entry, ARENA_TX_ENTRIES);
    store<u32>(further + left * 4, i);
    left += u32(entry == 0) & u32(!isEnd);
  }
  for (let probes = LINE_SLOTS; left != 0 && probes < TARGET_PROBES_MAX; probes += LINE_SLOTS) {
    const searched = left;
    left = 0;
    for (let k: u32 = 0; k < searched; k++) {
      const i = load<u32>(further + k * 4);
      const line = lines + ((load<u32>(slots + i * 4) + probes) & mask) * SLOT_BYTES;
      const entry = findInLine(line, load<u64>(arena + i * 8, ARENA_TX_KEYS));
      store<u64>(arena + i * 8, entry, ARENA_TX_ENTRIES);
      store<u32>(further + left * 4, i);
      left += u32(entry == 0) & u32(!isEnd);
    }
  }
}

/** For the bench and for main: `targetLookup` on the scratch space of an arena. */
export function targetLookupBatch(table: usize, arena: usize, count: u32): void {
  check(count <= BATCH_MAX);
  targetLookup(table, arena, 0, count);
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
      check(offset - arena <= ARENA_BYTES - VNET_HDR_BYTES - ETHERNET_BYTES);
      key = keyOf(offset + VNET_HDR_BYTES);
    }
    store<u64>(arena + i * 8, key, ARENA_TX_KEYS);
  }
  targetLookup(table, arena, first, count);
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

/**
 * Counts `count` frames, whose entry ids are at ARENA_TX_COUNT_IDS and bytes at ARENA_TX_COUNT_BYTES, in the columns of
 * this arena. The columns are read first, so that the waits for memory overlap.
 */
export function targetCount(table: usize, arena: usize, count: u32): void {
  check(count <= BATCH_MAX);
  const ids = load<u32>(table, TABLE_IDS);
  const index = u32(arena - ARENAS_OFFSET) / ARENA_BYTES;
  const columns: usize = load<u32>(table, TABLE_COLUMNS) + index * ids * COLUMN_BYTES;
  const now = load<u32>(arena, ARENA_NOW);
  let read: u64 = 0;
  let known: u32 = 0;
  for (let i: u32 = 0; i < count; i++) {
    const id = load<u32>(arena + i * 4, ARENA_TX_COUNT_IDS);
    // An id of a table that has grown since: its column is in the next one.
    if (id >= ids) continue;
    read |= load<u64>(columns + id * COLUMN_BYTES);
    store<u32>(arena + known * 4, id, ARENA_TX_COUNT_IDS);
    store<u32>(arena + known * 4, load<u32>(arena + i * 4, ARENA_TX_COUNT_BYTES), ARENA_TX_COUNT_BYTES);
    known++;
  }
  // Kept, so that the reads are not thought needless.
  store<u64>(arena, read, ARENA_TX_SLOTS);
  for (let i: u32 = 0; i < known; i++) {
    const at = columns + load<u32>(arena + i * 4, ARENA_TX_COUNT_IDS) * COLUMN_BYTES;
    const bytes = load<u32>(arena + i * 4, ARENA_TX_COUNT_BYTES);
    // Not atomic: that would be a fence for each, and the waits for memory would not overlap. There is one writer, and an
    // aligned word of 8 bytes is one store on every machine V8 runs on in 64 bits.
    store<u64>(at, load<u64>(at, COLUMN_FRAMES) + 1, COLUMN_FRAMES);
    store<u64>(at, load<u64>(at, COLUMN_TX_BYTES) + bytes, COLUMN_TX_BYTES);
    store<u32>(at, now, COLUMN_LAST_USE);
  }
}

/** Notes that a frame from an entry's address has come in. */
export function targetSeen(table: usize, arena: usize, id: u32): void {
  const ids = load<u32>(table, TABLE_IDS);
  // Of a table that has grown since: noted with the next frame.
  if (id >= ids) return;
  const index = u32(arena - ARENAS_OFFSET) / ARENA_BYTES;
  const column: usize = load<u32>(table, TABLE_COLUMNS) + (index * ids + id) * COLUMN_BYTES;
  store<u32>(column, load<u32>(arena, ARENA_NOW), COLUMN_LAST_SEEN);
}

/** For the bench: counts the entries of a looked-up batch that are there. */
export function targetCountBatch(table: usize, arena: usize, count: u32, bytes: u32): void {
  check(count <= BATCH_MAX);
  let there: u32 = 0;
  for (let i: u32 = 0; i < count; i++) {
    const entry = load<u64>(arena + i * 8, ARENA_TX_ENTRIES);
    store<u32>(arena + there * 4, entryId(entry), ARENA_TX_COUNT_IDS);
    store<u32>(arena + there * 4, bytes, ARENA_TX_COUNT_BYTES);
    there += u32(entry != 0);
  }
  targetCount(table, arena, there);
}
