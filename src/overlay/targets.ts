/**
 * The DYNAMIC devices' side of main: takes misses off the rings, settles targets in rounds, and gives back what nobody
 * reads any more. A round, for all targets that were answered since the last one:
 *
 *   1. quiesce      every worker has seen that they are draining: it puts no more of their frames on its miss ring
 *   2. drain        main has taken everything off the miss rings that was there then
 *   3. hand back    held frames go to the inject rings of the workers they came from
 *   4. drained      the workers have taken those: the targets are VALID, and what waits in the workers goes on
 */
import * as layout from '../../assembly/layout.js';
import type { Miss } from '../datapath/deferred.js';
import { dropReason } from '../datapath/drop.js';
import type { Engine } from '../datapath/engine.js';
import { OverlayError } from '../errors.js';
import { ipOfBytes } from '../ip.js';
import { KeyedQueue } from '../keyed-queue.js';
import { QUIESCE_MS_MAX } from '../limits.js';
import type { Log } from '../log.js';
import { every, inTurns, monotonicMs, nextTurn, sleep, TURN_MS, timeShare } from '../sys/clock.js';
import { Budget, HELD_BYTES_MAX } from '../target/budget.js';
import { macAt } from '../target/mac.js';
import { parseEthernet } from '../varpd/proxy/ethernet.js';
import type { Dynamic } from './dynamic.js';
import { type Settling, SettlingTargets } from './settling.js';

const TICK_MS = 100;
/** Pauses between looks at the inject rings. */
const POLL_MS = 1;
/** Looks at the inject rings without a pause, before pauses begin. */
const POLL_TURNS = 50;
/** Destination, source: the two addresses of an Ethernet header. */
const ADDRESS_BYTES = 6;
const ETHERNET_BYTES = 14;
const SENDER_BYTES = 16;

export class Targets {
  /** The process's account of held bytes. */
  readonly held = new Budget(HELD_BYTES_MAX);
  readonly #byRow = new Map<number, Dynamic>();
  readonly #settling = new SettlingTargets();
  /** Devices with questions that wait their turn. */
  readonly #asking = new KeyedQueue<Dynamic, Dynamic>();
  #isAsking = false;
  /** Where a tick goes on that had no time for all. */
  #ticking: IterableIterator<Dynamic> | undefined;
  #isSettling = false;
  #isDraining = false;
  #isReclaiming = false;
  #isClosed = false;
  readonly #stopTicking: () => void;

  constructor(
    readonly engine: Engine,
    readonly log: Log,
    /** A worker has dropped a frame as too big. */
    readonly onTooBig: (miss: Miss) => void,
  ) {
    this.#stopTicking = every(TICK_MS, () => this.#tick());
  }

  add(row: number, dynamic: Dynamic): void {
    this.#byRow.set(row, dynamic);
  }

  remove(row: number): void {
    const dynamic = this.#byRow.get(row);
    this.#byRow.delete(row);
    if (!dynamic) return;
    this.#settling.forget(dynamic);
    this.#asking.delete(dynamic);
  }

