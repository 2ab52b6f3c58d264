/** What a worker works with, and how it tells main. See the theory in `src/overlay.ts`. */
import * as layout from '../assembly/layout.js';
import { type Core, instantiateCore } from '../src/datapath/core.js';
import { MemoryViews } from '../src/datapath/memory.js';
import { assert } from '../src/errors.js';
import type { Kernel } from './kernel.js';

/** What main hands a worker; integers and shared memory only. */
export interface WorkerTask {
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
    const bell = (layout.HEADER_OFFSET + layout.HEADER_BELL) / 4;
    Atomics.add(this.i32, bell, 1);
    Atomics.notify(this.i32, bell);
  }
}
