/**
 * Network namespaces (man 7 network_namespaces). A thread is in exactly one; sockets and links belong to the one
 * their maker was in. Descriptors keep a namespace alive: whoever got one from here closes it.
 */
import { AssertionError, assert, OverlayError } from '../errors.js';
import { CLONE_NEWNET, O_CLOEXEC, O_RDONLY } from './abi.js';
import { EPERM, errnoName, lastErrno, must, SystemError } from './errno.js';
import { closeFd } from './fd.js';
import * as libc from './libc.js';

/** Descriptor of the namespace the calling thread is in. */
export function currentNamespace(): number {
  return openNamespace('/proc/thread-self/ns/net');
}

/** Descriptor of the namespace a process is in. Throws SystemError ENOENT when there is no such process. */
export function namespaceOfPid(pid: number): number {
  assert(Number.isSafeInteger(pid) && pid > 0, `${pid} is not a process id`);
  return openNamespace(`/proc/${pid}/ns/net`);
}

/** Descriptor of the namespace that a file stands for (man 8 ip-netns). Throws SystemError ENOENT when there is none. */
export function namespaceOfPath(path: string): number {
  return openNamespace(path);
}

/**
 * Descriptor of a new namespace, which holds nothing but a loopback link that is down. The calling thread stays
 * where it is. Throws EPERM `no_cap_sys_admin`.
 */
export function createNamespace(): number {
  return elsewhere(() => enter(libc.unshare(CLONE_NEWNET), 'creating a network namespace'), currentNamespace);
}

/**
 * Runs `work` with the calling thread in the namespace of `fd`, and returns to where the thread was. `work` must be
 * synchronous: what it leaves to later would run elsewhere. Throws EPERM `no_cap_sys_admin` and what `work` throws.
 */
export function inNamespace<T>(fd: number, work: () => T): T {
  return elsewhere(
    () => enter(libc.setns(fd, CLONE_NEWNET), 'entering a network namespace'),
    () => {
      const result = work();
      assert(!(result instanceof Promise), 'work in a namespace must be synchronous');
      return result;
    },
  );
}

/** Goes to another namespace, runs `work` there, and brings the thread back to the one it was in. */
function elsewhere<T>(go: () => void, work: () => T): T {
  const home = currentNamespace();
  let hasLeft = false;
  try {
    go();
    hasLeft = true;
    return work();
  } finally {
    const isBack = !hasLeft || libc.setns(home, CLONE_NEWNET) >= 0;
    const errno = isBack ? 0 : lastErrno();
    closeFd(home);
    // Whatever ran next would work on the links of somebody else: worse than not running at all.
    if (!isBack) {
      // biome-ignore lint/correctness/noUnsafeFinally: it matters more than what `work` threw.
      throw new AssertionError(`the thread cannot return to its network namespace (${errnoName(errno)})`);
    }
  }
}

/** Passes over the success of unshare or setns. */
function enter(result: number, what: string): void {
  if (result >= 0) return;
  const errno = lastErrno();
  if (errno === EPERM) {
    const message = `${what} needs CAP_SYS_ADMIN: run as root, or give the program that capability`;
    throw new OverlayError('EPERM', 'no_cap_sys_admin', message);
  }
  throw new SystemError(errno, what);
}

function openNamespace(path: string): number {
  return must(libc.open(path, O_RDONLY | O_CLOEXEC, 0), `open of ${path}`);
}
