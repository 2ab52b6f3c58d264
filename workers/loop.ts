/**
 * The data-plane loop: wait, batch in, call the core, batch out; both directions to completion. A piscina task
 * that ends when main sets the stop flag and rings the eventfd. No event loop, no async, no callbacks.
 */
import { threadId } from 'node:worker_threads';
import * as layout from '../assembly/layout.js';
import { WORKER_DRAIN_MS, WORKER_WAIT_MS } from '../src/limits.js';
import { structs } from '../src/sys/abi.js';
import { pinThread } from '../src/sys/affinity.js';
import { monotonicMs } from '../src/sys/clock.js';
import { EINTR, SystemError } from '../src/sys/errno.js';
import { ownThread } from '../src/sys/thread-state.js';
import { BusyPoll } from './busy-poll.js';
import { WorkerContext, type WorkerTask } from './context.js';
import { isWaiting, resume } from './deferred.js';
import { type Kernel, kernel } from './kernel.js';
import { receive } from './rx.js';
import { transmit } from './tx.js';

const EVENT_BYTES = structs.epoll_event.size;
const EVENT_DATA = structs.epoll_event.data;

/** Entry of the piscina task. */
export default function run(task: WorkerTask): void {
  runLoop(task, kernel);
}

export function runLoop(task: WorkerTask, kernel: Kernel): void {
  const worker = new WorkerContext(task, kernel);
  Atomics.store(worker.u32, (task.arena + layout.ARENA_THREAD) / 4, threadId);
  Atomics.store(worker.u32, (task.arena + layout.ARENA_KERNEL_THREAD) / 4, ownThread());
  if (task.cpu >= 0) pinThread([task.cpu]);
  const ready = task.arena + layout.ARENA_READY;
  const { u8 } = worker.views;
  const poll = new BusyPoll(task.busyPollUs / 1000, monotonicMs);
  while (!worker.isStopping) {
    const isLooking = poll.isLooking;
    const waitMs = isLooking ? 0 : isWaiting(worker) ? WORKER_DRAIN_MS : WORKER_WAIT_MS;
    worker.moveEpoch();
    const count = kernel.epollWait(task.epoll, worker.base + ready, layout.READY_MAX, waitMs);
    worker.moveEpoch();
    if (count === 0 && isLooking) {
      kernel.giveWay();
      continue;
    }
    worker.tellTime();
    if (count < 0) {
      const failure = kernel.errno();
      if (failure === EINTR) continue;
      throw new SystemError(failure, 'epoll_wait');
    }
    worker.core.countWorker(task.arena, layout.COUNTER_WAKEUPS, 1);
    resume(worker);
    for (let i = 0; i < count; i++) {
      const data = ready + i * EVENT_BYTES + EVENT_DATA;
      const row = u8[data]! | (u8[data + 1]! << 8);
      const source = u8[data + 2]!;
      if (source === layout.SOURCE_TAP) transmit(worker, row);
      else if (source === layout.SOURCE_UNDERLAY) receive(worker, row);
      else kernel.read(task.wake, worker.base + task.arena + layout.ARENA_SCRATCH, 8);
    }
    worker.ringForMisses();
    if (count > 0) poll.worked();
  }
}
