/** What an operator says of the underlay's sockets: source ports, mark, network device, checksums; what they are like by themselves. */
import { execFileSync } from 'node:child_process';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { showStats } from '../src/cli/show.js';
import { Refusals } from '../src/control/refusals.js';
import { statsView } from '../src/control/view.js';
import type { MuxStats } from '../src/overlay/stats.js';
import { AF_INET, AF_INET6, SO_MARK, SOCK_CLOEXEC, SOCK_DGRAM, SOL_SOCKET } from '../src/sys/abi.js';
import { closeFd } from '../src/sys/fd.js';
import * as libc from '../src/sys/libc.js';
import { createNamespace, inNamespace } from '../src/sys/netns.js';
import { openSendBank } from '../src/sys/send-bank.js';
import { socketDefault } from '../src/sys/socket-settings.js';
import { closeUnderlay, openUnderlay } from '../src/sys/underlay.js';
import { capture } from './harness/capture.js';
import { type Daemon, Hosts, underlay, until } from './harness/hosts.js';
import { assertRefused, freePort, holdPort, MemoryOverlay, request } from './harness/memory-overlay.js';
import { testWith } from './harness/needs.js';

const sockets = suite('sockets of the underlay');
const HERE = '127.0.0.1';

/** A bank on loopback, closed again; the ports its sockets have. */
function portsOf(count: number, ports: readonly [number, number]): { ports: number[]; skipped: number } {
  const opened: number[] = [];
  const open = () => {
    const fd = libc.socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    opened.push(fd);
    return fd;
  };
  try {
    const { fds, skipped } = openSendBank({ open, domain: AF_INET, ip: HERE, count, ports });
    const name = new Uint8Array(16);
    const bytes = new Uint32Array([16]);
    return {
      skipped,
      ports: fds.map((fd) => {
        assert.is(libc.getsockname(fd, name, bytes), 0);
        return new DataView(name.buffer).getUint16(2);
      }),
    };
  } finally {
    for (const fd of opened) closeFd(fd);
  }
}

sockets('source ports: in the range, each another one, not the same at every start', () => {
  const [first, last] = socketDefault.sourcePorts;
  assert.equal([first, last], [49152, 65535], 'RFC 6335: the dynamic range');
  const one = portsOf(16, [first, last]).ports;
  const other = portsOf(16, [first, last]).ports;
  for (const ports of [one, other]) {
    assert.is(new Set(ports).size, 16);
    assert.ok(ports.every((port) => port >= first && port <= last));
  }
  assert.not.equal(one, other);
  const all = portsOf(8, [61_200, 61_207]);
  assert.equal([...all.ports].sort(), [61_200, 61_201, 61_202, 61_203, 61_204, 61_205, 61_206, 61_207]);
});

testWith(sockets, ['root', 'ip'], 'a port that a tunnel of the kernel has is said to be that', () => {
  const namespace = createNamespace();
  const ip = (...args: string[]) => execFileSync('ip', args);
  try {
    inNamespace(namespace, () => {
      ip('link', 'set', 'lo', 'up');
      ip('link', 'add', 'vx7', 'type', 'vxlan', 'id', '1', 'local', HERE, 'dstport', '4789');
      ip('link', 'set', 'vx7', 'up');
      const open = () => openUnderlay({ ip: HERE, port: 4789, workers: 1, bank: 1, settings: socketDefault });
      assert.throws(
        open,
        /a tunnel of the kernel has it \(vx7 of kind vxlan\): delete it \(ip link delete vx7\)/,
      );
      // The remedy, followed word for word.
      ip('link', 'delete', 'vx7');
      closeUnderlay(open());
    });
  } finally {
    closeFd(namespace);
  }
});

