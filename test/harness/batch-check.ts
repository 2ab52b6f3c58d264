/**
 * What must hold after every batch, whatever was in it: one verdict a frame, books that balance, and no
 * pointer, length or write that leads out of the arena. Throws a `BatchFault` that names what does not hold.
 * Cheap, since the fuzzer calls it millions of times.
 */
import * as layout from '../../assembly/layout.js';
import { IPPROTO_IPV6, structs } from '../../src/sys/abi.js';
import { type CoreRig, IOVEC_BYTES, MESSAGE_BYTES, SEND_FD, TAP_FD } from './core-rig.js';

const CANARY = 0xa5;
const CANARY_BYTES = 8;
/** linux/in6.h */
const IPV6_FLOWINFO = 11;
/** The header of a control message, a word and padding. */
const LABEL_CONTROL_BYTES = 24;
const { mmsghdr, iovec: iovecStruct } = structs;

export class BatchFault extends Error {}

/** @param what made only when it is needed, since this is called many times for each frame */
function must(ok: boolean, what: () => string): void {
  if (!ok) throw new BatchFault(what());
}

export class BatchCheck {
  /** Where each frame or datagram of the batch was placed, and its bytes. */
  readonly offsets = new Uint32Array(layout.BATCH_MAX);
  readonly lengths = new Uint32Array(layout.BATCH_MAX);
  /** Of each datagram: bytes of its outer header, read before the core writes there. */
  readonly outers = new Uint32Array(layout.BATCH_MAX);
  /** Passed frames and datagrams so far, and what was special about the latter. */
  txPassed = 0;
  rxPassed = 0;
  partialChecksums = 0;
  superFrames = 0;
  /** Bytes of each frame that are in messages. */
  readonly #done = new Uint32Array(layout.BATCH_MAX);
  #lastFd = -1;
  #lastFrame = -1;
  readonly #bank: number;
  /** Of frames that are sent. */
  readonly #outerBytes: number;
  /** Over IPv6 what has no ports says its flow label itself. */
  readonly #isLabelled: boolean;
  readonly #headers = new Map<number, Uint8Array>();
  /** Indexes of the drop counts that a datagram can end in. */
  readonly #rxDrops: Uint32Array;
  #drops = 0;
  /** The sum of all drops after the last receive batch, while nothing was sent since. */
  #dropsKnown: number | undefined;
  #read = 0;

