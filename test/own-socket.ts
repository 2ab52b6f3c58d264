/**
 * Received frames that lead to a socket of this daemon: each kind of packet, at the end of memory, with what must become of it and what
 * the twin says. `spoofing-hosts.ts` has the same with the kernel.
 */
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import * as layout from '../assembly/layout.js';
import { OwnSockets } from '../src/datapath/own-sockets.js';
import { Pool } from '../src/datapath/pool.js';
import { ipNativeBytes } from '../src/ip.js';
import { CoreRig, reclaimAtOnce } from './harness/core-rig.js';
import { received } from './harness/decap-check.js';
import { frameOf, SEGMENT } from './harness/segments.js';
import { Xorshift } from './harness/xorshift.js';
import * as frames from './reference/frames.js';
import { isToOwnSocket, type OwnSocket } from './reference/own-socket.js';
import * as vxlan from './reference/vxlan.js';

const own = suite('own socket');

const VNETID = 42;
const UDP = 17;
const GRE = 47;
const DROP = 'rx_inner_to_mux';

/** A mux of one address, one of all addresses of a host, and one of GRE. */
const VXLAN: Listener = { port: 4789, prefixes: ['192.0.2.1/32', '2001:db8::1/128'] };
const GENEVE: Listener = {
  port: 6081,
  prefixes: [
    '127.0.0.0/8',
    '0.0.0.0/32',
    '255.255.255.255/32',
    '198.51.100.7/32',
    '198.51.100.255/32',
    '192.0.2.1/32',
    '2001:db8:5::7/128',
    '2001:db8:6::/64',
  ],
};
const NVGRE: Listener = { port: 0, prefixes: ['203.0.113.1/32', '2001:db8:7::1/128'] };
const listeners = [VXLAN, GENEVE, NVGRE];

interface Listener {
  readonly port: number;
  readonly prefixes: readonly string[];
}

/** The same for the twin. */
function twinOf({ port, prefixes }: Listener): OwnSocket {
  return {
    port,
    prefixes: prefixes.map((prefix) => {
      const [ip = '', bits = ''] = prefix.split('/');
      return { bytes: ipNativeBytes(ip), bits: Number(bits) };
    }),
  };
}

interface Scene {
  readonly rig: CoreRig;
  readonly pool: Pool;
  readonly own: OwnSockets;
  readonly device: number;
  /** Rows of the muxes of `listeners`. */
  readonly rows: readonly number[];
}

function scene(flags = 0): Scene {
  const rig = new CoreRig();
  const pool = new Pool(rig.views);
  const sockets = new OwnSockets(rig.views, rig.core, pool, reclaimAtOnce);
  const rows = listeners.map((listener) => listen(rig, sockets, listener));
  const device = rig.addDevice({ vnetid: VNETID, mtu: 1500, flags });
  return { rig, pool, own: sockets, device, rows };
}

function listen(rig: CoreRig, sockets: OwnSockets, { port, prefixes }: Listener): number {
  const row = rig.tables.muxes.take();
  rig.tables.writeMux(row, layout.ENCAP_VXLAN, 1, true, false, port);
  sockets.set(row, port, prefixes);
  return row;
}

/** What becomes of a frame, by the core. */
function verdictOf({ rig }: Scene, frame: Uint8Array): string {
  const seen = received(rig, vxlan.encap(VNETID, frame));
  return typeof seen === 'string' ? seen : 'pass';
}

interface To {
  readonly to: string;
  readonly port?: number;
  readonly protocol?: number;
  readonly payload?: Uint8Array;
}

function endsTo(to: string): frames.Ends {
  const destination = ipNativeBytes(to);
  return { source: (destination.length === 4 ? frames.ENDS_4 : frames.ENDS_6).source, destination };
}

const datagram = ({ to, port = 4789 }: To) =>
  frames.udp({ ends: endsTo(to), destinationPort: port, payload: vxlan.encap(77, frames.counting(40)) });

function packet4(given: To, rest: Partial<frames.Ipv4Options> = {}): Uint8Array {
  const { to, protocol = UDP, payload = datagram(given) } = given;
  return frames.ipv4({ ends: endsTo(to), protocol, payload, ...rest });
}

