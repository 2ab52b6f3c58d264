/**
 * Fuzzes the core: many millions of frames and datagrams, more than half of them flush with the end of
 * memory, where a read too far traps. FUZZ_SEED repeats a run, FUZZ_FRAMES makes it longer, FUZZ_ENCAPSULATIONS names some.
 */
import { createHash } from 'node:crypto';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import * as layout from '../assembly/layout.js';
import { type DropName, dropNames } from '../src/datapath/drop.js';
import { structs } from '../src/sys/abi.js';
import { randomBetween } from '../src/sys/random.js';
import { BatchCheck, BatchFault } from './harness/batch-check.js';
import { CoreRig, IOVEC_BYTES, MESSAGE_BYTES } from './harness/core-rig.js';
import { type Encapsulation, encapsulations } from './harness/encapsulations.js';
import { FrameFuzzer } from './harness/frame-fuzzer.js';
import { Xorshift128 } from './harness/xorshift.js';
import { counting, ethernet, sampleFrames } from './reference/frames.js';
import * as twin from './reference/vxlan.js';

const SEED = Number(process.env.FUZZ_SEED ?? randomBetween(1, 0x7fffffff));
const FRAMES = Number(process.env.FUZZ_FRAMES ?? 10_000_000);
/** With a number of its own, every encapsulation has that many. */
const isNightly = process.env.FUZZ_FRAMES !== undefined;
const ONLY = process.env.FUZZ_ENCAPSULATIONS?.split(',');
/** Each verdict must be reached this often. */
const VERDICT_MIN = isNightly ? 1000 : 200;
/** One batch in so many is compared with the twin, which is slow. */
const TWIN_EVERY = 61;
/** Bytes for each frame of a packed transmit batch. */
const TX_STRIDE = 16384;

/** Verdicts of the core itself: the others are the workers', from errno, and core_trap must not be. */
const CORE_VERDICTS = [
  'tx_short_frame',
  'tx_too_big',
  'tx_vlan_not_carried',
  'tx_bad_vnet_hdr',
  'tx_device_stopped',
  'tx_no_target',
  'rx_short_datagram',
  'rx_truncated',
  'rx_bad_header',
  'rx_unknown_vnetid',
  'rx_device_stopped',
  'rx_short_frame',
  'rx_too_big',
  'rx_vlan_not_carried',
] as const;

const fuzz = suite('fuzz');

class Run {
  readonly rig: CoreRig;
  readonly random = new Xorshift128(SEED);
  readonly active: readonly number[];
  readonly stopped: number;
  readonly aimless: number;
  readonly check: BatchCheck;
  readonly fuzzer: FrameFuzzer;
  frames = 0;
  atEnd = 0;
  compared = 0;
  traps = 0;
  #batches = 0;

  constructor(encapsulation: Encapsulation) {
    const rig = new CoreRig({ seed: BigInt(SEED), encapsulation });
    this.rig = rig;
    this.active = [
      rig.addDevice({ vnetid: 1, mtu: 576, carriesVlan: false }),
      rig.addDevice({ vnetid: 0xffffff, mtu: 576, carriesVlan: true }),
      rig.addDevice({ vnetid: 0x10000, mtu: 1400, carriesVlan: true }),
    ];
    this.stopped = rig.addDevice({ vnetid: 2, isActive: false });
    this.aimless = rig.addDevice({ vnetid: 3, hasTarget: false });
    this.check = new BatchCheck(rig);
    this.fuzzer = new FrameFuzzer(
      this.random,
      [...sampleFrames(20), ...sampleFrames(700), ...sampleFrames(1500)],
      {
        vnetids: [...rig.rules.values()].map(({ vnetid }) => vnetid),
        edges: [14, 576 + 14, 576 + 18, 1400 + 14, 1400 + 18],
      },
    );
  }

  /** A device for a transmit batch: an active one mostly. */
  device(): number {
    const choice = this.random.below(16);
    if (choice === 0) return this.stopped;
    if (choice === 1) return this.aimless;
    return this.active[this.random.below(this.active.length)]!;
  }

