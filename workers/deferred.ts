/** Frames that come back: from main over the inject ring, and out of the wait queue. Only calls the kernel and the core. */
import * as layout from '../assembly/layout.js';
import type { WorkerContext } from './context.js';
import { transmitDeferred } from './tx.js';

/** Batches of one round, so that neither ring nor queue keeps a worker from its descriptors. */
const BATCHES_MAX = 64;

/** Sends what main has put on the inject ring, then what waits and need not any more. */
export function resume(worker: WorkerContext): void {
  const { arena, core, u32 } = worker;
  if (core.ringPeek(arena + layout.ARENA_INJECTS) !== 0) {
    drain(worker, () => core.injectTake(arena));
    worker.ring();
  }
  if (u32[(arena + layout.ARENA_WAIT_USED) / 4] !== 0) drain(worker, () => core.waitTake(arena));
}

/** True when frames wait: look again soon, whatever else happens. */
export function isWaiting(worker: WorkerContext): boolean {
  return worker.u32[(worker.arena + layout.ARENA_WAIT_USED) / 4] !== 0;
}

function drain(worker: WorkerContext, take: () => number): void {
  const { arena, u32 } = worker;
  for (let batch = 0; batch < BATCHES_MAX; batch++) {
    const count = take();
    if (count === 0) return;
    const device = u32[(arena + layout.ARENA_INJECT_DEVICE) / 4]!;
    const kind = u32[(arena + layout.ARENA_INJECT_KIND) / 4]!;
    if (kind === layout.INJECT_RX) deliver(worker, device, count);
    else transmitDeferred(worker, device, kind, count);
  }
}

/** Writes frames that varpd made to the device's link. */
function deliver(worker: WorkerContext, device: number, count: number): void {
  const { arena, base, core, i32, kernel, u32 } = worker;
  const fd = i32[(arena + layout.ARENA_TAP_FDS) / 4 + device]!;
  for (let i = 0; i < count; i++) {
    const entry = (arena + layout.ARENA_TX_FRAMES + i * layout.TX_FRAME_BYTES) / 4;
    if (fd >= 0 && kernel.write(fd, base + u32[entry]!, u32[entry + 1]!) >= 0) {
      core.countDevice(arena, device, layout.COUNTER_RX_INJECTED, 1);
    } else {
      core.dropDevice(arena, device, layout.DROP_RX_INJECT_FAILED, 1);
    }
  }
}
