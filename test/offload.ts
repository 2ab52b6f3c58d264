/**
 * The core's offloads against their slow twins: super-frames that are cut, frames that are joined. OFFLOAD_SEED repeats a run,
 * OFFLOAD_RECORDS and OFFLOAD_BURSTS make it longer.
 */
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import * as layout from '../assembly/layout.js';
import { EINVAL, EIO, EMSGSIZE } from '../src/sys/errno.js';
import { randomBetween } from '../src/sys/random.js';
import { receive } from '../workers/rx.js';
import { transmit } from '../workers/tx.js';
import { CoreRig, workerOf } from './harness/core-rig.js';
import { FlowTraffic } from './harness/flow-traffic.js';
import { RefusingKernel } from './harness/refusing-kernel.js';
import { SuperFrames } from './harness/super-frames.js';
import { Xorshift } from './harness/xorshift.js';
import { coalesceFrames } from './reference/coalesce.js';
import { findFlow } from './reference/flow.js';
import { concat } from './reference/frames.js';
import { segmentFrame } from './reference/segment.js';
import { recordOf } from './reference/vnet-hdr.js';
import * as twin from './reference/vxlan.js';

const SEED = Number(process.env.OFFLOAD_SEED ?? randomBetween(1, 0x7fffffff));
const RECORDS = Number(process.env.OFFLOAD_RECORDS ?? 4000);
const BURSTS = Number(process.env.OFFLOAD_BURSTS ?? 1500);
const VNETID = 7;
/** Above every segment of a test. */
const MTU = 65_000;
const ROOM = { bytesMax: 65_535, segmentsMax: 512 };

const JOINING = layout.DEVICE_FLAG_COALESCE | layout.DEVICE_FLAG_COALESCE_UDP;

const offload = suite('offload');

function hex(bytes: Uint8Array | undefined): string {
  return bytes ? `${Buffer.from(bytes.subarray(0, 140)).toString('hex')} (${bytes.length} bytes)` : 'nothing';
}

/** Throws when two lists differ, and says where. */
function mustEqual(seen: readonly Uint8Array[], expected: readonly Uint8Array[], what: string): void {
  for (let at = 0; at < Math.max(seen.length, expected.length); at++) {
    const [a, b] = [seen[at], expected[at]];
    if (a && b && Buffer.compare(a, b) === 0) continue;
    assert.unreachable(
      `${what}: ${at} of ${seen.length} and ${expected.length}\n${hex(a)}\n${hex(b)}, seed ${SEED}`,
    );
  }
}

function isSame(ours: readonly Uint8Array[], theirs: readonly Uint8Array[]): boolean {
  return ours.length === theirs.length && ours.every((each, at) => Buffer.compare(each, theirs[at]!) === 0);
}

function text(frame: Uint8Array): string {
  return Buffer.from(frame.buffer, frame.byteOffset, frame.length).toString('latin1');
}

// ─── Out ────────────────────────────────────────────────────────────────────────────────────────────────

for (const [name, flags] of [
  ['datagram by datagram', 0],
  ['joined in messages', layout.DEVICE_FLAG_UDP_SEGMENT],
] as const) {
  offload(`${RECORDS} records, ${name}: the core cuts as its twin does`, () => {
    const rig = new CoreRig();
    const device = rig.addDevice({ vnetid: VNETID, mtu: MTU, flags });
    const random = new Xorshift(SEED);
    const records = new SuperFrames(random);
    const counts = { cut: 0, finished: 0, refused: 0 };
    for (let i = 0; i < RECORDS; i++) {
      const record = random.below(4) === 0 ? records.malformed().record : records.next();
      rig.placeFrameAtEnd(record);
      const verdict = rig.core.txFrame(rig.arena, device, 0);
      const expected = record.length < 24 ? undefined : twin.sendable(record);
      if (!expected) {
        counts.refused++;
        if (verdict === layout.VERDICT_PASS) assert.unreachable(`passes: ${hex(record)}, seed ${SEED}`);
        continue;
      }
      if (verdict !== layout.VERDICT_PASS)
        assert.unreachable(`verdict ${verdict}: ${hex(record)}, seed ${SEED}`);
      const datagrams = rig.groups(device, 1).flatMap((group) => group.datagrams);
      mustEqual(
        datagrams,
        expected.map((frame) => twin.encap(VNETID, frame)),
        hex(record),
      );
      if (expected.length > 1) counts.cut++;
      else counts.finished++;
    }
    console.log(`\n  seed ${SEED}: ${JSON.stringify(counts)}`);
    for (const count of Object.values(counts)) assert.ok(count > RECORDS / 50);
  });
}