function packet6(given: To, extensions: readonly frames.Extension[] = []): Uint8Array {
  const { to, protocol = UDP, payload = datagram(given) } = given;
  return frames.ipv6({ ends: endsTo(to), protocol, payload, extensions });
}

const over4 = (given: To, rest: Partial<frames.Ipv4Options> = {}) =>
  frames.ethernet(frames.ETHERTYPE_IPV4, packet4(given, rest));
const over6 = (given: To, ...extensions: frames.Extension[]) =>
  frames.ethernet(frames.ETHERTYPE_IPV6, packet6(given, extensions));

const tags = (count: number, control = 0) =>
  Array.from({ length: count }, (_, i) => ({ type: i % 2 === 0 ? 0x8100 : 0x88a8, control }));
const routing = (segmentsLeft: number): frames.Extension => ({
  type: 43,
  rest: frames.concat(Uint8Array.of(2, 4, segmentsLeft, 0, 0, 0, 0), ipNativeBytes('2001:db8::1')),
});
const options = (...bytes: number[]) => Uint8Array.from(bytes);
const A4 = '192.0.2.1';
const A6 = '2001:db8::1';
const ELSEWHERE_4 = '192.0.2.99';
const ELSEWHERE_6 = '2001:db8::99';

type Case = readonly [what: string, frame: Uint8Array, isDropped: boolean];

