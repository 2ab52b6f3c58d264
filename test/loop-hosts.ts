/**
 * Frames from an overlay that lead to this daemon's own sockets, with the link in the namespace of the underlay and the kernel between:
 * on every way there is, over every encapsulation and both families, to one address and to all of a host. Where they are permitted they
 * arrive in the other network, so that each way is one; by default none does, and each is counted.
 */
import { mkdtempSync } from 'node:fs';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { EncapRegistry } from '../src/encap/registry.js';
import { ipNativeBytes } from '../src/ip.js';
import { AF_INET, AF_INET6, IPPROTO_GRE, IPPROTO_UDP, SOCK_RAW } from '../src/sys/abi.js';
import { must } from '../src/sys/errno.js';
import { closeFd } from '../src/sys/fd.js';
import * as libc from '../src/sys/libc.js';
import { inNamespace } from '../src/sys/netns.js';
import { sockaddr } from '../src/sys/sockaddr.js';
import { PORTS } from './harness/direct.js';
import { type Encapsulation, encapsulations } from './harness/encapsulations.js';
import { Daemon, Host, Hosts, underlay, until } from './harness/hosts.js';
import { testWith } from './harness/needs.js';
import * as frames from './reference/frames.js';

const loop = suite('loop between hosts');
const needs = ['root', '/dev/net/tun', 'ip', 'python3'];
const VLAN_DEVICE = join(import.meta.dirname, '../../test/harness/vlan-device.py');
/** Whole IP packets, header and all (man 7 raw). */
const IPPROTO_RAW = 255;
const BURST = 3;
/** The attacker's network, and the one that is not the attacker's. */
const OWN_VNETID = 0x1001;
const OTHER_VNETID = 0x1002;
const WAIT_MS = 5000;
const FRAME = frames.ethernet(0x88b5, frames.counting(60));

type Family = 4 | 6;

/** An encapsulation with a device of either network. */
interface Net {
  readonly name: string;
  readonly encapsulation: Encapsulation;
  readonly attacked: string;
  readonly link: string;
}

const nets: readonly Net[] = new EncapRegistry().names.map((name, index) => ({
  name,
  encapsulation: encapsulations.find((each) => each.name === name)!,
  link: `ov${index}`,
  attacked: `sec${index}`,
}));
const vxlanNet = nets.find(({ name }) => name === 'vxlan')!;

interface Scene {
  readonly hosts: Hosts;
  readonly daemon: Daemon;
  readonly family: Family;
  /** Sends an outer IP packet as the host b. */
  readonly send: (packet: Uint8Array) => void;
}

const wildcards = { 4: '0.0.0.0', 6: '::' } as const;
const broadcast = 'ff:ff:ff:ff:ff:ff';

/** Both networks on a, over every encapsulation, and b with a raw socket in the place of its VTEP. */
async function withAttacker(
  family: Family,
  listen: string,
  work: (scene: Scene) => Promise<void>,
): Promise<void> {
  const hosts = new Hosts();
  const domain = family === 4 ? AF_INET : AF_INET6;
  let fd = -1;
  try {
    // What the finding was found with; the kernel then asks nobody where a source lives.
    for (const conf of ['all', 'default']) hosts.a.setting(`net/ipv4/conf/${conf}/rp_filter`, '0');
    const daemon = await hosts.daemon('a');
    for (const net of nets) {
      await create(hosts, daemon, net.link, net, OWN_VNETID, listen, family);
      // Only b may send to it, and only as the VTEP that it is.
      await create(hosts, daemon, net.attacked, net, OTHER_VNETID, listen, family, 'known');
    }
    fd = inNamespace(hosts.b.namespace, () => must(libc.socket(domain, SOCK_RAW, IPPROTO_RAW), 'socket'));
    const to = sockaddr(domain, underlay[family].a, 0);
    const send = (packet: Uint8Array) => {
      must(libc.sendto(fd, packet, packet.length, 0, to, to.length), 'sendto');
    };
    await work({ hosts, daemon, family, send });
  } finally {
    if (fd >= 0) closeFd(fd);
    await hosts.close();
  }
}

