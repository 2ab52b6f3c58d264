/**
 * Single-producer single-consumer ring of records of any length (layout: RING_ in `layout.ts`).
 *
 *   cursors are free-running byte counts; tail - head = bytes in the ring
 *   record: length u32, 4 bytes spare, payload, padding to RING_ALIGN_BYTES
 *   a record never wraps: WRAP in the length field sends the reader back to the start
 *
 * | who      | change            | why                                                     |
 * |----------|-------------------|---------------------------------------------------------|
 * | producer | TAIL += record    | after the record's bytes are written; publishes it      |
 * | consumer | HEAD += record    | after the record's bytes are copied out; frees them     |
 *
 * PROHIBITED: producer writes HEAD, consumer writes TAIL; either waits for the other (a full ring refuses).
 */
import { check } from './check';
import { RING_ALIGN_BYTES, RING_CAPACITY, RING_DATA, RING_HEAD, RING_TAIL } from './layout';

const RECORD_HEADER_BYTES: u32 = 8;
const WRAP: u32 = 0xffffffff;

/** Makes an empty ring at `ring`; `capacity` bytes of data, a power of two. */
export function ringCreate(ring: usize, capacity: u32): void {
  check(capacity >= 64 && (capacity & (capacity - 1)) == 0);
  store<u32>(ring, capacity, RING_CAPACITY);
  atomic.store<u32>(ring, 0, RING_HEAD);
  atomic.store<u32>(ring, 0, RING_TAIL);
}

/** Producer: appends a copy of `[from, from + length)`; false, and nothing changed, when it does not fit. */
export function ringPush(ring: usize, from: usize, length: u32): bool {
  const capacity = load<u32>(ring, RING_CAPACITY);
  const record = (RECORD_HEADER_BYTES + length + RING_ALIGN_BYTES - 1) & ~(RING_ALIGN_BYTES - 1);
  // With a longer one, the bytes skipped before the end plus the record might never fit, even when empty.
  check(length < capacity && record <= capacity / 2);
  const tail = atomic.load<u32>(ring, RING_TAIL);
  const free = capacity - (tail - atomic.load<u32>(ring, RING_HEAD));
  let at = tail & (capacity - 1);
  const rest = capacity - at;
  const skipped: u32 = record > rest ? rest : 0;
  if (skipped + record > free) return false;
  if (skipped) {
    store<u32>(ring + RING_DATA + at, WRAP);
    at = 0;
  }
  store<u32>(ring + RING_DATA + at, length);
  memory.copy(ring + RING_DATA + at + RECORD_HEADER_BYTES, from, length);
  atomic.store<u32>(ring, tail + skipped + record, RING_TAIL);
  return true;
}

/** Where the oldest record's length word is, behind a WRAP if there is one; 0 when the ring is empty. */
function oldest(ring: usize): usize {
  const capacity = load<u32>(ring, RING_CAPACITY);
  const head = atomic.load<u32>(ring, RING_HEAD);
  if (head == atomic.load<u32>(ring, RING_TAIL)) return 0;
  const at = ring + RING_DATA + (head & (capacity - 1));
  return load<u32>(at) == WRAP ? ring + RING_DATA : at;
}

/** Producer: bytes that are free, those at the end included that a record may have to skip. */
export function ringFree(ring: usize): u32 {
  const used = atomic.load<u32>(ring, RING_TAIL) - atomic.load<u32>(ring, RING_HEAD);
  return load<u32>(ring, RING_CAPACITY) - used;
}

/** Consumer: where the oldest record's payload lies, until `ringDrop`; 0 when the ring is empty. */
export function ringPeek(ring: usize): usize {
  const at = oldest(ring);
  return at == 0 ? 0 : at + RECORD_HEADER_BYTES;
}

/** Consumer: length of the record that `ringPeek` found. */
export function ringPeekBytes(ring: usize): u32 {
  const at = oldest(ring);
  check(at != 0);
  return load<u32>(at);
}

/** Consumer: frees the record that `ringPeek` found. */
export function ringDrop(ring: usize): void {
  const at = oldest(ring);
  check(at != 0);
  const capacity = load<u32>(ring, RING_CAPACITY);
  let head = atomic.load<u32>(ring, RING_HEAD);
  const place = u32(at - ring - RING_DATA);
  head += (place - head) & (capacity - 1);
  const record = (RECORD_HEADER_BYTES + load<u32>(at) + RING_ALIGN_BYTES - 1) & ~(RING_ALIGN_BYTES - 1);
  atomic.store<u32>(ring, head + record, RING_HEAD);
}

/**
 * Consumer: copies the oldest record to `[into, into + max)` and frees it. Its length, or -1 when the ring is
 * empty. A record longer than `max` is cut, its true length is returned.
 */
export function ringPop(ring: usize, into: usize, max: u32): i32 {
  const capacity = load<u32>(ring, RING_CAPACITY);
  let head = atomic.load<u32>(ring, RING_HEAD);
  const tail = atomic.load<u32>(ring, RING_TAIL);
  if (head == tail) return -1;
  let at = head & (capacity - 1);
  let length = load<u32>(ring + RING_DATA + at);
  if (length == WRAP) {
    head += capacity - at;
    at = 0;
    length = load<u32>(ring + RING_DATA);
  }
  check(length < capacity && head != tail);
  memory.copy(into, ring + RING_DATA + at + RECORD_HEADER_BYTES, length < max ? length : max);
  const record = (RECORD_HEADER_BYTES + length + RING_ALIGN_BYTES - 1) & ~(RING_ALIGN_BYTES - 1);
  atomic.store<u32>(ring, head + record, RING_HEAD);
  return i32(length);
}
