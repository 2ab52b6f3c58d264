/** Events and faults: the ring, readers of every speed, the stream over the socket, `events` and `status` by command. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { request as httpRequest, type IncomingMessage } from 'node:http';
import { connect } from 'node:net';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import {
  EVENT_TEXT_BYTES_MAX,
  EVENTS_MAX,
  type Event,
  EventReader,
  Events,
  eventKinds,
} from '../src/events.js';
import { type FaultChange, Fma, faultCodes, faultReasons, processReasons } from '../src/fma.js';
import { callSocket, type Rig, withRig } from './harness/control-rig.js';
import { until } from './harness/hosts.js';
import { request } from './harness/memory-overlay.js';
import { DAY_MS, withSteppedClock } from './harness/wall-clock.js';

const stream = suite('events and faults');
const CLI = join(import.meta.dirname, '../src/cli/main.js');

function emitMany(events: Events, count: number): void {
  for (let number = 0; number < count; number++) events.emit('created', { device: 'ov0', text: `${number}` });
}

function takeAll(reader: EventReader): Event[] {
  const taken: Event[] = [];
  for (let event = reader.take(); event; event = reader.take()) taken.push(event);
  return taken;
}

const seqs = (events: readonly Event[]) => events.map(({ seq }) => seq);

stream('a reader takes what is there, or what comes too, from where it says', () => {
  const events = new Events();
  assert.equal([events.first, events.last], [1, 0]);
  assert.is(new EventReader(events, undefined, false).isEnded, true);
  emitMany(events, 3);
  assert.equal(seqs(takeAll(new EventReader(events, undefined, false))), [1, 2, 3]);
  assert.equal(seqs(takeAll(new EventReader(events, 2, false))), [3]);
  assert.equal(seqs(takeAll(new EventReader(events, 3, false))), []);
  assert.equal(seqs(takeAll(new EventReader(events, 4, false))), [1, 2, 3], 'a number of an earlier daemon');
  const follower = new EventReader(events, undefined, true);
  takeAll(follower);
  const reader = new EventReader(events, 0, false);
  emitMany(events, 1);
  assert.equal([seqs(takeAll(follower)), follower.isEnded], [[4], false]);
  assert.equal([seqs(takeAll(reader)), reader.isEnded], [[1, 2, 3], true], 'what was there when it asked');
});

stream('the ring holds 1,024; who comes too late is told how many are lost, once', () => {
  const events = new Events();
  const follower = new EventReader(events, 0, true);
  emitMany(events, EVENTS_MAX + 10);
  assert.equal([events.first, events.last], [11, EVENTS_MAX + 10]);
  assert.equal([events.at(10), events.at(11)?.seq, events.at(EVENTS_MAX + 11)], [undefined, 11, undefined]);
  const [lost, ...rest] = takeAll(follower);
  assert.equal([lost!.kind, lost!.count, lost!.seq], ['lost', 10, 10]);
  assert.equal(
    [rest.length, rest[0]!.seq, rest.every(({ kind }) => kind === 'created')],
    [EVENTS_MAX, 11, true],
  );
  assert.is(
    takeAll(new EventReader(events, undefined, false))[0]!.kind,
    'created',
    'nobody asked for older ones',
  );
  assert.is(
    takeAll(new EventReader(events, lost!.seq, false)).length,
    EVENTS_MAX,
    'to go on behind what is lost',
  );
});

stream('a text is cut between characters; listeners are called until they stop; kinds have meanings', () => {
  const events = new Events();
  let calls = 0;
  const stop = events.listen(() => calls++);
  events.emit('worker', { text: '€'.repeat(1000), code: undefined });
  stop();
  events.emit('worker', { text: 'x' });
  assert.equal([calls, events.listeners], [1, 0]);
  const { text, ...rest } = events.at(1)!;
  assert.is(text, '€'.repeat(Math.floor(EVENT_TEXT_BYTES_MAX / 3)));
  assert.equal(Object.keys(rest), ['seq', 'time', 'kind']);
  for (const [kind, meaning] of Object.entries(eventKinds)) assert.match(meaning, /\S \S/, kind);
});

stream(
  'faults: the first of the table speaks, a device or the process degrades the process, each change is told',
  () => {
    const changes: FaultChange[] = [];
    const fma = new Fma((change) => changes.push(change));
    assert.equal([fma.processStatus, fma.list()], ['ONLINE', []]);
    for (const code of faultCodes.toReversed()) fma.degrade('ov0', code, `text of ${code}`);
    assert.is(fma.status('ov0').message, 'text of link_gone');
    assert.equal(
      fma.status('ov0').faults.map(({ code }) => code),
      faultCodes,
      'in the order of the table',
    );
    assert.equal(
      fma.list().map(({ code, device }) => [device, code]),
      faultCodes.map((code) => ['ov0', code]),
    );
    for (const { severity, remedy, ageSeconds, code } of fma.list()) {
      assert.equal(
        [severity, remedy],
        [faultReasons[code as 'plugin'].severity, faultReasons[code as 'plugin'].remedy],
      );
      assert.ok(ageSeconds >= 0 && Number.isInteger(ageSeconds));
    }
    assert.is(changes.length, faultCodes.length);
    fma.degrade('ov0', 'plugin', 'text of plugin');
    assert.is(changes.length, faultCodes.length, 'nothing new is not told');
    fma.restore('ov0', 'link_gone');
    assert.equal(changes.at(-1), {
      device: 'ov0',
      code: 'link_gone',
      text: 'text of link_gone',
      isSet: false,
      status: 'DEGRADED',
      message: 'text of netns_gone',
    });
    for (const code of faultCodes) fma.restore('ov0', code);
    assert.equal([fma.processStatus, changes.at(-1)!.status], ['ONLINE', 'ONLINE']);
    fma.restore('ov0', 'plugin');
    fma.restoreProcess('config_refused');
    assert.is(changes.length, 2 * faultCodes.length, 'what is not there is not told');

    fma.degradeProcess('state_unwritable', 'no room');
    assert.equal([fma.processStatus, fma.status('ov0').status], ['DEGRADED', 'ONLINE']);
    assert.equal([changes.at(-1)!.device, changes.at(-1)!.status], [undefined, 'DEGRADED']);
    fma.degrade('ov1', 'worker', 'it died');
    assert.equal(
      fma.list().map(({ device }) => device),
      [undefined, 'ov1'],
      'the process first',
    );
    fma.restoreProcess('state_unwritable');
    assert.is(fma.processStatus, 'DEGRADED', 'as long as a device is');
    fma.forget('ov1');
    assert.equal([fma.processStatus, fma.list()], ['ONLINE', []]);
    for (const [code, reason] of Object.entries({ ...faultReasons, ...processReasons })) {
      const { severity, ...words } = reason;
      assert.ok(['critical', 'major', 'minor'].includes(severity), code);
      for (const text of Object.values(words)) assert.match(text, /\S \S/, code);
    }
  },
);

stream('the wall clock jumps by a day: the age of a fault does not', () =>
  withSteppedClock((stepTo) => {
    const fma = new Fma(() => {});
    fma.degrade('ov0', 'worker', 'it died');
    for (const byMs of [DAY_MS, -DAY_MS]) {
      stepTo(byMs);
      assert.ok(fma.list()[0]!.ageSeconds < 600);
      assert.ok(fma.list()[0]!.ageSeconds >= 0);
    }
  }),
);

/** A reader that keeps the lines, and can stop reading. */
async function follow(
  socketPath: string,
  query = '?follow=true',
): Promise<{
  lines: (Event & { version: number })[];
  response: IncomingMessage;
  cut(): void;
}> {
  const sending = httpRequest({ socketPath, path: `/v1/events${query}`, agent: false });
  sending.end();
  const [response] = (await once(sending, 'response')) as [IncomingMessage];
  sending.on('error', () => {});
  response.on('error', () => {});
  const lines: (Event & { version: number })[] = [];
  let rest = '';
  response.setEncoding('utf8').on('data', (part: string) => {
    const parts = (rest + part).split('\n');
    rest = parts.pop()!;
    lines.push(...parts.map((line) => JSON.parse(line)));
  });
  return { lines, response, cut: () => sending.destroy() };
}

