/** The control API over its socket: every operation, every wrong way of asking, who may write, the socket. */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { channel } from 'node:diagnostics_channel';
import { once } from 'node:events';
import { mkdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import type { Server } from 'node:http';
import { connect, createServer, type Socket } from 'node:net';
import { join } from 'node:path';
import * as fc from 'fast-check';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { ControlClient } from '../src/control/client.js';
import { operations } from '../src/control/operations.js';
import { ControlServer } from '../src/control/server.js';
import type { StatusView } from '../src/control/status.js';
import type { OverlayView, PropertyView, StatsView, TargetJson } from '../src/control/view.js';
import { CONTROL_BODY_BYTES_MAX, CONTROL_REQUEST_MS_MAX } from '../src/limits.js';
import type { Log } from '../src/log.js';
import { eachOffload, offloadNames } from '../src/offload.js';
import {
  type Answer,
  assertAnswer,
  assertTyped,
  temporaryDirectory,
  withRig,
} from './harness/control-rig.js';
import { until } from './harness/hosts.js';
import { assertRefused, freePort, MemoryOverlay, request } from './harness/memory-overlay.js';
import { testWith } from './harness/needs.js';

const control = suite('control API');
const HERE = '127.0.0.1';
const NOBODY = 65534;

const body = (name: string, vnetid: unknown, port: number, more: object = {}): string =>
  JSON.stringify({ ...request(name, vnetid, port), ...more });

// ─── Every operation ────────────────────────────────────────────────────────────────────────────────────

control('every operation of the table, once', () =>
  withRig(async ({ client, memory }) => {
    const port = await freePort(HERE);
    const done: string[] = [];
    const path = '/v1/overlays/ov0';
    const one = { version: 1 };

    done.push('create');
    const created = await client.post('/v1/overlays', {
      ...request('ov0', '42', port),
      properties: {},
      activate: false,
    });
    assert.equal(created, one);
    assert.is(memory.overlay.state('ov0'), 'created');

    done.push('setprop');
    for (const [name, value] of Object.entries(request('ov0', 42, port).properties)) {
      assert.equal(await client.put(`${path}/properties/${encodeURIComponent(name)}`, { value }), one);
    }
    assert.equal(await client.put(`${path}/properties/0`, { value: 1500 }), one);

    done.push('getprop');
    const expected: PropertyView = {
      name: 'mtu',
      id: 0,
      type: 'uint',
      permission: 'rw',
      required: false,
      value: 1500,
      default: 'auto',
      possible: '576-8900,auto',
    };
    for (const property of ['mtu', '0']) {
      assert.equal(await client.get(`${path}/properties/${property}`), { version: 1, property: expected });
    }

    done.push('activate');
    assert.equal(await client.post(`${path}/activate`), one);
    await memory.up('ov0');

    done.push('status');
    assert.equal(await client.get(`${path}/status`), {
      version: 1,
      status: 'ONLINE',
      message: '',
      faults: [],
    });

    done.push('list', 'show');
    const listed = await client.get<{ version: number; overlays: Record<string, OverlayView> }>(
      '/v1/overlays',
    );
    assert.equal(Object.keys(listed), ['version', 'overlays', 'next']);
    assert.equal(Object.keys(listed.overlays), ['ov0']);
    assert.equal({ ...(await client.get<object>(path)), next: null }, listed);
    const view = listed.overlays.ov0!;
    const point: TargetJson = {
      target: '*:*:*:*:*:*',
      state: 'valid',
      to: { ip: '127.0.0.2', port },
      destination: `127.0.0.2:${port}`,
      source: 'plugin',
      age: 0,
      frames: 0,
      bytes: 0,
      path_mtu: null,
      path_probe: null,
      last_use: null,
    };
    assert.equal(
      { ...view, properties: view.properties.map(({ name, value }) => [name, value]) },
      {
        state: 'started',
        status: 'ONLINE',
        message: '',
        faults: [],
        destination_kinds: ['ip', 'port'],
        targets: [point],
        targets_more: false,
        requests: null,
        properties: [
          ['mtu', 1500],
          ['vnetid', 42],
          ['encap', 'vxlan'],
          ['varpd/id', 1],
          ['vxlan/listen_ip', HERE],
          ['vxlan/listen_port', port],
          ['vxlan/ttl', 64],
          ['vxlan/dscp', '0'],
          ['vxlan/ecn', 'copy'],
          ['vxlan/source_check', 'auto'],
          ['vxlan/reserved', 'ignore'],
          ['vxlan/inner_to_mux', 'drop'],
          ['vxlan/mark', 0],
          ['vxlan/device', 'any'],
          ['vxlan/source_ports', '49152-65535'],
          ['vxlan/zerocsum6_tx', 'off'],
          ['vxlan/zerocsum6_rx', 'off'],
          ['search', 'direct'],
          ['direct/dest_ip', '127.0.0.2'],
          ['direct/dest_port', port],
          ['mtu_max', 8900],
          ['mtu_sum', null],
          ['tcp_mss', 'off'],
          ['path_mtu_probe', 'off'],
          ['netns', null],
          ['underlay_netns', null],
          ...offloadNames.map((name) => [name, 'auto']),
        ],
        // A port in memory has no kernel behind it.
        offloads: { ...eachOffload(() => 'refused'), udp_segment: 'used', udp_gro: 'used' },
      },
    );
    assert.equal(
      view.properties.map(({ id }) => id),
      view.properties.map((_, index) => index),
    );

    done.push('stats');
    const stats = await client.get<StatsView & { version: number }>('/v1/stats');
    assert.is(stats.version, 1);
    assert.equal(Object.keys(stats.overlays), ['ov0']);
    assert.equal(Object.keys(stats.muxes), [`${HERE}:${port}`]);
    assert.is(stats.workers.length, 1);
    assert.is(stats.overlays.ov0!.counters.tx_read, 0);

    done.push('daemon-status');
    const { memory: used, ...status } = await client.get<StatusView & { version: number }>('/v1/status');
    assert.equal(Object.keys(used), [
      'shared_bytes',
      'pool_bytes',
      'pool_free_bytes',
      'rss_bytes',
      'heap_bytes',
    ]);
    assert.equal(
      { ...status, uptime: 0, event: 0 },
      {
        version: 1,
        status: 'ONLINE',
        counts: { devices: 1, started: 1, degraded: 0, faults: 0, workers: 1, workers_running: 1 },
        faults: [],
        devices: { ov0: { state: 'started', status: 'ONLINE', message: '' } },
        workers: [{ worker: 0, directions: 'both', state: 'running', restarts: 0 }],
        pid: process.pid,
        uptime: 0,
        event: 0,
        retained: [],
        control: { connections: 1, refused: {}, last_refused_uid: null },
        next: null,
      },
    );

    // More of it in test/event-stream.ts.
    done.push('events');
    memory.overlay.fma.degrade('ov0', 'plugin', 'it rains');
    for await (const line of client.lines(`/v1/events?since=${memory.overlay.events.last - 1}`)) {
      const { seq, time, ...event } = JSON.parse(line);
      assert.is(seq, memory.overlay.events.last);
      assert.match(time, /^\d{4}-.*Z$/);
      const expected = { version: 1, kind: 'degraded', device: 'ov0', text: 'it rains', code: 'plugin' };
      assert.equal(event, expected);
    }
    memory.overlay.fma.restore('ov0', 'plugin');

    done.push('targets', 'target');
    assert.equal(await client.get(`${path}/targets`), { version: 1, targets: [point], next: null });
    const mac = '02:08:20:01:02:03';
    const target = { ...point, target: mac };
    assert.equal(await client.get(`${path}/targets/2:8:20:1:2:3`), { version: 1, target });

    // More of these in test/cache-api.ts, on a device that has a target cache.
    done.push('set-target', 'remove-target', 'flush-targets');
    for (const refused of [
      client.put(`${path}/targets/${mac}`, { to: 'drop' }),
      client.delete(`${path}/targets/${mac}`),
      client.delete(`${path}/targets`),
    ]) {
      await assertRefused(refused, 'ENOTSUP', 'not_dynamic');
    }

    // More of these in test/vnic.ts, on links that can carry some.
    done.push('vnics', 'create-vnic', 'delete-vnic');
    assert.equal(await client.get('/v1/vnics'), { version: 1, vnics: [] });
    await assertRefused(client.post('/v1/vnics', { name: 'v0', overlay: 'ov0' }), 'ENOTSUP', 'memory_port');
    await assertRefused(client.delete('/v1/vnics/v0'), 'ENOENT', 'no_such_vnic');

    done.push('delete');
    assert.equal(await client.delete(`${path}?force=true`), one);
    assert.equal(memory.overlay.names, []);

    // There are no links in memory; test/orphans.ts has some.
    done.push('tidy');
    assert.equal(await client.post('/v1/tidy', { force: true }), { ...one, deleted: [], left: [] });

    assert.equal(done.toSorted(), operations.map(({ name }) => name).toSorted(), 'all of the table');
  }),
);

control('created in one go; names from Object.prototype are names', () =>
  withRig(async ({ client, call, memory }) => {
    const port = await freePort(HERE);
    await client.post('/v1/overlays', request('constructor', 1, port));
    const { overlays } = await client.get<{ overlays: object }>('/v1/overlays');
    assert.equal(Object.keys(overlays), ['constructor']);
    assert.is(memory.overlay.state('constructor'), 'activated');
    await assertAnswer(call('GET', '/v1/overlays/toString'), 404, 'ENOENT', 'no_such_device');
    await client.delete('/v1/overlays/constructor');
  }),
);

control('a number above 2^53 comes back as text, and as a number is not taken', () =>
  withRig(async ({ call }) => {
    await assertAnswer(
      call(
        'POST',
        '/v1/overlays',
        '{"name":"ov0","encap":"vxlan","search":"direct","vnetid":9007199254740993}',
      ),
      400,
      'EINVAL',
      'bad_property_value',
      /vnetid/,
    );
  }),
);

// ─── Errors ─────────────────────────────────────────────────────────────────────────────────────────────

control('errors of operations carry their errno and status', () =>
  withRig(async ({ call, client, memory }) => {
    const port = await freePort(HERE);
    const make = (text: string) => call('POST', '/v1/overlays', text);
    await client.post('/v1/overlays', { ...request('ov0', 1, port), properties: {}, activate: false });
    const set = (property: string, value: unknown) =>
      call('PUT', `/v1/overlays/ov0/properties/${property}`, JSON.stringify({ value }));

    await assertAnswer(make(body('1x', 2, port)), 400, 'EINVAL', 'bad_device_name');
    await assertAnswer(make(body('ov1', 2, port, { encap: 'nope' })), 404, 'ENOENT', 'no_such_encap');
    await assertAnswer(make(body('ov1', 2, port, { encap: '' })), 400, 'EINVAL', 'bad_encap_name');
    await assertAnswer(make(body('ov1', 2, port, { search: 'nope' })), 404, 'ENOENT', 'no_such_lookup');
    await assertAnswer(make(body('ov0', 2, port)), 409, 'EEXIST', 'device_exists');
    await assertAnswer(make(body('ov1', 1, port)), 409, 'EEXIST', 'vnetid_in_use');
    await assertAnswer(set('nope', 1), 404, 'ENOENT', 'no_such_property');
    await assertAnswer(set('encap', 'vxlan'), 403, 'EPERM', 'property_read_only');
    await assertAnswer(set('mtu', 1), 400, 'EINVAL', 'bad_property_value');
    const last = memory.overlay.properties('ov0').length - 1;
    const bad = RegExp(`${last + 1} is not 0 to ${last}$`);
    await assertAnswer(set(`${last + 1}`, 1), 400, 'EINVAL', 'bad_property_id', bad);
    await assertAnswer(set('-1', 1), 400, 'EINVAL', 'bad_property_id');
    const beyond = `/v1/overlays/ov0/properties/${last + 1}`;
    await assertAnswer(call('GET', beyond), 400, 'EINVAL', 'bad_property_id');
    await assertAnswer(call('GET', '/v1/overlays/ov0/properties/0x1'), 404, 'ENOENT', 'no_such_property');
    await assertAnswer(call('POST', '/v1/overlays/ov0/activate'), 400, 'EINVAL', 'property_missing');
    await set('vxlan%2Flisten_ip', HERE);
    await assertAnswer(call('POST', '/v1/overlays/ov0/activate'), 409, 'EAGAIN', 'property_missing');
    await set('direct%2Fdest_ip', HERE);
    await set('direct%2Fdest_port', port);
    await client.post('/v1/overlays/ov0/activate');
    await assertAnswer(call('POST', '/v1/overlays/ov0/activate'), 409, 'EEXIST', 'already_active');
    await assertAnswer(set('netns', 'x'), 422, 'ENOTSUP', 'already_active');
    await memory.up('ov0');
    await assertAnswer(call('DELETE', '/v1/overlays/ov0'), 409, 'EBUSY', 'link_up');
    await assertAnswer(call('DELETE', '/v1/overlays/ov0?force=false'), 409, 'EBUSY', 'link_up');
    for (const path of ['', '/status', '/properties/mtu']) {
      await assertAnswer(call('GET', `/v1/overlays/nope${path}`), 404, 'ENOENT', 'no_such_device');
    }
  }),
);

control('a transaction’s details reach the client', () =>
  withRig(async ({ client }) => {
    const asked = { ...request('ov0', 1, 1), properties: { mtu: 1, 'vxlan/listen_ip': 'x' } };
    const error = await assertRefused(client.post('/v1/overlays', asked), 'EINVAL', 'bad_property_value');
    const lines = error.toJSON().details ?? [];
    assert.is(lines.length, 4, lines.join('; '));
    assert.match(lines[0]!, /^mtu: /);
    assert.match(lines[3]!, /^direct\/dest_port: it is required/);
  }),
);

/** Depth that no parser by recursion survives within the body's limit. */
const deep = '['.repeat(30_000) + ']'.repeat(30_000);

control('requests that are not understood: EINVAL, named, and nothing happens', () =>
  withRig(async ({ call, client, memory }) => {
    await client.post('/v1/overlays', { ...request('ov0', 1, 4789), properties: {}, activate: false });
    const good = { name: 'ov1', encap: 'vxlan', search: 'direct', vnetid: 2, properties: {} };
    const post = (text: string | Buffer, headers?: Record<string, string>) =>
      call('POST', '/v1/overlays', text, headers);
    const wrong: [what: string, text: string, message: RegExp][] = [
      ['no JSON', '{', /not understood/],
      ['two documents', '{}{}', /not understood/],
      ['a trailing comma', '{"name":"ov1",}', /not understood/],
      ['null', 'null', /the body is no object/],
      ['text', '"ov1"', /the body is no object/],
      ['a number', '1', /the body is no object/],
      ['an empty list', '[]', /the body is no object/],
      ['a list', JSON.stringify([good]), /the body is no object/],
      ['nothing', '{}', /name/],
      ['an unknown field', JSON.stringify({ ...good, colour: 'red' }), /colour/],
      ['no vnetid', JSON.stringify({ ...good, vnetid: undefined }), /vnetid/],
      ['a null vnetid', JSON.stringify({ ...good, vnetid: null }), /vnetid/],
      ['a vnetid too great for a number', JSON.stringify(good).replace(':2', ':1e999'), /vnetid/],
      ['a name that is a number', JSON.stringify({ ...good, name: 1 }), /name/],
      ['a name that is a list', JSON.stringify({ ...good, name: ['ov1'] }), /name/],
      ['properties that are a list', JSON.stringify({ ...good, properties: ['mtu'] }), /properties/],
      ['a property that is a list', JSON.stringify({ ...good, properties: { mtu: [1] } }), /properties\.mtu/],
      ['a property that is true', JSON.stringify({ ...good, properties: { mtu: true } }), /properties\.mtu/],
      ['activate that is text', JSON.stringify({ ...good, activate: 'yes' }), /activate/],
      ['a long name', JSON.stringify({ ...good, name: 'x'.repeat(257) }), /name/],
      ['a long value', JSON.stringify({ ...good, properties: { mtu: '1'.repeat(1025) } }), /properties\.mtu/],
      ['depth', deep, /the body is no object/],
      ['depth inside', JSON.stringify(good).replace('{}', `{"mtu":${deep}}`), /properties\.mtu/],
      ['__proto__', '{"__proto__":{"isAdmin":true},"name":"ov1"}', /not understood/],
      ['__proto__ in properties', JSON.stringify(good).replace('{}', '{"__proto__":"x"}'), /not understood/],
      ['escaped __proto__', '{"\\u005f_proto__":{"isAdmin":true}}', /not understood/],
      ['constructor.prototype', '{"constructor":{"prototype":{"isAdmin":true}}}', /not understood/],
      ['constructor', JSON.stringify({ ...good, constructor: 'x' }), /constructor/],
    ];
    for (const [what, text, message] of wrong) {
      const answer = await post(text);
      const error = assertTyped(answer, what);
      assert.equal([answer.status, error.errno, error.code], [400, 'EINVAL', 'bad_request'], what);
      assert.match(error.message, message, what);
    }
    assert.is(({} as { isAdmin?: boolean }).isAdmin, undefined);

    for (const [headers, status] of [
      [{ 'content-type': 'text/plain' }, 400],
      [{ 'content-type': 'application/x-www-form-urlencoded' }, 415],
      [{ 'content-type': ';;;' }, 415],
      [{}, 415],
      [{ 'content-type': 'application/json', 'content-encoding': 'gzip' }, 400],
    ] as const) {
      const answer = await post('name=ov1', headers);
      assertTyped(answer, JSON.stringify(headers));
      assert.is(answer.status, status);
    }
    await assertAnswer(post('', { 'content-type': 'application/json' }), 400, 'EINVAL', 'bad_request');
    await assertAnswer(post(Buffer.from([0xff, 0xfe, 0x7b])), 400, 'EINVAL', 'bad_request');
    const huge = JSON.stringify({ ...good, name: 'x'.repeat(CONTROL_BODY_BYTES_MAX) });
    await assertAnswer(post(huge), 413, 'EINVAL', 'bad_request', /too large/);

    // A lone surrogate is text, but in no name.
    const lone = JSON.stringify({ ...good, name: '\ud800' });
    await assertAnswer(post(lone), 400, 'EINVAL', 'bad_device_name');
    await assertAnswer(post(JSON.stringify({ ...good, encap: '\udfff' })), 404, 'ENOENT', 'no_such_encap');

    const put = (path: string, text: string) => call('PUT', `/v1/overlays/ov0/properties/${path}`, text);
    await assertAnswer(put('mtu', '{}'), 400, 'EINVAL', 'bad_request', /value/);
    await assertAnswer(put('mtu', '{"value":null}'), 400, 'EINVAL', 'bad_request', /value/);
    await assertAnswer(put('mtu', '{"value":1400,"x":1}'), 400, 'EINVAL', 'bad_request', /"x"/);
    await assertAnswer(
      put('mtu', '{"value":1400,"name":"ov1"}'),
      400,
      'EINVAL',
      'bad_request',
      /name is given twice/,
    );
    await assertAnswer(put('mtu?value=1300', '{"value":1400}'), 400, 'EINVAL', 'bad_request', /given twice/);
    await assertAnswer(put('%F0%9F%98%80', '{"value":1}'), 404, 'ENOENT', 'no_such_property');
    await assertAnswer(put('a%00b', '{"value":1}'), 404, 'ENOENT', 'no_such_property');
    const remove = (query: string) => call('DELETE', `/v1/overlays/ov0${query}`);
    await assertAnswer(remove('?force=yes'), 400, 'EINVAL', 'bad_request', /force/);
    await assertAnswer(remove('?force'), 400, 'EINVAL', 'bad_request', /force/);
    await assertAnswer(remove('?force=true&force=true'), 400, 'EINVAL', 'bad_request', /force/);
    await assertAnswer(remove('?forced=true'), 400, 'EINVAL', 'bad_request', /forced/);
    await assertAnswer(remove('?name=ov1'), 400, 'EINVAL', 'bad_request', /name is given twice/);
    await assertAnswer(remove('?__proto__=1'), 400, 'EINVAL', 'bad_request', /__proto__/);
    await assertAnswer(call('GET', '/v1/overlays?all=1'), 400, 'EINVAL', 'bad_request', /all/);

    assert.equal(memory.overlay.names, ['ov0']);
    assert.is(memory.overlay.property('ov0', 'mtu').value, 1400n);
  }),
);

control('paths and methods there are none of', () =>
  withRig(async ({ call }) => {
    for (const [method, path] of [
      ['GET', '/'],
      ['GET', '/v1'],
      ['GET', '/v2/overlays'],
      ['GET', '/v1/overlays/'],
      ['GET', '/v1/overlays/ov0/'],
      ['GET', '/v1/overlays/ov0/properties'],
      ['GET', '/v1/overlays/../../etc/passwd'],
      ['GET', '/V1/OVERLAYS'],
      ['POST', '/v1/stats'],
      ['PUT', '/v1/overlays/ov0'],
      ['PATCH', '/v1/overlays/ov0'],
      ['DELETE', '/v1/overlays'],
      ['OPTIONS', '/v1/overlays'],
    ] as const) {
      const answer = await call(method, path);
      const { errno } = assertTyped(answer, `${method} ${path}`);
      assert.equal([answer.status, errno], [404, 'ENOENT'], `${method} ${path}`);
    }
    for (const path of [
      '/v1/overlays/%',
      '/v1/overlays/%zz',
      '/v1/overlays/%ff',
      '/v1/overlays/%c0%80/status',
    ]) {
      await assertAnswer(call('GET', path), 400, 'EINVAL', 'bad_request');
    }
    assertTyped(await call('GET', `/v1/overlays/${'x'.repeat(256)}`), 'a name of 256');
    assertTyped(await call('GET', `/v1/overlays/${'x'.repeat(257)}`), 'a name of 257');
    assertTyped(await call('GET', `/v1/overlays/${'x'.repeat(10_000)}`), 'a name of 10,000');
  }),
);

/** Writes bytes to the socket and reads until the server closes. */
function converse(path: string, bytes: string | Buffer): Promise<string> {
  return new Promise((resolve, reject) => {
    const socket = connect(path);
    let text = '';
    socket.setEncoding('utf8').on('data', (part: string) => {
      text += part;
    });
    socket.on('error', reject);
    socket.on('close', () => resolve(text));
    socket.end(bytes);
  });
}

control('what is not HTTP is answered in the same form', () =>
  withRig(async ({ socket, client }) => {
    const garbage = [
      'hello\r\n\r\n',
      '\x16\x03\x01\x02\x00\x01\x00',
      'GET /v1/overlays HTTP/9.9\r\n\r\n',
      'FOO /v1/overlays HTTP/1.1\r\n\r\n',
      `GET /v1/overlays HTTP/1.1\r\nHost: x\r\nX: ${'x'.repeat(20_000)}\r\n\r\n`,
      'POST /v1/overlays HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello',
      'POST /v1/overlays HTTP/1.1\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n',
    ];
    for (const bytes of garbage) {
      const text = await converse(socket, bytes);
      const [head = '', body = ''] = text.split('\r\n\r\n');
      const status = Number(head.split(' ')[1]);
      assertTyped({ status, body: JSON.parse(body) }, bytes.slice(0, 60));
    }
    assert.is(await converse(socket, ''), '');
    await client.get('/v1/overlays');
  }),
);

control('callers that hang up in the middle, or say nothing, do no harm', () =>
  withRig(async ({ socket, client, memory }) => {
    const text = body('ov0', 1, 4789, { properties: {} });
    const head = 'POST /v1/overlays HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n';
    const whole = `${head}Content-Length: ${text.length}\r\n\r\n${text}`;
    for (let cut = 1; cut <= whole.length; cut += 7) {
      await new Promise<void>((resolve) => {
        const caller = connect(socket, () => {
          caller.write(whole.slice(0, cut), () => {
            caller.destroy();
            resolve();
          });
        });
      });
    }
    const idle: Socket[] = [];
    for (let i = 0; i < 40; i++) idle.push(connect(socket));
    await client.get('/v1/overlays');
    for (const each of idle) each.destroy();
    await client.get('/v1/overlays');
    assert.equal(memory.overlay.names, []);
  }),
);

// ─── Random requests ────────────────────────────────────────────────────────────────────────────────────

const fields = [
  'name',
  'encap',
  'search',
  'vnetid',
  'properties',
  'activate',
  'value',
  'force',
  '__proto__',
  'x',
];
const likely = fc.oneof(
  { weight: 3, arbitrary: fc.jsonValue({ maxDepth: 4 }) },
  { weight: 1, arbitrary: fc.string({ unit: 'binary' }) },
  {
    weight: 1,
    arbitrary: fc.constantFrom('vxlan', 'direct', 'a/b', 0, -1, 1e300, '\ud800', '0x10', null, {}),
  },
);
const texts = fc.oneof(
  {
    weight: 4,
    arbitrary: fc.dictionary(fc.constantFrom(...fields), likely).map((each) => JSON.stringify(each)),
  },
  { weight: 2, arbitrary: fc.json({ maxDepth: 6 }) },
  { weight: 1, arbitrary: fc.string({ unit: 'binary' }) },
  {
    weight: 1,
    arbitrary: fc
      .tuple(fc.json(), fc.nat(), fc.string({ maxLength: 3 }))
      .map(
        ([text, at, more]) =>
          text.slice(0, at % (text.length + 1)) + more + text.slice(at % (text.length + 1)),
      ),
  },
);
const segment = fc.oneof(
  fc.string({ unit: 'binary', maxLength: 20 }),
  fc.constantFrom('nope', '..', '%', '0', '-1'),
);
const writes = operations
  .filter(({ needs }) => needs === 'write')
  .map(({ method, path }) => ({ method, path }));

control('2,000 random requests: a typed error each, and the server lives', () =>
  withRig(async ({ call, client, memory }) => {
    await fc.assert(
      fc.asyncProperty(
        fc.constantFrom(...writes),
        segment,
        segment,
        texts,
        async ({ method, path }, name, property, text) => {
          const encoded = (part: string) =>
            part === '%' ? part : encodeURIComponent(part.toWellFormed()) || 'x';
          const where = path.replace(':name', encoded(name)).replace(/:property|:mac/, encoded(property));
          const answer = await call(method, where, text);
          assertTyped(answer, `${method} ${where} ${text}`);
        },
      ),
      { numRuns: 2000 },
    );
    await client.get('/v1/overlays');
    assert.equal(memory.overlay.names, []);
  }),
);

control('2,000 random values for a property of a device that is there: taken or EINVAL', () =>
  withRig(async ({ call, client, memory }) => {
    await client.post('/v1/overlays', { ...request('ov0', 1, 4789), properties: {}, activate: false });
    const property = fc.constantFrom(
      'mtu',
      'vnetid',
      'vxlan%2Flisten_ip',
      'vxlan%2Flisten_port',
      'direct%2Fdest_ip',
    );
    const value = fc.oneof(likely, fc.ipV4(), fc.ipV6(), fc.nat(70_000), fc.nat(70_000).map(String));
    let taken = 0;
    await fc.assert(
      fc.asyncProperty(property, value, async (which, given) => {
        const answer = await call(
          'PUT',
          `/v1/overlays/ov0/properties/${which}`,
          JSON.stringify({ value: given }),
        );
        if (answer.status === 200) taken++;
        else assert.is(assertTyped(answer, `${which} ${JSON.stringify(given)}`).errno, 'EINVAL');
      }),
      { numRuns: 2000 },
    );
    assert.ok(taken > 100, `${taken} were taken`);
    await client.get('/v1/overlays');
    assert.equal(memory.overlay.names, ['ov0']);
  }),
);

control('many clients at a time are all answered', () =>
  withRig(async ({ client, memory }) => {
    const port = await freePort(HERE);
    const answers = await Promise.allSettled(
      Array.from({ length: 50 }, (_, index) =>
        client.post('/v1/overlays', request(`ov${index % 10}`, index % 10, port)),
      ),
    );
    assert.is(answers.filter(({ status }) => status === 'fulfilled').length, 10);
    for (const answer of answers) {
      if (answer.status === 'rejected')
        await assertRefused(Promise.reject(answer.reason), 'EEXIST', 'device_exists');
    }
    assert.is(memory.overlay.names.length, 10);
    await Promise.all(memory.overlay.names.map((name) => client.delete(`/v1/overlays/${name}`)));
    assert.equal(memory.overlay.names, []);
  }),
);

// ─── Other users; who may do what is in test/rights.ts ──────────────────────────────────────────────────────────────────────────────────────

/** A client that prints status and body, for another user to run. */
const otherClient = `
  const [socketPath, method, path, body] = process.argv.slice(1);
  const headers = body ? { 'content-type': 'application/json' } : {};
  require('node:http').request({ socketPath, method, path, headers }, (response) => {
    let text = '';
    response.on('data', (part) => { text += part; });
    response.on('end', () => {
      console.log(JSON.stringify({ status: response.statusCode, body: JSON.parse(text) }));
    });
  }).end(body);
`;

function callAs(uid: number, socket: string, method: string, path: string, text = ''): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, ['-e', otherClient, socket, method, path, text], {
      uid,
      gid: uid,
      cwd: '/',
      stdio: ['ignore', 'pipe', 'inherit'],
      timeout: 10_000,
    });
    let output = '';
    child.stdout.setEncoding('utf8').on('data', (part: string) => {
      output += part;
    });
    child.on('error', reject);
    child.on('close', (code) => {
      if (code === 0) resolve(JSON.parse(output));
      else reject(new Error(`the client ended with ${code}`));
    });
  });
}

