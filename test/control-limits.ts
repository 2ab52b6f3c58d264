/** What bounds the control API: pages, kept answers, budgets, places, one request at a time, both sockets. */
import { channel } from 'node:diagnostics_channel';
import { once } from 'node:events';
import { existsSync, statSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { allNames, allStats, type OverlaysPage, wholeStatus } from '../src/cli/pages.js';
import { Budget } from '../src/control/budget.js';
import { adminSocketOf } from '../src/control/client.js';
import { KeptAnswers } from '../src/control/kept-answers.js';
import { pageOf } from '../src/control/page.js';
import { Places } from '../src/control/places.js';
import type { StatusView } from '../src/control/status.js';
import {
  CONTROL_ARRIVAL_MS_MAX,
  CONTROL_KEPT_MS,
  CONTROL_PAGE_BYTES_MAX,
  CONTROL_PAGE_ROWS_MAX,
  CONTROL_USER_RATE,
} from '../src/limits.js';
import { assertAnswer, withRig } from './harness/control-rig.js';
import { until } from './harness/hosts.js';
import { assertRefused, request } from './harness/memory-overlay.js';

const limits = suite('limits of the control API');

limits('pages: in the order of names, by rows and by bytes, also behind a name that is gone', async () => {
  const names = ['b', 'd', 'a', 'c'];
  const row = (name: string) => ({ name });
  assert.equal(
    pageOf(names, { count: 3 }, row).rows.map(([name]) => name),
    ['a', 'b', 'c'],
  );
  assert.is(pageOf(names, { count: 3 }, row).next, 'c');
  assert.equal(
    pageOf(names, { after: 'bb', count: 2 }, row).rows.map(([name]) => name),
    ['c', 'd'],
  );
  assert.is(pageOf(names, { after: 'bb', count: 2 }, row).next, null);
  assert.equal(pageOf(names, { after: 'd' }, row), { rows: [], next: null });
  const large = pageOf(names, {}, () => 'x'.repeat(CONTROL_PAGE_BYTES_MAX / 2));
  assert.equal(
    [large.rows.length, large.next],
    [2, 'b'],
    'a page ends behind the row that reaches the bound',
  );
  await assertRefused(() => pageOf(names, { count: 0 }, row), 'EINVAL', 'bad_count');
  const many = CONTROL_PAGE_ROWS_MAX + 1;
  await assertRefused(() => pageOf(names, { count: many }, row), 'E2BIG', 'count_too_big');
});

limits('kept answers: for a second, until an event, and not too many', () => {
  let now = 0;
  const kept = new KeptAnswers(() => now);
  kept.keep('a', 1, 'text');
  now = CONTROL_KEPT_MS - 1;
  assert.is(kept.get('a', 1), 'text');
  now = CONTROL_KEPT_MS;
  assert.is(kept.get('a', 1), undefined, 'it is too old');
  kept.keep('a', 1, 'text');
  assert.is(kept.get('a', 2), undefined, 'something has happened');
  for (let index = 0; index < 100; index++) kept.keep(`${index}`, 2, 'text');
  assert.equal([kept.get('0', 2), kept.get('99', 2)], [undefined, 'text'], 'the oldest goes first');
  kept.keep('large', 2, 'x'.repeat(5_000_000));
  assert.equal([kept.get('99', 2), kept.get('large', 2)], [undefined, undefined]);
});

limits('a budget: one user’s debt keeps him out, and nobody else', () => {
  let now = 0;
  const budget = new Budget(() => now);
  for (let index = 0; index < CONTROL_USER_RATE.burst; index++) assert.ok(budget.take(1));
  assert.is(budget.take(1), false);
  assert.is(budget.take(2), true, 'another user');
  for (let index = 0; index < 100; index++) budget.charge(1, 1000);
  now = 1000;
  assert.is(budget.take(1), false, 'he has a debt');
  assert.is(budget.take(2), true, 'and he alone');
  now = 1000 + (CONTROL_USER_RATE.burst * 1000) / CONTROL_USER_RATE.perSecond;
  assert.is(budget.take(1), true, 'the debt is bounded');
  for (let uid = 10; uid < 2000; uid++) budget.charge(uid, 1);
  assert.is(budget.take(5000), false, 'users are bounded, too');
});

limits('places: of a user, of all users, of all; given back once', () => {
  const places = new Places({ user: 2, users: 3, all: 4 });
  const user = (uid: number) => ({ uid, mayWrite: false });
  const leave = [places.take(user(1))!, places.take(user(1))!];
  assert.is(places.take(user(1)), undefined);
  assert.ok(places.take(user(2)));
  assert.is(places.take(user(3)), undefined, 'users are full');
  assert.ok(places.take({ uid: 0, mayWrite: true }), 'and root is not');
  assert.is(places.take({ uid: 0, mayWrite: true }), undefined);
  leave[0]!();
  leave[0]!();
  assert.is(places.size, 3);
  assert.ok(places.take(user(3)));
  assert.is(places.take(user(3)), undefined);
});

/** Sends text and returns all that comes until the end. */
async function converse(path: string, text: string): Promise<string> {
  const socket: Socket = connect(path);
  let answer = '';
  socket.on('error', () => {});
  socket.setEncoding('utf8').on('data', (part: string) => {
    answer += part;
  });
  socket.write(text);
  await once(socket, 'close');
  return answer;
}

limits('a second request before the first answer: the connection is cut, and what follows is not done', () =>
  withRig(async ({ socket, client, memory }) => {
    const post = (name: string, vnetid: number) => {
      const text = JSON.stringify({ ...request(name, vnetid, 4789), properties: {}, activate: false });
      return `POST /v1/overlays HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: ${text.length}\r\n\r\n${text}`;
    };
    for (const path of [socket, adminSocketOf(socket)]) {
      await converse(path, post('first', 1) + post('second', 2) + post('third', 3));
      assert.not.ok(memory.overlay.names.includes('second'));
      assert.not.ok(memory.overlay.names.includes('third'));
    }
    // Node tells of each request that it makes an object of.
    const started = channel('http.server.request.start');
    let seen = 0;
    const count = () => seen++;
    started.subscribe(count);
    await converse(socket, 'GET /v1/overlays HTTP/1.1\r\n\r\n'.repeat(2000));
    started.unsubscribe(count);
    assert.is(seen, 2, 'the rest of the read is thrown away');
    const { control } = await client.get<StatusView>('/v1/status');
    assert.equal([control.refused.pipelined, control.last_refused_uid], [3, process.getuid!()]);
    // One after the other is as it should be.
    const calm = connect(socket).setEncoding('utf8');
    for (let turn = 0; turn < 3; turn++) {
      calm.write('GET /v1/overlays HTTP/1.1\r\n\r\n');
      const [answer] = await once(calm, 'data');
      assert.match(String(answer), /^HTTP\/1\.1 200/);
    }
    calm.destroy();
  }),
);

limits('a head or a body that does not come in time: 408 with a code, and counted', () =>
  withRig(async ({ socket, client }) => {
    const begun = performance.now();
    const slow = await Promise.all([
      converse(socket, 'GET /v1/overlays HTTP/1.1\r\nX: y'),
      converse(
        socket,
        'POST /v1/overlays HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{',
      ),
      converse(socket, ''),
    ]);
    assert.ok(performance.now() - begun >= CONTROL_ARRIVAL_MS_MAX);
    for (const text of slow.slice(0, 2)) assert.match(text, /^HTTP\/1\.1 408 .*"request_late"/s);
    const { control } = await client.get<StatusView>('/v1/status');
    assert.is(control.refused.late, 3);
  }),
);

limits('a list of many devices: pages that join to all, for a client that asks and for the command', () =>
  withRig(async ({ client, call, memory, socket }) => {
    const count = 150;
    for (let index = 0; index < count; index++) {
      await client.post('/v1/overlays', {
        ...request(`d${index}`, index, 4789),
        properties: {},
        activate: false,
      });
    }
    const expected = memory.overlay.names.toSorted();
    const seen: string[] = [];
    let pages = 0;
    for await (const page of client.pages<OverlaysPage>('/v1/overlays')) {
      assert.ok(JSON.stringify(page).length < 2 * CONTROL_PAGE_BYTES_MAX);
      seen.push(...Object.keys(page.overlays));
      pages++;
    }
    assert.equal(seen, expected);
    assert.ok(pages > 1, `${pages} pages`);
    const few = await client.get<StatusView>('/v1/status?count=7&after=d2');
    assert.equal(Object.keys(few.devices), expected.filter((name) => name > 'd2').slice(0, 7));
    assert.is(few.counts.devices, count, 'counts are of all');
    assert.equal(await allNames(client), expected);
    assert.equal(Object.keys((await allStats(client)).overlays), expected);
    assert.equal(Object.keys((await wholeStatus(client)).devices), expected);
    await assertAnswer(call('GET', '/v1/overlays?count=0'), 400, 'EINVAL', 'bad_count');
    await assertAnswer(call('GET', '/v1/stats?count=513'), 413, 'E2BIG', 'count_too_big');
    assert.ok(existsSync(adminSocketOf(socket)));
    assert.is(statSync(adminSocketOf(socket)).mode & 0o777, 0o600);
    await until('nobody is left', 1000, async () => {
      return (await client.get<StatusView>('/v1/status')).control.connections === 1;
    });
  }),
);

limits.run();
