/**
 * A miss and how it settles, written a second time: a worker (`workers/loop.ts`, `assembly/deferred.ts`, `tx.ts`) and
 * main (`src/overlay/targets.ts`, `src/target/draining.ts`), for frames of one target that one worker reads. A step is one
 * access to a word that the other reads or writes: the entry, a ring's cursor, the epoch.
 */
import type { Thread } from './explore.js';

/** What makes the order hold; a test leaves one out and sees that it no longer does. */
export interface SettleRules {
  /** Main waits until the worker has seen that the target is draining. */
  readonly quiesces: boolean;
  /** Main takes what is on the miss ring then. */
  readonly drainsMisses: boolean;
  /** Main waits until the worker has taken what it was given back. */
  readonly waitsForInjects: boolean;
  /** A worker puts a frame behind those of its target that wait, although the target is valid. */
  readonly looksAtWaiting: boolean;
  /** The target drains before it is valid. */
  readonly drains: boolean;
}

export const allRules: SettleRules = {
  quiesces: true,
  drainsMisses: true,
  waitsForInjects: true,
  looksAtWaiting: true,
  drains: true,
};

type Entry = 'absent' | 'pending' | 'draining' | 'valid';

/** Frames are numbers from 1 on, in the order in which the worker reads them. */
export interface SettleState {
  // Words that both use.
  entry: Entry;
  misses: number[];
  injects: number[];
  /** Epoch is odd; it has moved since main looked at it. */
  isRunning: boolean;
  hasMoved: boolean;
  // The worker's own.
  at: 'parked' | 'injects' | 'look' | 'act' | 'waiting' | 'link' | 'leaving';
  /** Where the batch came from. */
  from: 'injects' | 'waiting' | 'link';
  batch: number[];
  seen: Entry[];
  waiting: number[];
  /** One of the batch was put behind the others that wait. */
  hasWaited: boolean;
  unread: number[];
  sent: number[];
  // Main's own.
  step:
    | 'idle'
    | 'publish'
    | 'asked'
    | 'quiesce'
    | 'moving'
    | 'ends'
    | 'drain'
    | 'return'
    | 'wait'
    | 'settled';
  held: number[];
  /** Frames that are to be taken off a ring before the next step. */
  left: number;
  /** Times that an operator may still remove the target. */
  removals: number;
}

/** @param frames how many the worker reads, @param removals how often the target may be removed at any time */
export function settleState(frames: number, removals = 0): SettleState {
  return {
    entry: 'absent',
    misses: [],
    injects: [],
    isRunning: false,
    hasMoved: false,
    at: 'parked',
    from: 'link',
    batch: [],
    seen: [],
    waiting: [],
    hasWaited: false,
    unread: Array.from({ length: frames }, (_, index) => index + 1),
    sent: [],
    step: 'idle',
    held: [],
    left: 0,
    removals,
  };
}

/** Frames that one batch holds. */
const BATCH_MAX = 2;

export function workerThread(rules: SettleRules): Thread<SettleState> {
  return {
    name: 'worker',
    step: (state) => {
      switch (state.at) {
        case 'parked':
          return [unpark];
        case 'injects':
          return [takeInject];
        case 'waiting':
          return [lookThroughWaiting];
        case 'link':
          return [readLink];
        case 'look':
          return [lookUp];
        case 'act':
          return [(now) => act(now, rules)];
        case 'leaving':
          return [park];
      }
    },
  };
}

function unpark(state: SettleState): void {
  state.isRunning = true;
  state.hasMoved = true;
  state.at = 'injects';
}

/** Each frame is taken off the ring before it is looked up. */
function takeInject(state: SettleState): void {
  const frame = state.batch.length < BATCH_MAX ? state.injects.shift() : undefined;
  if (frame !== undefined) {
    state.batch.push(frame);
    state.left = state.step === 'wait' ? state.left - 1 : state.left;
    return;
  }
  decideBatch(state, 'injects', 'waiting');
}

/** One load of the entry for each frame; one that is found draining ends the pass. */
function lookThroughWaiting(state: SettleState): void {
  const frame = state.waiting[0];
  if (frame !== undefined && state.batch.length < BATCH_MAX && state.entry !== 'draining') {
    state.waiting.shift();
    state.batch.push(frame);
    return;
  }
  decideBatch(state, 'waiting', 'link');
}

/** What the link has is the worker's alone. */
function readLink(state: SettleState): void {
  state.batch.push(...state.unread.splice(0, BATCH_MAX));
  decideBatch(state, 'link', 'leaving');
}

function park(state: SettleState): void {
  state.isRunning = false;
  state.hasMoved = true;
  state.at = 'parked';
}

/** The batch is looked up, or there is none and the loop goes on. */
function decideBatch(state: SettleState, from: SettleState['from'], next: SettleState['at']): void {
  state.from = from;
  state.at = state.batch.length > 0 ? 'look' : next;
}

/** All frames are looked up, one after the other, before the first is decided. */
function lookUp(state: SettleState): void {
  state.seen.push(state.entry);
  if (state.seen.length === state.batch.length) state.at = 'act';
}

