/** Geneve in the core against the slow twin in `reference/geneve.ts`, and devices with options. */
import { createSocket, type Socket } from 'node:dgram';
import { once } from 'node:events';
import { mkdtempSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import * as layout from '../assembly/layout.js';
import { geneve as plugin } from '../src/encap/geneve.js';
import { optionsBytes, optionsFault } from '../src/encap/geneve-options.js';
import { randomBetween } from '../src/sys/random.js';
import { CoreRig } from './harness/core-rig.js';
import { mustAgree, mustAgreeInBatches, mutateHeader, received } from './harness/decap-check.js';
import { geneveEncapsulation, geneveWithOptions, HEADER_BYTES_MAX } from './harness/encapsulations.js';
import { until } from './harness/hosts.js';
import { assertRefused, freePort, MemoryOverlay } from './harness/memory-overlay.js';
import { ScriptedLookup } from './harness/scripted-lookup.js';
import { SuperFrames } from './harness/super-frames.js';
import { Xorshift } from './harness/xorshift.js';
import * as frames from './reference/frames.js';
import * as twin from './reference/geneve.js';
import { recordOf } from './reference/vnet-hdr.js';
import { sendable } from './reference/vxlan.js';

const SEED = randomBetween(1, 0x7fffffff);
const VNETID = 0x123456;
const FRAME = frames.ethernet(0x88b5, frames.counting(86));
const NOTHING: Uint8Array = new Uint8Array(0);

const geneve = suite('geneve');

function rigOf(encapsulation = geneveEncapsulation): CoreRig {
  const rig = new CoreRig({ encapsulation });
  rig.addDevice({ vnetid: VNETID, mtu: 65_000 });
  return rig;
}

geneve('every value of every byte of a header with options', () => {
  const rig = rigOf();
  const options = frames.concat(
    twin.option(0x0102, 3, Uint8Array.of(1, 2, 3, 4)),
    twin.option(0xffff, 0x7f, NOTHING),
  );
  const datagram = twin.encap(VNETID, FRAME, options);
  const seen = mutateHeader(rig, datagram, 8 + options.length);
  for (const verdict of [
    'pass',
    'rx_bad_header',
    'rx_control_packet',
    'rx_not_ethernet',
    'rx_critical_option',
  ]) {
    assert.ok(seen.get(verdict)! > 10, verdict);
  }
});

geneve('every length of a datagram with a whole chain of options', () => {
  const rig = rigOf();
  const chain = frames.concat(...Array.from({ length: 63 }, (_, type) => twin.option(1, type, NOTHING)));
  const datagram = twin.encap(VNETID, FRAME, chain);
  for (let length = 0; length <= datagram.length; length++) {
    mustAgree(rig, datagram.slice(0, length), `${length} bytes`);
  }
  assert.equal(received(rig, datagram), recordOf({}, FRAME));
  chain[62 * 4 + 2] = 0x80;
  assert.is(received(rig, twin.encap(VNETID, FRAME, chain)), 'rx_critical_option', 'the last of them');
});

geneve('neighbours in a batch: each by its own header', () =>
  mustAgreeInBatches(geneveEncapsulation, SEED, 300),
);

geneve('a guest’s own packet of Geneve is a frame like others, both ways', () => {
  const rig = rigOf();
  const [device] = rig.rules.keys();
  const own = twin.encap(VNETID, FRAME, twin.option(1, 0x82, NOTHING));
  const udp = frames.udp({ ends: frames.ENDS_6, destinationPort: 6081, payload: own });
  const frame = frames.ethernet(frames.ETHERTYPE_IPV6, frames.ipv6({ protocol: 17, payload: udp }));
  rig.placeFrames([frame]);
  assert.is(rig.decideTx(device!, 1), 0);
  assert.equal(rig.groups(device!, 1)[0]!.datagrams, [twin.encap(VNETID, frame)]);
  assert.equal(received(rig, twin.encap(VNETID, frame)), recordOf({}, frame));
});

for (const words of [0, 1, 63]) {
  geneve(`super-frames behind ${words} options: each segment has them all`, () => {
    const records = new SuperFrames(new Xorshift(SEED));
    const encapsulation = words === 0 ? geneveEncapsulation : geneveWithOptions(words);
    let cut = 0;
    while (cut < 200) {
      const record = records.superFrame();
      const segments = sendable(record);
      if (!segments || segments.length < 2) continue;
      const rig = new CoreRig({ encapsulation });
      const flags = cut % 2 === 0 ? layout.DEVICE_FLAG_UDP_SEGMENT : 0;
      const device = rig.addDevice({ vnetid: VNETID, mtu: 65_000, flags });
      const at = rig.arena + layout.ARENA_TX_BUFFER + layout.TX_HEADROOM_BYTES;
      rig.views.u8.set(record, at);
      rig.noteFrame(0, at, record.length);
      assert.is(rig.decideTx(device, 1), 0);
      const sent = rig.groups(device, 1).flatMap(({ datagrams }) => datagrams);
      const header = encapsulation.header(VNETID);
      assert.equal(
        sent,
        segments.map((segment) => frames.concat(header, segment)),
        `seed ${SEED}`,
      );
      cut++;
    }
  });
}

geneve('options as text: what they become, and what is wrong with others', () => {
  assert.equal(optionsBytes('0102:3:0a0b0c0d+ffff:80:'), {
    bytes: Uint8Array.of(1, 2, 3, 1, 10, 11, 12, 13, 255, 255, 0x80, 0),
    isCritical: true,
  });
  assert.equal(optionsBytes('1:2:'), { bytes: Uint8Array.of(0, 1, 2, 0), isCritical: false });
  for (const [text, what] of [
    ['', /option 1 is not CLASS:TYPE:DATA/],
    ['1:2', /option 1 is not/],
    ['1:2:+', /option 2 is not/],
    ['1:2:0', /option 1 is not/],
    ['10000:2:', /option 1 is not/],
    ['1:100:', /option 1 is not/],
    ['1:2:0a', /has 1 bytes, and it must be whole words/],
    [`1:2:${'00'.repeat(128)}`, /has 128 bytes, and 124 is the most/],
    [`1:2:${'00'.repeat(124)}+1:2:${'00'.repeat(124)}`, /the options have 256 bytes/],
  ] as const) {
    assert.match(optionsFault(text) ?? '', what, text);
  }
  const most = [...Array.from({ length: 62 }, () => '1:2:'), '3:4:'].join('+');
  assert.is(optionsFault(most), undefined);
  assert.is(optionsBytes(most).bytes.length, 252);
});

geneve('the plugin reads what the core and the twin read', () => {
  const random = new Xorshift(SEED);
  const bytes = new Uint8Array(HEADER_BYTES_MAX);
  for (let round = 0; round < 20_000; round++) {
    const start = geneveEncapsulation.write(bytes, bytes.length, random.next() >>> 8, random);
    const datagram = bytes.slice(start, bytes.length - random.below(2) * random.below(20));
    const expected = twin.decap(datagram);
    const seen = plugin.operations.decap(datagram);
    assert.is(seen?.vnetid, typeof expected === 'string' ? undefined : BigInt(expected.vnetid));
  }
});

// ─── Devices ────────────────────────────────────────────────────────────────────────────────────────────

interface Scene {
  readonly memory: MemoryOverlay;
  readonly socket: Socket;
  readonly datagrams: Uint8Array[];
  readonly port: number;
}

/** A device, and a socket where its frames go. */
async function withScene(
  properties: Readonly<Record<string, string>>,
  work: (scene: Scene) => Promise<void>,
): Promise<void> {
  const memory = await MemoryOverlay.start();
  const socket = createSocket('udp4');
  const datagrams: Uint8Array[] = [];
  try {
    const port = await freePort('127.0.0.1');
    socket.on('message', (datagram) => datagrams.push(new Uint8Array(datagram)));
    socket.bind(port, '127.0.0.2');
    await once(socket, 'listening');
    await memory.overlay.createOverlay({
      name: 'ov0',
      encap: 'geneve',
      search: 'direct',
      vnetid: VNETID,
      properties: {
        'geneve/listen_ip': '127.0.0.1',
        'geneve/listen_port': port,
        'direct/dest_ip': '127.0.0.2',
        'direct/dest_port': port,
        ...properties,
      },
    });
    await memory.up('ov0');
    await work({ memory, socket, datagrams, port });
  } finally {
    socket.close();
    await memory.close();
  }
}

geneve('a device: its port, both ways, and what is not for guests', () =>
  withScene({}, async ({ memory, socket, datagrams, port }) => {
    const { overlay, links } = memory;
    const { infos } = { infos: plugin.properties.map((name) => plugin.operations.propinfo(name)) };
    assert.is(infos.find(({ name }) => name === 'geneve/listen_port')!.default, 6081n);
    const link = links.get('ov0').port;
    assert.ok(link.send(0, FRAME));
    await until('it arrives', 2000, () => datagrams.length === 1);
    assert.equal(datagrams[0], twin.encap(VNETID, FRAME));
    const option = twin.option(1, 2, Uint8Array.of(1, 2, 3, 4));
    const control = twin.encap(VNETID, FRAME);
    control[1] = 0x80;
    const other = twin.encap(VNETID, FRAME);
    other[2] = 0x08;
    for (const datagram of [
      twin.encap(VNETID, FRAME, twin.option(1, 0x82, NOTHING)),
      control,
      other,
      twin.encap(VNETID, FRAME, option),
    ]) {
      socket.send(datagram, port, '127.0.0.1');
    }
    let frame: Uint8Array | undefined;
    await until('the last one is delivered', 2000, () => {
      frame ??= link.receive();
      return frame !== undefined;
    });
    assert.equal(frame, FRAME);
    const { drops } = overlay.muxStats()[0]!.counts;
    assert.equal([drops.rx_critical_option, drops.rx_control_packet, drops.rx_not_ethernet], [1n, 1n, 1n]);
  }),
);

geneve('a device with options: sent with every frame, changed while it runs', () =>
  withScene({ 'geneve/options': '0102:3:0a0b0c0d' }, async ({ memory, datagrams }) => {
    const { overlay, links } = memory;
    const send = async (options: Uint8Array) => {
      const count = datagrams.length;
      assert.ok(links.get('ov0').port.send(0, FRAME));
      await until('it arrives', 2000, () => datagrams.length > count);
      assert.equal(datagrams[count], twin.encap(VNETID, FRAME, options));
    };
    await send(twin.option(0x0102, 3, Uint8Array.of(10, 11, 12, 13)));
    await overlay.setprop('ov0', 'geneve/options', '5:86:+6:7:');
    await send(frames.concat(twin.option(5, 0x86, NOTHING), twin.option(6, 7, NOTHING)));
    await assertRefused(
      overlay.setprop('ov0', 'geneve/options', '5'),
      'EINVAL',
      'bad_property_value',
      /option 1 is not CLASS:TYPE:DATA in hexadecimal/,
    );
    await send(frames.concat(twin.option(5, 0x86, NOTHING), twin.option(6, 7, NOTHING)));
  }),
);

geneve(
  'options by target from a file: of two behind one VTEP, changed while it runs; nothing for VXLAN',
  async () => {
    const folder = mkdtempSync(join(tmpdir(), 'geneve-'));
    const path = join(folder, 'overlay.json');
    const memory = await MemoryOverlay.start();
    const socket = createSocket('udp4');
    const datagrams: Uint8Array[] = [];
    socket.on('message', (datagram) => datagrams.push(new Uint8Array(datagram)));
    try {
      const port = await freePort('127.0.0.1');
      socket.bind(port, '127.0.0.2');
      await once(socket, 'listening');
      const there = { ip: '127.0.0.2', port };
      const write = (...options: (string | undefined)[]) => {
        const rows = options.map((each, index) => [`2:0:0:0:0:${index + 1}`, { ...there, options: each }]);
        writeFileSync(`${path}.new`, JSON.stringify({ flood: true, ...Object.fromEntries(rows) }));
        renameSync(`${path}.new`, path);
      };
      const { overlay, links } = memory;
      const create = (name: string, encap: string) =>
        overlay.createOverlay({
          name,
          encap,
          search: 'files',
          vnetid: VNETID,
          properties: {
            [`${encap}/listen_ip`]: '127.0.0.1',
            [`${encap}/listen_port`]: port,
            'files/config': path,
          },
        });
      const sends = async (to: readonly number[], expected: Uint8Array) => {
        const frame = FRAME.slice();
        frame.set(to);
        datagrams.length = 0;
        assert.ok(links.get('ov0').port.send(0, frame));
        await until('it arrives', 2000, () => datagrams.length > 0);
        assert.equal(datagrams, [twin.encap(VNETID, frame, expected)], `to ${to}`);
      };
      const guest = (number: number) => [2, 0, 0, 0, 0, number];
      const broadcast = [255, 255, 255, 255, 255, 255];
      const [one, other] = [
        twin.option(0x0102, 3, Uint8Array.of(10, 11, 12, 13)),
        twin.option(0x0103, 0x84, NOTHING),
      ];
      write('0102:3:0a0b0c0d', '0103:84:', undefined);
      await create('ov0', 'geneve');
      await memory.up('ov0');
      await sends(guest(1), one);
      await sends(guest(2), other);
      await sends(guest(3), NOTHING);
      await sends(broadcast, NOTHING);
      write('0103:84:', '0103:84:', '0102:3:0a0b0c0d');
      await until(
        'the targets that have changed are forgotten',
        5000,
        () => overlay.cacheStats('ov0')!.targets === 2,
      );
      await sends(guest(1), other);
      await sends(guest(2), other);
      await sends(guest(3), one);
      await overlay.setprop('ov0', 'geneve/options', '0103:84:');
      await sends(guest(3), one);
      await sends(broadcast, other);
      write('0102:3:0a');
      await until('the device says so', 5000, () =>
        /overlay\.json:1:\d+: .*options of a destination: .*whole words.*stay in use/.test(
          overlay.status('ov0').message,
        ),
      );
      await sends(guest(3), one);
      write('0102:3:0a0b0c0d');
      await assertRefused(
        create('ov1', 'vxlan'),
        'EINVAL',
        'bad_mapping',
        /overlay\.json:1:\d+: the value of "options" is not usable: .*vxlan has none: leave them out/,
      );
    } finally {
      socket.close();
      await memory.close();
      rmSync(folder, { recursive: true });
    }
  },
);

geneve(
  'options by target: of the lookup, of the operator, of the property where a target has none',
  async () => {
    const port = await freePort('127.0.0.1');
    const there = { ip: '127.0.0.2', port };
    const options = { lookup: '0102:3:0a0b0c0d', operator: '0103:84:', property: '5:6:' };
    const bytes = {
      lookup: twin.option(0x0102, 3, Uint8Array.of(10, 11, 12, 13)),
      operator: twin.option(0x0103, 0x84, NOTHING),
      property: twin.option(5, 6, NOTHING),
    };
    const plugin = new ScriptedLookup(({ destination }) => {
      if (destination.endsWith('1')) return { ...there, options: options.lookup };
      return destination.endsWith('2') ? there : { ...there, options: 'nonsense' };
    });
    const memory = await MemoryOverlay.start({ plugins: [plugin] });
    const socket = createSocket('udp4');
    const datagrams: Uint8Array[] = [];
    socket.on('message', (datagram) => datagrams.push(new Uint8Array(datagram)));
    try {
      socket.bind(port, '127.0.0.2');
      await once(socket, 'listening');
      const { overlay, links } = memory;
      await overlay.createOverlay({
        name: 'ov0',
        encap: 'geneve',
        search: 'scripted',
        vnetid: VNETID,
        properties: { 'geneve/listen_ip': '127.0.0.1', 'geneve/listen_port': port },
      });
      await memory.up('ov0');
      const sends = async (last: number, expected: Uint8Array) => {
        const frame = FRAME.slice();
        frame.set([2, 0, 0, 0, 0, last]);
        const count = datagrams.length;
        assert.ok(links.get('ov0').port.send(0, frame));
        await until('it arrives', 2000, () => datagrams.length > count);
        assert.equal(datagrams[count], twin.encap(VNETID, frame, expected), `to ${last}`);
      };
      await sends(1, bytes.lookup);
      await sends(2, NOTHING);
      // Of targets that are known already.
      await overlay.setprop('ov0', 'geneve/options', options.property);
      await until('it runs', 2000, () => overlay.status('ov0').status === 'ONLINE');
      const asked = plugin.requests.length;
      await sends(1, bytes.lookup);
      await sends(2, bytes.property);
      overlay.cacheSet('ov0', 0x020000000002, { ...there, options: options.operator });
      await until('it is valid', 2000, () => overlay.cacheGet('ov0', 0x020000000002).state === 'valid');
      assert.equal(overlay.cacheGet('ov0', 0x020000000002).route, { ...there, options: options.operator });
      await sends(2, bytes.operator);
      assert.is(plugin.requests.length, asked, 'nobody was asked again');
      for (const [route, what] of [
        [{ ...there, options: '1:2:0a' }, /options of a destination: .*whole words/],
        [{ replicate: [{ ...there, options: '1:2:' }] }, /in a list has no options of its own/],
        [{ ...there, options: 'x'.repeat(1025) }, /text of at most 1024/],
      ] as const) {
        assert.throws(
          () => overlay.cacheSet('ov0', 3, route),
          (error: { code?: string; message: string }) =>
            error.code === 'bad_destination' && what.test(error.message),
        );
      }
      const lost = FRAME.slice();
      lost.set([2, 0, 0, 0, 0, 9]);
      assert.ok(links.get('ov0').port.send(0, lost));
      await until('the device says so', 2000, () =>
        /is not CLASS:TYPE:DATA/.test(overlay.status('ov0').message),
      );
      await sends(1, bytes.lookup);
    } finally {
      socket.close();
      await memory.close();
    }
  },
);

geneve('vxlan and geneve side by side: the same vnetid on each, one port for one encapsulation', () =>
  withScene({}, async ({ memory, port }) => {
    const { overlay } = memory;
    const there = { name: 'ov1', search: 'direct', vnetid: VNETID };
    const to = { 'direct/dest_ip': '127.0.0.2', 'direct/dest_port': port };
    const request = (listen: number) => ({
      ...there,
      encap: 'vxlan',
      properties: { 'vxlan/listen_ip': '127.0.0.1', 'vxlan/listen_port': listen, ...to },
    });
    await overlay.createOverlay(request(port));
    await memory.up('ov1');
    assert.match(overlay.status('ov1').message, /is in use for geneve; choose another port for vxlan/);
    await overlay.setprop('ov1', 'vxlan/listen_port', String(await freePort('127.0.0.1')));
    await until('it runs', 3000, () => overlay.status('ov1').status === 'ONLINE');
  }),
);

geneve.run();
