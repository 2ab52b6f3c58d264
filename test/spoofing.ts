/**
 * Spoofing: encapsulations authenticate nobody, so what `source_check=strict` lets through is all that keeps strangers out of a guest
 * network. A million datagrams of each trick: none is delivered, each is counted under its name. What the kernel keeps from us is
 * in `spoofing-hosts.ts`.
 */
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import * as layout from '../assembly/layout.js';
import { type DropName, dropNames } from '../src/datapath/drop.js';
import { createSources } from '../src/datapath/sources.js';
import { ipBytes, ipNativeBytes } from '../src/ip.js';
import { AF_INET, AF_INET6 } from '../src/sys/abi.js';
import { sockaddr } from '../src/sys/sockaddr.js';
import { type Encapsulation, nvgreOverIpv4, vxlanEncapsulation } from './harness/encapsulations.js';
import { ReceiveRig } from './harness/receive-rig.js';
import * as frames from './reference/frames.js';
import * as geneve from './reference/geneve.js';
import * as nvgre from './reference/nvgre.js';
import * as vxlan from './reference/vxlan.js';

const spoofing = suite('spoofing');

/** A million. */
const BATCHES = 15_626;
const VNETID = 0x1005;
const OTHER_VNETID = 0x1006;
/** The guest behind each of the two VTEPs that the lookup knows. */
const GUEST = 0x020820000002;
const OTHER_GUEST = 0x020820000003;
/** Room for 64 tunnels in one another. */
const MTU = 3400;
const DEPTH_MAX = 64;
/** More than any outer header has here. */
const FRONT_BYTES = 40;

function frameFrom(mac: number, payload: Uint8Array = frames.counting(80)): Uint8Array {
  const frame = frames.ethernet(0x88b5, payload);
  frame.set(frames.bigEndian(mac, 6), 6);
  return frame;
}

/** A frame that has come through so many tunnels, one within the other. */
function nested(depth: number, innermost = frames.counting(10)): Uint8Array {
  let frame = frameFrom(GUEST, innermost);
  for (let level = 1; level < depth; level++) {
    const payload = frames.udp({
      ends: frames.ENDS_4,
      destinationPort: 4789,
      payload: vxlan.encap(VNETID, frame),
    });
    frame = frames.ethernet(0x0800, frames.ipv4({ protocol: 17, payload }));
  }
  frame.set(frames.bigEndian(GUEST, 6), 6);
  return frame;
}

interface Trick {
  readonly what: string;
  readonly sender: string;
  readonly datagram: Uint8Array;
  readonly drop: DropName;
  /** Counted on the underlay address: it is nobody's. */
  readonly isMuxs?: boolean;
}

/** Strict devices of one underlay, and who tries what on them. */
interface Scene {
  readonly name: string;
  readonly encapsulation: Encapsulation;
  readonly domain: number;
  /** VTEPs that the lookup knows. */
  readonly peers: readonly [string, string];
  /** As the sockets get it. */
  readonly wrap: (vnetid: number, frame: Uint8Array) => Uint8Array;
  readonly tricks: readonly Trick[];
}

/** What is tried with every encapsulation, by someone who has the port and the vnetid. */
function common(
  { peers: [peer], wrap }: Pick<Scene, 'peers' | 'wrap'>,
  strangers: Readonly<Record<string, string>>,
): Trick[] {
  const from = Object.entries(strangers).map(([what, sender]) => ({
    what,
    sender,
    datagram: wrap(VNETID, frameFrom(GUEST)),
    drop: 'rx_source_unknown' as const,
  }));
  const sources = {
    'a guest of another one': OTHER_GUEST,
    'a guest of nobody': 0x020820000009,
    'no address as the source': 0,
    'a group as the source': 0x01005e000001,
    'all as the source': 0xffffffffffff,
  };
  const of = Object.entries(sources).map(([what, mac]) => ({
    what: `a known VTEP, ${what}`,
    sender: peer,
    datagram: wrap(VNETID, frameFrom(mac)),
    drop: 'rx_source_mac' as const,
  }));
  const others: Trick[] = [
    {
      what: 'a known VTEP, another vnetid',
      sender: peer,
      datagram: wrap(OTHER_VNETID, frameFrom(GUEST)),
      drop: 'rx_unknown_vnetid',
      isMuxs: true,
    },
    {
      what: `a stranger with ${DEPTH_MAX} tunnels in one another`,
      sender: Object.values(strangers)[0]!,
      datagram: wrap(VNETID, nested(DEPTH_MAX)),
      drop: 'rx_source_unknown',
    },
    {
      what: 'a known VTEP with more tunnels in one another than fit',
      sender: peer,
      datagram: wrap(VNETID, nested(DEPTH_MAX + 8)),
      drop: 'rx_too_big',
    },
  ];
  return [...from, ...of, ...others];
}

