/**
 * The target cache a second time: a `Map`, slow and obvious, written from what is said about it and not from how it is
 * done. It knows workers too, as lists of frames. Where it departs from illumos' (a route ends a request and clears
 * drop, the other way round likewise; an answer has a generation; a target drains; what is unknown may be remembered;
 * memory has caps) that is said where it happens.
 *
 *   absent ─ frame ─► pending ─ route ─► draining ─ settled ─► valid      drop ─ frame ─► drop
 *
 * It is told only what it cannot know: when the pool had no room.
 */

/** Bytes and frames that one target may hold, and how long an answer may take: doubled twice, then given up. */
const HELD_BYTES_MAX = 2 ** 20;
const HELD_FRAMES_MAX = 1024;
const DEADLINES_MS = [2000, 4000, 8000];

export interface ModelFrame {
  readonly number: number;
  readonly mac: number;
  /** Worker that read it, and gets it back. */
  readonly worker: number;
  /** With its vnet_hdr. */
  readonly bytes: number;
  /** A proxy may answer it. */
  readonly isProxied: boolean;
}

export interface ModelRequest {
  readonly kind: 'target' | 'proxy';
  readonly mac: number;
  /** What it is about; of a source that was asked about no frame is held. */
  readonly about: ModelFrame;
  isOpen: boolean;
}

export interface ModelTarget {
  state: 'pending' | 'draining' | 'valid' | 'drop';
  held: ModelFrame[];
  route: number | undefined;
  request: ModelRequest | undefined;
  /** Deadlines missed. */
  misses: number;
  deadline: number;
  isFull: boolean;
  /** When a drop that nobody set ends. */
  until: number | undefined;
  /** In the table: what is asked about gets there only when the answer does not come at once. */
  isShown: boolean;
  /** A settle round is for what it was asked to settle, not for what came after. */
  version: number;
  /** Version with which it began to drain. */
  life: number;
}

interface ModelWorker {
  /** Frames on their way to main, and to the worker. */
  misses: { readonly frame: ModelFrame; readonly isProxy: boolean }[];
  injects: {
    readonly frame: ModelFrame;
    readonly isRouted: boolean;
    /** That of the target it was held by. */
    readonly life: number | undefined;
  }[];
  waiting: ModelFrame[];
}

export interface ModelOptions {
  readonly workers: number;
  readonly targetsMax: number;
  readonly negativeMs: number;
  readonly requestsMax: number;
  readonly heldMax: number;
}

/** What the real one had no room for: the next outcome of each kind. */
export interface ModelOracle {
  isInsertionRefused(): boolean;
  /** To empty the table at once: then it is done one by one. */
  isClearingRefused(): boolean;
  isHoldingRefused(): boolean;
}

export type ModelAnswer = { readonly how: 'route' | 'drop' | 'unknown' | 'proxied'; readonly route: number };

export class ReferenceCache {
  readonly targets = new Map<number, ModelTarget>();
  readonly workers: ModelWorker[];
  readonly requests: ModelRequest[] = [];
  readonly proxies = new Map<ModelRequest, { readonly frame: ModelFrame; readonly deadline: number }>();
  readonly drops = new Map<string, number>();
  readonly sent: { readonly frame: ModelFrame; readonly route: number }[] = [];
  readonly late: boolean[] = [];
  proxied = 0;
  heldBytes = 0;
  heldFrames = 0;
  now = 1000;
  isLate = false;
  isClosed = false;
  policy: ModelAnswer | undefined;
  #versions = 0;
  #settling: { mac: number; version: number }[] = [];
  #round:
    | {
        settling: { mac: number; version: number }[];
        step: 'quiescing' | 'returning' | 'sent';
        left: number[];
      }
    | undefined;

  constructor(
    readonly options: ModelOptions,
    readonly oracle: ModelOracle,
  ) {
    this.workers = Array.from({ length: options.workers }, () => ({ misses: [], injects: [], waiting: [] }));
  }

  /** Entries in the table. */
  get size(): number {
    return [...this.targets.values()].filter(({ isShown }) => isShown).length;
  }

  get openRequests(): number {
    return this.requests.filter(({ isOpen }) => isOpen).length;
  }

  get hasRound(): boolean {
    return this.#round !== undefined || this.#settling.length > 0;
  }

