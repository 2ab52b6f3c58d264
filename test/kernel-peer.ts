/** Our daemon against the kernel's own VXLAN device, over IPv4 and IPv6. Facts: the peer hands over unfinished checksums and super-frames. */
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { assertBooks } from './harness/books.js';
import { type Daemon, Hosts, underlay, until } from './harness/hosts.js';
import { iperf } from './harness/iperf.js';
import { testWith } from './harness/needs.js';

const kernelPeer = suite('kernel VXLAN as the peer');
const needs = ['root', '/dev/net/tun', 'ip', 'ping', 'ss', 'iperf3'];
const VNI = 4242;
const MTU = 1400;
const inner = {
  4: { a: '198.51.100.1', b: '198.51.100.2' },
  6: { a: '2001:db8:1::1', b: '2001:db8:1::2' },
} as const;

/** a: overlayd; b: the kernel. */
async function setUp(family: 4 | 6): Promise<{ hosts: Hosts; daemon: Daemon }> {
  const hosts = new Hosts();
  try {
    const daemon = await hosts.daemon('a');
    await daemon.createOverlay(hosts.a, 'ov0', VNI, underlay[family].a, underlay[family].b);
    const { a: remote, b: local } = underlay[family];
    hosts.b.run(
      'ip',
      'link',
      'add',
      'vx0',
      'type',
      'vxlan',
      'id',
      `${VNI}`,
      'local',
      local,
      'remote',
      remote,
      'dstport',
      '4789',
    );
    hosts.b.netlink.setLink(hosts.b.netlink.getLink('vx0').index, { mtu: MTU, addrGenModeNone: true });
    hosts.address('a', 'ov0', `${inner[4].a}/24`, `${inner[6].a}/64`);
    hosts.address('b', 'vx0', `${inner[4].b}/24`, `${inner[6].b}/64`);
    await until(
      'the peers see each other',
      5000,
      () => hosts.a.attempt('ping', '-c', '1', '-W', '1', inner[4].b).status === 0,
    );
    return { hosts, daemon };
  } catch (error) {
    await hosts.close();
    throw error;
  }
}

for (const family of [4, 6] as const) {
  testWith(kernelPeer, needs, `IPv${family} underlay: ping of every size, both ways`, async () => {
    const { hosts, daemon } = await setUp(family);
    try {
      for (const from of ['a', 'b'] as const) {
        const target = inner[4][from === 'a' ? 'b' : 'a'];
        // 20 bytes of IPv4 and 8 of ICMP; beyond the MTU the guests fragment.
        const sizes = [
          ...Array.from({ length: MTU - 28 + 1 }, (_, size) => size),
          MTU - 27,
          4000,
          9000,
          60_000,
        ];
        const failed: number[] = [];
        for (let at = 0; at < sizes.length; at += 8) {
          const batch = sizes.slice(at, at + 8);
          const codes = await Promise.all(
            batch.map((size) =>
              hosts[from].finish('ping', '-q', '-c', '1', '-W', '2', '-s', `${size}`, target),
            ),
          );
          failed.push(...batch.filter((_, index) => codes[index] !== 0));
        }
        assert.equal(failed, [], `sizes that were not answered to ${from}`);
      }
      await assertBooks(hosts.a, daemon, 'ov0', muxName(family));
      const { overlays } = await daemon.stats();
      assert.equal(overlays.ov0!.drops, {}, 'nothing was dropped');
    } finally {
      await hosts.close();
    }
  });

  testWith(
    kernelPeer,
    needs,
    `IPv${family} underlay: TCP and UDP, both ways, IPv4 and IPv6 inside`,
    async () => {
      const { hosts, daemon } = await setUp(family);
      try {
        const before = await countBoth(hosts, daemon, family);
        for (const innerFamily of [4, 6] as const) {
          for (const from of ['a', 'b'] as const) {
            const target = inner[innerFamily][from === 'a' ? 'b' : 'a'];
            const { bytes } = await iperf(hosts, from, target, '-t', '1');
            assert.ok(bytes > 10_000_000, `TCP from ${from}: ${bytes} bytes`);
          }
        }
        const { overlays } = await daemon.stats();
        assert.ok(Number(overlays.ov0!.counters.rx_super_frames) > 0, 'the kernel passed super-frames uncut');
        await assertBooks(hosts.a, daemon, 'ov0', muxName(family));
        // Only TCP so far, so that every UDP datagram of the host is ours.
        const after = await countBoth(hosts, daemon, family);
        assert.is(
          after.sent - before.sent,
          after.udp.out - before.udp.out,
          'frames sent = datagrams by the kernel',
        );
        assert.is(
          after.read - before.read,
          after.udp.in - before.udp.in,
          'datagrams read = datagrams by the kernel',
        );

        for (const innerFamily of [4, 6] as const) {
          for (const from of ['a', 'b'] as const) {
            const target = inner[innerFamily][from === 'a' ? 'b' : 'a'];
            const flags = ['-t', '1', '-u', '-b', '20M', '-l', '1200'];
            const { packets = 0, lostPackets = packets } = await iperf(hosts, from, target, ...flags);
            assert.ok(packets > 1000, `UDP from ${from}: ${packets} packets`);
            assert.ok(lostPackets <= packets * 0.01, `UDP from ${from}: ${lostPackets} of ${packets} lost`);
          }
        }
        await assertBooks(hosts.a, daemon, 'ov0', muxName(family));
      } finally {
        await hosts.close();
      }
    },
  );
}

/** Our counts and the kernel's of the same moment: read again when a frame passed in between. */
async function countBoth(
  hosts: Hosts,
  daemon: Daemon,
  family: 4 | 6,
): Promise<{ sent: number; read: number; udp: { in: number; out: number } }> {
  const ours = async () => {
    const { overlays, muxes } = await daemon.stats();
    const mux = muxes[muxName(family)]!;
    return { sent: Number(overlays.ov0!.counters.tx_messages), read: Number(mux.counters.rx_messages) };
  };
  for (let tries = 0; tries < 100; tries++) {
    const first = await ours();
    const udp = hosts.a.udp(family);
    const second = await ours();
    if (first.sent === second.sent && first.read === second.read) return { ...second, udp };
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  throw new Error('the counters never rest');
}

function muxName(family: 4 | 6): string {
  return family === 4 ? `${underlay[4].a}:4789` : `[${underlay[6].a}]:4789`;
}

kernelPeer.run();
