/**
 * Spoofing: encapsulations authenticate nobody, so what `source_check=strict` lets through is all that keeps strangers out of a guest
 * network. A million datagrams of each trick: none is delivered, each is counted under its name. Fragments are the kernel's:
 * a socket gets whole datagrams.
 */
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import * as layout from '../assembly/layout.js';
import { type DropName, dropNames } from '../src/datapath/drop.js';
import { createSources } from '../src/datapath/sources.js';
import { ipBytes } from '../src/ip.js';
import { AF_INET6 } from '../src/sys/abi.js';
import { sockaddr } from '../src/sys/sockaddr.js';
import { ReceiveRig } from './harness/receive-rig.js';
import * as frames from './reference/frames.js';
import * as geneve from './reference/geneve.js';
import * as nvgre from './reference/nvgre.js';
import * as vxlan from './reference/vxlan.js';

const spoofing = suite('spoofing');

const FRAMES = 1_000_000;
const VNETID = 5;
const OTHER_VNETID = 6;
/** VTEPs that the lookup knows, and the guest behind each. */
const PEER = 'fd00::2';
const OTHER = 'fd00::3';
const GUEST = 0x020820000002;
const OTHER_GUEST = 0x020820000003;
const OURS = 'fd00::1';
const STRANGER = '2001:db8::bad';

function frameFrom(mac: number, payload: Uint8Array = frames.counting(80)): Uint8Array {
  const frame = frames.ethernet(0x88b5, payload);
  frame.set(frames.bigEndian(mac, 6), 6);
  return frame;
}

/** A frame that has come through so many tunnels, one within the other. */
function nested(depth: number): Uint8Array {
  let frame = frameFrom(GUEST, frames.counting(10));
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

const good = vxlan.encap(VNETID, frameFrom(GUEST));

const tricks: readonly Trick[] = [
  { what: 'another VTEP', sender: STRANGER, datagram: good, drop: 'rx_source_unknown' },
  { what: 'our own address', sender: OURS, datagram: good, drop: 'rx_source_unknown' },
  { what: 'an IPv4 address', sender: '192.0.2.2', datagram: good, drop: 'rx_source_unknown' },
  {
    what: 'the VTEP’s last bytes in an IPv4 address',
    sender: '0.0.0.2',
    datagram: good,
    drop: 'rx_source_unknown',
  },
  { what: 'no address', sender: '::', datagram: good, drop: 'rx_source_unknown' },
  {
    what: 'a known VTEP, another vnetid',
    sender: PEER,
    datagram: vxlan.encap(OTHER_VNETID, frameFrom(GUEST)),
    drop: 'rx_unknown_vnetid',
    isMuxs: true,
  },
  {
    what: 'a known VTEP, a guest of another one',
    sender: PEER,
    datagram: vxlan.encap(VNETID, frameFrom(OTHER_GUEST)),
    drop: 'rx_source_mac',
  },
  {
    what: 'a known VTEP, a guest of nobody',
    sender: PEER,
    datagram: vxlan.encap(VNETID, frameFrom(0x020820000009)),
    drop: 'rx_source_mac',
  },
  {
    what: 'a known VTEP, a group as the source',
    sender: PEER,
    datagram: vxlan.encap(VNETID, frameFrom(0x01005e000001)),
    drop: 'rx_source_mac',
  },
  {
    what: 'Geneve to the port of VXLAN',
    sender: PEER,
    datagram: geneve.encap(VNETID, frameFrom(GUEST)),
    drop: 'rx_bad_header',
    isMuxs: true,
  },
  {
    what: 'NVGRE to the port of VXLAN',
    sender: PEER,
    datagram: nvgre.encap(VNETID, frameFrom(GUEST)),
    drop: 'rx_bad_header',
    isMuxs: true,
  },
  {
    what: 'a stranger with 12 tunnels in one another',
    sender: STRANGER,
    datagram: vxlan.encap(VNETID, nested(12)),
    drop: 'rx_source_unknown',
  },
  {
    what: 'a known VTEP with 64 tunnels in one another',
    sender: PEER,
    datagram: vxlan.encap(VNETID, nested(64)),
    drop: 'rx_too_big',
  },
];

/** A strict device behind two VTEPs. */
function strictRig(): ReceiveRig {
  const rig = new ReceiveRig();
  const peers = [PEER, OTHER].map((ip) => ipBytes(ip));
  rig.addDevice(VNETID, layout.SOURCE_MODE_STRICT, createSources(rig.views, rig.core, rig.pool, peers));
  for (const [mac, ip] of [
    [GUEST, PEER],
    [OTHER_GUEST, OTHER],
  ] as const) {
    const row = rig.destinations.hold('', sockaddr(AF_INET6, ip, 4789), new Uint8Array(8));
    rig.targets[0]!.insert(mac, layout.TARGET_VALID, row, 0);
  }
  return rig;
}

function place(rig: ReceiveRig, { sender, datagram }: Pick<Trick, 'sender' | 'datagram'>): void {
  const name = sockaddr(AF_INET6, sender, 40_000);
  for (let index = 0; index < layout.BATCH_MAX; index++) {
    rig.views.u8.set(datagram, rig.slot(index));
    rig.note(index, datagram.length, name);
  }
}

function countOf(rig: ReceiveRig, drop: DropName, isMuxs: boolean): number {
  const row = isMuxs ? layout.DEVICES_MAX : rig.targets[0]!.options.row;
  const counters = rig.arena + layout.ARENA_COUNTERS + row * layout.COUNTER_ROW_BYTES;
  return rig.views.u32[counters / 4 + dropNames.indexOf(drop) * 2]!;
}

for (const trick of tricks) {
  const { what, drop, isMuxs = false } = trick;
  spoofing(`${what}: ${drop}`, () => {
    const rig = strictRig();
    place(rig, trick);
    let sent = 0;
    for (; sent < FRAMES; sent += layout.BATCH_MAX) {
      rig.decide(layout.BATCH_MAX);
      rig.takeMisses();
    }
    assert.equal([rig.passed, rig.traps], [0, 0]);
    assert.is(countOf(rig, drop, isMuxs), sent);
  });
}

spoofing('what is right is delivered, with whatever is in it as it is', () => {
  for (const frame of [frameFrom(GUEST), nested(12)]) {
    const rig = strictRig();
    place(rig, { sender: PEER, datagram: vxlan.encap(VNETID, frame) });
    rig.decide(layout.BATCH_MAX);
    assert.is(rig.passed, layout.BATCH_MAX);
    const at = rig.slot(0) + 8;
    assert.is(
      Buffer.compare(rig.views.u8.slice(at, at + frame.length), frame),
      0,
      'no tunnel of it was opened',
    );
  }
});

spoofing.run();
