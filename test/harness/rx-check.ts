/**
 * What must hold after every receive batch, whatever was in it: one verdict a datagram, books that balance, and writes that are
 * made of the frames of their device, each once and whole. Throws a `BatchFault` that names what does not hold. Cheap, since the
 * fuzzer calls it millions of times.
 */
import * as layout from '../../assembly/layout.js';
import { structs } from '../../src/sys/abi.js';
import { BatchGuard, fault } from './batch-guard.js';
import { type CoreRig, IOVEC_BYTES, TAP_FD } from './core-rig.js';
import type { FuzzWorld } from './fuzz-world.js';

const GSO_TCPV4 = 1;
const GSO_TCPV6 = 4;
const GSO_UDP = 5;
const GSO_ECN = 0x80;
const ETHERNET_BYTES = 14;
/** Frames that one write is made of, of TCP and of UDP. */
const SEGMENTS_MAX = 512;
const DATAGRAMS_MAX = 64;
const { iovec: iovecStruct } = structs;

export class RxCheck {
  /** Where the messages were placed. */
  readonly guard: BatchGuard;
  /** Where each datagram of the batch lies, its bytes, and those of its outer header, read before the core writes there. */
  readonly offsets = new Uint32Array(layout.RX_DATAGRAMS_MAX);
  readonly lengths = new Uint32Array(layout.RX_DATAGRAMS_MAX);
  readonly outers = new Uint32Array(layout.RX_DATAGRAMS_MAX);
  readonly vnetids = new Uint32Array(layout.RX_DATAGRAMS_MAX);
  /** 1 for the first of a message. */
  readonly firsts = new Uint8Array(layout.RX_DATAGRAMS_MAX);
  count = 0;
  /** Datagrams that passed so far, and what was special about them. */
  passed = 0;
  joined = 0;
  partialChecksums = 0;
  superFrames = 0;
  /** Of the batch: 1 for a datagram that is in a write. */
  readonly #used = new Uint8Array(layout.RX_DATAGRAMS_MAX);
  /** Row of each vnetid; rows that drops are counted in, and their drops as they must be. */
  readonly #rows = new Map<number, number>();
  readonly #muxRow: number;
  readonly #drops = new Map<number, Uint32Array>();
  #read = 0;
  #iovec = 0;

