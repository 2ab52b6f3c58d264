/** What a worker works with, and how it tells main. See the theory in `src/overlay.ts`. */
import * as layout from '../assembly/layout.js';
import { type Core, instantiateCore } from '../src/datapath/core.js';
import { MemoryViews } from '../src/datapath/memory.js';
import { assert } from '../src/errors.js';
import { monotonicSeconds } from '../src/sys/clock.js';
import type { Kernel } from './kernel.js';

/** How a worker goes about its work. */
export interface Tuning {
  /** Frames or messages of one batch, 1 to BATCH_MAX. */
  readonly batch: number;
  /** Microseconds for which to look for more work before sleeping; 0 for not at all. */
  readonly busyPollUs: number;
}

/** What main hands a worker; integers and shared memory only. */
export interface WorkerTask extends Tuning {
  readonly memory: WebAssembly.Memory;
  readonly module: WebAssembly.Module;
  /** Offset of the worker's arena. */
  readonly arena: number;
  /** epoll descriptor of the queue; main adds and removes what it watches. */
  readonly epoll: number;
  /** The eventfd that main rings to wake the worker. */
  readonly wake: number;
  /** CPU to run on, or -1 for any. */
  readonly cpu: number;
}

export class WorkerContext {
  readonly views: MemoryViews;
  readonly core: Core;
  readonly arena: number;
  /** Absolute address of byte 0 of the memory. */
  readonly base: number;
  readonly i32: Int32Array;
  readonly u32: Uint32Array;
  /** errno with which the kernel has refused to cut the message that is sent in pieces now, or 0. */
  refusal = 0;
  /** Tail of the miss ring when main was last told of it. */
  #missesSeen = 0;

  constructor(
    readonly task: WorkerTask,
    readonly kernel: Kernel,
  ) {
    this.views = new MemoryViews(task.memory);
    this.core = instantiateCore(task.module, task.memory);
    this.arena = task.arena;
    this.base = this.views.base;
    this.i32 = this.views.i32;
    this.u32 = this.views.u32;
    const headerBase = this.views.u64[(layout.HEADER_OFFSET + layout.HEADER_BASE) / 8];
    assert(headerBase === BigInt(this.base), 'the shared memory lies at another address in this thread');
  }

  get isStopping(): boolean {
    return Atomics.load(this.i32, (this.arena + layout.ARENA_STOP) / 4) !== 0;
  }

  /** Before a wait and after it: from even (parked, reads no table) to odd and back. */
  moveEpoch(): void {
    Atomics.add(this.i32, (this.arena + layout.ARENA_EPOCH) / 4, 1);
  }

  /** Puts an event on the ring and rings main's bell; counts it when the ring is full. */
  report(kind: number, row: number, detail: number): void {
    const scratch = this.arena + layout.ARENA_SCRATCH;
    this.u32[scratch / 4] = kind;
    this.u32[scratch / 4 + 1] = row;
    this.u32[scratch / 4 + 2] = detail;
    this.u32[scratch / 4 + 3] = 0;
    const ring = this.arena + layout.ARENA_EVENTS;
    if (!this.core.ringPush(ring, scratch, layout.EVENT_BYTES)) {
      this.core.countWorker(this.arena, layout.COUNTER_EVENTS_LOST, 1);
    }
    this.ring();
  }

  /** For the core, which has no clock. */
  tellTime(): void {
    this.u32[(this.arena + layout.ARENA_NOW) / 4] = monotonicSeconds();
  }

  /** Rings main's bell when the core has put something on the miss ring since the last time. */
  ringForMisses(): void {
    const tail = this.u32[(this.arena + layout.ARENA_MISSES + layout.RING_TAIL) / 4]!;
    if (tail === this.#missesSeen) return;
    this.#missesSeen = tail;
    this.ring();
  }

  /** Rings main's bell: there is something on a ring of ours, or room on one of main's. */
  ring(): void {
    const bell = (layout.HEADER_OFFSET + layout.HEADER_BELL) / 4;
    Atomics.add(this.i32, bell, 1);
    Atomics.notify(this.i32, bell);
  }
}
