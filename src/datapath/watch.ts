/**
 * Tells a worker that hangs from one that is starved, when its epoch stands still. Both look alike from outside; the kernel knows:
 *
 * | it has had CPU | the kernel says          | so it is | what becomes of it                                        |
 * |----------------|--------------------------|----------|-----------------------------------------------------------|
 * | enough         | runs                     | spinning | replaced: it will not come to an end                      |
 * | none           | waits, each time         | blocked  | replaced: it is in a system call that does not return     |
 * | little or none | is ready to run          | starved  | left alone: a successor would get no more CPU than it has |
 * | any            | is stopped, by a debugger | nothing  | left alone                                                |
 *
 * Its own wait is none of these: that ends by itself after WORKER_WAIT_MS.
 */
import { WORKER_BLOCKED_MS, WORKER_SPIN_CPU_MS, WORKER_STUCK_MS, WORKER_WATCH_MS } from '../limits.js';
import type { ThreadState } from '../sys/thread-state.js';

export type Finding = 'moving' | 'spinning' | 'blocked' | 'starved' | 'silent';

interface Look {
  /** CPU that it had had when the watch began, and at the last look. */
  readonly firstCpuMs: number;
  readonly cpuMs: number;
  /** Since when it has been waiting for something, each time somebody looked; undefined when it was ready to run. */
  readonly waitsSinceMs: number | undefined;
}

export class Watch {
  #look: Look | undefined;

  /** It has stood still for long enough to be looked at closely. */
  get isOn(): boolean {
    return this.#look !== undefined;
  }

  /** It has moved, or is not to blame. */
  end(): void {
    this.#look = undefined;
  }

  /** @param idleMs for how long its epoch has not moved, @param state asked for when it counts; undefined where nobody knows */
  look(idleMs: number, now: number, state: () => ThreadState | undefined): Finding {
    if (idleMs < WORKER_WATCH_MS) {
      this.end();
      return 'moving';
    }
    const seen = state();
    if (!seen) return idleMs > WORKER_STUCK_MS ? 'silent' : 'moving';
    const { letter, cpuMs } = seen;
    if (letter === 'T' || letter === 't') {
      this.end();
      return 'moving';
    }
    const before = this.#look ?? { firstCpuMs: cpuMs, cpuMs, waitsSinceMs: undefined };
    const isWaiting = letter !== 'R' && cpuMs === before.cpuMs;
    const waitsSinceMs = isWaiting ? (before.waitsSinceMs ?? now) : undefined;
    this.#look = { firstCpuMs: before.firstCpuMs, cpuMs, waitsSinceMs };
    if (cpuMs - before.firstCpuMs >= WORKER_SPIN_CPU_MS) return 'spinning';
    if (waitsSinceMs !== undefined) return now - waitsSinceMs >= WORKER_BLOCKED_MS ? 'blocked' : 'moving';
    return idleMs > WORKER_STUCK_MS ? 'starved' : 'moving';
  }
}