  constructor(
    readonly rig: CoreRig,
    readonly world: FuzzWorld,
  ) {
    this.guard = new BatchGuard(rig, layout.BATCH_MAX);
    this.#muxRow = layout.DEVICES_MAX + rig.mux;
    for (const [row, { vnetid }] of rig.rules) this.#rows.set(vnetid, row);
    for (const row of [...rig.rules.keys(), this.#muxRow])
      this.#drops.set(row, new Uint32Array(layout.DROP_REASONS));
  }

  /** Notes datagrams of `size` bytes, of which the last may be shorter, that are message `index`. */
  place(index: number, offset: number, length: number, size: number): void {
    const { u8 } = this.rig.views;
    const { encapsulation } = this.rig;
    // The vnet_hdr is two bytes longer than the shortest outer header.
    this.guard.place(index, offset, length, 2);
    let at = offset;
    do {
      const i = this.count++;
      const bytes = Math.min(size, offset + length - at);
      this.offsets[i] = at;
      this.lengths[i] = bytes;
      const outer = bytes === 0 ? 0 : encapsulation.headerBytes(u8[at]!);
      this.outers[i] = outer;
      // Of all of them it is in the fifth byte and on, behind the IP header where there is one.
      const header = encapsulation.hasIpHeader ? at + outer - 8 : at;
      const isThere = header + 7 <= at + bytes;
      this.vnetids[i] = isThere ? (u8[header + 4]! << 16) | (u8[header + 5]! << 8) | u8[header + 6]! : 0;
      this.firsts[i] = at === offset ? 1 : 0;
      at += size;
    } while (at < offset + length);
  }

  /** Before the messages of a batch are placed. */
  begin(): void {
    this.count = 0;
  }

  /** Takes the drops as they are for right; `checkDrops` then knows what has been counted since. */
  note(): void {
    for (const [row, drops] of this.#drops) {
      for (let reason = 0; reason < drops.length; reason++) drops[reason] = this.rig.deviceCount(row, reason);
    }
    this.#read = this.rig.muxCount(layout.COUNTER_RX_READ);
  }

  /** After `rxDatagram`, which said the verdict, of the one datagram that was placed. */
  checkOne(verdict: number): void {
    const { rig } = this;
    const writes = rig.writeCount;
    this.guard.mustBeGuarded(0);
    if (verdict === layout.VERDICT_PASS) {
      if (writes !== 1) fault(`${writes} writes of a datagram that passes`);
      this.#checkWrites(1);
      return;
    }
    if (verdict === layout.DROP_RX_INNER_TO_MUX) {
      const device = this.world.devices.get(this.#rows.get(this.vnetids[0]!)!)!;
      const frame = this.offsets[0]! + this.outers[0]!;
      const end = this.offsets[0]! + this.lengths[0]!;
      if (!this.world.isForMux(device, rig.views.u8.subarray(frame, end)))
        fault('a frame is not for the mux');
    }
    if (!(writes === 0 && verdict < layout.DROP_REASONS)) fault(`verdict ${verdict}, ${writes} writes`);
    // What has no device is counted for the underlay.
    const own = this.#rows.get(this.vnetids[0]!);
    const ofDevice = own === undefined ? undefined : this.#drops.get(own)!;
    const ofMux = this.#drops.get(this.#muxRow)!;
    if (rig.muxCount(verdict) === ofMux[verdict]! + 1) {
      ofMux[verdict]!++;
      return;
    }
    if (ofDevice === undefined) fault(`verdict ${verdict} is not counted`);
    ofDevice![verdict]!++;
    if (rig.deviceCount(own!, verdict) !== ofDevice![verdict])
      fault(`verdict ${verdict} is not counted once`);
  }

  /** After batches of one, `count` in all, since `note`: nothing else has been counted. */
  checkDrops(count: number): void {
    for (const [row, drops] of this.#drops) {
      for (let reason = 0; reason < drops.length; reason++) {
        const counted = this.rig.deviceCount(row, reason);
        if (counted !== drops[reason]) fault(`row ${row}: ${counted} drops ${reason}, not ${drops[reason]}`);
      }
    }
    const read = this.rig.muxCount(layout.COUNTER_RX_READ) - this.#read;
    if (read !== count) fault(`${count} datagrams, ${read} counted as read`);
  }

  /** After `rxDecide` and `rxGather` of a batch that was placed since `note`. */
  check(messages: number): void {
    const { rig, count } = this;
    const writes = rig.writeCount;
    if (!(writes <= count)) fault(`${writes} writes of ${count} datagrams`);
    let dropped = 0;
    for (const [row, drops] of this.#drops) {
      for (let reason = 0; reason < drops.length; reason++)
        dropped += rig.deviceCount(row, reason) - drops[reason]!;
    }
    const passed = this.#checkWrites(writes);
    if (passed + dropped !== count) fault(`${count} datagrams, ${passed} passed, ${dropped} dropped`);
    const read = rig.muxCount(layout.COUNTER_RX_READ) - this.#read;
    if (read !== count) fault(`${count} datagrams, ${read} counted as read`);
    for (let index = 0; index < messages; index++) this.guard.mustBeGuarded(index);
  }

  /** Returns of how many frames they are. */
  #checkWrites(writes: number): number {
    const { arena } = this.rig;
    this.#used.fill(0, 0, this.count);
    this.#iovec = arena + layout.ARENA_RX_WRITE_IOVECS;
    let last = -1;
    let frames = 0;
    for (let write = 0; write < writes; write++) {
      const entry = (arena + layout.ARENA_RX_WRITES + write * layout.RX_WRITE_BYTES) / 4;
      last = this.#checkWrite(write, entry, last);
      frames += this.rig.views.u32[entry + 5]!;
    }
    this.passed += frames;
    return frames;
  }

  /** Returns the first of its datagrams, which must be behind that of the write before. */
  #checkWrite(write: number, entry: number, before: number): number {
    const { rig, world } = this;
    const { u32 } = rig.views;
    const offset = u32[entry + 1]!;
    const length = u32[entry + 2]!;
    const row = u32[entry + 3]!;
    const iovecs = u32[entry + 4]!;
    const frames = u32[entry + 5]!;
    const i = u32[entry + 6]!;
    if (!(i > before && i < this.count)) fault(`write ${write} is of datagram ${i} after ${before}`);
    const device = world.devices.get(row);
    if (!(device?.rules.isActive === true)) fault(`write ${write}: device ${row}`);
    if (device!.rules.vnetid !== this.vnetids[i])
      fault(`write ${write}: device ${row} of vnetid ${this.vnetids[i]}`);
    if (u32[entry] !== TAP_FD + row) fault(`write ${write}: descriptor ${u32[entry]}`);
    this.#take(i, write);
    const frame = this.offsets[i]! + this.outers[i]!;
    const bytes = this.lengths[i]! - this.outers[i]!;
    if (!(bytes >= ETHERNET_BYTES)) fault(`write ${write}: a frame of ${bytes} bytes`);
    const isInFront = this.firsts[i] === 1;
    const apart = rig.arena + layout.ARENA_RX_HEADERS + write * layout.RX_HEADER_BYTES;
    const header = isInFront ? frame - layout.VNET_HDR_BYTES : apart;
    this.#mayPass(row, frame, bytes, write);
    const total =
      frames === 1 ? bytes : this.#sumOfParts(write, row, i, frames, bytes, u32[entry + 7]!, header);
    if (length !== total + layout.VNET_HDR_BYTES) fault(`write ${write}: ${length} bytes of ${total}`);
    if (frames === 1 && isInFront) {
      if (!(offset === header && iovecs === 0)) fault(`write ${write}: at ${offset} with ${iovecs} iovecs`);
    } else {
      this.#checkIovecs(write, offset, iovecs, i, frames, header, frame, bytes);
    }
    this.#checkVirtioHeader(header, bytes, total, frames, write);
    return i;
  }

  /** A frame that is written is not for the mux itself. What is joined to it has the same ports and addresses. */
  #mayPass(row: number, frame: number, bytes: number, write: number): void {
    const device = this.world.devices.get(row)!;
    if (this.world.isForMux(device, this.rig.views.u8.subarray(frame, frame + bytes)))
      fault(`write ${write}: a frame to the mux itself`);
  }

