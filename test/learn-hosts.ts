/** `learn` among plain Linux VXLAN devices that learn themselves: three of the kernel's and ours, nobody has a mapping. */
import { mkdtempSync } from 'node:fs';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { formatEndpoint } from '../src/ip.js';
import { capture } from './harness/capture.js';
import type { Family, Guest } from './harness/guest.js';
import { Daemon, until } from './harness/hosts.js';
import { testWith } from './harness/needs.js';
import { BRIDGE, Network, type NetworkHost, VNI } from './harness/network.js';
import { Shown } from './harness/shown.js';
import { GUEST_MTU, seeEachOther } from './harness/traffic.js';

const learnHosts = suite('learn among kernels');
const needs = ['root', '/dev/net/tun', 'ip', 'bridge', 'ping'];
const VLAN = 7;
const VLAN_DEVICE = join(import.meta.dirname, '../../test/harness/vlan-device.py');
const shown = new Shown('learn-hosts');

interface Scene {
  readonly network: Network;
  readonly ours: NetworkHost;
  readonly kernels: readonly NetworkHost[];
  readonly counters: () => Promise<Readonly<Record<string, number>>>;
}

const linkOf = ({ daemon }: NetworkHost) => (daemon ? 'ov0' : 'vx0');

interface Flood {
  /** What ours floods to; the other hosts when it is left out. */
  readonly group?: string;
  readonly flags?: readonly string[];
  /** Number of the host's address on the underlay in the group's family. */
  readonly addressOf: (host: NetworkHost) => string;
}

const addressesOf: Readonly<Record<Family, Flood['addressOf']>> = {
  4: ({ underlay }) => underlay,
  6: ({ index }) => `2001:db8::${index + 1}`,
};

async function withNetwork(
  work: (scene: Scene) => Promise<void>,
  { group, flags = [], addressOf }: Flood = { addressOf: addressesOf[4] },
): Promise<void> {
  const network = new Network(4);
  try {
    const [ours, ...kernels] = network.hosts as [NetworkHost, ...NetworkHost[]];
    for (const each of network.hosts) {
      const { netlink } = each.host;
      const link = netlink.getLink('underlay0').index;
      if (addressOf(each).includes(':')) netlink.addAddress(link, `${addressOf(each)}/64`, { noDad: true });
    }
    const others = (host: NetworkHost) => network.hosts.filter((each) => each !== host);
    const daemon = await Daemon.start(ours.host, mkdtempSync(join(network.directory, 'ours-')), { flags });
    ours.daemon = daemon;
    await daemon.client.post('/v1/overlays', {
      name: 'ov0',
      encap: 'vxlan',
      search: 'learn',
      vnetid: VNI,
      properties: {
        mtu: GUEST_MTU,
        'vxlan/listen_ip': addressOf(ours),
        'learn/port': 4789,
        'learn/flood': group ?? kernels.map(addressOf).join('+'),
      },
    });
    for (const each of kernels) {
      const { host } = each;
      const vxlan = [
        'type',
        'vxlan',
        'id',
        `${VNI}`,
        'local',
        addressOf(each),
        'dstport',
        '4789',
        'learning',
      ];
      const joins = group === undefined ? [] : ['group', group, 'dev', 'underlay0', 'ttl', '5'];
      host.run('ip', 'link', 'add', 'vx0', 'mtu', `${GUEST_MTU}`, ...vxlan, ...joins);
      for (const peer of group === undefined ? others(each) : []) {
        host.run('bridge', 'fdb', 'append', '00:00:00:00:00:00', 'dev', 'vx0', 'dst', addressOf(peer));
      }
    }
    for (const each of network.hosts) {
      const { netlink } = each.host;
      const { index } = netlink.getLink(linkOf(each));
      netlink.setLink(index, { mac: each.mac, addrGenModeNone: true });
      for (const address of [`${each.inner[4]}/24`, `${each.inner[6]}/64`]) {
        netlink.addAddress(index, address, { noDad: true });
      }
      netlink.setLink(index, { up: true });
    }
    await until('ours is started', 5000, async () => (await daemon.state('ov0')) === 'started');
    const counters = async () => {
      const shown = Object.entries((await daemon.stats()).overlays.ov0!.counters);
      return Object.fromEntries(shown.map(([name, count]) => [name, Number(count)]));
    };
    await work({ network, ours, kernels, counters });
  } finally {
    await network.close();
  }
}

const pings = (from: NetworkHost, target: string, ...flags: string[]) =>
  from.host.attempt('ping', '-q', '-c', '1', '-W', '2', ...flags, target).status === 0;