/** Opens connections and keeps them, asks on one more, and closes one and asks again. */
const hoggingClient = `
  const { connect } = require('node:net');
  const { request } = require('node:http');
  const [socketPath, count] = process.argv.slice(1);
  const held = Array.from({ length: Number(count) }, () => connect(socketPath));
  const ask = () => new Promise((resolve) => {
    const call = request({ socketPath, path: '/v1/overlays', agent: false }, (response) => {
      let text = '';
      response.on('data', (part) => { text += part; });
      response.on('end', () => resolve({ status: response.statusCode, body: JSON.parse(text) }));
    });
    call.on('error', (error) => resolve({ status: 0, body: error.code }));
    call.end();
  });
  Promise.all(held.map((each) => new Promise((resolve) => each.once('connect', resolve)))).then(async () => {
    const refused = await ask();
    held.pop().destroy();
    await new Promise((resolve) => setTimeout(resolve, 100));
    console.log(JSON.stringify({ refused, taken: await ask() }));
    process.stdin.once('data', () => process.exit(0));
  });
`;

testWith(control, ['root'], 'a user who may only look has 16 connections, all of them together 48', () =>
  withRig(async ({ client, socket }) => {
    const hogs: ChildProcess[] = [];
    try {
      for (const uid of [1, 2, 3, 4]) {
        const hog = spawn(process.execPath, ['-e', hoggingClient, socket, '16'], {
          uid,
          gid: NOBODY,
          cwd: '/',
          stdio: ['pipe', 'pipe', 'inherit'],
        });
        hogs.push(hog);
        const [output] = await once(hog.stdout, 'data');
        const { refused, taken } = JSON.parse(String(output)) as { refused: Answer; taken: Answer };
        await assertAnswer(Promise.resolve(refused), 503, 'EAGAIN', 'too_many_connections', /close some/);
        // The first three keep 15 each, and the fourth finds no more than 3 of the 48.
        if (uid < 4) assert.is(taken.status, 200, `user ${uid}`);
        else await assertAnswer(Promise.resolve(taken), 503, 'EAGAIN', 'too_many_connections');
      }
      const own = Array.from({ length: 10 }, () => connect(socket));
      await client.get('/v1/overlays');
      for (const each of own) each.destroy();
      await client.post('/v1/overlays', { ...request('ov0', 1, 4789), properties: {}, activate: false });
    } finally {
      const ends = hogs.map((hog) => once(hog, 'exit'));
      for (const hog of hogs) hog.stdin!.end('\n');
      await Promise.all(ends);
    }
    await until('the places are free again', 1000, async () => {
      return (await callAs(NOBODY, socket, 'GET', '/v1/overlays')).status === 200;
    });
  }),
);

