/** Encap and decap in the core against golden packets, and against the slow twin in `reference/vxlan.ts`. */
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import * as layout from '../assembly/layout.js';
import { type DropName, dropNames } from '../src/datapath/drop.js';
import { CoreRig, SEND_FD, TAP_FD } from './harness/core-rig.js';
import { Xorshift } from './harness/xorshift.js';
import * as frames from './reference/frames.js';
import * as twin from './reference/vxlan.js';

const VNETIDS = [0, 1, 0xff, 0x100, 0xffff, 0x10000, 0xfffffe, 0xffffff];
const NO_OFFLOAD = twin.plainHeader();

const vxlan = suite('vxlan');

function bytesOf(hex: string): Uint8Array {
  return Uint8Array.from(Buffer.from(hex.replace(/[^0-9a-f]/g, ''), 'hex'));
}

function hexOf(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString('hex');
}

/** A frame of `length` bytes: addresses, type, and counting bytes. */
function frameOf(length: number, type = 0x88b5): Uint8Array {
  return frames.ethernet(type, frames.counting(length - 14));
}

function taggedFrameOf(length: number, type = frames.ETHERTYPE_VLAN): Uint8Array {
  return frames.ethernet(0x88b5, frames.counting(length - 18), { tags: [{ type, control: 5 }] });
}

/** The core's verdict on one frame flush with the end of memory, and the datagram when it passes. */
function transmit(
  rig: CoreRig,
  device: number,
  read: Uint8Array,
): { verdict: twin.Verdict; sent?: Uint8Array } {
  rig.placeFrameAtEnd(read);
  const verdict = rig.core.txFrame(rig.arena, device, 0);
  if (verdict !== layout.VERDICT_PASS) return { verdict: dropNames[verdict]! };
  const [group] = rig.groups(device, 1);
  return { verdict: 'pass', sent: group!.datagrams[0]! };
}

function transmitFrame(rig: CoreRig, device: number, frame: Uint8Array) {
  return transmit(rig, device, frames.concat(NO_OFFLOAD, frame));
}

/** The core's verdict on one datagram flush with the end of memory, and what the TAP gets when it passes. */
function receive(rig: CoreRig, datagram: Uint8Array, isTruncated = false) {
  rig.placeDatagramAtEnd(datagram, isTruncated);
  rig.views.u32[(rig.arena + layout.ARENA_WRITES) / 4] = 0;
  const verdict = rig.core.rxDatagram(rig.arena, rig.mux);
  if (verdict !== layout.VERDICT_PASS) return { verdict: dropNames[verdict]! as twin.Verdict };
  const [write] = rig.writes();
  return { verdict: 'pass' as twin.Verdict, device: write!.device, fd: write!.fd, written: write!.bytes };
}

/** Asserts that the core does with a datagram what the twin does. */
function compareReceive(rig: CoreRig, datagram: Uint8Array, what: string): twin.Verdict {
  const expected = twin.receive([...rig.rules.values()], datagram, false);
  const seen = receive(rig, datagram);
  if (seen.verdict !== expected.verdict) {
    assert.is(
      seen.verdict,
      expected.verdict,
      `${what}: ${hexOf(datagram.subarray(0, 120))} (${datagram.length})`,
    );
  }
  if (expected.written && !Buffer.from(expected.written).equals(seen.written!)) {
    assert.is(hexOf(seen.written!), hexOf(expected.written), what);
  }
  return seen.verdict;
}

/** Asserts that the core does with a frame from the TAP what the twin does. */
function compareTransmit(rig: CoreRig, device: number, read: Uint8Array, what: string): twin.Verdict {
  const rules = rig.rules.get(device)!;
  const expected = twin.txVerdict(rules, read);
  const seen = transmit(rig, device, read);
  if (seen.verdict !== expected) {
    assert.is(seen.verdict, expected, `${what}: ${hexOf(read.subarray(0, 120))} (${read.length})`);
  }
  if (seen.sent && !Buffer.from(twin.encap(rules.vnetid, read.subarray(10))).equals(seen.sent)) {
    assert.is(hexOf(seen.sent), hexOf(twin.encap(rules.vnetid, read.subarray(10))), what);
  }
  return seen.verdict;
}

// ─── Golden packets ─────────────────────────────────────────────────────────────────────────────────────

/** ARP who-has 10.0.0.2 tell 10.0.0.1. */
const GOLDEN_ARP =
  'ffffffffffff 020000000001 0806 0001 0800 06 04 0001 020000000001 0a000001 000000000000 0a000002';
