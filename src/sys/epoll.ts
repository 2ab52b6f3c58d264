/** One epoll set a worker queue (man 7 epoll). Main adds and removes; the worker waits in its own thread. */
import { EPOLL_CLOEXEC, EPOLL_CTL_ADD, EPOLL_CTL_DEL, EPOLLIN, structs } from './abi.js';
import { ENOENT, lastErrno, must, SystemError } from './errno.js';
import * as libc from './libc.js';

export function createEpoll(): number {
  return must(libc.epollCreate(EPOLL_CLOEXEC), 'epoll_create1');
}

/** Reports `source << 16 | row` whenever `fd` is readable. */
export function watch(epoll: number, fd: number, source: number, row: number): void {
  const event = new Uint8Array(structs.epoll_event.size);
  const view = new DataView(event.buffer);
  view.setUint32(structs.epoll_event.events, EPOLLIN, true);
  view.setUint32(structs.epoll_event.data, (source << 16) | row, true);
  must(libc.epollCtl(epoll, EPOLL_CTL_ADD, fd, event), 'epoll_ctl add');
}

/** The reverse of `watch`; nothing happens when it is not watched. */
export function unwatch(epoll: number, fd: number): void {
  if (libc.epollCtl(epoll, EPOLL_CTL_DEL, fd, null) >= 0) return;
  const errno = lastErrno();
  if (errno !== ENOENT) throw new SystemError(errno, 'epoll_ctl del');
}
