/** The target cache over the control API, without any handle: what is shown, set, removed, and refused. */
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import type { OverlayView, TargetJson, TargetsPage } from '../src/control/view.js';
import { formatMac, parseMac } from '../src/target/mac.js';
import { assertAnswer, type Rig, withRig } from './harness/control-rig.js';
import { frameTo } from './harness/frame-to.js';
import { HandleClient } from './harness/handle-client.js';
import { until } from './harness/hosts.js';
import { assertRefused, freePort, request } from './harness/memory-overlay.js';
import { DAY_MS, withSteppedClock } from './harness/wall-clock.js';

const cache = suite('cache API');
const HERE = '127.0.0.1';
const MAC = '02:08:20:01:02:03';
const path = '/v1/overlays/ov0/targets';
const one = { version: 1 };

/** ov0 is DYNAMIC and started, ov1 POINT and activated, ov2 waits for its association. */
function withDevices(work: (rig: Rig) => Promise<void>): Promise<void> {
  return withRig(async (rig) => {
    const port = await freePort(HERE);
    const handle = await HandleClient.open(rig.socket, true);
    try {
      const properties = { 'vxlan/listen_ip': HERE, 'vxlan/listen_port': port };
      const dynamic = { encap: 'vxlan', search: 'external', properties };
      await rig.client.post('/v1/overlays', { name: 'ov0', vnetid: 1, ...dynamic });
      await rig.client.post('/v1/overlays', request('ov1', 2, port));
      await rig.client.post('/v1/overlays', { name: 'ov2', vnetid: 3, ...dynamic });
      await handle.call('associate', { overlay: 'ov0', mode: 'dynamic' });
      await rig.memory.up('ov0');
      await work(rig);
    } finally {
      handle.cut();
    }
  });
}

const targetOf = async ({ client }: Rig, mac: string): Promise<TargetJson> =>
  (await client.get<{ target: TargetJson }>(`${path}/${mac}`)).target;

cache('set, show, set again, drop, remove', () =>
  withDevices(async (rig) => {
    const { client, memory } = rig;
    assert.equal(await client.get(path), { ...one, targets: [], next: null });
    assert.equal(await client.put(`${path}/2:8:20:1:2:3`, { to: '192.0.2.9:4789' }), one);
    await until('it is valid', 2000, async () => (await targetOf(rig, MAC)).state === 'valid');
    const { age, ...target } = await targetOf(rig, '2-8-20-1-2-3');
    assert.equal(target, {
      target: MAC,
      state: 'valid',
      to: { ip: '192.0.2.9', port: 4789 },
      destination: '192.0.2.9:4789',
      source: 'operator',
      frames: 0,
      bytes: 0,
      path_mtu: null,
      path_probe: null,
      last_use: null,
    });
    assert.ok(age >= 0 && age < 60, `${age} s`);

    const routes: [to: unknown, destination: string][] = [
      [{ ip: '192.0.2.9', port: 1 }, '192.0.2.9:1'],
      ['[::ffff:192.0.2.7]:4789', '192.0.2.7:4789'],
      [{ ip: '::FFFF:192.0.2.8', port: 4789 }, '192.0.2.8:4789'],
      ['::ffff:192.0.2.1', ''],
      [{ replicate: ['192.0.2.1:1', { ip: '192.0.2.2', port: 2 }] }, 'replicate{192.0.2.1:1 192.0.2.2:2}'],
      [{ spread: ['192.0.2.1:1', '192.0.2.2:2'] }, 'spread{192.0.2.1:1 192.0.2.2:2}'],
      ['drop', 'drop'],
      ['192.0.2.9:4789', '192.0.2.9:4789'],
    ];
    for (const [to, destination] of routes) {
      if (destination === '') {
        await assertRefused(client.put(`${path}/${MAC}`, { to }), 'EINVAL', 'bad_destination');
        continue;
      }
      await client.put(`${path}/${MAC}`, { to });
      const shown = await targetOf(rig, MAC);
      assert.is(shown.destination, destination);
      // What is shown can be set.
      await client.put(`${path}/${MAC}`, { to: shown.to as object });
      assert.is((await targetOf(rig, MAC)).destination, destination);
    }
    assert.equal(await client.delete(`${path}/${MAC}`), one);
    await assertRefused(client.delete(`${path}/${MAC}`), 'ENOENT', 'no_such_target');
    await assertRefused(client.get(`${path}/${MAC}`), 'ENOENT', 'no_such_target');
    assert.is(memory.overlay.cacheStats('ov0')!.targets, 0);
  }),
);

