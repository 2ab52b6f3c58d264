/** Main's end of the miss rings and the inject rings (`assembly/deferred.ts` has the workers'). */
import * as layout from '../../assembly/layout.js';
import { assert } from '../errors.js';
import { FairQueue } from '../fair-queue.js';
import { timeShare } from '../sys/clock.js';
import { ringEventfd } from '../sys/fd.js';
import type { Core } from './core.js';
import type { MemoryViews } from './memory.js';
import type { Pool } from './pool.js';
import { RingCursors } from './ring-cursors.js';
import type { Workers } from './workers.js';

/** A frame from a worker. */
export interface Miss {
  /** Device row. */
  readonly device: number;
  /** A MISS_ number. */
  readonly kind: number;
  /** A copy, vnet_hdr first. */
  readonly frame: Uint8Array;
  /** Index of the worker. */
  readonly worker: number;
  /** MISS_TOO_BIG: where it should have gone, or NONE, and the bytes of the largest frame that may, or 0. */
  readonly destination: number;
  readonly frameMax: number;
}

/** Frames that wait for room on one inject ring. */
const WAITING_MAX = 65_536;
/** Two moves a turn of the loop, each of which sends at most half of a full wait queue of the smallest frames. */
const WAIT_EPOCHS = 12;
/** In front of each record in the wait queue. */
const WAIT_HEADER_BYTES = 8;
const RECORD_BYTES_MAX = layout.FRAME_RECORD_BYTES + layout.FRAME_BYTES_MAX;

export class MissRings {
  readonly #cursors: RingCursors;
  /** Index of the worker whose ring is next, where the time was spent before all were empty. */
  #next = 0;

  constructor(
    readonly views: MemoryViews,
    readonly core: Core,
    readonly workers: Workers,
  ) {
    this.#cursors = new RingCursors(views, workers, layout.ARENA_MISSES);
  }

  /**
   * Hands on what is there, one from each ring in turn, for at most `ms`; true when something may be left. A ring that is always
   * full does not keep the others waiting, and how long one miss takes is for plugins to say.
   */
  drain(ms: number, onMiss: (miss: Miss) => void): boolean {
    const isSpent = timeShare(ms);
    const { list } = this.workers;
    let empty = 0;
    for (let at = this.#next; empty < list.length; at = (at + 1) % list.length) {
      const { queue } = list[at]!;
      const isTaken = this.#take(queue.arena, queue.index, onMiss);
      empty = isTaken ? 0 : empty + 1;
      if (!isTaken || !isSpent()) continue;
      this.#next = (at + 1) % list.length;
      return true;
    }
    this.#next = 0;
    return false;
  }

  /** Where each ring ends now, for `hasPassed`. */
  ends(): ReadonlyMap<number, number> {
    return this.#cursors.ends();
  }

  /** True when everything up to those ends has been handed on. */
  hasPassed(ends: ReadonlyMap<number, number>): boolean {
    return this.workers.list.every(({ queue }) => this.#cursors.hasPassed(queue.arena, ends));
  }

  #take(arena: number, worker: number, onMiss: (miss: Miss) => void): boolean {
    const ring = arena + layout.ARENA_MISSES;
    const at = this.core.ringPeek(ring) >>> 0;
    if (at === 0) return false;
    const { u8, u32 } = this.views;
    const bytes = this.core.ringPeekBytes(ring) >>> 0;
    const miss: Miss = {
      device: u32[at / 4]!,
      kind: u32[at / 4 + 1]!,
      destination: u32[at / 4 + 2]!,
      frameMax: u32[at / 4 + 3]!,
      frame: u8.slice(at + layout.FRAME_RECORD_BYTES, at + bytes),
      worker,
    };
    this.core.missDrop(arena);
    onMiss(miss);
    return true;
  }
}

/**
 * Empties the wait queue of a worker that has ended, and with `hasLeft` its rings too, for an arena that nobody
 * works on any more. Returns how many frames of each device that cost.
 */
export function abandon(
  views: MemoryViews,
  core: Core,
  arena: number,
  hasLeft: boolean,
): ReadonlyMap<number, number> {
  const { u32 } = views;
  const lost = new Map<number, number>();
  const lose = (device: number) => lost.set(device, (lost.get(device) ?? 0) + 1);
  const used = Math.min(u32[(arena + layout.ARENA_WAIT_USED) / 4]!, layout.WAIT_BYTES);
  // It may have died in the middle of writing: whatever does not look like a record ends the walk.
  for (let at = 0; at < used; ) {
    const header = (arena + layout.ARENA_WAIT + at) / 4;
    const bytes = u32[header]!;
    const device = u32[header + WAIT_HEADER_BYTES / 4]!;
    if (bytes < layout.FRAME_RECORD_BYTES || bytes > used - at || device >= layout.DEVICES_MAX) break;
    lose(device);
    at += WAIT_HEADER_BYTES + Math.ceil(bytes / 8) * 8;
  }
  u32[(arena + layout.ARENA_WAIT_USED) / 4] = 0;
  if (!hasLeft) return lost;
  for (const [offset, bytes] of [
    [layout.ARENA_MISSES, layout.MISS_RING_BYTES],
    [layout.ARENA_INJECTS, layout.INJECT_RING_BYTES],
  ] as const) {
    for (let at = core.ringPeek(arena + offset) >>> 0; at !== 0; at = core.ringPeek(arena + offset) >>> 0) {
      const [device, kind] = [u32[at / 4]!, u32[at / 4 + 1]!];
      if (device < layout.DEVICES_MAX && isSent(offset, kind)) lose(device);
      core.ringDrop(arena + offset);
    }
    core.ringCreate(arena + offset, bytes);
  }
  core.sharesForget(arena);
  return lost;
}

