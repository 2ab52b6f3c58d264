/**
 * Workers without threads, descriptors or a kernel: the real code of `workers/` over a memory with some arenas, driven
 * step by step. What a worker sends is noted instead.
 */
import * as layout from '../../assembly/layout.js';
import { type Core, compileCore, instantiateCore } from '../../src/datapath/core.js';
import { InjectRings, MissRings } from '../../src/datapath/deferred.js';
import { Destinations } from '../../src/datapath/destinations.js';
import { dropNames } from '../../src/datapath/drop.js';
import { arenaOffset, createMemory, type MemoryViews, memoryBytesNeeded } from '../../src/datapath/memory.js';
import { Pool } from '../../src/datapath/pool.js';
import { Tables } from '../../src/datapath/tables.js';
import { TargetTable } from '../../src/datapath/target-table.js';
import type { Workers } from '../../src/datapath/workers.js';
import { TUNING_DEFAULT } from '../../src/limits.js';
import { structs } from '../../src/sys/abi.js';
import { createEventfd } from '../../src/sys/fd.js';
import { WorkerContext } from '../../workers/context.js';
import { resume } from '../../workers/deferred.js';
import { transmit } from '../../workers/tx.js';
import { RefusingKernel } from './refusing-kernel.js';

const TAP_FD = 7;
const SEND_FD = 9;
const MESSAGE_BYTES = structs.mmsghdr.size;
const NAME = structs.mmsghdr['msg_hdr.msg_name'];
const IOVECS = structs.mmsghdr['msg_hdr.msg_iov'];
const ENCAP_BYTES = 8;
const NUMBER_AT = 14;
const RING_RECORD_BYTES = 8;
const RING_WRAP = 0xffffffff;
const ETHERTYPE_EXPERIMENT = 0x88b5;
const ETHERTYPE_ARP = 0x0806;

/** A frame that left a worker, and the row of the destination it left for. */
export interface SentFrame {
  readonly number: number;
  readonly row: number;
}

/**
 * A frame as a TAP hands it over, vnet_hdr first, that carries a number.
 * @param bytes with the vnet_hdr, at least 28
 */
export function numberedFrame(number: number, mac: number, bytes: number, isArp = false): Uint8Array {
  const frame = new Uint8Array(bytes);
  const view = new DataView(frame.buffer);
  const at = layout.VNET_HDR_BYTES;
  view.setUint16(at, Math.floor(mac / 2 ** 32));
  view.setUint32(at + 2, mac % 2 ** 32);
  view.setUint16(at + 6, 0x0200);
  view.setUint32(at + 8, 1);
  view.setUint16(at + 12, isArp ? ETHERTYPE_ARP : ETHERTYPE_EXPERIMENT);
  view.setUint32(at + NUMBER_AT, number);
  return frame;
}

/** The number of such a frame. */
export function numberOf(frame: Uint8Array): number {
  const at = frame.byteOffset + layout.VNET_HDR_BYTES + NUMBER_AT;
  return new DataView(frame.buffer, at, 4).getUint32(0);
}

/** A TAP that hands over what a test has put into it, and an underlay that notes what it is given. */
class NotingKernel extends RefusingKernel {
  readonly link: Uint8Array[] = [];
  readonly sent: SentFrame[] = [];
  /** Errno with which a message fails, 0 for one that is sent. */
  failureOf: (message: SentFrame) => number = () => 0;
  #failure = 0;

  constructor(readonly views: MemoryViews) {
    super();
  }

  override read(_fd: number, address: number, bytes: number): number {
    const frame = this.link.shift();
    if (!frame) return -1;
    if (frame.length > bytes) throw new Error('a frame longer than its buffer');
    this.views.u8.set(frame, address - this.views.base);
    return frame.length;
  }

