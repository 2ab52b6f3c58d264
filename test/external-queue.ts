/** The queue of the external handle by itself: order, waiting, what becomes of requests when a handle closes. */
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { VNET_HDR_BYTES } from '../assembly/layout.js';
import type { Route } from '../src/target/destination.js';
import { parseMac } from '../src/target/mac.js';
import { TargetRequest } from '../src/target/request.js';
import { AskQueue } from '../src/varpd/external/ask-queue.js';
import { External } from '../src/varpd/external.js';
import { frameTo } from './harness/frame-to.js';
import { assertRefused } from './harness/memory-overlay.js';

const external = suite('external queue');
const PEER = '127.0.0.2';
const MAC = '02:08:20:00:00:07';
const BROADCAST = 'ff:ff:ff:ff:ff:ff';

interface Answered {
  readonly id: string;
  readonly how: string;
}

// The daemon's timers do not keep a process alive.
let alive: NodeJS.Timeout;
external.before(() => {
  alive = setInterval(() => {}, 1000);
});
external.after(() => clearInterval(alive));

let nextId = 0;

/** A request whose answers are written down. */
function ask(mac = MAC, answers: Answered[] = []): TargetRequest {
  const frame = new Uint8Array([...new Uint8Array(VNET_HDR_BYTES), ...frameTo(mac, 0)]);
  const note = (request: TargetRequest, how: string) => {
    answers.push({ id: request.id, how });
    request.end();
  };
  nextId++;
  return new TargetRequest(`t${nextId}`, 'target', parseMac(mac), 1, frame, {
    respond: (request: TargetRequest, route: Route) => note(request, JSON.stringify(route)),
    drop: (request: TargetRequest, proxied: boolean) => note(request, proxied ? 'proxied' : 'drop'),
    unknown: (request: TargetRequest) => note(request, 'unknown'),
  });
}

external('requests of all devices come out in the order in which they came in', async () => {
  const queue = new External();
  const asks = Array.from({ length: 500 }, () => ask());
  asks.forEach((each, index) => {
    queue.ask(`ov${index % 3}`, BigInt(index), each);
  });
  const handle = queue.open(true);
  for (const [index, { id }] of asks.entries()) {
    const taken = await handle.lookup(0);
    assert.equal([taken.id, taken.overlay, taken.vnetid], [id, `ov${index % 3}`, BigInt(index)]);
    assert.is(asks[index]!.state, 'outstanding');
  }
  await assertRefused(handle.lookup(0), 'ETIME', 'no_request');
});

external('what a lookup tells: addresses, kind, EtherType, VLAN, sizes', async () => {
  const queue = new External();
  const handle = queue.open(false);
  for (const [mac, kind] of [
    [MAC, 'unicast'],
    ['33:33:00:00:00:01', 'multicast'],
    [BROADCAST, 'broadcast'],
  ] as const) {
    const request = ask(mac);
    queue.ask('ov0', 2n ** 60n, request);
    assert.equal(await handle.lookup(0), {
      id: request.id,
      overlay: 'ov0',
      vnetid: 2n ** 60n,
      source: '02:00:00:00:00:01',
      destination: mac,
      kind,
      etherType: 0x0800,
      isDhcp: false,
      vlan: 0,
      headerBytes: 14,
      payloadBytes: frameTo(mac, 0).length - 14,
    });
  }
});

external('one who waits is woken for each request, the first who came first', async () => {
  const queue = new External();
  const first = queue.open(true);
  const second = queue.open(false);
  const waiting = [first.lookup(), second.lookup(), first.lookup()];
  const asks = [ask(), ask(), ask(), ask()];
  for (const each of asks) queue.ask('ov0', 1n, each);
  const taken = await Promise.all(waiting);
  assert.equal(
    taken.map(({ id }) => id),
    asks.slice(0, 3).map(({ id }) => id),
  );
  assert.is((await second.lookup()).id, asks[3]!.id);
});

external('a lookup ends after its time, and at once when nobody waits any more', async () => {
  const queue = new External();
  const handle = queue.open(true);
  const begun = performance.now();
  await assertRefused(handle.lookup(60_000), 'ETIME', 'no_request');
  assert.ok(performance.now() - begun >= 990, 'it waited a second');
  const gone = new AbortController();
  const waiting = handle.lookup(1000, gone.signal);
  gone.abort();
  await assertRefused(waiting, 'ETIME', 'no_request');
  await assertRefused(handle.lookup(1000, gone.signal), 'ETIME', 'no_request');
  const request = ask();
  queue.ask('ov0', 1n, request);
  assert.is(request.state, 'queued', 'nobody took it');
});

