/**
 * What must hold after every batch, whatever was in it: one verdict a frame, books that balance, and no
 * pointer, length or write that leads out of the arena. Throws a `BatchFault` that names what does not hold.
 * Cheap, since the fuzzer calls it millions of times.
 */
import * as layout from '../../assembly/layout.js';
import { structs } from '../../src/sys/abi.js';
import { type CoreRig, IOVEC_BYTES, MESSAGE_BYTES, SEND_FD, TAP_FD } from './core-rig.js';

const CANARY = 0xa5;
const CANARY_BYTES = 8;
const OUTER_BYTES = 8;
const { mmsghdr, iovec: iovecStruct } = structs;

export class BatchFault extends Error {}

function must(ok: boolean, what: string): void {
  if (!ok) throw new BatchFault(what);
}

export class BatchCheck {
  /** Where each frame or datagram of the batch was placed, and its bytes. */
  readonly offsets = new Uint32Array(layout.BATCH_MAX);
  readonly lengths = new Uint32Array(layout.BATCH_MAX);
  /** Passed frames and datagrams so far, and what was special about the latter. */
  txPassed = 0;
  rxPassed = 0;
  partialChecksums = 0;
  superFrames = 0;
  readonly #seen = new Uint8Array(layout.BATCH_MAX);
  readonly #bank: number;
  /** Indexes of the drop counts that a datagram can end in. */
  readonly #rxDrops: Uint32Array;
  #drops = 0;
  #read = 0;

