/** The one shared memory: header, tables and an arena for each worker. The map is in `assembly/layout.ts`. */
import * as layout from '../../assembly/layout.js';
import { OverlayError } from '../errors.js';
import { MEMORY_MAX_BYTES } from '../limits.js';
import { MADV_HUGEPAGE } from '../sys/abi.js';
import { addressOf, madviseAt } from '../sys/libc.js';

const PAGE_BYTES = 65536;
/** What the module insists on (asc --initialMemory). */
const BYTES_MIN = 256 * PAGE_BYTES;

/** Typed views over a shared WebAssembly.Memory that never grows; workers make their own over the same bytes. */
export class MemoryViews {
  readonly u8: Uint8Array;
  readonly i32: Int32Array;
  readonly u32: Uint32Array;
  readonly u64: BigUint64Array;
  /** Absolute address of byte 0, the same in every thread. */
  readonly base: number;

  constructor(readonly memory: WebAssembly.Memory) {
    this.u8 = new Uint8Array(memory.buffer);
    this.i32 = new Int32Array(memory.buffer);
    this.u32 = new Uint32Array(memory.buffer);
    this.u64 = new BigUint64Array(memory.buffer);
    this.base = addressOf(this.u8);
  }
}

/** Room for the target tables of a few small devices. */
const POOL_BYTES_MIN = 1024 * 1024;

/** Bytes that `arenas` arenas, the tables and the smallest pool need. */
export function memoryBytesNeeded(arenas: number): number {
  const bytes = layout.ARENAS_OFFSET + arenas * layout.ARENA_BYTES + POOL_BYTES_MIN;
  return Math.max(BYTES_MIN, Math.ceil(bytes / PAGE_BYTES) * PAGE_BYTES);
}

/**
 * Target tables are read at random: with pages of 4 KiB most look-ups in a large one wait for the page table, too. Only
 * advice (man 2 madvise): where the kernel has no huge pages, nothing is lost but that.
 */
function adviseHugePages(views: MemoryViews, from: number): void {
  const first = Math.ceil((views.base + from) / PAGE_BYTES) * PAGE_BYTES;
  madviseAt(first, views.base + views.u8.length - first, MADV_HUGEPAGE);
}

function allocate(pages: number): WebAssembly.Memory {
  try {
    return new WebAssembly.Memory({ initial: pages, maximum: pages, shared: true });
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;
    throw new OverlayError(
      'ENOMEM',
      'memory_refused',
      `the system refuses ${Math.ceil((pages * PAGE_BYTES) / 2 ** 20)} MiB of memory (--memory), for which 10 GiB of address ` +
        'space are reserved: raise RLIMIT_AS (ulimit -v unlimited, LimitAS=infinity of systemd), allow overcommit, or lower --memory',
    );
  }
}

/** What one device may have unread on all miss rings: what main takes in some 30 ms, and others' frames wait behind. */
const MISS_SHARES_BYTES = 1280 * 1024;
/** Room for the largest frame and more, however many workers there are. */
const MISS_SHARE_MIN = 128 * 1024;

/** What one device may have unread on one miss ring. */
export function missShare(arenas: number): number {
  return Math.max(MISS_SHARE_MIN, Math.floor(MISS_SHARES_BYTES / arenas));
}

/** Offset of an arena. */
export function arenaOffset(arena: number): number {
  return layout.ARENAS_OFFSET + arena * layout.ARENA_BYTES;
}

/**
 * Reserves `bytes` (rounded up to pages of 64 KiB; the system commits them as they are touched) and writes the
 * header. Throws ENOMEM naming what is needed when they do not hold the tables and `arenas` arenas.
 */
export function createMemory(bytes: number, arenas: number, seed: bigint): MemoryViews {
  const needed = memoryBytesNeeded(arenas);
  const MiB = 1024 * 1024;
  if (bytes < needed || bytes > MEMORY_MAX_BYTES) {
    throw new OverlayError(
      bytes < needed ? 'ENOMEM' : 'EINVAL',
      'memory_size',
      `memory of ${Math.floor(bytes / MiB)} MiB is not usable: ${arenas} worker arenas and the tables need ` +
        `${Math.ceil(needed / MiB)} MiB, and the most is ${Math.floor(MEMORY_MAX_BYTES / MiB)} MiB; ` +
        'change --memory or --workers',
    );
  }
  const pages = Math.ceil(bytes / PAGE_BYTES);
  const views = new MemoryViews(allocate(pages));
  const header = layout.HEADER_OFFSET;
  views.u32[(header + layout.HEADER_MAGIC) / 4] = layout.LAYOUT_MAGIC;
  views.u32[(header + layout.HEADER_LAYOUT_VERSION) / 4] = layout.LAYOUT_VERSION;
  views.u64[(header + layout.HEADER_BASE) / 8] = BigInt(views.base);
  views.u64[(header + layout.HEADER_SEED) / 8] = seed;
  views.u32[(header + layout.HEADER_ARENAS) / 4] = arenas;
  views.u32[(header + layout.HEADER_POOL) / 4] = arenaOffset(arenas);
  views.u32[(header + layout.HEADER_POOL_BYTES) / 4] = pages * PAGE_BYTES - arenaOffset(arenas);
  views.u32[(header + layout.HEADER_MISS_SHARE) / 4] = missShare(arenas);
  adviseHugePages(views, arenaOffset(arenas));
  return views;
}