const listeners = ({ memory }: Rig) => memory.overlay.events.listeners;

stream('over the socket: as they come, and nothing is left when the reader goes', () =>
  withRig(async (rig) => {
    const { events, fma } = rig.memory.overlay;
    // A device that is not there has no faults.
    await rig.memory.overlay.create('ov0', 'vxlan', 'direct', 1);
    const made = events.last;
    const reader = await follow(rig.socket, `?since=${made}&follow=true`);
    assert.is(reader.response.headers['content-type'], 'application/x-ndjson');
    fma.degrade('ov0', 'plugin', 'it rains');
    fma.restore('ov0', 'plugin');
    fma.degradeProcess('config_refused', 'line 3');
    await until('they come', 1000, () => reader.lines.length === 3);
    assert.equal(
      reader.lines.map(({ version, kind, device, code, text }) => [version, kind, device, code, text]),
      [
        [1, 'degraded', 'ov0', 'plugin', 'it rains'],
        [1, 'restored', 'ov0', 'plugin', 'no longer so: it rains'],
        [1, 'degraded', undefined, 'config_refused', 'line 3'],
      ],
    );
    const late = await follow(rig.socket, `?since=${made + 2}&follow=true`);
    await until('the one behind', 1000, () => late.lines.length === 1);
    assert.is(late.lines[0]!.seq, made + 3);
    assert.is(listeners(rig), 2);
    late.cut();
    reader.cut();
    await until('they are forgotten', 1000, () => listeners(rig) === 0);
    emitMany(events, 1);
    for (const query of ['?since=x', '?since=-1', '?follow=yes', '?x=1']) {
      const { status } = await rig.call('GET', `/v1/events${query}`);
      assert.is(status, 400, query);
    }
  }),
);