const cases: readonly Case[] = [
  ['UDP over IPv4 to the address and port', over4({ to: A4 }), true],
  ['UDP over IPv6', over6({ to: A6 }), true],
  ['another address', over4({ to: ELSEWHERE_4 }), false],
  ['another address of IPv6', over6({ to: ELSEWHERE_6 }), false],
  ['another port', over4({ to: A4, port: 4790 }), false],
  ['another port of IPv6', over6({ to: A6, port: 53 }), false],
  ['the port of another mux, which has other addresses', over6({ to: A6, port: 6081 }), false],
  ['the port of another mux, which has the address too', over4({ to: A4, port: 6081 }), true],
  ['port 0, which nobody has', over4({ to: '203.0.113.1', port: 0 }), false],
  ['TCP to the same port', frameOf({ ...SEGMENT, payload: frames.counting(40) }), false],
  ['TCP to the address', over4({ to: A4, protocol: 6, payload: tcpTo(A4) }), false],
  ['TCP over IPv6', over6({ to: A6, protocol: 6, payload: tcpTo(A6) }), false],
  ['ICMP', over4({ to: A4, protocol: 1, payload: frames.icmp(endsTo(A4)) }), false],
  ['ICMPv6', over6({ to: A6, protocol: 58, payload: frames.icmp(endsTo(A6)) }), false],
  ['ICMPv6 behind options', over6({ to: A6, protocol: 58, payload: frames.icmp(endsTo(A6)) }, pad()), false],
  // Another protocol's port lies at the same place.
  ['UDP-Lite', over4({ to: A4, protocol: 136 }), false],
  ['an IPv4-mapped address in IPv6', over6({ to: `::ffff:${A4}` }), true],
  ['an address of one that listens on all', over4({ to: '198.51.100.7', port: 6081 }), true],
  ['its broadcast address', over4({ to: '198.51.100.255', port: 6081 }), true],
  ['the limited broadcast address', over4({ to: '255.255.255.255', port: 6081 }), true],
  ['no address', over4({ to: '0.0.0.0', port: 6081 }), true],
  ['loopback', over4({ to: '127.5.6.7', port: 6081 }), true],
  ['behind the end of loopback', over4({ to: '128.0.0.0', port: 6081 }), false],
  ['before loopback', over4({ to: '126.255.255.255', port: 6081 }), false],
  ['a prefix of IPv6', over6({ to: '2001:db8:6::ffff', port: 6081 }), true],
  ['outside of that', over6({ to: '2001:db8:6:1::', port: 6081 }), false],
  ['loopback to a mux that has one address', over4({ to: '127.0.0.1' }), false],
  // GRE.
  ['GRE to the address', over4({ to: '203.0.113.1', protocol: GRE }), true],
  ['GRE over IPv6', over6({ to: '2001:db8:7::1', protocol: GRE }), true],
  ['GRE behind options', over6({ to: '2001:db8:7::1', protocol: GRE }, pad()), true],
  ['GRE to a mux of UDP', over4({ to: A4, protocol: GRE }), false],
  ['UDP to the mux of GRE', over4({ to: '203.0.113.1' }), false],
  // Tags.
  ...[1, 2, 3, 8].map(
    (count): Case => [
      `${count} tags`,
      frames.ethernet(0x0800, packet4({ to: A4 }), { tags: tags(count) }),
      true,
    ],
  ),
  ['two tags, IPv6', frames.ethernet(0x86dd, packet6({ to: A6 }), { tags: frames.VLAN_STACK }), true],
  ['tags, elsewhere', frames.ethernet(0x0800, packet4({ to: ELSEWHERE_4 }), { tags: tags(8) }), false],
  ['more tags than are walked', frames.ethernet(0x88b5, frames.counting(60), { tags: tags(9) }), true],
  ['tags and nothing behind', frames.ethernet(0x8100, new Uint8Array(2), { tags: tags(7) }), false],
  // IPv4 options and fragments.
  ['options', over4({ to: A4 }, { options: options(1, 1, 1, 0) }), true],
  ['the longest options', over4({ to: A4 }, { options: new Uint8Array(40).fill(1) }), true],
  ['options, elsewhere', over4({ to: ELSEWHERE_4 }, { options: options(7, 7, 4, 0, 0, 0, 0, 0) }), false],
  [
    'a loose source route',
    over4({ to: ELSEWHERE_4 }, { options: options(131, 7, 4, 192, 0, 2, 1, 0) }),
    true,
  ],
  [
    'a strict one behind others',
    over4({ to: ELSEWHERE_4 }, { options: options(1, 7, 3, 4, 137, 7, 4, 192, 0, 2, 1, 0) }),
    true,
  ],
  [
    'a source route to another port',
    over4({ to: ELSEWHERE_4, port: 53 }, { options: options(131, 7, 4, 192, 0, 2, 1, 0) }),
    false,
  ],
  [
    'behind the end of the options',
    over4({ to: ELSEWHERE_4 }, { options: options(0, 131, 7, 4, 192, 0, 2, 1) }),
    false,
  ],
  ['an option of no length', over4({ to: ELSEWHERE_4 }, { options: options(7, 0, 131, 7) }), false],
  ['an option that is cut off', over4({ to: ELSEWHERE_4 }, { options: options(1, 1, 1, 7) }), false],
  ['a first fragment', over4({ to: A4 }, { fragment: { offset: 0, more: true } }), true],
  ['a later one', over4({ to: A4 }, { fragment: { offset: 1, more: true } }), false],
  ['a last one', over4({ to: A4 }, { fragment: { offset: 185, more: false } }), false],
  ['a first fragment of another port', over4({ to: A4, port: 53 }, first()), false],
  ['a first fragment without a port', over4({ to: A4, payload: new Uint8Array(2) }, first()), true],
  ['the same, elsewhere', over4({ to: ELSEWHERE_4, payload: new Uint8Array(2) }, first()), false],
  ['a fragment of GRE', over4({ to: '203.0.113.1', protocol: GRE }, first()), true],
  // IPv6 extension headers.
  ['hop-by-hop options', over6({ to: A6 }, frames.optionsHeader(0)), true],
  ['every kind of header', over6({ to: A6 }, pad(0), routing(0), atomic(), auth(), pad(3)), true],
  ['the same, elsewhere', over6({ to: ELSEWHERE_6 }, pad(0), routing(0), atomic(), auth(), pad(3)), false],
  ['the same to another port', over6({ to: A6, port: 53 }, pad(0), routing(0), atomic(), auth()), false],
  ['fifteen headers', over6({ to: A6 }, ...Array.from({ length: 15 }, () => pad())), true],
  ['fifteen headers, another port', over6({ to: A6, port: 53 }, ...new Array(15).fill(pad())), false],
  ['more headers than are walked', over6({ to: A6, port: 53 }, ...new Array(16).fill(pad())), true],
  ['the same, elsewhere', over6({ to: ELSEWHERE_6 }, ...new Array(16).fill(pad())), false],
  ['a segment left', over6({ to: ELSEWHERE_6 }, routing(1)), true],
  ['a segment left, another port', over6({ to: ELSEWHERE_6, port: 53 }, routing(1)), false],
  ['a first fragment', over6({ to: A6 }, frames.fragmentHeader(0, true)), true],
  ['an atomic fragment', over6({ to: A6 }, atomic()), true],
  ['a later fragment', over6({ to: A6 }, frames.fragmentHeader(1, true)), false],
  ['a last fragment', over6({ to: A6 }, frames.fragmentHeader(100, false)), false],
  ['a first fragment of another port', over6({ to: A6, port: 53 }, frames.fragmentHeader(0, true)), false],
  ['a first fragment that ends in its headers', shortFirst(A6), true],
  ['the same, elsewhere', shortFirst(ELSEWHERE_6), false],
  ['a fragment within a fragment', over6({ to: A6 }, atomic(), frames.fragmentHeader(0, true)), true],
  ['encrypted', over6({ to: A6, protocol: 50 }), false],
  // What is not IP.
  ['ARP', frames.ethernet(frames.ETHERTYPE_ARP, frames.arp()), false],
  ['IPv4 that says it is IPv6', frames.ethernet(frames.ETHERTYPE_IPV6, packet4({ to: A4 })), false],
  ['IPv6 that says it is IPv4', frames.ethernet(frames.ETHERTYPE_IPV4, packet6({ to: A6 })), false],
  ['nested three times', over4({ to: ELSEWHERE_4, payload: nestedTo(A4) }), false],
];