  override sendmmsg(_fd: number, messages: number, count: number): number {
    const first = messages - this.views.base;
    for (let message = 0; message < count; message++) {
      const header = first + message * MESSAGE_BYTES;
      const name = this.#address(header + NAME) - layout.DESTINATION_NAME - layout.DESTINATIONS_OFFSET;
      const data = this.#address(this.#address(header + IOVECS));
      const at = data + ENCAP_BYTES + NUMBER_AT;
      const { u8 } = this.views;
      const number = (u8[at]! * 256 + u8[at + 1]!) * 65536 + u8[at + 2]! * 256 + u8[at + 3]!;
      const sent = { number, row: name / layout.DESTINATION_BYTES };
      this.#failure = this.failureOf(sent);
      // Behind others that were sent an error is not told (man 2 sendmmsg).
      if (this.#failure !== 0) return message > 0 ? message : -1;
      this.sent.push(sent);
    }
    return count;
  }

  override errno(): number {
    return this.#failure;
  }

  #address(at: number): number {
    const { u32, base } = this.views;
    return u32[at / 4 + 1]! * 2 ** 32 + u32[at / 4]! - base;
  }
}

/** One worker, with an arena of its own. */
export class RigWorker {
  readonly kernel: NotingKernel;
  readonly context: WorkerContext;
  readonly wake = createEventfd();

  constructor(
    readonly index: number,
    readonly views: MemoryViews,
    module: WebAssembly.Module,
    readonly arena: number,
  ) {
    this.kernel = new NotingKernel(views);
    const task = {
      memory: views.memory,
      module,
      arena,
      epoll: -1,
      wake: this.wake,
      cpu: -1,
      ...TUNING_DEFAULT,
    };
    this.context = new WorkerContext(task, this.kernel);
  }

  /** Empties the arena: rings, wait queue, counters. */
  reset(core: Core): void {
    const { u8, u32 } = this.views;
    core.ringCreate(this.arena + layout.ARENA_MISSES, layout.MISS_RING_BYTES);
    core.ringCreate(this.arena + layout.ARENA_INJECTS, layout.INJECT_RING_BYTES);
    u32[(this.arena + layout.ARENA_WAIT_USED) / 4] = 0;
    core.sharesForget(this.arena);
    const counters = this.arena + layout.ARENA_COUNTERS;
    u8.fill(0, counters, counters + layout.COUNTER_ROW_BYTES);
    this.kernel.link.length = 0;
    this.kernel.sent.length = 0;
  }

  /** Frames that guests send on a device's link, all of them. */
  transmit(device: number, frames: readonly Uint8Array[]): void {
    this.kernel.link.push(...frames);
    while (this.kernel.link.length > 0) transmit(this.context, device);
  }

  /** What the loop does before it looks at its descriptors. */
  resume(): void {
    resume(this.context);
  }

  /** What has been sent since the last call. */
  takeSent(): SentFrame[] {
    return this.kernel.sent.splice(0);
  }

  /** Numbers of the frames on the miss ring. */
  missNumbers(): number[] {
    return this.#ringNumbers(this.arena + layout.ARENA_MISSES);
  }

  injectNumbers(): number[] {
    return this.#ringNumbers(this.arena + layout.ARENA_INJECTS);
  }

  /** Numbers of the frames in the wait queue. */
  waitNumbers(): number[] {
    const { u32 } = this.views;
    const used = u32[(this.arena + layout.ARENA_WAIT_USED) / 4]!;
    const numbers: number[] = [];
    for (let at = 0; at < used; ) {
      const record = this.arena + layout.ARENA_WAIT + at;
      numbers.push(this.#numberAt(record + RING_RECORD_BYTES));
      at += RING_RECORD_BYTES + Math.ceil(u32[record / 4]! / 8) * 8;
    }
    return numbers;
  }

  #ringNumbers(ring: number): number[] {
    const { u32 } = this.views;
    const capacity = u32[(ring + layout.RING_CAPACITY) / 4]!;
    const tail = u32[(ring + layout.RING_TAIL) / 4]!;
    const numbers: number[] = [];
    for (let head = u32[(ring + layout.RING_HEAD) / 4]!; head !== tail; ) {
      const place = head % capacity;
      const record = ring + layout.RING_DATA + place;
      const bytes = u32[record / 4]!;
      if (bytes === RING_WRAP) {
        head = (head + capacity - place) >>> 0;
        continue;
      }
      numbers.push(this.#numberAt(record + RING_RECORD_BYTES));
      head = (head + RING_RECORD_BYTES + Math.ceil(bytes / 8) * 8) >>> 0;
    }
    return numbers;
  }

  /** Number of the frame in a record (layout: FRAME_RECORD_). */
  #numberAt(record: number): number {
    const { u8 } = this.views;
    const at = record + layout.FRAME_RECORD_BYTES + layout.VNET_HDR_BYTES + NUMBER_AT;
    return (u8[at]! * 256 + u8[at + 1]!) * 65536 + u8[at + 2]! * 256 + u8[at + 3]!;
  }
}