async function create(
  { a }: Hosts,
  daemon: Daemon,
  link: string,
  { name: encap }: Net,
  vnetid: number,
  listen: string,
  family: Family,
  check = 'auto',
): Promise<void> {
  const port = PORTS[encap];
  const properties = {
    [`${encap}/listen_ip`]: listen,
    [`${encap}/source_check`]: check,
    'direct/dest_ip': underlay[family].b,
    ...(port === undefined ? {} : { 'direct/dest_port': port }),
  };
  await daemon.client.post('/v1/overlays', { name: link, encap, search: 'direct', vnetid, properties });
  a.netlink.setLink(a.netlink.getLink(link).index, { up: true });
  await until(`${link} is started`, WAIT_MS, async () => (await daemon.state(link)) === 'started');
}

function endsTo(to: string): frames.Ends {
  const destination = ipNativeBytes(to);
  return { source: ipNativeBytes(underlay[destination.length === 4 ? 4 : 6].b), destination };
}

function ip(to: string, protocol: number, payload: Uint8Array, id = 7): Uint8Array {
  const ends = endsTo(to);
  return ends.source.length === 4
    ? frames.ipv4({ ends, protocol, payload, id })
    : frames.ipv6({ ends, protocol, payload });
}

/** What of a tunnel packet of b's is behind its IP header. */
function tunnel({ name, encapsulation }: Net, to: string, vnetid: number, frame: Uint8Array): Uint8Array {
  const payload = frames.concat(encapsulation.header(vnetid), frame);
  const port = PORTS[name];
  return port === undefined ? payload : frames.udp({ ends: endsTo(to), destinationPort: port, payload });
}

const protocolOf = ({ name }: Net) => (PORTS[name] === undefined ? IPPROTO_GRE : IPPROTO_UDP);
const macBytes = (mac: string) => Buffer.from(mac.replaceAll(':', ''), 'hex');

/** A frame of the attacker's network with a packet in it. */
function framed(packet: Uint8Array, mac: string, tags: frames.EthernetOptions['tags'] = []): Uint8Array {
  const type = packet[0]! >> 4 === 4 ? frames.ETHERTYPE_IPV4 : frames.ETHERTYPE_IPV6;
  return frames.ethernet(type, packet, { destination: macBytes(mac), tags });
}

/** One way by which a frame gets from a link to a socket of the daemon. */
interface Way {
  readonly what: string;
  /** The network that the frame comes by. */
  readonly by: Net;
  /** Whose socket it is for. */
  readonly to: Net;
  readonly mac: string;
  /** Inner destination; the address of a when it is not said. */
  readonly address?: string;
  readonly tags?: frames.EthernetOptions['tags'];
}

/** The frame of a way, as b sends it. */
function attack(scene: Scene, { by, to, mac, address, tags }: Way): Uint8Array {
  const inner = address ?? underlay[scene.family].a;
  const packet = ip(inner, protocolOf(to), tunnel(to, inner, OTHER_VNETID, FRAME));
  return outer(scene, by, framed(packet, mac, tags));
}

function outer({ family }: Scene, by: Net, frame: Uint8Array): Uint8Array {
  const { a } = underlay[family];
  return ip(a, protocolOf(by), tunnel(by, a, OWN_VNETID, frame));
}

interface Counts {
  /** Given to the link of the attacker's network. */
  readonly passed: number;
  readonly dropped: number;
  /** Has come into the other network. */
  readonly arrived: number;
}

async function counts({ daemon }: Scene, by: Net, to: Net): Promise<Counts> {
  const { overlays } = await daemon.stats();
  const own = overlays[by.link]!;
  return {
    passed: Number(own.counters.rx_frames),
    dropped: Number(own.drops.rx_inner_to_mux ?? 0),
    arrived: Number(overlays[to.attacked]!.counters.rx_frames),
  };
}

async function allow({ daemon }: Scene, { name, link }: Net, value: 'drop' | 'pass'): Promise<void> {
  const property = encodeURIComponent(`${name}/inner_to_mux`);
  await daemon.client.put(`/v1/overlays/${link}/properties/${property}`, { value });
}

