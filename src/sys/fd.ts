/** File descriptors that main owns and workers borrow as integers. */
import { Serial } from '../serial.js';
import { EFD_CLOEXEC, EFD_NONBLOCK, F_DUPFD_CLOEXEC, F_SETFD, FD_CLOEXEC, MFD_CLOEXEC } from './abi.js';
import { must } from './errno.js';
import * as libc from './libc.js';

export function closeFd(fd: number): void {
  must(libc.close(fd), `close of descriptor ${fd}`);
}

/** Closes descriptors, and takes each out of the list before it is closed: none is ever closed twice. */
export function closeEach(fds: number[]): void {
  for (let fd = fds.pop(); fd !== undefined; fd = fds.pop()) closeFd(fd);
}

/**
 * Closes a descriptor on another thread: taking a link away keeps the kernel busy for tens of milliseconds. A failure
 * leaves nothing that could be done about it: the descriptor is gone in any case (man 2 close).
 */
export function closeFdAside(fd: number): Promise<void> {
  // One at a time: the kernel does no more, and the other threads of the pool are for others.
  return closing.run(() => new Promise((resolve) => libc.closeAside(fd, () => resolve())));
}

const closing = new Serial();

/** Whether the descriptor passes to a program that this process becomes (man 2 execve). */
export function setInherited(fd: number, isInherited: boolean): void {
  must(libc.fcntl(fd, F_SETFD, isInherited ? 0 : FD_CLOEXEC), 'fcntl F_SETFD');
}

/** Another descriptor of the same open file; programs that this process becomes do not get it. */
export function duplicateFd(fd: number): number {
  return must(libc.fcntl(fd, F_DUPFD_CLOEXEC, 0), 'fcntl F_DUPFD_CLOEXEC');
}

/** An empty file that is nowhere but in memory (man 2 memfd_create). @param name what /proc shows of it */
export function createMemoryFile(name: string): number {
  return must(libc.memfdCreate(name, MFD_CLOEXEC), 'memfd_create');
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
