/** Batches of fuzzed frames and datagrams, one by one at the end of memory and many at once, through the checkers and the twin. */
import * as assert from 'uvu/assert';
import * as layout from '../../assembly/layout.js';
import { dropNames } from '../../src/datapath/drop.js';
import { decapEcn, innerClass } from '../reference/ecn.js';
import { clamped } from '../reference/mss.js';
import { segmentFrame } from '../reference/segment.js';
import * as twin from '../reference/vxlan.js';
import { fault } from './batch-guard.js';
import { CoreRig, type RigOptions } from './core-rig.js';
import { FrameFuzzer, scratchBytes } from './frame-fuzzer.js';
import { fuzzSamples, fuzzStreams } from './fuzz-samples.js';
import { type FuzzDevice, FuzzWorld, MACS } from './fuzz-world.js';
import { RxCheck } from './rx-check.js';
import { TxCheck } from './tx-check.js';
import { Xorshift128 } from './xorshift.js';

/** One batch in so many is compared with the twin, which is slow. */
const TWIN_EVERY = 61;
/** Bytes for each frame of a packed transmit batch. */
const TX_STRIDE = 16384;
/** Rounds for which settings are the same, rings are not emptied, and frames that wait do. */
const DRAW_ROUNDS = 512;
const DRAIN_ROUNDS = 128;
const WAIT_ROUNDS = 32;
/** A device row that no device of the fuzz has. */
const NOBODY = layout.DEVICES_MAX - 1;
/** Of records that keep others out. */
const FILLER_BYTES = 32_000;
/** Then there is no room for most frames, not even for the first of a device. */
const SMALL_FILLER_BYTES = 200;

/** What is known of a datagram beside its bytes. */
interface Arrival {
  readonly isTruncated: boolean;
  /** Which of the senders. */
  readonly sender: number;
  readonly trafficClass: number;
}

/** What the twin says of a datagram, and what it makes of it. */
interface Expected {
  readonly verdict: string;
  readonly header?: Uint8Array;
  readonly frame?: Uint8Array;
}

export class FuzzRun {
  readonly rig: CoreRig;
  readonly random: Xorshift128;
  readonly world: FuzzWorld;
  readonly tx: TxCheck;
  readonly rx: RxCheck;
  readonly fuzzer: FrameFuzzer;
  frames = { tx: 0, rx: 0 };
  atEnd = 0;
  compared = 0;
  traps = 0;
  /** Records of frames that were put aside, and of others, by kind. */
  readonly records = new Map<number, number>();
  waited = 0;
  #batches = 0;
  #rounds = 0;
  readonly #devices: readonly number[];

  constructor(seed: number, options: RigOptions) {
    const rig = new CoreRig({ ...options, seed: BigInt(seed) });
    this.rig = rig;
    this.random = new Xorshift128(seed);
    this.world = new FuzzWorld(rig, this.random);
    this.tx = new TxCheck(rig, this.world);
    this.rx = new RxCheck(rig, this.world);
    this.#devices = [...this.world.devices.keys()];
    const targets = {
      vnetids: [...rig.rules.values()].map(({ vnetid }) => vnetid),
      edges: [14, 576 + 14, 576 + 18, 1400 + 14, 1400 + 18],
      macs: MACS,
      streams: fuzzStreams(),
    };
    const at = this.world.pool.take(scratchBytes(fuzzSamples(), targets), 'what the fuzzer makes');
    this.fuzzer = new FrameFuzzer(this.random, fuzzSamples(), targets, rig.views.u8, at);
    this.world.keep();
  }

  /** The way that is behind: as many frames one by one, each flush with the end of memory, as in one batch. */
  round(): void {
    const { rx, frames } = this;
    this.fuzzer.follow(this.random.below(2) === 0);
    if (frames.tx <= frames.rx) {
      for (let i = 0; i < layout.BATCH_MAX; i++) this.#transmit(1);
      this.#transmit(layout.BATCH_MAX);
    } else {
      rx.note();
      const count = this.#receive();
      rx.note();
      for (let i = 0; i < count; i++) this.#receiveOne();
      rx.checkDrops(count);
      this.tx.forget();
    }
    const round = ++this.#rounds;
    if (round % WAIT_ROUNDS === 0) this.#emptyWait();
    if (round % DRAIN_ROUNDS === 0) this.emptyRings();
    if (round % DRAW_ROUNDS === 0) this.#draw();
  }