/** Everybody pings everybody at once, and no ping is lost: what is unknown is flooded, or waits. */
async function pingAll(hosts: readonly NetworkHost[]): Promise<void> {
  const pairs = hosts.flatMap((from) => hosts.filter((to) => to !== from).map((to) => [from, to] as const));
  const failed = await Promise.all(
    pairs.flatMap(([from, to]) =>
      ([4, 6] as const).map(async (family) => {
        const code = await from.host.finish('ping', '-q', '-c', '1', '-W', '3', to.inner[family]);
        return code === 0 ? [] : [`IPv${family} from ${from.index} to ${to.index}`];
      }),
    ),
  );
  assert.equal(failed.flat(), []);
}

const guestOf = (each: NetworkHost): Guest => ({ ...each, link: linkOf(each) });

/** One on a VLAN of the overlay. */
async function taggedGuestOf(each: NetworkHost): Promise<Guest> {
  const { host, index, daemon, mac } = each;
  const link = 'tagged0';
  const inner = { 4: `203.0.113.${index + 1}`, 6: `2001:db8:${VLAN}::${index + 1}` };
  const child = host.start('python3', VLAN_DEVICE, linkOf(each), `${VLAN}`, link);
  let said = '';
  for (const stream of [child.stdout!, child.stderr!]) {
    stream.setEncoding('utf8').on('data', (text: string) => {
      said += text;
    });
  }
  await until('the VLAN device is there', 5000, () => said.includes('ready')).catch((error: Error) => {
    throw new Error(`${error.message}: ${said}`);
  });
  const device = host.netlink.getLink(link).index;
  host.netlink.setLink(device, { mac, mtu: GUEST_MTU, addrGenModeNone: true });
  host.netlink.addAddress(device, `${inner[4]}/24`);
  host.netlink.addAddress(device, `${inner[6]}/64`, { noDad: true });
  host.netlink.setLink(device, { up: true });
  return { host, link, inner, daemon };
}

for (const place of shown.places('learn, flood list')) {
  const [, family] = place;
  const addressOf = addressesOf[family];
  testWith(
    learnHosts,
    [...needs, 'python3'],
    `a flood list over IPv${family}: everybody reaches everybody, also frames with VLAN tags; what is learned is not flooded`,
    () =>
      withNetwork(
        async ({ network, ours, kernels, counters }) => {
          await pingAll(network.hosts);
          assert.is((await counters()).rx_learned, kernels.length);
          const before = await counters();
          assert.ok(before.tx_copies! > 0, 'ARP and neighbour discovery were flooded');
          for (const { inner } of kernels) {
            assert.ok(pings(ours, inner[4], '-c', '5', '-i', '0.1', '-s', '4000'));
          }
          const after = await counters();
          // The kernel sends multicast of its own now and then.
          const copies = after.tx_copies! - before.tx_copies!;
          const sent = after.tx_frames! - before.tx_frames!;
          assert.ok(sent >= 45 && copies <= 6, `${copies} copies of ${sent} frames`);
          const { targets } = await ours.daemon!.client.get<{
            targets: readonly { target: string; destination: string }[];
          }>('/v1/overlays/ov0/targets');
          for (const each of kernels) {
            const there = targets.find(({ target }) => target === each.mac)?.destination;
            assert.is(there, formatEndpoint(addressOf(each), 4789));
          }
          await shown.show('learn, flood list', place, network.hosts.map(guestOf));
          const tagged = await Promise.all([ours, kernels[0]!].map(taggedGuestOf));
          await seeEachOther(tagged[0]!, tagged[1]!);
          await shown.show('learn, frames with VLAN tags', place, tagged);
          assert.is((await counters()).rx_moved, 0, 'nobody has moved');
        },
        { addressOf },
      ),
  );
}

testWith(learnHosts, needs, 'a guest that moves is found where it is', () =>
  withNetwork(async ({ ours, kernels, counters }) => {
    const [from, to] = kernels as [NetworkHost, NetworkHost];
    assert.ok(pings(ours, from.inner[4]));
    from.host.run('ip', 'link', 'del', 'vx0');
    const link = to.host.netlink.getLink('vx0').index;
    to.host.netlink.setLink(link, { mac: from.mac });
    to.host.netlink.addAddress(link, `${from.inner[4]}/24`, { noDad: true });
    // It says something, as a guest does that has moved.
    assert.ok(pings(to, ours.inner[4], '-I', from.inner[4]));
    assert.is((await counters()).rx_moved, 1);
    assert.ok(pings(ours, from.inner[4]));
  }),
);