/** Permitted, the frames arrive where they must not; by default they do not, and each is counted. */
async function mustBeClosed(scene: Scene, way: Way): Promise<void> {
  const { by, to, what } = way;
  const name = `${what}: ${by.name} to ${to.name}`;
  const packet = attack(scene, way);
  const burst = () => {
    for (let i = 0; i < BURST; i++) scene.send(packet);
  };
  await allow(scene, by, 'pass');
  const open = await counts(scene, by, to);
  burst();
  await until(`${name}: the way is one`, WAIT_MS, async () => {
    // A broadcast comes to the socket of each worker.
    return (await counts(scene, by, to)).arrived >= open.arrived + BURST;
  });
  await settled(scene, by, to);
  await allow(scene, by, 'drop');
  const before = await counts(scene, by, to);
  assert.is(before.dropped, open.dropped, name);
  burst();
  await until(`${name}: all are dropped`, WAIT_MS, async () => {
    return (await counts(scene, by, to)).dropped === before.dropped + BURST;
  });
  assert.equal(await counts(scene, by, to), { ...before, dropped: before.dropped + BURST }, name);
}

const macOf = ({ a }: Hosts, link: string) => a.netlink.getLink(link).mac;

/** The link itself: every encapsulation to every other's socket. */
async function byLink(scene: Scene): Promise<void> {
  const { hosts } = scene;
  for (const by of nets) {
    const mac = macOf(hosts, by.link);
    for (const to of nets) await mustBeClosed(scene, { what: 'the link', by, to, mac });
  }
  // The kernel takes any number of priority tags off.
  const by = vxlanNet;
  const tags = [1, 2, 3, 4].map(() => ({ type: frames.ETHERTYPE_VLAN, control: 0 }));
  const mac = macOf(hosts, by.link);
  for (const count of [1, 3]) {
    await mustBeClosed(scene, { what: `${count} tags`, by, to: by, mac, tags: tags.slice(0, count) });
  }
}

async function byVlanLink(scene: Scene): Promise<void> {
  const { a } = scene.hosts;
  const by = vxlanNet;
  const program = a.start('python3', VLAN_DEVICE, by.link, '5', 'vlan5');
  await new Promise((resolve) => program.stdout!.once('data', resolve));
  a.run('ip', 'link', 'set', 'vlan5', 'up');
  const tags = [{ type: frames.ETHERTYPE_VLAN, control: 5 }];
  const mac = macOf(scene.hosts, 'vlan5');
  for (const to of nets) await mustBeClosed(scene, { what: 'a VLAN link', by, to, mac, tags });
}

/** A VNIC in the namespace. */
async function byVnic(scene: Scene): Promise<void> {
  const { netlink } = scene.hosts.a;
  for (const by of nets) {
    netlink.createMacvlan('vnic0', netlink.getLink(by.link).index, { mode: 'bridge' });
    const { index, mac } = netlink.getLink('vnic0');
    netlink.setLink(index, { up: true });
    await mustBeClosed(scene, { what: 'a VNIC', by, to: by, mac });
    netlink.deleteLink(index);
  }
}

/** A bridge that the link is in; and behind it a router in another namespace, which leads back here. */
async function byBridgeAndRouter(scene: Scene): Promise<void> {
  const { hosts, family } = scene;
  const { netlink } = hosts.a;
  const router = new Host();
  try {
    netlink.createBridge('br0');
    const bridge = netlink.getLink('br0').index;
    netlink.setLink(bridge, { up: true });
    netlink.createVeth('in0', 'in0', { peerNamespaceFd: router.namespace });
    netlink.createVeth('back0', 'back0', { peerNamespaceFd: router.namespace });
    netlink.setLink(netlink.getLink('in0').index, { master: bridge, up: true });
    netlink.setLink(netlink.getLink('back0').index, { up: true });
    for (const conf of ['all', 'default', 'in0', 'back0']) {
      router.setting(`net/ipv4/conf/${conf}/rp_filter`, '0');
    }
    router.setting('net/ipv4/ip_forward', '1');
    router.setting('net/ipv6/conf/all/forwarding', '1');
    for (const name of ['in0', 'back0']) router.run('ip', 'link', 'set', name, 'up');
    const { a } = underlay[family];
    router.run('ip', `-${family}`, 'route', 'add', `${a}/${family === 4 ? 32 : 128}`, 'dev', 'back0');
    router.netlink.addNeighbour(router.netlink.getLink('back0').index, a, macOf(hosts, 'back0'));
    const routerMac = router.netlink.getLink('in0').mac;
    for (const by of nets) {
      const { index } = netlink.getLink(by.link);
      netlink.setLink(index, { master: bridge });
      await mustBeClosed(scene, { what: 'a bridge', by, to: by, mac: macOf(hosts, 'br0') });
      await mustBeClosed(scene, { what: 'a router', by, to: by, mac: routerMac });
      netlink.setLink(index, { master: null });
    }
  } finally {
    await router.close();
  }
}

