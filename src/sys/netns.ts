/** Network namespaces (man 7 network_namespaces). The namespace belongs to the calling thread. */
import { OverlayError } from '../errors.js';
import { CLONE_NEWNET, O_CLOEXEC, O_RDONLY } from './abi.js';
import { EPERM, lastErrno, must, SystemError } from './errno.js';
import { closeFd } from './fd.js';
import * as libc from './libc.js';

/** Descriptor of the namespace the calling thread is in. */
export function currentNamespace(): number {
  return must(libc.open('/proc/thread-self/ns/net', O_RDONLY | O_CLOEXEC, 0), 'open of the network namespace');
}

/** Descriptor of the namespace of a process. */
export function namespaceOfPid(pid: number): number {
  return must(libc.open(`/proc/${pid}/ns/net`, O_RDONLY | O_CLOEXEC, 0), `open of the namespace of ${pid}`);
}

/** Descriptor of a new namespace; it lives while the descriptor or a process in it does. Throws EPERM. */
export function createNamespace(): number {
  const home = currentNamespace();
  try {
    if (libc.unshare(CLONE_NEWNET) < 0) throw refusal(lastErrno(), 'unshare');
    try {
      return currentNamespace();
    } finally {
      goTo(home);
    }
  } finally {
    closeFd(home);
  }
}

/**
 * Runs `work` with the calling thread in the namespace; `work` must be synchronous, and child processes it spawns
 * begin there. Throws EPERM without CAP_SYS_ADMIN.
 */
export function inNamespace<T>(namespace: number, work: () => T): T {
  const home = currentNamespace();
  try {
    if (libc.setns(namespace, CLONE_NEWNET) < 0) throw refusal(lastErrno(), 'setns');
    try {
      return work();
    } finally {
      goTo(home);
    }
  } finally {
    closeFd(home);
  }
}

/** Going on in the wrong namespace would touch somebody else's network: end the process instead. */
function goTo(home: number): void {
  if (libc.setns(home, CLONE_NEWNET) >= 0) return;
  const { message } = new SystemError(lastErrno(), 'returning to the network namespace');
  console.error(message);
  process.abort();
}

function refusal(errno: number, what: string): Error {
  if (errno !== EPERM) return new SystemError(errno, what);
  return new OverlayError('EPERM', 'no_cap_sys_admin', 'entering a network namespace needs CAP_SYS_ADMIN');
}