  /** No datagram is in two writes, or in one twice. */
  #take(i: number, write: number): void {
    if (!(i < this.count && this.#used[i] === 0)) fault(`write ${write}: datagram ${i} twice`);
    this.#used[i] = 1;
  }

  /** Bytes of a frame that others were joined to: each of the device, behind the one before, its payload to the end. */
  #sumOfParts(
    write: number,
    row: number,
    first: number,
    frames: number,
    bytes: number,
    last: number,
    header: number,
  ): number {
    const { rig } = this;
    const { u8, u32 } = rig.views;
    const flags = this.world.devices.get(row)!.flags;
    const isUdp = u8[header + 1] === GSO_UDP;
    const flag = layout.DEVICE_FLAG_COALESCE | (isUdp ? layout.DEVICE_FLAG_COALESCE_UDP : 0);
    const isAllowed = (flags & flag) === flag && frames <= (isUdp ? DATAGRAMS_MAX : SEGMENTS_MAX);
    if (!isAllowed) fault(`write ${write}: ${frames} frames are joined`);
    const headerBytes = u8[header + 2]! + u8[header + 3]! * 256;
    const size = bytes - headerBytes;
    let total = bytes;
    let i = first;
    for (let part = 1; part < frames; part++) {
      const next = u32[(rig.arena + layout.ARENA_RX_DATAGRAMS + i * layout.RX_DATAGRAM_BYTES) / 4 + 2]!;
      if (!(next > i)) fault(`write ${write}: datagram ${next} after ${i}`);
      i = next;
      this.#take(i, write);
      if (this.vnetids[i] !== this.vnetids[first])
        fault(`write ${write}: datagram ${i} is of another vnetid`);
      const payload = this.lengths[i]! - this.outers[i]! - headerBytes;
      const isShorter = payload < size && part === frames - 1;
      if (!(payload > 0 && (payload === size || isShorter)))
        fault(`write ${write}: a part of ${payload} bytes`);
      total += payload;
    }
    if (i !== last) fault(`write ${write} ends with datagram ${i}, not ${last}`);
    if (!(total <= 65535)) fault(`write ${write}: a super-frame of ${total} bytes`);
    this.joined += frames;
    return total;
  }