  /** What settles, and how far it is: for telling states apart. */
  get rounds(): string {
    const still = ({ mac, version }: { mac: number; version: number }) =>
      this.targets.get(mac)?.version === version ? mac : 0;
    const round = this.#round;
    return `${this.#settling.map(still)}/${round ? `${round.step}${round.settling.map(still)}:${round.left}` : ''}`;
  }

  // ─── Workers ──────────────────────────────────────────────────────────────────────────────────────────

  /**
   * A worker reads a frame from its link. `isPutBehind` says whether it chose to put it behind frames that are with it
   * already: it may do so with a frame that main is to have, when there are such, and it must not with any other.
   */
  read(frame: ModelFrame, isPutBehind: boolean): void {
    const worker = this.workers[frame.worker]!;
    const target = this.#shown(frame.mac);
    const isBehind = worker.waiting.some(({ mac }) => mac === frame.mac);
    switch (target?.state) {
      case 'valid':
        if (frame.isProxied) worker.misses.push({ frame, isProxy: true });
        else if (isBehind) worker.waiting.push(frame);
        else this.#send(frame, target);
        return;
      case 'drop':
        this.#drop('tx_target_drop');
        return;
      case 'draining':
        worker.waiting.push(frame);
        return;
      default:
        if (target?.isFull) this.#drop('tx_held_full');
        else if (isPutBehind && (isBehind || worker.injects.length > 0)) worker.waiting.push(frame);
        else worker.misses.push({ frame, isProxy: false });
    }
  }

  /** A worker looks after what came back and what waits. */
  resume(index: number): void {
    const worker = this.workers[index]!;
    for (const { frame, isRouted, life } of worker.injects.splice(0)) {
      const target = this.#shown(frame.mac);
      // Others of before may be on their way to main: it goes behind them.
      const isOfBefore = target?.state === 'draining' && life !== undefined && life !== target.life;
      if (target?.state === 'valid' && frame.isProxied && !isRouted)
        worker.misses.push({ frame, isProxy: true });
      else if (isOfBefore) worker.misses.push({ frame, isProxy: false });
      else if (target?.state === 'valid' || target?.state === 'draining') this.#send(frame, target);
      else this.#setAside(worker, frame, target);
    }
    for (const frame of worker.waiting.splice(0)) {
      const target = this.#shown(frame.mac);
      if (target?.state === 'draining') worker.waiting.push(frame);
      else if (target?.state === 'valid' && frame.isProxied) worker.misses.push({ frame, isProxy: true });
      else if (target?.state === 'valid') this.#send(frame, target);
      else this.#setAside(worker, frame, target);
    }
  }