/** Of another encapsulation than that of the socket. */
function foreign(sender: string, drop: DropName, datagrams: Readonly<Record<string, Uint8Array>>): Trick[] {
  return Object.entries(datagrams).map(([what, datagram]) => ({
    what,
    sender,
    datagram,
    drop,
    isMuxs: true,
  }));
}

const good = frameFrom(GUEST);

const overIpv6 = { peers: ['fd00::2', 'fd00::3'], wrap: vxlan.encap } as const;
const overIpv4 = { peers: ['192.0.2.2', '192.0.2.3'], wrap: vxlan.encap } as const;
/** The kernel hands over what is behind IPv4 with its header. */
const behindIpv4 = (from: string, payload: Uint8Array) => {
  const ends = { source: ipNativeBytes(from), destination: ipNativeBytes('192.0.2.1') };
  return frames.ipv4({ ends, protocol: 47, payload });
};
const [grePeer] = overIpv4.peers;
const overGre = {
  peers: overIpv4.peers,
  wrap: (vnetid: number, frame: Uint8Array) => behindIpv4(grePeer, nvgre.encap(vnetid, frame)),
} as const;

const scenes: readonly Scene[] = [
  {
    name: 'VXLAN from IPv6',
    encapsulation: vxlanEncapsulation,
    domain: AF_INET6,
    ...overIpv6,
    tricks: [
      ...common(overIpv6, {
        'another VTEP': '2001:db8::bad',
        'our own address': 'fd00::1',
        'an IPv4 address': '192.0.2.2',
        'the VTEP’s last bytes in an IPv4 address': '0.0.0.2',
        'no address': '::',
      }),
      ...foreign(overIpv6.peers[0], 'rx_bad_header', {
        'Geneve to the port of VXLAN': geneve.encap(VNETID, good),
        'NVGRE to the port of VXLAN': nvgre.encap(VNETID, good),
      }),
    ],
  },
  {
    name: 'VXLAN from IPv4 on a socket of both',
    encapsulation: vxlanEncapsulation,
    domain: AF_INET6,
    ...overIpv4,
    tricks: common(overIpv4, {
      'another VTEP': '192.0.2.66',
      'the VTEP’s address as an IPv4-compatible one': '::c000:202',
      'the VTEP’s address as an IPv4-translated one (RFC 2765)': '::ffff:0:c000:202',
      'the VTEP’s address behind a translator (RFC 6052)': '64:ff9b::c000:202',
      'the VTEP’s address as a 6to4 one': '2002:c000:202::',
      'the VTEP’s address in front': 'c000:202::',
      'IPv4-mapped, of no address': '0.0.0.0',
    }),
  },
  {
    name: 'NVGRE behind IPv4',
    encapsulation: nvgreOverIpv4,
    domain: AF_INET,
    ...overGre,
    tricks: [
      ...common(overGre, {
        'another sender than the IPv4 header has': '192.0.2.66',
        'our own address': '192.0.2.1',
        'no address': '0.0.0.0',
      }),
      ...foreign(grePeer, 'rx_bad_header', {
        'VXLAN in GRE’s place': behindIpv4(grePeer, vxlan.encap(VNETID, good)),
        'Geneve in GRE’s place': behindIpv4(grePeer, geneve.encap(VNETID, good)),
      }),
      ...foreign(grePeer, 'rx_not_ethernet', {
        'an IPv4 packet in GRE': behindIpv4(
          grePeer,
          frames.concat(
            Uint8Array.of(0x20, 0, 8, 0),
            nvgre.encap(VNETID, frames.ipv4({ protocol: 17, payload: good })).subarray(4),
          ),
        ),
      }),
      ...foreign(grePeer, 'rx_short_datagram', {
        'an IPv4 header with nothing behind it': behindIpv4(grePeer, new Uint8Array(0)),
      }),
    ],
  },
];

/** A strict device behind two VTEPs. */
function strictRig({ encapsulation, domain, peers }: Scene): ReceiveRig {
  const rig = new ReceiveRig({ encapsulation, isIpv6: domain === AF_INET6, mtu: MTU });
  const sources = createSources(
    rig.views,
    rig.core,
    rig.pool,
    peers.map((ip) => ipBytes(ip)),
  );
  rig.addDevice(VNETID, layout.SOURCE_MODE_STRICT, sources);
  for (const [index, mac] of [GUEST, OTHER_GUEST].entries()) {
    const row = rig.destinations.hold('', sockaddr(domain, peers[index]!, 4789), new Uint8Array(8));
    rig.targets[0]!.insert(mac, layout.TARGET_VALID, row, 0);
  }
  return rig;
}

/** A batch of one datagram, again and again, in the slots of a rig. */
function place(rig: ReceiveRig, { domain }: Scene, sender: string, datagram: Uint8Array): void {
  const name = sockaddr(domain, sender, 40_000);
  for (let index = 0; index < layout.BATCH_MAX; index++) {
    rig.views.u8.set(datagram, rig.slot(index));
    rig.note(index, datagram.length, name);
  }
}

