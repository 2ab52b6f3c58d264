/** Out: TAP queue -> core -> underlay. Mirror of `rx.ts`. Only calls the kernel; the core decides. */
import * as layout from '../assembly/layout.js';
import { MSG_DONTWAIT } from '../src/sys/abi.js';
import * as errno from '../src/sys/errno.js';
import type { WorkerContext } from './context.js';

const MESSAGE_BYTES = 64;
const LINE = layout.LINE_BYTES;

/** Name of the drop for an errno of sendmmsg. */
const drops = new Map<number, number>([
  [errno.EAGAIN, layout.DROP_TX_UNDERLAY_FULL],
  [errno.ENOBUFS, layout.DROP_TX_UNDERLAY_FULL],
  [errno.ENOMEM, layout.DROP_TX_UNDERLAY_FULL],
  [errno.EMSGSIZE, layout.DROP_TX_UNDERLAY_MTU],
  [errno.ENETUNREACH, layout.DROP_TX_UNREACHABLE],
  [errno.EHOSTUNREACH, layout.DROP_TX_UNREACHABLE],
  [errno.ENETDOWN, layout.DROP_TX_UNREACHABLE],
  [errno.EDESTADDRREQ, layout.DROP_TX_UNREACHABLE],
  [errno.EPERM, layout.DROP_TX_NOT_PERMITTED],
  [errno.EACCES, layout.DROP_TX_NOT_PERMITTED],
]);

/**
 * What ICMP says of datagrams sent earlier, the kernel answers to whichever send comes next on the socket (man 7 ip, IP_RECVERR).
 * That message has done nothing wrong: it is sent again, and what is said again and again is about itself.
 */
const staleFailures: readonly number[] = [
  errno.ECONNREFUSED,
  errno.EHOSTUNREACH,
  errno.ENETUNREACH,
  errno.EMSGSIZE,
  errno.EHOSTDOWN,
  errno.ENONET,
  errno.EPROTO,
  errno.ENOPROTOOPT,
  errno.EOPNOTSUPP,
  errno.EACCES,
  errno.EINTR,
];
/** Main may take several off the queue meanwhile, each of which brings the next one up. */
const RETRIES_MAX = 4;

/** What sendmmsg says of a message that it cannot cut, or of which one datagram is too long. */
const cutFailures: readonly number[] = [errno.EINVAL, errno.EIO, errno.EMSGSIZE];

/** Moves one batch from the device's TAP queue to the underlay. */
export function transmit(worker: WorkerContext, device: number): void {
  const { arena, core, i32 } = worker;
  const fd = i32[(arena + layout.ARENA_TAP_FDS) / 4 + device]!;
  if (fd < 0) return;
  const count = readBatch(worker, fd);
  if (count === 0) return;
  decide(worker, device, count, (first) => core.txDecide(arena, device, first, count));
  sendBatch(worker, device, count);
}

/** Sends the transmit batch of frames that come back, as `injectTake` or `waitTake` have filled it. */
export function transmitDeferred(worker: WorkerContext, device: number, kind: number, count: number): void {
  const { arena, core } = worker;
  decide(worker, device, count, (first) => core.txDecideDeferred(arena, device, kind, first, count));
  sendBatch(worker, device, count);
}

function sendBatch(worker: WorkerContext, device: number, count: number): void {
  const { arena, core } = worker;
  sendGroups(worker, device, core.txArrange(arena, device, count));
  if (core.txReplicas(arena, count)) {
    for (let i = 0; i < count; i++) replicate(worker, device, i);
  }
  core.countWorker(arena, layout.COUNTER_TX_BATCHES, 1);
}

/** Sends what is laid out, and what is laid out after that. */
function sendGroups(worker: WorkerContext, device: number, first: number): void {
  for (let groups = first; groups > 0; groups = worker.core.txLayOut(worker.arena, device)) {
    for (let group = 0; group < groups; group++) if (!sendGroup(worker, device, group)) break;
  }
}

/** Sends a frame to every destination of its list, if it is to be replicated. */
function replicate(worker: WorkerContext, device: number, i: number): void {
  const { arena, core, u32 } = worker;
  let from = 0;
  for (;;) {
    const count = core.txReplicate(arena, device, i, from);
    if (count === 0) return;
    sendGroups(worker, device, u32[(arena + layout.ARENA_GROUPS) / 4]!);
    from += count;
  }
}