  /** A batch of frames from a TAP; the last one ends where the memory does. */
  transmit(count: number): void {
    const { check, fuzzer, rig } = this;
    const { u8 } = rig.views;
    const device = this.device();
    const first = rig.arena + layout.ARENA_TX_BUFFER + layout.TX_HEADROOM_BYTES;
    for (let i = 0; i < count; i++) {
      fuzzer.makeFrame();
      const isLast = i === count - 1;
      const length = isLast
        ? fuzzer.length
        : Math.min(fuzzer.length, TX_STRIDE - layout.TX_HEADROOM_BYTES - 64);
      const offset = isLast ? rig.end - length : first + i * TX_STRIDE + this.random.below(32);
      fuzzer.copyTo(u8, offset);
      this.#place(i, offset, length, check.txMargin);
      rig.noteFrame(i, offset, length);
    }
    const isCompared = this.#batches++ % TWIN_EVERY === 0;
    const before = isCompared ? this.#copies(count) : [];
    check.beginTx(device);
    this.traps += rig.decideTx(device, count);
    check.checkTx(device, count, rig.core.txArrange(rig.arena, device, count));
    for (const [i, read] of before.entries()) {
      const passes = rig.socketOf(i) !== layout.TX_SOCKET_DROPPED;
      const verdict = twin.txVerdict(rig.rules.get(device)!, read);
      if (passes !== (verdict === 'pass'))
        assert.unreachable(`${hex(read)}: passes ${passes}, twin ${verdict}`);
      const after = u8.subarray(check.offsets[i]! + 10, check.offsets[i]! + check.lengths[i]!);
      // One whose checksum was unfinished has it now; of super-frames the segments are looked at elsewhere.
      const [alone, ...more] = (passes && twin.sendable(read)) || [read.subarray(10)];
      const left = more.length === 0 ? alone! : read.subarray(10);
      if (passes && !isSame(after, left)) assert.unreachable(`${hex(read)}: the frame was changed`);
      this.compared++;
    }
    this.frames += count;
    this.atEnd++;
  }

  /** A batch of datagrams from the underlay; the last one ends where the memory does. */
  receive(count: number): void {
    const { check, fuzzer, random, rig } = this;
    const { u8 } = rig.views;
    const truncated: boolean[] = [];
    for (let i = 0; i < count; i++) {
      fuzzer.makeDatagram(rig.encapsulation);
      const { length } = fuzzer;
      const offset = i === count - 1 ? rig.end - length : rig.rxSlot(i);
      const isTruncated = random.below(128) === 0;
      fuzzer.copyTo(u8, offset);
      this.#place(i, offset, length, 2);
      check.outers[i] = rig.encapsulation.headerBytes(u8[offset]!);
      rig.noteDatagram(i, offset, length, isTruncated);
      truncated.push(isTruncated);
    }
    const isCompared = this.#batches++ % TWIN_EVERY === 0;
    const before = isCompared ? this.#copies(count) : [];
    check.beginRx();
    this.traps += rig.decideRx(count);
    check.checkRx(count);
    const written = new Map(isCompared ? rig.writes().map(({ offset, bytes }) => [offset, bytes]) : []);
    for (const [i, datagram] of before.entries()) {
      const expected = twin.receive(
        [...rig.rules.values()],
        datagram,
        truncated[i]!,
        rig.encapsulation.decap,
      );
      const seen = written.get(check.offsets[i]! + check.outers[i]! - layout.VNET_HDR_BYTES);
      const agrees = seen && expected.written ? isSame(seen, expected.written) : seen === expected.written;
      if (!agrees) {
        const core = seen ? `writes ${hex(seen.subarray(0, 10))}` : 'drops it';
        assert.unreachable(`${hex(datagram)}: the core ${core}, the twin says ${expected.verdict}`);
      }
      this.compared++;
    }
    rig.core.rxDelivered(rig.arena);
    this.frames += count;
    this.atEnd++;
  }

