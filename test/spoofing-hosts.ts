/**
 * Spoofing on the wire, by one who has the right address, port and vnetid: what the kernel does not hand over, and frames that come
 * back to the underlay address they came by.
 */
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { ipNativeBytes } from '../src/ip.js';
import { AF_INET, AF_INET6, IPPROTO_GRE, IPPROTO_UDP, SOCK_RAW } from '../src/sys/abi.js';
import { must } from '../src/sys/errno.js';
import { closeFd } from '../src/sys/fd.js';
import * as libc from '../src/sys/libc.js';
import { inNamespace } from '../src/sys/netns.js';
import { sockaddr } from '../src/sys/sockaddr.js';
import { type Daemon, Hosts, underlay, until } from './harness/hosts.js';
import { testWith } from './harness/needs.js';
import * as frames from './reference/frames.js';
import * as nvgre from './reference/nvgre.js';
import * as vxlan from './reference/vxlan.js';

const spoofing = suite('spoofing between hosts');
const needs = ['root', '/dev/net/tun', 'ip'];
const VNETID = 42;
const PORT = 4789;
/** Whole IP packets, header and all (man 7 raw). */
const IPPROTO_RAW = 255;
const HALVES = 500;
/** Tunnels in one another, as many as fit. */
const DEPTH = 20;

type Family = 4 | 6;

interface Scene {
  readonly hosts: Hosts;
  readonly daemon: Daemon;
  readonly family: Family;
  /** Sends a packet, or a fragment of one, as the host b. */
  readonly send: (packet: Uint8Array) => void;
}

/** An overlay on a, and b with a raw socket in the place of its VTEP. */
async function withAttacker(family: Family, work: (scene: Scene) => Promise<void>): Promise<void> {
  const hosts = new Hosts();
  const domain = family === 4 ? AF_INET : AF_INET6;
  let fd = -1;
  try {
    const daemon = await hosts.daemon('a');
    await daemon.createOverlay(hosts.a, 'ov0', VNETID, underlay[family].a, underlay[family].b);
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

/** Of the underlay, from b to a. */
const endsOf = (family: Family): frames.Ends => ({
  source: ipNativeBytes(underlay[family].b),
  destination: ipNativeBytes(underlay[family].a),
});

function packet(
  family: Family,
  protocol: number,
  payload: Uint8Array,
  fragment?: { offset: number; more: boolean; id: number },
): Uint8Array {
  const ends = endsOf(family);
  if (family === 4) {
    return frames.ipv4({ ends, protocol, payload, ...(fragment ? { fragment, id: fragment.id } : {}) });
  }
  const extensions = fragment ? [frames.fragmentHeader(fragment.offset, fragment.more, fragment.id)] : [];
  return frames.ipv6({ ends, protocol, payload, extensions });
}

/** A datagram to the port of the overlay, as its packet's payload. */
const datagram = (family: Family, frame: Uint8Array) =>
  frames.udp({ ends: endsOf(family), destinationPort: PORT, payload: vxlan.encap(VNETID, frame) });

const FRAME = frames.ethernet(0x88b5, frames.counting(200));

/** Datagrams that have come off the underlay, and frames that were delivered. */
async function counts(daemon: Daemon): Promise<{ read: number; delivered: number }> {
  const { muxes, overlays } = await daemon.stats();
  const [mux] = Object.values(muxes);
  return { read: Number(mux!.counters.rx_read), delivered: Number(overlays.ov0!.counters.rx_frames) };
}

for (const family of [4, 6] as const) {
  testWith(
    spoofing,
    needs,
    `IPv${family}: half a datagram never gets to us, and no other protocol; both halves are one datagram`,
    () =>
      withAttacker(family, async ({ daemon, send }) => {
        const whole = datagram(family, FRAME);
        const half = 104;
        const first = (id: number) =>
          packet(family, IPPROTO_UDP, whole.subarray(0, half), { offset: 0, more: true, id });
        const last = (id: number) =>
          packet(family, IPPROTO_UDP, whole.subarray(half), { offset: half / 8, more: false, id });
        for (let id = 1; id <= HALVES; id++) {
          send(first(2 * id));
          send(last(2 * id + 1));
          send(packet(family, IPPROTO_GRE, nvgre.encap(VNETID, FRAME)));
          send(packet(family, IPPROTO_GRE, vxlan.encap(VNETID, FRAME)));
        }
        send(packet(family, IPPROTO_UDP, whole));
        await until('a whole one arrives', 3000, async () => (await counts(daemon)).delivered > 0);
        assert.equal(await counts(daemon), { read: 1, delivered: 1 }, 'and was the first');
        send(last(1));
        send(first(1));
        await until('both halves arrive', 3000, async () => (await counts(daemon)).delivered > 1);
        assert.equal(await counts(daemon), { read: 2, delivered: 2 });
      }),
  );
}

testWith(
  spoofing,
  needs,
  'a frame to our own underlay address: not at all; permitted, in a circle until its headers are used up, but for vxlan/device',
  () =>
    withAttacker(4, async ({ hosts, daemon, send }) => {
      const mac = Buffer.from(hosts.a.netlink.getLink('ov0').mac.replaceAll(':', ''), 'hex');
      let frame = FRAME;
      for (let level = 1; level < DEPTH; level++) {
        frame = frames.ethernet(0x0800, packet(4, IPPROTO_UDP, datagram(4, frame)));
        frame.set(mac);
      }
      send(packet(4, IPPROTO_UDP, datagram(4, frame)));
      const dropped = async () => Number((await daemon.stats()).overlays.ov0!.drops.rx_inner_to_mux ?? 0);
      await until('it is dropped', 3000, async () => (await dropped()) === 1);
      assert.equal(await counts(daemon), { read: 1, delivered: 0 });
      const set = (name: string, value: string) =>
        daemon.client.put(`/v1/overlays/ov0/properties/${encodeURIComponent(name)}`, { value });
      await set('vxlan/inner_to_mux', 'pass');
      // The link is in the namespace of the underlay: the kernel gives what is in the frame to the socket that it came from.
      send(packet(4, IPPROTO_UDP, datagram(4, frame)));
      await until('it is used up', 3000, async () => (await counts(daemon)).delivered >= DEPTH);
      await set('vxlan/device', 'underlay0');
      send(packet(4, IPPROTO_UDP, datagram(4, frame)));
      await until('it arrives', 3000, async () => (await counts(daemon)).delivered > DEPTH);
      // Behind what would have come back.
      send(packet(4, IPPROTO_UDP, datagram(4, FRAME)));
      await until('another arrives', 3000, async () => (await counts(daemon)).delivered > DEPTH + 1);
      assert.equal(await counts(daemon), { read: 2, delivered: DEPTH + 2 }, 'of a new socket');
      assert.is(await dropped(), 1);
    }),
);

spoofing.run();
