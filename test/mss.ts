/** The segment size that TCP offers, lowered on its way: the core beside its twin, and between kernels. */
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import * as layout from '../assembly/layout.js';
import { mssOf } from '../src/overlay/mss.js';
import { randomBetween } from '../src/sys/random.js';
import { CoreRig } from './harness/core-rig.js';
import { Hosts, underlay, until } from './harness/hosts.js';
import { HERE, withMemory } from './harness/lifecycle.js';
import { freePort, request } from './harness/memory-overlay.js';
import { testWith } from './harness/needs.js';
import { Xorshift } from './harness/xorshift.js';
import * as frames from './reference/frames.js';
import { clamped, type MssLimits } from './reference/mss.js';
import * as twin from './reference/vxlan.js';

const mss = suite('mss');
const VNETID = 77;
const MTU = 1400;
const LIMITS: MssLimits = { 4: 1360, 6: 1340 };
const SEED = Number(process.env.MSS_SEED ?? randomBetween(1, 2 ** 31));
const FRAMES = 20_000;

const option = (size: number) => Uint8Array.of(2, 4, size >> 8, size & 255);
const padded = (options: Uint8Array) =>
  frames.concat(options, new Uint8Array((4 - (options.length % 4)) % 4));

/** Options as peers send them, and as nobody should. */
function randomOptions(random: Xorshift): Uint8Array {
  const parts: Uint8Array[] = [];
  for (let count = random.below(5); count > 0; count--) {
    switch (random.below(7)) {
      case 0:
        parts.push(Uint8Array.of(1));
        break;
      case 1:
        parts.push(Uint8Array.of(8, 10, 1, 2, 3, 4, 5, 6, 7, 8));
        break;
      case 2:
        parts.push(Uint8Array.of(random.below(256), random.below(6), random.below(256)));
        break;
      case 3:
        parts.push(Uint8Array.of(3, 3, 7));
        break;
      default:
        parts.push(option(random.below(3) === 0 ? 1330 + random.below(40) : random.below(65_536)));
    }
  }
  return padded(frames.concat(...parts).subarray(0, 40));
}

const tagsOf = [[], frames.VLAN_TAGS, frames.VLAN_STACK] as const;

/** A TCP segment, a SYN more often than not. */
function randomFrame(random: Xorshift, checksum: frames.ChecksumKind): Uint8Array {
  const is6 = random.below(2) === 1;
  const segment = frames.tcp({
    ends: is6 ? frames.ENDS_6 : frames.ENDS_4,
    flags: [0x02, 0x12, 0x02, 0x10, 0x04, 0xc2][random.below(6)]!,
    sequence: random.next(),
    options: randomOptions(random),
    payload: frames.counting(random.below(30), random.below(256)),
    checksum,
  });
  const extensions = random.below(4) === 0 ? [frames.optionsHeader(0, random.below(2))] : [];
  const packet = is6
    ? frames.ipv6({ protocol: 6, payload: segment, extensions })
    : frames.ipv4({
        protocol: 6,
        payload: segment,
        options: random.below(4) === 0 ? Uint8Array.of(1, 1, 1, 0) : new Uint8Array(0),
      });
  const tags = tagsOf[random.below(8) < 6 ? 0 : 1 + random.below(2)]!;
  return frames.ethernet(is6 ? 0x86dd : 0x0800, packet, { tags });
}

const text = (bytes: Uint8Array) => Buffer.from(bytes).toString('hex');

function rigOf(isByPath = false): { rig: CoreRig; device: number } {
  const rig = new CoreRig();
  const device = rig.addDevice({ vnetid: VNETID, mtu: MTU });
  rig.tables.setDeviceMss(device, { ...LIMITS, isByPath });
  return { rig, device };
}

/** What the core has made of frames from the link. */
function sent(rig: CoreRig, device: number, batch: readonly Uint8Array[]): Uint8Array[] {
  rig.placeFrames(batch);
  assert.is(rig.decideTx(device, batch.length), 0);
  const made = rig
    .groups(device, batch.length)
    .flatMap(({ datagrams, frames: order }) =>
      datagrams.map((datagram, index) => ({ at: order[index]!, frame: datagram.subarray(8) })),
    );
  return made.sort((one, other) => one.at - other.at).map(({ frame }) => frame);
}