/** UDP 10.0.0.1:4660 -> 10.0.0.2:22136, four bytes of payload. */
const GOLDEN_UDP =
  '020000000002 020000000001 0800 4500 0020 0001 4000 40 11 26ca 0a000001 0a000002 12345678 000ce589 deadbeef';

const golden: readonly { readonly vnetid: number; readonly outer: string; readonly frame: string }[] = [
  // RFC 7348 section 5, figure 1: R R R R I R R R | Reserved | VNI | Reserved.
  { vnetid: 0x123456, outer: '08 000000 123456 00', frame: GOLDEN_ARP },
  { vnetid: 0, outer: '08 000000 000000 00', frame: GOLDEN_UDP },
  { vnetid: 1, outer: '08 000000 000001 00', frame: GOLDEN_UDP },
  { vnetid: 0xff, outer: '08 000000 0000ff 00', frame: GOLDEN_ARP },
  { vnetid: 0x100, outer: '08 000000 000100 00', frame: GOLDEN_UDP },
  { vnetid: 0xffff, outer: '08 000000 00ffff 00', frame: GOLDEN_UDP },
  { vnetid: 0x10000, outer: '08 000000 010000 00', frame: GOLDEN_ARP },
  { vnetid: 0xfffffe, outer: '08 000000 fffffe 00', frame: GOLDEN_UDP },
  { vnetid: 0xffffff, outer: '08 000000 ffffff 00', frame: GOLDEN_UDP },
];

vxlan('golden packets, byte for byte, both ways and in the twin', () => {
  for (const { vnetid, outer, frame } of golden) {
    const rig = new CoreRig();
    const device = rig.addDevice({ vnetid });
    const datagram = bytesOf(outer + frame);
    assert.is(hexOf(twin.encap(vnetid, bytesOf(frame))), hexOf(datagram));
    const { verdict, sent } = transmitFrame(rig, device, bytesOf(frame));
    assert.is(verdict, 'pass');
    assert.is(hexOf(sent!), hexOf(datagram));
    const seen = receive(rig, datagram);
    assert.equal([seen.verdict, seen.device, seen.fd], ['pass', device, TAP_FD + device]);
    assert.is(hexOf(seen.written!), '00'.repeat(10) + hexOf(bytesOf(frame)));
  }
});

vxlan('the frame builders agree with hand-written bytes', () => {
  const payload = bytesOf('deadbeef');
  const datagram = frames.udp({ ends: frames.ENDS_4, sourcePort: 0x1234, destinationPort: 0x5678, payload });
  const packet = frames.ipv4({ protocol: 17, payload: datagram, id: 1 });
  assert.is(hexOf(frames.ethernet(frames.ETHERTYPE_IPV4, packet)), hexOf(bytesOf(GOLDEN_UDP)));
  const destination = new Uint8Array(6).fill(255);
  const request = frames.ethernet(frames.ETHERTYPE_ARP, frames.arp(), { destination });
  assert.is(hexOf(request), hexOf(bytesOf(GOLDEN_ARP)));
});

vxlan('reserved bits are ignored on receive and zero on send', () => {
  const rig = new CoreRig();
  const device = rig.addDevice({ vnetid: 0x123456 });
  const frame = bytesOf(GOLDEN_UDP);
  for (let bits = 0; bits < 256; bits++) {
    for (const at of [0, 1, 2, 3, 7]) {
      const datagram = twin.encap(0x123456, frame);
      datagram[at] = bits;
      const hasI = at !== 0 || (bits & 8) !== 0;
      assert.is(receive(rig, datagram).verdict, hasI ? 'pass' : 'rx_bad_header');
    }
  }
  // What lay in the headroom before is not sent.
  rig.views.u8.fill(0xff, rig.end - 200);
  const { sent } = transmitFrame(rig, device, frame);
  assert.is(hexOf(sent!.subarray(0, 8)), '0800000012345600');
});

// ─── Against the twin ───────────────────────────────────────────────────────────────────────────────────

/** A rig with one device of each kind: [carries tags, does not]. */
function rigOfMtu(mtu: number): { rig: CoreRig; devices: readonly number[] } {
  const rig = new CoreRig();
  return {
    rig,
    devices: [
      rig.addDevice({ vnetid: 0x10203, mtu, carriesVlan: true }),
      rig.addDevice({ vnetid: 0x10204, mtu, carriesVlan: false }),
    ],
  };
}

