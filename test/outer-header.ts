/** The outer IP header: traffic class and ECN in the core against `reference/ecn.ts`, TTL and DSCP of devices on the wire. */
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import * as layout from '../assembly/layout.js';
import {
  AF_INET6,
  IP_TOS,
  IPPROTO_IP,
  IPPROTO_IPV6,
  IPPROTO_UDP,
  IPV6_TCLASS,
  SOCK_CLOEXEC,
  SOCK_DGRAM,
  structs,
  UDP_GRO,
  UDP_SEGMENT,
} from '../src/sys/abi.js';
import { closeFd } from '../src/sys/fd.js';
import * as libc from '../src/sys/libc.js';
import { inNamespace } from '../src/sys/netns.js';
import { randomBetween } from '../src/sys/random.js';
import { sockaddr } from '../src/sys/sockaddr.js';
import { capture } from './harness/capture.js';
import { CoreRig, MESSAGE_BYTES } from './harness/core-rig.js';
import { type Daemon, Hosts, underlay, until } from './harness/hosts.js';
import { assertRefused, freePort, MemoryOverlay, request } from './harness/memory-overlay.js';
import { testWith } from './harness/needs.js';
import { Xorshift } from './harness/xorshift.js';
import { decapEcn, innerClass } from './reference/ecn.js';
import * as frames from './reference/frames.js';
import { recordOf } from './reference/vnet-hdr.js';
import * as twin from './reference/vxlan.js';

const SEED = randomBetween(1, 0x7fffffff);
const VNETID = 7;
const TAGS = [[], frames.VLAN_TAGS, frames.VLAN_STACK];
const CONTROL_WORDS = 6;

const outer = suite('outer header');

/** A frame with a traffic class, UDP inside. */
function frameOf(family: 4 | 6, trafficClass: number, tags = TAGS[0]!, number = 0): Uint8Array {
  const ends = family === 4 ? frames.ENDS_4 : frames.ENDS_6;
  const payload = frames.udp({ ends, sourcePort: 9, payload: frames.counting(40, number) });
  if (family === 6) {
    const packet = frames.ipv6({ protocol: 17, payload });
    packet[0] = 0x60 + (trafficClass >> 4);
    packet[1] = (trafficClass & 15) << 4;
    return frames.ethernet(frames.ETHERTYPE_IPV6, packet, { tags });
  }
  const packet = frames.ipv4({ protocol: 17, payload });
  packet[1] = trafficClass;
  packet.set([0, 0], 10);
  packet.set(frames.bigEndian(0xffff - frames.onesComplementSum(packet.subarray(0, 20)), 2), 10);
  return frames.ethernet(frames.ETHERTYPE_IPV4, packet, { tags });
}

const ARP = frames.ethernet(frames.ETHERTYPE_ARP, frames.arp());

/** Says of message `index` what the kernel says of it: traffic class, and the size of its datagrams. */
function placeControls(rig: CoreRig, index: number, trafficClass: number, isIpv6: boolean, size = 0): void {
  const at = (rig.arena + layout.ARENA_RX_CONTROLS + index * layout.RX_CONTROL_BYTES) / 4;
  const { u32 } = rig.views;
  const words = isIpv6
    ? [20, 0, IPPROTO_IPV6, IPV6_TCLASS, trafficClass, 0]
    : // One byte; what is behind it may be anything.
      [17, 0, IPPROTO_IP, IP_TOS, 0xa5a5a500 + trafficClass, 0xa5a5a5a5];
  const all = size > 0 ? [20, 0, IPPROTO_UDP, UDP_GRO, size, 0, ...words] : words;
  u32.set(all, at);
  const message = rig.arena + layout.ARENA_RX_MESSAGES + index * MESSAGE_BYTES;
  u32[(message + structs.mmsghdr['msg_hdr.msg_controllen']) / 4] = all.length * 4;
}

/** Control messages of a message that is laid out: level, type, value. */
function controlsOf(rig: CoreRig, message: number): number[][] {
  const at = rig.arena + layout.ARENA_TX_MESSAGES + message * MESSAGE_BYTES;
  const { u32, views } = { u32: rig.views.u32, views: rig.views };
  const bytes = u32[(at + structs.mmsghdr['msg_hdr.msg_controllen']) / 4]!;
  const first = rig.loadAddress(at + structs.mmsghdr['msg_hdr.msg_control']) / 4;
  return Array.from({ length: bytes / 4 / CONTROL_WORDS }, (_, index) => {
    const control = first + index * CONTROL_WORDS;
    return [...views.i32.subarray(control + 2, control + 5)];
  });
}

