/** Hosts looked up by `files`: ARP, NDP and DHCP by proxy, broadcast by replication, a guest that moves. */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { until } from './harness/hosts.js';
import { testWith } from './harness/needs.js';
import { BRIDGE, Network, type NetworkHost } from './harness/network.js';
import { lines } from './harness/transfer.js';

const filesHosts = suite('hosts looked up by files');
const needs = ['root', '/dev/net/tun', 'ping'];
const PORT = 7000;
const STREAM_BYTES = 4 * 1024 * 1024;
const STREAM_MS = 3000;

async function withNetwork(work: (network: Network) => Promise<void>, start = true): Promise<void> {
  const network = new Network(3);
  try {
    if (start) await network.start();
    await work(network);
  } finally {
    await network.close();
  }
}

interface Counted {
  readonly counters: Readonly<Record<string, string | number>>;
  readonly drops: Readonly<Record<string, string | number>>;
}

async function countsOf({ daemon }: NetworkHost): Promise<Counted> {
  return (await daemon!.stats()).overlays.ov0! as Counted;
}

/** The device's books: every frame read has ended in one way, and the kernel counts the same. */
async function assertBooks(each: NetworkHost): Promise<void> {
  let text = '';
  await until('the books balance', 3000, async () => {
    const { counters, drops } = await countsOf(each);
    const number = (name: string) => Number(counters[name] ?? 0);
    const dropped = Object.entries(drops)
      .filter(([name]) => name.startsWith('tx_'))
      .reduce((sum, [, count]) => sum + Number(count), 0);
    const link = each.host.linkStats('ov0');
    const left = number('tx_read') + number('tx_resent') + number('tx_copies');
    const right = number('tx_frames') + dropped + number('tx_proxied');
    const received = number('rx_writes') + number('rx_injected');
    text = `${JSON.stringify({ counters, drops })} link tx ${link.txPackets} rx ${link.rxPackets}`;
    return (
      left === right && number('tx_read') === Number(link.txPackets) && received === Number(link.rxPackets)
    );
  }).catch((error: Error) => {
    throw new Error(`${error.message}: host ${each.index} ${text}`);
  });
}

testWith(
  filesHosts,
  [...needs, 'tcpdump'],
  'ARP and NDP are answered by the proxy alone; nothing of them is on the wire',
  () =>
    withNetwork(async (network) => {
      const capture = join(network.directory, 'underlay.pcap');
      const tcpdump = network.switch.start(
        'tcpdump',
        '-U',
        '--immediate-mode',
        '-i',
        BRIDGE,
        '-w',
        capture,
        'udp port 4789',
      );
      let said = '';
      tcpdump.stderr?.setEncoding('utf8').on('data', (text: string) => {
        said += text;
      });
      await until('tcpdump listens', 5000, () => said.includes('listening on'));
      for (const from of network.hosts) {
        for (const to of network.hosts) {
          if (from === to) continue;
          for (const family of [4, 6] as const) {
            // With a deadline ping waits for as many answers; without it two round trips, which is too short on a busy machine.
            const flags = ['-q', '-c', '3', '-w', '10', '-i', '0.05'];
            const { status, output } = from.host.attempt('ping', ...flags, to.inner[family]);
            assert.is(status, 0, `${from.index} to ${to.inner[family]}: ${output}`);
          }
        }
      }
      // Six ways, two families, three requests with their answers.
      const least = 6 * 2 * 6;
      await until(
        `${least} frames are captured`,
        5000,
        () => innerFrames(readFileSync(capture)).length >= least,
      );
      tcpdump.kill('SIGINT');
      await until('tcpdump has left', 5000, () => tcpdump.exitCode !== null);
      const inner = innerFrames(readFileSync(capture));
      const isArp = (frame: Buffer) => frame.readUInt16BE(12) === 0x0806;
      const isSolicitation = (frame: Buffer) =>
        frame.readUInt16BE(12) === 0x86dd && frame[20] === 58 && frame[54] === 135 && frame[0] === 0x33;
      assert.is(inner.filter(isArp).length, 0, 'ARP on the wire');
      assert.is(inner.filter(isSolicitation).length, 0, 'solicitations on the wire');
      const total = async (name: string) => {
        const all = await Promise.all(network.hosts.map(countsOf));
        return all.reduce((sum, { counters }) => sum + Number(counters[name]), 0);
      };
      await until(
        'all that was sent arrives',
        5000,
        async () => (await total('tx_frames')) === (await total('rx_frames')),
      );
      for (const each of network.hosts) {
        assert.ok(Number((await countsOf(each)).counters.rx_injected) >= 4, 'the proxy answered');
        await assertBooks(each);
      }
    }),
);

const ETHERNET_BYTES = 14;
const IPV6_BYTES = 40;
const VXLAN_BYTES = 8;
const OUTER_BYTES = ETHERNET_BYTES + 20 + 8;