vxlan('every truncation of every kind of frame, both ways', () => {
  const { rig, devices } = rigOfMtu(1400);
  for (const { name, frame } of frames.sampleFrames(40)) {
    for (const device of devices) {
      const datagram = twin.encap(rig.rules.get(device)!.vnetid, frame);
      for (let length = 0; length <= datagram.length; length++) {
        compareReceive(rig, datagram.subarray(0, length), `${name} cut to ${length}`);
      }
      const read = frames.concat(NO_OFFLOAD, frame);
      for (let length = 1; length <= read.length; length++) {
        compareTransmit(rig, device, read.subarray(0, length), `${name} cut to ${length}`);
      }
    }
  }
});

/** Bytes of a frame that are headers, at most: Ethernet, two tags, IPv6 with extensions, TCP. */
const HEADER_BYTES_MAX = 14 + 8 + 40 + 48 + 20;

/** Every value of every header byte of each sample, both ways. Returns how often each verdict was reached. */
function mutateAll(rig: CoreRig, device: number, payloadBytes: number): Map<string, number> {
  const verdicts = new Map<string, number>();
  const count = (verdict: twin.Verdict) => verdicts.set(verdict, (verdicts.get(verdict) ?? 0) + 1);
  for (const { name, frame } of frames.sampleFrames(payloadBytes)) {
    const datagram = twin.encap(rig.rules.get(device)!.vnetid, frame);
    const read = frames.concat(NO_OFFLOAD, frame);
    const headerBytes = Math.min(frame.length, HEADER_BYTES_MAX);
    for (let at = 0; at < 8 + headerBytes; at++) {
      const kept = datagram[at]!;
      for (let value = 0; value < 256; value++) {
        datagram[at] = value;
        count(compareReceive(rig, datagram, `${name} with byte ${at} = ${value}`));
      }
      datagram[at] = kept;
    }
    // The core must not look at more than the EtherType on the way out, but the twin says so, not we.
    for (let at = 10; at < 10 + headerBytes; at++) {
      const kept = read[at]!;
      for (let value = 0; value < 256; value++) {
        read[at] = value;
        count(compareTransmit(rig, device, read, `${name} with byte ${at} = ${value}`));
      }
      read[at] = kept;
    }
  }
  return verdicts;
}

vxlan('every value of every header byte of frames that fit', () => {
  const { rig, devices } = rigOfMtu(1400);
  const verdicts = mutateAll(rig, devices[0]!, 20);
  assert.ok((verdicts.get('pass') ?? 0) > 500_000, `${[...verdicts]}`);
  assert.ok((verdicts.get('rx_unknown_vnetid') ?? 0) > 10_000, `${[...verdicts]}`);
});

vxlan('every value of every header byte of frames above the MTU: super-frames and refusals', () => {
  const { rig, devices } = rigOfMtu(576);
  for (const device of devices) {
    const verdicts = mutateAll(rig, device, 700);
    assert.ok((verdicts.get('pass') ?? 0) > 50_000, `${[...verdicts]}`);
    assert.ok((verdicts.get('rx_too_big') ?? 0) > 50_000, `${[...verdicts]}`);
  }
});

vxlan('every virtio_net_hdr that asks for an offload is refused, DATA_VALID is not one', () => {
  const { rig, devices } = rigOfMtu(1400);
  const frame = bytesOf(GOLDEN_UDP);
  for (const flags of [0, 1, 2, 3]) {
    for (const gsoType of [0, 1, 3, 4, 5, 0x80, 0x81, 0x84]) {
      const read = frames.concat(Uint8Array.of(flags, gsoType, 0, 0, 0, 0, 0, 0, 0, 0), frame);
      compareTransmit(rig, devices[0]!, read, `flags ${flags}, gso_type ${gsoType}`);
    }
  }
});

vxlan('lengths at the edges for each MTU, tagged and not', () => {
  for (const mtu of [576, 1400, 8900]) {
    const { rig, devices } = rigOfMtu(mtu);
    for (let length = mtu + 8; length <= mtu + 26; length++) {
      const kinds = [
        frameOf(length),
        taggedFrameOf(length),
        taggedFrameOf(length, frames.ETHERTYPE_SERVICE_VLAN),
        taggedFrameOf(length, 0x9100),
      ];
      for (const device of devices) {
        const { vnetid } = rig.rules.get(device)!;
        for (const [kind, frame] of kinds.entries()) {
          const what = `device ${device}, mtu ${mtu}, kind ${kind}, ${length} bytes`;
          compareTransmit(rig, device, frames.concat(NO_OFFLOAD, frame), what);
          compareReceive(rig, twin.encap(vnetid, frame), what);
        }
      }
    }
  }
});

