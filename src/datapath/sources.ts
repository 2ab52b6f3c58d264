/** Sets of senders in the pool, read by workers (`assembly/source.ts`). A set never changes: another takes its place. */
import * as layout from '../../assembly/layout.js';
import type { Core } from './core.js';
import type { MemoryViews } from './memory.js';
import type { Pool } from './pool.js';

/** Fills a set. Throws ENOMEM when the pool has no room. @param addresses 16 bytes each, IPv4 as IPv4-mapped */
export function createSources(
  views: MemoryViews,
  core: Core,
  pool: Pool,
  addresses: readonly Uint8Array[],
): number {
  const slots = 2 ** Math.ceil(Math.log2(Math.max(4, addresses.length * 2)));
  const set = pool.take(layout.SOURCES_BYTES + slots * 16, `a set of ${addresses.length} senders`);
  views.u32[(set + layout.SOURCES_SLOTS) / 4] = slots;
  for (const address of addresses) {
    const view = new DataView(address.buffer, address.byteOffset, 16);
    const high = view.getBigUint64(0, true);
    const low = view.getBigUint64(8, true);
    let slot = core.sourceSlot(high, low, slots) >>> 0;
    // At most half are taken, so there is an end.
    for (;;) {
      const at = (set + layout.SOURCES_BYTES + slot * 16) / 8;
      if (views.u64[at] === high && views.u64[at + 1] === low) break;
      if (views.u64[at] === 0n && views.u64[at + 1] === 0n) {
        views.u64[at] = high;
        views.u64[at + 1] = low;
        break;
      }
      slot = (slot + 1) & (slots - 1);
    }
  }
  return set;
}