external('answers: once, by the handle that took it, and not when it has ended', async () => {
  const queue = new External();
  const writer = queue.open(true);
  const reader = queue.open(false);
  const answers: Answered[] = [];
  const asks = [1, 2, 3, 4, 5].map(() => ask(MAC, answers));
  for (const each of asks) queue.ask('ov0', 1n, each);
  for (const _ of asks) await writer.lookup(0);
  const [one, two, three, four, five] = asks.map(({ id }) => id) as [string, string, string, string, string];
  writer.respond(one, { ip: PEER, port: 1 });
  writer.drop(two);
  writer.drop(three, 'unknown');
  writer.drop(four, 'proxied');
  assert.equal(
    answers.map(({ how }) => how),
    ['{"ip":"127.0.0.2","port":1}', 'drop', 'unknown', 'proxied'],
  );
  asks[4]!.end();
  for (const id of [one, two, three, four, five, 'nope', '__proto__']) {
    const code = 'request_not_outstanding';
    await assertRefused(() => writer.respond(id, { ip: PEER, port: 1 }), 'EINVAL', code);
    await assertRefused(() => writer.drop(id), 'EINVAL', code);
    await assertRefused(() => writer.packet(id), 'EINVAL', code);
  }
  const last = ask(MAC, answers);
  queue.ask('ov0', 1n, last);
  await writer.lookup(0);
  await assertRefused(() => reader.drop(last.id), 'EINVAL', 'request_not_outstanding');
  writer.drop(last.id);
  assert.is(answers.length, 5);
});

external('closing queues again what was taken, behind what waits, and wakes those who wait', async () => {
  const queue = new External();
  const told: boolean[] = [];
  queue.onWriter = (isOpen) => told.push(isOpen);
  const dying = queue.open(true);
  await assertRefused(() => queue.open(true), 'EEXIST', 'writer_exists');
  const asks = Array.from({ length: 6 }, () => ask());
  for (const each of asks.slice(0, 4)) queue.ask('ov0', 1n, each);
  for (let count = 0; count < 4; count++) await dying.lookup(0);
  asks[1]!.end();
  for (const each of asks.slice(4)) queue.ask('ov0', 1n, each);
  await dying.lookup(0);
  assert.equal(
    asks.map(({ state }) => state),
    ['outstanding', 'ended', 'outstanding', 'outstanding', 'outstanding', 'queued'],
  );
  dying.close();
  dying.close();
  await assertRefused(dying.lookup(), 'EBADF', 'handle_closed');
  const heir = queue.open(true);
  const order: string[] = [];
  for (let count = 0; count < 5; count++) order.push((await heir.lookup(0)).id);
  assert.equal(
    order,
    [5, 0, 2, 3, 4].map((index) => asks[index]!.id),
  );
  await assertRefused(heir.lookup(0), 'ETIME', 'no_request');

  const reader = queue.open(false);
  const waiting = [reader.lookup(), reader.lookup()];
  const own = heir.lookup();
  heir.close();
  await assertRefused(own, 'EBADF', 'handle_closed');
  assert.equal(
    (await Promise.all(waiting)).map(({ id }) => id),
    [5, 0].map((index) => asks[index]!.id),
  );
  assert.equal(told, [true, false, true, false]);
});

external('a request that was put back, and requests of a device that is gone', async () => {
  const queue = new External();
  const handle = queue.open(true);
  const asks = [ask(), ask(), ask()];
  asks.forEach((each, index) => {
    queue.ask(`ov${index}`, 1n, each);
  });
  const taken = await handle.lookup(0);
  handle.putBack(taken.id);
  handle.putBack(taken.id);
  queue.forget('ov1');
  assert.is((await handle.lookup(0)).overlay, 'ov2');
  assert.is((await handle.lookup(0)).overlay, 'ov0');
  await assertRefused(handle.lookup(0), 'ETIME', 'no_request');
  queue.forget('ov0');
  await assertRefused(() => handle.packet(asks[0]!.id), 'EINVAL', 'request_not_outstanding');
  handle.close();
  const heir = queue.open(true);
  assert.is((await heir.lookup(0)).overlay, 'ov2');
  await assertRefused(heir.lookup(0), 'ETIME', 'no_request');
});

external('requests that end where they wait do not pile up', async () => {
  const queue = new AskQueue();
  const question = {} as Parameters<AskQueue['push']>[0]['question'];
  const live = Array.from({ length: 100 }, () => ask());
  for (const request of live) queue.push({ request, question });
  for (let count = 0; count < 10_000; count++) {
    const request = ask();
    queue.push({ request, question });
    request.end();
    assert.ok(queue.length <= 2 * 101 + 64, `${queue.length} places`);
  }
  assert.equal(
    live.map(() => queue.shift()?.request.id),
    live.map(({ id }) => id),
  );
  assert.is(queue.shift(), undefined);
  // Taken and put in all the time, and never empty.
  for (let count = 0; count < 10_000; count++) {
    queue.push({ request: ask(), question });
    if (count > 10) assert.ok(queue.shift());
    assert.ok(queue.length <= 2 * 101 + 64, `${queue.length} places`);
  }
});

external('a frame without a header is dropped, not asked about', async () => {
  const queue = new External();
  const answers: Answered[] = [];
  const whole = ask(MAC, answers);
  const { id, kind, mac, generation, owner } = whole;
  queue.ask('ov0', 1n, new TargetRequest(id, kind, mac, generation, whole.frame.subarray(0, 20), owner));
  assert.equal(answers, [{ id, how: 'drop' }]);
  await assertRefused(queue.open(true).lookup(0), 'ETIME', 'no_request');
});

external.run();
