/** Properties of an activated device that change under traffic: live ones, and those for which it leaves the mux. */
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import type { Answer, LookupRequest } from '../src/varpd/plugin.js';
import { until } from './harness/hosts.js';
import { faultOf, gently, HERE, withMemory } from './harness/lifecycle.js';
import {
  assertBooks,
  assertRefused,
  freePort,
  holdPort,
  type MemoryOverlay,
  refusal,
  request,
} from './harness/memory-overlay.js';
import { ScriptedLookup } from './harness/scripted-lookup.js';
import * as frames from './reference/frames.js';

const reopen = suite('change of an activated device');
const CHANGES = 1000;
const BURST = 8;
const THERE = '127.0.0.2';

/** A UDP frame with a sequence number and a sum over it. */
function numbered(sequence: number): Uint8Array {
  const payload = new Uint8Array(200).map((_, index) => (sequence * 31 + index) & 0xff);
  new DataView(payload.buffer).setUint32(0, sequence);
  const datagram = frames.udp({ ends: frames.ENDS_4, sourcePort: 1024 + (sequence % 50_000), payload });
  return frames.ethernet(0x0800, frames.ipv4({ protocol: 17, payload: datagram }));
}

const sequenceOf = (frame: Uint8Array) => new DataView(frame.buffer, frame.byteOffset).getUint32(42);

/** Takes what has arrived at a link; fails on a frame that is not one of ours to the last octet. */
function arrivals(memory: MemoryOverlay, name: string): number[] {
  const found: number[] = [];
  for (
    let frame = memory.links.get(name).port.receive();
    frame;
    frame = memory.links.get(name).port.receive()
  ) {
    const sequence = sequenceOf(frame);
    assert.equal(Buffer.from(frame).compare(numbered(sequence)), 0, `frame ${sequence} is as it was sent`);
    found.push(sequence);
  }
  return found;
}

/** Host A with `ov0` in vnet 1, host B with a device in each of the vnets 1 and 2; both at one port. */
async function withHosts(
  work: (hosts: {
    a: MemoryOverlay;
    b: MemoryOverlay;
    port: number;
    send(count: number): void;
  }) => Promise<void>,
): Promise<void> {
  await withMemory(async (a) => {
    await withMemory(async (b) => {
      const port = await freePort('0.0.0.0');
      await a.overlay.createOverlay(request('ov0', 1, port));
      await a.up('ov0');
      for (const vnetid of [1, 2]) {
        const name = `in${vnetid}`;
        await b.overlay.createOverlay(request(name, vnetid, port, { ip: THERE, peer: HERE }));
        await b.up(name);
      }
      let sequence = 0;
      const send = (count: number) => {
        for (let i = 0; i < count; i++) assert.ok(a.links.get('ov0').port.send(0, numbered(sequence++)));
      };
      await work({ a, b, port, send });
      const { drops } = a.overlay.deviceStats('ov0').counts;
      const named = Object.entries(drops).filter(([, count]) => count > 0n);
      assert.ok(
        named.every(([name]) => name === 'tx_device_stopped'),
        `no drop but those of the moment of change: ${named.map(String)}`,
      );
      await assertBooks(a.overlay, `127.0.0.1:${portOf(a)}`);
    });
  });
}

const portOf = (memory: MemoryOverlay) => memory.overlay.property('ov0', 'vxlan/listen_port').value;

reopen(`vnetid: ${CHANGES} times under traffic, and no frame comes out in another network`, async () => {
  await withHosts(async ({ a, b, send }) => {
    let sent = 0;
    for (let change = 0; change < CHANGES; change++) {
      const vnetid = 1 + ((change + 1) % 2);
      send(BURST);
      sent += BURST;
      await a.overlay.setprop('ov0', 'vnetid', vnetid);
      // Whatever was on its way has arrived or is dropped; from here on everything is of the new network.
      await until('what came before is through', 2000, () => readOf(a) === BigInt(sent));
      for (const name of ['in1', 'in2']) arrivals(b, name);
      const first = sent;
      send(BURST);
      sent += BURST;
      const seen: number[] = [];
      await until('the burst has arrived', 2000, () => {
        seen.push(...arrivals(b, `in${vnetid}`));
        return seen.filter((each) => each >= first).length === BURST;
      });
      const stray = arrivals(b, `in${3 - vnetid}`).filter((each) => each >= first);
      assert.equal(stray, [], `change ${change}: in the network that it has left`);
    }
    assert.is(a.overlay.property('ov0', 'vnetid').value, 1n);
    assert.match(a.links.get('ov0').alias, /vnetid 1$/);
  });
});

const readOf = (memory: MemoryOverlay) => memory.overlay.deviceStats('ov0').counts.counters.tx_read;

