/**
 * The crew: starts the workers, watches them, replaces the dead, and quiesces. See `worker.ts` for the states.
 *
 * A worker blocked in a system call cannot be ended from outside, so workers leave by flag and eventfd; ending
 * the thread is for one that spins and ignores both, after which its arena is kept aside for good.
 */

import { Piscina } from 'piscina';
import * as layout from '../../assembly/layout.js';
import type { Tuning } from '../../workers/context.js';
import { OverlayError } from '../errors.js';
import {
  ARENAS_SPARE,
  QUIESCE_MS_MAX,
  SUPERVISE_MS,
  WORKER_BACKOFF_MS_MAX,
  WORKER_DEATHS_MAX,
  WORKER_DEATHS_WINDOW_MS,
  WORKER_LEAVE_MS,
  WORKER_START_MS_MAX,
  WORKER_START_STARVED_MS_MAX,
  WORKER_STUCK_MS,
} from '../limits.js';
import { after, every, monotonicMs, nextTurn, sleep } from '../sys/clock.js';
import type { Core } from './core.js';
import { arenaOffset, type MemoryViews } from './memory.js';
import { Queue } from './queue.js';
import type { Finding } from './watch.js';
import { Worker } from './worker.js';

/** What the crew tells the layers above. */
export type WorkerEvent =
  | { kind: 'died'; worker: number; reason: string; again: boolean }
  | { kind: 'stuck'; worker: number; reason: string }
  | { kind: 'replaced'; worker: number; restarts: number }
  /** It gets no CPU: nothing is done about it here. */
  | { kind: 'starved'; worker: number; reason: string }
  | { kind: 'fed'; worker: number }
  | { kind: 'lost'; worker: number; reason: string };

export interface WorkersOptions {
  /** TAP queues and receive sockets, each for one worker, or for two with `isSplit`. */
  readonly lanes: number;
  /** One worker for what goes out and another for what comes in, instead of one for both. */
  readonly isSplit: boolean;
  /** CPUs to pin to, worker i to the i-th (round again); empty for any. */
  readonly cpus: readonly number[];
  readonly tuning: Tuning;
  /** Module whose default export is the loop. */
  readonly entry: URL;
  readonly onEvent: (event: WorkerEvent) => void;
  /** A worker has ended: what it had aside is lost, and with `hasLeft` what is on its rings too. */
  readonly onAbandoned: (arena: number, hasLeft: boolean) => void;
}

/** Threads for so many lanes. */
export function workerCount(lanes: number, isSplit: boolean): number {
  return isSplit ? 2 * lanes : lanes;
}

export class Workers {
  readonly list: readonly Worker[];
  /** Every arena there is; those not in use hold counts too. */
  readonly arenas: readonly number[];
  readonly #pool: Piscina;
  readonly #spares: number[];
  /** Arenas of threads that were told to end and may still be alive. */
  readonly #zombies = new Set<number>();
  /** Stuck workers that wait for an arena. */
  readonly #lost = new Set<Worker>();
  #supervisedAtMs = monotonicMs();
  #stopSupervising = () => {};
  #isClosing = false;