for (const family of [4, 6] as const) {
  for (const listen of [underlay[family].a, wildcards[family]]) {
    testWith(
      loop,
      needs,
      `${listen}: the link, tags, a VLAN link, a VNIC, a bridge, a router: nothing comes back`,
      () =>
        withAttacker(family, listen, async (scene) => {
          await byLink(scene);
          await byVlanLink(scene);
          await byVnic(scene);
          await byBridgeAndRouter(scene);
        }),
    );
  }

  testWith(loop, needs, `IPv${family} fragments: the first is dropped, and the rest comes to nothing`, () =>
    withAttacker(family, underlay[family].a, async (scene) => {
      const { hosts, send } = scene;
      const by = vxlanNet;
      const ends = endsTo(underlay[family].a);
      const whole = tunnel(by, underlay[family].a, OTHER_VNETID, FRAME);
      const half = 40;
      const part = (id: number, offset: number, more: boolean): Uint8Array => {
        const payload = more ? whole.subarray(0, half) : whole.subarray(half);
        const fragment = { offset: offset / 8, more };
        const packet =
          family === 4
            ? frames.ipv4({ ends, protocol: IPPROTO_UDP, payload, id, fragment })
            : frames.ipv6({
                ends,
                protocol: IPPROTO_UDP,
                payload,
                extensions: [frames.fragmentHeader(offset / 8, more, id)],
              });
        return outer(scene, by, framed(packet, macOf(hosts, by.link)));
      };
      const both = (id: number) => {
        send(part(id, 0, true));
        send(part(id, half, false));
      };
      await allow(scene, by, 'pass');
      both(1);
      await until('both are one datagram', WAIT_MS, async () => (await counts(scene, by, by)).arrived === 1);
      await allow(scene, by, 'drop');
      const before = await counts(scene, by, by);
      both(2);
      await until('both are decided', WAIT_MS, async () => {
        return (await counts(scene, by, by)).passed === before.passed + 1;
      });
      assert.equal(await counts(scene, by, by), { passed: before.passed + 1, dropped: 1, arrived: 1 });
      await allow(scene, by, 'pass');
      // The kernel still has the second half of that.
      send(part(2, 0, true));
      await until('the first half is what was missing', WAIT_MS, async () => {
        return (await counts(scene, by, by)).arrived === 2;
      });
    }),
  );
}

testWith(
  loop,
  needs,
  'all addresses: broadcasts too; one that comes later, and goes; a prefix of local routes',
  () =>
    withAttacker(4, '0.0.0.0', async (scene) => {
      const { hosts } = scene;
      const { netlink } = hosts.a;
      for (const by of nets) {
        const to = by;
        const mac = broadcast;
        await mustBeClosed(scene, { what: 'broadcast of the subnet', by, to, mac, address: '192.0.2.255' });
        await mustBeClosed(scene, { what: 'broadcast', by, to, mac, address: '255.255.255.255' });
      }
      const by = vxlanNet;
      const mac = macOf(hosts, by.link);
      const { index } = netlink.getLink('lo');
      for (const [address, come, go] of [
        [
          '203.0.113.9',
          () => netlink.addAddress(index, '203.0.113.9/32'),
          () => netlink.removeAddress(index, '203.0.113.9/32'),
        ],
        [
          '203.0.113.200',
          () => hosts.a.run('ip', 'route', 'add', 'local', '203.0.113.192/26', 'dev', 'lo'),
          () => hosts.a.run('ip', 'route', 'delete', 'local', '203.0.113.192/26', 'dev', 'lo'),
        ],
      ] as const) {
        const way = { what: `later ${address}`, by, to: by, mac, address };
        const packet = attack(scene, way);
        const first = await counts(scene, by, by);
        scene.send(packet);
        await until(`${address} is nobody's`, WAIT_MS, async () => {
          return (await counts(scene, by, by)).passed === first.passed + 1;
        });
        come();
        await until(`${address} is known`, WAIT_MS, async () => {
          scene.send(packet);
          return (await counts(scene, by, by)).dropped > first.dropped;
        });
        await settled(scene, by);
        await mustBeClosed(scene, way);
        go();
        const last = await counts(scene, by, by);
        await until(`${address} is nobody's again`, WAIT_MS, async () => {
          scene.send(packet);
          return (await counts(scene, by, by)).passed > last.passed;
        });
        await settled(scene, by);
      }
    }),
);

