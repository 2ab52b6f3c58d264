/** Raw sockets (man 7 raw), which need a right that nothing else here does. */
import { OverlayError } from '../errors.js';
import { SOCK_CLOEXEC, SOCK_NONBLOCK, SOCK_RAW } from './abi.js';
import { EPERM, lastErrno, must } from './errno.js';
import * as libc from './libc.js';

/** Opens one. Throws EPERM without CAP_NET_RAW. @param what it is for, as the subject of a sentence */
export function openRawSocket(domain: number, protocol: number, what: string): number {
  const fd = libc.socket(domain, SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC, protocol);
  if (fd < 0 && lastErrno() === EPERM) {
    throw new OverlayError(
      'EPERM',
      'no_cap_net_raw',
      `${what} needs CAP_NET_RAW: start overlayd as root, or give it that capability ` +
        '(AmbientCapabilities=CAP_NET_ADMIN CAP_NET_RAW of systemd, or setpriv --ambient-caps)',
    );
  }
  return must(fd, 'socket');
}
