/** Who may send to a device: `<encap>/source_check`. Attackers are other loopback addresses with the right port and vnetid. */
import { createSocket, type Socket } from 'node:dgram';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { until } from './harness/hosts.js';
import { assertRefused, MemoryOverlay } from './harness/memory-overlay.js';
import { MemoryPair, type MemoryPairOptions, sideIp } from './harness/memory-pair.js';
import { ScriptedLookup } from './harness/scripted-lookup.js';
import * as frames from './reference/frames.js';
import { encap } from './reference/vxlan.js';

const sourceCheck = suite('source check');
const VNETID = 42;
const STRANGER = '127.0.0.66';
const MAC_OF_A = '02:00:00:00:00:aa';

/** A frame from a guest's MAC address, inside VXLAN. */
function datagram(sourceMac = MAC_OF_A): Uint8Array {
  const payload = frames.udp({ ends: frames.ENDS_4, sourcePort: 1, payload: new Uint8Array(20) });
  const frame = frames.ethernet(0x0800, frames.ipv4({ protocol: 17, payload }));
  frame.set(
    sourceMac.split(':').map((octet) => Number.parseInt(octet, 16)),
    6,
  );
  return encap(VNETID, frame);
}

async function withSenders(
  options: Partial<MemoryPairOptions>,
  work: (pair: MemoryPair, send: (from: string, what?: Uint8Array) => Promise<void>) => Promise<void>,
): Promise<void> {
  const pair = await MemoryPair.start({ workers: 1, ...options });
  const sockets = new Map<string, Socket>();
  const send = async (from: string, what = datagram()) => {
    let socket = sockets.get(from);
    if (!socket) {
      socket = createSocket('udp4');
      sockets.set(from, socket);
      await new Promise<void>((resolve) => socket!.bind(0, from, resolve));
    }
    await new Promise<void>((resolve) => socket!.send(what, pair.udpPort, sideIp.b, () => resolve()));
  };
  try {
    await work(pair, send);
  } finally {
    for (const socket of sockets.values()) socket.close();
    await pair.close();
  }
}

/** How many of the datagrams sent so far b delivered and dropped for their source. */
function tell(pair: MemoryPair): { delivered: number; unknown: number; mac: number } {
  const { counters, drops } = pair.b.overlay.deviceStats('ov0').counts;
  return {
    delivered: Number(counters.rx_frames),
    unknown: Number(drops.rx_source_unknown),
    mac: Number(drops.rx_source_mac),
  };
}

async function expect(pair: MemoryPair, expected: ReturnType<typeof tell>): Promise<void> {
  const isSo = () => JSON.stringify(tell(pair)) === JSON.stringify(expected);
  await until(`${JSON.stringify(expected)}, not ${JSON.stringify(tell(pair))}`, 2000, isSo).catch(() =>
    assert.equal(tell(pair), expected),
  );
}

sourceCheck('auto: a POINT device takes its peer and nobody else', () =>
  withSenders({}, async (pair, send) => {
    for (let i = 0; i < 10; i++) {
      await send(sideIp.a);
      await send(STRANGER);
    }
    await expect(pair, { delivered: 10, unknown: 10, mac: 0 });
  }),
);

sourceCheck('off: anyone', () =>
  withSenders({ properties: { 'vxlan/source_check': 'off' } }, async (pair, send) => {
    await send(sideIp.a);
    await send(STRANGER);
    await expect(pair, { delivered: 2, unknown: 0, mac: 0 });
  }),
);

sourceCheck('auto and known: a plugin that lists its VTEPs decides, and may change its mind', async () => {
  for (const check of ['auto', 'known']) {
    let peers = [sideIp.a, '2001:db8::1', '127.0.0.3'];
    const plugin = new ScriptedLookup(() => 'drop', { peers: () => peers });
    const options = { plugin: () => plugin, properties: { 'vxlan/source_check': check } };
    await withSenders(options, async (pair, send) => {
      for (const from of [sideIp.a, STRANGER, '127.0.0.3', STRANGER, sideIp.a]) await send(from);
      await expect(pair, { delivered: 3, unknown: 2, mac: 0 });
      peers = [STRANGER];
      plugin.services!.peersChanged();
      for (const from of [sideIp.a, STRANGER]) await send(from);
      await expect(pair, { delivered: 4, unknown: 3, mac: 0 });
      peers = Array.from({ length: 1000 }, (_, i) => `127.1.${i >> 8}.${i & 255}`);
      plugin.services!.peersChanged();
      for (const from of ['127.1.0.0', '127.1.3.231', '127.1.3.232', sideIp.a]) await send(from);
      await expect(pair, { delivered: 6, unknown: 5, mac: 0 });
    });
  }
});

sourceCheck('auto: a plugin that cannot list its VTEPs lets anyone send', () => {
  const plugin = new ScriptedLookup(() => 'drop');
  return withSenders({ plugin: () => plugin }, async (pair, send) => {
    await send(STRANGER);
    await expect(pair, { delivered: 1, unknown: 0, mac: 0 });
  });
});

sourceCheck('strict: the inner source must live behind the sender, as the plugin says', () => {
  const plugin = new ScriptedLookup(() => 'drop');
  const options = { plugin: () => plugin, properties: { 'vxlan/source_check': 'strict' } };
  return withSenders(options, async (pair, send) => {
    plugin.answer = ({ destination }) =>
      destination === MAC_OF_A ? { ip: sideIp.a, port: pair.udpPort } : 'unknown';
    // The first frame asks; it is dropped, since nobody vouches for it yet.
    await send(sideIp.a);
    await expect(pair, { delivered: 0, unknown: 0, mac: 1 });
    await until('asked', 2000, () => plugin.requests.length === 1);
    assert.is(plugin.requests[0]!.destination, MAC_OF_A);
    await until('known', 2000, () => pair.b.overlay.cacheStats('ov0')!.targets === 1);
    for (let i = 0; i < 5; i++) await send(sideIp.a);
    await expect(pair, { delivered: 5, unknown: 0, mac: 1 });
    await send(STRANGER);
    await send(sideIp.a, datagram('02:00:00:00:00:bb'));
    await send(sideIp.a, datagram('03:00:00:00:00:aa'));
    await expect(pair, { delivered: 5, unknown: 0, mac: 4 });
    const before = plugin.requests.length;
    await send(sideIp.a);
    await expect(pair, { delivered: 6, unknown: 0, mac: 4 });
    assert.ok(before <= 2, 'a group address is not asked about');
  });
});

sourceCheck('what cannot be checked is refused, with a sentence', async () => {
  const plugin = new ScriptedLookup(() => 'drop');
  const memory = await MemoryOverlay.start({ plugins: [plugin] });
  try {
    const { overlay } = memory;
    await assertRefused(
      overlay.createOverlay({
        name: 'ov0',
        encap: 'vxlan',
        search: 'direct',
        vnetid: 1,
        properties: { 'vxlan/source_check': 'sometimes' },
      }),
      'EINVAL',
      'bad_property_value',
      /auto,off,known,strict/,
    );
    await overlay.createOverlay({
      name: 'ov1',
      encap: 'vxlan',
      search: 'scripted',
      vnetid: 2,
      properties: { 'vxlan/listen_ip': '127.0.0.1', 'vxlan/source_check': 'known' },
    });
    await memory.up('ov1');
    assert.match(overlay.status('ov1').message, /source_check=known needs a lookup plugin that can list/);
    assert.is(overlay.state('ov1'), 'activated');
  } finally {
    await memory.close();
  }
});

sourceCheck.run();