  constructor(readonly rig: CoreRig) {
    this.#bank = rig.views.u32[(layout.MUXES_OFFSET + rig.mux * layout.MUX_BYTES + layout.MUX_BANK) / 4]!;
    const rows = [...rig.rules.keys(), layout.DEVICES_MAX + rig.mux];
    const reasons = Array.from({ length: layout.DROP_REASONS }, (_, reason) => reason);
    this.#rxDrops = Uint32Array.from(
      rows.flatMap((row) => reasons.map((reason) => rig.deviceCounterIndex(row, reason))),
    );
  }

  /**
   * Guards the bytes around a placement; there are none after one that ends where the memory ends.
   * @param margin bytes before it that the core may write
   */
  guard(index: number, margin: number): void {
    const { u8 } = this.rig.views;
    const from = this.offsets[index]! - margin;
    const to = this.offsets[index]! + this.lengths[index]!;
    for (let i = 1; i <= CANARY_BYTES; i++) u8[from - i] = CANARY;
    if (to < this.rig.end) for (let i = 0; i < CANARY_BYTES; i++) u8[to + i] = CANARY;
  }

  #mustBeGuarded(index: number, margin: number): void {
    const { u8 } = this.rig.views;
    const from = this.offsets[index]! - margin;
    const to = this.offsets[index]! + this.lengths[index]!;
    let same = true;
    for (let i = 1; i <= CANARY_BYTES; i++) same = same && u8[from - i] === CANARY;
    must(same, `frame ${index}: bytes before the buffer changed`);
    if (to === this.rig.end) return;
    for (let i = 0; i < CANARY_BYTES; i++) same = same && u8[to + i] === CANARY;
    must(same, `frame ${index}: bytes after the buffer changed`);
  }

  #dropSum(): number {
    const { u32 } = this.rig.views;
    let sum = 0;
    for (let i = 0; i < this.#rxDrops.length; i++) sum += u32[this.#rxDrops[i]!]!;
    return sum;
  }

  #txDropSum(device: number): number {
    const { u32 } = this.rig.views;
    const first = this.rig.deviceCounterIndex(device, 0);
    let sum = 0;
    for (let reason = 0; reason < layout.DROP_REASONS; reason++) sum += u32[first + reason * 2]!;
    return sum;
  }

  /** Before the core decides a transmit batch. */
  beginTx(device: number): void {
    this.#drops = this.#txDropSum(device);
    this.#read = this.rig.deviceCount(device, layout.COUNTER_TX_READ);
  }

  /** After `txDecide` and `txArrange`, which returned `groups`. */
  checkTx(device: number, count: number, groups: number): void {
    const { rig } = this;
    let passed = 0;
    for (let i = 0; i < count; i++) {
      this.#seen[i] = 0;
      const socket = rig.socketOf(i);
      if (socket !== layout.TX_SOCKET_DROPPED) {
        passed++;
        must(socket < this.#bank, `frame ${i}: socket ${socket} of ${this.#bank}`);
      }
      this.#mustBeGuarded(i, 0);
    }
    const dropped = this.#txDropSum(device) - this.#drops;
    must(passed + dropped === count, `${count} frames, ${passed} passed, ${dropped} dropped`);
    const read = rig.deviceCount(device, layout.COUNTER_TX_READ) - this.#read;
    must(read === count, `${count} frames, ${read} counted as read`);
    must(this.#checkGroups(device, groups) === passed, `${passed} frames passed, not all are in one message`);
    this.txPassed += passed;
  }

  /** Returns how many messages the groups hold. */
  #checkGroups(device: number, groups: number): number {
    const { arena, views } = this.rig;
    let messages = 0;
    let lastFd = -1;
    for (let group = 0; group < groups; group++) {
      const at = (arena + layout.ARENA_TX_GROUPS + group * layout.TX_GROUP_BYTES) / 4;
      const fd = views.u32[at]!;
      must(fd > lastFd && fd < SEND_FD + this.#bank, `group ${group}: descriptor ${fd} after ${lastFd}`);
      must(views.u32[at + 1] === messages, `group ${group}: begins with message ${views.u32[at + 1]}`);
      must(views.u32[at + 2]! > 0, `group ${group} is empty`);
      lastFd = fd;
      const end = messages + views.u32[at + 2]!;
      must(end <= layout.BATCH_MAX, `group ${group}: ends at message ${end}`);
      for (let last = -1; messages < end; messages++) last = this.#checkMessage(device, messages, fd, last);
    }
    return messages;
  }

  /** Returns the index of the message's frame, which must be above `last`. */
  #checkMessage(device: number, message: number, fd: number, last: number): number {
    const { rig } = this;
    const { u8, u32 } = rig.views;
    const at = rig.arena + layout.ARENA_TX_MESSAGES + message * MESSAGE_BYTES;
    const row = layout.DESTINATIONS_OFFSET + rig.destination * layout.DESTINATION_BYTES;
    this.#mustLieIn(at + mmsghdr['msg_hdr.msg_name'], at + mmsghdr['msg_hdr.msg_namelen'], row, message);
    this.#mustLieIn(
      at + mmsghdr['msg_hdr.msg_control'],
      at + mmsghdr['msg_hdr.msg_controllen'],
      row,
      message,
    );
    must(u32[(at + mmsghdr['msg_hdr.msg_iovlen']) / 4] === 1, `message ${message}: not one iovec`);
    must(u32[(at + mmsghdr['msg_hdr.msg_iovlen']) / 4 + 1] === 0, `message ${message}: not one iovec`);
    const iovec = rig.loadAddress(at + mmsghdr['msg_hdr.msg_iov']);
    const i = (iovec - rig.arena - layout.ARENA_TX_IOVECS) / IOVEC_BYTES;
    must(Number.isInteger(i) && i >= 0 && i < layout.BATCH_MAX, `message ${message}: iovec at ${iovec}`);
    must(i > last, `message ${message}: frame ${i} after frame ${last}`);
    must(this.#seen[i] === 0, `frame ${i} is in two messages`);
    this.#seen[i] = 1;
    must(rig.socketOf(i) === fd - SEND_FD, `frame ${i} is in the group of another socket`);
    const base = rig.loadAddress(iovec + iovecStruct.iov_base);
    const length = u32[(iovec + iovecStruct.iov_len) / 4]!;
    must(u32[(iovec + iovecStruct.iov_len) / 4 + 1] === 0, `frame ${i}: iovec of 4 GiB`);
    must(base >= rig.arena && base + length <= rig.end, `frame ${i}: iovec outside the arena`);
    const frame = this.offsets[i]! + layout.VNET_HDR_BYTES;
    const frameBytes = this.lengths[i]! - layout.VNET_HDR_BYTES;
    must(
      base === frame - OUTER_BYTES && length === frameBytes + OUTER_BYTES,
      `frame ${i}: iovec is not header + frame`,
    );
    const { vnetid } = rig.rules.get(device)!;
    const isHeader =
      u8[base] === 8 &&
      (u8[base + 1]! | u8[base + 2]! | u8[base + 3]! | u8[base + 7]!) === 0 &&
      u8[base + 4]! * 65536 + u8[base + 5]! * 256 + u8[base + 6]! === vnetid;
    must(isHeader, `frame ${i}: outer header`);
    return i;
  }

  #mustLieIn(pointerAt: number, lengthAt: number, row: number, message: number): void {
    const { u32 } = this.rig.views;
    const pointer = this.rig.loadAddress(pointerAt);
    const length = u32[lengthAt / 4]!;
    const ok = pointer >= row && length > 0 && pointer + length <= row + layout.DESTINATION_BYTES;
    must(ok, `message ${message}: name or control outside the destination`);
  }

  /** Before the core decides a receive batch. */
  beginRx(): void {
    this.#drops = this.#dropSum();
    this.#read = this.rig.muxCount(layout.COUNTER_RX_READ);
  }

  /** After `rxDecide`. */
  checkRx(count: number): void {
    const { rig } = this;
    const { u32 } = rig.views;
    const writes = rig.writeCount;
    must(writes <= count, `${writes} writes of ${count} datagrams`);
    const dropped = this.#dropSum() - this.#drops;
    must(writes + dropped === count, `${count} datagrams, ${writes} passed, ${dropped} dropped`);
    const read = rig.muxCount(layout.COUNTER_RX_READ) - this.#read;
    must(read === count, `${count} datagrams, ${read} counted as read`);
    let i = 0;
    for (let write = 0; write < writes; write++) {
      const entry = (rig.arena + layout.ARENA_RX_WRITES + write * layout.RX_WRITE_BYTES) / 4;
      const offset = u32[entry + 1]!;
      const length = u32[entry + 2]!;
      must(offset >= rig.arena && offset + length <= rig.end, `write ${write} outside the arena`);
      const moved = OUTER_BYTES - layout.VNET_HDR_BYTES;
      while (i < count && this.offsets[i]! + moved !== offset) i++;
      must(i < count, `write ${write} is of no datagram, or out of order`);
      must(length === this.lengths[i]! - moved, `write ${write}: ${length} bytes of ${this.lengths[i]}`);
      const device = u32[entry + 3]!;
      must(rig.rules.get(device)?.isActive === true, `write ${write}: device ${device}`);
      must(u32[entry] === TAP_FD + device, `write ${write}: descriptor ${u32[entry]}`);
      this.#checkVirtioHeader(offset, length - layout.VNET_HDR_BYTES, write);
      i++;
    }
    for (let index = 0; index < count; index++) this.#mustBeGuarded(index, 2);
    this.rxPassed += writes;
  }

  /** What the kernel would refuse, and what would make it read outside the frame. */
  #checkVirtioHeader(at: number, frameBytes: number, write: number): void {
    const { u8 } = this.rig.views;
    const word = (offset: number) => u8[at + offset]! + u8[at + offset + 1]! * 256;
    const gsoType = u8[at + 1]!;
    if (u8[at] === 0) {
      must(
        gsoType === 0 && word(2) + word(4) + word(6) + word(8) === 0,
        `write ${write}: not a plain header`,
      );
      return;
    }
    this.partialChecksums++;
    must(u8[at] === 1, `write ${write}: flags ${u8[at]}`);
    must(word(8) === 16 || word(8) === 6, `write ${write}: checksum offset ${word(8)}`);
    must(word(6) >= 34 && word(6) + word(8) + 2 <= frameBytes, `write ${write}: checksum at ${word(6)}`);
    if (gsoType === 0) {
      must(word(2) === 0 && word(4) === 0, `write ${write}: sizes without GSO`);
      return;
    }
    this.superFrames++;
    must((gsoType & 0x7f) === 1 || (gsoType & 0x7f) === 4, `write ${write}: GSO type ${gsoType}`);
    must(word(2) >= word(6) + 20 && word(2) <= frameBytes, `write ${write}: GSO header of ${word(2)}`);
    must(word(4) > 0, `write ${write}: GSO size ${word(4)}`);
  }
}