  #place(i: number, offset: number, length: number, margin: number): void {
    const { check } = this;
    check.offsets[i] = offset;
    check.lengths[i] = length;
    check.guard(i, margin);
  }

  #copies(count: number): Uint8Array[] {
    const { offsets, lengths } = this.check;
    const { u8 } = this.rig.views;
    return Array.from({ length: count }, (_, i) => u8.slice(offsets[i]!, offsets[i]! + lengths[i]!));
  }

  /** How often each drop was counted, over all rows. */
  drops(): Map<string, number> {
    const { rig } = this;
    return new Map(
      dropNames.map((name, reason) => {
        const devices = [...rig.rules.keys()].map((device) => rig.deviceCount(device, reason));
        return [name, rig.muxCount(reason) + devices.reduce((sum, count) => sum + count, 0)];
      }),
    );
  }

  /** A digest of what no batch may change: static data, header and tables. */
  tablesDigest(): string {
    return createHash('sha256').update(this.rig.views.u8.slice(0, layout.ARENAS_OFFSET)).digest('hex');
  }
}

function hex(bytes: Uint8Array): string {
  return `${Buffer.from(bytes.subarray(0, 160)).toString('hex')} (${bytes.length} bytes)`;
}

function isSame(a: Uint8Array, b: Uint8Array): boolean {
  return Buffer.compare(a, b) === 0;
}

/** Geneve with options differs from geneve in what is sent alone. */
const PARTS = [1, 1, 5, 1, 1, 1];

for (const [index, encapsulation] of encapsulations.entries()) {
  if (ONLY && !ONLY.includes(encapsulation.name)) continue;
  fuzz(`${encapsulation.name}, seed ${SEED}`, () => {
    const most = isNightly ? FRAMES : FRAMES / PARTS[index]!;
    const run = new Run(encapsulation);
    const before = run.tablesDigest();
    try {
      while (run.frames < most) {
        // One by one, each flush with the end of memory, then as many in one batch.
        for (let i = 0; i < layout.BATCH_MAX; i++) run.transmit(1);
        run.transmit(layout.BATCH_MAX);
        for (let i = 0; i < layout.BATCH_MAX; i++) run.receive(1);
        run.receive(layout.BATCH_MAX);
      }
    } catch (error) {
      console.log(`\n  FUZZ_SEED=${SEED}, about frame ${run.frames}`);
      throw error;
    }
    const { check, rig } = run;
    const drops = run.drops();
    const counts = [...drops].filter(([, count]) => count > 0).map(([name, count]) => `${name} ${count}`);
    console.log(
      `\n  seed ${SEED}: ${run.frames} frames, ${run.atEnd} at the end of memory, ${run.compared} compared ` +
        'with the twin' +
        `\n  passed tx ${check.txPassed}, rx ${check.rxPassed} (${check.partialChecksums} unfinished ` +
        `checksums, ${check.superFrames} super-frames)\n  ${counts.join(', ')}`,
    );
    assert.is(run.traps, 0, 'no trap');
    assert.ok(run.atEnd * 2 >= run.frames, 'half of the frames lie at the end of memory');
    const verdicts: readonly string[] = [...CORE_VERDICTS, ...encapsulation.drops];
    for (const name of verdicts as DropName[]) {
      assert.ok(drops.get(name)! >= VERDICT_MIN, `${name}: reached ${drops.get(name)} times`);
    }
    for (const [name, count] of drops) {
      assert.ok(count === 0 || verdicts.includes(name), `${name} is not the core's`);
    }
    assert.ok(check.txPassed >= VERDICT_MIN && check.rxPassed >= VERDICT_MIN, 'passing frames');
    assert.ok(check.partialChecksums >= VERDICT_MIN && check.superFrames >= VERDICT_MIN, 'offloads');
    const devices = [...rig.rules.keys()];
    const sumOf = (counter: number) =>
      devices.reduce((sum, device) => sum + rig.deviceCount(device, counter), 0);
    assert.is(sumOf(layout.COUNTER_RX_FRAMES), check.rxPassed, 'delivered is what passed');
    assert.is(sumOf(layout.COUNTER_RX_SUPER_FRAMES), check.superFrames);
    const dropped = [...drops.values()].reduce((sum, count) => sum + count, 0);
    const read = sumOf(layout.COUNTER_TX_READ) + rig.muxCount(layout.COUNTER_RX_READ);
    assert.is(read, check.txPassed + check.rxPassed + dropped, 'books');
    assert.is(read, run.frames);
    assert.is(run.tablesDigest(), before, 'the tables are as they were');
  });
}