/** Whatever was on its way has been decided. */
async function settled(scene: Scene, by: Net, to = by): Promise<void> {
  let last = '';
  await until('nothing is on its way', WAIT_MS, async () => {
    const seen = JSON.stringify(await counts(scene, by, to));
    const isSame = seen === last;
    last = seen;
    return isSame;
  });
}

for (const family of [4, 6] as const) {
  testWith(
    loop,
    needs,
    `IPv${family}: a group that the host is in is none of a mux that listens on all`,
    () =>
      withAttacker(family, wildcards[family], async (scene) => {
        const group = family === 4 ? '224.0.0.1' : 'ff02::1';
        const mac = family === 4 ? '01:00:5e:00:00:01' : '33:33:00:00:00:01';
        for (const by of nets) {
          const before = await counts(scene, by, by);
          const packet = attack(scene, { what: 'a group', by, to: by, mac, address: group });
          scene.send(packet);
          // A raw socket of IPv6 hears every group, whatever it says.
          const isDropped = by.name === 'nvgre' && family === 6;
          await until('it is decided', WAIT_MS, async () => {
            const { passed, dropped } = await counts(scene, by, by);
            return isDropped ? dropped === before.dropped + 1 : passed === before.passed + 1;
          });
          // Behind it on the same link, so that it would have come first.
          await allow(scene, by, 'pass');
          scene.send(attack(scene, { what: 'the link', by, to: by, mac: macOf(scene.hosts, by.link) }));
          await until('the next has arrived', WAIT_MS, async () => {
            return (await counts(scene, by, by)).arrived > before.arrived;
          });
          assert.is((await counts(scene, by, by)).arrived, before.arrived + 1, by.name);
        }
      }),
  );
}

testWith(
  loop,
  [...needs, 'ping'],
  'overlays of guests in an overlay, at addresses of their own: as ever',
  async () => {
    const hosts = new Hosts();
    const guests = { a: new Host(), b: new Host() } as const;
    const sides = ['a', 'b'] as const;
    const inner = { a: '198.51.100.1', b: '198.51.100.2' } as const;
    const innermost = { a: '203.0.113.1', b: '203.0.113.2' } as const;
    const other = { a: 'b', b: 'a' } as const;
    const daemons: Daemon[] = [];
    try {
      for (const side of sides) {
        const { netlink } = hosts[side];
        const guest = guests[side];
        const daemon = await hosts.daemon(side);
        daemons.push(daemon);
        await daemon.createOverlay(
          hosts[side],
          'ov0',
          OWN_VNETID,
          underlay[4][side],
          underlay[4][other[side]],
        );
        const lower = netlink.getLink('ov0').index;
        netlink.createMacvlan('vnic0', lower, { mode: 'bridge', namespaceFd: guest.namespace });
        const { index } = guest.netlink.getLink('vnic0');
        guest.netlink.addAddress(index, `${inner[side]}/24`);
        guest.netlink.setLink(index, { up: true });
        // The same port, and the same network number.
        guest.netlink.setLink(guest.netlink.getLink('lo').index, { up: true });
        const nested = await Daemon.start(guest, mkdtempSync(join(hosts.directory, 'nested-')));
        await nested.createOverlay(guest, 'in0', OWN_VNETID, inner[side], inner[other[side]]);
        const link = guest.netlink.getLink('in0').index;
        guest.netlink.setLink(link, { mtu: 1200 });
        guest.netlink.addAddress(link, `${innermost[side]}/24`);
      }
      guests.a.run('ping', '-c', '5', '-i', '0.05', '-W', '3', '-s', '1000', innermost.b);
      for (const daemon of daemons) {
        const { overlays } = await daemon.stats();
        assert.is(Number(overlays.ov0!.drops.rx_inner_to_mux ?? 0), 0);
        assert.ok(Number(overlays.ov0!.counters.rx_frames) >= 5);
      }
    } finally {
      await guests.a.close();
      await guests.b.close();
      await hosts.close();
    }
  },
);

loop.run();