sockets('source ports in use are passed over and counted; too few are refused', async () => {
  const first = 61_300;
  const taken = await Promise.all([1, 3].map((offset) => holdPort(HERE, first + offset)));
  try {
    // Those that come behind the last free one are not met. Each number is as good as certain in so many starts.
    const met = new Set<number>();
    for (let start = 0; start < 400; start++) {
      const { ports, skipped } = portsOf(3, [first, first + 4]);
      assert.equal([...ports].sort(), [first, first + 2, first + 4]);
      met.add(skipped);
    }
    assert.equal([...met].sort(), [0, 1, 2]);
    const refusal = (code: string, what: RegExp) => (error: { code?: string; message: string }) =>
      error.code === code && what.test(error.message);
    assert.throws(
      () => portsOf(4, [first, first + 4]),
      refusal('source_ports_in_use', /2 are in use by others.*choose another range/),
    );
    assert.throws(
      () => portsOf(6, [first, first + 4]),
      refusal('source_ports_few', /are 5, and there are 6 send sockets: widen/),
    );
  } finally {
    await Promise.all(taken.map(({ release }) => release()));
  }
});

sockets('source ports in use that a device has met are in its counts, and in show-stats', async () => {
  const first = 61_310;
  const memory = await MemoryOverlay.start({ bank: 2 });
  const taken = await Promise.all([0, 2, 3].map((offset) => holdPort(HERE, first + offset)));
  try {
    const { overlay } = memory;
    const properties = { 'vxlan/source_ports': `${first}-${first + 4}` };
    await overlay.createOverlay(request('ov0', 1, await freePort(HERE), { properties }));
    const met = new Set<number>();
    // All of them in two starts of five.
    for (let start = 0; start < 100 && !met.has(taken.length); start++) {
      await memory.up('ov0');
      await until('it runs', 3000, () => overlay.state('ov0') === 'started');
      const [{ name, portsSkipped }] = overlay.muxStats() as [MuxStats];
      const shown = showStats(statsView(overlay, true, {}, { size: 0, refusals: new Refusals() }), {
        parsable: true,
        output: 'scope,counter,value',
      });
      const line = `${name.replace(/:/g, '\\:')}:ports_skipped:${portsSkipped}`;
      assert.ok(shown.includes(line), `${line} in ${shown.join('\n')}`);
      met.add(portsSkipped);
      await memory.down('ov0');
    }
    assert.is(Math.max(...met), taken.length);
  } finally {
    await Promise.all(taken.map(({ release }) => release()));
    await memory.close();
  }
});

sockets(
  'devices share the sockets of an address: other ones are refused by the name of the property',
  async () => {
    const memory = await MemoryOverlay.start();
    try {
      const { overlay } = memory;
      const port = await freePort(HERE);
      const create = (name: string, vnetid: number, properties: Readonly<Record<string, string>>) =>
        overlay.createOverlay({
          name,
          encap: 'vxlan',
          search: 'direct',
          vnetid,
          properties: {
            'vxlan/listen_ip': HERE,
            'vxlan/listen_port': port,
            'direct/dest_ip': '127.0.0.2',
            'direct/dest_port': port,
            ...properties,
          },
        });
      await create('ov0', 1, { 'vxlan/source_ports': '50000-59999' });
      await memory.up('ov0');
      await create('ov1', 2, { 'vxlan/source_ports': '50000-59999', 'vxlan/zerocsum6_rx': 'on' });
      await memory.up('ov1');
      await until('it says so', 3000, () =>
        /share its sockets.*another vxlan\/zerocsum6_rx/.test(overlay.status('ov1').message),
      );
      await assertRefused(
        overlay.setprop('ov0', 'vxlan/source_ports', '50000-50000'),
        'EINVAL',
        'source_ports_few',
        /are 1, and there are 2 send .*source_ports is as it was/,
      );
      assert.is(overlay.status('ov0').status, 'ONLINE');
      await overlay.setprop('ov1', 'vxlan/zerocsum6_rx', 'off');
      await until('it runs', 3000, () => overlay.status('ov1').status === 'ONLINE');
      for (const [name, value, what] of [
        ['source_ports', '0-10', /a range within 1-65535/],
        ['source_ports', '10-9', /a range within/],
        ['source_ports', '10', /a range within/],
        ['device', 'a/b', /name of a network device, or any/],
        ['device', 'abcdefghijklmnop', /name of a network device/],
        ['mark', '4294967296', /0-4294967295/],
        ['zerocsum6_tx', 'yes', /on,off/],
        ['reserved', 'keep', /ignore,drop/],
      ] as const) {
        await assertRefused(
          overlay.setprop('ov0', `vxlan/${name}`, value),
          'EINVAL',
          'bad_property_value',
          what,
        );
      }
      assert.equal(
        overlay.muxStats().map(({ portsSkipped }) => portsSkipped),
        [0],
      );
    } finally {
      await memory.close();
    }
  },
);