reopen(
  `listen port and address, destination, MTU, its bound, source check, offloads: ${CHANGES} changes of each under traffic`,
  async () => {
    await withHosts(async ({ a, b, port, send }) => {
      const ports = [port, await freePort('0.0.0.0')];
      const changes: [string, (turn: number) => unknown][] = [
        ['vxlan/listen_port', (turn) => ports[turn % 2]],
        ['vxlan/listen_ip', (turn) => ['127.0.0.1', '127.0.0.3'][turn % 2]],
        ['direct/dest_ip', () => THERE],
        ['mtu', (turn) => 1400 + (turn % 100)],
        ['mtu_max', (turn) => 8900 + (turn % 100)],
        ['vxlan/source_check', (turn) => ['auto', 'off', 'known'][turn % 3]],
        ['udp_segment', (turn) => ['on', 'off', 'auto'][turn % 3]],
        ['udp_gro', (turn) => ['off', 'on', 'auto'][turn % 3]],
      ];
      // B takes frames from whatever address A has.
      for (const name of ['in1', 'in2']) await b.overlay.setprop(name, 'vxlan/source_check', 'off');
      let arrived = 0;
      const total = CHANGES * changes.length;
      for (let change = 0; change < total; change++) {
        const [property, valueAt] = changes[change % changes.length]!;
        const value = valueAt(Math.floor(change / changes.length));
        send(2);
        await a.overlay.setprop('ov0', property, value);
        assert.is(String(a.overlay.property('ov0', property).value), String(value), property);
        send(2);
        arrived += arrivals(b, 'in1').length;
      }
      assert.equal(arrivals(b, 'in2'), []);
      await until('everything is read', 2000, () => readOf(a) === BigInt(total * 4));
      await until('what was sent has arrived', 2000, () => {
        arrived += arrivals(b, 'in1').length;
        return BigInt(arrived) === a.overlay.deviceStats('ov0').counts.counters.tx_frames;
      });
      assert.ok(arrived > total * 2, `${arrived} of ${total * 4}: those after each change at least`);
      // The books are of the last address.
      await a.overlay.setprop('ov0', 'vxlan/listen_ip', HERE);
    });
  },
);

reopen('a change that cannot be keeps the old value, and traffic goes on', async () => {
  await withHosts(async ({ a, b, send, port }) => {
    const holder = await holdPort(HERE, await freePort('0.0.0.0'));
    const refusals: [string, unknown, string, string][] = [
      ['vxlan/listen_port', holder.port, 'EADDRINUSE', 'port_in_use'],
      ['vxlan/listen_ip', '192.0.2.77', 'EADDRNOTAVAIL', 'address_not_here'],
      ['vxlan/listen_ip', '::1', 'EINVAL', 'other_family'],
      ['vxlan/listen_ip', 'x', 'EINVAL', 'bad_property_value'],
      ['direct/dest_ip', '::1', 'EINVAL', 'other_family'],
      ['vnetid', 2 ** 24, 'EINVAL', 'bad_property_value'],
      ['vxlan/source_check', 'strict', 'ENOTSUP', 'senders_unknown'],
      ['mtu_max', 600, 'EBUSY', 'mtu_above'],
    ];
    for (const [property, value, errno, code] of refusals) {
      const before = a.overlay.property('ov0', property).value;
      await assertRefused(a.overlay.setprop('ov0', property, value), errno, code);
      assert.is(a.overlay.property('ov0', property).value, before, property);
      assert.is(a.overlay.state('ov0'), 'started', property);
      assert.is(faultOf(a, 'ov0'), '');
      const found: number[] = [];
      send(BURST);
      await until(
        'frames arrive',
        2000,
        () => found.push(...arrivals(b, 'in1')) >= 0 && found.length === BURST,
      );
    }
    const named = await refusal(a.overlay.setprop('ov0', 'vxlan/listen_port', holder.port));
    assert.match(named.message, new RegExp(`another program has the port \\(.+, process ${process.pid}\\)`));
    assert.is(portOf(a), BigInt(port));
    await holder.release();
    // A vnetid that another device has.
    await a.overlay.createOverlay(request('ov1', 5, port));
    await assertRefused(a.overlay.setprop('ov0', 'vnetid', 5), 'EEXIST', 'vnetid_in_use', /'ov1'/);
  });
});

reopen('a device that could not start is mended by a change', async () => {
  await withMemory(async (memory) => {
    const { overlay } = memory;
    const port = await freePort(HERE);
    await overlay.createOverlay(request('ov0', 1, port, { ip: '192.0.2.77', peer: '192.0.2.78' }));
    await memory.up('ov0');
    assert.match(faultOf(memory, 'ov0'), /no interface of this host/);
    // It does not start with this either, and that is no reason to refuse it.
    await overlay.setprop('ov0', 'vnetid', 7);
    assert.is(overlay.property('ov0', 'vnetid').value, 7n);
    assert.match(faultOf(memory, 'ov0'), /no interface of this host/);
    await overlay.setprop('ov0', 'vxlan/listen_ip', HERE);
    assert.is(overlay.state('ov0'), 'started');
    assert.is(faultOf(memory, 'ov0'), '');
  });
});

