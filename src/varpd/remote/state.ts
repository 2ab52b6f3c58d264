/** States of a plugin's thread, and of an instance that lives in it, as data. What is not in a table is a defect. */
import { assert } from '../../errors.js';

/** importing: the module is being loaded. away: the thread is dead and will be replaced. closed: for good. */
export type ThreadState = 'importing' | 'working' | 'away' | 'closed';
export type ThreadEvent = 'declared' | 'died' | 'retry' | 'close';

/**
 * idle: not started. running: asked. away: it was running, its thread is not there or it could not be started in a new
 * one. reviving: it is being started in a new thread.
 */
export type InstanceState = 'idle' | 'starting' | 'running' | 'away' | 'reviving';
export type InstanceEvent = 'start' | 'started' | 'failed' | 'stop' | 'died' | 'revive';

interface Transition<State, Event> {
  readonly from: State;
  readonly on: Event;
  readonly to: State;
  readonly why: string;
}

export const threadTransitions: readonly Transition<ThreadState, ThreadEvent>[] = [
  { from: 'importing', on: 'declared', to: 'working', why: 'it is what it was the first time' },
  { from: 'importing', on: 'died', to: 'away', why: 'the module could not be imported again' },
  { from: 'importing', on: 'close', to: 'closed', why: 'nobody needs it' },
  { from: 'working', on: 'died', to: 'away', why: 'it ended, did not react, or sent too much' },
  { from: 'working', on: 'close', to: 'closed', why: 'nobody needs it' },
  { from: 'away', on: 'retry', to: 'importing', why: 'the wait is over' },
  { from: 'away', on: 'close', to: 'closed', why: 'nobody needs it' },
  { from: 'closed', on: 'close', to: 'closed', why: 'closing twice is no mistake' },
];

export const instanceTransitions: readonly Transition<InstanceState, InstanceEvent>[] = [
  { from: 'idle', on: 'start', to: 'starting', why: 'its device is activated' },
  { from: 'idle', on: 'stop', to: 'idle', why: 'a device that never was active goes away' },
  { from: 'starting', on: 'started', to: 'running', why: 'the plugin has what it needs' },
  { from: 'starting', on: 'failed', to: 'idle', why: 'the activation is refused' },
  { from: 'starting', on: 'died', to: 'starting', why: 'the call fails, which ends the start' },
  { from: 'starting', on: 'stop', to: 'idle', why: 'the activation is given up' },
  { from: 'running', on: 'died', to: 'away', why: 'the instance died with its thread' },
  { from: 'running', on: 'stop', to: 'idle', why: 'its device goes away' },
  { from: 'away', on: 'died', to: 'away', why: 'its thread died before it was started again' },
  { from: 'away', on: 'revive', to: 'reviving', why: 'there is a thread' },
  { from: 'away', on: 'stop', to: 'idle', why: 'its device goes away' },
  { from: 'reviving', on: 'started', to: 'running', why: 'it works again' },
  { from: 'reviving', on: 'failed', to: 'away', why: 'it is tried again later' },
  { from: 'reviving', on: 'died', to: 'away', why: 'the new thread died as well' },
  { from: 'reviving', on: 'stop', to: 'idle', why: 'its device goes away' },
];

/** The state after an event. */
export function next<State extends string, Event extends string>(
  table: readonly Transition<State, Event>[],
  from: State,
  on: Event,
): State {
  const row = table.find((transition) => transition.from === from && transition.on === on);
  assert(row, `'${on}' does not happen to what is ${from}`);
  return row.to;
}