  #setAside(worker: ModelWorker, frame: ModelFrame, target: ModelTarget | undefined): void {
    if (target?.state === 'drop') this.#drop('tx_target_drop');
    else if (target?.isFull) this.#drop('tx_held_full');
    else worker.misses.push({ frame, isProxy: false });
  }

  #shown(mac: number): ModelTarget | undefined {
    const target = this.targets.get(mac);
    return target?.isShown ? target : undefined;
  }

  #send(frame: ModelFrame, { route }: ModelTarget): void {
    this.sent.push({ frame, route: route! });
  }

  #drop(reason: string, frames = 1): void {
    if (frames > 0) this.drops.set(reason, (this.drops.get(reason) ?? 0) + frames);
  }

  // ─── Frames at main ───────────────────────────────────────────────────────────────────────────────────

  drainMisses(): void {
    // One of each ring in turn.
    while (this.workers.some(({ misses }) => misses.length > 0)) {
      for (const { misses } of this.workers) {
        const next = misses.shift();
        if (next?.isProxy) this.#missProxy(next.frame);
        else if (next) this.#miss(next.frame);
      }
    }
  }

  #miss(frame: ModelFrame): void {
    const reason = this.#take(frame);
    if (reason) this.#drop(reason);
  }

  /** Why main drops the frame, or undefined. */
  #take(frame: ModelFrame): string | undefined {
    if (this.isClosed) return 'tx_target_removed';
    const target = this.targets.get(frame.mac);
    if (target?.state === 'drop') return 'tx_target_drop';
    if (target?.state === 'valid') {
      this.#return([frame], false);
      return undefined;
    }
    if (!target) {
      if (this.openRequests >= this.options.requestsMax) return 'tx_requests_full';
      if (!this.#hasRoomFor(frame)) return 'tx_held_full_process';
      this.#charge(frame);
      this.#begin(frame, [frame]);
      return undefined;
    }
    const bytes = target.held.reduce((sum, each) => sum + each.bytes, frame.bytes);
    if (bytes > HELD_BYTES_MAX || target.held.length >= HELD_FRAMES_MAX) {
      if (target.state === 'pending') target.isFull = true;
      return 'tx_held_full';
    }
    if (!this.#hasRoomFor(frame)) return 'tx_held_full_process';
    this.#charge(frame);
    target.held.push(frame);
    return undefined;
  }

  /** A received frame's source, under strict source checks. */
  missSource(about: ModelFrame): void {
    const isKnown = this.targets.has(about.mac);
    if (this.isClosed || isKnown || this.openRequests >= this.options.requestsMax) return;
    this.#begin(about, []);
  }

  #missProxy(frame: ModelFrame): void {
    const reason = this.#takeProxied(frame);
    if (reason) this.#drop(reason);
  }

  #takeProxied(frame: ModelFrame): string | undefined {
    if (this.isClosed) return 'tx_target_removed';
    if (this.openRequests >= this.options.requestsMax) return 'tx_requests_full';
    if (!this.#hasRoomFor(frame)) return 'tx_held_full_process';
    this.#charge(frame);
    const request = this.#newRequest('proxy', frame);
    this.proxies.set(request, { frame, deadline: this.now + DEADLINES_MS[0]! });
    this.#answerAtOnce(request);
    return undefined;
  }

  #begin(about: ModelFrame, held: ModelFrame[]): void {
    const target: ModelTarget = {
      state: 'pending',
      held,
      route: undefined,
      request: undefined,
      misses: 0,
      deadline: 0,
      isFull: false,
      until: undefined,
      isShown: false,
      version: this.#version(),
      life: 0,
    };
    this.targets.set(about.mac, target);
    this.#ask(target, about);
    if (this.targets.get(about.mac) !== target || target.state !== 'pending' || target.isShown) return;
    if (this.#show(target) === 'ok') return;
    this.#endRequest(target);
    this.#dropHeld(target, 'tx_table_full');
    this.targets.delete(about.mac);
  }

  /** Puts a target into the table. */
  #show(target: ModelTarget): 'ok' | 'ENOSPC' | 'ENOMEM' {
    if (target.isShown) return 'ok';
    if (this.size >= this.options.targetsMax) return 'ENOSPC';
    if (this.oracle.isInsertionRefused()) return 'ENOMEM';
    target.isShown = true;
    return 'ok';
  }

  /** The device's account is larger than the process's here. */
  #hasRoomFor({ bytes }: ModelFrame): boolean {
    return this.heldBytes + bytes <= this.options.heldMax;
  }

  #charge({ bytes }: ModelFrame): void {
    this.heldBytes += bytes;
    this.heldFrames++;
  }

  #discharge(frames: readonly ModelFrame[]): void {
    for (const { bytes } of frames) this.heldBytes -= bytes;
    this.heldFrames -= frames.length;
  }

  #dropHeld(target: ModelTarget, reason: string): void {
    this.#drop(reason, target.held.length);
    this.#discharge(target.held.splice(0));
  }

  #return(frames: readonly ModelFrame[], isRouted: boolean, life?: number): void {
    for (const frame of frames) this.workers[frame.worker]!.injects.push({ frame, isRouted, life });
  }

  #version(): number {
    this.#versions++;
    return this.#versions;
  }

  // ─── Requests ─────────────────────────────────────────────────────────────────────────────────────────

  #newRequest(kind: 'target' | 'proxy', about: ModelFrame): ModelRequest {
    const request = { kind, mac: about.mac, about, isOpen: true };
    this.requests.push(request);
    return request;
  }

  #ask(target: ModelTarget, about: ModelFrame): void {
    target.request = this.#newRequest('target', about);
    target.deadline = this.now + DEADLINES_MS[target.misses]!;
    this.#answerAtOnce(target.request);
  }

  #answerAtOnce(request: ModelRequest): void {
    if (!this.policy) return;
    const { how, route } = this.policy;
    if (this.answer(request, how, route) === 'refused') this.answer(request, 'drop', 0);
  }

  #endRequest(target: ModelTarget): void {
    if (target.request) target.request.isOpen = false;
    target.request = undefined;
  }

  /** An answer: false for one whose request has ended, 'refused' when there is no room for its route. */
  answer(request: ModelRequest, how: ModelAnswer['how'], route: number): boolean | 'refused' {
    if (!request.isOpen) return false;
    const proxy = this.proxies.get(request);
    if (proxy) {
      this.#endProxy(request);
      this.#inTime();
      if (how === 'route') this.#return([proxy.frame], true);
      else if (how === 'proxied') this.proxied++;
      else this.#drop('tx_lookup_drop');
      return true;
    }
    const target = this.targets.get(request.mac)!;
    if (how === 'route') {
      if (this.oracle.isHoldingRefused()) return 'refused';
      if (this.#show(target) === 'ok') {
        this.#settle(request.mac, target, route);
      } else {
        this.#endRequest(target);
        this.#dropHeld(target, 'tx_table_full');
        this.targets.delete(request.mac);
      }
      this.#inTime();
      return true;
    }
    this.#endRequest(target);
    if (how === 'unknown' && this.options.negativeMs > 0) {
      this.#dropHeld(target, 'tx_lookup_drop');
      target.state = 'drop';
      target.until = this.now + this.options.negativeMs;
      target.isFull = false;
      if (this.#show(target) !== 'ok') this.targets.delete(request.mac);
      this.#inTime();
      return true;
    }
    // The frame it was about goes, and no other: a source that was asked about has none.
    if (target.held[0] === request.about) {
      const subject = target.held.shift()!;
      this.#discharge([subject]);
      if (how === 'proxied') this.proxied++;
      else this.#drop('tx_lookup_drop');
    }
    this.#inTime();
    const next = target.held[0];
    if (!next) {
      this.targets.delete(request.mac);
      return true;
    }
    target.misses = 0;
    target.isFull = false;
    this.#ask(target, next);
    return true;
  }

  #endProxy(request: ModelRequest): void {
    const { frame } = this.proxies.get(request)!;
    this.proxies.delete(request);
    request.isOpen = false;
    this.#discharge([frame]);
  }

  #overdue(): void {
    if (!this.isLate) this.late.push(true);
    this.isLate = true;
  }

  #inTime(): void {
    if (this.isLate) this.late.push(false);
    this.isLate = false;
  }

  /** Time passes. */
  tick(): void {
    for (const [mac, target] of [...this.targets]) {
      if (this.targets.get(mac) !== target) continue;
      if (target.state === 'drop' && target.until !== undefined && this.now >= target.until) {
        this.targets.delete(mac);
      }
      if (target.state !== 'pending' || this.now < target.deadline) continue;
      this.#overdue();
      this.#endRequest(target);
      target.misses++;
      const next = target.held[0];
      if (next && target.misses < DEADLINES_MS.length) {
        this.#ask(target, next);
        continue;
      }
      this.#dropHeld(target, 'tx_lookup_timeout');
      this.targets.delete(mac);
    }
    for (const [request, { deadline }] of [...this.proxies]) {
      if (this.now < deadline) continue;
      this.#overdue();
      this.#endProxy(request);
      this.#drop('tx_lookup_timeout');
    }
  }

  // ─── Settling ─────────────────────────────────────────────────────────────────────────────────────────

  #settle(mac: number, target: ModelTarget, route: number): void {
    this.#endRequest(target);
    const version = this.#version();
    if (target.state !== 'draining') target.life = version;
    target.state = 'draining';
    target.route = route;
    target.isFull = false;
    target.until = undefined;
    target.version = version;
    this.#settling.push({ mac, version: target.version });
  }

  stepRound(): void {
    const round = this.#round;
    if (!round) {
      if (this.#settling.length > 0)
        this.#round = { settling: this.#settling.splice(0), step: 'quiescing', left: [] };
      return;
    }
    const current = ({ mac, version }: { mac: number; version: number }) => {
      const target = this.targets.get(mac);
      return target?.state === 'draining' && target.version === version ? target : undefined;
    };
    if (round.step === 'quiescing') {
      this.drainMisses();
      round.settling = round.settling.filter((each) => {
        const target = current(each);
        if (!target) return false;
        const held = target.held.splice(0);
        this.#discharge(held);
        this.#return(held, false, target.life);
        return true;
      });
      round.step = 'returning';
    } else if (round.step === 'returning') {
      round.left = this.workers.map(({ injects }) => injects.length);
      round.step = 'sent';
    } else if (this.#hasTaken(round.left)) {
      this.#round = undefined;
      for (const each of round.settling) {
        const target = current(each);
        if (!target) continue;
        if (target.held.length > 0) this.#settling.push(each);
        else target.state = 'valid';
      }
    }
  }

  /** A worker takes all that there is, so one that has something has taken nothing. */
  #hasTaken(left: readonly number[]): boolean {
    return this.workers.every(({ injects }, index) => left[index] === 0 || injects.length === 0);
  }

  /** A worker has taken its frames: none of them is left for a round to wait for. */
  hasResumed(index: number): void {
    if (this.#round) this.#round.left[index] = 0;
  }

  // ─── Operators and plugins ────────────────────────────────────────────────────────────────────────────

  /** Another than illumos': it ends a request and clears drop. What it was refused with, or undefined. */
  set(mac: number, route: number): 'ENOSPC' | 'ENOMEM' | undefined {
    if (this.oracle.isHoldingRefused()) return 'ENOMEM';
    const known = this.targets.get(mac);
    if (known?.state === 'valid') {
      known.route = route;
      return undefined;
    }
    const target = known ?? this.#absent();
    const shown = this.#show(target);
    if (shown !== 'ok') return shown;
    // What nobody has asked about comes behind all that is under way: a flush goes in that order.
    if (target.state === 'drop' && target.until === undefined) this.targets.delete(mac);
    this.targets.set(mac, target);
    this.#settle(mac, target, route);
    return undefined;
  }

  /** Another than illumos': held frames go, and the route with them. */
  setDrop(mac: number): 'ENOSPC' | 'ENOMEM' | undefined {
    const target = this.targets.get(mac) ?? this.#absent();
    const shown = this.#show(target);
    if (shown !== 'ok') return shown;
    this.targets.set(mac, target);
    this.#endRequest(target);
    this.#dropHeld(target, 'tx_target_removed');
    target.state = 'drop';
    target.route = undefined;
    target.isFull = false;
    target.until = undefined;
    target.version = this.#version();
    return undefined;
  }

  #absent(): ModelTarget {
    return {
      state: 'drop',
      held: [],
      route: undefined,
      request: undefined,
      misses: 0,
      deadline: 0,
      isFull: false,
      until: undefined,
      isShown: false,
      version: this.#version(),
      life: 0,
    };
  }

  /** Another than illumos': an answer that is under way no longer counts, the question is put anew. */
  remove(mac: number): boolean {
    const target = this.targets.get(mac);
    if (!target) return false;
    if (target.state === 'pending') {
      const { request } = target;
      this.#endRequest(target);
      this.#ask(target, target.held[0] ?? request!.about);
      // A flush has taken it out of the table too.
      if (this.targets.get(mac) === target && target.state === 'pending') this.#showAgain(target);
      return true;
    }
    this.targets.delete(mac);
    const held = target.held.splice(0);
    this.#discharge(held);
    for (const frame of held) this.#miss(frame);
    return true;
  }

  /** A target that was asked about before the table was emptied; without room it goes like any other. */
  #showAgain(target: ModelTarget): void {
    if (this.#show(target) === 'ok') return;
    this.#endRequest(target);
    this.#dropHeld(target, 'tx_table_full');
    for (const [mac, each] of this.targets) if (each === target) this.targets.delete(mac);
  }

  flush(): void {
    const isAtOnce = !this.oracle.isClearingRefused();
    const all = [...this.targets];
    const isSettled = ({ state, until }: ModelTarget) => state === 'valid' || (state === 'drop' && !until);
    for (const [mac, target] of all) {
      if (isSettled(target)) this.targets.delete(mac);
      else if (isAtOnce) target.isShown = false;
    }
    // Those that are not settled in the order in which they came about.
    for (const [mac, target] of all) if (this.targets.get(mac) === target) this.remove(mac);
  }

  close(): void {
    this.isClosed = true;
    // However it is done, nothing is left.
    this.oracle.isClearingRefused();
    for (const target of this.targets.values()) {
      this.#endRequest(target);
      this.#dropHeld(target, 'tx_target_removed');
    }
    this.targets.clear();
    for (const request of [...this.proxies.keys()]) {
      this.#endProxy(request);
      this.#drop('tx_target_removed');
    }
  }
}
