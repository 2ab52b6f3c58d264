/**
 * The real loop over a kernel that fails when a test asks for it: the FAULT words in the unused part of the header say
 * which worker (its arena) does what, once.
 */
import * as layout from '../../assembly/layout.js';
import type { WorkerTask } from '../../workers/context.js';
import { type Kernel, kernel } from '../../workers/kernel.js';
import { runLoop } from '../../workers/loop.js';

export const FAULT_ARENA = (layout.HEADER_OFFSET + 2048) / 4;
export const FAULT_KIND = FAULT_ARENA + 1;
export const faults = { throw: 1, exit: 2, spin: 3 } as const;

export default function run(task: WorkerTask): void {
  const words = new Int32Array(task.memory.buffer);
  const faulty: Kernel = {
    ...kernel,
    read: (fd, address, bytes) => {
      if (Atomics.load(words, FAULT_ARENA) === task.arena) {
        Atomics.store(words, FAULT_ARENA, 0);
        fail(Atomics.load(words, FAULT_KIND));
      }
      return kernel.read(fd, address, bytes);
    },
  };
  runLoop(task, faulty);
}

/** In the middle of a batch: after a wake-up, before the frames are read. */
function fail(kind: number): void {
  if (kind === faults.throw) throw new Error('a fault that a test asked for');
  if (kind === faults.exit) process.exit(7);
  for (;;);
}