vxlan('the VLAN rule in plain numbers', () => {
  const { rig, devices } = rigOfMtu(1400);
  const [carrying, plain] = devices as [number, number];
  const verdicts = (device: number, frame: Uint8Array) => [
    transmitFrame(rig, device, frame).verdict,
    receive(rig, twin.encap(rig.rules.get(device)!.vnetid, frame)).verdict,
  ];
  assert.equal(verdicts(carrying, taggedFrameOf(1418)), ['pass', 'pass']);
  assert.equal(verdicts(carrying, taggedFrameOf(1419)), ['tx_too_big', 'rx_too_big']);
  for (const length of [60, 1414, 1415, 1418, 1419]) {
    const seen = verdicts(plain, taggedFrameOf(length));
    assert.equal(seen, ['tx_vlan_not_carried', 'rx_vlan_not_carried'], `${length} bytes`);
  }
  assert.equal(verdicts(plain, frameOf(1414)), ['pass', 'pass']);
  assert.equal(verdicts(plain, frameOf(1415)), ['tx_too_big', 'rx_too_big']);
});

vxlan('unknown vnetid, stopped device, no target, truncated datagram', () => {
  const rig = new CoreRig();
  const stopped = rig.addDevice({ vnetid: 1, isActive: false });
  const aimless = rig.addDevice({ vnetid: 2, hasTarget: false });
  const frame = frameOf(100);
  assert.is(transmitFrame(rig, stopped, frame).verdict, 'tx_device_stopped');
  assert.is(transmitFrame(rig, stopped, frame.subarray(0, 3)).verdict, 'tx_device_stopped');
  assert.is(transmitFrame(rig, aimless, frame).verdict, 'tx_no_target');
  assert.is(receive(rig, twin.encap(1, frame)).verdict, 'rx_device_stopped');
  assert.is(receive(rig, twin.encap(2, frame)).verdict, 'pass', 'a device without a target receives');
  assert.is(receive(rig, twin.encap(2, frame), true).verdict, 'rx_truncated');
  for (const vnetid of [0, 3, 0xff, 0x100, 0x10001, 0xffffff]) {
    assert.is(receive(rig, twin.encap(vnetid, frame)).verdict, 'rx_unknown_vnetid');
  }
});

vxlan('drops are counted where they belong: the device when it is known, else the mux', () => {
  const rig = new CoreRig();
  const device = rig.addDevice({ vnetid: 1, mtu: 576 });
  const fitting = twin.encap(1, frameOf(100));
  rig.placeDatagrams([
    fitting,
    twin.encap(9, frameOf(100)),
    twin.encap(1, frameOf(700)),
    fitting.slice(0, 7),
    fitting,
  ]);
  assert.is(rig.decideRx(5), 0);
  const reasonOf = (name: DropName) => dropNames.indexOf(name);
  assert.is(rig.muxCount(layout.COUNTER_RX_READ), 5);
  assert.is(rig.muxCount(reasonOf('rx_unknown_vnetid')), 1);
  assert.is(rig.muxCount(reasonOf('rx_short_datagram')), 1);
  assert.is(rig.deviceCount(device, reasonOf('rx_too_big')), 1);
  rig.core.rxFailed(rig.arena, 0, layout.DROP_RX_LINK_FULL);
  rig.core.rxDelivered(rig.arena);
  assert.is(rig.deviceCount(device, layout.DROP_RX_LINK_FULL), 1);
  assert.is(rig.deviceCount(device, layout.COUNTER_RX_FRAMES), 1);
  assert.is(rig.deviceCount(device, layout.COUNTER_RX_BYTES), 100);
  rig.placeFrames([frameOf(100), frameOf(700), frameOf(60)]);
  assert.is(rig.decideTx(device, 3), 0);
  rig.groups(device, 3);
  rig.core.txSent(rig.arena, device, 0, 2);
  assert.is(rig.deviceCount(device, layout.COUNTER_TX_READ), 3);
  assert.is(rig.deviceCount(device, reasonOf('tx_too_big')), 1);
  assert.is(rig.deviceCount(device, layout.COUNTER_TX_FRAMES), 2);
  assert.is(rig.deviceCount(device, layout.COUNTER_TX_BYTES), 160);
});