offload('batches of super-frames and others: every datagram once, and in order within a socket', () => {
  const random = new Xorshift(SEED);
  const records = new SuperFrames(random);
  for (let round = 0; round < 200; round++) {
    const rig = new CoreRig({ bank: 1 + random.below(16) });
    const flags = random.below(4) === 0 ? 0 : layout.DEVICE_FLAG_UDP_SEGMENT;
    const device = rig.addDevice({ vnetid: VNETID, mtu: MTU, flags });
    const batch: Uint8Array[] = [];
    let at = rig.arena + layout.ARENA_TX_BUFFER + layout.TX_HEADROOM_BYTES;
    const end = rig.arena + layout.ARENA_TX_BUFFER + layout.TX_BUFFER_BYTES - layout.FRAME_BYTES_MAX;
    while (batch.length < layout.BATCH_MAX && at <= end) {
      const record = records.next();
      const made = twin.sendable(record);
      if (!made || made.length > 400) continue;
      rig.views.u8.set(record, at);
      rig.noteFrame(batch.length, at, record.length);
      batch.push(record);
      at = Math.ceil((at + record.length) / 64) * 64 + layout.TX_HEADROOM_BYTES;
    }
    assert.is(rig.decideTx(device, batch.length), 0);
    const sockets = batch.map((_, i) => rig.socketOf(i));
    const groups = rig.groups(device, batch.length);
    for (const socket of new Set(sockets)) {
      const sent = groups.filter(({ fd }) => fd === 1000 + socket).flatMap(({ datagrams }) => datagrams);
      const expected = batch
        .filter((_, i) => sockets[i] === socket)
        .flatMap((record) => twin.sendable(record)!.map((frame) => twin.encap(VNETID, frame)));
      mustEqual(sent, expected, `round ${round}, socket ${socket}`);
    }
    const frames = groups.flatMap((group) => group.frames).sort((a, b) => a - b);
    assert.equal(
      frames,
      batch.map((_, i) => i),
      'each frame ends in one message',
    );
  }
});

offload('a message that cannot be cut goes datagram by datagram, from there on', () => {
  const random = new Xorshift(SEED);
  const records = new SuperFrames(random);
  for (let round = 0; round < 200; round++) {
    const rig = new CoreRig({ bank: 2 });
    const device = rig.addDevice({ vnetid: VNETID, mtu: MTU, flags: layout.DEVICE_FLAG_UDP_SEGMENT });
    const record = records.superFrame();
    const made = twin.sendable(record);
    if (!made || made.length < 2) continue;
    rig.placeFrameAtEnd(record);
    assert.is(rig.decideTx(device, 1), 0);
    const { core, arena } = rig;
    const sent: Uint8Array[] = [];
    let isBack = false;
    let groups = core.txArrange(arena, device, 1);
    while (groups > 0) {
      const laidOut = rig.laidOut(groups);
      const messages = rig.messageCount(groups);
      const failing = isBack ? -1 : random.below(messages);
      if (failing < 0) sent.push(...laidOut.flatMap(({ datagrams }) => datagrams));
      else {
        isBack = true;
        for (let message = 0; message < failing; message++) sent.push(...rig.datagramsOf(message));
        core.txRetreat(arena, failing);
      }
      groups = core.txLayOut(arena, device);
      if (isBack) {
        for (let message = 0; message < rig.messageCount(groups); message++) {
          assert.is(core.txDatagrams(arena, message), 1);
        }
      }
    }
    mustEqual(
      sent,
      made.map((frame) => twin.encap(VNETID, frame)),
      hex(record),
    );
  }
});

