/** Frames that are too big: who is told, in whose name, how much fits, and how often. */
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import * as layout from '../assembly/layout.js';
import { tooBigAnswer } from '../src/overlay/too-big-answer.js';
import { CoreRig } from './harness/core-rig.js';
import { until } from './harness/hosts.js';
import { HERE, withMemory } from './harness/lifecycle.js';
import { freePort, request } from './harness/memory-overlay.js';
import * as frames from './reference/frames.js';

const tooBig = suite('too big');
const { ENDS_4, ENDS_6, bigEndian, concat, counting, ethernet, ipv4, ipv6, udp } = frames;
const MTU = 1400;

/** UDP packets of so many bytes. */
const packet4 = (bytes: number) =>
  ipv4({ protocol: 17, payload: udp({ ends: ENDS_4, payload: counting(bytes - 28) }) });
const packet6 = (bytes: number) =>
  ipv6({ protocol: 17, payload: udp({ ends: ENDS_6, payload: counting(bytes - 48) }) });
const frame4 = (bytes: number) => ethernet(frames.ETHERTYPE_IPV4, packet4(bytes));
const frame6 = (bytes: number) => ethernet(frames.ETHERTYPE_IPV6, packet6(bytes));
const answer = (frame: Uint8Array, mtu = MTU) => tooBigAnswer(frame, () => mtu);
const text = (bytes: Uint8Array | undefined) => bytes && Buffer.from(bytes).toString('hex');

/** What should come back, by the RFCs and with the twin's checksums. */
function expected4(frame: Uint8Array, ethernetBytes: number, mtu: number): Uint8Array {
  const packet = frame.subarray(ethernetBytes);
  const ends = { source: packet.slice(16, 20), destination: packet.slice(12, 16) };
  const message = concat(
    Uint8Array.of(3, 4, 0, 0, 0, 0),
    bigEndian(mtu, 2),
    packet.subarray(0, Math.min(packet.length, 548)),
  );
  message.set(bigEndian(0xffff - frames.onesComplementSum(message), 2), 2);
  const outer = ipv4({ ends, protocol: 1, payload: message, id: 0, fragment: { offset: 0, more: false } });
  outer[1] = 0xc0;
  outer.set([0, 0], 10);
  outer.set(bigEndian(0xffff - frames.onesComplementSum(outer.subarray(0, 20)), 2), 10);
  return concat(frame.subarray(6, 12), frame.subarray(0, 6), frame.subarray(12, ethernetBytes), outer);
}

function expected6(frame: Uint8Array, ethernetBytes: number, mtu: number): Uint8Array {
  const packet = frame.subarray(ethernetBytes);
  const ends = { source: packet.slice(24, 40), destination: packet.slice(8, 24) };
  const message = concat(
    Uint8Array.of(2, 0, 0, 0),
    bigEndian(mtu, 4),
    packet.subarray(0, Math.min(packet.length, 1232)),
  );
  const pseudo = frames.pseudoHeader(ends.source, ends.destination, 58, message.length);
  message.set(bigEndian(0xffff - frames.onesComplementSum(concat(pseudo, message)), 2), 2);
  const outer = ipv6({ ends, protocol: 58, payload: message });
  return concat(frame.subarray(6, 12), frame.subarray(0, 6), frame.subarray(12, ethernetBytes), outer);
}

tooBig('the answer, byte for byte: both families, with and without tags, long and short', () => {
  for (const [tags, bytes] of [
    [[], 14],
    [frames.VLAN_TAGS, 18],
    [frames.VLAN_STACK, 22],
  ] as const) {
    for (const length of [1401, 1500, 9000]) {
      const four = ethernet(frames.ETHERTYPE_IPV4, packet4(length), { tags });
      assert.is(text(answer(four)), text(expected4(four, bytes, MTU)));
      const six = ethernet(frames.ETHERTYPE_IPV6, packet6(length), { tags });
      assert.is(text(answer(six)), text(expected6(six, bytes, MTU)));
    }
  }
  const short = frame4(100);
  assert.is(text(answer(short, 68)), text(expected4(short, 14, 68)), 'the least an MTU may be');
});