/** Received ones, and of those that are too big the heads, which are in the books already. */
const unsentMisses: readonly number[] = [layout.MISS_SOURCE, layout.MISS_LEARN, layout.MISS_TOO_BIG];

/** Whether a record on the ring at `offset` of an arena is a frame that a guest sent: only those are in the tx books. */
function isSent(offset: number, kind: number): boolean {
  if (offset !== layout.ARENA_MISSES) return kind !== layout.INJECT_RX;
  return !unsentMisses.includes(kind);
}

interface Injected {
  readonly generation: number;
  readonly device: number;
  readonly kind: number;
  readonly frame: Uint8Array;
}

export class InjectRings {
  /** Where records are put together. */
  readonly #record: number;
  /** What found no room yet, by worker: devices take turns, and what is of one stays in order. */
  readonly #waiting: readonly FairQueue<number, number, Injected>[];
  #number = 0;
  readonly #cursors: RingCursors;

  constructor(
    readonly views: MemoryViews,
    readonly core: Core,
    readonly workers: Workers,
    pool: Pool,
  ) {
    this.#record = pool.take(RECORD_BYTES_MAX, 'the inject record');
    this.#waiting = workers.list.map(() => new FairQueue());
    this.#cursors = new RingCursors(views, workers, layout.ARENA_INJECTS);
  }

  /**
   * Hands a frame (vnet_hdr first) to a worker, with the generation in which the target that held it began to drain; kept until there is room when the ring is full. False when too many are
   * kept already: a worker that is dead for long. Call `wake` when done.
   */
  push(
    worker: number,
    device: number,
    kind: number,
    frame: Uint8Array,
    generation: number = layout.NONE,
  ): boolean {
    const waiting = this.#waiting[worker]!;
    if (waiting.size === 0 && this.#push(worker, { device, kind, frame, generation })) return true;
    if (waiting.size >= WAITING_MAX) return false;
    waiting.put(device, ++this.#number, { device, kind, frame, generation });
    return true;
  }

  /** A worker that runs, for frames that are no worker's. */
  get anyWorker(): number {
    return this.workers.list.find(({ state }) => state === 'running')?.queue.index ?? 0;
  }

  /** The device goes away: what waits for room is forgotten. Returns how many frames that were. */
  forget(device: number): number {
    let frames = 0;
    for (const waiting of this.#waiting) {
      for (const { kind } of waiting.forget(device)) if (isSent(layout.ARENA_INJECTS, kind)) frames++;
    }
    return frames;
  }

  /** Puts what waits onto the rings, as far as there is room, and wakes the workers that have something. */
  wake(): void {
    for (const [worker, waiting] of this.#waiting.entries()) {
      for (let next = waiting.first; next && this.#push(worker, next); next = waiting.first) waiting.take();
      const { queue } = this.workers.list[worker]!;
      if (!this.#cursors.isEmpty(queue.arena)) ringEventfd(queue.wake);
    }
  }

  get isWaiting(): boolean {
    return this.#waiting.some(({ size }) => size > 0);
  }

  /** The same of workers that run: the others' successors have it before anything that comes later. */
  get isBehind(): boolean {
    return this.workers.list.some(
      ({ state, queue }) => state === 'running' && this.#waiting[queue.index]!.size > 0,
    );
  }

  /** Epoch and length of each wait queue that holds something, for `haveWaited`. */
  waits(): ReadonlyMap<number, number> {
    const { i32, u32 } = this.views;
    const waits = new Map<number, number>();
    for (const { queue, state } of this.workers.list) {
      const isEmpty = Atomics.load(u32, (queue.arena + layout.ARENA_WAIT_USED) / 4) === 0;
      if (isEmpty || state !== 'running') continue;
      waits.set(queue.arena, Atomics.load(i32, (queue.arena + layout.ARENA_EPOCH) / 4));
    }
    return waits;
  }

  /** True when every worker has looked through its wait queue since: what need not wait has gone. */
  haveWaited(waits: ReadonlyMap<number, number>): boolean {
    return [...this.waits()].every(([arena, epoch]) => {
      const before = waits.get(arena);
      return before === undefined || ((epoch - before) | 0) >= WAIT_EPOCHS;
    });
  }

  /** Where each ring ends now; what waits for room comes behind that. */
  ends(): ReadonlyMap<number, number> {
    return this.#cursors.ends();
  }

  /**
   * True when the workers have taken everything up to those ends. One that was replaced has begun anew, and one that does
   * not run is not waited for: its successor takes what is on the ring before it reads a frame.
   */
  hasPassed(ends: ReadonlyMap<number, number>): boolean {
    return this.workers.list.every(
      ({ queue, state }) => state !== 'running' || this.#cursors.hasPassed(queue.arena, ends),
    );
  }

  #push(worker: number, { device, kind, frame, generation }: Injected): boolean {
    const { u8, u32 } = this.views;
    assert(frame.length <= layout.FRAME_BYTES_MAX, 'a frame longer than any');
    const { arena } = this.workers.list[worker]!.queue;
    u32.fill(0, this.#record / 4, this.#record / 4 + layout.FRAME_RECORD_BYTES / 4);
    u32[this.#record / 4] = device;
    u32[this.#record / 4 + 1] = kind;
    u32[this.#record / 4 + 2] = generation;
    u8.set(frame, this.#record + layout.FRAME_RECORD_BYTES);
    const bytes = layout.FRAME_RECORD_BYTES + frame.length;
    return this.core.ringPush(arena + layout.ARENA_INJECTS, this.#record, bytes) === 1;
  }
}
