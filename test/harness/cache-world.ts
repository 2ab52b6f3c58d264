/**
 * The real cache and its twin side by side: each step is done to both, then everything that can be seen of the one must
 * be what it is in the other, and what must always hold is looked at.
 */
import * as assert from 'uvu/assert';
import * as layout from '../../assembly/layout.js';
import { OverlayError } from '../../src/errors.js';
import { BROADCAST, formatMac } from '../../src/target/mac.js';
import type { TargetRequest } from '../../src/target/request.js';
import { type ModelFrame, type ModelOptions, ReferenceCache } from '../reference/target-cache.js';
import { type AnswerKind, CacheRig, routes, subjectOf } from './cache-rig.js';
import { numberedFrame, type SentFrame, type WorkerRig } from './worker-rig.js';

/** The addresses of a world, by index; the last is one that proxies answer for. */
export const macs = [0x020820000001, 0x020820000002, 0x020820000003, BROADCAST] as const;
const PROXIED = macs.length - 1;
const names = new Map<number, string>(macs.map((mac) => [mac, formatMac(mac)]));

/** One thing that happens. `mac` is an index in `macs`, `route` one in `routes`. */
export type Step =
  | { readonly kind: 'frame'; readonly worker: number; readonly mac: number; bytes: number; count: number }
  | { readonly kind: 'arp'; readonly worker: number }
  | { readonly kind: 'source'; readonly mac: number }
  | { readonly kind: 'resume'; readonly worker: number }
  | { readonly kind: 'misses' }
  | { readonly kind: 'take'; readonly mac: number }
  | { readonly kind: 'requeue'; readonly mac: number }
  | { readonly kind: 'answer'; readonly mac: number; readonly how: AnswerKind; readonly route: number }
  | { readonly kind: 'answerProxy'; readonly how: AnswerKind; readonly isLast: boolean }
  | { readonly kind: 'late'; readonly mac: number; readonly how: AnswerKind; readonly isLast: boolean }
  | { readonly kind: 'time'; readonly ms: number }
  | { readonly kind: 'set'; readonly mac: number; readonly route: number }
  | { readonly kind: 'setDrop'; readonly mac: number }
  | { readonly kind: 'remove'; readonly mac: number }
  | { readonly kind: 'flush' }
  | { readonly kind: 'round' }
  | { readonly kind: 'reclaim' }
  | { readonly kind: 'policy'; readonly how: AnswerKind | undefined; readonly route: number }
  | { readonly kind: 'squeeze'; readonly isTight: boolean }
  | { readonly kind: 'close' };

/** A step in few words, for people who read a failure. */
export function formatStep(step: Step): string {
  return Object.values(step).join(' ');
}

export interface WorldOptions extends Omit<ModelOptions, 'workers'> {
  /** A frame must not overtake one of its target and worker though the target was removed in between. */
  readonly isOrderKeptByRemoval?: boolean;
}

/** Bytes that one worker may have on its rings and in its queue, so that none is ever full. */
const WORKER_BYTES_MAX = 300_000;
const NONE_BUT_FULL =
  layout.TARGET_VALID | layout.TARGET_DROP | layout.TARGET_PENDING | layout.TARGET_DRAINING;
const stateFlags = {
  pending: layout.TARGET_PENDING,
  draining: layout.TARGET_DRAINING,
  valid: layout.TARGET_VALID,
  drop: layout.TARGET_DROP,
};

interface ReadFrame extends ModelFrame {
  /** Removals of its target before it was read. */
  readonly life: number;
}

export class World {
  readonly cache: CacheRig;
  readonly model: ReferenceCache;
  /** How often something happened that a good run reaches. */
  static readonly reached = new Map<string, number>();
  readonly #frames = new Map<number, ReadFrame>();
  readonly #ended = new Set<number>();
  readonly #lives = new Map<number, number>();
  readonly #lastSent = new Map<string, number>();
  /** Highest generation that was asked with, by address. */
  readonly #generations = new Map<number, number>();
  /** Steps that were compared. */
  performed = 0;
  #requestsSeen = 0;
  #frameNumber = 0;
  #freeBytes: number;

  constructor(
    readonly rig: WorkerRig,
    readonly options: WorldOptions,
  ) {
    rig.reset();
    this.#freeBytes = rig.pool.freeBytes;
    this.cache = new CacheRig(rig, options);
    const { insertions, clearings, holdings } = this.cache.effects;
    const outcome = (list: boolean[], what: string) => {
      const refused = list.shift();
      assert.ok(refused !== undefined, `the twin ${what} and the real one did not`);
      return refused!;
    };
    this.model = new ReferenceCache(
      { ...options, workers: rig.workers.length },
      {
        isInsertionRefused: () => outcome(insertions, 'puts an entry into the table'),
        isClearingRefused: () => outcome(clearings, 'empties the table'),
        isHoldingRefused: () => outcome(holdings, 'holds a route'),
      },
    );
  }

