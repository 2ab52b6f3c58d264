/**
 * Fuzzes the core: many millions of frames and datagrams, half or more of them flush with the end of memory, where a read too
 * far traps; over both families, to devices with all settings. FUZZ_SEED repeats a run, FUZZ_FRAMES says how many there are each
 * way, FUZZ_ENCAPSULATIONS names some: with their family, or without it for both.
 */
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import * as layout from '../assembly/layout.js';
import type { DropName } from '../src/datapath/drop.js';
import { structs } from '../src/sys/abi.js';
import { randomBetween } from '../src/sys/random.js';
import { BatchFault } from './harness/batch-guard.js';
import { CoreRig, IOVEC_BYTES, MESSAGE_BYTES } from './harness/core-rig.js';
import {
  type Encapsulation,
  geneveEncapsulation,
  geneveWithOptions,
  nvgreEncapsulation,
  nvgreOverIpv4,
  vxlanEncapsulation,
  vxlanGpeEncapsulation,
} from './harness/encapsulations.js';
import { FuzzRun } from './harness/fuzz-run.js';
import { fuzzStreams } from './harness/fuzz-samples.js';
import { type FuzzDevice, FuzzWorld } from './harness/fuzz-world.js';
import { RxCheck } from './harness/rx-check.js';
import { TxCheck } from './harness/tx-check.js';
import { Xorshift } from './harness/xorshift.js';
import { counting, ethernet, sampleFrames } from './reference/frames.js';
import * as twin from './reference/vxlan.js';

const SEED = Number(process.env.FUZZ_SEED ?? randomBetween(1, 0x7fffffff));
/** Each way, of each encapsulation over each family. */
const FRAMES = Number(process.env.FUZZ_FRAMES ?? 5_000_000);
/** With a number of its own, every row has that many. */
const isNightly = process.env.FUZZ_FRAMES !== undefined;
const ONLY = process.env.FUZZ_ENCAPSULATIONS?.split(',');
/** Each verdict must be reached this often, where all the frames are. */
const VERDICT_MIN = isNightly ? 1000 : 200;

/** Verdicts of the core on what a link or an underlay hands over; core_trap must not be, and the others are from errno or main. */
const CORE_VERDICTS = [
  'tx_short_frame',
  'tx_too_big',
  'tx_vlan_not_carried',
  'tx_bad_vnet_hdr',
  'tx_device_stopped',
  'tx_no_target',
  'tx_path_mtu',
  'tx_target_drop',
  'tx_held_full',
  'tx_miss_ring_full',
  'tx_miss_share',
  'tx_wait_full',
  'tx_wait_share',
  'rx_short_datagram',
  'rx_truncated',
  'rx_bad_header',
  'rx_unknown_vnetid',
  'rx_device_stopped',
  'rx_short_frame',
  'rx_too_big',
  'rx_vlan_not_carried',
  'rx_source_unknown',
  'rx_source_mac',
  'rx_congestion',
  'rx_inner_to_mux',
  'rx_reserved_bits',
] as const;

/** What is fuzzed, with its part of the frames. Those that differ from another in little have few in `npm test`. */
interface Row {
  readonly encapsulation: Encapsulation;
  readonly family: 4 | 6;
  readonly part: number;
}

const rows: readonly Row[] = [
  { encapsulation: vxlanEncapsulation, family: 4, part: 1 },
  { encapsulation: vxlanEncapsulation, family: 6, part: 1 },
  { encapsulation: geneveEncapsulation, family: 4, part: 1 },
  { encapsulation: geneveEncapsulation, family: 6, part: 1 },
  { encapsulation: geneveWithOptions(63), family: 6, part: 10 },
  { encapsulation: nvgreOverIpv4, family: 4, part: 1 },
  { encapsulation: nvgreEncapsulation, family: 6, part: 1 },
  { encapsulation: vxlanGpeEncapsulation, family: 4, part: 10 },
];

const fuzz = suite('fuzz');

