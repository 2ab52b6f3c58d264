/**
 * The only way out of the daemon: at once, whatever its other threads do. `process.exit` waits for them, and a thread of a
 * plugin may be in a system call or in a long call of the engine, which nobody can break off.
 */
import { readdirSync, readlinkSync } from 'node:fs';
import { O_CLOEXEC, O_RDWR } from './abi.js';
import * as libc from './libc.js';

const TUN = '/dev/net/tun';

/**
 * Ends the process (man 2 _exit). Queues of links that are still open are let go first; the lock of the state directory goes
 * with the process, so that no successor shares queues with it. The log must be written by then.
 */
export function leave(code: number): never {
  releaseQueues();
  libc.exitNow(code);
  throw new Error('_exit does not return');
}

const ITIMER_REAL = 0;
/** struct itimerval (man 2 setitimer): interval, then value, each in seconds and microseconds of 64 bits. */
const VALUE = 2;

/**
 * Has the kernel end the process by SIGALRM in so many milliseconds, even while this thread is in a call that does not return
 * (man 2 setitimer). 0: no more. A program that this process becomes would inherit it.
 */
export function endLatestIn(ms: number): void {
  const timer = new BigUint64Array(4);
  timer.set([BigInt(Math.floor(ms / 1000)), BigInt(Math.floor((ms % 1000) * 1000))], VALUE);
  libc.setitimer(ITIMER_REAL, timer, null);
}

/**
 * Puts /dev/null in the place of each open queue. A number that were merely closed could become another file's, and a
 * worker that still runs would write frames into that.
 */
function releaseQueues(): void {
  const nothing = libc.open('/dev/null', O_RDWR | O_CLOEXEC, 0);
  if (nothing < 0) return;
  for (const fd of openDescriptors()) {
    if (targetOf(fd) === TUN) libc.dup3(nothing, fd, O_CLOEXEC);
  }
}

/** None without /proc: the kernel lets all go with the process then, in an order of its own. */
function openDescriptors(): number[] {
  try {
    return readdirSync('/proc/self/fd').map(Number);
  } catch {
    return [];
  }
}

function targetOf(fd: number): string | undefined {
  try {
    return readlinkSync(`/proc/self/fd/${fd}`);
  } catch {
    // Closed since it was listed.
    return undefined;
  }
}