function pad(units = 0): frames.Extension {
  return frames.optionsHeader(60, units);
}
function auth(): frames.Extension {
  return frames.authenticationHeader();
}
function atomic(): frames.Extension {
  return frames.fragmentHeader(0, false);
}
function first(): Partial<frames.Ipv4Options> {
  return { fragment: { offset: 0, more: true } };
}
function tcpTo(to: string): Uint8Array {
  return frames.tcp({ ends: endsTo(to), destinationPort: 4789 });
}
/** A header that begins and does not end in the fragment. */
function shortFirst(to: string): Uint8Array {
  const payload = Uint8Array.of(17, 9, 1, 4, 0, 0, 0, 0);
  return over6({ to, protocol: 60, payload }, frames.fragmentHeader(0, true));
}
/** Encapsulated again: the outer destination is elsewhere, and what is in it is the guest's. */
function nestedTo(to: string): Uint8Array {
  return frames.udp({
    ends: endsTo(ELSEWHERE_4),
    destinationPort: 4789,
    payload: vxlan.encap(5, over4({ to })),
  });
}

const sockets = listeners.map(twinOf);

own('each kind of packet: dropped by name, or not, as the twin says', () => {
  const here = scene();
  const permitted = scene(layout.DEVICE_FLAG_INNER_TO_MUX);
  let dropped = 0;
  for (const [what, frame, isDropped] of cases) {
    assert.is(verdictOf(here, frame), isDropped ? DROP : 'pass', what);
    assert.is(isToOwnSocket(frame, sockets), isDropped, `the twin: ${what}`);
    assert.is(verdictOf(permitted, frame), 'pass', `permitted: ${what}`);
    if (isDropped) dropped++;
  }
  assert.is(here.rig.deviceCount(here.device, layout.DROP_RX_INNER_TO_MUX), dropped);
  assert.ok(dropped > 30, `${dropped} of ${cases.length}`);
});

own('each kind, cut off after each byte at the end of memory: as the twin says, without a trap', () => {
  const here = scene();
  let dropped = 0;
  for (const [what, frame] of cases) {
    for (let length = 14; length < frame.length; length++) {
      const cut = frame.subarray(0, length);
      const seen = verdictOf(here, cut);
      assert.is(seen, isToOwnSocket(cut, sockets) ? DROP : 'pass', `${length} bytes of: ${what}`);
      if (seen === DROP) dropped++;
    }
  }
  assert.ok(dropped > 1000, `${dropped} are dropped`);
});