/** A DYNAMIC device whose plugin says where everything goes. */
async function withDynamic(
  answer: (request: LookupRequest) => Answer | Promise<Answer>,
  work: (memory: MemoryOverlay, plugin: ScriptedLookup) => Promise<void>,
): Promise<void> {
  const plugin = new ScriptedLookup(answer);
  await withMemory(
    async (memory) => {
      const port = await freePort(HERE);
      const properties = { 'vxlan/listen_ip': HERE, 'vxlan/listen_port': port };
      await memory.overlay.createOverlay({
        name: 'ov0',
        encap: 'vxlan',
        search: 'scripted',
        vnetid: 1,
        properties,
      });
      await memory.up('ov0');
      await work(memory, plugin);
    },
    { plugins: [plugin], poolBytes: 2 ** 24 },
  );
}

reopen(
  'vnetid of a DYNAMIC device: another instance, an empty cache, and no late answer of the old one',
  async () => {
    const late: ((answer: Answer) => void)[] = [];
    const route = { ip: THERE, port: 9 };
    await withDynamic(
      ({ vnetid }) => (vnetid === 1n ? new Promise<Answer>((resolve) => late.push(resolve)) : route),
      async ({ overlay, links }, plugin) => {
        const id = overlay.property('ov0', 'varpd/id').value;
        const old = plugin.services!;
        assert.is(old.vnetid, 1n);
        overlay.cacheSet('ov0', 0x020000000001, route);
        links.get('ov0').port.send(0, numbered(0));
        await until('it was asked', 2000, () => late.length === 1);
        assert.is(overlay.cacheStats('ov0')!.heldFrames, 1);
        await overlay.setprop('ov0', 'vnetid', 2);
        assert.equal(overlay.cacheStats('ov0'), { targets: 0, requests: 0, heldFrames: 0, heldBytes: 0 });
        assert.is(plugin.services!.vnetid, 2n);
        assert.is(overlay.property('ov0', 'varpd/id').value, id);
        // What the old instance says counts no more.
        late[0]!(route);
        await assertRefused(() => old.set('2:0:0:0:0:9', route), 'ENXIO', 'not_active');
        await new Promise((resolve) => setTimeout(resolve, 50));
        assert.is(overlay.cacheStats('ov0')!.targets, 0);
      },
    );
  },
);

reopen('a plugin that does not come back with the new vnetid: the old one stays', async () => {
  let refuse = false;
  const plugin = new ScriptedLookup(() => 'drop', {
    start: () => {
      if (refuse) throw new Error('no such network here');
    },
  });
  await withMemory(
    async (memory) => {
      const port = await freePort(HERE);
      const properties = { 'vxlan/listen_ip': HERE, 'vxlan/listen_port': port };
      const { overlay } = memory;
      await overlay.createOverlay({ name: 'ov0', encap: 'vxlan', search: 'scripted', vnetid: 1, properties });
      await memory.up('ov0');
      refuse = true;
      await assertRefused(overlay.setprop('ov0', 'vnetid', 2), 'EIO', 'lookup_failed', /vnetid is as it was/);
      assert.is(overlay.property('ov0', 'vnetid').value, 1n);
      assert.match(faultOf(memory, 'ov0'), /no such network here/);
      refuse = false;
      await overlay.setprop('ov0', 'vnetid', 3);
      assert.is(overlay.state('ov0'), 'started');
      assert.is(faultOf(memory, 'ov0'), '');
      await memory.down('ov0');
      await overlay.delete('ov0', gently);
    },
    { plugins: [plugin], poolBytes: 2 ** 24 },
  );
});

reopen('bounds of the target cache change live', async () => {
  await withDynamic(
    () => 'drop',
    async ({ overlay }) => {
      const route = { ip: THERE, port: 9 };
      await overlay.setprop('ov0', 'targets', 2);
      overlay.cacheSet('ov0', 0x020000000001, route);
      overlay.cacheSet('ov0', 0x020000000002, route);
      await assertRefused(
        () => overlay.cacheSet('ov0', 0x020000000003, route),
        'ENOSPC',
        'target_table_full',
      );
      await assertRefused(overlay.setprop('ov0', 'targets', 1), 'EBUSY', 'targets_above');
      assert.is(overlay.property('ov0', 'targets').value, 2n);
      await overlay.setprop('ov0', 'targets', 3);
      overlay.cacheSet('ov0', 0x020000000003, route);
      await overlay.setprop('ov0', 'negative_ttl', 60);
      assert.is(overlay.property('ov0', 'negative_ttl').value, 60n);
    },
  );
});

reopen.run();
