/** The states of a target and of a request, as the tables in `src/target/` have them. */
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { AssertionError } from '../src/errors.js';
import { TargetRequest } from '../src/target/request.js';
import {
  accepts,
  after,
  prohibited,
  type TargetEvent,
  type TargetState,
  transitions,
} from '../src/target/state.js';

const targetStates = suite('target states');

/** Written by hand: a state or event that is added must be thought about here too. */
const states: readonly TargetState[] = ['absent', 'pending', 'draining', 'valid', 'drop'];
const events: readonly TargetEvent[] = [
  'miss',
  'answer',
  'answer_drop_last',
  'answer_drop_more',
  'answer_unknown',
  'give_up',
  'set',
  'set_drop',
  'remove',
  'drained',
  'expire',
];
const pairs = states.flatMap((from) => events.map((on) => ({ from, on })));
const rowsOf = ({ from, on }: { from: TargetState; on: TargetEvent }) =>
  transitions.filter((row) => row.from === from && row.on === on);

targetStates('every row is of a state and an event there are, once, and says who and why', () => {
  for (const { from, on, to, who, why } of transitions) {
    assert.ok(states.includes(from) && states.includes(to) && events.includes(on), `${from} ${on} ${to}`);
    assert.is(rowsOf({ from, on }).length, 1, `${from} ${on}`);
    assert.ok(who.length > 0 && why.length > 0, `${from} ${on}`);
  }
  for (const on of events)
    assert.ok(
      transitions.some((row) => row.on === on),
      `nothing happens on ${on}`,
    );
});

targetStates('a pair that is listed goes where its row says, every other one asserts', () => {
  let refused = 0;
  for (const pair of pairs) {
    const { from, on } = pair;
    const [row] = rowsOf(pair);
    assert.is(accepts(from, on), row !== undefined, `${from} ${on}`);
    if (row) {
      assert.is(after(from, on), row.to);
    } else {
      assert.throws(
        () => after(from, on),
        (error: unknown) =>
          error instanceof AssertionError && error.message.includes(`${from} cannot take ${on}`),
      );
      refused++;
    }
  }
  assert.is(refused, pairs.length - transitions.length);
});

targetStates('from every state to every other there is a way or a reason why not, and not both', () => {
  for (const from of states) {
    for (const to of states) {
      const ways = transitions.filter((row) => row.from === from && row.to === to).length;
      const bans = prohibited.filter((row) => row.from === from && row.to === to).length;
      assert.ok(bans <= 1, `${from} to ${to} is prohibited twice`);
      assert.is.not(ways > 0, bans > 0, `${from} to ${to}: ${ways} ways, ${bans} bans`);
    }
  }
  for (const { from, to, who, why } of prohibited) {
    assert.ok(who.length > 0 && why.length > 0, `${from} to ${to}`);
  }
});

/** States that some events lead to. */
function reachable(from: TargetState, by: (on: TargetEvent) => boolean): Set<TargetState> {
  const reached = new Set([from]);
  for (const state of reached) {
    for (const row of transitions) if (row.from === state && by(row.on)) reached.add(row.to);
  }
  return reached;
}

targetStates('every state is reached from absent, and absent from every state', () => {
  assert.equal([...reachable('absent', () => true)].sort(), [...states].sort());
  for (const state of states) assert.ok(reachable(state, () => true).has('absent'), state);
});

targetStates('drop and valid exclude each other', () => {
  for (const from of states) {
    if (accepts(from, 'set_drop')) assert.is(after(from, 'set_drop'), 'drop');
    if (accepts(from, 'set')) assert.is.not(after(from, 'set'), 'drop');
  }
  for (const state of states) {
    assert.ok(accepts(state, 'set') && accepts(state, 'set_drop'), `an operator may set what is ${state}`);
  }
  const toValid = transitions.filter((row) => row.to === 'valid' && row.from !== 'valid');
  assert.equal(
    toValid.map(({ from, on }) => [from, on]),
    [['draining', 'drained']],
    'a target drains before it is valid',
  );
});

targetStates('only what is pending is asked about, and nothing of an answer stays pending', () => {
  const answers = events.filter((on) => on.startsWith('answer') || on === 'give_up');
  for (const on of answers) {
    assert.equal(
      transitions.filter((row) => row.on === on).map(({ from }) => from),
      ['pending'],
    );
    if (on !== 'answer_drop_more') assert.is.not(after('pending', on), 'pending');
  }
});

targetStates('frames of a target alone never make it forward or drop', () => {
  assert.equal([...reachable('absent', (on) => on === 'miss')].sort(), ['absent', 'pending']);
});

targetStates('a request is answered once, and never after its end', () => {
  const told: string[] = [];
  const make = () =>
    new TargetRequest('1', 'target', 1, 1, new Uint8Array(0), {
      respond: (request) => {
        told.push('respond');
        request.end();
      },
      drop: (request, proxied) => {
        told.push(proxied ? 'proxied' : 'drop');
        request.end();
      },
      unknown: (request) => {
        told.push('unknown');
        request.end();
      },
    });
  const answers: readonly [string, (request: TargetRequest) => boolean][] = [
    ['respond', (request) => request.respond({ ip: '192.0.2.1' })],
    ['drop', (request) => request.drop()],
    ['proxied', (request) => request.drop(true)],
    ['unknown', (request) => request.unknown()],
  ];
  for (const isTaken of [false, true]) {
    for (const [what, answer] of answers) {
      const request = make();
      if (isTaken) request.take();
      assert.is(request.state, isTaken ? 'outstanding' : 'queued');
      assert.is(answer(request), true);
      for (const [, again] of answers) assert.is(again(request), false);
      assert.equal(told.splice(0), [what]);
      request.take();
      request.requeue();
      assert.is(request.state, 'ended', 'it does not come back');
      assert.not.ok(request.isOpen);
    }
  }
  const request = make();
  request.requeue();
  assert.is(request.state, 'queued');
  request.take();
  request.take();
  assert.is(request.state, 'outstanding');
  request.requeue();
  assert.is(request.state, 'queued');
  request.end();
  for (const [, answer] of answers) assert.is(answer(request), false);
  assert.equal(told, []);
});

targetStates.run();
