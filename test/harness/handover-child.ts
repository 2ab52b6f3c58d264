/**
 * A program that becomes itself anew: `handover-child.js <descriptors> [execPath]`. The second time it prints what it was
 * given, as JSON; where there is no second time, what is the matter.
 */
import { readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { becomeAnew, takeLinks } from '../../src/daemon/handover.js';
import type { SystemError } from '../../src/sys/errno.js';
import { createEventfd, setInherited } from '../../src/sys/fd.js';

const [count = '0', program] = process.argv.slice(2);

/** Descriptors of the list that links are handed over in. */
function lists(): number {
  return readdirSync('/proc/self/fd').filter((fd) => {
    try {
      return readlinkSync(`/proc/self/fd/${fd}`).includes('overlayd-links');
    } catch {
      return false; // that of the directory itself
    }
  }).length;
}

/** O_CLOEXEC among the flags (man 5 proc_pid_fdinfo), which are octal. */
function isInherited(fd: number): boolean {
  const [, flags = ''] = /^flags:\s+([0-7]+)/m.exec(readFileSync(`/proc/self/fdinfo/${fd}`, 'utf8')) ?? [];
  return (Number.parseInt(flags, 8) & 0o2000000) === 0;
}

const links = takeLinks();
if (Object.keys(links).length > 0) {
  console.log(JSON.stringify({ links, lists: lists(), pid: process.pid }));
} else if (program === undefined) {
  becomeAnew({ ov0: Array.from({ length: Number(count) }, (_, fd) => 1000 + fd) });
} else {
  process.execPath = program;
  const fds = [createEventfd(), createEventfd()];
  for (const fd of fds) setInherited(fd, true);
  try {
    becomeAnew({ ov0: fds });
  } catch (error) {
    const { errno } = error as SystemError;
    console.log(JSON.stringify({ errno, inherited: fds.filter(isInherited), lists: lists() }));
  }
}
