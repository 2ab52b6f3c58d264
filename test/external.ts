/** The external handle over the socket: every call with every error, who may, and a program in another language. */
import { type ChildProcess, spawn } from 'node:child_process';
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { join } from 'node:path';
import * as fc from 'fast-check';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { VNET_HDR_BYTES } from '../assembly/layout.js';
import { calls } from '../src/control/calls.js';
import type { OverlayView, TargetJson } from '../src/control/view.js';
import { inNamespace } from '../src/sys/netns.js';
import { parseMac } from '../src/target/mac.js';
import { assertAnswer, assertTyped, callSocket, type Rig, withRig } from './harness/control-rig.js';
import { frameTo, numberOf } from './harness/frame-to.js';
import { HandleClient } from './harness/handle-client.js';
import { type Daemon, Hosts, underlay, until } from './harness/hosts.js';
import { assertRefused, freePort, request as pointRequest } from './harness/memory-overlay.js';
import { testWith } from './harness/needs.js';
import { SuperFrames } from './harness/super-frames.js';
import { Xorshift } from './harness/xorshift.js';
import * as frames from './reference/frames.js';
import { segmentFrame } from './reference/segment.js';
import { readVnetHeader } from './reference/vnet-hdr.js';

const external = suite('external handle');
const HERE = '127.0.0.1';
const PEER = '127.0.0.2';
const MAC = '02:08:20:00:00:07';
const OTHER = '02:08:20:00:00:08';
const BROADCAST = 'ff:ff:ff:ff:ff:ff';
const NOBODY = 65534;

const base64 = (frame: Uint8Array) => Buffer.from(frame).toString('base64');

// ─── Over the socket ────────────────────────────────────────────────────────────────────────────────────

/** Somebody the overlay sends to: what arrives, as inner frames. */
class Peer {
  readonly frames: Uint8Array[] = [];
  readonly #socket = createSocket('udp4');

