/** The data path as the layers above use it: memory, core, tables, workers, counters, events. */
import * as layout from '../../assembly/layout.js';
import type { Tuning } from '../../workers/context.js';
import { ARENAS_SPARE, TUNING_DEFAULT } from '../limits.js';
import type { FallibleOffload } from '../offload.js';
import { random64 } from '../sys/random.js';
import { type Core, compileCore, instantiateCore } from './core.js';
import { Counters } from './counters.js';
import { abandon, InjectRings, MissRings } from './deferred.js';
import { Destinations } from './destinations.js';
import { Events, type TrapEvent } from './events.js';
import { createMemory, type MemoryViews } from './memory.js';
import { OwnSockets } from './own-sockets.js';
import { Pool } from './pool.js';
import { Retired, type RetiredChange, type Steps } from './retired.js';
import { Tables } from './tables.js';
import { TargetTable } from './target-table.js';
import { type WorkerEvent, Workers, workerCount } from './workers.js';

export interface EngineOptions {
  /** Lanes, 1 to WORKERS_MAX: a data-plane thread each, or two. */
  readonly workers: number;
  /** A thread for each direction of a lane. */
  readonly isSplit?: boolean;
  /** Bytes to reserve for tables and arenas. */
  readonly memoryBytes: number;
  /** CPUs to pin workers to; empty for any. */
  readonly cpus: readonly number[];
  /** How the workers go about their work; the defaults when left out. */
  readonly tuning?: Tuning;
  readonly onWorker: (event: WorkerEvent) => void;
  readonly onTrap: (event: TrapEvent) => void;
  /** The kernel has refused what an offload of a device needs. @param errno of sendmmsg or writev */
  readonly onRefused: (device: number, name: FallibleOffload, errno: number) => void;
  /** Something that left use is retained until workers move on, or was reclaimed. */
  readonly onRetired?: (change: RetiredChange) => void;
  /** There may be misses, or room on an inject ring. Called often; must not throw. */
  readonly onBell: () => void;
  /** Another loop module, for tests that make it fail. */
  readonly entry?: URL;
}

const loopEntry = new URL('../../workers/loop.js', import.meta.url);

export class Engine {
  readonly views: MemoryViews;
  readonly tables: Tables;
  readonly workers: Workers;
  readonly counters: Counters;
  readonly pool: Pool;
  readonly destinations: Destinations;
  readonly ownSockets: OwnSockets;
  readonly misses: MissRings;
  readonly injects: InjectRings;
  readonly core: Core;
  readonly retired: Retired;
  readonly #events: Events;

  private constructor(readonly options: EngineOptions) {
    const { workers: lanes, isSplit = false } = options;
    const arenas = workerCount(lanes, isSplit) + ARENAS_SPARE;
    this.views = createMemory(options.memoryBytes, arenas, random64());
    const module = compileCore();
    const core = instantiateCore(module, this.views.memory);
    this.core = core;
    this.tables = new Tables(this.views, core);
    this.pool = new Pool(this.views);
    this.destinations = new Destinations(this.tables, this.pool);
    this.ownSockets = new OwnSockets(this.views, core, this.pool, (what, steps) => this.retire(what, steps));
    this.workers = new Workers(this.views, core, module, {
      lanes,
      isSplit,
      cpus: options.cpus,
      tuning: options.tuning ?? TUNING_DEFAULT,
      entry: options.entry ?? loopEntry,
      onEvent: (event) => {
        options.onWorker(event);
        if (event.kind === 'replaced') void this.retired.retryNow();
      },
      onAbandoned: (arena, hasLeft) => this.#abandon(arena, hasLeft),
    });
    this.retired = new Retired(
      () => this.quiesce(),
      (change) => options.onRetired?.(change),
    );
    this.counters = new Counters(this.views, this.workers.arenas);
    for (const arena of this.workers.arenas) {
      core.ringCreate(arena + layout.ARENA_EVENTS, layout.EVENT_RING_BYTES);
      core.ringCreate(arena + layout.ARENA_MISSES, layout.MISS_RING_BYTES);
      core.ringCreate(arena + layout.ARENA_INJECTS, layout.INJECT_RING_BYTES);
    }
    this.misses = new MissRings(this.views, core, this.workers);
    this.injects = new InjectRings(this.views, core, this.workers, this.pool);
    this.#events = new Events(this.views, core, this.workers, options);
  }

  /** Throws ENOMEM when the memory is too small, EAGAIN when a worker does not start. */
  static async start(options: EngineOptions): Promise<Engine> {
    const engine = new Engine(options);
    try {
      await engine.workers.start();
    } catch (error) {
      await engine.close();
      throw error;
    }
    return engine;
  }

  /** How many queues a port has, and receive sockets a mux. */
  get lanes(): number {
    return this.options.workers;
  }

  /** Gives each worker its queue of a port. Frames come at once; the device row decides what becomes of them. */
  attachPort(device: number, fds: readonly number[]): void {
    for (const { queue } of this.workers.list) queue.addTap(device, fds[queue.lane]!);
  }

  /** The reverse of `attachPort`; quiesce before closing the descriptors. */
  detachPort(device: number): void {
    for (const { queue } of this.workers.list) queue.removeTap(device);
  }

  /** Gives each worker its receive socket, the first alone where there is one, and all of them the bank of send sockets. */
  attachMux(mux: number, receive: readonly number[], send: readonly number[]): void {
    for (const { queue } of this.workers.list) queue.addMux(mux, receive[queue.lane] ?? -1, send);
  }

  /** The reverse of `attachMux`; quiesce before closing the descriptors. */
  detachMux(mux: number): void {
    for (const { queue } of this.workers.list) queue.removeMux(mux);
  }

  #abandon(arena: number, hasLeft: boolean): void {
    for (const [device, frames] of abandon(this.views, this.core, arena, hasLeft)) {
      this.counters.add(device, layout.DROP_TX_WORKER_LOST, frames);
    }
  }

  /** Resolves when every worker has moved on; rejects with EBUSY. To free something, call `retire` instead. */
  quiesce(): Promise<void> {
    return this.workers.quiesce();
  }

  /** See `Retired.retire`. */
  retire(what: string, steps: Steps, settled?: () => Promise<void>): Promise<boolean> {
    return this.retired.retire(what, steps, settled);
  }

  /** A target table of at most `max` entries for a device. Throws ENOMEM when the pool has no room. */
  createTargetTable(row: number, max: number): TargetTable {
    const { views, core, pool, tables, workers } = this;
    return new TargetTable({ views, core, pool, tables, arenas: workers.arenas.length, row, max });
  }

  async close(): Promise<void> {
    await this.workers.close();
    await this.retired.close();
    this.#events.drain();
    this.#events.close();
  }
}