// ─── Traps ──────────────────────────────────────────────────────────────────────────────────────────────

const FRAME = ethernet(0x88b5, counting(86));

fuzz('a trap on one frame costs that frame, whichever of the batch it is', () => {
  for (const broken of [0, 5, 63]) {
    const rig = new CoreRig();
    const device = rig.addDevice({ vnetid: 1 });
    rig.placeFrames(new Array<Uint8Array>(64).fill(FRAME));
    // Ends one byte behind the arena.
    rig.noteFrame(broken, rig.end - 99, 100);
    assert.is(rig.decideTx(device, 64), 1);
    assert.is(rig.deviceCount(device, layout.DROP_TX_CORE_TRAP), 1);
    assert.is(rig.deviceCount(device, layout.COUNTER_TX_READ), 64);
    assert.is(rig.socketOf(broken), layout.TX_SOCKET_DROPPED);
    const sent = rig.groups(device, 64).flatMap((group) => group.frames);
    assert.equal(
      sent.sort((a, b) => a - b),
      Array.from({ length: 64 }, (_, i) => i).filter((i) => i !== broken),
    );
  }
});

fuzz('a trap on one datagram costs that datagram, whichever of the batch it is', () => {
  for (const broken of [0, 5, 63]) {
    const rig = new CoreRig();
    rig.addDevice({ vnetid: 1 });
    rig.placeDatagrams(new Array<Uint8Array>(64).fill(twin.encap(1, FRAME)));
    rig.noteDatagram(broken, rig.end - 99, 100);
    assert.is(rig.decideRx(64), 1);
    assert.is(rig.muxCount(layout.DROP_RX_CORE_TRAP), 1);
    assert.is(rig.muxCount(layout.COUNTER_RX_READ), 64);
    assert.is(rig.writeCount, 63);
  }
});

fuzz('rows that lead nowhere trap: destination, bank, encap, device', () => {
  const { DEVICES_OFFSET, DEVICE_BYTES, MUXES_OFFSET, MUX_BYTES } = layout;
  const spoilTx: ((rig: CoreRig, row: number) => void)[] = [
    ({ views }, row) => (views.u32[(row + layout.DEVICE_DESTINATION) / 4] = layout.NONE),
    ({ views }, row) => (views.u32[(row + layout.DEVICE_DESTINATION) / 4] = layout.DESTINATIONS_MAX),
    ({ views }, row) => (views.u32[(row + layout.DEVICE_MUX) / 4] = layout.MUXES_MAX),
    ({ views }, row) => (views.u32[(row + layout.DEVICE_ENCAP) / 4] = 99),
    ({ views, mux }) => (views.u32[(MUXES_OFFSET + mux * MUX_BYTES + layout.MUX_BANK) / 4] = 0),
    ({ views, mux }) => (views.u32[(MUXES_OFFSET + mux * MUX_BYTES + layout.MUX_BANK) / 4] = 65),
  ];
  for (const spoil of spoilTx) {
    const rig = new CoreRig();
    const device = rig.addDevice({ vnetid: 1 });
    spoil(rig, DEVICES_OFFSET + device * DEVICE_BYTES);
    rig.placeFrames([FRAME, FRAME.slice(0, 10), FRAME]);
    // A row that is read once a batch costs the short frame too, since reading it traps before any frame is seen.
    const traps = rig.decideTx(device, 3);
    assert.ok(traps === 2 || traps === 3, `${traps} traps`);
    assert.is(rig.deviceCount(device, layout.DROP_TX_CORE_TRAP), traps);
    assert.is(rig.deviceCount(device, layout.DROP_TX_SHORT_FRAME), 3 - traps);
    assert.is(rig.core.txArrange(rig.arena, device, 3), 0, 'nothing is sent');
  }
  const rig = new CoreRig();
  rig.addDevice({ vnetid: 1 });
  rig.tables.insertVnet(rig.mux, 2n, layout.DEVICES_MAX);
  rig.placeDatagrams([1, 2, 1].map((vnetid) => twin.encap(vnetid, FRAME)));
  assert.is(rig.decideRx(3), 1);
  assert.is(rig.muxCount(layout.DROP_RX_CORE_TRAP), 1);
  assert.is(rig.writeCount, 2);
});

