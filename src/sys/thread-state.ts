/** What the kernel says of threads of this process (man 5 proc_pid_stat; Documentation/scheduler/sched-stats.rst). */
import { readdirSync, readFileSync, readlinkSync } from 'node:fs';

/** USER_HZ, in which /proc counts whatever the kernel itself counts in. */
const TICKS_PER_SECOND = 100;
const NANOSECONDS_PER_MS = 1e6;
const [UTIME, STIME] = [11, 12];

export interface ThreadState {
  /** R: runs, or would if it were given a CPU. S, D: waits for something else. T, t: stopped, by a signal or a debugger. */
  readonly letter: string;
  /** CPU time that it has had. */
  readonly cpuMs: number;
}

/** The kernel's number of the calling thread; 0 where there is no /proc. */
export function ownThread(): number {
  try {
    return Number(readlinkSync('/proc/thread-self').split('/').at(-1));
  } catch {
    return 0;
  }
}

/** Undefined when there is no such thread, or no /proc. */
export function threadState(thread: number): ThreadState | undefined {
  try {
    const text = readFileSync(`/proc/self/task/${thread}/stat`, 'latin1');
    // The name in front may hold anything, parentheses too.
    const fields = text.slice(text.lastIndexOf(')') + 2).split(' ');
    const ticks = Number(fields[UTIME]) + Number(fields[STIME]);
    return { letter: fields[0]!, cpuMs: (ticks * 1000) / TICKS_PER_SECOND };
  } catch {
    return undefined;
  }
}

/** For how long threads of this process have been ready to run and were given no CPU, all together; 0 where nobody counts it. */
export function cpuWaitMs(): number {
  let waited = 0;
  try {
    for (const thread of readdirSync('/proc/self/task')) {
      try {
        waited += Number(readFileSync(`/proc/self/task/${thread}/schedstat`, 'latin1').split(' ')[1]);
      } catch {
        // It has ended in the meantime.
      }
    }
  } catch {
    return 0;
  }
  return waited / NANOSECONDS_PER_MS;
}