mss(`out: ${FRAMES} frames as the twin has them, seed ${SEED}`, () => {
  const random = new Xorshift(SEED);
  const { rig, device } = rigOf();
  let changed = 0;
  for (let round = 0; round < FRAMES / layout.BATCH_MAX; round++) {
    const batch = Array.from({ length: layout.BATCH_MAX }, () => randomFrame(random, 'finished'));
    const made = sent(rig, device, batch);
    assert.is(made.length, batch.length);
    for (const [index, frame] of batch.entries()) {
      const expected = clamped(frame, LIMITS, false);
      assert.is(text(made[index]!), text(expected), `seed ${SEED}, round ${round}, ${text(frame)}`);
      if (text(expected) !== text(frame)) changed++;
    }
  }
  assert.ok(changed > FRAMES / 10, `${changed} were lowered`);
});

mss(`in: ${FRAMES} frames as the twin has them, checksums finished and not, seed ${SEED}`, () => {
  const random = new Xorshift(SEED + 1);
  const { rig, device } = rigOf();
  let changed = 0;
  for (const flags of [0, layout.DEVICE_FLAG_COALESCE]) {
    rig.tables.setDeviceFlags(device, layout.DEVICE_FLAG_COALESCE, flags);
    for (let round = 0; round < FRAMES / 2 / layout.BATCH_MAX; round++) {
      const kinds = Array.from({ length: layout.BATCH_MAX }, () =>
        random.below(2) ? 'finished' : 'partial',
      );
      const batch = kinds.map((kind) => randomFrame(random, kind as frames.ChecksumKind));
      rig.placeDatagrams(batch.map((frame) => twin.encap(VNETID, frame)));
      assert.is(rig.decideRx(batch.length), 0);
      const writes = rig.writes().map(({ bytes }) => bytes);
      assert.is(writes.length, batch.length);
      for (const [index, frame] of batch.entries()) {
        // One finished checksum in 65,535 looks like an unfinished one, and is then finished by the kernel.
        const isUnfinished = (writes[index]![0]! & 1) !== 0;
        if (kinds[index] === 'partial') assert.ok(isUnfinished);
        const expected = clamped(frame, LIMITS, isUnfinished);
        assert.is(text(writes[index]!.subarray(layout.VNET_HDR_BYTES)), text(expected), `seed ${SEED}`);
        if (text(expected) !== text(frame)) changed++;
      }
    }
  }
  assert.ok(changed > FRAMES / 10, `${changed} were lowered`);
});

mss(
  'off is off; the way counts where it is asked for; fragments and other protocols stay as they are',
  () => {
    const syn = (size: number) =>
      frames.ethernet(
        0x0800,
        frames.ipv4({
          protocol: 6,
          payload: frames.tcp({ ends: frames.ENDS_4, flags: 2, options: option(size) }),
        }),
      );
    const { rig, device } = rigOf(true);
    rig.tables.setFrameMax(rig.destination, 1214);
    assert.is(text(sent(rig, device, [syn(1460)])[0]!), text(clamped(syn(1460), LIMITS, false, 1214)));
    assert.match(
      text(sent(rig, device, [syn(1460)])[0]!),
      /02040488/,
      '1160 and 54 of headers, in frames of 1214',
    );
    rig.tables.setFrameMax(rig.destination, 100);
    assert.match(text(sent(rig, device, [syn(1460)])[0]!), /02040058/, 'never below 88');
    rig.tables.setDeviceMss(device, { ...LIMITS, isByPath: false });
    assert.match(text(sent(rig, device, [syn(1460)])[0]!), /02040550/, 'the way does not count');
    rig.tables.setFrameMax(rig.destination, 0);
    rig.tables.setDeviceMss(device, { 4: 0, 6: 0, isByPath: false });
    const others = [
      syn(1460),
      frames.ethernet(
        0x0800,
        frames.ipv4({
          protocol: 6,
          payload: frames.tcp({ ends: frames.ENDS_4, flags: 2, options: option(1460) }),
          fragment: { offset: 0, more: true },
        }),
      ),
      frames.ethernet(0x0800, frames.ipv4({ protocol: 17, payload: frames.udp({ ends: frames.ENDS_4 }) })),
      frames.ethernet(0x0806, frames.arp()),
    ];
    assert.equal(sent(rig, device, others).map(text), others.map(text));
    rig.tables.setDeviceMss(device, { ...LIMITS, isByPath: false });
    assert.equal(sent(rig, device, others.slice(1)).map(text), others.slice(1).map(text));
  },
);