/** Reads frames, packed one after the other with headroom; every vnet_hdr begins a cache line. */
function readBatch(worker: WorkerContext, fd: number): number {
  const { arena, base, kernel, u32 } = worker;
  const end = arena + layout.ARENA_TX_BUFFER + layout.TX_BUFFER_BYTES - layout.FRAME_BYTES_MAX;
  const entries = (arena + layout.ARENA_TX_FRAMES) / 4;
  let count = 0;
  let at = arena + layout.ARENA_TX_BUFFER + layout.TX_HEADROOM_BYTES;
  while (count < worker.task.batch && at <= end) {
    const bytes = kernel.read(fd, base + at, layout.FRAME_BYTES_MAX);
    // Empty, or the link is gone: main sees that through netlink.
    if (bytes <= 0) break;
    u32[entries + count * 2] = at;
    u32[entries + count * 2 + 1] = bytes;
    count++;
    at = Math.ceil((at + bytes) / LINE) * LINE + layout.TX_HEADROOM_BYTES;
  }
  return count;
}

/** A trap costs the frame it happened in; the batch goes on after it. */
function decide(
  worker: WorkerContext,
  device: number,
  count: number,
  decideFrom: (first: number) => void,
): void {
  let first = 0;
  while (first < count) {
    try {
      decideFrom(first);
      return;
    } catch (error) {
      if (!(error instanceof WebAssembly.RuntimeError)) throw error;
      first = worker.core.txTrapped(worker.arena, device);
      const entry = (worker.arena + layout.ARENA_TX_FRAMES) / 4 + (first - 1) * 2;
      worker.report(layout.EVENT_TX_TRAP, device, worker.u32[entry + 1]!);
    }
  }
}

/**
 * Sends messages in order. One that fails costs its own frames alone; a stale error of an earlier one costs a retry. False
 * when a message cannot go as it is: from that one on all are to be laid out anew, each datagram by itself, so that only those at
 * fault are lost.
 */
function sendGroup(worker: WorkerContext, device: number, group: number): boolean {
  const { arena, base, core, i32, kernel } = worker;
  const at = (arena + layout.ARENA_TX_GROUPS + group * layout.TX_GROUP_BYTES) / 4;
  const fd = i32[at]!;
  const first = i32[at + 1]!;
  const count = i32[at + 2]!;
  const messages = base + arena + layout.ARENA_TX_MESSAGES;
  const end = first + count;
  let next = first;
  let retries = 0;
  while (next < end) {
    const sent = kernel.sendmmsg(fd, messages + next * MESSAGE_BYTES, end - next, MSG_DONTWAIT);
    core.countWorker(arena, layout.COUNTER_SEND_CALLS, 1);
    if (sent > 0) {
      if (worker.refusal !== 0) {
        // What it would not cut passes in pieces: it was not the length of the datagrams.
        worker.report(layout.EVENT_TX_UNCUT, device, worker.refusal);
        worker.refusal = 0;
      }
      core.txSent(arena, device, next, sent);
      next += sent;
      retries = 0;
      continue;
    }
    const failure = kernel.errno();
    if (retries < RETRIES_MAX && staleFailures.includes(failure)) {
      retries++;
      core.countDevice(arena, device, layout.COUNTER_TX_RETRIES, 1);
      continue;
    }
    if (cutFailures.includes(failure) && core.txDatagrams(arena, next) > 1) {
      core.txRetreat(arena, next);
      core.countDevice(arena, device, layout.COUNTER_TX_UNCUT, 1);
      // Before Linux 6.13 it says EINVAL too where a datagram is longer than the way takes.
      if (failure !== errno.EMSGSIZE) worker.refusal = failure;
      return false;
    }
    if (failure === errno.EINVAL && core.txUnlabel(arena, next)) {
      core.countDevice(arena, device, layout.COUNTER_TX_UNLABELLED, 1);
      continue;
    }
    worker.refusal = 0;
    core.txFailed(arena, device, next, drops.get(failure) ?? layout.DROP_TX_UNDERLAY_ERROR);
    next++;
    retries = 0;
  }
  return true;
}