// ─── Offloads on receive ────────────────────────────────────────────────────────────────────────────────

interface VirtioHeader {
  flags: number;
  gsoType: number;
  headerBytes: number;
  gsoSize: number;
  checksumStart: number;
  checksumOffset: number;
}

function virtioHeader(written: Uint8Array): VirtioHeader {
  const view = new DataView(written.buffer, written.byteOffset, 10);
  return {
    flags: view.getUint8(0),
    gsoType: view.getUint8(1),
    headerBytes: view.getUint16(2, true),
    gsoSize: view.getUint16(4, true),
    checksumStart: view.getUint16(6, true),
    checksumOffset: view.getUint16(8, true),
  };
}

vxlan('unfinished checksums become NEEDS_CSUM with the right place, finished ones do not', () => {
  const { rig } = rigOfMtu(1400);
  const cases = [
    { family: 4, build: frames.tcp, protocol: 6, offset: 16 },
    { family: 4, build: frames.udp, protocol: 17, offset: 6 },
    { family: 6, build: frames.tcp, protocol: 6, offset: 16 },
    { family: 6, build: frames.udp, protocol: 17, offset: 6 },
  ];
  for (const { family, build, protocol, offset } of cases) {
    const ends = family === 4 ? frames.ENDS_4 : frames.ENDS_6;
    const type = family === 4 ? frames.ETHERTYPE_IPV4 : frames.ETHERTYPE_IPV6;
    for (const tags of [[], frames.VLAN_TAGS, frames.VLAN_STACK]) {
      // Every low byte of the length: the sum of the pseudo-header has carries to lose.
      for (let payloadBytes = 0; payloadBytes < 600; payloadBytes++) {
        for (const checksum of ['partial', 'finished'] as const) {
          const payload = build({ ends, payload: frames.counting(payloadBytes, 3), checksum });
          const packet =
            family === 4 ? frames.ipv4({ protocol, payload }) : frames.ipv6({ protocol, payload });
          const frame = frames.ethernet(type, packet, { tags });
          const { verdict, written } = receive(rig, twin.encap(0x10203, frame));
          assert.is(verdict, 'pass');
          const start = 14 + 4 * tags.length + (family === 4 ? 20 : 40);
          const none = {
            flags: 0,
            gsoType: 0,
            headerBytes: 0,
            gsoSize: 0,
            checksumStart: 0,
            checksumOffset: 0,
          };
          const needed = { ...none, flags: 1, checksumStart: start, checksumOffset: offset };
          assert.equal(virtioHeader(written!), checksum === 'partial' ? needed : none);
          assert.is(hexOf(written!.subarray(10)), hexOf(frame), 'no byte of the frame changes');
        }
      }
    }
  }
});

vxlan('TCP super-frames become GSO frames whose segments fit the MTU', () => {
  for (const mtu of [576, 1400, 8900]) {
    const { rig } = rigOfMtu(mtu);
    for (const family of [4, 6]) {
      for (const tags of [[], frames.VLAN_TAGS]) {
        for (const cwr of [false, true]) {
          const ends = family === 4 ? frames.ENDS_4 : frames.ENDS_6;
          const options = frames.counting(12, 1);
          const flags = cwr ? 0x90 : 0x10;
          const payload = frames.counting(4 * mtu);
          const segment = frames.tcp({ ends, options, flags, payload, checksum: 'partial' });
          const packet =
            family === 4
              ? frames.ipv4({ protocol: 6, payload: segment })
              : frames.ipv6({ protocol: 6, payload: segment });
          const type = family === 4 ? frames.ETHERTYPE_IPV4 : frames.ETHERTYPE_IPV6;
          const frame = frames.ethernet(type, packet, { tags });
          const { verdict, written } = receive(rig, twin.encap(0x10203, frame));
          assert.is(verdict, 'pass');
          const ipBytes = family === 4 ? 20 : 40;
          const start = 14 + 4 * tags.length + ipBytes;
          assert.equal(virtioHeader(written!), {
            flags: 1,
            gsoType: (family === 4 ? 1 : 4) | (cwr ? 0x80 : 0),
            headerBytes: start + 32,
            gsoSize: mtu - ipBytes - 32,
            checksumStart: start,
            checksumOffset: 16,
          });
          assert.is(hexOf(written!.subarray(10)), hexOf(frame));
        }
      }
    }
  }
});

