/**
 * States of a target and how it gets from one to another, as data. The cache (`cache.ts`) is driven by these tables: a
 * change that is not in them is a defect and crashes.
 */
import { assert } from '../errors.js';

/**
 * absent: not in the table. pending: being looked up, its frames are held. draining: answered, held frames are on
 * their way back to the workers. valid: forwarded by the workers alone. drop: dropped by the workers alone.
 */
export type TargetState = 'absent' | 'pending' | 'draining' | 'valid' | 'drop';

export type TargetEvent =
  /** A worker hands over a frame. */
  | 'miss'
  /** The request is answered with a route. */
  | 'answer'
  /** The request is answered with drop, and the frame it was about was the last one held. */
  | 'answer_drop_last'
  /** The same, and more frames are held. */
  | 'answer_drop_more'
  /** The request is answered with unknown, and that is to be remembered. */
  | 'answer_unknown'
  /** Nobody has answered, again and again. */
  | 'give_up'
  /** An operator or the plugin sets a route. */
  | 'set'
  | 'set_drop'
  /** An operator or the plugin takes it out, alone or with all others. */
  | 'remove'
  /** No frame of it is on its way any more. */
  | 'drained'
  /** What was remembered as unknown is old. */
  | 'expire';

export interface Transition {
  readonly from: TargetState;
  readonly on: TargetEvent;
  readonly to: TargetState;
  readonly who: string;
  readonly why: string;
}

export const transitions: readonly Transition[] = [
  {
    from: 'absent',
    on: 'miss',
    to: 'pending',
    who: 'worker',
    why: 'the first frame is held and asked about',
  },
  {
    from: 'absent',
    on: 'set',
    to: 'draining',
    who: 'operator, plugin',
    why: 'frames may be on the miss rings',
  },
  { from: 'absent', on: 'set_drop', to: 'drop', who: 'operator', why: 'it is to be dropped' },
  {
    from: 'pending',
    on: 'miss',
    to: 'pending',
    who: 'worker',
    why: 'held behind the others, within the caps',
  },
  { from: 'pending', on: 'answer', to: 'draining', who: 'varpd', why: 'what is held goes out first' },
  { from: 'pending', on: 'answer_drop_last', to: 'absent', who: 'varpd', why: 'nothing is held any more' },
  {
    from: 'pending',
    on: 'answer_drop_more',
    to: 'pending',
    who: 'varpd',
    why: 'the next frame is asked about: a proxy takes one at a time',
  },
  {
    from: 'pending',
    on: 'answer_unknown',
    to: 'drop',
    who: 'varpd',
    why: 'negative_ttl: it is not asked about for a while',
  },
  { from: 'pending', on: 'give_up', to: 'absent', who: 'clock', why: 'frames are not held for ever' },
  { from: 'pending', on: 'set', to: 'draining', who: 'operator, plugin', why: 'ends the request' },
  {
    from: 'pending',
    on: 'set_drop',
    to: 'drop',
    who: 'operator',
    why: 'ends the request; what is held is dropped',
  },
  {
    from: 'pending',
    on: 'remove',
    to: 'pending',
    who: 'operator, plugin',
    why: 'the answer under way may be stale: asked anew',
  },
  {
    from: 'draining',
    on: 'miss',
    to: 'draining',
    who: 'worker',
    why: 'it was on the miss ring: goes out with the others',
  },
  { from: 'draining', on: 'drained', to: 'valid', who: 'main', why: 'the workers have sent what was held' },
  {
    from: 'draining',
    on: 'set',
    to: 'draining',
    who: 'operator, plugin',
    why: 'another destination, in one store',
  },
  { from: 'draining', on: 'set_drop', to: 'drop', who: 'operator', why: 'what is still held is dropped' },
  {
    from: 'draining',
    on: 'remove',
    to: 'absent',
    who: 'operator, plugin',
    why: 'what comes back is asked about anew',
  },
  {
    from: 'valid',
    on: 'miss',
    to: 'valid',
    who: 'worker',
    why: 'it was looked up just before: goes out at once',
  },
  {
    from: 'valid',
    on: 'set',
    to: 'valid',
    who: 'operator, plugin',
    why: 'another destination, in one store',
  },
  { from: 'valid', on: 'set_drop', to: 'drop', who: 'operator', why: 'drop and valid exclude each other' },
  {
    from: 'valid',
    on: 'remove',
    to: 'absent',
    who: 'operator, plugin',
    why: 'the next frame is asked about',
  },
  { from: 'drop', on: 'miss', to: 'drop', who: 'worker', why: 'it was looked up just before: dropped' },
  { from: 'drop', on: 'set', to: 'draining', who: 'operator, plugin', why: 'clears drop' },
  { from: 'drop', on: 'set_drop', to: 'drop', who: 'operator', why: 'from now on for good' },
  { from: 'drop', on: 'remove', to: 'absent', who: 'operator, plugin', why: 'the next frame is asked about' },
  { from: 'drop', on: 'expire', to: 'absent', who: 'clock', why: 'the next frame is asked about' },
];

/** What must never be, with who might think of it and why not. No row of `transitions` may do it. */
export const prohibited: readonly { from: TargetState; to: TargetState; who: string; why: string }[] = [
  { from: 'pending', to: 'valid', who: 'varpd', why: 'later frames would overtake those that are held' },
  { from: 'absent', to: 'valid', who: 'operator', why: 'frames on the miss rings would be overtaken' },
  { from: 'drop', to: 'valid', who: 'operator', why: 'the same' },
  {
    from: 'valid',
    to: 'pending',
    who: 'plugin',
    why: 'forwarding never waits for a plugin: remove it first',
  },
  { from: 'valid', to: 'draining', who: 'main', why: 'nothing of it is held' },
  { from: 'drop', to: 'pending', who: 'worker', why: 'frames to it are dropped, not asked about' },
  { from: 'draining', to: 'pending', who: 'varpd', why: 'it has been answered' },
  { from: 'absent', to: 'absent', who: 'anyone', why: 'there is nothing to change' },
];

const table = new Map(transitions.map((row) => [`${row.from} ${row.on}`, row.to]));

/** True when the event means something in the state. */
export function accepts(from: TargetState, on: TargetEvent): boolean {
  return table.has(`${from} ${on}`);
}

/** State after the event. Asserts that there is one. */
export function after(from: TargetState, on: TargetEvent): TargetState {
  const to = table.get(`${from} ${on}`);
  assert(to !== undefined, `a target that is ${from} cannot take ${on}`);
  return to;
}
