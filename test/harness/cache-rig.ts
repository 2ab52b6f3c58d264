/**
 * A target cache with all that it works with, and nothing that runs by itself: table, destinations, rings and workers
 * are the real ones, the clock stands still, varpd is a list of requests, and a settle round (`src/overlay/targets.ts`)
 * goes on one step at a time.
 */
import * as layout from '../../assembly/layout.js';
import type { TargetTable } from '../../src/datapath/target-table.js';
import { assert, OverlayError } from '../../src/errors.js';
import { AF_INET6 } from '../../src/sys/abi.js';
import { sockaddr } from '../../src/sys/sockaddr.js';
import { Budget } from '../../src/target/budget.js';
import { TargetCache } from '../../src/target/cache.js';
import { type Destination, destinationsOf, type Route } from '../../src/target/destination.js';
import { macAt } from '../../src/target/mac.js';
import type { TargetRequest } from '../../src/target/request.js';
import type { CacheServices, HeldFrame } from '../../src/target/services.js';
import type { TargetStore } from '../../src/target/store.js';
import { numberOf, type WorkerRig } from './worker-rig.js';

const flags = {
  valid: layout.TARGET_VALID,
  drop: layout.TARGET_DROP,
  pending: layout.TARGET_PENDING,
  draining: layout.TARGET_DRAINING,
  full: layout.TARGET_FULL,
};
const HEADER = Uint8Array.of(8, 0, 0, 0, 0, 0, 0, 0);
/** Long enough for whatever a ring holds. */
const DRAIN_MS = 60_000;

/** Where a test may send to: two VTEPs alone, one of the two by flow, both at once. */
const [first, second] = [
  { ip: 'fd00::1', port: 4789 },
  { ip: 'fd00::2', port: 4789 },
];
const nameOf = new Map([first!, second!].map(({ ip, port }) => [ip, sockaddr(AF_INET6, ip, port)]));
export const routes: readonly Route[] = [
  first!,
  second!,
  { spread: [first!, second!] },
  { replicate: [first!, second!] },
];

/** How varpd answers. proxied: a proxy took the frame. */
export type AnswerKind = 'route' | 'drop' | 'unknown' | 'proxied';

/** What the cache has done besides answering: filled by the services, emptied by the reader. */
export interface CacheEffects {
  readonly drops: Map<string, number>;
  proxied: number;
  /** Each call of `onLate`. */
  readonly late: boolean[];
  /** Of each insertion for which the table was not full: whether the pool refused it. */
  readonly insertions: boolean[];
  /** Of each time that the table was to be emptied at once: whether the pool had no room for that. */
  readonly clearings: boolean[];
  /** Of each route that was asked for: whether there was no room for it. */
  readonly holdings: boolean[];
}

export interface CacheRigOptions {
  readonly targetsMax: number;
  readonly negativeMs: number;
  readonly requestsMax: number;
  /** Bytes of the process's account. */
  readonly heldMax: number;
}

interface Settling {
  readonly mac: number;
  readonly generation: number;
}

/** Targets that settle together, and how far they are. */
interface Round {
  settling: readonly Settling[];
  step: 'quiescing' | 'returning' | 'sent';
  readonly giveBack: () => void;
  ends: ReadonlyMap<number, number>;
}

export class CacheRig {
  readonly table: TargetTable;
  readonly cache: TargetCache;
  readonly held: Budget;
  readonly effects: CacheEffects = {
    drops: new Map(),
    proxied: 0,
    late: [],
    insertions: [],
    clearings: [],
    holdings: [],
  };
  /** Every request there was, in order. */
  readonly requests: TargetRequest[] = [];
  /** How varpd answers at once; undefined while it does not. */
  policy: { readonly how: AnswerKind; readonly route: number } | undefined;
  /** Whom a request is handed to, if not the policy. */
  asked: ((request: TargetRequest) => void) | undefined;
  nowMs = 1000;
  readonly #routes = new Map<number, { readonly route: Route; users: number }>();
  #settling: Settling[] = [];
  #round: Round | undefined;
  #reclaim: (() => void) | undefined;
  #squeezed: number[] = [];

  constructor(
    readonly rig: WorkerRig,
    readonly options: CacheRigOptions,
  ) {
    rig.reset();
    this.held = new Budget(options.heldMax);
    this.table = rig.createTable(options.targetsMax);
    const { negativeMs, requestsMax } = options;
    this.cache = new TargetCache({
      store: this.#store(),
      services: this.#services(),
      held: this.held,
      negativeMs,
      requestsMax,
    });
  }

