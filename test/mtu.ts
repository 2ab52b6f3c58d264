/** The MTU of devices by that of the underlay: the sum, what follows it, and what is said when it does not fit. */
import { execFileSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import type { UnderlayMtu } from '../src/device.js';
import { formatOverhead, overhead, overheadBytes, taggedOverhead } from '../src/encap/overhead.js';
import { EncapRegistry } from '../src/encap/registry.js';
import type { FaultStatus } from '../src/fma.js';
import { inNamespace } from '../src/sys/netns.js';
import { Host, Hosts, underlay, until } from './harness/hosts.js';
import { HERE, withMemory } from './harness/lifecycle.js';
import { freePort, MemoryOverlay, request } from './harness/memory-overlay.js';
import { MemoryStore } from './harness/memory-store.js';
import { testWith } from './harness/needs.js';
import * as frames from './reference/frames.js';

const mtu = suite('mtu');
const needs = ['root', '/dev/net/tun', 'ip'];

mtu('the overhead of each encapsulation, with and without a tag, over both families', () => {
  const encaps = new EncapRegistry();
  // Over IPv4 and IPv6, each without a tag and with one.
  const usual = [50, 54, 70, 74];
  const others: Readonly<Record<string, readonly number[]>> = {
    geneve: [58, 62, 78, 82],
    // No UDP, and no tags.
    nvgre: [42, 42, 62, 62],
  };
  for (const name of encaps.names) {
    const encap = encaps.get(name);
    const properties = encap.operations.init();
    if (name === 'geneve') properties.set('geneve/options', '0102:3:0a0b0c0d');
    const encapBytes = encap.operations.encap(encap.vnetids?.min ?? 0n, properties).length;
    const sums = ([4, 6] as const).flatMap((family) => {
      const headers = { encap, encapBytes, family };
      return [overheadBytes(overhead(headers)), overheadBytes(taggedOverhead(headers))];
    });
    assert.equal(sums, others[name] ?? usual, name);
  }
  const headers = { encap: encaps.get('vxlan'), encapBytes: 8, family: 6 } as const;
  assert.is(
    formatOverhead('-', taggedOverhead(headers)),
    ' - 40 IPv6 - 8 UDP - 8 vxlan - 14 Ethernet - 4 VLAN',
  );
});

/** A started device over an underlay whose MTU the test sets. */
async function withUnderlay(
  first: UnderlayMtu | undefined,
  work: (
    memory: MemoryOverlay,
    change: (to: UnderlayMtu | undefined) => Promise<void>,
    shown: () => unknown[],
  ) => Promise<void>,
): Promise<void> {
  await withMemory(async (memory) => {
    const { overlay, links } = memory;
    let now = first;
    let asked = 0;
    links.underlayMtuOf = () => {
      asked++;
      return now;
    };
    const change = async (to: UnderlayMtu | undefined) => {
      now = to;
      const before = asked;
      links.addressChanged();
      await until('it is looked at', 3000, () => asked > before);
      await memory.settle();
    };
    await overlay.createOverlay(request('ov0', 1, await freePort(HERE)));
    await memory.up('ov0');
    const shown = () => [overlay.property('ov0', 'mtu').value, overlay.property('ov0', 'mtu_sum').value];
    await work(memory, change, shown);
  });
}

const under = (bytes: number): UnderlayMtu => ({ bytes, link: 'eth0' });
const taken = (bytes: number) => `${bytes} - 20 IPv4 - 8 UDP - 8 vxlan - 14 Ethernet - 4 VLAN`;

mtu('1400 until the underlay is known, then what it has room for, as it changes', () =>
  withUnderlay(undefined, async ({ links }, change, shown) => {
    assert.equal(shown(), [1400n, undefined]);
    for (const [bytes, value] of [
      [1500, 1446],
      [9000, 8900],
      [1280, 1226],
      [600, 576],
    ] as const) {
      await change(under(bytes));
      const [has, sum] = shown();
      assert.equal([has, links.get('ov0').mtu], [BigInt(value), value]);
      const room = bytes - 54;
      const why = { 8900: '8900 (mtu_max), of ', 576: '576 (the least there can be), of ' }[value as 576];
      assert.is(sum, `${why ?? ''}${room} = ${taken(bytes)}`);
    }
    await change(undefined);
    assert.is(shown()[0], 576n, 'without a way the last one stays');
  }),
);

mtu('a set MTU stays, says so when it does not fit, and gives way to auto', () =>
  withUnderlay(under(1500), async (memory, change, shown) => {
    const { overlay, links } = memory;
    const fault = () => overlay.status('ov0').faults.find(({ code }) => code === 'mtu_above_underlay')?.text;
    await overlay.setprop('ov0', 'mtu', 1450);
    assert.equal(shown(), [1450n, `1450 set, of 1446 = ${taken(1500)}`]);
    assert.is(fault(), undefined, 'an untagged packet fits');
    await overlay.setprop('ov0', 'mtu', 1451);
    assert.is(
      fault(),
      'a packet of the MTU takes 1501 = 1451 + 14 Ethernet + 8 vxlan + 8 UDP + 20 IPv4, and the underlay (eth0) ' +
        'takes 1500: set mtu to auto or at most 1450, or raise the MTU of eth0',
    );
    assert.is(overlay.status('ov0').status, 'DEGRADED');
    assert.is(overlay.state('ov0'), 'started', 'and it forwards');
    await change(under(1501));
    assert.equal([shown()[0], fault()], [1451n, undefined]);
    await change(under(1400));
    assert.match(fault()!, /takes 1501 .* takes 1400/);
    await overlay.setprop('ov0', 'mtu', 'auto');
    assert.equal([shown(), fault()], [[1346n, `1346 = ${taken(1400)}`], undefined]);
    assert.is(overlay.property('ov0', 'mtu').asked, 'auto');

    // The link is as good as the property.
    links.changeMtu('ov0', 1360);
    await memory.settle();
    assert.equal([shown()[0], overlay.property('ov0', 'mtu').asked], [1360n, 1360n]);
    assert.match(fault()!, /takes 1410/);
    await change(under(500));
    await overlay.setprop('ov0', 'mtu', 'auto');
    assert.is(shown()[0], 576n);
    assert.match(fault()!, /takes 626 .* takes 500: raise the MTU of eth0$/, 'auto has a floor');
    await change(under(1500));
    assert.equal([shown()[0], fault()], [1446n, undefined]);
    await overlay.setprop('ov0', 'mtu_max', 20_000);
    await change(under(12_000));
    assert.is(shown()[0], 11_946n, 'up to mtu_max');
  }),
);

mtu('routes that change are looked at once for many changes, and each underlay once for many devices', () =>
  withUnderlay(under(1500), async (memory, _, shown) => {
    const { overlay, links } = memory;
    const asked: string[] = [];
    await overlay.createOverlay(request('ov1', 2, await freePort(HERE)));
    links.underlayMtuOf = (from, to) => {
      asked.push(`${from} to ${to}`);
      return under(1600);
    };
    for (let times = 0; times < 100; times++) links.routesChanged();
    await until('it follows', 5000, () => shown()[0] === 1546n);
    assert.equal(asked, ['127.0.0.1 to 127.0.0.2']);
    assert.is(overlay.property('ov1', 'mtu').value, 1546n);
  }),
);

mtu('over a restart: auto is auto, with what the link had, and a set one is set', async () => {
  const store = new MemoryStore();
  const port = await freePort(HERE);
  const first = await MemoryOverlay.start({ store });
  first.links.underlayMtuOf = () => under(1500);
  await first.overlay.createOverlay(request('ov0', 1, port));
  await first.overlay.createOverlay({ ...request('ov1', 2, port) });
  await first.overlay.setprop('ov1', 'mtu', 1400);
  await first.close();
  assert.is(store.records.get('ov0')!.properties.mtu, undefined);
  assert.is(store.records.get('ov1')!.properties.mtu, 1400, 'kept, although it was the default once');
  const second = await MemoryOverlay.start({ store });
  try {
    second.links.underlayMtuOf = () => under(1600);
    assert.equal(await second.overlay.restore([...store.records.values()]), []);
    await second.overlay.resume();
    const shown = (name: string) => {
      const { value, asked } = second.overlay.property(name, 'mtu');
      return [value, asked, second.links.get(name).mtu];
    };
    assert.equal(shown('ov0'), [1546n, 'auto', 1546]);
    assert.equal(shown('ov1'), [1400n, 1400n, 1400]);
  } finally {
    await second.close();
  }
});

for (const family of [4, 6] as const) {
  testWith(
    mtu,
    needs,
    `IPv${family}: the route's MTU, the link's, their changes, and the namespace`,
    async () => {
      const hosts = new Hosts();
      try {
        const a = await hosts.daemon('a');
        await a.createOverlay(hosts.a, 'ov0', 1, underlay[family].a, underlay[family].b);
        const own = { 4: 54, 6: 74 }[family];
        const shown = async () => {
          const property = async (name: string) =>
            (await a.client.get<{ property: { value: unknown } }>(`/v1/overlays/ov0/properties/${name}`))
              .property.value;
          return [await property('mtu'), hosts.a.netlink.getLink('ov0').mtu, await property('mtu_sum')];
        };
        const becomes = async (bytes: number, what: string) => {
          await until(what, 3000, async () => (await shown())[0] === bytes - own);
          const [value, link, sum] = await shown();
          assert.is(link, value);
          assert.match(String(sum), new RegExp(`^${bytes - own} = ${bytes} - ${family === 4 ? 20 : 40} IPv`));
        };
        await becomes(1500, 'the link');
        const { index } = hosts.a.netlink.getLink('underlay0');
        hosts.a.netlink.setLink(index, { mtu: 1600 });
        await becomes(1600, 'a raised link');
        const route = (...words: string[]) =>
          hosts.a.run(
            'ip',
            `-${family}`,
            'route',
            ...words.slice(0, 1),
            underlay[family].b,
            ...words.slice(1),
          );
        route('add', 'dev', 'underlay0', 'mtu', '1440');
        await becomes(1440, 'a route of its own');
        route('change', 'dev', 'underlay0', 'mtu', '1480');
        await becomes(1480, 'a changed route');
        route('del');
        await becomes(1600, 'no route of its own');
        hosts.a.netlink.setLink(index, { mtu: 1400 });
        await becomes(1400, 'a lowered link');
        const status = () => a.client.get<FaultStatus>('/v1/overlays/ov0/status');
        assert.is((await status()).status, 'ONLINE');
        await a.client.put('/v1/overlays/ov0/properties/mtu', { value: 1500 });
        await until('degraded', 2000, async () => (await status()).status === 'DEGRADED');
        assert.match(
          (await status()).message,
          /underlay \(underlay0\) takes 1400: set mtu to auto or at most/,
        );
        hosts.a.netlink.setLink(index, { mtu: 1700 });
        await until('online', 2000, async () => (await status()).status === 'ONLINE');
        assert.is((await shown())[0], 1500, 'a set one stays');
      } finally {
        await hosts.close();
      }
    },
  );
}

/** Sends a frame on a link of the host it runs in, as a guest with tags would. */
const SEND_FRAME = [
  'import socket, sys',
  's = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)',
  "s.bind(('ov0', 0))",
  's.send(bytes.fromhex(sys.stdin.read()))',
].join('\n');

testWith(
  mtu,
  [...needs, 'python3'],
  'a full packet with a tag fits by default; with four bytes more the kernel refuses it once, and the guest is told',
  async () => {
    const hosts = new Hosts();
    try {
      const [a, b] = [await hosts.daemon('a'), await hosts.daemon('b')];
      await a.createOverlay(hosts.a, 'ov0', 1, underlay[4].a, underlay[4].b);
      await b.createOverlay(hosts.b, 'ov0', 1, underlay[4].b, underlay[4].a);
      const send = (bytes: number) => {
        const payload = frames.udp({ ends: frames.ENDS_4, payload: new Uint8Array(bytes - 28) });
        const packet = frames.ipv4({ protocol: 17, payload });
        const frame = frames.ethernet(frames.ETHERTYPE_IPV4, packet, { tags: frames.VLAN_TAGS });
        const input = Buffer.from(frame).toString('hex');
        inNamespace(hosts.a.namespace, () => execFileSync('python3', ['-c', SEND_FRAME], { input }));
      };
      const counts = async () => (await a.stats()).overlays.ov0!;
      const drops = async () => {
        const { tx_underlay_mtu = 0, tx_path_mtu = 0, tx_too_big = 0 } = (await counts()).drops;
        return [tx_underlay_mtu, tx_path_mtu, tx_too_big];
      };
      const received = async () => Number((await b.stats()).overlays.ov0!.counters.rx_frames);
      const before = await received();
      send(1446);
      await until('it arrives', 3000, async () => (await received()) > before);
      assert.equal(await drops(), [0, 0, 0]);
      await a.client.put('/v1/overlays/ov0/properties/mtu', { value: 1450 });
      send(1450);
      await until('it is refused', 3000, async () => (await drops())[0] === 1);
      await until('and the guest told', 3000, async () => (await counts()).counters.tx_too_big_told === 1);
      send(1450);
      await until('the core knows', 3000, async () => (await drops())[1] === 1);
      send(1446);
      await until('what fits goes on', 3000, async () => (await received()) > before + 1);
      assert.equal(await drops(), [1, 1, 0]);
    } finally {
      await hosts.close();
    }
  },
);

testWith(
  mtu,
  needs,
  'on all addresses: that of the way with the least room to what the lookup knows',
  async () => {
    const hosts = new Hosts();
    try {
      const daemon = await hosts.daemon('a');
      const file = join(hosts.directory, 'mappings.json');
      const map = (...ips: string[]) => {
        const rows = ips.map((ip, guest) => [`2:8:20:0:0:${guest + 1}`, { ip, port: 4789 }]);
        writeFileSync(file, JSON.stringify(Object.fromEntries(rows)));
      };
      map(underlay[4].b, underlay[6].b);
      await daemon.client.post('/v1/overlays', {
        name: 'ov0',
        encap: 'vxlan',
        search: 'files',
        vnetid: 1,
        properties: { 'vxlan/listen_ip': '::', 'files/config': file },
      });
      hosts.address('a', 'ov0');
      const becomes = (what: string, bytes: number) =>
        until(`${what}: ${bytes}`, 5000, () => hosts.a.netlink.getLink('ov0').mtu === bytes);
      await becomes('the headers of IPv6 are larger', 1500 - 74);
      map(underlay[4].b);
      await becomes('without it', 1500 - 54);
      hosts.a.run('ip', 'route', 'add', underlay[4].b, 'dev', 'underlay0', 'mtu', '1440');
      await becomes('a route of its own', 1440 - 54);
    } finally {
      await hosts.close();
    }
  },
);

testWith(mtu, needs, 'a route by address: its link, its MTU, or none', () => {
  const host = new Host();
  try {
    const { netlink } = host;
    const loopback = netlink.getLink('lo').index;
    netlink.setLink(loopback, { up: true });
    netlink.addAddress(loopback, '192.0.2.1/24');
    assert.is(netlink.getRoute('192.0.2.1', '192.0.2.1')?.link, loopback);
    host.run('ip', 'route', 'add', '203.0.113.0/24', 'dev', 'lo', 'mtu', '1300');
    assert.equal(netlink.getRoute('203.0.113.7'), { link: loopback, mtu: 1300 });
    assert.is(netlink.getRoute('198.51.100.1'), undefined, 'no way there');
    assert.is(netlink.getRoute('203.0.113.7', '198.51.100.2'), undefined, 'not an address of this host');
  } finally {
    void host.close();
  }
});

mtu.run();