stream('a reader that does not read costs a bounded number of bytes, and learns how many it lost', () =>
  withRig(async (rig) => {
    const { events } = rig.memory.overlay;
    const reader = await follow(rig.socket);
    reader.response.pause();
    const text = 'x'.repeat(EVENT_TEXT_BYTES_MAX);
    const emit = (count: number) => {
      for (let number = 0; number < count; number++) events.emit('created', { text });
    };
    emit(5000);
    await new Promise((resolve) => setTimeout(resolve, 50));
    globalThis.gc?.();
    const before = process.memoryUsage();
    emit(200_000);
    await new Promise((resolve) => setTimeout(resolve, 50));
    globalThis.gc?.();
    const after = process.memoryUsage();
    // Without a bound it would be 120 MB.
    assert.ok(after.heapUsed - before.heapUsed < 20e6, `${after.heapUsed - before.heapUsed} bytes of heap`);
    assert.ok(after.external - before.external < 20e6, `${after.external - before.external} bytes outside`);
    const other = await follow(rig.socket, `?follow=true&since=${events.last}`);
    emit(1);
    await until('another reader is not held up', 1000, () => other.lines.at(-1)?.seq === events.last);
    assert.is(other.lines.length, 1);
    other.cut();
    reader.response.resume();
    await until('it has come up', 5000, () => reader.lines.at(-1)?.seq === events.last);
    const lost = reader.lines.filter(({ kind }) => kind === 'lost');
    assert.ok(lost.length >= 1);
    const total = lost.reduce((sum, { count }) => sum + count!, reader.lines.length - lost.length);
    assert.is(total, events.last, 'each was either read or counted as lost');
    reader.cut();
  }),
);

stream('readers are limited; one that sends more behind it is cut with all of them', () =>
  withRig(async (rig) => {
    const readers = await Promise.all(Array.from({ length: 32 }, () => follow(rig.socket)));
    const full = await callSocket(rig.socket, 'GET', '/v1/events', undefined, {});
    assert.equal(
      [full.status, (full.body as { error: { code: string } }).error.code],
      [503, 'too_many_readers'],
    );
    for (const reader of readers) reader.cut();
    await until('they are forgotten', 1000, () => listeners(rig) === 0);
    const twice = connect(rig.socket);
    twice.on('error', () => {});
    const closed = once(twice, 'close');
    twice.resume().write('GET /v1/events?follow=true HTTP/1.1\r\n\r\n'.repeat(8));
    await closed;
    await until('a connection on which others follow is cut', 1000, () => listeners(rig) === 0);
    await rig.client.get('/v1/status');
  }),
);