  /** False for a step that would do nothing, or more than the rings can hold. */
  isPossible(step: Step): boolean {
    const { model } = this;
    switch (step.kind) {
      case 'frame':
        return this.#workerBytes(step.worker) + step.bytes * step.count <= WORKER_BYTES_MAX;
      case 'arp':
        return this.#workerBytes(step.worker) <= WORKER_BYTES_MAX;
      case 'take':
      case 'requeue':
      case 'answer':
        return model.targets.get(macs[step.mac]!)?.request !== undefined;
      case 'answerProxy':
        return model.proxies.size > 0;
      case 'late':
        return this.#endedRequests(step.mac).length > 0;
      case 'round':
        return model.hasRound;
      case 'policy':
        return step.how !== model.policy?.how || step.route !== model.policy?.route;
      case 'squeeze':
        return step.isTight !== this.cache.isTight;
      case 'set':
      case 'setDrop':
      case 'close':
        return !model.isClosed;
      default:
        return true;
    }
  }

  /** Does a step to both and compares. */
  perform(step: Step): void {
    this.performed++;
    this.#do(step);
    this.#compare();
  }

  /** Does a step, if it is possible, and compares what workers send alone. */
  repeat(step: Step): void {
    if (!this.isPossible(step)) return;
    this.#do(step);
    this.cache.effects.late.length = 0;
    this.model.late.length = 0;
  }

