/**
 * The real loop over a kernel that a test can hold at a named step: the HOLD words in the unused part of the header say which
 * worker (its arena) stands still, and where. `test/harness/hold.ts` has the test's side.
 */
import * as layout from '../../assembly/layout.js';
import { MemoryViews } from '../../src/datapath/memory.js';
import type { WorkerTask } from '../../workers/context.js';
import { type Kernel, kernel } from '../../workers/kernel.js';
import { runLoop } from '../../workers/loop.js';

export const HOLD_ARENA = (layout.HEADER_OFFSET + 2112) / 4;
export const HOLD_STEP = HOLD_ARENA + 1;
export const HOLD_STATE = HOLD_ARENA + 2;
/** A descriptor to block on in the kernel, where no exception ends the thread; -1 to wait where one does. */
export const HOLD_FD = HOLD_ARENA + 3;
/** The last descriptor that a worker has read a frame or datagrams from. */
export const HOLD_READ_FD = HOLD_ARENA + 4;

export const holdStates = { none: 0, asked: 1, held: 2 } as const;

/**
 * Where a worker can be held. Parked, with its epoch even: it has been woken, and has the rows of what is ready in its hands. In
 * the middle of a batch, with its epoch odd, and each time before a system call with descriptors and pointers from the tables.
 */
export const holdSteps = { woken: 1, read: 2, send: 3, receive: 4, write: 5 } as const;
export type HoldStep = keyof typeof holdSteps;

export default function run(task: WorkerTask): void {
  const words = new Int32Array(task.memory.buffer);
  const { base } = new MemoryViews(task.memory);
  const stop = (step: number) => {
    if (Atomics.load(words, HOLD_ARENA) !== task.arena || Atomics.load(words, HOLD_STEP) !== step) return;
    if (Atomics.compareExchange(words, HOLD_STATE, holdStates.asked, holdStates.held) !== holdStates.asked)
      return;
    Atomics.notify(words, HOLD_STATE);
    const fd = Atomics.load(words, HOLD_FD);
    if (fd >= 0) kernel.read(fd, base + task.arena + layout.ARENA_SCRATCH, 8);
    else Atomics.wait(words, HOLD_STATE, holdStates.held);
  };
  const held: Kernel = {
    ...kernel,
    epollWait: (epoll, events, max, timeoutMs) => {
      const count = kernel.epollWait(epoll, events, max, timeoutMs);
      if (count > 0) stop(holdSteps.woken);
      return count;
    },
    read: (fd, address, bytes) => {
      if (fd !== task.wake) {
        stop(holdSteps.read);
        Atomics.store(words, HOLD_READ_FD, fd);
      }
      return kernel.read(fd, address, bytes);
    },
    sendmmsg: (...call) => {
      stop(holdSteps.send);
      return kernel.sendmmsg(...call);
    },
    recvmmsg: (...call) => {
      stop(holdSteps.receive);
      Atomics.store(words, HOLD_READ_FD, call[0]);
      return kernel.recvmmsg(...call);
    },
    write: (...call) => {
      stop(holdSteps.write);
      return kernel.write(...call);
    },
    writev: (...call) => {
      stop(holdSteps.write);
      return kernel.writev(...call);
    },
  };
  runLoop(task, held);
}