cache('frames, bytes and the last use are counted', () =>
  withDevices(async (rig) => {
    await rig.client.put(`${path}/${MAC}`, { to: '127.0.0.2:9' });
    await until('it is valid', 2000, async () => (await targetOf(rig, MAC)).state === 'valid');
    const link = rig.memory.links.get('ov0').port;
    for (const number of [1, 2, 3]) assert.ok(link.send(0, frameTo(MAC, number)));
    await until('they are sent', 2000, async () => (await targetOf(rig, MAC)).frames === 3);
    const { bytes, last_use } = await targetOf(rig, MAC);
    assert.is(bytes, 3 * frameTo(MAC, 1).length);
    assert.match(last_use!, /^20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.000Z$/);
    const isNow = (text: string | null) => Math.abs(Date.now() - Date.parse(text!)) < 10_000;
    assert.ok(isNow(last_use));
    // The wall clock is put right: a moment ago is still a moment ago.
    await withSteppedClock(async (stepTo) => {
      for (const byMs of [DAY_MS, -DAY_MS]) {
        stepTo(byMs);
        const { last_use, age } = await targetOf(rig, MAC);
        assert.ok(isNow(last_use) && age < 10);
      }
    });
  }),
);

cache('a target that is asked about is shown as pending, with what is held for the device', () =>
  withDevices(async (rig) => {
    const link = rig.memory.links.get('ov0').port;
    link.send(0, frameTo(MAC, 1));
    await until('it is asked about', 2000, () => rig.memory.overlay.cacheStats('ov0')!.requests === 1);
    const { targets } = await rig.client.get<TargetsPage>(path);
    assert.equal(
      targets.map(({ target, state, to, destination }) => [target, state, to, destination]),
      [[MAC, 'pending', null, null]],
    );
    const { overlays } = await rig.client.get<{ overlays: Record<string, OverlayView> }>('/v1/overlays');
    const held_bytes = 10 + frameTo(MAC, 1).length;
    assert.equal(overlays.ov0!.requests, { targets: 1, requests: 1, held_frames: 1, held_bytes });
    assert.equal([overlays.ov1!.requests, overlays.ov2!.requests], [null, null]);
    assert.equal(overlays.ov1!.targets.length, 1);
    assert.equal(overlays.ov2!.targets, []);
    assert.equal(overlays.ov2!.destination_kinds, ['ip', 'port']);
  }),
);

cache('pages: 500 a page, each target once; the views show the first and say that there are more', () =>
  withDevices(async ({ client, memory }) => {
    const first = parseMac('02:08:20:00:00:00');
    const all = Array.from({ length: 1234 }, (_, index) => formatMac(first + 3 * index));
    for (const mac of all) memory.overlay.cacheSet('ov0', parseMac(mac), 'drop');
    for (const count of [undefined, 1000 / 4, 7]) {
      const seen: string[] = [];
      let marker: string | null = '0:0:0:0:0:0';
      while (marker !== null) {
        const query: string = count === undefined ? '' : `&count=${count}`;
        const page: TargetsPage = await client.get(`${path}?marker=${marker}${query}`);
        assert.ok(page.targets.length <= (count ?? 500));
        seen.push(...page.targets.map(({ target }) => target));
        marker = page.next;
      }
      assert.equal(seen, all, `pages of ${count}`);
    }
    for (const where of ['/v1/overlays', '/v1/overlays/ov0']) {
      const { ov0 } = (await client.get<{ overlays: Record<string, OverlayView> }>(where)).overlays;
      assert.equal([ov0!.targets.length, ov0!.targets_more], [500, true], where);
      assert.equal(ov0!.targets[499]!.target, all[499]);
      assert.is(ov0!.requests!.targets, 1234);
    }
    // From a marker on, whether or not it is there.
    const next = await client.get<TargetsPage>(`${path}?marker=${formatMac(first + 1)}&count=1`);
    assert.equal([next.targets[0]!.target, next.next], [all[1], all[2]]);

    assert.equal(await client.delete(path), one);
    assert.equal(await client.get(path), { ...one, targets: [], next: null });
    assert.equal(await client.delete(path), one, 'flushing nothing is no error');
  }),
);