  /** What can be seen of the state, the same for states that behave the same. */
  get summary(): string {
    const { model, cache, rig } = this;
    const targets = macs.map((mac, index) => {
      const target = model.targets.get(mac);
      const isLateOne = this.#endedRequests(index).length > 0;
      if (!target) return isLateOne ? 'late' : '';
      const { state, held, route, request, misses, deadline, isFull, until, isShown } = target;
      const about = request && held[0] === request.about;
      const left = [deadline, until].map((at) => (at === undefined ? '' : Math.max(0, at - model.now)));
      const bits = cache.table.find(mac)?.flags;
      return [state, held.length, route, about, misses, left, isFull, isShown, isLateOne, bits].join(',');
    });
    // Frames by their order, whatever their numbers are.
    const there = this.#framesThere()
      .map(({ number }) => number)
      .sort((a, b) => a - b);
    const rank = new Map(there.map((number, index) => [number, index]));
    const ranks = (frames: readonly ModelFrame[]) => frames.map(({ mac, number }) => [mac, rank.get(number)]);
    const held = [...model.targets.values()].map((target) => ranks(target.held));
    const workers = model.workers.map(({ misses, injects, waiting }) => [
      ranks(misses.map(({ frame }) => frame)),
      ranks(injects.map(({ frame }) => frame)),
      ranks(waiting),
    ]);
    const overtaken = [...this.#lastSent].map(([key, number]) => [
      key,
      there.findIndex((each) => each > number),
    ]);
    const table = [cache.table.hasLeft, cache.table.size, rig.destinations.hasLeft, held, overtaken];
    return JSON.stringify([targets, workers, model.rounds, model.isLate, model.isClosed, table]);
  }

  /** The device goes away and everything under way ends: nothing must be left over. */
  finish(): void {
    const { cache, model, rig } = this;
    this.repeat({ kind: 'squeeze', isTight: false });
    this.repeat({ kind: 'close' });
    for (let turn = 0; turn < 3; turn++) {
      this.repeat({ kind: 'misses' });
      for (const { index } of rig.workers) this.repeat({ kind: 'resume', worker: index });
      while (model.hasRound) this.repeat({ kind: 'round' });
    }
    this.#compare();
    cache.finish();
    const { stats } = cache.cache;
    assert.equal(stats, { targets: 0, requests: 0, heldFrames: 0, heldBytes: 0 }, 'closed and not empty');
    assert.is(cache.held.bytes, 0, 'bytes are left in the account of the process');
    assert.is(this.#ended.size, this.#frames.size, 'frames that have not ended');
    assert.is(cache.routesHeld, 0, 'routes that are still held');
    assert.is(rig.tables.destinations.inUse, 0, 'destination rows that are still held');
    assert.ok(!rig.destinations.hasLeft && !cache.table.hasLeft, 'something has left and was not given back');
    cache.table.close();
    assert.is(rig.pool.freeBytes, this.#freeBytes, 'bytes of the pool that are still taken');
  }

  #do(step: Step): void {
    const { cache, model, rig } = this;
    const mac = 'mac' in step ? macs[step.mac]! : 0;
    switch (step.kind) {
      case 'frame':
        this.#read(step.worker, mac, step.bytes, step.count, false);
        break;
      case 'arp':
        this.#read(step.worker, macs[PROXIED]!, 60, 1, true);
        break;
      case 'source': {
        const frame = { number: this.#nextNumber(), mac, worker: 0, bytes: 28, isProxied: false };
        cache.cache.missSource(mac, numberedFrame(frame.number, mac, frame.bytes));
        model.missSource(frame);
        break;
      }
      case 'resume':
        rig.workers[step.worker]!.resume();
        model.resume(step.worker);
        model.hasResumed(step.worker);
        this.#checkSent(rig.workers[step.worker]!.takeSent());
        break;
      case 'misses':
        cache.drainMisses();
        model.drainMisses();
        break;
      case 'take':
        this.#requestOf(mac).take();
        break;
      case 'requeue':
        this.#requestOf(mac).requeue();
        break;
      case 'answer': {
        const index = model.requests.indexOf(model.targets.get(mac)!.request!);
        this.#answer(index, step.how, step.route);
        break;
      }
      case 'answerProxy': {
        const open = [...model.proxies.keys()];
        this.#answer(model.requests.indexOf(open.at(step.isLast ? -1 : 0)!), step.how, 0);
        break;
      }
      case 'late': {
        const ended = this.#endedRequests(step.mac);
        const index = ended.at(step.isLast ? -1 : 0)!;
        assert.is(cache.answer(cache.requests[index]!, step.how, 0), false, 'a late answer counts');
        this.#count('late');
        break;
      }
      case 'time':
        cache.nowMs += step.ms;
        model.now += step.ms;
        cache.cache.tick();
        model.tick();
        break;
      case 'set': {
        const refused = refusalOf(() => cache.cache.set(mac, routes[step.route]!, 'operator'));
        assert.is(model.set(mac, step.route), refused, 'set');
        if (refused) this.#count(`set ${refused}`);
        break;
      }
      case 'setDrop': {
        const refused = refusalOf(() => cache.cache.setDrop(mac, 'operator'));
        assert.is(model.setDrop(mac), refused, 'set drop');
        if (!refused) this.#endLife(mac);
        break;
      }
      case 'remove':
        assert.is(cache.cache.remove(mac), model.remove(mac), 'remove');
        this.#endLife(mac);
        break;
      case 'flush':
        cache.cache.flush();
        model.flush();
        for (const each of macs) this.#endLife(each);
        break;
      case 'round':
        cache.stepRound();
        model.stepRound();
        break;
      case 'reclaim':
        cache.stepReclaim();
        break;
      case 'policy':
        cache.policy = step.how && { how: step.how, route: step.route };
        model.policy = cache.policy;
        break;
      case 'squeeze':
        cache.squeeze(step.isTight);
        break;
      case 'close':
        cache.cache.close();
        model.close();
        for (const each of macs) this.#endLife(each);
        break;
    }
  }

  #read(worker: number, mac: number, bytes: number, count: number, isProxied: boolean): void {
    const frames = Array.from({ length: count }, () => {
      const life = this.#lives.get(mac) ?? 0;
      const frame = { number: this.#nextNumber(), mac, worker, bytes, isProxied, life };
      this.#frames.set(frame.number, frame);
      return frame;
    });
    const real = this.rig.workers[worker]!;
    real.transmit(
      this.rig.device,
      frames.map(({ number }) => numberedFrame(number, mac, bytes, isProxied)),
    );
    const waiting = new Set(real.waitNumbers());
    for (const frame of frames) this.model.read(frame, waiting.has(frame.number));
    this.#checkSent(real.takeSent());
  }

  #answer(index: number, how: AnswerKind, route: number): void {
    const { cache, model } = this;
    const real = cache.answer(cache.requests[index]!, how, route);
    assert.is(model.answer(model.requests[index]!, how, route), real, `answer ${how}`);
    if (real === 'refused') this.#count('answer refused');
  }

  #requestOf(mac: number): TargetRequest {
    return this.cache.requests[this.model.requests.indexOf(this.model.targets.get(mac)!.request!)]!;
  }

  #endedRequests(mac: number): number[] {
    const found: number[] = [];
    for (const [index, request] of this.model.requests.entries()) {
      if (!request.isOpen && request.mac === macs[mac]) found.push(index);
    }
    return found;
  }

  #workerBytes(index: number): number {
    const { misses, injects, waiting } = this.model.workers[index]!;
    const sum = (frames: readonly ModelFrame[]) =>
      frames.reduce((bytes, frame) => bytes + frame.bytes + 32, 0);
    return sum(misses.map(({ frame }) => frame)) + sum(injects.map(({ frame }) => frame)) + sum(waiting);
  }

  #nextNumber(): number {
    this.#frameNumber++;
    return this.#frameNumber;
  }

  #endLife(mac: number): void {
    if (!this.options.isOrderKeptByRemoval) this.#lives.set(mac, (this.#lives.get(mac) ?? 0) + 1);
  }

  #count(what: string): void {
    World.reached.set(what, (World.reached.get(what) ?? 0) + 1);
  }

  /** What workers have sent: what the twin has, in its order for each target, each frame once, to its route. */
  #checkSent(sent: readonly SentFrame[]): void {
    const expected = this.model.sent.splice(0);
    const byNumber = new Map<number, number[]>();
    for (const { number, row } of sent) byNumber.set(number, [...(byNumber.get(number) ?? []), row]);
    for (const mac of macs) {
      const real = [...byNumber.keys()].filter((number) => this.#frames.get(number)?.mac === mac);
      const twin = expected.filter(({ frame }) => frame.mac === mac);
      assert.equal(
        real,
        twin.map(({ frame }) => frame.number),
        `frames to ${names.get(mac)} that were sent`,
      );
    }
    assert.is(byNumber.size, expected.length, 'frames that were sent to nobody');
    for (const { frame, route } of expected) {
      const ips = byNumber.get(frame.number)!.map((row) => this.cache.ipOf(row));
      const wanted = ['fd00::1', 'fd00::2'];
      if (route < 2) assert.equal(ips, [wanted[route]], `frame ${frame.number} went elsewhere`);
      else if (route === 2) assert.ok(ips.length === 1 && wanted.includes(ips[0]!), 'spread');
      else assert.equal(ips, wanted, `copies of frame ${frame.number}`);
      this.#sentInOrder(frame);
      this.#count(`sent by route ${route}`);
    }
  }

  #sentInOrder({ number }: ModelFrame): void {
    assert.ok(!this.#ended.has(number), `frame ${number} is sent again`);
    this.#ended.add(number);
    const { mac, worker, life, isProxied } = this.#frames.get(number)!;
    // A proxy may take its time.
    if (isProxied) return;
    const key = `${mac} ${worker} ${life}`;
    const before = this.#lastSent.get(key) ?? 0;
    assert.ok(before < number, `frame ${number} to ${names.get(mac)} goes out behind frame ${before}`);
    this.#lastSent.set(key, number);
  }

  #compare(): void {
    const { cache, model, rig } = this;
    this.#compareDrops();
    assert.equal(cache.effects.late.splice(0), model.late.splice(0), 'late');
    assert.is(cache.effects.proxied, model.proxied, 'frames that a proxy took');
    const { insertions, clearings, holdings } = cache.effects;
    assert.equal([...insertions, ...clearings, ...holdings], [], 'more than the twin has done');
    for (const [index, worker] of rig.workers.entries()) {
      const { misses, injects, waiting } = model.workers[index]!;
      const numbers = (list: readonly { frame: ModelFrame }[]) => list.map(({ frame }) => frame.number);
      assert.equal(worker.missNumbers(), numbers(misses), `miss ring of worker ${index}`);
      assert.equal(worker.injectNumbers(), numbers(injects), `inject ring of worker ${index}`);
      assert.equal(
        worker.waitNumbers(),
        waiting.map(({ number }) => number),
        `wait queue of worker ${index}`,
      );
    }
    this.#compareTargets();
    this.#compareRequests();
    const { stats } = cache.cache;
    const { heldBytes, heldFrames, openRequests, size } = model;
    assert.equal(stats, { targets: size, requests: openRequests, heldFrames, heldBytes }, 'stats');
    assert.is(cache.held.bytes, heldBytes, 'the account of the process');
    assert.is(cache.table.size, size, 'size of the table');
    assert.is(cache.hasRound, model.hasRound, 'something is to settle');
    const routed = [...model.targets.values()].filter(
      ({ state }) => state === 'valid' || state === 'draining',
    );
    assert.is(cache.routesHeld, routed.length, 'routes that are held');
    this.#checkFrames();
  }

  #compareDrops(): void {
    const real = this.rig.workerDrops();
    for (const [name, count] of this.cache.effects.drops) real.set(name, (real.get(name) ?? 0) + count);
    const { drops } = this.model;
    for (const name of new Set([...real.keys(), ...drops.keys()])) {
      assert.is(real.get(name) ?? 0, drops.get(name) ?? 0, `drops by ${name}`);
    }
  }

  #compareTargets(): void {
    const { cache, model, rig } = this;
    assert.is(rig.publishedTable, cache.table.offset, 'the workers have the table that main has');
    for (const mac of macs) {
      const target = model.targets.get(mac);
      assert.is(cache.cache.stateOf(mac), target?.state ?? 'absent', `state of ${names.get(mac)}`);
      const entry = cache.table.find(mac);
      assert.is(entry !== undefined, target?.isShown ?? false, `${names.get(mac)} in the table`);
      const view = cache.cache.get(mac);
      assert.is(view?.state, target?.state, `view of ${names.get(mac)}`);
      if (!entry || !target) continue;
      this.#count(target.state);
      if (target.isFull) this.#count('full');
      assert.is(entry.flags & NONE_BUT_FULL, stateFlags[target.state], `flags of ${names.get(mac)}`);
      assert.is((entry.flags & layout.TARGET_FULL) !== 0, target.isFull, `${names.get(mac)} is full`);
      const isRouted = target.state === 'valid' || target.state === 'draining';
      const route = isRouted ? routes[target.route!] : undefined;
      assert.is(view?.route, route, `route of ${names.get(mac)}`);
      if (isRouted) assert.is(cache.routeIndex(entry.destination), target.route, 'destination row');
    }
    for (const mac of model.targets.keys()) assert.ok(macs.includes(mac as never), 'a target nobody knows');
  }

  #compareRequests(): void {
    const { cache, model } = this;
    assert.is(cache.requests.length, model.requests.length, 'questions that were asked');
    for (let index = this.#requestsSeen; index < cache.requests.length; index++) {
      const real = cache.requests[index]!;
      const twin = model.requests[index]!;
      assert.equal([real.kind, real.mac], [twin.kind, twin.mac], 'a question');
      assert.is(subjectOf(real), twin.about.number, 'the frame that a question is about');
      if (real.kind === 'proxy') continue;
      const before = this.#generations.get(real.mac) ?? -1;
      assert.ok(real.generation > before, `generation ${real.generation} comes after ${before}`);
      this.#generations.set(real.mac, real.generation);
    }
    this.#requestsSeen = cache.requests.length;
    for (const [index, real] of cache.requests.entries()) {
      assert.is(real.isOpen, model.requests[index]!.isOpen, `request ${index} is open`);
    }
    for (const mac of macs) {
      const open = cache.requests.filter((each) => each.isOpen && each.kind === 'target' && each.mac === mac);
      const isPending = cache.cache.stateOf(mac) === 'pending';
      assert.is(open.length, isPending ? 1 : 0, `open questions about ${names.get(mac)}`);
      if (isPending) assert.is(open[0]!.generation, this.#generations.get(mac), 'of the newest generation');
    }
  }

  /** Every frame that has not ended. */
  #framesThere(): ModelFrame[] {
    const { model } = this;
    const places = model.workers.flatMap(({ misses, injects, waiting }) => [
      ...misses.map(({ frame }) => frame),
      ...injects.map(({ frame }) => frame),
      ...waiting,
    ]);
    for (const { held } of model.targets.values()) places.push(...held);
    for (const { frame } of model.proxies.values()) places.push(frame);
    return places;
  }

  /** Every frame is in one place, or has ended. */
  #checkFrames(): void {
    const { model } = this;
    const places = this.#framesThere();
    const there = new Set(places.map(({ number }) => number));
    assert.is(there.size, places.length, 'a frame in two places');
    for (const number of there) assert.ok(!this.#ended.has(number), `frame ${number} was sent and is held`);
    const dropped = [...model.drops.values()].reduce((sum, count) => sum + count, model.proxied);
    const sent = this.#ended.size - this.#droppedCount;
    assert.is(sent + dropped + there.size, this.#frames.size, 'frames that are nowhere');
    // Those that are neither here nor sent have been dropped; they must not come back.
    if (dropped === this.#droppedCount) return;
    for (const number of this.#frames.keys()) {
      if (there.has(number) || this.#ended.has(number)) continue;
      this.#ended.add(number);
      this.#droppedCount++;
    }
  }

  #droppedCount = 0;
}

function refusalOf(work: () => void): 'ENOSPC' | 'ENOMEM' | undefined {
  try {
    work();
  } catch (error) {
    if (!(error instanceof OverlayError)) throw error;
    if (error.errno === 'ENOSPC' || error.errno === 'ENOMEM') return error.errno as 'ENOSPC' | 'ENOMEM';
    throw error;
  }
  return undefined;
}
