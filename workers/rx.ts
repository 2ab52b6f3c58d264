/** In: underlay -> core -> TAP queues. Mirror of `tx.ts`. Only calls the kernel; the core decides. */
import * as layout from '../assembly/layout.js';
import { MSG_DONTWAIT } from '../src/sys/abi.js';
import * as errno from '../src/sys/errno.js';
import type { WorkerContext } from './context.js';

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
  const count = kernel.recvmmsg(fd, messages, worker.task.batch, MSG_DONTWAIT, 0);
  if (count <= 0) return;
  core.rxBegin(arena, mux, count);
  for (;;) {
    const datagrams = core.rxUnfold(arena, mux);
    if (datagrams === 0) break;
    writeAll(worker, decide(worker, mux, datagrams));
  }
  core.countWorker(arena, layout.COUNTER_RX_BATCHES, 1);
}

function writeAll(worker: WorkerContext, writes: number): void {
  const { arena, base, core, i32, kernel } = worker;
  core.rxGather(arena);
  for (let index = 0; index < writes; index++) {
    const entry = (arena + layout.ARENA_RX_WRITES + index * layout.RX_WRITE_BYTES) / 4;
    const fd = i32[entry]!;
    const at = base + i32[entry + 1]!;
    const iovecs = i32[entry + 4]!;
    const written = iovecs === 0 ? kernel.write(fd, at, i32[entry + 2]!) : kernel.writev(fd, at, iovecs);
    if (written >= 0) continue;
    const failure = kernel.errno();
    core.rxFailed(arena, index, drops.get(failure) ?? layout.DROP_RX_LINK_ERROR);
    // A super-frame that the kernel does not take: the next one would not fare better.
    if (failure === errno.EINVAL && i32[entry + 5]! > 1)
      worker.report(layout.EVENT_RX_UNTAKEN, i32[entry + 3]!, failure);
  }
  core.rxDelivered(arena);
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
      const entry = arena + layout.ARENA_RX_DATAGRAMS + (first - 1) * layout.RX_DATAGRAM_BYTES;
      worker.report(layout.EVENT_RX_TRAP, mux, u32[entry / 4 + 1]!);
    }
  }
  return u32[(arena + layout.ARENA_WRITES) / 4]!;
}