export interface WorkerRigOptions {
  readonly workers?: number;
  /** Bytes for target tables and their like, in whole lines. */
  readonly poolBytes?: number;
}

/** A memory, workers, and one active DYNAMIC device without a table; `reset` makes all of it new. */
export class WorkerRig {
  readonly views: MemoryViews;
  readonly module = compileCore();
  readonly core: Core;
  readonly workers: readonly RigWorker[];
  readonly arenas: readonly number[];
  /** Row 0: its counters are the first. */
  readonly device = 0;
  readonly mux = 0;
  tables!: Tables;
  pool!: Pool;
  destinations!: Destinations;
  misses!: MissRings;
  injects!: InjectRings;

  /** Where main puts inject records together: behind the pool. */
  readonly #record: number;

  constructor({ workers = 2, poolBytes = 2 ** 17 }: WorkerRigOptions = {}) {
    const bytes = memoryBytesNeeded(workers) + poolBytes;
    this.views = createMemory(bytes, workers, 0x123456789abcdefn);
    this.views.u32[(layout.HEADER_OFFSET + layout.HEADER_POOL_BYTES) / 4] = poolBytes;
    this.#record = arenaOffset(workers) + poolBytes;
    this.core = instantiateCore(this.module, this.views.memory);
    this.arenas = Array.from({ length: workers }, (_, index) => arenaOffset(index));
    this.workers = this.arenas.map((arena, index) => new RigWorker(index, this.views, this.module, arena));
    this.reset();
  }

  reset(): void {
    const { views, core, workers } = this;
    for (const worker of workers) worker.reset(core);
    this.tables = new Tables(views, core);
    this.pool = new Pool(views, false);
    this.destinations = new Destinations(this.tables, this.pool);
    // All that the rings need of the crew.
    const list = workers.map((worker) => ({ queue: worker, state: 'running' }));
    const crew = { list } as unknown as Workers;
    this.misses = new MissRings(views, core, crew);
    const place = { take: () => this.#record } as unknown as Pool;
    this.injects = new InjectRings(views, core, crew, place);
    this.tables.devices.take();
    this.tables.muxes.take();
    this.tables.writeMux(this.mux, layout.ENCAP_VXLAN, 1, true);
    this.tables.writeDevice(this.device, {
      mux: this.mux,
      vnetid: 42n,
      encap: layout.ENCAP_VXLAN,
      flags: layout.DEVICE_FLAG_PROXY,
      mtu: 65_000,
      mode: layout.TARGET_MODE_DYNAMIC,
      destination: layout.NONE,
      targets: 0,
    });
    this.tables.setDeviceState(this.device, layout.DEVICE_STATE_ACTIVE);
    for (const arena of this.arenas) {
      views.i32[(arena + layout.ARENA_TAP_FDS) / 4 + this.device] = TAP_FD;
      views.i32[(arena + layout.ARENA_SEND_FDS) / 4 + this.mux * layout.BANK_MAX] = SEND_FD;
    }
  }

  /** A table for the device. */
  createTable(max: number): TargetTable {
    const { views, core, pool, tables, arenas, device } = this;
    return new TargetTable({ views, core, pool, tables, arenas: arenas.length, row: device, max });
  }

  /** Where workers find the device's table. */
  get publishedTable(): number {
    const at = layout.DEVICES_OFFSET + this.device * layout.DEVICE_BYTES + layout.DEVICE_TARGETS;
    return Atomics.load(this.views.u32, at / 4);
  }

  /** What the workers have counted as dropped, by name; those that are not zero. */
  workerDrops(): Map<string, number> {
    const drops = new Map<string, number>();
    const { u32 } = this.views;
    const rows = this.arenas.map((arena) => (arena + layout.ARENA_COUNTERS) / 4);
    for (let reason = 0; reason < dropNames.length; reason++) {
      let count = 0;
      for (const row of rows) count += u32[row + reason * 2]!;
      if (count > 0) drops.set(dropNames[reason]!, count);
    }
    return drops;
  }
}