  /** Index in `routes` of the route behind a destination row. */
  routeIndex(row: number): number {
    return routes.indexOf(this.#routes.get(row)?.route as Destination);
  }

  /** How many entries hold a route. */
  get routesHeld(): number {
    return [...this.#routes.values()].reduce((sum, { users }) => sum + users, 0);
  }

  /** IP address that a destination row stands for, whoever holds it. */
  ipOf(row: number): string | undefined {
    const at = layout.DESTINATIONS_OFFSET + row * layout.DESTINATION_BYTES + layout.DESTINATION_NAME;
    const name = this.rig.views.u8.subarray(at, at + layout.DESTINATION_NAME_BYTES_MAX);
    for (const [ip, bytes] of nameOf) if (bytes.every((byte, index) => name[index] === byte)) return ip;
    return undefined;
  }

  /** Answers a request as varpd would. False when it had ended, 'refused' when there was no room for its route. */
  answer(request: TargetRequest, how: AnswerKind, route: number): boolean | 'refused' {
    if (how === 'drop') return request.drop();
    if (how === 'proxied') return request.drop(true);
    if (how === 'unknown') return request.unknown();
    try {
      return request.respond(routes[route]!);
    } catch (error) {
      if (!(error instanceof OverlayError)) throw error;
      return 'refused';
    }
  }

  /** Main takes everything off the miss rings. */
  drainMisses(): void {
    while (this.rig.misses.drain(DRAIN_MS, (miss) => this.#onMiss(miss)));
  }

  get hasRound(): boolean {
    return this.#round !== undefined || this.#settling.length > 0;
  }

  /** The next step of the settle round, or the first of a new one. */
  stepRound(): void {
    const { injects } = this.rig;
    const round = this.#round;
    if (!round) {
      if (this.#settling.length === 0) return;
      const settling = this.#settling;
      this.#settling = [];
      this.#round = { settling, step: 'quiescing', giveBack: this.#leaving(), ends: new Map() };
      return;
    }
    if (round.step === 'quiescing') {
      // No worker is in the middle of anything here, so each has moved on.
      round.giveBack();
      this.drainMisses();
      round.settling = round.settling.filter(({ mac, generation }) => this.cache.drain(mac, generation));
      injects.wake();
      round.step = 'returning';
      return;
    }
    if (round.step === 'returning') {
      assert(!injects.isWaiting, 'a test holds more than an inject ring');
      round.ends = injects.ends();
      round.step = 'sent';
      return;
    }
    if (!injects.hasPassed(round.ends)) return;
    this.#round = undefined;
    for (const { mac, generation } of round.settling) this.cache.drained(mac, generation);
  }

  /** What has left is given back: begins when nothing is under way, else ends after a quiesce. */
  stepReclaim(): void {
    if (this.#reclaim) {
      const giveBack = this.#reclaim;
      this.#reclaim = undefined;
      giveBack();
    } else {
      this.#reclaim = this.#leaving();
    }
  }

  /** Takes all that is free in the pool, or gives it back. */
  squeeze(isTight: boolean): void {
    const { pool } = this.rig;
    for (const offset of this.#squeezed) pool.free(offset);
    this.#squeezed = [];
    if (!isTight) return;
    for (let bytes = 2 ** 26; bytes >= layout.LINE_BYTES; bytes /= 2) {
      for (;;) {
        try {
          this.#squeezed.push(pool.take(bytes, 'a test'));
        } catch (error) {
          if (!(error instanceof OverlayError)) throw error;
          break;
        }
      }
    }
  }

  get isTight(): boolean {
    return this.#squeezed.length > 0;
  }

  /** Everything under way comes to its end, then whatever has left is given back. */
  finish(): void {
    this.squeeze(false);
    this.drainMisses();
    for (let turn = 0; turn < 3; turn++) {
      if (this.#reclaim) this.stepReclaim();
      for (const worker of this.rig.workers) worker.resume();
      this.drainMisses();
      while (this.hasRound) {
        this.stepRound();
        for (const worker of this.rig.workers) worker.resume();
      }
      // The members of a list leave when the list is given back.
      this.#leaving()();
    }
  }

  #leaving(): () => void {
    const rows = this.rig.destinations.leaving();
    const entries = this.table.leaving();
    return () => {
      rows();
      entries();
    };
  }

  /** As `Targets` does it. */
  #onMiss({ kind, frame, worker }: { kind: number; frame: Uint8Array; worker: number }): void {
    const mac = macAt(frame, layout.VNET_HDR_BYTES);
    if (kind === layout.MISS_PROXY) this.cache.missProxy(mac, { frame, worker });
    else this.cache.miss(mac, { frame, worker });
  }

  /** The table, with a note of what the pool refused. */
  #store(): TargetStore {
    const { table, effects, options } = this;
    return {
      flags,
      get size() {
        return table.size;
      },
      find: (mac) => table.find(mac),
      update: (mac, bits, destination, generation) => table.update(mac, bits, destination, generation),
      remove: (mac) => table.remove(mac),
      macs: () => table.macs(),
      counts: (mac) => table.counts(mac),
      clear: () => {
        const refused = refusalOf(() => table.clear());
        effects.clearings.push(refused !== undefined);
        if (refused) throw refused;
      },
      insert: (mac, bits, destination, generation) => {
        const isFull = table.size >= options.targetsMax;
        const refused = refusalOf(() => table.insert(mac, bits, destination, generation));
        if (!isFull) effects.insertions.push(refused !== undefined);
        if (refused) throw refused;
      },
    };
  }

  #services(): CacheServices {
    const { rig, effects } = this;
    return {
      holdRoute: (route) => this.#holdRoute(route),
      releaseRoute: (row) => this.#releaseRoute(row),
      releaseRoutes: () => {
        for (const [row, { users }] of [...this.#routes]) {
          for (let user = 0; user < users; user++) this.#releaseRoute(row);
        }
      },
      routeOf: (row) => this.#routes.get(row)!.route,
      ask: (request) => this.#ask(request),
      settle: (mac, generation) => this.#settling.push({ mac, generation }),
      send: (frames: readonly HeldFrame[], isRouted, generation) => {
        const kind = isRouted ? layout.INJECT_TX_ROUTED : layout.INJECT_TX;
        for (const { frame, worker } of frames) rig.injects.push(worker, rig.device, kind, frame, generation);
        rig.injects.wake();
      },
      drop: (reason, frames) => effects.drops.set(reason, (effects.drops.get(reason) ?? 0) + frames),
      proxied: (frames) => {
        effects.proxied += frames;
      },
      onLate: (isLate) => effects.late.push(isLate),
      onWaiting: () => {},
      nowMs: () => this.nowMs,
      nowSeconds: () => Math.floor(this.nowMs / 1000),
    };
  }

  #ask(request: TargetRequest): void {
    this.requests.push(request);
    if (this.asked) {
      this.asked(request);
      return;
    }
    if (!this.policy) return;
    request.take();
    // What has no room for its route is dropped, as the dispatcher does.
    if (this.answer(request, this.policy.how, this.policy.route) === 'refused') request.drop();
  }

  #holdRoute(route: Route): number {
    const { destinations } = this.rig;
    const names = destinationsOf(route).map(({ ip }) => nameOf.get(ip!)!);
    let row: number;
    try {
      row =
        'replicate' in route
          ? destinations.holdList('', layout.DESTINATION_KIND_REPLICATE, names, HEADER)
          : 'spread' in route
            ? destinations.holdList('', layout.DESTINATION_KIND_SPREAD, names, HEADER)
            : destinations.hold('', names[0]!, HEADER);
    } catch (error) {
      this.effects.holdings.push(true);
      throw error;
    }
    this.effects.holdings.push(false);
    const known = this.#routes.get(row);
    if (known) known.users++;
    else this.#routes.set(row, { route, users: 1 });
    return row;
  }

  #releaseRoute(row: number): void {
    const known = this.#routes.get(row)!;
    known.users--;
    if (known.users === 0) this.#routes.delete(row);
    this.rig.destinations.release(row);
  }
}

/** With what an operation was refused, if it was. */
function refusalOf(work: () => void): OverlayError | undefined {
  try {
    work();
  } catch (error) {
    if (error instanceof OverlayError) return error;
    throw error;
  }
  return undefined;
}

/** Number of the frame that a request is about. */
export function subjectOf(request: TargetRequest): number {
  return numberOf(request.frame);
}