tooBig('nobody is told of what fits, of errors, of later fragments, and of what is no station’s', () => {
  const four = (packet: Uint8Array, options = {}) => ethernet(frames.ETHERTYPE_IPV4, packet, options);
  const six = (packet: Uint8Array) => ethernet(frames.ETHERTYPE_IPV6, packet);
  const long = counting(2000);
  const group = Uint8Array.of(1, 0, 0x5e, 0, 0, 1);
  const ends4 = (source: number[], destination: number[]) => ({
    source: Uint8Array.from(source),
    destination: Uint8Array.from(destination),
  });
  const of4 = (source: number[], destination: number[]) =>
    four(ipv4({ ends: ends4(source, destination), protocol: 17, payload: long }));
  const error4 = (type: number) => four(ipv4({ protocol: 1, payload: concat(Uint8Array.of(type), long) }));
  const error6 = (type: number) => six(ipv6({ protocol: 58, payload: concat(Uint8Array.of(type), long) }));
  const noDf = packet4(2000);
  noDf[6] = 0;
  const laterDf = packet4(2000);
  laterDf.set([0x40, 1], 6);
  const silent: [string, Uint8Array, number?][] = [
    ['fits', frame4(1400)],
    ['fits', frame6(1400)],
    ['may be fragmented', four(noDf)],
    ['a later fragment', four(laterDf)],
    [
      'a later fragment',
      six(ipv6({ protocol: 17, extensions: [frames.fragmentHeader(8, false)], payload: long })),
    ],
    ...[3, 4, 5, 11, 12].map((type): [string, Uint8Array] => [`ICMP ${type}`, error4(type)]),
    ...[1, 2, 3, 4, 127, 137].map((type): [string, Uint8Array] => [`ICMPv6 ${type}`, error6(type)]),
    ['to a group', four(packet4(2000), { destination: group })],
    ['to all', four(packet4(2000), { destination: new Uint8Array(6).fill(255) })],
    ['from a group', four(packet4(2000), { source: group })],
    ['from 0.0.0.0', of4([0, 0, 0, 0], [10, 0, 0, 1])],
    ['to a group address', of4([10, 0, 0, 1], [224, 0, 0, 1])],
    ['to the broadcast address', of4([10, 0, 0, 1], [255, 255, 255, 255])],
    ['from loopback', of4([127, 0, 0, 1], [10, 0, 0, 1])],
    [
      'an IPv6 group',
      six(
        ipv6({
          ends: { ...ENDS_6, destination: concat(Uint8Array.of(0xff, 2), counting(14)) },
          protocol: 17,
          payload: long,
        }),
      ),
    ],
    ['from ::', six(ipv6({ ends: { ...ENDS_6, source: new Uint8Array(16) }, protocol: 17, payload: long }))],
    ['no IP', ethernet(frames.ETHERTYPE_ARP, long)],
    ['cut off', frame4(2000).subarray(0, 14 + 20 + 7)],
    ['nothing known', frame4(2000), 0],
    ['below what a way may have', frame4(2000), 67],
    ['below what a way of IPv6 may have', frame6(1300), 1279],
  ];
  for (const [what, frame, mtu] of silent) assert.is(answer(frame, mtu), undefined, what);
  // Beside them, those that are told of.
  const told = [
    error4(8),
    error6(128),
    six(ipv6({ protocol: 17, extensions: [frames.fragmentHeader(0, true)], payload: long })),
    of4([10, 0, 0, 1], [10, 0, 0, 2]),
  ];
  for (const frame of told) assert.ok(answer(frame));
});

tooBig('whatever is cut off where, the answer is none or a whole one', () => {
  for (const frame of [
    frame4(2000),
    frame6(2000),
    ethernet(0x0800, packet4(1500), { tags: frames.VLAN_STACK }),
  ]) {
    for (let length = 0; length < 120; length++) {
      const made = answer(frame.subarray(0, length));
      assert.ok(made === undefined || made.length >= 14 + 20 + 8 + 28, `${length} bytes`);
    }
  }
});