  static async listen(port: number): Promise<Peer> {
    const peer = new Peer();
    peer.#socket.on('message', (datagram) => peer.frames.push(new Uint8Array(datagram.subarray(8))));
    peer.#socket.bind(port, PEER);
    await once(peer.#socket, 'listening');
    return peer;
  }

  async arrived(count: number): Promise<number[]> {
    await until(`${count} frames arrive`, 3000, () => this.frames.length >= count);
    return this.frames.map(numberOf);
  }

  close(): void {
    this.#socket.close();
  }
}

/** An external device that is up, a writer on the handle, and whoever it sends to. */
interface Scene extends Rig {
  readonly handle: HandleClient;
  readonly peer: Peer;
  readonly port: number;
  readonly to: string;
  /** From a guest of the device. */
  send(...frames: Uint8Array[]): void;
}

const externalRequest = (name: string, vnetid: number, port: number, properties: object = {}) => ({
  name,
  encap: 'vxlan',
  search: 'external',
  vnetid,
  properties: { 'vxlan/listen_ip': HERE, 'vxlan/listen_port': port, ...properties },
});

function withScene(work: (scene: Scene) => Promise<void>): Promise<void> {
  return withRig(async (rig) => {
    const port = await freePort(HERE);
    const peer = await Peer.listen(port);
    const handle = await HandleClient.open(rig.socket, true);
    try {
      await rig.client.post('/v1/overlays', externalRequest('ov0', 42, port));
      await handle.call('associate', { overlay: 'ov0', mode: 'dynamic' });
      await rig.memory.up('ov0');
      const link = rig.memory.links.get('ov0').port;
      const send = (...sent: Uint8Array[]) => {
        for (const frame of sent) assert.ok(link.send(0, frame));
      };
      await work({ ...rig, handle, peer, port, to: `${PEER}:${port}`, send });
    } finally {
      handle.cut();
      peer.close();
    }
  });
}

external('opening: a token a handle, one writer, any number of readers, closed with the connection', () =>
  withRig(async ({ socket, call, memory }) => {
    const writer = await HandleClient.open(socket, true);
    assert.match(writer.token, /^[0-9a-f]{32}$/);
    assert.equal(writer.lines, [{ version: 1, token: writer.token }]);
    assert.is(memory.overlay.varpd.external.hasWriter, true);
    await assertRefused(HandleClient.open(socket, true), 'EEXIST', 'writer_exists');
    const readers = await Promise.all(Array.from({ length: 10 }, () => HandleClient.open(socket, false)));
    assert.is(new Set([writer, ...readers].map(({ token }) => token)).size, 11);
    for (const each of readers) assert.equal(await each.call('list'), { version: 1, total: 0, overlays: [] });

    for (const text of ['{}', '{"write":"yes"}', '{"write":true,"x":1}', '[]', '{']) {
      await assertAnswer(call('POST', '/v1/handle', text), 400, 'EINVAL', 'bad_request');
    }
    await assertAnswer(call('POST', '/v1/handle'), 400, 'EINVAL', 'bad_request');
    for (const method of ['GET', 'PUT', 'DELETE']) {
      await assertAnswer(call(method, '/v1/handle'), 404, 'ENOENT', 'no_such_operation');
    }

    writer.cut();
    await until('the handle is closed', 1000, () => !memory.overlay.varpd.external.hasWriter);
    await assertRefused(writer.call('list'), 'EBADF', 'no_such_handle');
    const heir = await HandleClient.open(socket, true);
    await heir.call('list');
    for (const each of [heir, ...readers]) each.cut();
    await until('closed as well', 1000, () => !memory.overlay.varpd.external.hasWriter);
  }),
);

external('callers that open a handle and hang up at once leave none behind', () =>
  withRig(async ({ socket, memory }) => {
    for (let count = 0; count < 50; count++) {
      HandleClient.open(socket, true).then(
        (handle) => handle.cut(),
        () => {},
      );
    }
    await until('a writer can open it', 2000, async () => {
      try {
        (await HandleClient.open(socket, true)).cut();
        return true;
      } catch {
        return false;
      }
    });
    await until('and closes', 2000, () => !memory.overlay.varpd.external.hasWriter);
  }),
);

external('which handle may what: no token, a reader, no such call', () =>
  withScene(async ({ socket, call }) => {
    const json = { 'content-type': 'application/json' };
    for (const headers of [
      json,
      { ...json, 'overlay-handle': '' },
      { ...json, 'overlay-handle': '0'.repeat(32) },
      { ...json, 'overlay-handle': '__proto__' },
    ]) {
      for (const text of ['{}', '{"x":1}', 'no json']) {
        const answer = call('POST', '/v1/handle/list', text, headers);
        await assertAnswer(answer, 403, 'EBADF', 'no_such_handle', /keep its connection/);
      }
    }
    const reader = await HandleClient.open(socket, false);
    const asReader = { ...json, 'overlay-handle': reader.token };
    for (const { name, needsWriteHandle } of calls) {
      const answer = await call('POST', `/v1/handle/${name}`, '{"x":1}', asReader);
      const expected = needsWriteHandle ? ['EBADF', 'handle_read_only'] : ['EINVAL', 'bad_request'];
      const { errno, code } = assertTyped(answer, name);
      assert.equal([errno, code], expected, name);
    }
    for (const name of ['nope', 'constructor', 'LIST', '%20']) {
      const answer = call('POST', `/v1/handle/${name}`, '{}', asReader);
      await assertAnswer(answer, 404, 'ENOTTY', 'no_such_call', /there are: info, associate/);
    }
    reader.cut();
  }),
);

external('a frame to an unknown address: asked, shown, answered, and those behind it in order', () =>
  withScene(async ({ handle, peer, port, to, send, client, memory }) => {
    send(frameTo(MAC, 1), frameTo(MAC, 2), frameTo(MAC, 3));
    const { id, ...asked } = await handle.lookup();
    assert.equal(asked, {
      version: 1,
      overlay: 'ov0',
      vnetid: 42,
      source: '02:00:00:00:00:01',
      destination: MAC,
      kind: 'unicast',
      ether_type: 0x0800,
      is_dhcp: false,
      vlan: 0,
      header_bytes: 14,
      payload_bytes: frameTo(MAC, 1).length - 14,
    });
    await until('all are held', 1000, () => memory.overlay.cacheStats('ov0')!.heldFrames === 3);
    const info = await handle.call<{ requests: object }>('info', { overlay: 'ov0' });
    assert.equal(info, {
      version: 1,
      overlay: 'ov0',
      vnetid: 42,
      needs: ['ip', 'port'],
      active: true,
      degraded: false,
      requests: {
        targets: 1,
        requests: 1,
        held_frames: 3,
        held_bytes: 3 * (VNET_HDR_BYTES + frameTo(MAC, 1).length),
      },
    });
    const shown = await client.get<{ overlays: { ov0: object } }>('/v1/overlays/ov0');
    assert.equal((shown.overlays.ov0 as { requests: object }).requests, info.requests);

    const packet = await handle.call<{ frame: string }>('packet', { request: id });
    assert.equal(packet, {
      version: 1,
      frame: base64(frameTo(MAC, 1)),
      size: frameTo(MAC, 1).length,
      frame_bytes: frameTo(MAC, 1).length,
      vnet_hdr: { flags: 0, gso_type: 0, hdr_len: 0, gso_size: 0, csum_start: 0, csum_offset: 0 },
    });
    const cut = await handle.call<{ frame: string; size: number }>('packet', { request: id, size: 14 });
    assert.equal([cut.size, cut.frame], [14, base64(frameTo(MAC, 1).subarray(0, 14))]);
    assert.is((await handle.call<{ size: number }>('packet', { request: id, size: 0 })).size, 0);

    await handle.call('respond', { request: id, to });
    send(frameTo(MAC, 4));
    assert.equal(await peer.arrived(4), [1, 2, 3, 4]);
    await assertRefused(handle.call('respond', { request: id, to }), 'EINVAL', 'request_not_outstanding');
    const { target } = await handle.call<{ target: TargetJson }>('cache-get', { overlay: 'ov0', mac: MAC });
    assert.equal(
      [target.target, target.destination, target.to, target.source],
      [MAC, to, { ip: PEER, port }, 'lookup'],
    );
    await assertRefused(handle.lookup(0), 'ETIME', 'no_request');
  }),
);

external(
  'a super-frame to an unknown address: held and described as the link gave it, cut when it is answered',
  () =>
    withScene(async ({ handle, peer, to, memory }) => {
      const records = new SuperFrames(new Xorshift(5));
      let record = records.superFrame();
      let segments = segmentFrame(record) ?? [];
      const isFit = () => segments.length > 5 && segments.every(({ length }) => length <= 1414);
      while (!isFit() || (record[10]! & 1) !== 0) {
        record = records.superFrame();
        segments = segmentFrame(record) ?? [];
      }
      const { flags, gsoType, headerBytes, gsoSize, csumStart, csumOffset } = readVnetHeader(record)!;
      assert.ok(memory.links.get('ov0').port.sendRaw(0, record));
      const { id } = await handle.lookup();
      const frame = record.subarray(VNET_HDR_BYTES);
      assert.equal(await handle.call('packet', { request: id }), {
        version: 1,
        frame: base64(frame),
        size: frame.length,
        frame_bytes: frame.length,
        vnet_hdr: {
          flags,
          gso_type: gsoType,
          hdr_len: headerBytes,
          gso_size: gsoSize,
          csum_start: csumStart,
          csum_offset: csumOffset,
        },
      });
      await handle.call('respond', { request: id, to });
      await until('all segments arrive', 3000, () => peer.frames.length >= segments.length);
      assert.equal(peer.frames.map(base64), segments.map(base64));
    }),
);

external('the forms of a destination in an answer; a bad one is refused, and the request stays', () =>
  withScene(async ({ handle, peer, port, to, send }) => {
    const good = [
      to,
      { ip: PEER, port },
      { replicate: [to] },
      { replicate: [to, { ip: PEER, port }] },
      { spread: [to, { ip: PEER, port }] },
    ];
    for (const [index, given] of good.entries()) {
      const mac = `02:08:20:00:01:0${index}`;
      send(frameTo(mac, index));
      const { id } = await handle.lookup();
      for (const bad of [
        '',
        'drop',
        PEER,
        `${PEER}:0`,
        `${PEER}:65536`,
        ':4789',
        '0.0.0.0:4789',
        `${MAC},${to}`,
        'localhost:4789',
        '[::1:4789',
        {},
        { ip: PEER },
        { port },
        { ip: PEER, port: 0 },
        { ip: PEER, port: 1.5 },
        { ip: PEER, port: '1' },
        { ip: PEER, port, mac: MAC },
        { ip: PEER, port, x: 1 },
        { replicate: [] },
        { replicate: [to], spread: [to] },
        { spread: [to, PEER] },
        { replicate: Array(1025).fill(to) },
        [to],
        null,
        1,
      ]) {
        const error = await assertRefused(
          handle.call('respond', { request: id, to: bad }),
          'EINVAL',
          bad === null || typeof bad === 'number' || Array.isArray(bad) ? 'bad_request' : errorCodeOf(bad),
        );
        assert.match(error.message, /\S \S/, JSON.stringify(bad));
      }
      await handle.call('respond', { request: id, to: given });
      const arrivals = index === 3 ? 2 : 1;
      const before = peer.frames.filter((frame) => numberOf(frame) === index).length;
      assert.ok(before <= arrivals);
      await until('it arrives', 3000, () => {
        return peer.frames.filter((frame) => numberOf(frame) === index).length >= 1;
      });
    }
  }),
);

/** What is wrong with the form is a bad request, what is wrong with the destination a bad destination. */
function errorCodeOf(bad: unknown): string {
  const text = JSON.stringify(bad);
  const isForm = /"x"|"port":"1"|"replicate":\[.*"spread"/.test(text);
  return isForm ? 'bad_request' : 'bad_destination';
}

external('a list as long as there may be fits in a request', () =>
  withScene(async ({ handle, send }) => {
    send(frameTo(MAC, 1));
    const { id } = await handle.lookup();
    const many = Array.from({ length: 1024 }, (_, index) => ({
      ip: `10.0.${index >> 8}.${index & 255}`,
      port: 4789,
    })).slice(1);
    await handle.call('respond', { request: id, to: { spread: [{ ip: PEER, port: 4789 }, ...many] } });
  }),
);

external('drop frees one frame and asks for the next; unknown frees them all; proxied is no drop', () =>
  withScene(async ({ handle, send, memory }) => {
    const drops = () => memory.overlay.deviceStats('ov0').counts.drops.tx_lookup_drop;
    send(frameTo(BROADCAST, 1), frameTo(BROADCAST, 2), frameTo(BROADCAST, 3));
    const first = await handle.lookup();
    await until('all are held', 1000, () => memory.overlay.cacheStats('ov0')!.heldFrames === 3);
    const ids = [first.id];
    await handle.call('drop', { request: first.id });
    for (const number of [2, 3]) {
      const next = await handle.lookup();
      ids.push(next.id);
      const { frame } = await handle.call<{ frame: string }>('packet', { request: next.id });
      assert.is(numberOf(new Uint8Array(Buffer.from(frame, 'base64'))), number);
      await handle.call('drop', { request: next.id, as: number === 2 ? 'proxied' : 'drop' });
    }
    assert.is(new Set(ids).size, 3, 'as many lookups as frames');
    assert.equal([drops(), memory.overlay.cacheStats('ov0')!.heldFrames], [2n, 0]);
    assert.is(memory.overlay.deviceStats('ov0').counts.counters.tx_proxied, 1n);
    send(frameTo(MAC, 1));
    const { id } = await handle.lookup();
    await handle.call('drop', { request: id, as: 'unknown' });
    assert.is(drops(), 3n);
    await assertRefused(handle.call('drop', { request: id }), 'EINVAL', 'request_not_outstanding');
    await assertRefused(handle.call('drop', { request: id, as: 'x' }), 'EINVAL', 'bad_request');
    await assertRefused(handle.call('drop', {}), 'EINVAL', 'bad_request');
  }),
);

external(
  'the writer is cut: degraded at once, what is known goes on, another one goes on with the rest',
  () =>
    withScene(async ({ handle, socket, peer, to, send, memory }) => {
      const { fma } = memory.overlay;
      await handle.call('cache-set', { overlay: 'ov0', mac: OTHER, to });
      await until(
        'it is valid',
        2000,
        () => memory.overlay.cacheGet('ov0', parseMac(OTHER)).state === 'valid',
      );
      send(frameTo(MAC, 1));
      const taken = await handle.lookup();
      const waiting = handle.lookup().catch(() => {});
      handle.cut();
      await until('it is degraded', 1000, () => fma.status('ov0').status === 'DEGRADED');
      assert.match(fma.status('ov0').message, /external handle was closed/);
      await waiting;
      send(frameTo(OTHER, 2));
      assert.equal(await peer.arrived(1), [2], 'a known target needs nobody');

      const heir = await HandleClient.open(socket, true);
      await heir.call('associate', { overlay: 'ov0', mode: 'dynamic' });
      assert.is(fma.status('ov0').status, 'ONLINE');
      const again = await heir.lookup();
      assert.equal([again.id, again.destination], [taken.id, MAC]);
      await heir.call('respond', { request: again.id, to });
      assert.equal(await peer.arrived(2), [2, 1]);
      heir.cut();
    }),
);

external('a caller that hangs up while it looks takes nothing along', () =>
  withScene(async ({ handle, socket, send }) => {
    const headers = { 'content-type': 'application/json', 'overlay-handle': handle.token };
    const child = spawn(process.execPath, ['-e', hangingLookup, socket, JSON.stringify(headers)], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    await once(child.stdout, 'data');
    await new Promise((resolve) => setTimeout(resolve, 50));
    child.kill('SIGKILL');
    await once(child, 'exit');
    send(frameTo(MAC, 1));
    assert.is((await handle.lookup()).destination, MAC);
  }),
);

/** Sends a lookup and says so. */
const hangingLookup = `
  const [socketPath, headers] = process.argv.slice(1);
  const path = '/v1/handle/lookup';
  const call = require('node:http').request({ socketPath, method: 'POST', path, headers: JSON.parse(headers) });
  call.on('error', () => {});
  call.end('{}', () => console.log('sent'));
`;

external('inject goes to the guest, resend the ordinary way; both up to MTU + 18', () =>
  withScene(async ({ handle, peer, to, send, memory }) => {
    const link = memory.links.get('ov0').port;
    const most = 1400 + 18;
    const padded = (frame: Uint8Array, bytes: number) => {
      const whole = new Uint8Array(bytes);
      whole.set(frame);
      return whole;
    };
    const tagged = padded(frames.ethernet(0x0800, new Uint8Array(40), { tags: frames.VLAN_TAGS }), most);
    for (const frame of [frameTo(MAC, 1), tagged]) {
      await handle.call('inject', { overlay: 'ov0', frame: base64(frame) });
      let got: Uint8Array | undefined;
      await until('the guest gets it', 2000, () => {
        got = link.receive();
        return got !== undefined;
      });
      assert.equal(got, frame);
    }
    await handle.call('resend', { overlay: 'ov0', frame: base64(frameTo(MAC, 2)) });
    const { id } = await handle.lookup();
    await handle.call('inject', { request: id, frame: base64(frameTo(MAC, 3)) });
    await until('and by request', 2000, () => link.receive() !== undefined);
    await handle.call('resend', { request: id, frame: base64(frameTo(MAC, 4)) });
    await until('both wait', 2000, () => memory.overlay.cacheStats('ov0')!.heldFrames === 2);
    await handle.call('respond', { request: id, to });
    send(frameTo(MAC, 6));
    assert.equal(await peer.arrived(3), [2, 4, 6], 'neither was an answer');

    for (const name of ['inject', 'resend']) {
      const refused = (given: object, errno: string, code: string) =>
        assertRefused(handle.call(name, given), errno, code);
      const frame = base64(frameTo(MAC, 9));
      for (const bytes of [0, 1, 13, most + 1, 9000, 65_000]) {
        await refused({ overlay: 'ov0', frame: base64(new Uint8Array(bytes)) }, 'EINVAL', 'bad_frame');
      }
      await refused({ overlay: 'nope', frame }, 'ENOENT', 'no_such_device');
      await refused({ request: id, frame }, 'ENOENT', 'request_not_outstanding');
      for (const given of [
        { frame },
        { overlay: 'ov0', request: id, frame },
        { overlay: 'ov0' },
        { overlay: 'ov0', frame: 'not base64!' },
        { overlay: 'ov0', frame: 5 },
        { overlay: 'ov0', frame: 'A'.repeat(100_000) },
      ]) {
        await refused(given, 'EINVAL', 'bad_request');
      }
    }
  }),
);

external('associate, disassociate, degrade, restore: what they do and what they refuse', () =>
  withRig(async ({ socket, client, memory }) => {
    const { overlay } = memory;
    const port = await freePort(HERE);
    const handle = await HandleClient.open(socket, true);
    const refused = (name: string, given: object, errno: string, code: string) =>
      assertRefused(handle.call(name, given), errno, code);
    await client.post('/v1/overlays', externalRequest('ov0', 1, port));
    await client.post('/v1/overlays', externalRequest('ov1', 2, port));
    await client.post('/v1/overlays', pointRequest('ov2', 3, port));
    assert.is(overlay.state('ov0'), 'created', 'it waits for its association');
    await memory.up('ov0');
    assert.is(overlay.state('ov0'), 'created');

    const point = { overlay: 'ov0', mode: 'point', destination: `${PEER}:${port}` };
    for (const destination of [
      '',
      PEER,
      `0.0.0.0:${port}`,
      `${PEER}:0`,
      '[2002::1]:4789',
      '[::5]:4789',
      {},
    ]) {
      await refused('associate', { ...point, destination }, 'EINVAL', 'bad_destination');
    }
    await refused('associate', { ...point, provides: ['ip'] }, 'EINVAL', 'bad_provides');
    await refused('associate', { ...point, provides: ['ip', 'port', 'mac'] }, 'EINVAL', 'bad_provides');
    await refused('associate', { ...point, provides: ['ip', 'ip'] }, 'EINVAL', 'bad_provides');
    await refused('associate', { ...point, provides: ['x'] }, 'EINVAL', 'bad_request');
    await refused('associate', { ...point, mode: 'none' }, 'EINVAL', 'bad_request');
    await refused('associate', { overlay: 'ov0', mode: 'point' }, 'EINVAL', 'bad_request');
    await refused('associate', { ...point, mode: 'dynamic' }, 'EINVAL', 'bad_request');
    await refused('associate', { ...point, overlay: 'nope' }, 'ENOENT', 'no_such_device');
    await refused('associate', { ...point, overlay: 'ov2' }, 'ENOTSUP', 'not_external');
    assert.is(overlay.state('ov0'), 'created', 'nothing of that did anything');
    for (const name of ['cache-get', 'cache-remove']) {
      await refused(name, { overlay: 'ov0', mac: MAC }, 'ENXIO', 'not_associated');
    }
    await refused('cache-set', { overlay: 'ov0', mac: MAC, to: 'drop' }, 'ENXIO', 'not_associated');
    await refused('cache-flush', { overlay: 'ov0' }, 'ENXIO', 'not_associated');
    const iterate = { overlay: 'ov0', marker: '0:0:0:0:0:0', count: 1 };
    await refused('cache-iterate', iterate, 'ENXIO', 'not_associated');

    await handle.call('associate', { ...point, provides: ['port', 'ip'] });
    assert.is(overlay.state('ov0'), 'started');
    await refused('associate', point, 'EEXIST', 'associated');
    await handle.call('associate', { overlay: 'ov1', mode: 'dynamic' });
    await refused('associate', { overlay: 'ov1', mode: 'dynamic' }, 'EEXIST', 'associated');
    await refused('associate', { ...point, overlay: 'ov1' }, 'EEXIST', 'associated');

    // POINT: one entry, for whatever address; nothing to change.
    const { target } = await handle.call<{ target: TargetJson }>('cache-get', { overlay: 'ov0', mac: MAC });
    assert.equal([target.target, target.to], ['00:00:00:00:00:00', { ip: PEER, port }]);
    const page = await handle.call<{ targets: TargetJson[]; marker: null }>('cache-iterate', iterate);
    assert.equal([page.targets.length, page.targets[0]!.target, page.marker], [1, '00:00:00:00:00:00', null]);
    await refused('cache-set', { overlay: 'ov0', mac: MAC, to: 'drop' }, 'ENOTSUP', 'not_dynamic');
    await refused('cache-remove', { overlay: 'ov0', mac: MAC }, 'ENOTSUP', 'not_dynamic');
    await refused('cache-flush', { overlay: 'ov0' }, 'ENOTSUP', 'not_dynamic');

    await handle.call('degrade', { overlay: 'ov1', text: 'it rains' });
    assert.equal([overlay.status('ov1').status, overlay.status('ov1').message], ['DEGRADED', 'it rains']);
    await handle.call('degrade', { overlay: 'ov1', text: 'it pours' });
    assert.is(overlay.status('ov1').message, 'it pours', 'the last one counts');
    const { degraded } = await handle.call<{ degraded: boolean }>('info', { overlay: 'ov1' });
    assert.is(degraded, true);
    await handle.call('restore', { overlay: 'ov1' });
    await handle.call('restore', { overlay: 'ov1' });
    assert.is(overlay.status('ov1').status, 'ONLINE');
    await refused('degrade', { overlay: 'ov1' }, 'EINVAL', 'bad_request');
    await refused('degrade', { overlay: 'ov1', text: 'x'.repeat(256) }, 'EINVAL', 'bad_request');

    await handle.call('disassociate', { overlay: 'ov1' });
    assert.match(overlay.status('ov1').message, /nobody answers lookups/);
    await handle.call('associate', { overlay: 'ov1', mode: 'dynamic' });
    assert.is(overlay.status('ov1').status, 'ONLINE');

    for (const [name, more] of [
      ['info', {}],
      ['disassociate', {}],
      ['degrade', { text: 'x' }],
      ['restore', {}],
      ['cache-get', { mac: MAC }],
      ['cache-set', { mac: MAC, to: 'drop' }],
      ['cache-remove', { mac: MAC }],
      ['cache-flush', {}],
      ['cache-iterate', { marker: MAC, count: 1 }],
    ] as const) {
      await refused(name, { overlay: 'nope', ...more }, 'ENOENT', 'no_such_device');
      await refused(name, { overlay: 'ov2', ...more }, 'ENOTSUP', 'not_external');
    }
    assert.equal(await handle.call('list'), { version: 1, total: 2, overlays: ['ov0', 'ov1'] });
    assert.equal(await handle.call('list', { count: 1 }), { version: 1, total: 2, overlays: ['ov0'] });
    assert.equal(await handle.call('list', { count: 0 }), { version: 1, total: 2, overlays: [] });
    await refused('list', { count: 2 ** 29 }, 'EINVAL', 'bad_request');
    await client.delete('/v1/overlays/ov0?force=true');
    assert.equal(await handle.call('list'), { version: 1, total: 1, overlays: ['ov1'] });
    handle.cut();
  }),
);

external('the cache by handle: get, set, remove, flush, and iteration in pages', () =>
  withScene(async ({ handle, send, memory, to }) => {
    const refused = (name: string, given: object, errno: string, code: string) =>
      assertRefused(handle.call(name, { overlay: 'ov0', ...given }), errno, code);
    const mac = (index: number) => `02:08:21:00:${hex(index >> 8)}:${hex(index & 255)}`;
    const hex = (value: number) => value.toString(16).padStart(2, '0');
    const all = Array.from({ length: 1200 }, (_, index) => mac(index));
    for (const each of all) {
      memory.overlay.cacheSet('ov0', parseMac(each), each === mac(7) ? 'drop' : { ip: PEER, port: 4789 });
    }
    const walk = async (count: number): Promise<string[]> => {
      const seen: string[] = [];
      let marker: string | null = '00:00:00:00:00:00';
      while (marker !== null) {
        const page: { targets: TargetJson[]; marker: string | null } = await handle.call('cache-iterate', {
          overlay: 'ov0',
          marker,
          count,
        });
        assert.ok(page.targets.length > 0 && page.targets.length <= count);
        seen.push(...page.targets.map(({ target }) => target));
        marker = page.marker;
      }
      return seen;
    };
    for (const count of [500, 499, 400, 97]) assert.equal(await walk(count), all, `pages of ${count}`);
    const from = { overlay: 'ov0', marker: mac(1199), count: 500 };
    const last = await handle.call<{ targets: TargetJson[]; marker: null }>('cache-iterate', from);
    assert.equal([last.targets.map(({ target }) => target), last.marker], [[mac(1199)], null]);
    await refused('cache-iterate', { marker: MAC, count: 0 }, 'EINVAL', 'bad_count');
    await refused('cache-iterate', { marker: MAC, count: 501 }, 'E2BIG', 'count_too_big');
    // In the order of illumos: the count, whether it is done already, the device.
    await refused('cache-iterate', { overlay: 'nope', marker: null, count: 501 }, 'E2BIG', 'count_too_big');
    const done = await handle.call('cache-iterate', { overlay: 'nope', marker: null, count: 1 });
    assert.equal(done, { version: 1, targets: [], marker: null });
    await refused('cache-iterate', { marker: 'zz', count: 1 }, 'EINVAL', 'bad_mac');

    const dropped = await handle.call<{ target: TargetJson }>('cache-get', { overlay: 'ov0', mac: mac(7) });
    assert.equal([dropped.target.state, dropped.target.to], ['drop', 'drop']);
    await handle.call('cache-remove', { overlay: 'ov0', mac: mac(7) });
    await refused('cache-remove', { mac: mac(7) }, 'ENOENT', 'no_such_target');
    await refused('cache-get', { mac: mac(7) }, 'ENOENT', 'no_such_target');
    await refused('cache-get', { mac: 'zz' }, 'EINVAL', 'bad_mac');
    await refused('cache-set', { mac: 'zz', to }, 'EINVAL', 'bad_mac');
    await refused('cache-set', { mac: MAC, to: 'nowhere' }, 'EINVAL', 'bad_destination');
    await refused('cache-set', { mac: MAC }, 'EINVAL', 'bad_request');
    await handle.call('cache-flush', { overlay: 'ov0' });
    await handle.call('cache-flush', { overlay: 'ov0' });
    assert.is(memory.overlay.cacheStats('ov0')!.targets, 0);

    // What is being looked up is not there yet; an iteration goes past it.
    send(frameTo(MAC, 1));
    await handle.lookup();
    await refused('cache-get', { mac: MAC }, 'ENOENT', 'no_such_target');
    await handle.call('cache-set', { overlay: 'ov0', mac: OTHER, to });
    const page = await handle.call<{ targets: TargetJson[] }>('cache-iterate', {
      overlay: 'ov0',
      marker: '0:0:0:0:0:0',
      count: 1,
    });
    assert.equal(
      page.targets.map(({ target }) => target),
      [OTHER],
    );
  }),
);

external('an answer that was overtaken by a set changes nothing', () =>
  withScene(async ({ handle, send, peer, to, port, memory }) => {
    send(frameTo(MAC, 1));
    const { id } = await handle.lookup();
    await handle.call('cache-set', { overlay: 'ov0', mac: MAC, to });
    const late = handle.call('respond', { request: id, to: `127.0.0.9:${port}` });
    await assertRefused(late, 'EINVAL', 'request_not_outstanding', /set, removed or asked about again/);
    assert.equal(await peer.arrived(1), [1]);
    assert.equal(memory.overlay.cacheGet('ov0', parseMac(MAC)).route, { ip: PEER, port });
  }),
);

external('a device that is deleted takes its requests along', () =>
  withScene(async ({ handle, send, client }) => {
    send(frameTo(MAC, 1), frameTo(OTHER, 2));
    const { id } = await handle.lookup();
    await client.delete('/v1/overlays/ov0?force=true');
    await assertRefused(handle.call('packet', { request: id }), 'EINVAL', 'request_not_outstanding');
    await assertRefused(handle.lookup(0), 'ETIME', 'no_request');
  }),
);

external('2,000 random calls: an answer or a typed error each, and the handle lives', () =>
  withScene(async ({ handle, socket, send }) => {
    const names = calls.map(({ name }) => name).filter((name) => name !== 'lookup');
    const value = fc.oneof(
      fc.constantFrom('ov0', MAC, 'drop', `${PEER}:4789`, '0', '__proto__', 'dynamic', null, 0, 1, -1, 501),
      fc.jsonValue({ maxDepth: 3 }),
      fc.string({ unit: 'binary' }),
    );
    const good: Record<string, object> = {
      associate: { mode: 'dynamic' },
      degrade: { text: 'x' },
      respond: { request: '0', to: 'drop' },
      drop: { request: '0' },
      packet: { request: '0' },
      inject: { frame: base64(frameTo(MAC, 1)) },
      resend: { frame: base64(frameTo(MAC, 1)) },
      'cache-get': { mac: MAC },
      'cache-set': { mac: MAC, to: `${PEER}:4789` },
      'cache-remove': { mac: MAC },
      'cache-iterate': { marker: MAC, count: 5 },
    };
    const call = fc.constantFrom(...names).chain((name) => {
      const whole = { ...(name === 'list' ? {} : { overlay: 'ov0' }), ...good[name] };
      // One or two fields of a good call are something else.
      const fields = fc.constantFrom(...Object.keys(whole), 'x', 'overlay');
      const wrong = fc.dictionary(fields, value, { maxKeys: 2 });
      return wrong.map((more) => [name, JSON.stringify({ ...whole, ...more })] as const);
    });
    const headers = { 'content-type': 'application/json', 'overlay-handle': handle.token };
    let answered = 0;
    await fc.assert(
      fc.asyncProperty(call, async ([name, text]) => {
        const answer = await callSocket(socket, 'POST', `/v1/handle/${name}`, text, headers);
        if (answer.status === 200) answered++;
        else assertTyped(answer, `${name} ${text}`);
      }),
      { numRuns: 2000 },
    );
    assert.ok(answered > 200, `${answered} were carried out`);
    await handle.call('associate', { overlay: 'ov0', mode: 'dynamic' }).catch(() => {});
    send(frameTo('02:08:20:00:00:99', 1));
    await until('it is asked about', 5000, async () => {
      // What was resent before is asked about first.
      const { id, destination } = await handle.lookup();
      await handle.call('drop', { request: id });
      return destination === '02:08:20:00:00:99';
    });
  }),
);

// ─── Who may ────────────────────────────────────────────────────────────────────────────────────────────

/** Opens a handle as another user, and tries the calls with its token and with one of somebody else. */
const otherUser = `
  const { request } = require('node:http');
  const [socketPath, foreign, write] = process.argv.slice(1);
  const call = (path, token, body) => new Promise((resolve) => {
    const headers = { 'content-type': 'application/json', 'overlay-handle': token };
    request({ socketPath, method: 'POST', path, headers, agent: false }, (response) => {
      let text = '';
      response.on('data', (part) => { text += part; });
      response.on('end', () => resolve({ status: response.statusCode, body: JSON.parse(text) }));
    }).end(JSON.stringify(body));
  });
  const headers = { 'content-type': 'application/json' };
  request({ socketPath, method: 'POST', path: '/v1/handle', headers, agent: false }, (response) => {
    response.once('data', async (part) => {
      const opened = JSON.parse(part);
      const answers = { opened: { status: response.statusCode, body: opened } };
      answers.foreign = await call('/v1/handle/list', foreign, {});
      if (opened.token) {
        answers.list = await call('/v1/handle/list', opened.token, {});
        answers.lookup = await call('/v1/handle/lookup', opened.token, { wait_ms: 0 });
      }
      console.log(JSON.stringify(answers));
      process.exit(0);
    });
  }).end(JSON.stringify({ write: write === 'true' }));
`;

function asUser(
  uid: number,
  socket: string,
  token: string,
  write: boolean,
): Promise<Record<string, unknown>> {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, ['-e', otherUser, socket, token, `${write}`], {
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
    child.on('close', (code) =>
      code === 0 ? resolve(JSON.parse(output)) : reject(new Error(`code ${code}`)),
    );
  });
}

testWith(
  external,
  ['root'],
  'another user may open it for reading, take no request, and use no token of others',
  () =>
    withScene(async ({ handle, socket, send }) => {
      send(frameTo(MAC, 1));
      const check = (answer: unknown, errno: string, code: string) =>
        assertAnswer(Promise.resolve(answer as { status: number; body: unknown }), 403, errno, code);
      const writing = await asUser(NOBODY, socket, handle.token, true);
      await check(writing.opened, 'EPERM', 'not_permitted');
      const reading = await asUser(NOBODY, socket, handle.token, false);
      await check(reading.foreign, 'EPERM', 'not_your_handle');
      await check(reading.lookup, 'EPERM', 'not_permitted');
      assert.equal((reading.list as { body: object }).body, { version: 1, total: 1, overlays: ['ov0'] });
      assert.is((await handle.lookup()).destination, MAC, 'the request is where it belongs');
    }),
);

// ─── A program in another language ──────────────────────────────────────────────────────────────────────

const CLIENT = join(import.meta.dirname, '../../test/clients/varpd.py');

/** test/clients/varpd.py in a host, and what it has said. */
class Program {
  lines: string[] = [];

  private constructor(readonly child: ChildProcess) {
    let rest = '';
    child.stdout!.setEncoding('utf8').on('data', (part: string) => {
      const parts = (rest + part).split('\n');
      rest = parts.pop()!;
      this.lines.push(...parts);
    });
    child.stderr!.setEncoding('utf8').on('data', (part: string) => this.lines.push(`stderr: ${part}`));
  }

  static async start(host: Hosts['a'], daemon: Daemon, ...args: string[]): Promise<Program> {
    const program = new Program(
      inNamespace(host.namespace, () =>
        spawn('python3', ['-u', CLIENT, daemon.socket, ...args], { stdio: ['ignore', 'pipe', 'pipe'] }),
      ),
    );
    await until('the program is associated', 5000, () => {
      if (program.child.exitCode !== null) throw new Error(`it left: ${program.lines.join('\n')}`);
      return program.lines.some((line) => line.startsWith('associated'));
    });
    return program;
  }

  async kill(): Promise<void> {
    if (this.child.exitCode !== null || this.child.signalCode !== null) return;
    const exited = once(this.child, 'exit');
    this.child.kill('SIGKILL');
    await exited;
  }
}

testWith(
  external,
  ['root', '/dev/net/tun', 'python3', 'ping'],
  'a Python program is varpd: ping goes through; killed, the device is degraded and another one takes over',
  async () => {
    const hosts = new Hosts();
    const programs: Program[] = [];
    try {
      const a = await hosts.daemon('a', { flags: ['--workers', '2', '--memory', '128M'] });
      const b = await hosts.daemon('b', { flags: ['--workers', '2', '--memory', '128M'] });
      const macs: Record<string, string> = {};
      for (const [side, daemon] of [
        ['a', a],
        ['b', b],
      ] as const) {
        await daemon.client.post('/v1/overlays', {
          name: 'ov0',
          encap: 'vxlan',
          search: 'external',
          vnetid: 42,
          properties: { 'vxlan/listen_ip': underlay[4][side] },
        });
        assert.is(await daemon.state('ov0'), 'created');
        macs[side] = hosts[side].netlink.getLink('ov0').mac;
        hosts.address(side, 'ov0', `198.51.100.${side === 'a' ? 1 : 2}/24`);
      }
      const known = (side: 'a' | 'b', ...more: string[]) => {
        const to = `${underlay[4][side === 'a' ? 'b' : 'a']}:4789`;
        return ['ov0', `${macs[side === 'a' ? 'b' : 'a']}=${to}`, `${BROADCAST}=${to}`, ...more];
      };
      const first = await Program.start(hosts.a, a, ...known('a'));
      programs.push(first, await Program.start(hosts.b, b, ...known('b')));
      for (const daemon of [a, b]) {
        await until('it is started', 3000, async () => (await daemon.state('ov0')) === 'started');
      }
      assert.match(hosts.a.run('ping', '-q', '-c', '5', '-i', '0.05', '198.51.100.2'), / 0% packet loss/);
      await until('it says what it answered', 1000, () =>
        first.lines.some((line) => line.includes(`${macs.b} is at ${underlay[4].b}:4789`)),
      );

      // It takes a request, stopped as it is, and is killed before it can answer.
      const lost = '02:08:20:00:00:09';
      hosts.a.netlink.addNeighbour(hosts.a.netlink.getLink('ov0').index, '198.51.100.9', lost);
      const view = async () => {
        const answer = await a.client.get<{ overlays: Record<string, OverlayView> }>('/v1/overlays/ov0');
        return answer.overlays.ov0!;
      };
      first.child.kill('SIGSTOP');
      const pings = hosts.a.finish('ping', '-q', '-c', '1', '-W', '1', '198.51.100.9');
      await until('the request is open', 2000, async () => (await view()).requests!.held_frames > 0);
      await first.kill();
      await until('it is degraded', 1000, async () => (await view()).status === 'DEGRADED');
      assert.match((await view()).message, /external handle was closed/);
      assert.match(hosts.a.run('ping', '-q', '-c', '5', '-i', '0.05', '198.51.100.2'), / 0% packet loss/);

      const heir = await Program.start(hosts.a, a, ...known('a', `2:8:20:0:0:9=${underlay[4].b}:4789`));
      programs.push(heir);
      assert.is((await view()).status, 'ONLINE');
      await until('it answers what the first one took', 4000, () =>
        heir.lines.some((line) => line.includes(`${lost} is at ${underlay[4].b}:4789`)),
      );
      await until('what was held goes out', 2000, async () => {
        const { target } = await a.client.get<{ target: TargetJson }>(`/v1/overlays/ov0/targets/${lost}`);
        return target.state === 'valid' && target.frames > 0;
      });
      await pings;
      // Nothing but the daemon's end makes it leave by itself.
      const left = once(heir.child, 'exit');
      await a.stop();
      assert.equal(await left, [1, null], heir.lines.join('\n'));
    } finally {
      for (const program of programs) await program.kill();
      await hosts.close();
    }
  },
);

external.run();
