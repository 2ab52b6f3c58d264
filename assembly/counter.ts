/** Counters: one row a device, mux or worker in the worker's own arena. The worker writes, main reads. */
import { check } from './check';
import {
  ARENA_COUNTERS,
  COUNTER_ROW_BYTES,
  COUNTER_ROWS,
  DEVICES_MAX,
  DROP_REASONS,
  MUXES_MAX,
} from './layout';

// @ts-expect-error: decorator
@inline
export function deviceCounters(arena: usize, device: u32): usize {
  return arena + ARENA_COUNTERS + device * COUNTER_ROW_BYTES;
}

// @ts-expect-error: decorator
@inline
export function muxCounters(arena: usize, mux: u32): usize {
  return arena + ARENA_COUNTERS + (DEVICES_MAX + mux) * COUNTER_ROW_BYTES;
}

// @ts-expect-error: decorator
@inline
export function workerCounters(arena: usize): usize {
  return arena + ARENA_COUNTERS + (COUNTER_ROWS - 1) * COUNTER_ROW_BYTES;
}

/** Adds to a counter. Atomic only so that a reader never sees half a word: there is one writer. */
// @ts-expect-error: decorator
@inline
export function add(row: usize, counter: u32, amount: u64): void {
  const at = row + counter * 8;
  atomic.store<u64>(at, atomic.load<u64>(at) + amount);
}

/** Counts drops of frames whose device is known. */
export function dropDevice(arena: usize, device: u32, reason: u32, frames: u32): void {
  check(device < DEVICES_MAX && reason < DROP_REASONS);
  add(deviceCounters(arena, device), reason, frames);
}

/** Counts drops of datagrams that no device could be found for. */
export function dropMux(arena: usize, mux: u32, reason: u32, datagrams: u32): void {
  check(mux < MUXES_MAX && reason < DROP_REASONS);
  add(muxCounters(arena, mux), reason, datagrams);
}

/** Adds to a counter of the worker's own row. */
export function countWorker(arena: usize, counter: u32, amount: u32): void {
  add(workerCounters(arena), counter, amount);
}

/** Adds to a counter of a device row. */
export function countDevice(arena: usize, device: u32, counter: u32, amount: u32): void {
  check(device < DEVICES_MAX);
  add(deviceCounters(arena, device), counter, amount);
}