/** A TAP with records in it, and an underlay that takes no datagram above a length, and cuts no message at all when it is told so. */
class FussyKernel extends RefusingKernel {
  readonly link: Uint8Array[] = [];
  readonly sent: Uint8Array[] = [];
  failure = 0;
  messages = 0;

  constructor(
    readonly rig: CoreRig,
    readonly bytesMax: number,
    readonly cutFailure: number,
  ) {
    super();
  }

  override read(_fd: number, address: number): number {
    const record = this.link.shift();
    if (!record) return -1;
    this.rig.views.u8.set(record, address - this.rig.views.base);
    return record.length;
  }

  override sendmmsg(_fd: number, messages: number, count: number): number {
    const { rig } = this;
    const first = (messages - rig.views.base - rig.arena - layout.ARENA_TX_MESSAGES) / 64;
    for (let done = 0; done < count; done++) {
      const datagrams = rig.datagramsOf(first + done);
      const isLong = datagrams.some(({ length }) => length > this.bytesMax);
      const failure = datagrams.length > 1 && this.cutFailure !== 0 ? this.cutFailure : isLong ? EMSGSIZE : 0;
      if (failure !== 0) {
        this.failure = failure;
        return done === 0 ? -1 : done;
      }
      this.sent.push(...datagrams);
      this.messages++;
    }
    return count;
  }

  override errno(): number {
    return this.failure;
  }
}

for (const [name, cutFailure] of [
  ['a path that is too narrow for some', 0],
  ['a kernel that cuts nothing (EIO)', EIO],
  ['a kernel that cuts nothing (EINVAL)', EINVAL],
] as const) {
  offload(`${name}: what is at fault is dropped by name, everything else goes`, () => {
    const random = new Xorshift(SEED);
    const records = new SuperFrames(random);
    for (let round = 0; round < 60; round++) {
      const rig = new CoreRig({ bank: 1 + random.below(4) });
      const device = rig.addDevice({ vnetid: VNETID, mtu: MTU, flags: layout.DEVICE_FLAG_UDP_SEGMENT });
      const kernel = new FussyKernel(rig, 1300, cutFailure);
      const worker = workerOf(rig, kernel);
      const made: Uint8Array[][] = [];
      while (made.length < 40) {
        const record = records.next();
        const frames = twin.sendable(record);
        if (!frames || frames.length > 200) continue;
        kernel.link.push(record);
        made.push(frames.map((frame) => twin.encap(VNETID, frame)));
      }
      while (kernel.link.length > 0) transmit(worker, device);
      const fits = (datagram: Uint8Array) => datagram.length <= 1300;
      const expected = made.flat().filter(fits);
      assert.equal(kernel.sent.map(text).sort(), expected.map(text).sort(), `round ${round}, seed ${SEED}`);
      const whole = made.filter((datagrams) => datagrams.every(fits)).length;
      assert.is(rig.deviceCount(device, layout.COUNTER_TX_FRAMES), whole);
      assert.is(rig.deviceCount(device, layout.DROP_TX_UNDERLAY_MTU), made.length - whole);
      assert.is(rig.deviceCount(device, layout.COUNTER_TX_DATAGRAMS), expected.length);
      assert.is(rig.deviceCount(device, layout.COUNTER_TX_MESSAGES), kernel.messages);
      if (cutFailure !== 0) assert.ok(rig.deviceCount(device, layout.COUNTER_TX_UNCUT) > 0);
    }
  });
}

// ─── In ─────────────────────────────────────────────────────────────────────────────────────────────────

/** Frames as messages: each by itself, or as the kernel joins those of one size. */
function fold(frames: readonly Uint8Array[], random: Xorshift, isFolded: boolean): Uint8Array[][] {
  const messages: Uint8Array[][] = [];
  for (const frame of frames) {
    const last = messages[messages.length - 1];
    const size = last?.[0]?.length ?? 0;
    const isOpen = last && last[last.length - 1]!.length === size && frame.length <= size && last.length < 64;
    const bytes = (last?.length ?? 0) * (size + 8);
    if (isFolded && isOpen && bytes + frame.length + 8 < 65_507 && random.below(8) > 0) last.push(frame);
    else messages.push([frame]);
  }
  return messages;
}

