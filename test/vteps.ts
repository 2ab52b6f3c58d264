/** Lists of VTEPs are judged whole: own VTEPs, duplicates, other families and groups, whoever names them. */
import { createSocket, type Socket } from 'node:dgram';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import type { OverlayRequest } from '../src/overlay/transaction.js';
import type { Route } from '../src/target/destination.js';
import { until } from './harness/hosts.js';
import { assertRefused, freePort, MemoryOverlay } from './harness/memory-overlay.js';
import { ScriptedLookup } from './harness/scripted-lookup.js';
import * as frames from './reference/frames.js';
import * as twin from './reference/vxlan.js';

const vteps = suite('lists of VTEPs');

const OWN = '127.0.0.1';
const PEERS = ['127.0.0.2', '127.0.0.3'] as const;
const VNETID = 9;
const BROADCAST = 0xffffffffffff;
const MAC = 0x02_00_00_00_00_07;

interface Scene {
  readonly memory: MemoryOverlay;
  readonly port: number;
  readonly plugin: ScriptedLookup;
  /** Creates ov0 and takes its link up. */
  readonly create: (
    search: string,
    properties: Readonly<Record<string, unknown>>,
    listen?: string,
  ) => Promise<void>;
  /** Addresses that a frame arrives at, each as often as it arrives. */
  readonly reach: (mac: number) => Promise<string[]>;
}

async function withScene(work: (scene: Scene) => Promise<void>): Promise<void> {
  const port = await freePort(OWN);
  const plugin = new ScriptedLookup(() => 'drop');
  const memory = await MemoryOverlay.start({ plugins: [plugin] });
  const sockets: Socket[] = [];
  const received: { ip: string; datagram: Buffer }[] = [];
  try {
    for (const ip of PEERS) {
      const socket = createSocket('udp4');
      sockets.push(socket);
      socket.on('message', (datagram) => received.push({ ip, datagram }));
      socket.bind(port, ip);
      await once(socket, 'listening');
    }
    const create = async (
      search: string,
      properties: Readonly<Record<string, unknown>>,
      listen: string = OWN,
    ) => {
      await memory.overlay.createOverlay(requestOf(search, port, listen, properties));
      await memory.up('ov0');
    };
    let sent = 0;
    const reach = async (mac: number) => {
      const bytes = frames.ethernet(0x88b5, frames.bigEndian(++sent, 50));
      bytes.set(frames.bigEndian(mac, 6));
      bytes.set(frames.bigEndian(0x02_00_00_00_00_99, 6), 6);
      const expected = Buffer.from(twin.encap(VNETID, bytes));
      const link = memory.links.get('ov0').port;
      assert.ok(link.send(0, bytes));
      const got = () => received.filter(({ datagram }) => expected.equals(datagram)).map(({ ip }) => ip);
      await until('the frame arrives', 3000, () => got().length > 0);
      // Copies of one frame leave in one system call: a second copy is close behind the first.
      await new Promise((resolve) => setTimeout(resolve, 30));
      return got().sort();
    };
    await work({ memory, port, plugin, create, reach });
  } finally {
    for (const socket of sockets) socket.close();
    await memory.close();
  }
}

function requestOf(
  search: string,
  port: number,
  listen: string,
  properties: Readonly<Record<string, unknown>>,
): OverlayRequest {
  return {
    name: 'ov0',
    encap: 'vxlan',
    search,
    vnetid: VNETID,
    properties: { 'vxlan/listen_ip': listen, 'vxlan/listen_port': port, ...properties },
  };
}

const learnFrom = (port: number, flood: readonly string[]) => ({
  'learn/port': port,
  'learn/flood': flood.join('+'),
});

/** Frames that came back in from our own VTEP. */
const cameBack = ({ overlay }: MemoryOverlay) => overlay.deviceStats('ov0').counts.counters.rx_frames;

vteps('learn: the own VTEP is left out and a VTEP that is listed twice gets one copy', () =>
  withScene(async ({ memory, port, create, reach }) => {
    await create('learn', learnFrom(port, [OWN, PEERS[0], PEERS[1], PEERS[0]]));
    assert.equal(await reach(BROADCAST), [...PEERS]);
    assert.equal(await reach(MAC), [...PEERS]);
    assert.is(cameBack(memory), 0n);
  }),
);

