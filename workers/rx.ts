/** In: underlay -> core -> TAP queues. Mirror of `tx.ts`. Only calls the kernel; the core decides. */
import * as layout from '../assembly/layout.js';
import { MSG_DONTWAIT } from '../src/sys/abi.js';
import * as errno from '../src/sys/errno.js';
import type { WorkerContext } from './context.js';

/** Offset of msg_len in struct mmsghdr. */
const MESSAGE_LENGTH = 56;
const MESSAGE_BYTES = 64;

/** Name of the drop for an errno of a write to a TAP. */
const drops = new Map<number, number>([
  [errno.EIO, layout.DROP_RX_LINK_DOWN],
  [errno.EAGAIN, layout.DROP_RX_LINK_FULL],
  [errno.ENOBUFS, layout.DROP_RX_LINK_FULL],
  [errno.ENOMEM, layout.DROP_RX_LINK_FULL],
]);

/** Moves one batch from the mux's receive socket to TAP queues. */
export function receive(worker: WorkerContext, mux: number): void {
  const { arena, base, core, i32, kernel } = worker;
  const fd = i32[(arena + layout.ARENA_RECEIVE_FDS) / 4 + mux]!;
  if (fd < 0) return;
  const messages = base + arena + layout.ARENA_RX_MESSAGES;
  const count = kernel.recvmmsg(fd, messages, layout.BATCH_MAX, MSG_DONTWAIT, 0);
  if (count <= 0) return;
  const writes = decide(worker, mux, count);
  for (let index = 0; index < writes; index++) {
    const entry = (arena + layout.ARENA_RX_WRITES + index * layout.RX_WRITE_BYTES) / 4;
    const written = kernel.write(i32[entry]!, base + i32[entry + 1]!, i32[entry + 2]!);
    if (written < 0) core.rxFailed(arena, index, drops.get(kernel.errno()) ?? layout.DROP_RX_LINK_ERROR);
  }
  core.rxDelivered(arena);
  core.countWorker(arena, layout.COUNTER_RX_BATCHES, 1);
}

/** A trap costs the datagram it happened in; the batch goes on after it. Returns how many writes there are. */
function decide(worker: WorkerContext, mux: number, count: number): number {
  const { arena, core, u32 } = worker;
  let first = 0;
  while (first < count) {
    try {
      return core.rxDecide(arena, mux, first, count);
    } catch (error) {
      if (!(error instanceof WebAssembly.RuntimeError)) throw error;
      first = core.rxTrapped(arena, mux);
      const message = arena + layout.ARENA_RX_MESSAGES + (first - 1) * MESSAGE_BYTES;
      worker.report(layout.EVENT_RX_TRAP, mux, u32[(message + MESSAGE_LENGTH) / 4]!);
    }
  }
  return u32[(arena + layout.ARENA_WRITES) / 4]!;
}