interface Decided {
  readonly sent: number;
  readonly asked: number;
  /** Of each, in the batch that took the median. */
  readonly ns: number;
}

/** Has a million datagrams decided that are all alike. */
function decideMany(rig: ReceiveRig, scene: Scene, sender: string, datagram: Uint8Array): Decided {
  place(rig, scene, sender, datagram);
  const front = datagram.subarray(0, FRONT_BYTES);
  const times = new Float64Array(BATCHES);
  let asked = 0;
  for (let batch = 0; batch < BATCHES; batch++) {
    const before = rig.passed;
    const begun = performance.now();
    rig.decide(layout.BATCH_MAX);
    times[batch] = performance.now() - begun;
    asked += rig.takeMisses();
    if (rig.passed === before) continue;
    // What passes gets another header in the place of its own.
    for (let index = 0; index < layout.BATCH_MAX; index++) rig.views.u8.set(front, rig.slot(index));
  }
  const median = times.sort()[BATCHES / 2]!;
  return { sent: BATCHES * layout.BATCH_MAX, asked, ns: (median / layout.BATCH_MAX) * 1e6 };
}

function countOf(rig: ReceiveRig, drop: DropName, isMuxs: boolean): number {
  const row = isMuxs ? layout.DEVICES_MAX : rig.targets[0]!.options.row;
  const counters = rig.arena + layout.ARENA_COUNTERS + row * layout.COUNTER_ROW_BYTES;
  return rig.views.u32[counters / 4 + dropNames.indexOf(drop) * 2]!;
}

for (const scene of scenes) {
  const { name, peers, wrap, tricks } = scene;
  const costs: [what: string, ns: number][] = [];

  for (const { what, sender, datagram, drop, isMuxs = false } of tricks) {
    spoofing(`${name}, ${what}: ${drop}`, () => {
      const rig = strictRig(scene);
      const { sent, asked, ns } = decideMany(rig, scene, sender, datagram);
      assert.equal([rig.passed, rig.traps], [0, 0]);
      assert.is(countOf(rig, drop, isMuxs), sent);
      const isAsked = what.endsWith('a guest of nobody');
      assert.is(asked > 0, isAsked, 'only what could be somebody’s address is asked about');
      costs.push([what, ns]);
    });
  }

  spoofing(`${name}: what is right is delivered, with whatever is in it as it is`, () => {
    const passed = new Map<number, number>();
    for (const depth of [1, DEPTH_MAX]) {
      const frame = depth === 1 ? good : nested(depth);
      const rig = strictRig(scene);
      const datagram = wrap(VNETID, frame);
      const { sent, ns } = decideMany(rig, scene, peers[0], datagram);
      assert.is(rig.passed, sent);
      const at = rig.slot(0) + datagram.length - frame.length;
      const isSame = Buffer.compare(rig.views.u8.slice(at, at + frame.length), frame) === 0;
      assert.ok(isSame, 'no tunnel of it was opened');
      passed.set(depth, ns);
    }
    // As long, and of one flow as well, but with nothing in it.
    const flat = nested(2, frames.counting(nested(DEPTH_MAX).length - nested(2, new Uint8Array(0)).length));
    const { ns } = decideMany(strictRig(scene), scene, peers[0], wrap(VNETID, flat));
    const [dearest, most] = costs.reduce((a, b) => (b[1] > a[1] ? b : a));
    const of = (cost: number, other: number) => `${(cost / other).toFixed(2)} times`;
    console.log(
      `  a rejected datagram costs at most ${of(most, passed.get(1)!)} an accepted one (${dearest}), ` +
        `${DEPTH_MAX} tunnels ${of(passed.get(DEPTH_MAX)!, ns)} one of that length`,
    );
  });
}

spoofing(
  'no address or a group as the source: carried where sources are not checked, and nothing is learned',
  () => {
    const peer = ipBytes('fd00::2');
    for (const [mode, flags] of [
      [layout.SOURCE_MODE_OFF, 0],
      [layout.SOURCE_MODE_KNOWN, 0],
      [layout.SOURCE_MODE_KNOWN, layout.DEVICE_FLAG_LEARN],
    ] as const) {
      for (const mac of [0, 0x01005e000001, 0x333300000001, 0xffffffffffff]) {
        const rig = new ReceiveRig();
        const sources = createSources(rig.views, rig.core, rig.pool, [peer]);
        rig.addDevice(VNETID, mode, mode === layout.SOURCE_MODE_KNOWN ? sources : 0, flags);
        place(rig, scenes[0]!, 'fd00::2', vxlan.encap(VNETID, frameFrom(mac)));
        rig.decide(layout.BATCH_MAX);
        assert.equal([rig.passed, rig.traps], [layout.BATCH_MAX, 0]);
        assert.is(rig.takeMisses(), 0, 'main hears nothing of it');
        assert.equal([...rig.targets[0]!.macs()], []);
      }
    }
  },
);

spoofing.run();