vteps('an address of the host with another port is not the own VTEP', () =>
  withScene(async ({ memory, port, create, reach }) => {
    const { links } = memory;
    links.addresses = new Set([OWN]);
    // The two sockets of the peers have the port, so that the device takes another one.
    const listen = await freePort('0.0.0.0');
    await create('learn', { ...learnFrom(port, [...PEERS]), 'vxlan/listen_port': listen }, '0.0.0.0');
    assert.equal(await reach(BROADCAST), [...PEERS]);
    const change = async (addresses: readonly string[]) => {
      links.addresses = new Set(addresses);
      links.addressChanged();
      await memory.settle();
    };
    await change([OWN, PEERS[0]]);
    assert.equal(await reach(BROADCAST), [...PEERS]);
  }),
);

vteps('own VTEPs of a device on all addresses are left out while the host has them', () =>
  withScene(async ({ memory, plugin }) => {
    const { overlay, links } = memory;
    const listen = await freePort('0.0.0.0');
    links.addresses = new Set([OWN, PEERS[0]]);
    const list = { replicate: [PEERS[0], PEERS[1]].map((ip) => ({ ip, port: listen })) };
    plugin.answer = () => list;
    await overlay.createOverlay({
      ...requestOf('scripted', listen, '0.0.0.0', {}),
    });
    await memory.up('ov0');
    const copies = async (): Promise<number> => {
      const { tx_frames, tx_copies } = overlay.deviceStats('ov0').counts.counters;
      const frame = frames.ethernet(0x88b5, new Uint8Array(50), { destination: new Uint8Array(6).fill(255) });
      assert.ok(links.get('ov0').port.send(0, frame));
      await until('it is sent', 3000, () => overlay.deviceStats('ov0').counts.counters.tx_frames > tx_frames);
      await until('it rests', 3000, () => {
        const now = overlay.deviceStats('ov0').counts.counters;
        return now.tx_frames - tx_frames === 1n + now.tx_copies - tx_copies;
      });
      return Number(overlay.deviceStats('ov0').counts.counters.tx_frames - tx_frames);
    };
    assert.is(await copies(), 1, 'the other one alone');
    links.addresses = new Set([OWN]);
    links.addressChanged();
    await memory.settle();
    assert.is(await copies(), 2, 'both, since the address went');
    links.addresses = new Set([OWN, PEERS[0], PEERS[1]]);
    links.addressChanged();
    await memory.settle();
    assert.ok(
      links
        .get('ov0')
        .port.send(
          0,
          frames.ethernet(0x88b5, new Uint8Array(50), { destination: new Uint8Array(6).fill(255) }),
        ),
    );
    await until('it says that nobody else is listed', 3000, () =>
      /every VTEP of the list is this host's own/.test(overlay.status('ov0').message),
    );
  }),
);

vteps(
  'each target keeps the list that it was given, and an operator’s stays while the host has all of it',
  () =>
    withScene(async ({ memory }) => {
      const { overlay, links } = memory;
      const listen = await freePort('0.0.0.0');
      links.addresses = new Set([OWN, PEERS[0]]);
      await overlay.createOverlay(requestOf('scripted', listen, '0.0.0.0', {}));
      await memory.up('ov0');
      const lists = [[PEERS[0], PEERS[1]], [PEERS[1]]].map((ips) => ({
        replicate: ips.map((ip) => ({ ip, port: listen })),
      }));
      for (const [index, list] of lists.entries()) overlay.cacheSet('ov0', MAC + index, list);
      const shown = () => lists.map((_, index) => overlay.cacheGet('ov0', MAC + index).route);
      assert.equal(shown(), lists);
      for (const addresses of [[OWN], [OWN, ...PEERS], [OWN]]) {
        links.addresses = new Set(addresses);
        links.addressChanged();
        await memory.settle();
        assert.equal(shown(), lists, addresses.join());
      }
    }),
);

/** What no device on an IPv4 address can send to. */
const IMPOSSIBLE: readonly [ip: string, code: string, what: RegExp][] = [
  ['2001:db8::1', 'other_family', /IPv4 and the destination 2001:db8::1 IPv6: both must be of one family/],
  ['239.1.1.1', 'bad_destination', /239\.1\.1\.1 is a multicast group that ov0 is not in: name the VTEPs/],
  ['0.0.0.0', 'bad_destination', /unspecified/],
  ['255.255.255.255', 'bad_destination', /broadcast/],
];