// ─── In ─────────────────────────────────────────────────────────────────────────────────────────────────

outer(
  'ECN of what is received: every pair of fields, IPv4 and IPv6, with tags and without, joined or alone',
  () => {
    let drops = 0;
    let marks = 0;
    for (const isFolded of [false, true]) {
      for (const isOuterIpv6 of [false, true]) {
        for (let field = 0; field < 4; field++) {
          const rig = new CoreRig();
          const device = rig.addDevice({ vnetid: VNETID, mtu: 1400 });
          const batch = ([4, 6] as const).flatMap((family) =>
            TAGS.flatMap((tags) => [0, 1, 2, 3].map((inner) => frameOf(family, 0xb8 + inner, tags, inner))),
          );
          const all = [...batch, ARP, ARP.subarray(0, 20), frameOf(4, 2).subarray(0, 30)];
          const datagrams = all.map((frame) => twin.encap(VNETID, frame));
          if (isFolded) {
            // Of one size each time, as the kernel joins them.
            rig.placeMessages(datagrams.map((datagram) => [datagram, datagram]));
          } else {
            rig.placeDatagrams(datagrams);
          }
          for (const [index, datagram] of datagrams.entries()) {
            placeControls(rig, index, 0x50 + field, isOuterIpv6, isFolded ? datagram.length : 0);
          }
          assert.is(rig.decideRx(datagrams.length), 0);
          const expected = all
            .map((frame) => decapEcn(frame, field))
            .flatMap((frame) => (isFolded ? [frame, frame] : [frame]));
          const kept = expected.filter((frame) => frame !== undefined);
          assert.equal(
            rig.writes().map(({ bytes }) => bytes),
            kept.map((frame) => recordOf({}, frame)),
            `outer field ${field}`,
          );
          assert.is(rig.deviceCount(device, layout.DROP_RX_CONGESTION), expected.length - kept.length);
          const times = isFolded ? 2 : 1;
          const changed = all.filter((frame) => {
            const out = decapEcn(frame, field);
            return out !== undefined && Buffer.compare(out, frame) !== 0;
          });
          assert.is(rig.deviceCount(device, layout.COUNTER_RX_MARKED), changed.length * times);
          drops += expected.length - kept.length;
          marks += changed.length;
        }
      }
    }
    assert.ok(drops > 0 && marks > 0);
  },
);

outer('frames that differ by their mark alone are not joined for the link', () => {
  const rig = new CoreRig();
  const flags = layout.DEVICE_FLAG_COALESCE | layout.DEVICE_FLAG_COALESCE_UDP;
  rig.addDevice({ vnetid: VNETID, mtu: 1400, flags });
  const segments = [0, 1].map((index) => {
    const tcp = frames.tcp({
      ends: frames.ENDS_6,
      sourcePort: 9,
      payload: frames.counting(100),
      sequence: index * 100,
    });
    const packet = frames.ipv6({ protocol: 6, payload: tcp });
    packet[1] = 0x20;
    return frames.ethernet(frames.ETHERTYPE_IPV6, packet);
  });
  for (const [marks, writes] of [
    [[0, 0], 1],
    [[3, 3], 1],
    [[0, 3], 2],
  ] as const) {
    rig.placeDatagrams(segments.map((frame) => twin.encap(VNETID, frame)));
    for (const [index, mark] of marks.entries()) placeControls(rig, index, mark, true);
    assert.is(rig.decideRx(2), 0);
    assert.is(rig.writeCount, writes, `marks ${marks}`);
  }
});

// ─── Out ────────────────────────────────────────────────────────────────────────────────────────────────