vxlan('what is too big and is no TCP super-frame is refused', () => {
  const { rig } = rigOfMtu(576);
  const payload = frames.counting(1000);
  const whole = frames.ipv4({ protocol: 6, payload: frames.tcp({ ends: frames.ENDS_4, payload }) });
  const datagram = frames.ipv4({
    protocol: 17,
    payload: frames.udp({ ends: frames.ENDS_4, payload, checksum: 'partial' }),
  });
  const fragment = frames.ipv4({
    protocol: 6,
    payload: frames.tcp({ ends: frames.ENDS_4, payload, checksum: 'partial' }),
    fragment: { offset: 0, more: true },
  });
  for (const packet of [whole, datagram, fragment, frames.arp()]) {
    const padded = frames.concat(packet, new Uint8Array(Math.max(0, 1000 - packet.length)));
    const frame = frames.ethernet(frames.ETHERTYPE_IPV4, padded);
    assert.is(receive(rig, twin.encap(0x10203, frame)).verdict, 'rx_too_big');
  }
});

vxlan('a padded TCP segment whose data offset lies is no super-frame', () => {
  const { rig } = rigOfMtu(576);
  const segment = frames.tcp({ ends: frames.ENDS_4, payload: new Uint8Array(0), checksum: 'partial' });
  for (let words = 0; words < 16; words++) {
    segment[12] = words * 16;
    const packet = frames.ipv4({ protocol: 6, payload: segment });
    const frame = frames.ethernet(frames.ETHERTYPE_IPV4, frames.concat(packet, new Uint8Array(900)));
    const verdict = compareReceive(rig, twin.encap(0x10203, frame), `data offset ${words}`);
    assert.is(verdict, words === 5 ? 'pass' : 'rx_too_big');
  }
});

vxlan('tagged super-frames just above the limit are super-frames, not uncarried tags', () => {
  const { rig } = rigOfMtu(576);
  for (let payloadBytes = 576 - 40 - 4; payloadBytes < 576 + 20; payloadBytes++) {
    const payload = frames.tcp({
      ends: frames.ENDS_4,
      payload: frames.counting(payloadBytes),
      checksum: 'partial',
    });
    const packet = frames.ipv4({ protocol: 6, payload });
    const frame = frames.ethernet(frames.ETHERTYPE_IPV4, packet, { tags: frames.VLAN_TAGS });
    compareReceive(rig, twin.encap(0x10203, frame), `${frame.length} bytes`);
    assert.is(receive(rig, twin.encap(0x10203, frame)).verdict, 'pass', `${frame.length} bytes`);
  }
});

// ─── Round trip ─────────────────────────────────────────────────────────────────────────────────────────

const ROUND_TRIPS = 100_000;

/** A random frame: noise of any length, or a sample with noise behind it. */
function randomFrame(
  random: Xorshift,
  samples: readonly frames.Sample[],
  noise: Buffer,
  lengthMax: number,
): Uint8Array {
  // Half of them short, since there is more to go wrong at the edges than in the middle.
  const top = random.below(2) === 0 ? 200 : lengthMax;
  const length = 14 + random.below(Math.min(top, lengthMax) - 13);
  const at = random.below(noise.length - length);
  const frame = Uint8Array.from(noise.subarray(at, at + length));
  const sample = samples[random.below(samples.length)]!.frame;
  if (random.below(2) === 0) frame.set(sample.subarray(0, length));
  return frame;
}