for (const [name, isFolded] of [
  ['each in a message', false],
  ['folded by the kernel', true],
] as const) {
  offload(`${BURSTS} bursts, ${name}: the core joins as its twin does, and nothing is lost`, () => {
    const random = new Xorshift(SEED);
    const traffic = new FlowTraffic(random);
    let joined = 0;
    let same = 0;
    for (let burst = 0; burst < BURSTS; burst++) {
      const rig = new CoreRig({ seed: BigInt(random.next()) });
      rig.addDevice({ vnetid: VNETID, mtu: 1500, flags: JOINING });
      const fits = (frame: Uint8Array) => frame.length >= 14 && frame.length <= 1514;
      const frames = traffic.next(layout.BATCH_MAX).filter(fits).slice(0, layout.BATCH_MAX);
      const messages = fold(frames, random, isFolded);
      rig.placeMessages(messages.map((each) => each.map((frame) => twin.encap(VNETID, frame))));
      assert.is(rig.decideRx(messages.length), 0);
      const records = rig.writes().map(({ bytes }) => bytes);
      const expected = coalesceFrames(frames, ROOM);
      // Two flows that share a place in the table end each other's super-frames, which no receiver can tell.
      if (isSame(records, expected.map(unfinished))) same++;
      assert.ok(records.length >= expected.length, 'never more than the twin joins');
      mustKeepFrames(records, frames, burst);
      joined += frames.length - records.length;
    }
    console.log(`\n  seed ${SEED}: ${joined} joined, ${same} of ${BURSTS} bursts as the twin`);
    assert.ok(joined > BURSTS);
    assert.ok(same > BURSTS * 0.95);
  });
}

/** A frame with an unfinished checksum, by chance or on purpose, is handed on as one: see `twin.receive`. */
function unfinished(record: Uint8Array): Uint8Array {
  if (record[0] !== 0) return record;
  const rules = { vnetid: VNETID, mtu: 1500, carriesVlan: true, isActive: true, hasTarget: true };
  return twin.receive([rules], twin.encap(VNETID, record.subarray(10)), false).written!;
}

/** Cut again, records give all frames, those of each flow in their order. */
function mustKeepFrames(records: readonly Uint8Array[], frames: readonly Uint8Array[], burst: number): void {
  const back = records.flatMap((record) => {
    // Of frames that were written alone nothing is changed.
    if (record[1] === 0) return [record.subarray(10)];
    const cut = segmentFrame(record);
    if (!cut) throw new Error(`burst ${burst}: malformed ${hex(record)}`);
    return cut;
  });
  assert.equal(back.map(text).sort(), frames.map(text).sort(), `burst ${burst}`);
  const keys = new Set(frames.map(keyOf));
  for (const key of keys) {
    if (key === undefined) continue;
    mustEqual(
      back.filter((frame) => keyOf(frame) === key),
      frames.filter((frame) => keyOf(frame) === key),
      `burst ${burst}, a flow`,
    );
  }
}

function keyOf(frame: Uint8Array): string | undefined {
  const flow = findFlow(frame);
  return typeof flow === 'object' ? flow.key : undefined;
}

offload('a kernel that takes no super-frames of UDP: those of TCP are joined, and no others', () => {
  const random = new Xorshift(SEED);
  const traffic = new FlowTraffic(random);
  let tcp = 0;
  for (let burst = 0; burst < 200; burst++) {
    const rig = new CoreRig({ seed: BigInt(random.next()) });
    rig.addDevice({ vnetid: VNETID, mtu: 1500, flags: layout.DEVICE_FLAG_COALESCE });
    const fits = (frame: Uint8Array) => frame.length >= 14 && frame.length <= 1514;
    const frames = traffic.next(layout.BATCH_MAX).filter(fits).slice(0, layout.BATCH_MAX);
    rig.placeMessages(frames.map((frame) => [twin.encap(VNETID, frame)]));
    assert.is(rig.decideRx(frames.length), 0);
    const records = rig.writes().map(({ bytes }) => bytes);
    for (const record of records) {
      assert.is.not(record[1], 5, 'no super-frame of UDP');
      if (record[1] !== 0) tcp++;
    }
    mustKeepFrames(records, frames, burst);
  }
  assert.ok(tcp > 200, `${tcp} super-frames of TCP`);
});