for (const [to, level, type] of [
  ['fd00::2', IPPROTO_IPV6, IPV6_TCLASS],
  ['192.0.2.2', IPPROTO_IP, IP_TOS],
] as const) {
  outer(
    `traffic class of what is sent to ${to}: inner ECN or none, own or inherited DSCP; one class a message`,
    () => {
      const random = new Xorshift(SEED);
      for (const [dscp, flags] of [
        [0, 0],
        [46, layout.DEVICE_FLAG_UDP_SEGMENT],
        [layout.DSCP_INHERIT, layout.DEVICE_FLAG_UDP_SEGMENT],
        [layout.DSCP_INHERIT, 0],
        [46, layout.DEVICE_FLAG_UDP_SEGMENT | layout.DEVICE_FLAG_ECN_CLEAR],
        [layout.DSCP_INHERIT, layout.DEVICE_FLAG_ECN_CLEAR],
      ] as const) {
        const rig = new CoreRig({ bank: 1 });
        const device = rig.addDevice({ vnetid: VNETID, mtu: 1400, flags });
        const row = layout.DEVICES_OFFSET + device * layout.DEVICE_BYTES;
        rig.views.u32[(row + layout.DEVICE_DSCP) / 4] = dscp;
        const header = rig.encapsulation.header(0);
        rig.tables.writeDestination(rig.destination, sockaddr(AF_INET6, to, 4789), new Uint8Array(0), header);
        const sent = Array.from({ length: layout.BATCH_MAX }, (_, number) => {
          if (random.below(8) === 0) return ARP;
          // Runs of one class, so that some are joined.
          const trafficClass = [0, 2, 3, 0xb8, 0xba, 0x29][(number >> 2) % 6]!;
          return frameOf(random.below(2) ? 4 : 6, trafficClass, TAGS[random.below(3)]!, number);
        });
        rig.placeFrames(sent);
        assert.is(rig.decideTx(device, sent.length), 0);
        const groups = rig.core.txArrange(rig.arena, device, sent.length);
        let at = 0;
        let joined = 0;
        for (let message = 0; message < rig.messageCount(groups); message++) {
          const datagrams = rig.datagramsOf(message);
          const classes = datagrams.map((datagram) => {
            const frame = sent[at++]!;
            assert.equal(datagram, twin.encap(VNETID, frame));
            const own = innerClass(frame);
            const ecn = flags & layout.DEVICE_FLAG_ECN_CLEAR ? 0 : own % 4;
            return (dscp === layout.DSCP_INHERIT ? own - (own % 4) : dscp * 4) + ecn;
          });
          assert.is(new Set(classes).size, 1, `message ${message}: ${classes}, seed ${SEED}`);
          const expected = classes[0] === 0 ? [] : [[level, type, classes[0]]];
          if (datagrams.length > 1) expected.push([IPPROTO_UDP, UDP_SEGMENT, datagrams[0]!.length]);
          joined += datagrams.length - 1;
          assert.equal(controlsOf(rig, message), expected);
        }
        assert.is(at, sent.length);
        const joins = (flags & layout.DEVICE_FLAG_UDP_SEGMENT) !== 0;
        assert.ok(joins ? joined > 10 : joined === 0, `${joined} joined`);
      }
    },
  );
}

// ─── Devices ────────────────────────────────────────────────────────────────────────────────────────────

outer('properties: what they may be', async () => {
  const memory = await MemoryOverlay.start();
  try {
    const { overlay } = memory;
    await overlay.createOverlay(request('ov0', 1, await freePort('0.0.0.0')));
    for (const [name, value, what] of [
      ['vxlan/ttl', '0', /it may be 1-255/],
      ['vxlan/ttl', '256', /it may be 1-255/],
      ['vxlan/dscp', '64', /0-63, or inherit/],
      ['vxlan/dscp', '-1', /0-63, or inherit/],
      ['vxlan/dscp', 'ef', /0-63, or inherit/],
      ['vxlan/ecn', 'set', /copy,clear/],
    ] as const) {
      await assertRefused(overlay.setprop('ov0', name, value), 'EINVAL', 'bad_property_value', what);
    }
    for (const value of ['0', '63', 'inherit']) await overlay.setprop('ov0', 'vxlan/dscp', value);
  } finally {
    await memory.close();
  }
});

const needs = ['root', '/dev/net/tun', 'ip', 'ping', 'tcpdump'];
const inner = { a: '198.51.100.1', b: '198.51.100.2' } as const;