own('every value of every byte of the headers: as the twin says', () => {
  const here = scene();
  const seen = new Map<string, number>();
  for (const [what, frame] of cases) {
    for (let at = 12; at < Math.min(frame.length, 90); at++) {
      for (let value = 0; value < 256; value += at > 62 ? 3 : 1) {
        const changed = frame.slice();
        changed[at] = value;
        const verdict = verdictOf(here, changed);
        assert.is(
          verdict,
          isToOwnSocket(changed, sockets) ? DROP : 'pass',
          `${what}: byte ${at} is ${value}`,
        );
        seen.set(verdict, (seen.get(verdict) ?? 0) + 1);
      }
    }
  }
  for (const verdict of [DROP, 'pass'])
    assert.ok(seen.get(verdict)! > 10_000, `${verdict} ${seen.get(verdict)}`);
});

own('random addresses in large sets: as the twin says', () => {
  const random = new Xorshift(7);
  const { rig, own: sets, rows } = scene();
  const address = () => `10.${random.below(2)}.${random.below(3)}.${random.below(256)}`;
  for (const count of [1, 2, 5, 200]) {
    const listener = {
      port: 6081,
      prefixes: [
        ...new Set(Array.from({ length: count }, () => `${address()}/32`)),
        '10.1.1.128/25',
        '10.0.1.8/29',
      ],
    };
    sets.set(rows[1]!, 6081, listener.prefixes);
    const twins = [VXLAN, listener, NVGRE].map(twinOf);
    let dropped = 0;
    for (let turn = 0; turn < 2000; turn++) {
      const frame = over4({ to: address(), port: 6081 });
      const isDropped = isToOwnSocket(frame, twins);
      assert.is(received(rig, vxlan.encap(VNETID, frame)) === DROP, isDropped);
      if (isDropped) dropped++;
    }
    assert.ok(dropped > 100 && dropped < 1900, `${count} addresses: ${dropped} of 2000`);
  }
});

own('a mux that leaves, one that comes in its row, and other addresses: from the next frame on', () => {
  const here = scene();
  const { own: sets, rows, rig } = here;
  const [first, second] = rows as [number, number];
  const toFirst = over4({ to: A4 });
  const toBoth = over4({ to: A4, port: 6081 });
  const toOther = over4({ to: '198.51.100.8', port: 6081 });
  sets.set(second, 6081, [...GENEVE.prefixes, '198.51.100.8/32']);
  assert.equal(
    [toFirst, toBoth, toOther].map((frame) => verdictOf(here, frame)),
    [DROP, DROP, DROP],
  );
  sets.set(second, 6081, GENEVE.prefixes);
  assert.is(verdictOf(here, toOther), 'pass', 'an address that has gone');
  sets.delete(second);
  assert.equal(
    [toFirst, toBoth].map((frame) => verdictOf(here, frame)),
    [DROP, 'pass'],
  );
  // Its row has another port by the time that another mux is told of.
  rig.tables.writeMux(second, layout.ENCAP_VXLAN, 1, true, false, 4789);
  sets.delete(first);
  assert.is(verdictOf(here, toFirst), 'pass', 'a row that is no mux of the set');
  sets.set(second, 4789, ['192.0.2.1/32']);
  assert.is(verdictOf(here, toFirst), DROP);
  // Two on one port: it stays one of ours when one of them leaves.
  rig.tables.writeMux(first, layout.ENCAP_VXLAN, 1, true, false, 4789);
  sets.set(first, 4789, ['192.0.2.2/32']);
  sets.delete(first);
  assert.is(verdictOf(here, toFirst), DROP);
  assert.is(verdictOf(here, over4({ to: '192.0.2.2' })), 'pass', 'the address of the one that left');
});

