/** `learn` among plain Linux VXLAN devices that learn themselves: three of the kernel's and ours, nobody has a mapping. */
import { mkdtempSync } from 'node:fs';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { capture } from './harness/capture.js';
import { Daemon, until } from './harness/hosts.js';
import { testWith } from './harness/needs.js';
import { BRIDGE, Network, type NetworkHost, VNI } from './harness/network.js';

const learnHosts = suite('learn among kernels');
const needs = ['root', '/dev/net/tun', 'ip', 'bridge', 'ping'];
const MTU = 1400;
const MDNS = '224.0.0.251';

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

const unicast: Flood = { addressOf: ({ underlay }) => underlay };

async function withNetwork(
  work: (scene: Scene) => Promise<void>,
  { group, flags = [], addressOf }: Flood = unicast,
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
        mtu: MTU,
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
      host.run('ip', 'link', 'add', 'vx0', 'mtu', `${MTU}`, ...vxlan, ...joins);
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

testWith(learnHosts, needs, 'everybody reaches everybody, and what is learned is not flooded any more', () =>
  withNetwork(async ({ network, ours, kernels, counters }) => {
    for (const from of network.hosts) {
      for (const to of network.hosts) {
        if (from === to) continue;
        assert.ok(pings(from, to.inner[4]), `IPv4 from ${from.index} to ${to.index}`);
        assert.ok(pings(from, to.inner[6]), `IPv6 from ${from.index} to ${to.index}`);
      }
    }
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
    for (const { mac, underlay } of kernels) {
      assert.is(targets.find(({ target }) => target === mac)?.destination, `${underlay}:4789`);
    }
  }),
);

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

testWith(learnHosts, needs, 'mDNS: a query to the group is answered across the overlay', () =>
  withNetwork(async ({ ours, kernels }) => {
    const answerer = `
      const socket = require('dgram').createSocket({ type: 'udp4', reuseAddr: true });
      // To the question alone: what others answer is sent to the group as well.
      socket.on('message', (query) => {
        if (String(query) === 'query') socket.send('answer to query', 5353, '${MDNS}');
      });
      socket.bind(5353, () => {
        socket.addMembership('${MDNS}', process.argv[1]);
        socket.setMulticastInterface(process.argv[1]);
        socket.setMulticastLoopback(false);
        console.log('ready');
      });`;
    for (const { host, inner } of kernels) {
      const child = host.start(process.execPath, '-e', answerer, inner[4]);
      let said = '';
      child.stdout!.setEncoding('utf8').on('data', (text: string) => {
        said += text;
      });
      await until('it listens', 5000, () => said.includes('ready'));
    }
    const asker = `
      const socket = require('dgram').createSocket({ type: 'udp4', reuseAddr: true });
      const from = new Set();
      socket.on('message', (answer, { address }) => {
        if (String(answer) !== 'answer to query') return;
        from.add(address);
        if (from.size === ${kernels.length}) process.exit(0);
      });
      socket.bind(5353, () => {
        socket.addMembership('${MDNS}', process.argv[1]);
        socket.setMulticastInterface(process.argv[1]);
        socket.setMulticastLoopback(false);
        socket.send('query', 5353, '${MDNS}');
        setTimeout(() => process.exit(1), 5000);
      });`;
    const { status } = ours.host.attempt(process.execPath, '-e', asker, ours.inner[4]);
    assert.is(status, 0, 'all of them have answered');
  }),
);

testWith(learnHosts, [...needs, 'python3'], 'frames with VLAN tags go through, both ways', () =>
  withNetwork(async ({ ours, kernels, counters }) => {
    const [peer] = kernels as [NetworkHost];
    const echo = `
import socket, sys
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
s.setsockopt(263, 8, 1)
s.bind(('vx0', 0))
print('ready', flush=True)
while True:
    f, _, _, (_, kind, *_rest) = s.recvmsg(2048, 256)[0], 0, 0, (0, 4)
    if b'ping over a VLAN' not in f: continue
    body = f[f.index(b'ping over a VLAN'):]
    s.send(f[6:12] + f[0:6] + bytes.fromhex('8100000788b5') + b'pong' + body[4:].ljust(1400 - 4 - 4, b'.'))
`;
    const child = peer.host.start('python3', '-c', echo);
    let said = '';
    child.stdout!.setEncoding('utf8').on('data', (text: string) => {
      said += text;
    });
    child.stderr!.setEncoding('utf8').on('data', (text: string) => {
      said += text;
    });
    await until(`it listens (${said})`, 5000, () => said.includes('ready'));
    const ask = `
import socket
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
s.bind(('ov0', 0))
s.settimeout(5)
mac = lambda t: bytes.fromhex(t.replace(':', ''))
s.send(mac('${peer.mac}') + mac('${ours.mac}') + bytes.fromhex('8100000788b5') + b'ping over a VLAN'.ljust(1400 - 4, b'.'))
while True:
    f = s.recv(2048)
    if b'pong over a VLAN' in f: break
`;
    const { status, output } = ours.host.attempt('python3', '-c', ask);
    assert.is(status, 0, output + said);
    const { rx_learned: learned } = await counters();
    assert.ok(learned! >= 1);
    assert.equal((await ours.daemon!.stats()).overlays.ov0!.drops.tx_vlan_not_carried, undefined);
  }),
);

for (const [family, group, addressOf] of [
  [4, '239.1.1.1', unicast.addressOf],
  [6, 'ff05::4711', ({ index }: NetworkHost) => `2001:db8::${index + 1}`],
] as const) {
  const flood: Flood = { group, flags: ['--workers', '4'], addressOf };
  testWith(
    learnHosts,
    [...needs, 'tcpdump'],
    `a multicast group over IPv${family}: joined, and each frame once with 4 workers`,
    () =>
      withNetwork(async ({ network, ours, kernels, counters }) => {
        for (const from of network.hosts) {
          for (const to of network.hosts) {
            if (from === to || pings(from, to.inner[4])) continue;
            assert.unreachable(
              `from ${from.index} to ${to.index}: ${JSON.stringify(await ours.daemon!.stats())}`,
            );
          }
        }
        assert.is((await counters()).rx_learned, kernels.length);
        // The senders of what comes by the group are compared with where their guests are, as those of all else.
        await ours.daemon!.client.put('/v1/overlays/ov0/properties/vxlan%2Fsource_check', {
          value: 'strict',
        });
        const before = await counters();
        const broadcasts = 200;
        const captured = await capture(ours.host, 'icmp and dst 198.51.100.255', { link: 'ov0' });
        kernels[0]!.host.attempt(
          'ping',
          '-q',
          '-b',
          '-c',
          `${broadcasts}`,
          '-i',
          '0.01',
          '-W',
          '1',
          '198.51.100.255',
        );
        const lines = () => captured.seen().trim().split('\n').length;
        await until('all are there', 3000, () => lines() >= broadcasts);
        await captured();
        assert.is(lines(), broadcasts, 'none is there twice');
        const after = await counters();
        assert.is(after.tx_copies, before.tx_copies, 'one datagram to the group is enough');
        const { muxes } = await ours.daemon!.stats();
        const [name, row] = Object.entries(muxes).find(([each]) => each.includes(group))!;
        assert.ok(Number(row.counters.rx_read) >= broadcasts, name);
        const text = ours.host.run('ip', 'maddress', 'show', 'dev', 'underlay0');
        assert.match(text, new RegExp(`inet6? +${group}\\b`), 'the kernel has joined');
        await ours.daemon!.client.delete('/v1/overlays/ov0?force=true');
        assert.not.match(ours.host.run('ip', 'maddress', 'show', 'dev', 'underlay0'), new RegExp(group));
      }, flood),
  );

  testWith(
    learnHosts,
    needs,
    `the link of a group over IPv${family} is made anew: the group is joined again`,
    () =>
      withNetwork(async ({ network, ours, kernels }) => {
        const { host } = ours;
        const [peer] = kernels as [NetworkHost];
        const isJoined = () => host.run('ip', 'maddress', 'show', 'dev', 'underlay0').includes(group);
        assert.ok(isJoined());
        const { netlink: ports } = network.switch;
        // A kernel's memberships of one socket are 20 at most: what was left behind must not count.
        for (let round = 0; round < 22; round++) {
          host.run('ip', 'link', 'del', 'underlay0');
          ports.createVeth('port0', 'underlay0', { peerNamespaceFd: host.namespace });
          ports.setLink(ports.getLink('port0').index, { master: ports.getLink(BRIDGE).index, up: true });
          const { index } = host.netlink.getLink('underlay0');
          host.netlink.setLink(index, { up: true });
          host.netlink.addAddress(index, `${addressOf(ours)}/${family === 4 ? 24 : 64}`, { noDad: true });
          await until(`it is joined, time ${round}`, 3000, isJoined);
        }
        // Who asks is found by what is flooded, both ways.
        ours.host.run('ip', 'neigh', 'flush', 'dev', 'ov0');
        peer.host.run('ip', 'neigh', 'flush', 'dev', 'vx0');
        await until('the peer reaches us', 5000, () => pings(peer, ours.inner[4]));
        await until('we reach others', 5000, () => pings(ours, kernels[1]!.inner[4]));
      }, flood),
  );
}

learnHosts.run();