vxlan(`encap then decap gives the same frame back, ${ROUND_TRIPS} random frames`, () => {
  const random = new Xorshift(0x5eed);
  const noise = Buffer.from(Uint8Array.from({ length: 1 << 18 }, () => random.next()));
  const samples = frames.sampleFrames(20);
  const rig = new CoreRig();
  const vnetids = new Set(VNETIDS);
  while (vnetids.size < 64) vnetids.add(random.below(1 << 24));
  const mtus = [576, 1400, 8900];
  const devices = [...vnetids].map((vnetid, i) => rig.addDevice({ vnetid, mtu: mtus[i % 3]! }));
  const lengths = new Set<string>();
  let trips = 0;
  for (let batch = 0; trips < ROUND_TRIPS; batch++) {
    const device = devices[batch % devices.length]!;
    const { mtu, vnetid } = rig.rules.get(device)!;
    const sent = Array.from({ length: 64 }, () => randomFrame(random, samples, noise, mtu + 18));
    // The shortest and the longest are in every batch.
    sent[0] = sent[0]!.slice(0, 14);
    sent[63] = Uint8Array.from(noise.subarray(0, mtu + 18));
    rig.placeFrames(sent);
    assert.is(rig.decideTx(device, 64), 0);
    const groups = rig.groups(device, 64);
    const order = groups.flatMap((group) => group.frames);
    const datagrams = groups.flatMap((group) => group.datagrams);
    assert.is(new Set(order).size, 64, 'every frame is in one message');
    rig.placeDatagrams(datagrams);
    assert.is(rig.decideRx(64), 0);
    const writes = rig.writes();
    assert.is(writes.length, 64);
    for (const [index, write] of writes.entries()) {
      const frame = sent[order[index]!]!;
      const isSame = Buffer.from(write.bytes.buffer, 10).equals(frame) && write.device === device;
      if (!isSame)
        assert.is(hexOf(write.bytes.subarray(10)), hexOf(frame), `vnetid ${vnetid}, device ${write.device}`);
      const isEncapped = Buffer.from(datagrams[index]!.buffer, 8).equals(frame);
      if (!isEncapped) assert.is(hexOf(datagrams[index]!), hexOf(twin.encap(vnetid, frame)));
      if (frame.length === 14) lengths.add('shortest');
      if (frame.length === mtu + 18) lengths.add(`longest of ${mtu}`);
    }
    trips += 64;
  }
  assert.is(lengths.size, 4);
});

// ─── Flows ──────────────────────────────────────────────────────────────────────────────────────────────

/** A flow between random addresses and ports. */
function randomFlow(random: Xorshift): frames.Transport {
  const bytes = (count: number) => Uint8Array.from({ length: count }, () => random.below(256));
  const size = random.below(2) === 0 ? 4 : 16;
  return {
    ends: { source: bytes(size), destination: bytes(size) },
    sourcePort: random.below(65536),
    destinationPort: random.below(65536),
  };
}

/** A frame of a flow; what is not part of the flow's identity differs from frame to frame. */
function frameOfFlow(flow: frames.Transport, random: Xorshift, isTcp: boolean): Uint8Array {
  const payload = frames.counting(random.below(60), random.below(256));
  const segment = isTcp
    ? frames.tcp({ ...flow, payload, sequence: random.next(), flags: random.below(256) })
    : frames.udp({ ...flow, payload });
  const protocol = isTcp ? 6 : 17;
  const is6 = flow.ends.source.length === 16;
  const packet = is6
    ? frames.ipv6({ ends: flow.ends, protocol, payload: segment, flowLabel: random.below(1 << 20) })
    : frames.ipv4({
        ends: flow.ends,
        protocol,
        payload: segment,
        id: random.below(65536),
        ttl: random.below(256),
      });
  return frames.ethernet(is6 ? frames.ETHERTYPE_IPV6 : frames.ETHERTYPE_IPV4, packet);
}

vxlan('frames of a flow keep to one socket and to their order', () => {
  const random = new Xorshift(77);
  const rig = new CoreRig({ bank: 16 });
  const device = rig.addDevice({ vnetid: 7 });
  for (let round = 0; round < 100; round++) {
    const flows = Array.from({ length: 8 }, () => ({
      flow: randomFlow(random),
      isTcp: random.below(2) === 0,
    }));
    const picks = Array.from({ length: 64 }, () => random.below(flows.length));
    // One in eight is too big and must leave no hole.
    const batch = picks.map((pick, i) => {
      if (i % 8 === 3) return frameOf(1500);
      const { flow, isTcp } = flows[pick]!;
      return frameOfFlow(flow, random, isTcp);
    });
    rig.placeFrames(batch);
    rig.decideTx(device, 64);
    const groups = rig.groups(device, 64);
    const socketOfFlow = new Map<number, number>();
    const seen: number[] = [];
    for (const group of groups) {
      assert.ok(group.frames.length > 0, 'no empty group');
      assert.equal(
        group.frames,
        [...group.frames].sort((a, b) => a - b),
        'order within a socket',
      );
      for (const [index, frame] of group.frames.entries()) {
        const socket = rig.socketOf(frame);
        assert.is(group.fd, SEND_FD + socket);
        assert.is(socketOfFlow.get(picks[frame]!) ?? socket, socket, 'one socket for a flow');
        socketOfFlow.set(picks[frame]!, socket);
        assert.is(hexOf(group.datagrams[index]!), hexOf(twin.encap(7, batch[frame]!)));
        seen.push(frame);
      }
    }
    assert.is(new Set(groups.map(({ fd }) => fd)).size, groups.length, 'one group for a socket');
    const passed = picks.map((_, i) => i).filter((i) => i % 8 !== 3);
    assert.equal(
      seen.sort((a, b) => a - b),
      passed,
      'every frame that passed, once',
    );
  }
});

