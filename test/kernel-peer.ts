/** Our daemon against the kernel's own VXLAN device, over IPv4 and IPv6. Facts: the peer hands over unfinished checksums and super-frames. */
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { assertBooks } from './harness/books.js';
import { createDirect, guestOn } from './harness/direct.js';
import type { Guest } from './harness/guest.js';
import { type Daemon, Hosts, underlay } from './harness/hosts.js';
import { testWith } from './harness/needs.js';
import { Shown } from './harness/shown.js';
import { GUEST_MTU, interoperate, seeEachOther, withoutDrops } from './harness/traffic.js';

const kernelPeer = suite('kernel VXLAN as the peer');
const needs = ['root', '/dev/net/tun', 'ip', 'ping', 'python3'];
const shown = new Shown('kernel-peer');
const VNI = 4242;
const PING_SIZES = join(import.meta.dirname, '../../test/harness/ping-sizes.py');

interface Scene {
  readonly hosts: Hosts;
  readonly daemon: Daemon;
  readonly ours: Guest;
  readonly theirs: Guest;
}

/** a: overlayd; b: the kernel. */
async function withPeers(family: 4 | 6, work: (scene: Scene) => Promise<void>): Promise<void> {
  const hosts = new Hosts();
  try {
    const daemon = await hosts.daemon('a');
    const properties = { mtu: `${GUEST_MTU}` };
    const request = { encapsulation: 'vxlan', family, vnetid: VNI, properties };
    const ours = await createDirect(hosts, 'a', daemon, request);
    const { a: remote, b: local } = underlay[family];
    const ends = ['local', local, 'remote', remote, 'dstport', '4789'];
    hosts.b.run('ip', 'link', 'add', 'vx0', 'mtu', `${GUEST_MTU}`, 'type', 'vxlan', 'id', `${VNI}`, ...ends);
    const theirs = guestOn(hosts, 'b', 'vx0');
    await seeEachOther(ours, theirs);
    await work({ hosts, daemon, ours, theirs });
  } finally {
    await hosts.close();
  }
}

/** Payloads of every size that fits, and some that guests send in fragments. */
function pingAllSizes(from: Guest, to: Guest): void {
  // 20 bytes of IPv4 and 8 of ICMP.
  const most = GUEST_MTU - 28;
  const sizes = [most, most + 1, 4000, 9000, 60_000].map(String);
  const unanswered = from.host.run('python3', PING_SIZES, to.inner[4], ...sizes).trim();
  assert.is(unanswered, '', `sizes that were not answered to ${from.inner[4]}`);
}

for (const place of shown.places('direct')) {
  const [, family] = place;
  testWith(
    kernelPeer,
    needs,
    `IPv${family} underlay: ping of every size; ping, TCP, UDP and mDNS, both ways; the books balance`,
    () =>
      withPeers(family, async ({ hosts, daemon, ours, theirs }) => {
        await withoutDrops([ours], () => {
          pingAllSizes(ours, theirs);
          pingAllSizes(theirs, ours);
        });
        const before = await countBoth(hosts, daemon, family);
        await interoperate(['TCP'], [ours, theirs]);
        const { overlays } = await daemon.stats();
        assert.ok(Number(overlays.ov0!.counters.rx_super_frames) > 0, 'the kernel passed super-frames uncut');
        // Only ICMP and TCP so far, so that every UDP datagram of the host is ours.
        const after = await countBoth(hosts, daemon, family);
        const [sent, read] = [after.udp.out - before.udp.out, after.udp.in - before.udp.in];
        assert.is(after.sent - before.sent, sent, 'frames sent = datagrams by the kernel');
        assert.is(after.read - before.read, read, 'datagrams read = datagrams by the kernel');
        await shown.show('direct', place, [ours, theirs]);
        await assertBooks(hosts.a, daemon, 'ov0', muxName(family));
      }),
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

testWith(kernelPeer, needs, 'all that is to be shown has been', () => shown.assertAll());

kernelPeer.run();
