/** Who is at the other end of a unix socket (man 7 unix, SO_PEERCRED; man 7 socket, SO_PEERGROUPS), when it connected. */
import { SO_PEERCRED, SO_PEERGROUPS, SOL_SOCKET } from './abi.js';
import { lastErrno, must, SystemError } from './errno.js';
import * as libc from './libc.js';

export interface Peer {
  readonly pid: number;
  readonly uid: number;
  readonly gid: number;
}

/** NGROUPS_MAX (man 2 getgroups): no process has more. */
const GROUPS_MAX = 65_536;
/** Enough for nearly everyone; the kernel says how many there are when it is not. */
const GROUPS_FIRST = 64;
/** errno of a result that does not fit. */
const ERANGE = 34;

export function peerOf(fd: number): Peer {
  const credentials = new Int32Array(3);
  const bytes = new Uint32Array([credentials.byteLength]);
  must(libc.getsockopt(fd, SOL_SOCKET, SO_PEERCRED, credentials, bytes), 'getsockopt SO_PEERCRED');
  const [pid, uid, gid] = credentials;
  return { pid: pid!, uid: uid! >>> 0, gid: gid! >>> 0 };
}

/** Its supplementary groups. */
export function peerGroupsOf(fd: number): number[] {
  for (let count = GROUPS_FIRST; count <= GROUPS_MAX; ) {
    const groups = new Uint32Array(count);
    const bytes = new Uint32Array([groups.byteLength]);
    const result = libc.getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, groups, bytes);
    const found = bytes[0]! / groups.BYTES_PER_ELEMENT;
    if (result === 0) return [...groups.subarray(0, found)];
    if (lastErrno() !== ERANGE || found <= count) break;
    count = found;
  }
  throw new SystemError(lastErrno(), 'getsockopt SO_PEERGROUPS');
}
