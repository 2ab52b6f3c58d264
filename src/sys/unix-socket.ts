/** A unix socket that listens (man 7 unix), apart from who takes its connections. */
import { AF_UNIX, SOCK_CLOEXEC, SOCK_NONBLOCK, SOCK_STREAM } from './abi.js';
import { must } from './errno.js';
import { closeFd } from './fd.js';
import * as libc from './libc.js';

/** sun_path less the NUL; a longer path would be cut off silently. */
export const SOCKET_PATH_BYTES_MAX = 107;
const SUN_PATH = 2;

/** A socket with that name, which nobody can connect to before it listens. Throws SystemError. */
export function bindUnix(path: string): number {
  const name = Buffer.from(path);
  const address = new Uint8Array(SUN_PATH + SOCKET_PATH_BYTES_MAX + 1);
  new DataView(address.buffer).setUint16(0, AF_UNIX, true);
  address.set(name.subarray(0, SOCKET_PATH_BYTES_MAX), SUN_PATH);
  const fd = must(libc.socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), 'socket');
  try {
    must(libc.bind(fd, address, SUN_PATH + name.length + 1), `bind to ${path}`);
  } catch (error) {
    closeFd(fd);
    throw error;
  }
  return fd;
}
