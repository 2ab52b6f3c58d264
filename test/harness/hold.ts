/** The test's side of `test/workers/held.ts`: a worker that stands still where a test wants it to, for as long as it wants. */
import { readlinkSync } from 'node:fs';
import * as assert from 'uvu/assert';
import type { Engine } from '../../src/datapath/engine.js';
import { SUPERVISE_MS } from '../../src/limits.js';
import { EFD_CLOEXEC } from '../../src/sys/abi.js';
import { every, monotonicMs } from '../../src/sys/clock.js';
import { must } from '../../src/sys/errno.js';
import { closeFd, ringEventfd } from '../../src/sys/fd.js';
import * as libc from '../../src/sys/libc.js';
import {
  HOLD_ARENA,
  HOLD_FD,
  HOLD_READ_FD,
  HOLD_STATE,
  HOLD_STEP,
  type HoldStep,
  holdStates,
  holdSteps,
} from '../workers/held.js';

export const heldEntry = new URL('../workers/held.js', import.meta.url);

const HELD_MS_MAX = 10_000;
/** More often than the supervisor looks. */
const PATIENCE_MS = SUPERVISE_MS / 2;
/** Turns of the event loop in which main does whatever it does without waiting for a worker. */
const TURNS = 30;

export class Hold {
  readonly #words: Int32Array;
  #blocker = -1;
  #endPatience = () => {};

  constructor(
    readonly engine: Engine,
    readonly worker = 0,
  ) {
    this.#words = engine.views.i32;
  }

  get arena(): number {
    return this.engine.workers.list[this.worker]!.queue.arena;
  }

  /** The descriptor that workers have read a frame from last. */
  get readFd(): number {
    return Atomics.load(this.#words, HOLD_READ_FD);
  }

  /**
   * Has the worker stand still at a step, to which `lead` leads it. Returns when it does so: main does nothing else meanwhile.
   * @param manner patiently: main does not blame it, however long that takes on a loaded machine; watched: main does as always;
   * blocked: likewise, and in a system call, which nothing from outside ends
   */
  take(step: HoldStep, lead: () => void, manner: 'patiently' | 'watched' | 'blocked' = 'patiently'): void {
    assert.is(Atomics.load(this.#words, HOLD_STATE), holdStates.none, 'one hold at a time');
    if (manner === 'blocked') this.#blocker = must(libc.eventfd(0, EFD_CLOEXEC), 'eventfd');
    Atomics.store(this.#words, HOLD_FD, this.#blocker);
    Atomics.store(this.#words, HOLD_STEP, holdSteps[step]);
    Atomics.store(this.#words, HOLD_ARENA, this.arena);
    Atomics.store(this.#words, HOLD_STATE, holdStates.asked);
    lead();
    const answer = Atomics.wait(this.#words, HOLD_STATE, holdStates.asked, HELD_MS_MAX);
    assert.is.not(answer, 'timed-out', `the worker comes to ${step}`);
    assert.is(Atomics.load(this.#words, HOLD_STATE), holdStates.held);
    const held = this.engine.workers.list[this.worker]!;
    if (manner === 'patiently') this.#endPatience = every(PATIENCE_MS, () => held.forgiveIdle(monotonicMs()));
  }

  /** Lets it go on; without effect when it may already. */
  release(): void {
    this.#endPatience();
    if (Atomics.exchange(this.#words, HOLD_STATE, holdStates.none) !== holdStates.held) return;
    Atomics.notify(this.#words, HOLD_STATE);
    if (this.#blocker < 0) return;
    ringEventfd(this.#blocker);
  }

  /** The worker stays blocked on the descriptor that is returned, and another can be held. */
  giveAway(): number {
    const blocker = this.#blocker;
    this.#blocker = -1;
    Atomics.store(this.#words, HOLD_STATE, holdStates.none);
    return blocker;
  }

  /** Lets it go on, and closes what it was blocked on. */
  close(): void {
    this.release();
    if (this.#blocker >= 0) closeFd(this.#blocker);
    this.#blocker = -1;
  }
}

/** Lets main do what it can do without waiting for a worker. */
export async function turns(count = TURNS): Promise<void> {
  for (let turn = 0; turn < count; turn++) await new Promise((resolve) => setTimeout(resolve, 1));
}

/** The same; true when that has ended `work`. */
export async function hasEnded(work: Promise<unknown>): Promise<boolean> {
  let isOver = false;
  const end = () => {
    isOver = true;
  };
  work.then(end, end);
  await turns();
  return isOver;
}

/** Has `first` called each time before a method of an object does its work; returns how to end that. */
export function before<K extends string>(
  owner: Record<K, (...args: never[]) => unknown>,
  name: K,
  first: (...args: unknown[]) => void,
): () => void {
  const real = owner[name];
  owner[name] = (...args: never[]) => {
    first(...args);
    return real.apply(owner, args);
  };
  return () => {
    owner[name] = real;
  };
}

/** What a descriptor is of; '' when it is closed. Two files never have the same at a time. */
export function fileOf(fd: number): string {
  try {
    return readlinkSync(`/proc/self/fd/${fd}`);
  } catch {
    return '';
  }
}