mss('a super-frame that begins a stream is lowered, and its segments have right checksums', () => {
  const { rig, device } = rigOf();
  const ends = frames.ENDS_4;
  const segment = (flags: number, payload: Uint8Array, sequence: number, size: number) =>
    frames.tcp({ ends, flags, options: option(size), payload, sequence });
  const whole = frames.tcp({
    ends,
    flags: 2,
    options: option(1460),
    payload: frames.counting(1000),
    checksum: 'partial',
  });
  const frame = frames.ethernet(0x0800, frames.ipv4({ protocol: 6, payload: whole }));
  const at = rig.arena + layout.ARENA_TX_BUFFER + layout.TX_HEADROOM_BYTES;
  const header = new Uint8Array(layout.VNET_HDR_BYTES);
  const view = new DataView(header.buffer);
  header.set([1, 1]);
  view.setUint16(4, 600, true);
  view.setUint16(6, 34, true);
  view.setUint16(8, 16, true);
  rig.views.u8.set(header, at);
  rig.views.u8.set(frame, at + header.length);
  rig.noteFrame(0, at, header.length + frame.length);
  assert.is(rig.decideTx(device, 1), 0);
  const made = rig
    .groups(device, 1)
    .flatMap(({ datagrams }) => datagrams.map((datagram) => datagram.subarray(42)));
  assert.equal(made.map(text), [
    text(segment(2, frames.counting(600), 1, 1360)),
    text(segment(2, frames.counting(400, 600), 601, 1360)),
  ]);
});

mss('the property: off, auto by the MTU as it changes, or a number', () =>
  withMemory(async (memory) => {
    const { overlay } = memory;
    await overlay.createOverlay(request('ov0', 1, await freePort(HERE)));
    await memory.up('ov0');
    const row = () => {
      const at = (layout.DEVICES_OFFSET + layout.DEVICE_MSS_IPV4) / 4;
      return [...overlay.engine.views.u32.subarray(at, at + 2)];
    };
    assert.equal(row(), [0, 0]);
    await overlay.setprop('ov0', 'tcp_mss', 'auto');
    assert.equal(row(), [1360, 1340]);
    await overlay.setprop('ov0', 'mtu', 1300);
    assert.equal(row(), [1260, 1240]);
    memory.links.changeMtu('ov0', 1200);
    await memory.settle();
    assert.equal(row(), [1160, 1140]);
    await memory.down('ov0');
    await memory.up('ov0');
    assert.equal(row(), [1160, 1140]);
    await overlay.setprop('ov0', 'tcp_mss', 536);
    assert.equal(row(), [536, 536]);
    assert.is(overlay.property('ov0', 'tcp_mss').value, 536n);
    await overlay.setprop('ov0', 'tcp_mss', 'off');
    assert.equal(row(), [0, 0]);
    for (const bad of ['on', 87, 65_496, '', -1]) {
      const error = await overlay.setprop('ov0', 'tcp_mss', bad).then(
        () => undefined,
        (refused: { code: string }) => refused.code,
      );
      assert.is(error, 'bad_property_value', `${bad}`);
    }
    assert.equal(mssOf({ tcpMss: 'auto', mtu: 576 }), { 4: 536, 6: 516, isByPath: true });
  }),
);

testWith(
  mss,
  ['root', '/dev/net/tun', 'iperf3', 'ss'],
  'between kernels: both sides keep to it, IPv4 and IPv6',
  async () => {
    const hosts = new Hosts();
    try {
      const a = await hosts.daemon('a');
      const b = await hosts.daemon('b');
      await a.createOverlay(hosts.a, 'ov0', 1, underlay[4].a, underlay[4].b);
      await b.createOverlay(hosts.b, 'ov0', 1, underlay[4].b, underlay[4].a);
      // One side alone: it lowers what passes either way.
      await a.client.put('/v1/overlays/ov0/properties/tcp_mss', { value: 1000 });
      hosts.address('a', 'ov0', '198.51.100.1/24', 'fd00::1/64');
      hosts.address('b', 'ov0', '198.51.100.2/24', 'fd00::2/64');
      for (const [to, port] of [
        ['198.51.100.2', '5301'],
        ['fd00::2', '5302'],
      ] as const) {
        hosts.b.start('iperf3', '-s', '-1', '-p', port).stdout?.resume();
        await until('iperf3 listens', 5000, () => hosts.b.attempt('ss', '-Hltn').output.includes(port));
        const client = hosts.a.finish('iperf3', '-c', to, '-t', '1', '-p', port);
        for (const side of ['a', 'b'] as const) {
          const filter = `( sport = ${port} or dport = ${port} )`;
          const sizes = () =>
            [...hosts[side].run('ss', '-Htin', 'state', 'established', filter).matchAll(/\bmss:(\d+)/g)].map(
              (found) => Number(found[1]),
            );
          await until('it is connected', 3000, () => sizes().length > 0);
          // Less 12 bytes of time stamps.
          assert.ok(
            sizes().every((size) => size <= 988),
            `${side}: ${sizes().join()}`,
          );
        }
        assert.is(await client, 0);
      }
    } finally {
      await hosts.close();
    }
  },
);

mss.run();