own('more addresses or prefixes than fit count as all there are', () => {
  const addresses = (count: number) =>
    Array.from({ length: count }, (_, i) => `10.${(i >> 16) & 255}.${(i >> 8) & 255}.${i & 255}/32`);
  const prefixes = (count: number) => Array.from({ length: count }, (_, i) => `10.1.${i}.0/24`);
  const { OWN_ADDRESSES_MAX, OWN_PREFIXES_MAX } = layout;
  for (const [what, list, isAll] of [
    ['addresses', addresses(OWN_ADDRESSES_MAX - 10), false],
    ['addresses', addresses(OWN_ADDRESSES_MAX + 1), true],
    ['prefixes', prefixes(OWN_PREFIXES_MAX - 5), false],
    ['prefixes', prefixes(OWN_PREFIXES_MAX + 1), true],
  ] as const) {
    const here = scene();
    here.own.set(here.rows[1]!, 6081, list);
    const name = `${list.length} ${what}`;
    assert.is(verdictOf(here, over4({ to: list[9]!.replace(/\/.*/, ''), port: 6081 })), DROP, name);
    assert.is(verdictOf(here, over4({ to: '11.9.9.9', port: 6081 })), isAll ? DROP : 'pass', name);
    assert.is(verdictOf(here, over4({ to: '11.9.9.9', port: 4789 })), 'pass', `${name}: the other mux`);
    assert.is(verdictOf(here, over4({ to: A4, port: 4789 })), DROP, `${name}: the other mux`);
  }
});

own('no room for a set: refused, and the one before holds', () => {
  const here = scene();
  const { pool } = here;
  while (pool.freeBytes > 128 * 1024) pool.take(64 * 1024, 'nothing');
  const many = Array.from({ length: 4096 }, (_, i) => `10.2.${i >> 8}.${i & 255}/32`);
  assert.throws(() => here.own.set(here.rows[1]!, 6081, many), /no room for 4100 addresses of this host/);
  assert.is(verdictOf(here, over4({ to: '10.2.0.1', port: 6081 })), 'pass');
  assert.is(verdictOf(here, over4({ to: A4 })), DROP);
});

own('a dropped frame is not joined, whatever its neighbours are, and they are', () => {
  const { DEVICE_FLAG_COALESCE, DEVICE_FLAG_COALESCE_UDP } = layout;
  for (const [flags, isDropped] of [
    [0, true],
    [layout.DEVICE_FLAG_INNER_TO_MUX, false],
  ] as const) {
    const { rig, device } = scene(DEVICE_FLAG_COALESCE | DEVICE_FLAG_COALESCE_UDP | flags);
    const flow = (to: string, id: number) => over4({ to }, { id });
    const batch = Array.from({ length: 8 }, (_, i) => [flow(A4, 10 + i), flow(ELSEWHERE_4, 10 + i)]).flat();
    // As the kernel hands them over: joined by size.
    rig.placeMessages([batch.map((frame) => vxlan.encap(VNETID, frame))]);
    assert.is(rig.decideRx(1), 0);
    const writes = rig.writes();
    assert.is(writes.length, isDropped ? 1 : 2, 'a write for each flow');
    assert.is(rig.deviceCount(device, layout.DROP_RX_INNER_TO_MUX), isDropped ? 8 : 0);
    const destination = layout.VNET_HDR_BYTES + 30;
    const seen = writes.map(({ bytes }) => bytes.slice(destination, destination + 4).join('.'));
    assert.equal(seen, isDropped ? [ELSEWHERE_4] : [A4, ELSEWHERE_4]);
    rig.core.rxDelivered(rig.arena);
    assert.is(rig.deviceCount(device, layout.COUNTER_RX_FRAMES), isDropped ? 8 : 16);
    assert.is(rig.deviceCount(device, layout.COUNTER_RX_JOINED), isDropped ? 8 : 16);
  }
});

own('what is dropped for another reason keeps it: no tags carried, too long, congestion', () => {
  const here = scene();
  const { rig } = here;
  const tagged = frames.ethernet(0x0800, packet4({ to: A4 }), { tags: tags(1) });
  const long = over4({
    to: A4,
    payload: frames.udp({ ends: endsTo(A4), destinationPort: 4789, payload: new Uint8Array(1600) }),
  });
  assert.is(verdictOf(here, long), 'rx_too_big');
  const plain = rig.addDevice({ vnetid: 43, carriesVlan: false });
  assert.is(received(rig, vxlan.encap(43, tagged)), 'rx_vlan_not_carried');
  assert.is(received(rig, vxlan.encap(43, over4({ to: A4 }))), DROP);
  assert.is(rig.deviceCount(plain, layout.DROP_RX_INNER_TO_MUX), 1);
  // A mark that the sender could not be told of.
  rig.noteControl(0, 3, 0);
  assert.is(verdictOf(here, over4({ to: A4 })), 'rx_congestion');
});

own.run();