tooBig('a worker reports so many a second, with what main has to know, and the head alone', () => {
  const rig = new CoreRig();
  const device = rig.addDevice({ vnetid: 1, mtu: MTU });
  const { core, arena, views } = rig;
  const untold = () => rig.deviceCount(device, layout.COUNTER_TX_TOO_BIG_UNTOLD);
  const ring = arena + layout.ARENA_MISSES;
  const reports = () => {
    const taken: { words: number[]; head: Uint8Array }[] = [];
    for (let at = core.ringPeek(ring) >>> 0; at !== 0; at = core.ringPeek(ring) >>> 0) {
      const bytes = core.ringPeekBytes(ring) >>> 0;
      const from = at + layout.FRAME_RECORD_BYTES + layout.VNET_HDR_BYTES;
      taken.push({
        words: [...views.u32.subarray(at / 4, at / 4 + 4)],
        head: views.u8.slice(from, at + bytes),
      });
      core.missDrop(arena);
    }
    return taken;
  };
  const group = ethernet(0x0800, packet4(3000), { destination: new Uint8Array(6).fill(255) });
  const batch = Array.from({ length: layout.BATCH_MAX }, (_, index) =>
    index % 2 ? frame4(3000) : frame6(1405),
  );
  for (let second = 7; second < 10; second++) {
    views.u32[(arena + layout.ARENA_NOW) / 4] = second;
    const before = untold();
    for (let times = 0; times < 5; times++) {
      rig.placeFrames(batch);
      rig.decideTx(device, batch.length);
      rig.placeFrames([group]);
      rig.decideTx(device, 1);
    }
    const taken = reports();
    assert.is(taken.length, layout.TOO_BIG_TELLS_MAX);
    assert.is(untold() - before, 5 * layout.BATCH_MAX - layout.TOO_BIG_TELLS_MAX);
    for (const [index, { words, head }] of taken.entries()) {
      assert.equal(words, [device, layout.MISS_TOO_BIG, layout.NONE, MTU + 18]);
      assert.is(text(head), text(batch[index % 2]!.subarray(0, layout.TOO_BIG_HEAD_BYTES)));
    }
  }
  rig.tables.setFrameMax(rig.destination, 1000);
  views.u32[(arena + layout.ARENA_NOW) / 4] = 10;
  rig.placeFrames([frame4(986), frame4(987)]);
  rig.decideTx(device, 2);
  assert.equal(
    reports().map(({ words }) => words),
    [[device, layout.MISS_TOO_BIG, rig.destination, 1000]],
  );
  assert.is(rig.deviceCount(device, layout.DROP_TX_PATH_MTU), 1);
});

tooBig('a device tells its guests, so often and no more', () =>
  withMemory(async (memory) => {
    const { overlay, links } = memory;
    await overlay.createOverlay(request('ov0', 1, await freePort(HERE)));
    await memory.up('ov0');
    const { port } = links.get('ov0');
    const counts = () => overlay.deviceStats('ov0').counts;
    const sendAndTake = async (frame: Uint8Array) => {
      assert.ok(port.send(0, frame));
      let taken: Uint8Array | undefined;
      await until('an answer', 3000, () => {
        taken = port.receive();
        return taken !== undefined;
      });
      return text(taken);
    };
    // With room for a tag: four bytes more than the MTU pass.
    assert.is(await sendAndTake(frame4(1405)), text(expected4(frame4(1405), 14, 1400)));
    assert.is(await sendAndTake(frame6(1405)), text(expected6(frame6(1405), 14, 1400)));
    const tagged = ethernet(0x86dd, packet6(1401), { tags: frames.VLAN_TAGS });
    assert.is(await sendAndTake(tagged), text(expected6(tagged, 18, 1400)));
    assert.is(counts().drops.tx_too_big, 3n);

    // The way to the destination takes less.
    overlay.engine.destinations.pathMtus.learn('', '127.0.0.2', 1300, false);
    assert.is(overlay.paths('ov0', overlay.target('ov0'))[0]!.bytes, 1300);
    assert.is(await sendAndTake(frame4(1251)), text(expected4(frame4(1251), 14, 1250)));
    assert.is(counts().drops.tx_path_mtu, 1n);
    assert.ok(port.send(0, frame4(1250)), 'fits');
    await until('it is sent', 3000, () => counts().counters.tx_frames === 1n);

    const BURST = 400;
    for (let sent = 0; sent < BURST; sent++) {
      while (!port.send(0, frame4(1300))) await new Promise((resolve) => setTimeout(resolve, 1));
    }
    const both = () => counts().counters.tx_too_big_told + counts().counters.tx_too_big_untold;
    await until('all are counted', 5000, () => both() === BigInt(4 + BURST));
    assert.is(counts().drops.tx_path_mtu, BigInt(1 + BURST));
    const { tx_too_big_told: told, tx_too_big_untold: untold } = counts().counters;
    assert.ok(told >= 100n && told <= 256n, `${told} were told`);
    assert.ok(untold >= 144n, `${untold} were not`);
    await until('they have arrived', 3000, () => counts().counters.rx_injected === told);
    // Frames to groups, and those that may be fragmented, take nothing from the others.
    const before = both();
    const free = frame4(1300);
    free[14 + 6] = 0;
    for (const frame of [
      free,
      ethernet(0x0800, packet4(1300), { destination: new Uint8Array(6).fill(255) }),
    ]) {
      port.send(0, frame);
    }
    await until('they are dropped', 3000, () => counts().drops.tx_path_mtu === BigInt(3 + BURST));
    assert.is(both(), before);
  }),
);

tooBig.run();