offload('more datagrams than the list has room for: in rounds, all of them', () => {
  const rig = new CoreRig();
  rig.addDevice({ vnetid: VNETID, mtu: 1500, flags: JOINING });
  const { core, arena, mux } = rig;
  const frame = concat(new Uint8Array(12), Uint8Array.of(0x88, 0xb5), new Uint8Array(46));
  const message = Array.from({ length: 100 }, () => twin.encap(VNETID, frame));
  rig.placeMessages(Array.from({ length: 64 }, () => message));
  core.rxBegin(arena, mux, 64);
  let seen = 0;
  for (let count = core.rxUnfold(arena, mux); count > 0; count = core.rxUnfold(arena, mux)) {
    assert.ok(count <= layout.RX_DATAGRAMS_MAX);
    assert.is(core.rxDecide(arena, mux, 0, count), count);
    core.rxGather(arena);
    for (const { bytes } of rig.writes()) assert.equal(bytes, recordOf({}, frame));
    core.rxDelivered(arena);
    seen += count;
  }
  assert.is(seen, 6400);
  assert.is(rig.muxCount(layout.COUNTER_RX_READ), 6400);
  assert.is(rig.deviceCount(0, layout.COUNTER_RX_FRAMES), 6400);
});

/** A link that takes frames and no super-frames: each batch is the same datagrams. */
class NarrowLink extends RefusingKernel {
  written = 0;

  constructor(
    readonly rig: CoreRig,
    readonly messages: readonly (readonly Uint8Array[])[],
  ) {
    super();
  }

  override recvmmsg(): number {
    this.rig.placeMessages(this.messages);
    return this.messages.length;
  }

  override write(): number {
    return ++this.written;
  }

  override writev(): number {
    return -1;
  }

  override errno(): number {
    return EINVAL;
  }
}

offload(
  'a link that takes no super-frame: those written are dropped by name, and main hears of it once a batch',
  () => {
    const rig = new CoreRig();
    const device = rig.addDevice({ vnetid: VNETID, mtu: 1500, flags: JOINING });
    rig.views.i32[(rig.arena + layout.ARENA_RECEIVE_FDS) / 4 + rig.mux] = 1;
    const records = new SuperFrames(new Xorshift(SEED));
    let segments: readonly Uint8Array[] = [];
    while (segments.length < 3 || segments.length > 60 || coalesceFrames(segments, ROOM).length > 1) {
      segments = (segmentFrame(records.superFrame()) ?? []).filter((frame) => frame.length <= 1514);
    }
    const other = concat(new Uint8Array(12), Uint8Array.of(0x88, 0xb5), new Uint8Array(46));
    const link = new NarrowLink(
      rig,
      [...segments, other].map((frame) => [twin.encap(VNETID, frame)]),
    );
    const worker = workerOf(rig, link);
    receive(worker, rig.mux);
    assert.is(link.written, 1);
    assert.is(rig.deviceCount(device, layout.DROP_RX_LINK_ERROR), segments.length);
    assert.is(rig.deviceCount(device, layout.COUNTER_RX_FRAMES), 1);
    const event = rig.arena + layout.ARENA_SCRATCH;
    assert.is(
      rig.core.ringPop(rig.arena + layout.ARENA_EVENTS, event, layout.EVENT_BYTES),
      layout.EVENT_BYTES,
    );
    const { u32 } = rig.views;
    assert.equal([...u32.subarray(event / 4, event / 4 + 3)], [layout.EVENT_RX_UNTAKEN, device, EINVAL]);
  },
);

offload.run();