async function withHosts(
  family: 4 | 6,
  work: (hosts: Hosts, daemon: Daemon) => Promise<void>,
): Promise<void> {
  const hosts = new Hosts();
  try {
    const a = await hosts.daemon('a');
    const b = await hosts.daemon('b');
    await a.createOverlay(hosts.a, 'ov0', VNETID, underlay[family].a, underlay[family].b);
    await b.createOverlay(hosts.b, 'ov0', VNETID, underlay[family].b, underlay[family].a);
    for (const side of ['a', 'b'] as const) hosts.address(side, 'ov0', `${inner[side]}/24`);
    await until('the hosts see each other', 5000, () => {
      return hosts.a.attempt('ping', '-q', '-c', '1', '-W', '1', inner.b).status === 0;
    });
    await work(hosts, a);
  } finally {
    await hosts.close();
  }
}

for (const family of [4, 6] as const) {
  testWith(
    outer,
    needs,
    `on the wire, IPv${family}: TTL and DSCP as they were set, ECN of the guests or none`,
    () =>
      withHosts(family, async (hosts, daemon) => {
        const ping = async (trafficClass: number) => {
          const seen = await capture(hosts.b, 'udp port 4789', { flags: ['-v', '-Q', 'in'] });
          const flags = ['-q', '-c', '2', '-i', '0.2', '-W', '1', '-Q', `${trafficClass}`];
          assert.is(hosts.a.attempt('ping', ...flags, inner.b).status, 0);
          return await seen();
        };
        const set = (property: string, value: string) =>
          daemon.client.put(`/v1/overlays/ov0/properties/${encodeURIComponent(property)}`, { value });
        const outerText = (trafficClass: number, ttl: number) => {
          const hex = trafficClass.toString(16);
          if (family === 4)
            return new RegExp(`^\\S+ IP \\(tos 0x${hex}(,CE|,ECT\\(\\d\\))?, ttl ${ttl},`, 'm');
          // The kernel makes a flow label of the addresses and ports (RFC 6438).
          const label = 'flowlabel 0x[0-9a-f]+';
          return new RegExp(`^\\S+ IP6 \\(class 0x${hex.padStart(2, '0')}, ${label}, hlim ${ttl},`, 'm');
        };
        assert.match(await ping(0xba), outerText(2, 64));
        await set('vxlan/ttl', '9');
        await set('vxlan/dscp', '10');
        assert.match(await ping(0xba), outerText(0x2a, 9));
        await set('vxlan/dscp', 'inherit');
        assert.match(await ping(0xba), outerText(0xba, 9));
        await set('vxlan/ecn', 'clear');
        assert.match(await ping(0xba), outerText(0xb8, 9));
      }),
  );

  testWith(
    outer,
    needs,
    `congestion on the way, IPv${family}: told to the guest that can hear of it, else a drop`,
    () =>
      withHosts(family, async (hosts, daemon) => {
        const seen = await capture(hosts.a, 'udp port 9', { link: 'ov0', flags: ['-v'] });
        const frame = (trafficClass: number) => twin.encap(VNETID, frameOf(4, trafficClass));
        inNamespace(hosts.b.namespace, () => {
          const fd = libc.socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0);
          const [level, name] = family === 4 ? [IPPROTO_IP, IP_TOS] : [IPPROTO_IPV6, IPV6_TCLASS];
          assert.is(libc.setsockopt(fd, level, name, new Int32Array([3]), 4), 0);
          const to = sockaddr(AF_INET6, underlay[family].a, 4789);
          for (const trafficClass of [0xb8, 0xba]) {
            const datagram = frame(trafficClass);
            assert.is(libc.sendto(fd, datagram, datagram.length, 0, to, to.length), datagram.length);
          }
          closeFd(fd);
        });
        const ours = async () => (await daemon.stats()).overlays.ov0!;
        await until('both are counted', 3000, async () => {
          const { counters, drops } = await ours();
          return Number(counters.rx_marked ?? 0) === 1 && Number(drops.rx_congestion ?? 0) === 1;
        });
        await until('the marked one is seen', 3000, () => /tos 0xbb,CE/.test(seen.seen()));
        const text = await seen();
        assert.match(text, /tos 0xbb,CE/);
        assert.not.match(text, /tos 0xb8/);
        assert.not.match(text, /bad cksum/, 'the header checksum is right');
      }),
  );
}

outer.run();