// ─── The socket ─────────────────────────────────────────────────────────────────────────────────────────

const quiet: Log = { debug: () => {}, info: () => {}, warn: () => {}, error: () => {} };

control('a second server on the socket is refused, and the first goes on', () =>
  withRig(async ({ memory, socket, client }) => {
    assert.is(statSync(socket).mode & 0o777, 0o666);
    await assertRefused(
      ControlServer.start(memory.overlay, socket, quiet),
      'EADDRINUSE',
      'socket_in_use',
      /another daemon answers on .*--socket/,
    );
    await client.get('/v1/overlays');
  }),
);

control('the socket of a dead daemon is replaced; a directory of it is made where needed', () =>
  withRig(async ({ memory, directory }) => {
    const path = join(directory, 'sub', 'deeper', 'socket');
    mkdirSync(join(directory, 'sub', 'deeper'), { recursive: true });
    const dying = `
      const die = () => process.kill(process.pid, 'SIGKILL');
      require('node:net').createServer().listen(process.argv[1], die);
    `;
    spawnSync(process.execPath, ['-e', dying, path]);
    assert.ok(statSync(path).isSocket());
    await assertRefused(new ControlClient(path).get('/v1/overlays'), 'ECONNREFUSED', 'daemon_unreachable');
    for (const each of [path, join(directory, 'new', 'er', 'socket')]) {
      const server = await ControlServer.start(memory.overlay, each, quiet);
      await new ControlClient(each).get('/v1/overlays');
      await server.close();
      assert.throws(() => statSync(each), /ENOENT/, 'a server that stops takes its socket along');
    }
  }),
);