testWith(sockets, ['root'], 'every socket has the mark', () => {
  const settings = { ...socketDefault, mark: 0xfedcba98 };
  const opened = openUnderlay({ ip: HERE, port: 61_400, workers: 2, bank: 4, settings });
  try {
    for (const fd of [...opened.receive, ...opened.send]) {
      const value = new Uint32Array(1);
      assert.is(libc.getsockopt(fd, SOL_SOCKET, SO_MARK, value, new Uint32Array([4])), 0);
      assert.is(value[0], 0xfedcba98);
    }
    assert.is(opened.domain, AF_INET6);
  } finally {
    closeUnderlay(opened);
  }
});

// ─── Between hosts ──────────────────────────────────────────────────────────────────────────────────────

const needs = ['root', '/dev/net/tun', 'ping', 'ip', 'tcpdump'];
/** One that NVGRE does not reserve. */
const VNETID = 0x1007;
const inner = { a: '198.51.100.1', b: '198.51.100.2' } as const;

interface Scene {
  readonly hosts: Hosts;
  readonly a: Daemon;
  readonly b: Daemon;
  /** Whether b answers a ping over the overlay. */
  readonly answers: () => boolean;
}

async function withHosts(
  family: 4 | 6,
  work: (scene: Scene) => Promise<void>,
  encap: 'vxlan' | 'nvgre' = 'vxlan',
): Promise<void> {
  const hosts = new Hosts();
  try {
    const a = await hosts.daemon('a');
    const b = await hosts.daemon('b');
    await a.createOverlay(hosts.a, 'ov0', VNETID, underlay[family].a, underlay[family].b, encap);
    await b.createOverlay(hosts.b, 'ov0', VNETID, underlay[family].b, underlay[family].a, encap);
    for (const side of ['a', 'b'] as const) hosts.address(side, 'ov0', `${inner[side]}/24`);
    const answers = () => hosts.a.attempt('ping', '-q', '-c', '1', '-W', '1', inner.b).status === 0;
    await until('the hosts see each other', 5000, answers);
    await work({ hosts, a, b, answers });
  } finally {
    await hosts.close();
  }
}

const set = (daemon: Daemon, property: string, value: string) =>
  daemon.client.put(`/v1/overlays/ov0/properties/${encodeURIComponent(property)}`, { value });

