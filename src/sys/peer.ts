/** Who is at the other end of a unix socket (man 7 unix, SO_PEERCRED): pid, uid, gid when it connected. */
import { SO_PEERCRED, SOL_SOCKET } from './abi.js';
import { must } from './errno.js';
import * as libc from './libc.js';

export interface Peer {
  readonly pid: number;
  readonly uid: number;
  readonly gid: number;
}

export function peerOf(fd: number): Peer {
  const credentials = new Int32Array(3);
  const bytes = new Uint32Array([credentials.byteLength]);
  must(libc.getsockopt(fd, SOL_SOCKET, SO_PEERCRED, credentials, bytes), 'getsockopt SO_PEERCRED');
  const [pid, uid, gid] = credentials;
  return { pid: pid!, uid: uid! >>> 0, gid: gid! >>> 0 };
}
