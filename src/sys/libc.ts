/**
 * The C library through koffi: the only FFI of the product. Every function blocks its thread, and answers as in
 * its manual page (section 2): -1 and `lastErrno()` on failure.
 *
 * Two shapes: the data path passes absolute addresses into the shared memory (`uintptr_t`), everyone else passes
 * typed arrays (`void *`, no copy is made). Koffi has no `ssize_t`; `long` is the same here.
 */
import koffi from 'koffi';

// The running program itself: Node is linked against the C library, glibc or musl.
const libc = koffi.load(null);

export type Buffer = Uint8Array | Int32Array | Uint32Array | BigUint64Array | null;

// ─── Data path: absolute addresses ──────────────────────────────────────────────────────────────────────
export const readAt: (fd: number, address: number, bytes: number) => number = libc.func(
  'long read(int fd, uintptr_t buf, size_t count)',
);
export const writeAt: (fd: number, address: number, bytes: number) => number = libc.func(
  'long write(int fd, uintptr_t buf, size_t count)',
);
export const writevAt: (fd: number, iovecs: number, count: number) => number = libc.func(
  'long writev(int fd, uintptr_t iov, int iovcnt)',
);
export const recvmmsgAt: (
  fd: number,
  messages: number,
  count: number,
  flags: number,
  timeout: number,
) => number = libc.func('int recvmmsg(int fd, uintptr_t msgvec, uint vlen, int flags, uintptr_t timeout)');
export const sendmmsgAt: (fd: number, messages: number, count: number, flags: number) => number = libc.func(
  'int sendmmsg(int fd, uintptr_t msgvec, uint vlen, int flags)',
);
export const epollWaitAt: (epoll: number, events: number, max: number, timeoutMs: number) => number =
  libc.func('int epoll_wait(int epfd, uintptr_t events, int maxevents, int timeout)');

export const madviseAt: (address: number, bytes: number, advice: number) => number = libc.func(
  'int madvise(uintptr_t addr, size_t length, int advice)',
);

// ─── Control: typed arrays ──────────────────────────────────────────────────────────────────────────────
export const open: (path: string, flags: number, mode: number) => number = libc.func(
  'int open(const char *path, int flags, uint mode)',
);
const closeFunction = libc.func('int close(int fd)');
export const close: (fd: number) => number = closeFunction;
/** On a thread of the pool; calls back when it is done. */
export const closeAside = (fd: number, done: () => void): void => closeFunction.async(fd, done);
/** Does not return when it succeeds: the process is the other program then, with the same id. */
export const execve: (path: string, args: (string | null)[], environment: (string | null)[]) => number =
  libc.func('int execve(str path, str *argv, str *envp)');
/** Ends the process at once, with all its threads: none is waited for. */
export const exitNow: (code: number) => void = libc.func('void _exit(int status)');
export const setitimer: (which: number, value: BigUint64Array, before: null) => number = libc.func(
  'int setitimer(int which, void *new_value, void *old_value)',
);
export const dup3: (from: number, to: number, flags: number) => number = libc.func(
  'int dup3(int oldfd, int newfd, int flags)',
);
export const read: (fd: number, buffer: Buffer, bytes: number) => number = libc.func(
  'long read(int fd, void *buf, size_t count)',
);
export const write: (fd: number, buffer: Buffer, bytes: number) => number = libc.func(
  'long write(int fd, void *buf, size_t count)',
);
export const readv: (fd: number, iovecs: Buffer, count: number) => number = libc.func(
  'long readv(int fd, void *iov, int iovcnt)',
);
export const writev: (fd: number, iovecs: Buffer, count: number) => number = libc.func(
  'long writev(int fd, void *iov, int iovcnt)',
);
export const fcntl: (fd: number, command: number, argument: number) => number = libc.func(
  'int fcntl(int fd, int cmd, long arg)',
);
export const flock: (fd: number, operation: number) => number = libc.func('int flock(int fd, int operation)');
export const ioctl: (fd: number, request: number, argument: Buffer) => number = libc.func(
  'int ioctl(int fd, ulong request, void *arg)',
);
export const ioctlValue: (fd: number, request: number, argument: number) => number = libc.func(
  'int ioctl(int fd, ulong request, long arg)',
);
export const socket: (domain: number, type: number, protocol: number) => number = libc.func(
  'int socket(int domain, int type, int protocol)',
);
export const socketpair: (domain: number, type: number, protocol: number, fds: Int32Array) => number =
  libc.func('int socketpair(int domain, int type, int protocol, void *sv)');
export const bind: (fd: number, address: Uint8Array, bytes: number) => number = libc.func(
  'int bind(int fd, void *addr, uint addrlen)',
);
export const getsockname: (fd: number, address: Uint8Array, bytes: Uint32Array) => number = libc.func(
  'int getsockname(int fd, void *addr, void *addrlen)',
);
export const setsockopt: (fd: number, level: number, name: number, value: Buffer, bytes: number) => number =
  libc.func('int setsockopt(int fd, int level, int optname, void *optval, uint optlen)');
export const getsockopt: (
  fd: number,
  level: number,
  name: number,
  value: Buffer,
  bytes: Uint32Array,
) => number = libc.func('int getsockopt(int fd, int level, int optname, void *optval, void *optlen)');
export const send: (fd: number, buffer: Uint8Array, bytes: number, flags: number) => number = libc.func(
  'long send(int fd, void *buf, size_t len, int flags)',
);
export const recv: (fd: number, buffer: Uint8Array, bytes: number, flags: number) => number = libc.func(
  'long recv(int fd, void *buf, size_t len, int flags)',
);
export const recvmsg: (fd: number, message: Uint8Array, flags: number) => number = libc.func(
  'long recvmsg(int fd, void *msg, int flags)',
);
export const sendto: (
  fd: number,
  buffer: Uint8Array,
  bytes: number,
  flags: number,
  address: Uint8Array,
  addressBytes: number,
) => number = libc.func('long sendto(int fd, void *buf, size_t len, int flags, void *addr, uint addrlen)');
export const poll: (fds: Buffer, count: number, timeoutMs: number) => number = libc.func(
  'int poll(void *fds, ulong nfds, int timeout)',
);
export const epollCreate: (flags: number) => number = libc.func('int epoll_create1(int flags)');
export const epollCtl: (epoll: number, operation: number, fd: number, event: Uint8Array | null) => number =
  libc.func('int epoll_ctl(int epfd, int op, int fd, void *event)');
export const eventfd: (initial: number, flags: number) => number = libc.func(
  'int eventfd(uint initval, int flags)',
);
export const memfdCreate: (name: string, flags: number) => number = libc.func(
  'int memfd_create(const char *name, uint flags)',
);
export const setns: (fd: number, type: number) => number = libc.func('int setns(int fd, int nstype)');
export const unshare: (flags: number) => number = libc.func('int unshare(int flags)');
export const schedSetaffinity: (thread: number, bytes: number, mask: Uint8Array) => number = libc.func(
  'int sched_setaffinity(int pid, size_t cpusetsize, void *mask)',
);
export const schedGetaffinity: (thread: number, bytes: number, mask: Uint8Array) => number = libc.func(
  'int sched_getaffinity(int pid, size_t cpusetsize, void *mask)',
);

/** Absolute address of a typed array's first byte, exact as a Number (below 2^53). */
export function addressOf(array: Uint8Array): number {
  return Number(koffi.address(array));
}
export const schedYield: () => number = libc.func('int sched_yield(void)');