control('a file, a directory or no place for the socket: refused, and nothing is touched', () =>
  withRig(async ({ memory, directory }) => {
    const file = join(directory, 'file');
    writeFileSync(file, 'precious');
    const start = (path: string) => ControlServer.start(memory.overlay, path, quiet);
    await assertRefused(start(file), 'EEXIST', 'not_a_socket', /choose another --socket/);
    assert.is(readFileSync(file, 'utf8'), 'precious');
    await assertRefused(start(directory), 'EEXIST', 'not_a_socket');
    await assertRefused(start(join(file, 'socket')), 'EEXIST', 'socket_failed', /see --socket/);
  }),
);

// ─── The client ─────────────────────────────────────────────────────────────────────────────────────────

control('the client: no daemon, and what is no daemon', async () => {
  const directory = temporaryDirectory();
  const path = join(directory, 'socket');
  try {
    await assertRefused(
      new ControlClient(path).get('/v1/overlays'),
      'ECONNREFUSED',
      'daemon_unreachable',
      /no daemon answers on .*socket: start overlayd/,
    );
    for (const [answer, errno, code] of [
      ['HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello', 'EIO', 'bad_answer'],
      ['SSH-2.0-OpenSSH\r\n', 'ECONNREFUSED', 'daemon_unreachable'],
      // There was somebody, who may have done it.
      ['', 'ECONNRESET', 'no_answer'],
    ] as const) {
      const impostor = createServer((socket) => {
        socket.on('error', () => {});
        socket.resume();
        socket.end(answer);
      });
      await new Promise<void>((resolve) => impostor.listen(path, resolve));
      await assertRefused(new ControlClient(path).get('/v1/overlays'), errno, code);
      await new Promise((resolve) => impostor.close(resolve));
    }
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
});

control(
  'the client gives up before the server does: a time-out is never taken for a daemon that is gone',
  () =>
    withRig(async ({ client }) => {
      // Node tells of each request and of the server it is for.
      const started = channel('http.server.request.start');
      const limits: number[] = [];
      const look = (message: unknown) => {
        const { server, socket } = message as { server: Server; socket: Socket };
        limits.push(server.timeout, server.keepAliveTimeout, socket.timeout ?? 0);
      };
      started.subscribe(look);
      try {
        await client.get('/v1/overlays');
      } finally {
        started.unsubscribe(look);
      }
      assert.is(limits.length, 3);
      for (const ms of limits) assert.ok(ms > CONTROL_REQUEST_MS_MAX, `${limits}`);
    }),
);

control('a server that stops lets go of its callers', async () => {
  const memory = await MemoryOverlay.start();
  const directory = temporaryDirectory();
  try {
    const path = join(directory, 'socket');
    const server = await ControlServer.start(memory.overlay, path, quiet);
    const idle = connect(path);
    await new Promise((resolve) => idle.once('connect', resolve));
    let isClosed = false;
    idle.on('close', () => {
      isClosed = true;
    });
    idle.resume();
    const begun = performance.now();
    await server.close();
    assert.ok(performance.now() - begun < 1000, 'it does not wait for them');
    await until('the idle caller is let go', 1000, () => isClosed);
  } finally {
    await memory.close();
    rmSync(directory, { recursive: true, force: true });
  }
});

control.run();