  /** Bytes in front of what a link hands over that the outer header may be written to, beyond the vnet_hdr. */
  get txMargin(): number {
    return Math.max(0, this.#outerBytes - layout.VNET_HDR_BYTES);
  }

  constructor(readonly rig: CoreRig) {
    this.#outerBytes = rig.encapsulation.header(0).length;
    this.#bank = rig.views.u32[(layout.MUXES_OFFSET + rig.mux * layout.MUX_BYTES + layout.MUX_BANK) / 4]!;
    const destination = layout.DESTINATIONS_OFFSET + rig.destination * layout.DESTINATION_BYTES;
    const isIpv6 = rig.views.u32[(destination + layout.DESTINATION_IS_IPV6) / 4] !== 0;
    this.#isLabelled = isIpv6 && rig.encapsulation.hasFlowId === true;
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
    must(same, () => `frame ${index}: bytes before the buffer changed`);
    if (to === this.rig.end) return;
    for (let i = 0; i < CANARY_BYTES; i++) same = same && u8[to + i] === CANARY;
    must(same, () => `frame ${index}: bytes after the buffer changed`);
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
    this.#dropsKnown = undefined;
    this.#drops = this.#txDropSum(device);
    this.#read = this.rig.deviceCount(device, layout.COUNTER_TX_READ);
  }

  /** After `txDecide` and `txArrange`, which returned `groups`. Has the rest laid out too. */
  checkTx(device: number, count: number, groups: number): void {
    const { rig } = this;
    let passed = 0;
    for (let i = 0; i < count; i++) {
      this.#done[i] = 0;
      const socket = rig.socketOf(i);
      if (socket !== layout.TX_SOCKET_DROPPED) {
        passed++;
        must(socket < this.#bank, () => `frame ${i}: socket ${socket} of ${this.#bank}`);
      }
      this.#mustBeGuarded(i, this.txMargin);
    }
    const dropped = this.#txDropSum(device) - this.#drops;
    must(passed + dropped === count, () => `${count} frames, ${passed} passed, ${dropped} dropped`);
    const read = rig.deviceCount(device, layout.COUNTER_TX_READ) - this.#read;
    must(read === count, () => `${count} frames, ${read} counted as read`);
    this.#lastFd = -1;
    for (let left = groups; left > 0; left = rig.core.txLayOut(rig.arena, device)) {
      this.#checkGroups(device, left);
    }
    for (let i = 0; i < count; i++) {
      const isSent = this.#done[i] === this.lengths[i]! - layout.VNET_HDR_BYTES;
      must(
        isSent || rig.socketOf(i) === layout.TX_SOCKET_DROPPED,
        () => `frame ${i} is not in any message to its end`,
      );
    }
    this.txPassed += passed;
  }

  #checkGroups(device: number, groups: number): void {
    const { arena, views } = this.rig;
    let messages = 0;
    for (let group = 0; group < groups; group++) {
      const at = (arena + layout.ARENA_TX_GROUPS + group * layout.TX_GROUP_BYTES) / 4;
      const fd = views.u32[at]!;
      // What was laid out before may have ended within a group.
      const isLater = group === 0 ? fd >= this.#lastFd : fd > this.#lastFd;
      must(
        isLater && fd < SEND_FD + this.#bank,
        () => `group ${group}: descriptor ${fd} after ${this.#lastFd}`,
      );
      must(views.u32[at + 1] === messages, () => `group ${group}: begins with message ${views.u32[at + 1]}`);
      must(views.u32[at + 2]! > 0, () => `group ${group} is empty`);
      if (fd > this.#lastFd) this.#lastFrame = -1;
      this.#lastFd = fd;
      const end = messages + views.u32[at + 2]!;
      must(end <= layout.TX_MESSAGES_MAX, () => `group ${group}: ends at message ${end}`);
      for (; messages < end; messages++) this.#checkMessage(device, messages, fd);
    }
  }

  /** One message: its frames in order, and of each the bytes that come next. */
  #checkMessage(device: number, message: number, fd: number): void {
    const { rig } = this;
    const { u8, u32 } = rig.views;
    const at = rig.arena + layout.ARENA_TX_MESSAGES + message * MESSAGE_BYTES;
    const content = (rig.arena + layout.ARENA_TX_CONTENTS + message * layout.TX_CONTENT_BYTES) / 4;
    const [first, end, goesOn, datagrams] = u32.subarray(content, content + 4) as unknown as number[];
    const row = layout.DESTINATIONS_OFFSET + rig.destination * layout.DESTINATION_BYTES;
    const classOf = (place: number) =>
      u8[rig.arena + layout.ARENA_TX_CLASSES + u8[rig.arena + layout.ARENA_TX_ORDER + place]!]!;
    this.#mustLieIn(at + mmsghdr['msg_hdr.msg_name'], at + mmsghdr['msg_hdr.msg_namelen'], row, message);
    const controls = rig.arena + layout.ARENA_TX_CONTROLS + message * layout.TX_CONTROL_BYTES;
    const isOwn = datagrams! > 1 || classOf(first!) !== 0 || this.#isLabelled;
    this.#mustLieIn(
      at + mmsghdr['msg_hdr.msg_control'],
      at + mmsghdr['msg_hdr.msg_controllen'],
      isOwn ? controls : row,
      message,
    );
    if (this.#isLabelled) this.#checkLabel(at, controls, first!, message);
    must(
      first! < end! && end! <= layout.BATCH_MAX && goesOn! <= 1,
      () => `message ${message}: frames ${first} to ${end}`,
    );
    const iovecs = rig.loadAddress(at + mmsghdr['msg_hdr.msg_iov']);
    const count = u32[(at + mmsghdr['msg_hdr.msg_iovlen']) / 4]!;
    must(
      count > 0 && u32[(at + mmsghdr['msg_hdr.msg_iovlen']) / 4 + 1] === 0,
      () => `message ${message}: ${count} iovecs`,
    );
    const inIovecs = iovecs - rig.arena - layout.ARENA_TX_IOVECS;
    const isInside =
      inIovecs >= 0 && inIovecs % IOVEC_BYTES === 0 && inIovecs / IOVEC_BYTES + count <= layout.TX_IOVECS_MAX;
    must(isInside, () => `message ${message}: iovecs at ${iovecs}`);
    const sizes: number[] = [];
    let vector = 0;
    for (let place = first!; place < end!; place++) {
      const i = u8[rig.arena + layout.ARENA_TX_ORDER + place]!;
      must(i >= this.#lastFrame, () => `message ${message}: frame ${i} after frame ${this.#lastFrame}`);
      this.#lastFrame = i;
      must(
        classOf(place) === classOf(first!),
        () => `message ${message}: frame ${i} is of another traffic class`,
      );
      must(rig.socketOf(i) === fd - SEND_FD, () => `frame ${i} is in the group of another socket`);
      const frameBytes = this.lengths[i]! - layout.VNET_HDR_BYTES;
      must(this.#done[i]! < frameBytes, () => `frame ${i} is sent twice`);
      while (vector < count && this.#done[i]! < frameBytes) {
        const used = this.#checkDatagram(device, i, iovecs + vector * IOVEC_BYTES, sizes);
        vector += used;
        must(vector <= count, () => `message ${message}: iovecs end within a datagram`);
      }
      const isWhole = this.#done[i] === frameBytes;
      must(
        isWhole || (goesOn === 1 && place === end! - 1),
        () => `message ${message}: frame ${i} is not whole`,
      );
    }
    must(vector === count, () => `message ${message}: ${count} iovecs, ${vector} of frames`);
    must(
      sizes.length === datagrams,
      () => `message ${message}: ${datagrams} datagrams, ${sizes.length} there`,
    );
    for (const [index, size] of sizes.entries()) {
      const isLast = index === sizes.length - 1;
      must(
        isLast ? size <= sizes[0]! : size === sizes[0],
        () => `message ${message}: datagram ${index} of ${size} bytes`,
      );
    }
  }

  /** The flow label of a message, in its last control message: one datagram has but that of the class in front. */
  #checkLabel(at: number, controls: number, place: number, message: number): void {
    const { rig } = this;
    const { u8, u32 } = rig.views;
    const label = controls + u32[(at + mmsghdr['msg_hdr.msg_controllen']) / 4]! - LABEL_CONTROL_BYTES;
    const flow = u8[rig.arena + layout.ARENA_TX_FLOWS + u8[rig.arena + layout.ARENA_TX_ORDER + place]!]!;
    const isControl =
      u32[label / 4] === LABEL_CONTROL_BYTES - 4 &&
      u32[label / 4 + 2] === IPPROTO_IPV6 &&
      u32[label / 4 + 3] === IPV6_FLOWINFO;
    const value = (u8[label + 17]! << 16) | (u8[label + 18]! << 8) | u8[label + 19]!;
    const isRight = isControl && u8[label + 16] === 0 && value === Math.imul(flow + 1, 0x9e3779b1) >>> 12;
    must(isRight, () => `message ${message}: flow label ${value} of flow ${flow}`);
  }

  /** A frame in one piece, or the next segment of a super-frame: its headers, then its payload. Returns the iovecs. */
  #checkDatagram(device: number, i: number, iovec: number, sizes: number[]): number {
    const { rig } = this;
    const { u32 } = rig.views;
    const inner = u32[(rig.arena + layout.ARENA_TX_HEADER_BYTES) / 4 + i]!;
    const frame = this.offsets[i]! + layout.VNET_HDR_BYTES;
    const frameBytes = this.lengths[i]! - layout.VNET_HDR_BYTES;
    const base = rig.loadAddress(iovec + iovecStruct.iov_base);
    const length = u32[(iovec + iovecStruct.iov_len) / 4]!;
    must(u32[(iovec + iovecStruct.iov_len) / 4 + 1] === 0, () => `frame ${i}: iovec of 4 GiB`);
    must(base >= rig.arena && base + length <= rig.end, () => `frame ${i}: iovec outside the arena`);
    if (inner === 0) {
      const isFrame = base === frame - this.#outerBytes && length === frameBytes + this.#outerBytes;
      must(isFrame, () => `frame ${i}: iovec is not header + frame`);
      this.#checkHeader(device, base, i);
      this.#done[i] = frameBytes;
      sizes.push(length);
      return 1;
    }
    const headers = rig.arena + layout.ARENA_TX_HEADERS;
    const isScratch = base >= headers && base + length <= headers + layout.TX_HEADERS_BYTES;
    must(isScratch && length === this.#outerBytes + inner, () => `frame ${i}: headers of a segment`);
    this.#checkHeader(device, base, i);
    const from = rig.loadAddress(iovec + IOVEC_BYTES + iovecStruct.iov_base);
    const bytes = u32[(iovec + IOVEC_BYTES + iovecStruct.iov_len) / 4]!;
    const done = Math.max(this.#done[i]!, inner);
    const size = u32[(rig.arena + layout.ARENA_TX_SEGMENT_BYTES) / 4 + i]!;
    const isNext = from === frame + done && bytes === Math.min(size, frameBytes - done);
    must(isNext, () => `frame ${i}: payload of a segment`);
    this.#done[i] = done + bytes;
    sizes.push(length + bytes);
    return 2;
  }

  #checkHeader(device: number, base: number, i: number): void {
    const { u8 } = this.rig.views;
    let header = this.#headers.get(device);
    if (!header) {
      header = this.rig.encapsulation.header(this.rig.rules.get(device)!.vnetid);
      this.#headers.set(device, header);
    }
    const { hasFlowId } = this.rig.encapsulation;
    const fixed = hasFlowId ? header.length - 1 : header.length;
    let isHeader = !hasFlowId || u8[base + fixed] === u8[this.rig.arena + layout.ARENA_TX_FLOWS + i];
    for (let at = 0; at < fixed; at++) isHeader = isHeader && u8[base + at] === header[at];
    must(isHeader, () => `frame ${i}: outer header`);
  }

  #mustLieIn(pointerAt: number, lengthAt: number, row: number, message: number): void {
    const { u32 } = this.rig.views;
    const pointer = this.rig.loadAddress(pointerAt);
    const length = u32[lengthAt / 4]!;
    const ok = pointer >= row && length > 0 && pointer + length <= row + layout.DESTINATION_BYTES;
    must(ok, () => `message ${message}: name or control outside the destination`);
  }

  /** Before the core decides a receive batch. */
  beginRx(): void {
    this.#drops = this.#dropsKnown ?? this.#dropSum();
    this.#read = this.rig.muxCount(layout.COUNTER_RX_READ);
  }

  /** After `rxDecide`. */
  checkRx(count: number): void {
    const { rig } = this;
    const { u32 } = rig.views;
    const writes = rig.writeCount;
    must(writes <= count, () => `${writes} writes of ${count} datagrams`);
    this.#dropsKnown = this.#dropSum();
    const dropped = this.#dropsKnown - this.#drops;
    must(writes + dropped === count, () => `${count} datagrams, ${writes} passed, ${dropped} dropped`);
    const read = rig.muxCount(layout.COUNTER_RX_READ) - this.#read;
    must(read === count, () => `${count} datagrams, ${read} counted as read`);
    let i = 0;
    for (let write = 0; write < writes; write++) {
      const entry = (rig.arena + layout.ARENA_RX_WRITES + write * layout.RX_WRITE_BYTES) / 4;
      const offset = u32[entry + 1]!;
      const length = u32[entry + 2]!;
      must(offset >= rig.arena && offset + length <= rig.end, () => `write ${write} outside the arena`);
      while (i < count && this.offsets[i]! + this.outers[i]! - layout.VNET_HDR_BYTES !== offset) i++;
      must(i < count, () => `write ${write} is of no datagram, or out of order`);
      const moved = this.outers[i]! - layout.VNET_HDR_BYTES;
      must(
        length === this.lengths[i]! - moved,
        () => `write ${write}: ${length} bytes of ${this.lengths[i]}`,
      );
      const device = u32[entry + 3]!;
      must(rig.rules.get(device)?.isActive === true, () => `write ${write}: device ${device}`);
      must(u32[entry] === TAP_FD + device, () => `write ${write}: descriptor ${u32[entry]}`);
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
        () => `write ${write}: not a plain header`,
      );
      return;
    }
    this.partialChecksums++;
    must(u8[at] === 1, () => `write ${write}: flags ${u8[at]}`);
    must(word(8) === 16 || word(8) === 6, () => `write ${write}: checksum offset ${word(8)}`);
    must(
      word(6) >= 34 && word(6) + word(8) + 2 <= frameBytes,
      () => `write ${write}: checksum at ${word(6)}`,
    );
    if (gsoType === 0) {
      must(word(2) === 0 && word(4) === 0, () => `write ${write}: sizes without GSO`);
      return;
    }
    this.superFrames++;
    must((gsoType & 0x7f) === 1 || (gsoType & 0x7f) === 4, () => `write ${write}: GSO type ${gsoType}`);
    must(word(2) >= word(6) + 20 && word(2) <= frameBytes, () => `write ${write}: GSO header of ${word(2)}`);
    must(word(4) > 0, () => `write ${write}: GSO size ${word(4)}`);
  }
}