  /**
   * The device is out of the data path: resolves when nothing of it is on a ring or in a wait queue any more, so that its
   * row can be another device's. Rejects with EBUSY when a worker does not respond.
   */
  async purge(row: number): Promise<void> {
    const { injects, misses } = this.engine;
    const lost = injects.forget(row);
    if (lost > 0) this.engine.counters.add(row, dropReason('tx_target_removed'), lost);
    injects.wake();
    const ends = injects.ends();
    const waits = injects.waits();
    const deadline = monotonicMs() + QUIESCE_MS_MAX;
    while (!injects.hasPassed(ends) || !injects.haveWaited(waits)) {
      if (monotonicMs() > deadline) {
        throw new OverlayError('EBUSY', 'worker_stuck', 'a worker does not take what it was handed');
      }
      await sleep(POLL_MS);
    }
    await this.engine.quiesce();
    const missed = misses.ends();
    while (!misses.hasPassed(missed)) {
      misses.drain(TURN_MS, (miss) => this.#onMiss(miss));
      await nextTurn();
    }
  }

  close(): void {
    this.#isClosed = true;
    this.#stopTicking();
  }

  /** A worker rang: there may be misses, or room on an inject ring. */
  onBell(): void {
    if (this.engine.injects.isWaiting) this.engine.injects.wake();
    if (!this.#isDraining) this.#run('drain', () => this.#drain());
  }

  /** The target is draining; see the theory above. */
  settle(dynamic: Dynamic, mac: number, generation: number): void {
    this.#settling.put({ dynamic, mac, generation });
    if (!this.#isSettling) this.#run('settle', () => this.#settle());
  }

  /** A device has questions that are to be put in another turn. */
  onWaiting(dynamic: Dynamic): void {
    this.#asking.put(dynamic, dynamic);
    if (!this.#isAsking) this.#run('ask', () => this.#ask());
  }

  /** The pauses are for a plugin whose questions never end: it has no more than its share of main. */
  async #ask(): Promise<void> {
    this.#isAsking = true;
    try {
      while (this.#asking.size > 0 && !this.#isClosed) {
        await sleep(POLL_MS);
        // Puts itself behind the others should it not come to an end.
        this.#asking.take()?.cache.putWaiting();
      }
    } finally {
      this.#isAsking = false;
    }
  }

  async #drain(): Promise<void> {
    this.#isDraining = true;
    try {
      while (!this.#isClosed && this.engine.misses.drain(TURN_MS, (miss) => this.#onMiss(miss)))
        await nextTurn();
    } finally {
      this.#isDraining = false;
    }
  }

  async #settle(): Promise<void> {
    this.#isSettling = true;
    try {
      while (!this.#settling.isEmpty && !this.#isClosed) await this.#settleRound(this.#settling.takeRound());
    } finally {
      this.#isSettling = false;
    }
  }

  async #settleRound(round: readonly Settling[]): Promise<void> {
    const { engine } = this;
    const retired = engine.destinations.leaving();
    const left = [...this.#byRow.values()].filter(({ hasLeft }) => hasLeft).map((each) => each.leaving());
    await this.#quiesce();
    if (this.#isClosed) return;
    retired();
    for (const reclaim of left) reclaim();
    const misses = engine.misses.ends();
    while (!engine.misses.hasPassed(misses)) {
      engine.misses.drain(TURN_MS, (miss) => this.#onMiss(miss));
      if (!engine.misses.hasPassed(misses)) await nextTurn();
    }
    const drained: Settling[] = [];
    await inTurns(round, (each) => {
      if (each.dynamic.cache.drain(each.mac, each.generation)) drained.push(each);
    });
    if (drained.length === 0) return;
    engine.injects.wake();
    while (engine.injects.isBehind && !this.#isClosed) {
      await sleep(POLL_MS);
      // A worker with a new arena has an empty ring, and nothing to ring the bell for.
      engine.injects.wake();
    }
    const injects = engine.injects.ends();
    // Most are there already by the next turn: the workers were woken.
    for (let turn = 0; !engine.injects.hasPassed(injects) && !this.#isClosed; turn++) {
      if (turn < POLL_TURNS) await nextTurn();
      else await sleep(POLL_MS);
    }
    await inTurns(drained, ({ dynamic, mac, generation }) => dynamic.cache.drained(mac, generation));
  }

  /** Waits for the workers however long it takes: a stuck one is replaced, and its device says so. */
  async #quiesce(): Promise<void> {
    while (!this.#isClosed) {
      try {
        await this.engine.quiesce();
        return;
      } catch (error) {
        if (!(error instanceof OverlayError)) throw error;
        this.log.warn({ error: error.message }, 'targets wait for a worker');
        await sleep(TICK_MS);
      }
    }
  }

  #onMiss(miss: Miss): void {
    const { device, kind, frame, worker } = miss;
    if (kind === layout.MISS_TOO_BIG) {
      this.onTooBig(miss);
      return;
    }
    const dynamic = this.#byRow.get(device);
    const header = frame.subarray(layout.VNET_HDR_BYTES);
    if (kind === layout.MISS_SOURCE) {
      // Asked about as if a frame were to be sent back: its source is the address that is looked for.
      const asked = new Uint8Array(frame);
      asked.set(header.subarray(ADDRESS_BYTES, 2 * ADDRESS_BYTES), layout.VNET_HDR_BYTES);
      asked.set(header.subarray(0, ADDRESS_BYTES), layout.VNET_HDR_BYTES + ADDRESS_BYTES);
      dynamic?.cache.missSource(macAt(header, ADDRESS_BYTES), asked);
      return;
    }
    if (kind === layout.MISS_LEARN) {
      const sender = header.subarray(ETHERNET_BYTES, ETHERNET_BYTES + SENDER_BYTES);
      dynamic?.options.onSource(macAt(header, ADDRESS_BYTES), ipOfBytes(sender));
      return;
    }
    const drop = (reason: Parameters<typeof dropReason>[0]) =>
      this.engine.counters.add(device, dropReason(reason), 1);
    if (!dynamic) {
      drop('tx_target_removed');
      return;
    }
    if (!parseEthernet(header)) {
      drop('tx_bogon');
      return;
    }
    if (kind === layout.MISS_PROXY) dynamic.cache.missProxy(macAt(header, 0), { frame, worker });
    else dynamic.cache.miss(macAt(header, 0), { frame, worker });
  }

  #tick(): void {
    const isSpent = timeShare(TURN_MS);
    this.#ticking ??= this.#byRow.values();
    do {
      const { done, value } = this.#ticking.next();
      if (done) {
        this.#ticking = undefined;
        break;
      }
      value.cache.tick();
    } while (!isSpent());
    const isNeeded =
      this.engine.destinations.hasLeft || [...this.#byRow.values()].some(({ hasLeft }) => hasLeft);
    if (isNeeded && !this.#isSettling && !this.#isReclaiming) this.#run('reclaim', () => this.#reclaim());
  }

  /** Gives back rows and slots that have left, when no round does so. */
  async #reclaim(): Promise<void> {
    this.#isReclaiming = true;
    try {
      await this.#settleRound([]);
    } finally {
      this.#isReclaiming = false;
    }
  }

  #run(what: string, work: () => Promise<void>): void {
    work().catch((error: unknown) => {
      // A defect, and the only one who would hear of it.
      this.log.error({ err: error }, `${what} failed`);
      throw error;
    });
  }
}