fuzz('the end of the arena is the end of memory: one byte further traps', () => {
  const rig = new CoreRig();
  assert.is(rig.views.u8.length, rig.end);
  rig.core.flowHash(rig.end - 14, 14, 0n);
  assert.throws(() => rig.core.flowHash(rig.end - 13, 14, 0n), /out of bounds/);
});

fuzz('joining looks at every beginning of a frame, flush with the end of memory, without a trap', () => {
  const { DEVICE_FLAG_COALESCE, DEVICE_FLAG_COALESCE_UDP } = layout;
  const rig = new CoreRig();
  rig.addDevice({ vnetid: 1, flags: DEVICE_FLAG_COALESCE | DEVICE_FLAG_COALESCE_UDP });
  for (const { name, frame } of sampleFrames(20)) {
    for (let length = 0; length <= frame.length; length++) {
      rig.placeDatagramAtEnd(twin.encap(1, frame.subarray(0, length)));
      assert.is(rig.decideRx(1), 0, `${length} bytes of ${name}`);
    }
  }
});

// ─── The checker is not blind ───────────────────────────────────────────────────────────────────────────

/** A checked batch of two transmit frames, doctored in between. */
function checkDoctoredTx(doctor: (rig: CoreRig, device: number) => void): void {
  const rig = new CoreRig();
  const device = rig.addDevice({ vnetid: 0x1234 });
  const check = new BatchCheck(rig);
  const { arena, views } = rig;
  for (let i = 0; i < 2; i++) {
    check.offsets[i] = arena + layout.ARENA_TX_BUFFER + layout.TX_HEADROOM_BYTES + i * 1024;
    check.lengths[i] = 10 + FRAME.length;
    views.u8.set(FRAME, check.offsets[i]! + 10);
    check.guard(i, 0);
    rig.noteFrame(i, check.offsets[i]!, check.lengths[i]!);
  }
  check.beginTx(device);
  rig.decideTx(device, 2);
  const groups = rig.core.txArrange(arena, device, 2);
  doctor(rig, device);
  check.checkTx(device, 2, groups);
}

fuzz('the checker sees a doctored transmit batch', () => {
  checkDoctoredTx(() => {});
  const { mmsghdr, iovec } = structs;
  const message = (rig: CoreRig, field: number) => (rig.arena + layout.ARENA_TX_MESSAGES + field) / 4;
  const vector = (rig: CoreRig, i: number, field: number) =>
    (rig.arena + layout.ARENA_TX_IOVECS + i * IOVEC_BYTES + field) / 4;
  const buffer = (rig: CoreRig) => rig.arena + layout.ARENA_TX_BUFFER + layout.TX_HEADROOM_BYTES;
  const doctors: Record<string, (rig: CoreRig, device: number) => void> = {
    'a longer iovec': (rig) => rig.views.u32[vector(rig, 1, iovec.iov_len)]!++,
    'a shorter iovec': (rig) => rig.views.u32[vector(rig, 1, iovec.iov_len)]!--,
    'an iovec of 4 GiB': (rig) => rig.views.u32[vector(rig, 1, iovec.iov_len) + 1]!++,
    'an iovec a byte on': (rig) => rig.views.u32[vector(rig, 0, iovec.iov_base)]!++,
    'an iovec below the arena': (rig) => (rig.views.u32[vector(rig, 0, iovec.iov_base)]! -= rig.arena),
    'an iovec far away': (rig) => rig.views.u32[vector(rig, 0, iovec.iov_base) + 1]!++,
    'a name elsewhere': (rig) => (rig.views.u32[message(rig, mmsghdr['msg_hdr.msg_name'])]! -= 512),
    'a name too long': (rig) => (rig.views.u32[message(rig, mmsghdr['msg_hdr.msg_namelen'])] = 512),
    'a control elsewhere': (rig) => (rig.views.u32[message(rig, mmsghdr['msg_hdr.msg_control'])]! += 512),
    'two iovecs': (rig) => rig.views.u32[message(rig, mmsghdr['msg_hdr.msg_iovlen'])]!++,
    'a message of no frame': (rig) => (rig.views.u32[message(rig, mmsghdr['msg_hdr.msg_iov'])]! += 8),
    'one frame twice': (rig) => {
      const at = message(rig, mmsghdr['msg_hdr.msg_iov']);
      rig.views.u32[at] = rig.views.u32[at + MESSAGE_BYTES / 4]!;
    },
    'a group too long': (rig) => rig.views.u32[(rig.arena + layout.ARENA_TX_GROUPS) / 4 + 2]!++,
    'a frame dropped in silence': (rig) => (rig.views.u8[rig.arena + layout.ARENA_TX_SOCKETS] = 0xff),
    'a drop that was none': (rig, device) => rig.core.dropDevice(rig.arena, device, 0, 1),
    'a byte before a buffer': (rig) => rig.views.u8[buffer(rig) - 1]!++,
    'a byte behind a buffer': (rig) => rig.views.u8[buffer(rig) + 10 + FRAME.length]!++,
    'a reserved bit': (rig) => rig.views.u8[buffer(rig) + 3]!++,
    'another vnetid': (rig) => rig.views.u8[buffer(rig) + 8]!++,
  };
  for (const [what, doctor] of Object.entries(doctors)) {
    assert.throws(
      () => checkDoctoredTx(doctor),
      (error: unknown) => error instanceof BatchFault,
      what,
    );
  }
});