function hashOf(rig: CoreRig, frame: Uint8Array, seed: bigint): number {
  const at = rig.end - frame.length;
  rig.views.u8.set(frame, at);
  return rig.core.flowHash(at, frame.length, seed) >>> 0;
}

vxlan('all fragments of a datagram hash alike', () => {
  const rig = new CoreRig();
  const random = new Xorshift(3);
  for (let round = 0; round < 500; round++) {
    const flow = randomFlow(random);
    const datagram = frames.udp({ ...flow, payload: frames.counting(200, round) });
    const pieces = [0, 10, 20].map((unit) =>
      datagram.subarray(unit * 8, unit === 20 ? undefined : unit * 8 + 80),
    );
    for (const tags of [[], frames.VLAN_TAGS]) {
      const hashes = pieces.map((payload, i) => {
        const more = i < 2;
        if (flow.ends.source.length === 4) {
          const packet = frames.ipv4({
            ends: flow.ends,
            protocol: 17,
            payload,
            fragment: { offset: i * 10, more },
          });
          return hashOf(rig, frames.ethernet(frames.ETHERTYPE_IPV4, packet, { tags }), 1n);
        }
        const extensions = [frames.optionsHeader(0), frames.fragmentHeader(i * 10, more)];
        const packet = frames.ipv6({ ends: flow.ends, protocol: 17, payload, extensions });
        return hashOf(rig, frames.ethernet(frames.ETHERTYPE_IPV6, packet, { tags }), 1n);
      });
      assert.is(new Set(hashes).size, 1);
    }
  }
});

vxlan('ports are found behind tags, options and extension headers, and the seed matters', () => {
  const rig = new CoreRig();
  for (const { name, frame } of frames.sampleFrames(20)) {
    if (!/^(tagged |stacked )?(tcp|udp)/.test(name) || name.includes('fragment')) continue;
    const payload = frame.slice();
    payload[frame.length - 1]! ^= 1;
    assert.is(hashOf(rig, payload, 1n), hashOf(rig, frame, 1n), `${name}: payload`);
    assert.is.not(hashOf(rig, frame, 2n), hashOf(rig, frame, 1n), `${name}: seed`);
    const port = frame.slice();
    const at = Buffer.from(frame).indexOf(Buffer.from([0x03, 0xe8, 0x07, 0xd0]));
    assert.ok(at > 0, `${name}: has its ports`);
    port[at + 1]! ^= 1;
    assert.is.not(hashOf(rig, port, 1n), hashOf(rig, frame, 1n), `${name}: source port`);
  }
});

/** Most that a share differs from an even one. */
function unevenness(counts: readonly number[]): number {
  const even = counts.reduce((sum, count) => sum + count, 0) / counts.length;
  return Math.max(...counts.map((count) => Math.abs(count - even) / even));
}

vxlan('10,000 flows spread over 16 sockets within 20 % of even: random, and by one port alone', () => {
  const random = new Xorshift(11);
  for (const seed of [1n, 0xfeedfacecafebeefn]) {
    const rig = new CoreRig({ bank: 16, seed });
    const device = rig.addDevice({ vnetid: 7 });
    const fixed = randomFlow(random);
    const kinds = [
      () => randomFlow(random),
      (i: number) => ({ ...fixed, sourcePort: 20_000 + i }),
      (i: number) => ({ ...fixed, destinationPort: 20_000 + i }),
    ];
    for (const kind of kinds) {
      const counts = new Array<number>(16).fill(0);
      for (let i = 0; i < 10_000; i++) {
        rig.placeFrameAtEnd(frames.concat(NO_OFFLOAD, frameOfFlow(kind(i), random, i % 2 === 0)));
        rig.core.txDecide(rig.arena, device, 0, 1);
        counts[rig.socketOf(0)]!++;
      }
      assert.ok(unevenness(counts) <= 0.2, `${counts}`);
    }
  }
});

vxlan.run();