/** Decides a frame; what it does to a ring is one store. */
function act(state: SettleState, rules: SettleRules): void {
  const frame = state.batch.shift()!;
  const entry = state.seen.shift()!;
  const mustWait =
    entry === 'draining'
      ? state.from !== 'injects'
      : entry === 'valid' &&
        rules.looksAtWaiting &&
        state.waiting.length > 0 &&
        (state.from === 'link' || state.hasWaited);
  if (mustWait) {
    state.waiting.push(frame);
    state.hasWaited = true;
  } else if (entry === 'valid' || entry === 'draining') {
    state.sent.push(frame);
  } else {
    state.misses.push(frame);
  }
  if (state.batch.length > 0) return;
  state.hasWaited = false;
  // Rings and queue are looked at until there is nothing; the link has one batch each time.
  state.at = state.from === 'link' ? 'leaving' : state.from;
}

export function mainThread(rules: SettleRules): Thread<SettleState> {
  return {
    name: 'main',
    step: (state) => {
      const acts: ((state: SettleState) => void)[] = [];
      const mayTake = state.misses.length > 0;
      switch (state.step) {
        case 'publish':
          // A plugin that answers at once does so before.
          acts.push(publish, (now) => answer(now, rules));
          break;
        case 'asked':
          acts.push((now) => answer(now, rules));
          break;
        case 'settled':
          // Sent back at once: the target is valid.
          if (state.held.length > 0) acts.push((now) => now.injects.push(now.held.shift()!));
          break;
        case 'quiesce':
          acts.push(rules.quiesces ? lookAtEpoch : afterQuiesce(rules));
          break;
        case 'moving':
          if (state.hasMoved) acts.push(afterQuiesce(rules));
          break;
        case 'ends':
          acts.push((now) => {
            now.left = now.misses.length;
            now.step = now.left > 0 ? 'drain' : 'return';
          });
          break;
        case 'drain':
          acts.push((now) => {
            now.held.push(now.misses.shift()!);
            now.left--;
            if (now.left === 0) now.step = 'return';
          });
          break;
        case 'return':
          acts.push((now) => giveBack(now, rules));
          break;
        case 'wait':
          if (state.left <= 0) acts.push(settle);
          break;
      }
      // Between its turns main takes misses off the ring, and operators have theirs.
      const isSendingBack = state.step === 'settled' && state.held.length > 0;
      const isBetween = !isSendingBack && ['idle', 'asked', 'moving', 'wait', 'settled'].includes(state.step);
      if (mayTake && (isBetween || state.step === 'return')) acts.push(takeMiss);
      if (isBetween && state.removals > 0 && state.entry !== 'absent') acts.push(remove);
      return acts;
    },
  };
}

function publish(state: SettleState): void {
  state.entry = 'pending';
  state.step = 'asked';
}

function takeMiss(state: SettleState): void {
  state.held.push(state.misses.shift()!);
  if (state.step === 'idle') state.step = 'publish';
}

function answer(state: SettleState, rules: SettleRules): void {
  state.entry = rules.drains ? 'draining' : 'valid';
  state.step = 'quiesce';
}

function lookAtEpoch(state: SettleState): void {
  if (!state.isRunning) {
    state.step = 'ends';
    return;
  }
  state.hasMoved = false;
  state.step = 'moving';
}

function afterQuiesce({ drainsMisses }: SettleRules): (state: SettleState) => void {
  return (state) => {
    state.step = drainsMisses ? 'ends' : 'return';
  };
}

/** One frame at a time; then main notes how many the worker has to take. */
function giveBack(state: SettleState, { waitsForInjects }: SettleRules): void {
  const frame = state.held.shift();
  if (frame !== undefined) {
    state.injects.push(frame);
    return;
  }
  state.left = waitsForInjects ? state.injects.length : 0;
  state.step = 'wait';
}

function settle(state: SettleState): void {
  state.left = 0;
  // What came to main in between settles first.
  if (state.held.length > 0) {
    state.step = 'quiesce';
    return;
  }
  state.entry = 'valid';
  state.step = 'settled';
}

/** What is held is asked about anew. */
function remove(state: SettleState): void {
  state.removals--;
  state.left = 0;
  if (state.entry === 'pending') return;
  state.entry = 'absent';
  state.step = state.held.length > 0 ? 'publish' : 'idle';
}

/** A frame that went out before one that was read earlier, or one that went out twice. */
export function overtaken({ sent }: SettleState): string | undefined {
  const at = sent.findIndex((frame, index) => index > 0 && sent[index - 1]! >= frame);
  return at < 0 ? undefined : `frame ${sent[at]} is overtaken`;
}

/** Everything was sent, and both are at rest. */
export function isSettled(state: SettleState): boolean {
  const { unread, misses, injects, waiting, held, batch, at, step } = state;
  const lists = [unread, misses, injects, waiting, held, batch];
  // At rest for good: idle is it only where the target was removed behind the last frame.
  return (
    lists.every((list) => list.length === 0) && at === 'parked' && (step === 'settled' || step === 'idle')
  );
}

/** A frame that is nowhere or in two places. */
export function lost(state: SettleState, frames: number): string | undefined {
  const { unread, misses, injects, waiting, held, batch, sent } = state;
  const all = [unread, misses, injects, waiting, held, batch, sent].flat().sort((a, b) => a - b);
  if (all.length === frames && all.every((frame, index) => frame === index + 1)) return undefined;
  return `of ${frames} frames there are ${all}`;
}
