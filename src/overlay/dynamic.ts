/** What a DYNAMIC device has besides the rest: its target cache, glued to the data path, to varpd and to fma. */
import * as layout from '../../assembly/layout.js';
import { type DropName, dropReason } from '../datapath/drop.js';
import type { Engine } from '../datapath/engine.js';
import type { TargetTable } from '../datapath/target-table.js';
import type { Device } from '../device.js';
import { inTurns, monotonicMs, monotonicSeconds } from '../sys/clock.js';
import type { Budget } from '../target/budget.js';
import { TargetCache } from '../target/cache.js';
import { destinationsOf, formatRoute, type Route } from '../target/destination.js';
import type { TargetRequest } from '../target/request.js';
import type { CacheServices, HeldFrame } from '../target/services.js';
import { destinationName, ttlOf, underlayDomain } from './attachment.js';
import type { Vteps } from './vteps.js';

export interface DynamicOptions {
  readonly engine: Engine;
  readonly device: Device;
  readonly vteps: Vteps;
  /** The process's account of held bytes. */
  readonly held: Budget;
  readonly targetsMax: number;
  readonly negativeMs: number;
  /** Its lookup is a program behind the external handle. */
  readonly isExternal: boolean;
  ask(request: TargetRequest): void;
  onLate(isLate: boolean): void;
  /** See `CacheServices.onWaiting`. */
  onWaiting(dynamic: Dynamic): void;
  /** A frame from an address has come from a VTEP, and the table does not have it there (DEVICE_FLAG_LEARN). */
  onSource(mac: number, ip: string): void;
  /** See `CacheServices.settle`. */
  settle(dynamic: Dynamic, mac: number, generation: number): void;
}

/**
 * Requests of one device that are open at a time: as many as a plugin across a network may well have. A program behind the external
 * handle takes them one by one, so that fewer are as much as it answers before they are given up.
 */
const REQUESTS_MAX = 4096;
const EXTERNAL_REQUESTS_MAX = 512;

const flags = {
  valid: layout.TARGET_VALID,
  drop: layout.TARGET_DROP,
  pending: layout.TARGET_PENDING,
  draining: layout.TARGET_DRAINING,
  full: layout.TARGET_FULL,
};

export class Dynamic {
  readonly cache: TargetCache;
  readonly #table: TargetTable;
  /** Of each destination row that an entry has: what it stands for. */
  readonly #routes = new Map<number, { readonly route: Route; users: number }>();

  /** Throws ENOMEM when the pool has no room for a table. */
  constructor(readonly options: DynamicOptions) {
    const { engine, device, held, targetsMax, negativeMs, isExternal } = options;
    const requestsMax = isExternal ? EXTERNAL_REQUESTS_MAX : REQUESTS_MAX;
    this.#table = engine.createTargetTable(device.row, targetsMax);
    const store = Object.assign(this.#table, { flags });
    const services = this.#services();
    this.cache = new TargetCache({ store, services, held, negativeMs, requestsMax });
  }

  /** In front of frames; the core patches the device's own vnetid into the shared template. */
  #header(options?: string): Uint8Array {
    const { encap, properties } = this.options.device;
    return encap.operations.encap(0n, properties, options);
  }

  /** Offset of the table, for the device's row. */
  get offset(): number {
    return this.#table.offset;
  }

  /** See `TargetTable.lastSeen`. */
  lastSeen(mac: number): number {
    return this.#table.lastSeen(mac);
  }

  get hasLeft(): boolean {
    return this.#table.hasLeft;
  }

  /** Addresses of the VTEPs that its targets are behind. */
  get vteps(): string[] {
    const ips = [...this.#routes.values()].flatMap(({ route }) => destinationsOf(route).map(({ ip }) => ip));
    return [...new Set(ips.filter((ip) => ip !== undefined))];
  }

  /** Takes out what is known from before a restart only, without keeping main busy. */
  async forgetSaved(): Promise<void> {
    await inTurns(this.cache.saved(), (mac) => this.cache.forgetSaved(mac));
  }

  /** Properties of the encapsulation have changed: every target follows, without keeping main busy. */
  async rehold(): Promise<void> {
    await inTurns(this.cache.macs(), (mac) => this.cache.rehold(mac));
  }

  /** Throws EBUSY when there are more already. */
  limitTargets(max: number): void {
    this.#table.limit(max);
  }

  /** See `TargetTable.leaving`. */
  leaving(): () => void {
    return this.#table.leaving();
  }

  /** Ends every request and drops every frame. `free` follows after a quiesce. */
  close(): void {
    this.cache.close();
  }

  free(): void {
    this.#table.close();
  }

  #services(): CacheServices {
    const { options } = this;
    const { engine, device } = options;
    return {
      holdRoute: (route) => this.#holdRoute(route),
      releaseRoute: (row) => this.#releaseRoute(row),
      releaseRoutes: () => {
        for (const [row, { users }] of [...this.#routes]) {
          for (let user = 0; user < users; user++) this.#releaseRoute(row);
        }
      },
      routeOf: (row) => this.#routes.get(row)!.route,
      ask: (request) => options.ask(request),
      settle: (mac, generation) => options.settle(this, mac, generation),
      send: (frames: readonly HeldFrame[], isRouted, generation) => {
        const kind = isRouted ? layout.INJECT_TX_ROUTED : layout.INJECT_TX;
        for (const { frame, worker } of frames) {
          if (engine.injects.push(worker, device.row, kind, frame, generation)) continue;
          engine.counters.add(device.row, dropReason('tx_worker_lost'), 1);
        }
        engine.injects.wake();
      },
      drop: (reason, frames) => engine.counters.add(device.row, dropReason(reason as DropName), frames),
      proxied: (frames) => engine.counters.add(device.row, layout.COUNTER_TX_PROXIED, frames),
      onLate: (isLate) => options.onLate(isLate),
      onWaiting: () => options.onWaiting(this),
      nowMs: monotonicMs,
      nowSeconds: monotonicSeconds,
    };
  }

  #holdRoute(route: Route): number {
    const { device, engine, vteps } = this.options;
    const { destinations } = engine;
    const { underlayNetns: netns } = device;
    const ttl = ttlOf(device);
    const isList = 'replicate' in route || 'spread' in route;
    const listed = destinationsOf(route);
    for (const { ip } of listed) if (ip !== undefined) vteps.refuse(ip);
    const domain = underlayDomain(device);
    const names = (isList ? vteps.others(listed) : listed).map((each) => destinationName(domain, each));
    const row =
      'replicate' in route
        ? destinations.holdList(
            netns,
            layout.DESTINATION_KIND_REPLICATE,
            names,
            this.#header(),
            ttl,
            formatRoute(route),
          )
        : 'spread' in route
          ? destinations.holdList(
              netns,
              layout.DESTINATION_KIND_SPREAD,
              names,
              this.#header(),
              ttl,
              formatRoute(route),
            )
          : destinations.hold(netns, names[0]!, this.#header(route.options), ttl);
    const known = this.#routes.get(row);
    if (known) known.users++;
    else this.#routes.set(row, { route, users: 1 });
    return row;
  }

  #releaseRoute(row: number): void {
    const known = this.#routes.get(row)!;
    known.users--;
    if (known.users === 0) this.#routes.delete(row);
    this.options.engine.destinations.release(row);
  }
}
