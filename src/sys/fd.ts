/** File descriptors that main owns and workers borrow as integers. */
import { EFD_CLOEXEC, EFD_NONBLOCK } from './abi.js';
import { must } from './errno.js';
import * as libc from './libc.js';

export function closeFd(fd: number): void {
  must(libc.close(fd), `close of descriptor ${fd}`);
}

/** A wake-up for a thread that waits in epoll (man 2 eventfd). */
export function createEventfd(): number {
  return must(libc.eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC), 'eventfd');
}

const one = new BigUint64Array([1n]);

/** Makes an eventfd readable. */
export function ringEventfd(fd: number): void {
  must(libc.write(fd, one, 8), 'write to eventfd');
}