/** A checked batch of two datagrams, doctored in between. */
function checkDoctoredRx(doctor: (rig: CoreRig, device: number) => void): void {
  const rig = new CoreRig();
  const device = rig.addDevice({ vnetid: 0x1234 });
  rig.addDevice({ vnetid: 5, isActive: false });
  const check = new BatchCheck(rig);
  const datagram = twin.encap(0x1234, sampleFrames(20).find(({ name }) => name === 'tcp4 partial')!.frame);
  for (let i = 0; i < 2; i++) {
    check.offsets[i] = rig.rxSlot(i);
    check.lengths[i] = datagram.length;
    check.outers[i] = 8;
    check.guard(i, 2);
  }
  rig.placeDatagrams([datagram, datagram]);
  check.beginRx();
  rig.decideRx(2);
  doctor(rig, device);
  check.checkRx(2);
}

fuzz('the checker sees a doctored receive batch', () => {
  checkDoctoredRx(() => {});
  const write = (rig: CoreRig, field: number) => (rig.arena + layout.ARENA_RX_WRITES + field) / 4;
  const doctors: Record<string, (rig: CoreRig, device: number) => void> = {
    'a write of another descriptor': (rig) => rig.views.u32[write(rig, 0)]!++,
    'a write a byte on': (rig) => rig.views.u32[write(rig, 4)]!++,
    'a write outside the arena': (rig) => (rig.views.u32[write(rig, 4)] = 0),
    'a longer write': (rig) => rig.views.u32[write(rig, 8)]!++,
    'a shorter write': (rig) => rig.views.u32[write(rig, 8)]!--,
    'a write to a stopped device': (rig) => rig.views.u32[write(rig, 12)]!++,
    'one datagram twice': (rig) => {
      rig.views.u32[write(rig, layout.RX_WRITE_BYTES + 4)] = rig.views.u32[write(rig, 4)]!;
    },
    'a write forgotten': (rig) => rig.views.u32[(rig.arena + layout.ARENA_WRITES) / 4]!--,
    'a drop that was none': (rig) => rig.core.dropMux(rig.arena, rig.mux, layout.DROP_RX_BAD_HEADER, 1),
    'a byte before a buffer': (rig) => rig.views.u8[rig.rxSlot(1) - 3]!++,
    'an unknown flag': (rig) => (rig.views.u8[rig.rxSlot(0) - 2] = 3),
    'a checksum behind the frame': (rig) => rig.views.u8[rig.rxSlot(0) + 5]!++,
    'an unknown GSO type': (rig) => (rig.views.u8[rig.rxSlot(0) - 1] = 3),
  };
  for (const [what, doctor] of Object.entries(doctors)) {
    assert.throws(
      () => checkDoctoredRx(doctor),
      (error: unknown) => error instanceof BatchFault,
      what,
    );
  }
});

fuzz.run();