testWith(learnHosts, needs, "our link's own address is not learned from somebody who has it too", () =>
  withNetwork(async ({ ours, kernels, counters }) => {
    const [impostor, other] = kernels as [NetworkHost, NetworkHost];
    const { netlink } = impostor.host;
    netlink.setLink(netlink.getLink('vx0').index, { mac: ours.mac });
    impostor.host.attempt('ping', '-q', '-b', '-c', '3', '-i', '0.1', '-W', '1', '198.51.100.255');
    await until('it was heard', 3000, async () => (await counters()).rx_unlearned! > 0);
    const { targets } = await ours.daemon!.client.get<{ targets: readonly { target: string }[] }>(
      '/v1/overlays/ov0/targets',
    );
    assert.not.ok(targets.some(({ target }) => target === ours.mac));
    assert.ok(pings(ours, other.inner[4]));
  }),
);

/** Whether the kernel has joined. */
const isJoined = ({ host }: NetworkHost, group: string) =>
  new RegExp(`inet6? +${group}\\b`).test(host.run('ip', 'maddress', 'show', 'dev', 'underlay0'));

/** The link of ours on the underlay is deleted and made again, more often than a socket may be in groups (20). */
async function remakeLink({ network, ours }: Scene, group: string, address: string): Promise<void> {
  const { host } = ours;
  const { netlink: ports } = network.switch;
  // As a card keeps it. Nobody else would hear of another one: over IPv6 they would send to the old one for seconds.
  const { mac } = host.netlink.getLink('underlay0');
  for (let round = 0; round < 22; round++) {
    host.netlink.deleteLink(host.netlink.getLink('underlay0').index);
    ports.createVeth('port0', 'underlay0', { peerNamespaceFd: host.namespace });
    ports.setLink(ports.getLink('port0').index, { master: ports.getLink(BRIDGE).index, up: true });
    const { index } = host.netlink.getLink('underlay0');
    host.netlink.setLink(index, { mac, up: true });
    host.netlink.addAddress(index, address, { noDad: true });
    await until(`it is joined, time ${round}`, 3000, () => isJoined(ours, group));
  }
}

for (const place of shown.places('learn, multicast group')) {
  const [, family] = place;
  const addressOf = addressesOf[family];
  const group = { 4: '239.1.1.1', 6: 'ff05::4711' }[family];
  const flood: Flood = { group, flags: ['--workers', '4'], addressOf };
  testWith(
    learnHosts,
    [...needs, 'tcpdump'],
    `a multicast group over IPv${family}: joined, and each frame once with 4 workers; joined again when the link is made anew`,
    () =>
      withNetwork(async (scene) => {
        const { network, ours, kernels, counters } = scene;
        await pingAll(network.hosts);
        assert.is((await counters()).rx_learned, kernels.length);
        await shown.show('learn, multicast group', place, network.hosts.map(guestOf));
        assert.is((await counters()).rx_moved, 0, 'nobody has moved');
        // The senders of what comes by the group are compared with where their guests are, as those of all else.
        const check = (value: string) =>
          ours.daemon!.client.put('/v1/overlays/ov0/properties/vxlan%2Fsource_check', { value });
        await check('strict');
        const before = await counters();
        const broadcasts = 200;
        const captured = await capture(ours.host, 'icmp and dst 198.51.100.255', { link: 'ov0' });
        const flags = ['-q', '-b', '-c', `${broadcasts}`, '-i', '0.002', '-W', '0.1'];
        kernels[0]!.host.attempt('ping', ...flags, '198.51.100.255');
        const lines = () => captured.seen().trim().split('\n').length;
        await until('all are there', 3000, () => lines() >= broadcasts);
        await captured();
        assert.is(lines(), broadcasts, 'none is there twice');
        const after = await counters();
        assert.is(after.tx_copies, before.tx_copies, 'one datagram to the group is enough');
        const { muxes } = await ours.daemon!.stats();
        const [name, row] = Object.entries(muxes).find(([each]) => each.includes(group))!;
        assert.ok(Number(row.counters.rx_read) >= broadcasts, name);
        await check('auto');

        assert.ok(isJoined(ours, group));
        await remakeLink(scene, group, `${addressOf(ours)}/${family === 4 ? 24 : 64}`);
        // Who asks is found by what is flooded, both ways.
        const [peer, other] = kernels as [NetworkHost, NetworkHost];
        ours.host.run('ip', 'neigh', 'flush', 'dev', 'ov0');
        peer.host.run('ip', 'neigh', 'flush', 'dev', 'vx0');
        await until('the peer reaches us', 5000, () => pings(peer, ours.inner[4]));
        await until('we reach others', 5000, () => pings(ours, other.inner[4]));
        await ours.daemon!.client.delete('/v1/overlays/ov0?force=true');
        assert.not.ok(isJoined(ours, group));
      }, flood),
  );
}

testWith(learnHosts, [...needs, 'python3', 'tcpdump'], 'all that is to be shown has been', () =>
  shown.assertAll(),
);

learnHosts.run();
