/** The system calls a worker makes, as one object, so that a test can make any of them fail. */
import { lastErrno } from '../src/sys/errno.js';
import * as libc from '../src/sys/libc.js';

/** Absolute addresses throughout; -1 and `errno()` on failure, as in the manual pages (section 2). */
export interface Kernel {
  read(fd: number, address: number, bytes: number): number;
  write(fd: number, address: number, bytes: number): number;
  writev(fd: number, iovecs: number, count: number): number;
  recvmmsg(fd: number, messages: number, count: number, flags: number, timeout: number): number;
  sendmmsg(fd: number, messages: number, count: number, flags: number): number;
  epollWait(epoll: number, events: number, max: number, timeoutMs: number): number;
  /** Lets another thread have the CPU (man 2 sched_yield). */
  giveWay(): void;
  errno(): number;
}

export const kernel: Kernel = {
  read: libc.readAt,
  write: libc.writeAt,
  writev: libc.writevAt,
  recvmmsg: libc.recvmmsgAt,
  sendmmsg: libc.sendmmsgAt,
  epollWait: libc.epollWaitAt,
  giveWay: libc.schedYield,
  errno: lastErrno,
};