/** Where an inner frame ends by its own length fields: a frame after it begins there. */
function frameBytes(frame: Buffer): number {
  if (frame.length < ETHERNET_BYTES + IPV6_BYTES) return frame.length;
  const type = frame.readUInt16BE(12);
  if (type === 0x0800) return ETHERNET_BYTES + frame.readUInt16BE(16);
  if (type === 0x86dd) return ETHERNET_BYTES + IPV6_BYTES + frame.readUInt16BE(18);
  return frame.length;
}

/**
 * Inner frames of a capture of VXLAN datagrams over IPv4 (pcap, link type Ethernet). A captured packet can hold several datagrams:
 * frames that wait together leave in one message with UDP_SEGMENT, and a veth pair passes such a message uncut.
 */
function innerFrames(pcap: Buffer): Buffer[] {
  const inner: Buffer[] = [];
  for (let at = 24; at + 16 <= pcap.length; ) {
    const bytes = pcap.readUInt32LE(at + 8);
    const packet = pcap.subarray(at + 16, at + 16 + bytes);
    for (let rest = packet.subarray(OUTER_BYTES); rest.length > VXLAN_BYTES + ETHERNET_BYTES; ) {
      const frame = rest.subarray(VXLAN_BYTES);
      const end = frameBytes(frame);
      inner.push(frame.subarray(0, end));
      rest = frame.subarray(end);
    }
    at += 16 + bytes;
  }
  return inner;
}

testWith(
  filesHosts,
  [...needs, 'dnsmasq', 'udhcpc'],
  'a DHCP client gets its address from a server by way of dhcp-proxy',
  () =>
    withNetwork(async (network) => {
      const [client, , server] = network.hosts as [NetworkHost, NetworkHost, NetworkHost];
      network.mappings.set(client.mac, { ...client.mapping, 'dhcp-proxy': server.mac });
      network.write();
      const { netlink } = client.host;
      const link = netlink.getLink('ov0').index;
      netlink.removeAddress(link, `${client.inner[4]}/24`);
      const dnsmasq = server.host.start(
        'dnsmasq',
        '--keep-in-foreground',
        '--no-resolv',
        '--no-hosts',
        '--port=0',
        '--conf-file=/dev/null',
        `--dhcp-leasefile=${join(network.directory, 'leases')}`,
        '--interface=ov0',
        '--bind-interfaces',
        '--user=root',
        '--no-ping',
        `--dhcp-host=${client.mac},${client.inner[4]}`,
        `--dhcp-range=${client.inner[4]},${client.inner[4]},255.255.255.0,10m`,
        '--log-dhcp',
        '--log-facility=-',
      );
      let log = '';
      dnsmasq.stderr?.setEncoding('utf8').on('data', (text: string) => {
        log += text;
      });
      await until('dnsmasq serves', 5000, () => log.includes('DHCP'));
      const script = join(network.directory, 'lease.sh');
      writeFileSync(script, '#!/bin/sh\n[ "$1" = bound ] && echo "bound $ip $subnet"\nexit 0\n', {
        mode: 0o755,
      });
      const output = client.host.run(
        'udhcpc',
        '-i',
        'ov0',
        '-f',
        '-q',
        '-n',
        '-t',
        '8',
        '-T',
        '1',
        '-s',
        script,
      );
      assert.match(output, new RegExp(`bound ${client.inner[4]} `), log);
      await until('the server has acknowledged', 3000, () => log.includes('DHCPACK'));
      await assertBooks(client);
      await assertBooks(server);
    }),
);

testWith(
  filesHosts,
  needs,
  'broadcast and multicast reach every host of the file when it asks for that',
  () =>
    withNetwork(async (network) => {
      const [first, ...others] = network.hosts as [NetworkHost, NetworkHost, NetworkHost];
      for (const { host } of network.hosts) {
        host.run('sysctl', '-qw', 'net.ipv4.icmp_echo_ignore_broadcasts=0');
      }
      const broadcast = () =>
        first.host.attempt('ping', '-b', '-c', '5', '-i', '0.2', '-W', '1', '198.51.100.255').output;
      for (const { inner } of others) assert.not.match(broadcast(), new RegExp(`from ${inner[4]}`));
      network.mappings.set('flood', true);
      network.write();
      await until('every other host answers a broadcast', 10_000, () => {
        const output = broadcast();
        return others.every(({ inner }) => output.includes(`from ${inner[4]}`));
      });
      // To all nodes, over IPv6.
      const output = first.host.attempt(
        'ping',
        '-c',
        '5',
        '-i',
        '0.2',
        '-W',
        '1',
        '-I',
        'ov0',
        'ff02::1',
      ).output;
      void output;
      assert.ok(Number((await countsOf(first)).counters.tx_copies) > 0);
      for (const each of network.hosts) await assertBooks(each);
    }),
);