  /** Nothing that batches may not change has changed; then there are other settings. */
  #draw(): void {
    this.world.mustBeKept();
    this.world.draw();
    this.world.keep();
  }

  #transmit(count: number): void {
    const { tx, fuzzer, rig, random, world } = this;
    const device = world.devices.get(this.#devices[random.below(this.#devices.length)]!)!;
    const first = rig.arena + layout.ARENA_TX_BUFFER + layout.TX_HEADROOM_BYTES;
    for (let i = 0; i < count; i++) {
      fuzzer.makeFrame();
      const isLast = i === count - 1;
      const length = isLast
        ? fuzzer.length
        : Math.min(fuzzer.length, TX_STRIDE - layout.TX_HEADROOM_BYTES - 64);
      const offset = isLast ? rig.end - length : first + i * TX_STRIDE + random.below(32);
      fuzzer.copyTo(offset);
      tx.place(device, i, offset, length);
      rig.noteFrame(i, offset, length);
    }
    const isCompared = this.#batches++ % TWIN_EVERY === 0;
    const before = isCompared ? this.#copies(count) : undefined;
    tx.begin(device, count);
    this.traps += rig.decideTx(device.row, count);
    const groups = rig.core.txArrange(rig.arena, device.row, count);
    const routes = before?.map((_, i) => rig.views.u32[(rig.arena + layout.ARENA_TX_ROUTES) / 4 + i]!);
    tx.check(device, count, groups);
    before?.forEach((read, i) => {
      this.#compareTx(device, i, read, routes![i]!);
    });
    this.frames.tx += count;
    this.atEnd++;
  }

  /** A frame with what the twin says of it, and as the twin leaves it. */
  #compareTx(device: FuzzDevice, i: number, read: Uint8Array, route: number): void {
    const { rig, tx, world } = this;
    const { u8 } = rig.views;
    const passes = rig.socketOf(i) !== layout.TX_SOCKET_DROPPED;
    const expected = this.#passes(device, read, tx.guard.offsets[i]! + layout.VNET_HDR_BYTES, route, passes);
    if (passes !== expected) assert.unreachable(`${hex(read)}: passes ${passes}, twin ${expected}`);
    this.compared++;
    const after = u8.subarray(
      tx.guard.offsets[i]! + layout.VNET_HDR_BYTES,
      tx.guard.offsets[i]! + read.length,
    );
    const untouched = read.subarray(layout.VNET_HDR_BYTES);
    if (!passes) return;
    // One whose checksum was unfinished has it now; of super-frames the segments are looked at elsewhere.
    const [alone, ...more] = twin.sendable(read)!;
    const isSuper = more.length > 0;
    const { mss } = device;
    const room = mss.isByPath && !world.lists.has(route) ? world.frameMax(route) : 0;
    const sent = isSuper ? untouched : alone!;
    const left = mss[4] === 0 ? sent : clamped(sent, mss, isSuper, room);
    if (!isSame(after, left)) assert.unreachable(`${hex(read)}: the frame became ${hex(after)}`);
    const inherits = device.dscp === layout.DSCP_INHERIT;
    const ecn = device.flags & layout.DEVICE_FLAG_ECN_CLEAR ? 0 : 3;
    const classOf = (inner: number) => (inherits ? inner & (0xfc | ecn) : (inner & ecn) | (device.dscp << 2));
    const seen = u8[rig.arena + layout.ARENA_TX_CLASSES + i]!;
    // The class of a packet that is not as long as it says is nobody's.
    const isLying = seen === classOf(0) && twin.findTransport(untouched) === undefined;
    if (seen !== classOf(innerClass(untouched)) && !isLying)
      assert.unreachable(`${hex(read)}: traffic class ${seen}`);
  }

  /** True for a frame that is sent, by the twin and by where its target leads. */
  #passes(device: FuzzDevice, read: Uint8Array, frame: number, route: number, seen: boolean): boolean {
    const { world } = this;
    const verdict = twin.txVerdict(device.rules, read);
    if (verdict !== 'pass') return false;
    const way = world.wayOf(device, frame);
    if (way === undefined) return false;
    // Of one to a group varpd may know the answer.
    const isGroup = (read[layout.VNET_HDR_BYTES]! & 1) === 1;
    if (isGroup && device.flags & layout.DEVICE_FLAG_PROXY) return seen;
    const largest = twin.sendable(read)![0]!.length;
    const rows = world.lists.get(way);
    if (!rows) return world.frameMax(way) === 0 || largest <= world.frameMax(way);
    // Of a list on which each flow has its own way it is not known which one was too narrow.
    const isNarrow = rows.some((row) => world.frameMax(row) !== 0 && largest > world.frameMax(row));
    if (!isNarrow) return true;
    return seen && largest <= (world.frameMax(route) || largest);
  }

  /** One datagram, which ends where the memory does. */
  #receiveOne(): void {
    const { rx, fuzzer, random, rig } = this;
    fuzzer.makeDatagram(rig.encapsulation);
    const { length } = fuzzer;
    const offset = rig.end - length;
    fuzzer.copyTo(offset);
    const isTruncated = random.below(128) === 0;
    const sender = this.#sender(0);
    const trafficClass = this.#class();
    rx.begin();
    rx.place(0, offset, length, 65536);
    rig.noteDatagram(0, offset, length, isTruncated);
    rig.noteControl(0, trafficClass, 0);
    const isCompared = this.#batches++ % TWIN_EVERY === 0;
    const expected = isCompared ? this.#expect(0, { isTruncated, sender, trafficClass }) : undefined;
    let verdict = layout.DROP_RX_CORE_TRAP as number;
    try {
      verdict = rig.core.rxDatagram(rig.arena, rig.mux) >>> 0;
    } catch (error) {
      if (!(error instanceof WebAssembly.RuntimeError)) throw error;
      rig.core.rxTrapped(rig.arena, rig.mux);
      this.traps++;
    }
    rx.checkOne(verdict);
    if (expected) this.#compareRx([expected]);
    if (verdict === layout.VERDICT_PASS) rig.core.rxDelivered(rig.arena);
    this.frames.rx++;
    this.atEnd++;
  }

  /** Datagrams of many messages, some of which the kernel has joined; the last one ends where the memory does. Returns how many. */
  #receive(): number {
    const { rx, fuzzer, random, rig } = this;
    const arrivals: Arrival[] = [];
    const isCompared = random.below(TWIN_EVERY) === 0;
    rx.begin();
    let sender = 0;
    for (let index = 0; index < layout.BATCH_MAX; index++) {
      fuzzer.makeDatagram(rig.encapsulation);
      const size = fuzzer.length;
      const isLast = index === layout.BATCH_MAX - 1;
      // Raw sockets have one datagram a message.
      const mayJoin = !isLast && !rig.encapsulation.hasFlowId && size > 0 && size < 2048;
      const count = mayJoin && random.below(8) === 0 ? 2 + random.below(6) : 1;
      let length = size * count;
      const offset = isLast ? rig.end - length : rig.rxSlot(index);
      fuzzer.copyTo(offset);
      for (let more = 1; more < count; more++) {
        fuzzer.makeDatagram(rig.encapsulation);
        fuzzer.copyTo(offset + more * size);
      }
      if (count > 1) length -= random.below(4) === 0 ? random.below(size) : 0;
      const isTruncated = random.below(128) === 0;
      // Mostly several from one.
      if (random.below(4) === 0 || index === 0) sender = this.#sender(index);
      else rig.noteSender(index, this.world.senders[sender]!);
      const trafficClass = this.#class();
      rx.place(index, offset, length, size || 1);
      rig.noteDatagram(index, offset, length, isTruncated);
      rig.noteControl(index, trafficClass, count > 1 ? size : 0);
      if (isCompared) while (arrivals.length < rx.count) arrivals.push({ isTruncated, sender, trafficClass });
    }
    const expected = arrivals.map((arrival, i) => this.#expect(i, arrival));
    this.traps += rig.decideRx(layout.BATCH_MAX);
    rx.check(layout.BATCH_MAX);
    if (isCompared) this.#compareRx(expected);
    rig.core.rxDelivered(rig.arena);
    this.frames.rx += rx.count;
    this.atEnd++;
    return rx.count;
  }

  /** Says who sent a message; returns which of the senders. */
  #sender(index: number): number {
    const { senders } = this.world;
    const sender = this.random.below(senders.length);
    this.rig.noteSender(index, senders[sender]!);
    return sender;
  }

  /** Traffic class of an outer header, mostly 0. */
  #class(): number {
    return this.random.below(4) === 0 ? this.random.below(256) : 0;
  }

  /** What the twin makes of datagram `i`, by the settings of its device. */
  #expect(i: number, { isTruncated, sender, trafficClass }: Arrival): Expected {
    const { rx, rig, world } = this;
    const { u8 } = rig.views;
    const datagram = u8.slice(rx.offsets[i]!, rx.offsets[i]! + rx.lengths[i]!);
    const { decap, reserved } = rig.encapsulation;
    if (isTruncated) return { verdict: 'rx_truncated' };
    const inner = decap(datagram);
    if (typeof inner === 'string') return { verdict: inner };
    const device = [...world.devices.values()].find(({ rules }) => rules.vnetid === inner.vnetid);
    if (!device) return { verdict: 'rx_unknown_vnetid' };
    if (device.flags & layout.DEVICE_FLAG_RESERVED && reserved(datagram))
      return { verdict: 'rx_reserved_bits' };
    const source = rx.offsets[i]! + datagram.length - inner.frame.length + 6;
    const refusal = world.refusal(device, sender, inner.frame.length < 14 ? undefined : source);
    if (refusal) return { verdict: refusal };
    const { verdict, written } = twin.receive([device.rules], datagram, false, decap);
    if (!written) return { verdict };
    const marked = decapEcn(inner.frame, trafficClass & 3);
    if (!marked) return { verdict: 'rx_congestion' };
    if (world.isForMux(device, inner.frame)) return { verdict: 'rx_inner_to_mux' };
    const header = written.subarray(0, layout.VNET_HDR_BYTES);
    const frame = device.mss[4] === 0 ? marked : clamped(marked, device.mss, header[0] === 1);
    return { verdict, header, frame };
  }

  #compareRx(expected: readonly Expected[]): void {
    const { rig } = this;
    const { u32 } = rig.views;
    const passed = new Set<number>();
    for (const [write, { bytes }] of rig.writes().entries()) {
      const entry = (rig.arena + layout.ARENA_RX_WRITES + write * layout.RX_WRITE_BYTES) / 4;
      const frames = u32[entry + 5]!;
      // What is joined comes back byte for byte when it is cut.
      const parts = frames === 1 ? [bytes.subarray(layout.VNET_HDR_BYTES)] : segmentFrame(bytes);
      if (!(parts?.length === frames)) fault(`write ${write} cannot be cut into ${frames} frames`);
      let i = u32[entry + 6]!;
      for (const part of parts!) {
        const { verdict, frame, header } = expected[i]!;
        passed.add(i);
        if (verdict !== 'pass') fault(`datagram ${i} passes, the twin says ${verdict}`);
        if (!isSame(part, frame!)) fault(`datagram ${i} became ${hex(part)}, not ${hex(frame!)}`);
        // A finished checksum may look like an unfinished one, and is found right before.
        const isVerified = bytes[0] === 0 && header![1] === 0;
        const isHeader =
          frames > 1 || isVerified || isSame(bytes.subarray(0, layout.VNET_HDR_BYTES), header!);
        if (!isHeader) fault(`datagram ${i} has the header ${hex(bytes.subarray(0, 10))}`);
        i = u32[(rig.arena + layout.ARENA_RX_DATAGRAMS + i * layout.RX_DATAGRAM_BYTES) / 4 + 2]!;
      }
    }
    for (const [i, { verdict }] of expected.entries()) {
      if (passed.has(i) === (verdict !== 'pass')) fault(`datagram ${i} is dropped, the twin says ${verdict}`);
    }
    this.compared += expected.length;
  }

  #copies(count: number): Uint8Array[] {
    const { offsets, lengths } = this.tx.guard;
    const { u8 } = this.rig.views;
    return Array.from({ length: count }, (_, i) => u8.slice(offsets[i]!, offsets[i]! + lengths[i]!));
  }

  /** Empties the wait queue; then there is nothing in it, or hardly any room. */
  #emptyWait(): void {
    const { rig, random } = this;
    const { u32 } = rig.views;
    const used = (rig.arena + layout.ARENA_WAIT_USED) / 4;
    let at = 0;
    while (at < u32[used]!) {
      const header = (rig.arena + layout.ARENA_WAIT + at) / 4;
      if (u32[header + 2] !== NOBODY) this.waited++;
      at += 8 + ((u32[header]! + 7) & ~7);
    }
    if (at !== u32[used]) fault(`the wait queue ends at ${at}, not ${u32[used]}`);
    u32[used] = 0;
    const shares = (rig.arena + layout.ARENA_WAIT_SHARES) / 4;
    u32.fill(0, shares, shares + layout.DEVICES_MAX);
    if (random.below(2) === 0) return;
    const record = layout.WAIT_BYTES - 256;
    u32.set([record, 0, NOBODY], (rig.arena + layout.ARENA_WAIT) / 4);
    u32[used] = 8 + record;
  }

  /** Counts what was handed to main, and another second begins. Then there is nothing, or hardly any room. */
  emptyRings(): void {
    const { rig, records, random } = this;
    const { u32 } = rig.views;
    const ring = rig.arena + layout.ARENA_MISSES;
    for (;;) {
      const record = rig.core.ringPeek(ring) / 4;
      if (record === 0) break;
      const kind = u32[record + 1]!;
      const row = u32[record]!;
      if (!(row === NOBODY || this.world.devices.has(row))) fault(`a record of device ${row}`);
      if (row !== NOBODY) records.set(kind, (records.get(kind) ?? 0) + 1);
      if (row === NOBODY) rig.core.ringDrop(ring);
      else rig.core.missDrop(rig.arena);
    }
    u32[(rig.arena + layout.ARENA_NOW) / 4]!++;
    if (random.below(2) === 0) return;
    const filler = Math.ceil(rig.rxSlot(0) / 4) * 4;
    u32.fill(0, filler / 4, (filler + layout.FRAME_RECORD_BYTES) / 4);
    u32[filler / 4] = NOBODY;
    for (const bytes of [FILLER_BYTES, SMALL_FILLER_BYTES]) {
      while (rig.core.ringPush(ring, filler, layout.FRAME_RECORD_BYTES + bytes)) {}
    }
  }

  /** Everything that was put aside is somewhere. */
  checkRecords(): void {
    this.#emptyWait();
    this.emptyRings();
    const misses = (this.records.get(layout.MISS_TARGET) ?? 0) + (this.records.get(layout.MISS_PROXY) ?? 0);
    assert.is(misses + this.waited, this.tx.deferred, 'what was put aside');
  }

  /** How often each drop was counted, over all rows. */
  drops(): Map<string, number> {
    const { rig } = this;
    return new Map(dropNames.map((name, reason) => [name, rig.muxCount(reason) + this.sumOf(reason)]));
  }

  /** A counter over all devices. */
  sumOf(counter: number): number {
    return this.#devices.reduce((sum, device) => sum + this.rig.deviceCount(device, counter), 0);
  }
}

function hex(bytes: Uint8Array): string {
  return `${Buffer.from(bytes.subarray(0, 160)).toString('hex')} (${bytes.length} bytes)`;
}

function isSame(a: Uint8Array, b: Uint8Array): boolean {
  return Buffer.compare(a, b) === 0;
}
