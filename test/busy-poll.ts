/** When a worker that has run out of work looks on, and when it sleeps. */
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { BusyPoll } from '../workers/busy-poll.js';

const busyPoll = suite('busy poll');

/** Work that comes, after each of which the worker looks on in vain until it sleeps; how often it did look on. */
function looksInVain(poll: BusyPoll, clock: { ms: number }, times: number): number {
  let looks = 0;
  for (let i = 0; i < times; i++) {
    poll.worked();
    if (poll.isLooking) looks++;
    clock.ms += 1000;
    assert.is(poll.isLooking, false, 'it sleeps in the end');
  }
  return looks;
}

busyPoll('with 0 it never looks on', () => {
  const poll = new BusyPoll(0, () => 0);
  poll.worked();
  assert.is(poll.isLooking, false);
});

busyPoll('it looks on for as long as it is told, from the last work on', () => {
  const clock = { ms: 100 };
  const poll = new BusyPoll(5, () => clock.ms);
  assert.is(poll.isLooking, false, 'nothing has come yet');
  poll.worked();
  clock.ms += 4;
  assert.is(poll.isLooking, true);
  poll.worked();
  clock.ms += 4;
  assert.is(poll.isLooking, true);
  clock.ms += 1;
  assert.is(poll.isLooking, false);
});

busyPoll('where it does not pay it is done less and less often, but never given up', () => {
  const clock = { ms: 100 };
  const poll = new BusyPoll(5, () => clock.ms);
  // Every time, then after 1, 3, 7, 15, 31 and 63 times without.
  assert.is(looksInVain(poll, clock, 1 + 2 + 4 + 8 + 16 + 32 + 64), 7);
  assert.is(looksInVain(poll, clock, 64 * 10), 10);
});

busyPoll('where it pays again it is done every time', () => {
  const clock = { ms: 100 };
  const poll = new BusyPoll(5, () => clock.ms);
  looksInVain(poll, clock, 127);
  let looks = 0;
  for (let i = 0; i < 200; i++) {
    poll.worked();
    if (poll.isLooking) looks++;
    clock.ms += 1;
  }
  assert.ok(looks > 130, `${looks}`);
  assert.is(looksInVain(poll, clock, 1), 1);
});

busyPoll.run();