  #checkIovecs(
    write: number,
    at: number,
    count: number,
    first: number,
    frames: number,
    header: number,
    frame: number,
    bytes: number,
  ): void {
    const { rig } = this;
    const { u32 } = rig.views;
    const isInFront = header + layout.VNET_HDR_BYTES === frame;
    if (at !== this.#iovec) fault(`write ${write}: iovecs at ${at}`);
    if (!(count === frames + (isInFront ? 0 : 1)))
      fault(`write ${write}: ${count} iovecs of ${frames} frames`);
    if (isInFront) {
      this.#checkIovec(header, layout.VNET_HDR_BYTES + bytes, write);
    } else {
      this.#checkIovec(header, layout.VNET_HDR_BYTES, write);
      this.#checkIovec(frame, bytes, write);
    }
    const { u8 } = rig.views;
    const headerBytes = u8[header + 2]! + u8[header + 3]! * 256;
    let i = first;
    for (let part = 1; part < frames; part++) {
      i = u32[(rig.arena + layout.ARENA_RX_DATAGRAMS + i * layout.RX_DATAGRAM_BYTES) / 4 + 2]!;
      const from = this.outers[i]! + headerBytes;
      this.#checkIovec(this.offsets[i]! + from, this.lengths[i]! - from, write);
    }
  }

  #checkIovec(offset: number, bytes: number, write: number): void {
    const { rig } = this;
    const { u32 } = rig.views;
    const length = (this.#iovec + iovecStruct.iov_len) / 4;
    const isRight =
      rig.loadAddress(this.#iovec + iovecStruct.iov_base) === offset &&
      u32[length] === bytes &&
      u32[length + 1] === 0;
    if (!isRight) fault(`write ${write}: an iovec is not ${bytes} bytes at ${offset}`);
    this.#iovec += IOVEC_BYTES;
  }

  /** What the kernel would refuse, and what would make it read outside the frame. @param bytes of the first of the frames */
  #checkVirtioHeader(at: number, bytes: number, total: number, frames: number, write: number): void {
    const { u8 } = this.rig.views;
    const type = u8[at + 1]!;
    const headerBytes = u8[at + 2]! + u8[at + 3]! * 256;
    const size = u8[at + 4]! + u8[at + 5]! * 256;
    const start = u8[at + 6]! + u8[at + 7]! * 256;
    const offset = u8[at + 8]! + u8[at + 9]! * 256;
    if (u8[at] === 0) {
      const isPlain = type === 0 && headerBytes + size + start + offset === 0 && frames === 1;
      if (!isPlain) fault(`write ${write}: not a plain header`);
      return;
    }
    if (u8[at] !== 1) fault(`write ${write}: flags ${u8[at]}`);
    if (!(offset === 16 || offset === 6)) fault(`write ${write}: checksum offset ${offset}`);
    if (!(start >= 34 && start + offset + 2 <= bytes)) fault(`write ${write}: checksum at ${start}`);
    if (type === 0) {
      this.partialChecksums++;
      if (!(size === 0 && headerBytes === 0 && frames === 1)) fault(`write ${write}: sizes without GSO`);
      return;
    }
    const family = type & ~GSO_ECN;
    const isTcp = (family === GSO_TCPV4 || family === GSO_TCPV6) && offset === 16;
    // Of UDP there are only those that were joined, and joined frames have no mark that congestion was answered.
    const isUdp = type === GSO_UDP && offset === 6 && frames > 1;
    if (!(isUdp || (isTcp && (frames === 1 || type === family)))) fault(`write ${write}: GSO type ${type}`);
    const ownBytes = isTcp ? 20 : 8;
    if (!(headerBytes >= start + ownBytes && headerBytes <= bytes))
      fault(`write ${write}: GSO header of ${headerBytes}`);
    if (!(size > 0)) fault(`write ${write}: GSO size ${size}`);
    if (frames === 1) {
      this.superFrames++;
      return;
    }
    const segments = Math.ceil((total - headerBytes) / size);
    if (!(size === bytes - headerBytes && segments === frames))
      fault(`write ${write}: ${segments} segments of ${frames}`);
  }
}