testWith(filesHosts, needs, 'a guest moves to another host by an edit of the file, under traffic', () =>
  withNetwork(async (network) => {
    const [first, second, third] = network.hosts as [NetworkHost, NetworkHost, NetworkHost];
    // The guest of the second host has a MAC and an address of its own that go with it.
    const guest = { mac: '02:08:20:00:00:77', ip: '198.51.100.77' };
    const place = (on: NetworkHost) => {
      network.mappings.set(guest.mac, { ip: on.underlay, port: 4789, arp: guest.ip });
      network.write();
    };
    const link = (on: NetworkHost) => on.host.netlink.getLink('ov0').index;
    for (const on of [second, third]) {
      on.host.netlink.createMacvlan('guest0', link(on));
      const macvlan = on.host.netlink.getLink('guest0').index;
      on.host.netlink.setLink(macvlan, { mac: guest.mac });
      on.host.netlink.addAddress(macvlan, `${guest.ip}/24`);
      if (on === second) on.host.netlink.setLink(macvlan, { up: true });
    }
    place(second);
    await until('the guest answers', 5000, () => {
      return first.host.attempt('ping', '-q', '-c', '1', '-W', '1', guest.ip).status === 0;
    });
    const ping = first.host.start('ping', '-q', '-i', '0.01', '-c', '500', '-W', '2', guest.ip);
    let output = '';
    ping.stdout?.setEncoding('utf8').on('data', (text: string) => {
      output += text;
    });
    await new Promise((resolve) => setTimeout(resolve, 2000));
    third.host.netlink.setLink(third.host.netlink.getLink('guest0').index, { up: true });
    second.host.netlink.setLink(second.host.netlink.getLink('guest0').index, { up: false });
    place(third);
    await until('ping has ended', 20_000, () => ping.exitCode !== null);
    const [, received] = /500 packets transmitted, (\d+) received/.exec(output) ?? [];
    console.log(`\n  moved under 100 pings a second: ${500 - Number(received)} of 500 lost`);
    assert.ok(Number(received) > 250, output);
    assert.ok(Number((await countsOf(third)).counters.rx_frames) > 0, 'the third host has the guest now');
    assert.match(first.host.run('ping', '-q', '-c', '5', '-i', '0.05', guest.ip), / 0% packet loss/);
  }),
);

testWith(filesHosts, needs, 'a broken file keeps the old mappings and says where it is broken', () =>
  withNetwork(async (network) => {
    const [first, second] = network.hosts as [NetworkHost, NetworkHost];
    const ping = () => first.host.run('ping', '-q', '-c', '2', '-i', '0.05', '-W', '2', second.inner[4]);
    const status = () =>
      first.daemon!.client.get<{ status: string; message: string }>('/v1/overlays/ov0/status');
    assert.match(ping(), / 0% packet loss/);
    writeFileSync(network.file, '{\n  "2:8:20:0:0:2": { "ip": 7 }\n}\n');
    await until('degraded', 10_000, async () => (await status()).status === 'DEGRADED');
    assert.match((await status()).message, /overlay\.json:2:\d+/);
    assert.match(ping(), / 0% packet loss/);
    network.write();
    await until('restored', 10_000, async () => (await status()).status === 'ONLINE');
    assert.match(ping(), / 0% packet loss/);
  }),
);

testWith(
  filesHosts,
  needs,
  'all targets are forgotten again and again under a TCP stream of super-frames: it arrives as it was sent',
  () =>
    withNetwork(async (network) => {
      const [from, to] = network.hosts as [NetworkHost, NetworkHost];
      const taker = lines(to.host, 'take', to.inner[4], PORT);
      assert.is(await taker.next(), 'ready');
      const giver = lines(from.host, 'give', to.inner[4], PORT, STREAM_BYTES, 1, STREAM_MS);
      let isOver = false;
      const sent = giver.next().finally(() => {
        isOver = true;
      });
      let flushes = 0;
      let heldBytes = 0;
      while (!isOver) {
        await from.daemon!.client.delete('/v1/overlays/ov0/targets');
        const { overlays } = await from.daemon!.client.get<{
          overlays: Record<string, { requests: { held_bytes: number } }>;
        }>('/v1/overlays/ov0');
        heldBytes = Math.max(heldBytes, overlays.ov0!.requests.held_bytes);
        flushes++;
        await new Promise((resolve) => setTimeout(resolve, 10));
      }
      assert.is(await taker.next(), await sent);
      const { counters } = await countsOf(from);
      assert.ok(flushes > 20, `${flushes} flushes`);
      assert.ok(Number(counters.tx_deferred) > 0 && Number(counters.tx_super_frames) > 100);
      console.log(
        `\n  ${flushes} flushes, ${counters.tx_deferred} frames put aside, ${counters.tx_super_frames} super-frames, ` +
          `at most ${heldBytes} bytes held when asked`,
      );
      for (const each of [from, to]) await assertBooks(each);
    }),
);

filesHosts.run();