for (const family of [4, 6] as const) {
  testWith(
    sockets,
    [...needs, 'ethtool'],
    `by itself, IPv${family}: no fragments, a right checksum, from a port of the range to the port both ways`,
    () =>
      withHosts(family, async ({ hosts }) => {
        // A veth pair shows checksums that nobody has finished.
        for (const side of ['a', 'b'] as const) hosts[side].run('ethtool', '-K', 'underlay0', 'tx', 'off');
        const filter = `udp or ${family === 4 ? 'ip[6:2] & 0x3fff != 0' : 'ip6 proto 44'}`;
        const seen = await capture(hosts.b, filter, { flags: ['-vv'] });
        // More than the MTU: the guest has to cut it.
        const ping = hosts.a.attempt('ping', '-q', '-c', '3', '-i', '0.1', '-W', '1', '-s', '4000', inner.b);
        assert.is(ping.status, 0);
        const outer = { 4: /IP \(tos .*\bflags \[DF\], proto UDP/, 6: /IP6 \(.*next-header UDP/ }[family];
        const packets = (await seen()).split(/^(?=\d\d:\d\d:\d\d)/m);
        assert.ok(packets.length >= 6, `${packets.length} packets`);
        for (const packet of packets) {
          assert.match(packet, outer);
          const [, port] = /\.(\d+) > \S+\.4789: \[udp sum ok\] VXLAN/.exec(packet) ?? [];
          assert.ok(Number(port) >= 49152, packet);
        }
      }),
  );
}

testWith(sockets, needs, 'a mark decides the route', () =>
  withHosts(4, async ({ hosts, a, answers }) => {
    hosts.a.run('ip', 'rule', 'add', 'fwmark', '7', 'lookup', '100', 'priority', '1');
    hosts.a.run('ip', 'route', 'add', 'unreachable', 'default', 'table', '100');
    assert.ok(answers());
    await set(a, 'vxlan/mark', '7');
    assert.not.ok(answers());
    assert.ok(Number((await a.stats()).overlays.ov0!.drops.tx_unreachable) >= 1);
    await set(a, 'vxlan/mark', '8');
    await until('another mark is not meant', 3000, answers);
  }),
);

testWith(sockets, needs, 'a network device: that alone; one that there is not', () =>
  withHosts(4, async ({ hosts, a, answers }) => {
    await set(a, 'vxlan/device', 'underlay0');
    await until('through the right one', 3000, answers);
    hosts.a.netlink.createVeth('other0', 'other1');
    for (const name of ['other0', 'other1']) {
      hosts.a.netlink.setLink(hosts.a.netlink.getLink(name).index, { up: true });
    }
    await set(a, 'vxlan/device', 'other0');
    assert.not.ok(answers());
    const refusal = await set(a, 'vxlan/device', 'nothing0').then(
      () => undefined,
      (error: { code?: string; message: string }) => error,
    );
    assert.is(refusal?.code, 'no_such_link');
    assert.match(refusal!.message, /no network device 'nothing0'.*vxlan\/device is as it was/);
    await set(a, 'vxlan/device', 'any');
    await until('through any', 3000, answers);
  }),
);

testWith(sockets, needs, 'IPv6 without checksums: sent where told, taken where told', () =>
  withHosts(6, async ({ hosts, a, b, answers }) => {
    await set(a, 'vxlan/zerocsum6_tx', 'on');
    const seen = await capture(hosts.b, 'udp port 4789', { flags: ['-vv', '-Q', 'in'] });
    assert.not.ok(answers(), 'b does not take them');
    assert.match(await seen(), /\[bad udp cksum 0x0000 ->/);
    await set(b, 'vxlan/zerocsum6_rx', 'on');
    await until('b takes them', 3000, answers);
    const { overlays } = await a.client.get<{
      overlays: Record<string, { offloads: { udp_segment: string } }>;
    }>('/v1/overlays/ov0');
    assert.is(overlays.ov0!.offloads.udp_segment, 'refused', 'the kernel cuts no message without checksums');
  }),
);

for (const [encap, filter] of [
  ['vxlan', 'udp port 4789'],
  ['nvgre', 'ip6 proto 47'],
] as const) {
  testWith(sockets, needs, `${encap} over IPv6: one flow label a flow, others for others`, () =>
    withHosts(
      6,
      async ({ hosts }) => {
        const seen = await capture(hosts.b, filter, { flags: ['-v', '-Q', 'in'] });
        const sends = (port: number) => {
          const script = `const s=require('dgram').createSocket('udp4');let n=0;s.bind(${port},()=>{
        const go=()=>n++<3?s.send('x',9,'${inner.b}',go):s.close();go()})`;
          assert.is(hosts.a.attempt(process.execPath, '-e', script).status, 0);
        };
        const flows = 12;
        for (let flow = 0; flow < flows; flow++) sends(20_000 + flow);
        // A packet begins with its outer header, and has the inner one some lines further.
        const labelled = () => {
          const labels = new Map<string, Set<string>>();
          for (const packet of seen.seen().split(' IP6 (').slice(1)) {
            const label = /flowlabel (0x[0-9a-f]+)/.exec(packet)?.[1];
            const flow = /198\.51\.100\.1\.(2\d{4}) >/.exec(packet)?.[1];
            if (label && flow) labels.set(flow, (labels.get(flow) ?? new Set()).add(label));
          }
          return labels;
        };
        await until('all are seen', 3000, () => labelled().size === flows);
        await seen();
        const labels = labelled();
        for (const [flow, those] of labels) assert.is(those.size, 1, `flow ${flow}: ${[...those]}`);
        const different = new Set([...labels.values()].flatMap((those) => [...those]));
        assert.ok(different.size >= 3, `${different.size} labels of ${flows} flows`);
      },
      encap,
    ),
  );
}

sockets.run();