for (const [index, { encapsulation, family, part }] of rows.entries()) {
  const kind = encapsulation.name.replace(/ over IPv4$/, '');
  const name = `${kind} over IPv${family}`;
  if (ONLY && !ONLY.includes(name) && !ONLY.includes(kind)) continue;
  fuzz(`${name}, seed ${SEED}`, () => {
    const most = isNightly ? FRAMES : FRAMES / part;
    const least = isNightly ? VERDICT_MIN : VERDICT_MIN / part;
    // Each with frames of its own.
    const run = new FuzzRun(SEED + index, { encapsulation, family });
    try {
      while (run.frames.tx < most || run.frames.rx < most) run.round();
    } catch (error) {
      console.log(`\n  FUZZ_SEED=${SEED}, about frame ${run.frames.tx + run.frames.rx}`);
      throw error;
    }
    run.checkRecords();
    run.world.mustBeKept();
    const { tx, rx, rig, records } = run;
    const frames = run.frames.tx + run.frames.rx;
    const drops = run.drops();
    const counts = [...drops].filter(([, count]) => count > 0).map(([reason, count]) => `${reason} ${count}`);
    console.log(
      `\n  seed ${SEED}: ${run.frames.tx} frames out, ${run.frames.rx} in, ${run.atEnd} at the end of memory, ` +
        `${run.compared} compared with the twin` +
        `\n  passed tx ${tx.passed} (${tx.joined} messages joined, ${tx.copies} copies, ${tx.marked} classes), ` +
        `put aside ${tx.deferred} (${run.waited} wait), records ${JSON.stringify([...records])}` +
        `\n  passed rx ${rx.passed} (${rx.partialChecksums} unfinished checksums, ${rx.superFrames} super-frames, ` +
        `${rx.joined} joined, ${run.sumOf(layout.COUNTER_RX_MARKED)} marked)\n  ${counts.join(', ')}`,
    );
    assert.is(run.traps, 0, 'no trap');
    assert.ok(run.atEnd * 2 >= frames, 'half of the frames lie at the end of memory');
    const verdicts: readonly string[] = [...CORE_VERDICTS, ...encapsulation.drops];
    for (const verdict of verdicts as DropName[]) {
      assert.ok(drops.get(verdict)! >= least, `${verdict}: reached ${drops.get(verdict)} times`);
    }
    for (const [verdict, count] of drops) {
      assert.ok(count === 0 || verdicts.includes(verdict), `${verdict} is not the core's`);
    }
    const mustBe = {
      'frames that pass': Math.min(tx.passed, rx.passed),
      'frames that wait': run.waited,
      copies: tx.copies,
      classes: tx.marked,
      'unfinished checksums': rx.partialChecksums,
      'super-frames': rx.superFrames,
      'joined frames': rx.joined,
      'marked frames': run.sumOf(layout.COUNTER_RX_MARKED),
      ...(encapsulation.hasFlowId ? {} : { 'joined messages': tx.joined }),
    };
    for (const [what, count] of Object.entries(mustBe)) assert.ok(count >= least, `${what}: ${count}`);
    const { MISS_TARGET, MISS_PROXY, MISS_SOURCE, MISS_LEARN, MISS_TOO_BIG } = layout;
    for (const record of [MISS_TARGET, MISS_PROXY, MISS_SOURCE, MISS_LEARN, MISS_TOO_BIG]) {
      assert.ok(records.get(record)! >= least, `records of kind ${record}: ${records.get(record)}`);
    }
    assert.is(run.sumOf(layout.COUNTER_RX_FRAMES), rx.passed, 'delivered is what passed');
    assert.is(run.sumOf(layout.COUNTER_RX_JOINED), rx.joined);
    assert.is(run.sumOf(layout.COUNTER_RX_SUPER_FRAMES), rx.superFrames);
    const dropped = [...drops.values()].reduce((sum, count) => sum + count, 0);
    const read = run.sumOf(layout.COUNTER_TX_READ) + rig.muxCount(layout.COUNTER_RX_READ);
    assert.is(read, tx.passed + tx.deferred + rx.passed + dropped, 'books');
    assert.is(read, frames);
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
function checkDoctoredTx(
  doctor: (rig: CoreRig, device: number) => void,
  settings: Partial<FuzzDevice> = {},
  frame = FRAME,
  encapsulation = vxlanEncapsulation,
): void {
  const rig = new CoreRig({ encapsulation });
  const world = new FuzzWorld(rig, new Xorshift(1));
  const row = [...world.devices.keys()][0]!;
  world.set(row, {}, settings);
  const device = world.devices.get(row)!;
  const check = new TxCheck(rig, world);
  for (let i = 0; i < 2; i++) {
    const offset = rig.arena + layout.ARENA_TX_BUFFER + layout.TX_HEADROOM_BYTES + i * 1024;
    rig.views.u8.fill(0, offset, offset + layout.VNET_HDR_BYTES);
    rig.views.u8.set(frame, offset + layout.VNET_HDR_BYTES);
    check.place(device, i, offset, layout.VNET_HDR_BYTES + frame.length);
    rig.noteFrame(i, offset, layout.VNET_HDR_BYTES + frame.length);
  }
  check.begin(device, 2);
  rig.decideTx(row, 2);
  const groups = rig.core.txArrange(rig.arena, row, 2);
  doctor(rig, row);
  check.check(device, 2, groups);
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

/** What only some settings bring about: joined messages, their control messages, a flow label. */
fuzz('the checker sees doctored control messages', () => {
  const { mmsghdr } = structs;
  const message = (rig: CoreRig, field: number) => (rig.arena + layout.ARENA_TX_MESSAGES + field) / 4;
  // Behind those of the destination.
  const control = (rig: CoreRig, at: number) => (rig.arena + layout.ARENA_TX_CONTROLS + 40 + at) / 4;
  const content = (rig: CoreRig) => (rig.arena + layout.ARENA_TX_CONTENTS) / 4;
  const settings = { flags: layout.DEVICE_FLAG_UDP_SEGMENT, dscp: 46 };
  checkDoctoredTx(() => {}, settings);
  const doctors: Record<string, (rig: CoreRig, device: number) => void> = {
    'another class': (rig) => rig.views.u32[control(rig, 16)]!++,
    'a class of the other family': (rig) => (rig.views.u32[control(rig, 8)] = 0),
    'another size': (rig) => rig.views.u32[control(rig, 24 + 16)]!++,
    'a size of another kind': (rig) => rig.views.u32[control(rig, 24 + 12)]!++,
    'a control of the destination that changed': (rig) => rig.views.u32[control(rig, -4)]!++,
    'a control message less': (rig) =>
      (rig.views.u32[message(rig, mmsghdr['msg_hdr.msg_controllen'])]! -= 24),
    'one datagram': (rig) => (rig.views.u32[content(rig) + 3] = 1),
    'a frame of another class': (rig) => rig.views.u8[rig.arena + layout.ARENA_TX_CLASSES + 1]!++,
    'another way': (rig) => rig.views.u32.fill(1, ...wordsOf(rig.arena + layout.ARENA_TX_ROUTES, 2)),
  };
  for (const [what, doctor] of Object.entries(doctors)) {
    assert.throws(
      () => checkDoctoredTx(doctor, settings),
      (error: unknown) => error instanceof BatchFault,
      what,
    );
  }
  const labelled = (doctor: (rig: CoreRig) => void) => checkDoctoredTx(doctor, {}, FRAME, nvgreEncapsulation);
  labelled(() => {});
  assert.throws(() => labelled((rig) => rig.views.u8[control(rig, 16) * 4 + 3]!++), /flow label/);
  const isNotJoined = (rig: CoreRig, row: number) =>
    rig.tables.setDeviceFlags(row, layout.DEVICE_FLAG_UDP_SEGMENT, layout.DEVICE_FLAG_UDP_SEGMENT);
  assert.throws(
    () =>
      checkDoctoredTx((rig, row) => {
        isNotJoined(rig, row);
        rig.core.txArrange(rig.arena, row, 2);
      }),
    /2 datagrams/,
    'joined although the device does not join',
  );
});

function wordsOf(at: number, count: number): [from: number, to: number] {
  return [at / 4, at / 4 + count];
}

const TCP4 = sampleFrames(20).find(({ name }) => name === 'tcp4 partial')!.frame;

/** A checked batch of two datagrams, doctored in between. */
function checkDoctoredRx(
  doctor: (rig: CoreRig, device: number) => void,
  flags = 0,
  frames: readonly Uint8Array[] = [TCP4, TCP4],
): void {
  const rig = new CoreRig();
  const world = new FuzzWorld(rig, new Xorshift(1));
  const [row] = world.devices.keys();
  world.set(row!, {}, { flags });
  const check = new RxCheck(rig, world);
  const datagrams = frames.map((frame) => twin.encap(1, frame));
  rig.placeDatagrams(datagrams);
  check.note();
  check.begin();
  for (const [i, { length }] of datagrams.entries()) check.place(i, rig.rxSlot(i), length, length);
  rig.decideRx(frames.length);
  doctor(rig, row!);
  check.check(frames.length);
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

fuzz('the checker sees a doctored verdict on a datagram alone', () => {
  const checkDoctored = (said: number, doctor: (rig: CoreRig) => void = () => {}) => {
    const rig = new CoreRig();
    const check = new RxCheck(rig, new FuzzWorld(rig, new Xorshift(1)));
    const datagram = twin.encap(0x777, TCP4);
    rig.placeDatagramAtEnd(datagram);
    check.note();
    check.begin();
    check.place(0, rig.end - datagram.length, datagram.length, datagram.length);
    assert.is(rig.core.rxDatagram(rig.arena, rig.mux), layout.DROP_RX_UNKNOWN_VNETID);
    doctor(rig);
    check.checkOne(said);
    check.checkDrops(1);
  };
  const said = layout.DROP_RX_UNKNOWN_VNETID;
  checkDoctored(said);
  for (const other of [layout.DROP_RX_BAD_HEADER, layout.VERDICT_PASS, layout.VERDICT_MISS]) {
    assert.throws(() => checkDoctored(other), /verdict|writes/, `verdict ${other}`);
  }
  for (const reason of [said, layout.DROP_RX_BAD_HEADER]) {
    const again = (rig: CoreRig) => rig.core.dropMux(rig.arena, rig.mux, reason, 1);
    assert.throws(() => checkDoctored(said, again), /verdict|drops/, `another drop ${reason}`);
  }
});

fuzz('the checker sees doctored super-frames', () => {
  const { DEVICE_FLAG_COALESCE } = layout;
  const three = fuzzStreams()[0]!.slice(0, 3);
  const write = (rig: CoreRig, field: number) => (rig.arena + layout.ARENA_RX_WRITES + field) / 4;
  const vector = (rig: CoreRig, i: number, field: number) =>
    (rig.arena + layout.ARENA_RX_WRITE_IOVECS + i * IOVEC_BYTES + field) / 4;
  const chain = (rig: CoreRig, i: number) =>
    (rig.arena + layout.ARENA_RX_DATAGRAMS + i * layout.RX_DATAGRAM_BYTES) / 4 + 2;
  const header = (rig: CoreRig) => rig.rxSlot(0) - 2;
  const joined = (doctor: (rig: CoreRig, device: number) => void) =>
    checkDoctoredRx(doctor, DEVICE_FLAG_COALESCE, three);
  joined((rig) => assert.is(rig.writeCount, 1));
  const { iovec } = structs;
  const doctors: Record<string, (rig: CoreRig) => void> = {
    'a frame less': (rig) => rig.views.u32[write(rig, 20)]!--,
    'a frame more': (rig) => rig.views.u32[write(rig, 20)]!++,
    'another last one': (rig) => rig.views.u32[write(rig, 28)]!--,
    'another first one': (rig) => rig.views.u32[write(rig, 24)]!++,
    'a part twice': (rig) => (rig.views.u32[chain(rig, 1)] = 1),
    'a part left out': (rig) => (rig.views.u32[chain(rig, 0)] = 2),
    'a byte less': (rig) => rig.views.u32[write(rig, 8)]!--,
    'an iovec less': (rig) => rig.views.u32[write(rig, 16)]!--,
    'iovecs elsewhere': (rig) => (rig.views.u32[write(rig, 4)]! += IOVEC_BYTES),
    'an iovec a byte on': (rig) => rig.views.u32[vector(rig, 1, iovec.iov_base)]!++,
    'an iovec far away': (rig) => rig.views.u32[vector(rig, 2, iovec.iov_base) + 1]!++,
    'a longer iovec': (rig) => rig.views.u32[vector(rig, 2, iovec.iov_len)]!++,
    'no checksum to finish': (rig) => (rig.views.u8[header(rig)] = 0),
    'no GSO': (rig) => (rig.views.u8[header(rig) + 1] = 0),
    'GSO of UDP': (rig) => (rig.views.u8[header(rig) + 1] = 5),
    'longer headers': (rig) => rig.views.u8[header(rig) + 2]!++,
    'another size': (rig) => rig.views.u8[header(rig) + 4]!--,
  };
  for (const [what, doctor] of Object.entries(doctors)) {
    assert.throws(
      () => joined(doctor),
      (error: unknown) => error instanceof BatchFault,
      what,
    );
  }
});

fuzz.run();