vteps('an operator, a plugin and an answer are refused for a VTEP that can never be', () =>
  withScene(async ({ memory, port, plugin, create }) => {
    const { overlay, links } = memory;
    await create('scripted', {});
    for (const [ip, code, what] of IMPOSSIBLE) {
      const bad = { ip, port };
      const good = { ip: PEERS[0], port };
      const routes: Route[] = [bad, { replicate: [good, bad] }, { spread: [bad, good] }];
      for (const route of routes) {
        await assertRefused(() => overlay.cacheSet('ov0', MAC, route), 'EINVAL', code, what);
        await assertRefused(() => plugin.services!.set('2:0:0:0:0:7', route), 'EINVAL', code, what);
        assert.is(overlay.cacheStats('ov0')!.targets, 0, 'nothing has changed');
        plugin.answer = () => route;
        const { tx_lookup_drop } = overlay.deviceStats('ov0').counts.drops;
        links.get('ov0').port.send(0, frames.ethernet(0x88b5, new Uint8Array(50)));
        await until('its frame is dropped', 3000, () => {
          return overlay.deviceStats('ov0').counts.drops.tx_lookup_drop === tx_lookup_drop + 1n;
        });
        assert.match(overlay.status('ov0').message, what);
      }
    }
  }),
);

vteps('learn, direct and files are refused when they are set, and keep what they had', () =>
  withScene(async ({ memory, port, create }) => {
    const { overlay } = memory;
    const folder = mkdtempSync(join(tmpdir(), 'vteps-'));
    const mappings = join(folder, 'mappings.json');
    const write = (ip: string) =>
      writeFileSync(mappings, JSON.stringify({ '2:8:20:1:2:3': { ip, port: 4789 }, flood: true }));
    try {
      for (const [ip, code, what] of IMPOSSIBLE.slice(0, 2)) {
        write(ip);
        const requests: [search: string, properties: Record<string, unknown>][] = [
          ['files', { 'files/config': mappings }],
        ];
        // A group is joined by these two.
        if (code === 'other_family') {
          requests.push(['learn', learnFrom(port, [PEERS[0], ip])]);
          requests.push(['direct', { 'direct/dest_ip': ip, 'direct/dest_port': port }]);
        }
        for (const [search, properties] of requests) {
          const { message, parts } = await assertRefused(
            overlay.createOverlay(requestOf(search, port, OWN, properties)),
            'EINVAL',
            search === 'files' ? 'bad_mapping' : code,
          );
          assert.match([message, ...parts].join('\n'), what);
          if (search === 'files') assert.match(message, /mappings\.json:1:\d+: the value of "ip"/);
          assert.equal(overlay.names, []);
        }
      }
      // The link is down: a start that fails would come too late.
      await overlay.createOverlay(requestOf('learn', port, OWN, learnFrom(port, PEERS)));
      const value = (name: string) => overlay.property('ov0', name).value;
      for (const [name, bad] of [
        ['learn/flood', '2001:db8::1'],
        ['vxlan/listen_ip', '::1'],
      ] as const) {
        const before = value(name);
        await assertRefused(overlay.setprop('ov0', name, bad), 'EINVAL', 'other_family', /one family/);
        assert.is(value(name), before);
      }
      await overlay.delete('ov0', { force: true });
      await create('direct', { 'direct/dest_ip': PEERS[0], 'direct/dest_port': port });
      await memory.down('ov0');
      await assertRefused(
        overlay.setprop('ov0', 'direct/dest_ip', '2001:db8::1'),
        'EINVAL',
        'other_family',
        /direct\/dest_ip is as it was/,
      );
      assert.is(value('direct/dest_ip'), PEERS[0]);
      await assertRefused(overlay.setprop('ov0', 'vxlan/listen_ip', '::1'), 'EINVAL', 'other_family');
      assert.is(overlay.status('ov0').status, 'ONLINE');
    } finally {
      rmSync(folder, { recursive: true });
    }
  }),
);

vteps.run();