interface Ended {
  readonly status: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

function run(socket: string, ...args: string[]): { ended: Promise<Ended>; output: () => string } {
  const child = spawn(process.execPath, [CLI, '-S', socket, ...args], { stdio: ['ignore', 'pipe', 'pipe'] });
  let stdout = '';
  let stderr = '';
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    stdout += text;
  });
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    stderr += text;
  });
  const ended = new Promise<Ended>((resolve) => {
    child.once('close', (status) => resolve({ status, stdout, stderr }));
  });
  return { ended, output: () => stdout };
}

stream('overlayadm events: text, JSON, --since; -f ends with 6 when the daemon goes', async () => {
  let following: Promise<Ended> | undefined;
  await withRig(async ({ memory, socket }) => {
    const { events } = memory.overlay;
    events.emit('created', { device: 'ov0', text: 'made\u001b[2J' });
    events.emit('daemon-started', { text: 'ready' });
    const shown = await run(socket, 'events').ended;
    assert.equal([shown.status, shown.stderr], [0, '']);
    const lines = shown.stdout.trimEnd().split('\n');
    assert.match(lines[0]!, /^\d{4}-\S+Z ov0 {13}created {10}made \[2J$/);
    assert.match(lines[1]!, /^\d{4}-\S+Z -- {14}daemon-started {3}ready$/);
    const json = await run(socket, 'events', '--since', '1', '--json').ended;
    assert.equal([JSON.parse(json.stdout).seq, JSON.parse(json.stdout).text], [2, 'ready']);
    assert.is((await run(socket, 'events', '--since', 'x').ended).status, 2);
    const follower = run(socket, 'events', '-f');
    await until('it has begun', 5000, () => follower.output().split('\n').length === 3);
    events.emit('deleted', { device: 'ov0', text: 'gone' });
    await until('it goes on', 5000, () => follower.output().includes('gone'));
    following = follower.ended;
  });
  const { status, stderr } = await following!;
  assert.is(status, 6);
  assert.match(stderr, /^overlayadm: the daemon on .* has gone: no more/);
  assert.is((await run('/nonexistent/socket', 'events', '-f').ended).status, 6);
});

stream('overlayadm status: health first; --check says it by the exit code', () =>
  withRig(async ({ memory, socket, client }) => {
    const { overlay } = memory;
    const online = await run(socket, 'status', '--check').ended;
    assert.equal([online.status, online.stderr], [0, '']);
    assert.match(
      online.stdout,
      /^ONLINE: 0 overlays, 0 started, 0 degraded, 0 faults, 1 of 1 workers running\n/,
    );
    await client.post('/v1/overlays', request('ov0', 1, 4789));
    overlay.fma.degrade('ov0', 'lookup_late', 'slow\u001b[31m');
    overlay.fma.degradeProcess('state_problem', '1.json was set aside');
    const degraded = await run(socket, 'status', '--check').ended;
    assert.is(degraded.status, 1);
    const lines = degraded.stdout.split('\n');
    assert.match(lines[0]!, /^DEGRADED: 1 overlays, 0 started, 1 degraded, 2 faults, /);
    assert.match(lines[2]!, /^LINK +FAULT +SEVERITY AGE +DETAILS$/);
    assert.match(lines[3]!, /^-- +state_problem +minor +\d+ s +1\.json was set aside \(see the text/);
    assert.match(lines[4]!, /^ov0 +lookup_late +minor +\d+ s +slow \[31m \(/);
    assert.match(degraded.stdout, /\nov0 +activated +DEGRADED\n/);
    assert.match(degraded.stdout, /\n0 +both +running +0\n/);
    assert.match(degraded.stdout, /\nmemory: \d+ MiB resident, /);
    assert.is((await run(socket, 'status').ended).status, 0, 'without --check it only shows');
    const json = await run(socket, 'status', '--json', '--check').ended;
    assert.equal([json.status, JSON.parse(json.stdout).counts.faults], [1, 2]);
    assert.is((await run('/nonexistent/socket', 'status', '--check').ended).status, 6);
  }),
);

stream.run();