cache('a list of all devices is bounded, however many targets they have', () =>
  withDevices(async ({ client, memory }) => {
    const properties = { 'vxlan/listen_ip': HERE, 'vxlan/listen_port': 4789 };
    for (let index = 3; index < 60; index++) {
      const asked = { name: `ov${index}`, vnetid: 100 + index, encap: 'vxlan', search: 'external' };
      await client.post('/v1/overlays', { ...asked, properties });
    }
    for (let mac = 1; mac <= 600; mac++) memory.overlay.cacheSet('ov0', mac, 'drop');
    const { ov0, ov1 } = (await client.get<{ overlays: Record<string, OverlayView> }>('/v1/overlays'))
      .overlays;
    assert.equal([ov0!.targets.length, ov0!.targets_more], [Math.floor(5000 / 60), true]);
    assert.equal([ov1!.targets.length, ov1!.targets_more], [1, false]);
  }),
);

cache('every refusal', () =>
  withDevices(async ({ call }) => {
    const put = (where: string, to: unknown) => call('PUT', where, JSON.stringify({ to }));
    const target = `${path}/${MAC}`;
    const bad = (to: unknown, code: string) => assertAnswer(put(target, to), 400, 'EINVAL', code);
    for (const to of ['', 'x', 'DROP', '192.0.2.1', '192.0.2.1:', ':1', '[::1]', '192.0.2.1:0', '::1:4789']) {
      await bad(to, 'bad_destination');
    }
    for (const to of ['192.0.2.1:65536', '192.0.2:1', '0.0.0.0:1', '[::]:1', '[2002::1]:1', '192.0.2.1:1x']) {
      await bad(to, 'bad_destination');
    }
    for (const to of [{}, { ip: '192.0.2.1' }, { port: 1 }, { ip: '::', port: 1 }, { replicate: [] }]) {
      await bad(to, 'bad_destination');
    }
    await bad({ ip: 'x', port: 1 }, 'bad_address');
    await bad({ spread: Array(1025).fill('192.0.2.1:1') }, 'bad_destination');
    for (const to of [undefined, null, 1, [], ['192.0.2.1:1'], { drop: true }, { spread: 'x' }]) {
      await bad(to, 'bad_request');
    }
    await bad({ replicate: ['192.0.2.1:1'], spread: [] }, 'bad_request');
    await bad('x'.repeat(2000), 'bad_request');
    const huge = { replicate: Array(1024).fill('x'.repeat(300)) };
    await assertAnswer(put(target, huge), 413, 'EINVAL', 'bad_request', /too large/);

    for (const mac of ['x', '1:2:3:4:5', '1:2:3:4:5:6:7', '1:2:3:4:5:100', '::::::', 'ff', '*:*:*:*:*:*']) {
      const where = `${path}/${encodeURIComponent(mac)}`;
      await assertAnswer(put(where, 'drop'), 400, 'EINVAL', 'bad_mac', /such as 2:8:20:1:2:3/);
      await assertAnswer(call('GET', where), 400, 'EINVAL', 'bad_mac');
      await assertAnswer(call('DELETE', where), 400, 'EINVAL', 'bad_mac');
    }
    const get = (query: string) => call('GET', `${path}?${query}`);
    await assertAnswer(get('marker=x'), 400, 'EINVAL', 'bad_mac');
    await assertAnswer(get('count=0'), 400, 'EINVAL', 'bad_count');
    await assertAnswer(get('count=501'), 413, 'E2BIG', 'count_too_big');
    await assertAnswer(call('GET', '/v1/overlays/nope/targets?count=501'), 413, 'E2BIG', 'count_too_big');
    for (const query of ['count=-1', 'count=1.5', 'count=', 'count=x', 'count=1&count=2', 'colour=red']) {
      await assertAnswer(get(query), 400, 'EINVAL', 'bad_request');
    }

    const drop = '{"to":"drop"}';
    for (const [name, status, errno, code] of [
      ['nope', 404, 'ENOENT', 'no_such_device'],
      ['ov2', 409, 'ENXIO', 'not_associated'],
      ['ov1', 422, 'ENOTSUP', 'not_dynamic'],
    ] as const) {
      const where = `/v1/overlays/${name}/targets`;
      await assertAnswer(call('PUT', `${where}/${MAC}`, drop), status, errno, code);
      await assertAnswer(call('DELETE', `${where}/${MAC}`), status, errno, code);
      await assertAnswer(call('DELETE', where), status, errno, code);
      if (name === 'ov1') continue;
      await assertAnswer(call('GET', `${where}/${MAC}`), status, errno, code);
      await assertAnswer(call('GET', where), status, errno, code);
    }
  }),
);

cache.run();