  constructor(
    readonly views: MemoryViews,
    readonly core: Core,
    module: WebAssembly.Module,
    readonly options: WorkersOptions,
  ) {
    const { lanes, isSplit, cpus, entry, tuning } = options;
    const count = workerCount(lanes, isSplit);
    this.#pool = new Piscina({
      filename: entry.href,
      minThreads: count,
      maxThreads: count,
      concurrentTasksPerWorker: 1,
      idleTimeout: Number.POSITIVE_INFINITY,
      atomics: 'disabled',
      // Descriptors are main's; a worker's end must not close one.
      trackUnmanagedFds: false,
    });
    this.#pool.on('error', () => {}); // the task's own rejection says it better
    this.list = Array.from({ length: count }, (_, index) => {
      const directions = !isSplit ? 'both' : index < lanes ? 'out' : 'in';
      const queue = new Queue(index, index % lanes, directions, views, arenaOffset(index));
      const cpu = cpus.length > 0 ? cpus[index % cpus.length]! : -1;
      return new Worker(queue, this.#pool, module, core, views, cpu, tuning);
    });
    this.arenas = Array.from({ length: count + ARENAS_SPARE }, (_, arena) => arenaOffset(arena));
    this.#spares = this.arenas.slice(count);
  }

  /** Starts every worker; resolves when each has begun its loop. */
  async start(): Promise<void> {
    for (const worker of this.list) this.#startWorker(worker);
    const begun = monotonicMs();
    let lookAgainMs = WORKER_START_MS_MAX;
    for (;;) {
      const waiting = this.list.find((worker) => !worker.hasBegun);
      if (!waiting) break;
      const failed = this.list.find((worker) => worker.restarts > 0 || worker.state === 'dead');
      if (failed) throw startError(failed, failed.lastDeath);
      const ms = monotonicMs() - begun;
      if (ms > lookAgainMs) {
        if (waiting.isLate(ms)) throw startError(waiting, lateText(waiting, ms));
        lookAgainMs = ms + SUPERVISE_MS;
      }
      await sleep(1);
    }
    this.#stopSupervising = every(SUPERVISE_MS, () => this.#supervise());
  }

  /** Asks every worker to leave and closes what they were waiting on. */
  async close(): Promise<void> {
    this.#isClosing = true;
    this.#stopSupervising();
    const bounded = Promise.race([
      Promise.all(this.list.map((worker) => worker.stop())),
      sleep(WORKER_STUCK_MS),
    ]);
    await bounded;
    await Promise.race([this.#pool.close({ force: true }), sleep(WORKER_STUCK_MS)]);
    for (const { queue } of this.list) queue.close();
  }

  /**
   * Resolves when every worker has moved on from what it may have been reading: what was withdrawn before may
   * then be freed. Rejects with EBUSY when one does not move within QUIESCE_MS_MAX: nothing may be freed then.
   */
  async quiesce(): Promise<void> {
    const waits = this.list.map((worker) => ({
      worker,
      epoch: worker.epoch,
      queueArena: worker.queue.arena,
    }));
    const deadline = monotonicMs() + QUIESCE_MS_MAX;
    for (const { worker, epoch, queueArena } of waits) {
      // Even is parked, and a stopped or dead worker's epoch is made even. A replaced worker has another arena.
      while (epoch % 2 !== 0 && worker.epoch === epoch && worker.queue.arena === queueArena) {
        if (monotonicMs() > deadline) throw stuckError(whoOf(worker));
        await nextTurn();
      }
    }
    // Whatever their epochs say: they may be about to wake up in the middle of what they were doing.
    while (this.#zombies.size > 0) {
      if (monotonicMs() > deadline) throw stuckError('the thread of a worker that was replaced');
      await sleep(1);
    }
  }

  #startWorker(worker: Worker): void {
    this.options.onAbandoned(worker.queue.arena, false);
    worker.start((error) => this.#onDeath(worker, error));
  }

  #onDeath(worker: Worker, error: Error): void {
    if (this.#isClosing) return;
    const now = monotonicMs();
    worker.deaths = [...worker.deaths.filter((at) => now - at < WORKER_DEATHS_WINDOW_MS), now];
    const again = worker.deaths.length >= WORKER_DEATHS_MAX;
    this.options.onEvent({ kind: 'died', worker: worker.queue.index, reason: error.message, again });
    // The first successors come at once; one that dies again and again is given time.
    const extra = worker.deaths.length - WORKER_DEATHS_MAX;
    const pauseMs = again ? Math.min(500 * 2 ** extra, WORKER_BACKOFF_MS_MAX) : 0;
    after(pauseMs, () => this.#replace(worker));
  }

  #replace(worker: Worker): void {
    if (this.#isClosing || worker.state !== 'dead') return;
    worker.restarts++;
    this.#startWorker(worker);
    const { restarts } = worker;
    const watchBeginning = () => {
      if (this.#isClosing || worker.restarts !== restarts || worker.state !== 'running') return;
      if (worker.hasBegun) this.options.onEvent({ kind: 'replaced', worker: worker.queue.index, restarts });
      else after(5, watchBeginning);
    };
    watchBeginning();
  }

  #supervise(): void {
    const now = monotonicMs();
    const paused = now - this.#supervisedAtMs > 3 * SUPERVISE_MS;
    this.#supervisedAtMs = now;
    // The whole process stood still, or main was busy: look at the workers afresh, blame nobody.
    if (paused) for (const worker of this.list) worker.forgiveIdle(now);
    for (const worker of this.list) if (worker.state === 'running') this.#look(worker, now);
  }

  #look(worker: Worker, now: number): void {
    const { index } = worker.queue;
    const wasStarved = worker.isStarved;
    const finding = worker.look(now);
    if (finding !== 'moving' && finding !== 'starved') this.#unstick(worker, stuckReasons[finding]);
    else if (worker.isStarved && !wasStarved)
      this.options.onEvent({ kind: 'starved', worker: index, reason: STARVED_REASON });
    else if (!worker.isStarved && wasStarved) this.options.onEvent({ kind: 'fed', worker: index });
  }

  #unstick(worker: Worker, reason: string): void {
    const { index } = worker.queue;
    worker.state = 'stuck';
    this.options.onEvent({ kind: 'stuck', worker: index, reason });
    worker.askToLeave();
    after(WORKER_LEAVE_MS, () => {
      if (this.#isClosing || worker.state !== 'stuck' || this.#giveSpare(worker)) return;
      this.#lost.add(worker);
      this.options.onEvent({ kind: 'lost', worker: index, reason: LOST_REASON });
    });
  }

  /** Ends the thread of a stuck worker, which goes on in another arena; false when there is none. */
  #giveSpare(worker: Worker): boolean {
    const { arena } = worker.queue;
    // Without an arena it cannot be replaced, and the old one may still be written to.
    const spare = this.#spares.pop();
    if (spare === undefined) return false;
    const threadId = Atomics.load(this.views.u32, (arena + layout.ARENA_THREAD) / 4);
    const thread = this.#pool.threads.find((candidate) => candidate.threadId === threadId);
    if (thread) {
      this.#zombies.add(arena);
      thread.once('exit', () => this.#onThreadEnd(arena));
    }
    worker.queue.moveTo(spare);
    worker.endThread();
    return true;
  }

  /** The arena of a thread that was given up is nobody's: for whoever waits for one. */
  #onThreadEnd(arena: number): void {
    this.#zombies.delete(arena);
    this.options.onAbandoned(arena, true);
    this.#spares.push(arena);
    for (const worker of this.#lost) {
      // It may have left by itself since.
      if (worker.state === 'stuck' && !this.#isClosing && !this.#giveSpare(worker)) return;
      this.#lost.delete(worker);
    }
  }

  /** Index of the bell that workers ring when they have put an event on their ring. */
  get bell(): number {
    return (layout.HEADER_OFFSET + layout.HEADER_BELL) / 4;
  }
}

const stuckReasons: Readonly<Record<Exclude<Finding, 'moving' | 'starved'>, string>> = {
  spinning: `it has not moved for ${WORKER_STUCK_MS} ms, and keeps a CPU busy`,
  blocked: `it has not moved for ${WORKER_STUCK_MS} ms, and is blocked in a system call`,
  silent: `it has not moved for ${WORKER_STUCK_MS} ms`,
};

const STARVED_REASON =
  `it has not moved for ${WORKER_STUCK_MS} ms, since the machine gives it no CPU; it goes on when it gets some: ` +
  "look at the machine's load and at the CPU limit of the daemon's control group";

const LOST_REASON =
  'all spare arenas are with threads that were given up and have not ended; it comes back when one of them ends, and a restart ' +
  'is needed only if none does';

function startError({ queue }: Worker, reason: string): OverlayError {
  return new OverlayError('EAGAIN', 'worker_start_failed', `worker ${queue.index} did not start: ${reason}`);
}

function lateText(worker: Worker, ms: number): string {
  const seconds = (value: number) => Math.round(value / 1000);
  if (ms <= WORKER_START_STARVED_MS_MAX) return 'it took too long';
  return (
    `it took too long: in ${seconds(ms)} s the threads of this process waited ${seconds(worker.waitedMs)} s for a CPU; ` +
    "look at the machine's load and at the CPU limit of the control group"
  );
}

function whoOf({ queue, isStarved }: Worker): string {
  return `worker ${queue.index}${isStarved ? ', which gets no CPU from the machine,' : ''}`;
}

function stuckError(who: string): OverlayError {
  return new OverlayError(
    'EBUSY',
    'worker_stuck',
    `${who} does not respond; what it may still be reading is kept`,
  );
}
