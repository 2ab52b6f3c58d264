/**
 * One worker's life, as main sees it. The states:
 *
 * | from     | to       | why                                                                          |
 * |----------|----------|------------------------------------------------------------------------------|
 * | stopped  | running  | main hands the pool the task                                                 |
 * | running  | dead     | the task ended without being asked: a throw, process.exit, a broken thread   |
 * | running  | stuck    | its epoch does not move, and it hangs (`watch.ts`); a starved one stays running |
 * | stuck    | dead     | it left when asked, or its thread was ended; its arena is given up           |
 * | dead     | running  | replaced, with the same descriptors; after a pause when it dies again and again |
 * | running  | stopped  | main asked it to leave                                                       |
 *
 * PROHIBITED: reusing the arena of a thread that may still be alive; waiting for a worker without a bound.
 */
import type { Piscina } from 'piscina';
import * as layout from '../../assembly/layout.js';
import type { Tuning, WorkerTask } from '../../workers/context.js';
import { WORKER_FED_MS, WORKER_START_MS_MAX, WORKER_START_STARVED_MS_MAX } from '../limits.js';
import { monotonicMs } from '../sys/clock.js';
import { ringEventfd } from '../sys/fd.js';
import { cpuWaitMs, threadState } from '../sys/thread-state.js';
import type { Core } from './core.js';
import type { MemoryViews } from './memory.js';
import type { Queue } from './queue.js';
import { type Finding, Watch } from './watch.js';

export type WorkerState = 'stopped' | 'running' | 'stuck' | 'dead';

export class Worker {
  state: WorkerState = 'stopped';
  restarts = 0;
  /** Monotonic times of deaths within the window that the supervisor looks at. */
  deaths: number[] = [];
  /** Why it died last, for people. */
  lastDeath = '';
  /** How often it was found to get no CPU. */
  starvations = 0;
  readonly #watch = new Watch();
  /** When it was found so last; undefined when it is well. */
  #starvedAtMs: number | undefined;
  #waitedAtStartMs = 0;
  #epoch = 0;
  #movedAtMs = 0;
  #abort = new AbortController();
  #ended: Promise<void> = Promise.resolve();

  constructor(
    readonly queue: Queue,
    readonly pool: Piscina,
    readonly module: WebAssembly.Module,
    readonly core: Core,
    readonly views: MemoryViews,
    readonly cpu: number,
    readonly tuning: Tuning,
  ) {}

  /** Prepares the arena and hands the task to the pool. `onDeath` is called when it ends without being asked. */
  start(onDeath: (error: Error) => void): void {
    const { arena } = this.queue;
    Atomics.store(this.views.i32, (arena + layout.ARENA_STOP) / 4, 0);
    Atomics.store(this.views.u32, (arena + layout.ARENA_THREAD) / 4, 0);
    Atomics.store(this.views.u32, (arena + layout.ARENA_KERNEL_THREAD) / 4, 0);
    // Odd, that is running, until its first wait.
    Atomics.store(this.views.i32, (arena + layout.ARENA_EPOCH) / 4, 1);
    this.core.rxPrepare(arena);
    this.state = 'running';
    this.#epoch = 1;
    this.#movedAtMs = monotonicMs();
    this.#waitedAtStartMs = cpuWaitMs();
    this.#starvedAtMs = undefined;
    this.#watch.end();
    this.#abort = new AbortController();
    const { epoll, wake } = this.queue;
    const { memory } = this.views;
    const task: WorkerTask = {
      memory,
      module: this.module,
      arena,
      epoll,
      wake,
      cpu: this.cpu,
      ...this.tuning,
    };
    const { signal } = this.#abort;
    this.#ended = this.pool.run(task, { signal }).then(
      () => this.#end(arena, onDeath, new Error('the loop ended without being asked')),
      (error: Error) => this.#end(arena, onDeath, error),
    );
  }

  #end(arena: number, onDeath: (error: Error) => void, error: Error): void {
    const wasAsked = this.state === 'stopped';
    // An arena that was taken from it is the crew's: its thread may still be alive.
    if (this.queue.arena === arena) this.#settle(arena);
    if (wasAsked) return;
    this.state = 'dead';
    this.lastDeath = error.message;
    onDeath(error);
  }

  #settle(arena: number): void {
    // Even: whoever waits for this worker to move on need not.
    Atomics.or(this.views.i32, (arena + layout.ARENA_EPOCH) / 4, 1);
    Atomics.add(this.views.i32, (arena + layout.ARENA_EPOCH) / 4, 1);
  }

  get epoch(): number {
    return Atomics.load(this.views.i32, (this.queue.arena + layout.ARENA_EPOCH) / 4);
  }

  /** What keeps its epoch from moving, if anything does; call it regularly, since that is when it looks. */
  look(now: number): Finding {
    const { epoch } = this;
    if (epoch !== this.#epoch) {
      this.#epoch = epoch;
      this.#movedAtMs = now;
    }
    const idleMs = now - this.#movedAtMs;
    if (!this.hasBegun) return this.isLate(idleMs) ? 'silent' : 'moving';
    const finding = this.#watch.look(idleMs, now, () => this.#kernelState());
    if (finding === 'starved') {
      if (!this.isStarved) this.starvations++;
      this.#starvedAtMs = now;
    } else if (this.isStarved && !this.isWatched && now - this.#starvedAtMs! > WORKER_FED_MS) {
      this.#starvedAtMs = undefined;
    }
    return finding;
  }

  #kernelState() {
    const thread = Atomics.load(this.views.u32, (this.queue.arena + layout.ARENA_KERNEL_THREAD) / 4);
    return thread === 0 ? undefined : threadState(thread);
  }

  /** It has begun, and stands still for longer than its own wait takes. */
  get isWatched(): boolean {
    return this.#watch.isOn;
  }

  /** The machine gives it no CPU, or has not until a moment ago. */
  get isStarved(): boolean {
    return this.#starvedAtMs !== undefined;
  }

  /** For people: its state, of which being starved is none, since nothing is done about it. */
  get condition(): WorkerState | 'starved' {
    return this.isStarved && this.state === 'running' ? 'starved' : this.state;
  }

  /** Counts idleness from now on: the whole process stood still, so the worker is not to blame. */
  forgiveIdle(now: number): void {
    this.#epoch = this.epoch;
    this.#movedAtMs = now;
    this.#watch.end();
  }

  /** A start of that many milliseconds takes too long; on a machine that has no CPU for us it takes what it takes. */
  isLate(ms: number): boolean {
    if (ms <= WORKER_START_MS_MAX) return false;
    return ms > WORKER_START_STARVED_MS_MAX || this.waitedMs < ms / 2;
  }

  /** For how long threads of the process have waited for a CPU since it was started, all together. */
  get waitedMs(): number {
    return cpuWaitMs() - this.#waitedAtStartMs;
  }

  /** True once the loop has run for the first time. */
  get hasBegun(): boolean {
    return this.state === 'running' && this.epoch > 1;
  }

  /** Raises the stop flag and wakes the worker. */
  askToLeave(): void {
    Atomics.store(this.views.i32, (this.queue.arena + layout.ARENA_STOP) / 4, 1);
    ringEventfd(this.queue.wake);
  }

  /** Ends the thread, which works for one that spins but not for one blocked in a system call. */
  endThread(): void {
    this.#abort.abort();
  }

  /** Asks the worker to leave; resolves when it has. */
  async stop(): Promise<void> {
    if (this.state === 'dead') this.state = 'stopped';
    if (this.state === 'stopped') return;
    this.state = 'stopped';
    this.askToLeave();
    await this.#ended;
  }
}
