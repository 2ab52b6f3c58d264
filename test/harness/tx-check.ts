/**
 * What must hold after every transmit batch, whatever was in it: one verdict a frame, books that balance, nothing but what the
 * settings of the device say, and no pointer or length that leads elsewhere. Throws a `BatchFault` that names what does not hold.
 * Cheap, since the fuzzer calls it millions of times.
 */
import * as layout from '../../assembly/layout.js';
import { IPPROTO_IPV6, structs, UDP_SEGMENT } from '../../src/sys/abi.js';
import { BatchGuard, fault } from './batch-guard.js';
import { type CoreRig, IOVEC_BYTES, MESSAGE_BYTES, SEND_FD } from './core-rig.js';
import type { FuzzDevice, FuzzWorld } from './fuzz-world.js';

/** linux/in.h, linux/in6.h, linux/udp.h */
const IPPROTO_IP = 0;
const IP_TOS = 1;
const IPV6_TCLASS = 67;
const IPV6_FLOWINFO = 11;
const SOL_UDP = 17;
/** A control message with one number: a header of 16 bytes, the number, padding. */
const CONTROL_BYTES = 24;
const INT_CONTROL_BYTES = 20;
const SHORT_CONTROL_BYTES = 18;
/** UDP_MAX_SEGMENTS of Linux before 6.9, and the most that one message holds. */
const DATAGRAMS_MAX = 64;
const MESSAGE_DATA_BYTES_MAX = 65507;
const { mmsghdr, iovec: iovecStruct } = structs;

export class TxCheck {
  readonly guard: BatchGuard;
  /** So far: frames that passed or were put aside, copies, messages of several datagrams and of a traffic class. */
  passed = 0;
  deferred = 0;
  copies = 0;
  joined = 0;
  marked = 0;
  /** Bytes of each frame that are in messages. */
  readonly #done = new Uint32Array(layout.BATCH_MAX);
  /** Destination row that each frame must go to by where it may go, taken before the core sees it. */
  readonly #ways = new Int32Array(layout.BATCH_MAX);
  readonly #sizes: number[] = [];
  #lastFd = -1;
  #lastFrame = -1;
  readonly #bank: number;
  /** Of frames that are sent. */
  readonly #outerBytes: number;
  /** Over IPv6 what has no ports says its flow label itself. */
  readonly #isLabelled: boolean;
  readonly #headers = new Map<number, Uint8Array>();
  /** Sums of drops, of devices of which nothing else has counted since. */
  readonly #known = new Map<number, number>();
  #drops = 0;
  #read = 0;
  #aside = 0;

  constructor(
    readonly rig: CoreRig,
    readonly world: FuzzWorld,
  ) {
    this.#outerBytes = rig.encapsulation.header(0).length;
    this.guard = new BatchGuard(rig, layout.BATCH_MAX);
    this.#bank = rig.views.u32[(layout.MUXES_OFFSET + rig.mux * layout.MUX_BYTES + layout.MUX_BANK) / 4]!;
    this.#isLabelled = rig.family === 6 && rig.encapsulation.hasFlowId === true;
  }

  #dropSum(device: number): number {
    const { u32 } = this.rig.views;
    const first = this.rig.deviceCounterIndex(device, 0);
    let sum = 0;
    for (let reason = 0; reason < layout.DROP_REASONS; reason++) sum += u32[first + reason * 2]!;
    return sum;
  }

  /** Notes frame `i` of a device. */
  place({ isDynamic }: FuzzDevice, i: number, offset: number, length: number): void {
    // The outer header is written there, and that of a record when the frame is put aside.
    const outer = Math.max(0, this.#outerBytes - layout.VNET_HDR_BYTES);
    this.guard.place(i, offset, length, isDynamic ? Math.max(outer, layout.FRAME_RECORD_BYTES) : outer);
  }

  /** Drops may have been counted by others. */
  forget(): void {
    this.#known.clear();
  }

  /** Before the core decides a batch of frames that were placed. */
  begin(device: FuzzDevice, count: number): void {
    const { rig, world, guard } = this;
    const { row } = device;
    this.#drops = this.#known.get(row) ?? this.#dropSum(row);
    this.#read = rig.deviceCount(row, layout.COUNTER_TX_READ);
    this.#aside = rig.deviceCount(row, layout.COUNTER_TX_DEFERRED);
    for (let i = 0; i < count; i++) {
      const frame = guard.offsets[i]! + layout.VNET_HDR_BYTES;
      this.#ways[i] = world.wayOf(device, frame) ?? -1;
    }
  }

  /** After `txDecide` and `txArrange`, which returned `groups`. Has the rest laid out too, and the copies. */
  check(device: FuzzDevice, count: number, groups: number): void {
    const { rig, guard } = this;
    const { row } = device;
    let passed = 0;
    for (let i = 0; i < count; i++) {
      this.#done[i] = 0;
      const socket = rig.socketOf(i);
      guard.mustBeGuarded(i);
      if (socket === layout.TX_SOCKET_DROPPED) continue;
      passed++;
      const isCopied = socket === layout.TX_SOCKET_REPLICATE;
      if (!(isCopied || socket < this.#bank)) fault(`frame ${i}: socket ${socket} of ${this.#bank}`);
      this.#checkLength(device, i);
    }
    const drops = this.#dropSum(row);
    this.#known.set(row, drops);
    const dropped = drops - this.#drops;
    const aside = rig.deviceCount(row, layout.COUNTER_TX_DEFERRED) - this.#aside;
    if (passed + dropped + aside !== count)
      fault(`${count} frames, ${passed} passed, ${dropped} dropped, ${aside} put aside`);
    const read = rig.deviceCount(row, layout.COUNTER_TX_READ) - this.#read;
    if (read !== count) fault(`${count} frames, ${read} counted as read`);
    this.passed += passed;
    this.deferred += aside;
    if (passed === 0) {
      if (groups !== 0) fault(`${groups} groups of no frame`);
      return;
    }
    this.#lastFd = -1;
    for (let left = groups; left > 0; left = rig.core.txLayOut(rig.arena, row))
      this.#checkGroups(device, left);
    for (let i = 0; i < count; i++) {
      const socket = rig.socketOf(i);
      if (socket === layout.TX_SOCKET_DROPPED) continue;
      if (socket === layout.TX_SOCKET_REPLICATE) this.#checkCopies(device, i);
      const isSent = this.#done[i] === guard.lengths[i]! - layout.VNET_HDR_BYTES;
      if (!isSent) fault(`frame ${i} is not in any message to its end`);
    }
  }

  /** What passes is no longer than the device carries, nor are the segments of a super-frame. */
  #checkLength({ rules }: FuzzDevice, i: number): void {
    const { u32 } = this.rig.views;
    const inner = u32[(this.rig.arena + layout.ARENA_TX_HEADER_BYTES) / 4 + i]!;
    const size = u32[(this.rig.arena + layout.ARENA_TX_SEGMENT_BYTES) / 4 + i]!;
    const length = this.guard.lengths[i]! - layout.VNET_HDR_BYTES;
    const largest = inner === 0 ? length : Math.min(length, inner + size);
    const most = rules.mtu + 14 + (rules.carriesVlan ? 4 : 0);
    if (!(length >= 14 && largest <= most)) fault(`frame ${i}: ${largest} bytes of ${most}`);
  }

  /** Of a frame that is replicated: one for each of its list, in order. */
  #checkCopies(device: FuzzDevice, i: number): void {
    const { rig } = this;
    const { u32 } = rig.views;
    const list = this.world.lists.get(this.#ways[i]!);
    if (list === undefined) fault(`frame ${i} is replicated to ${this.#ways[i]}`);
    const isSuper = u32[(rig.arena + layout.ARENA_TX_HEADER_BYTES) / 4 + i] !== 0;
    let from = 0;
    for (;;) {
      const count = rig.core.txReplicate(rig.arena, device.row, i, from);
      if (count === 0) break;
      if (!(from + count <= list!.length)) fault(`frame ${i}: ${from + count} copies of ${list!.length}`);
      this.#lastFd = -1;
      if (isSuper) {
        if (count !== 1) fault(`frame ${i}: ${count} super-frames at once`);
        this.#ways[i] = list![from]!;
        this.#done[i] = 0;
        let left = u32[(rig.arena + layout.ARENA_GROUPS) / 4]!;
        for (; left > 0; left = rig.core.txLayOut(rig.arena, device.row)) this.#checkGroups(device, left);
      } else {
        const group = (rig.arena + layout.ARENA_TX_GROUPS) / 4;
        if (!(u32[group + 1] === 0 && u32[group + 2] === count))
          fault(`frame ${i}: ${u32[group + 2]} copies`);
        for (let slot = 0; slot < count; slot++) {
          this.#ways[i] = list![from + slot]!;
          this.#done[i] = 0;
          this.#lastFrame = -1;
          this.#checkMessage(device, slot, u32[group]!, list![from + slot]!);
        }
      }
      if (this.#done[i] !== this.guard.lengths[i]! - layout.VNET_HDR_BYTES)
        fault(`a copy of frame ${i} is not whole`);
      from += count;
      this.copies += count;
    }
    if (from !== list!.length) fault(`frame ${i}: ${from} copies of ${list!.length}`);
  }

  /** Send socket of a frame that passed. */
  #socketOf(i: number): number {
    const socket = this.rig.socketOf(i);
    if (socket !== layout.TX_SOCKET_REPLICATE) return socket;
    return this.rig.views.u8[this.rig.arena + layout.ARENA_TX_REPLICA_SOCKETS + i]!;
  }

  #checkGroups(device: FuzzDevice, groups: number): void {
    const { arena, views } = this.rig;
    let messages = 0;
    for (let group = 0; group < groups; group++) {
      const at = (arena + layout.ARENA_TX_GROUPS + group * layout.TX_GROUP_BYTES) / 4;
      const fd = views.u32[at]!;
      // What was laid out before may have ended within a group.
      const isLater = group === 0 ? fd >= this.#lastFd : fd > this.#lastFd;
      if (!(isLater && fd < SEND_FD + this.#bank))
        fault(`group ${group}: descriptor ${fd} after ${this.#lastFd}`);
      if (views.u32[at + 1] !== messages) fault(`group ${group}: begins with message ${views.u32[at + 1]}`);
      if (!(views.u32[at + 2]! > 0)) fault(`group ${group} is empty`);
      if (fd > this.#lastFd) this.#lastFrame = -1;
      this.#lastFd = fd;
      const end = messages + views.u32[at + 2]!;
      if (!(end <= layout.TX_MESSAGES_MAX)) fault(`group ${group}: ends at message ${end}`);
      for (; messages < end; messages++) {
        const content = (arena + layout.ARENA_TX_CONTENTS + messages * layout.TX_CONTENT_BYTES) / 4;
        const i = views.u8[arena + layout.ARENA_TX_ORDER + views.u32[content]!]!;
        this.#checkMessage(device, messages, fd, views.u32[(arena + layout.ARENA_TX_ROUTES) / 4 + i]!);
      }
    }
  }

  /** One message to `route`: its frames in order, and of each the bytes that come next. */
  #checkMessage(device: FuzzDevice, message: number, fd: number, route: number): void {
    const { rig, world } = this;
    const { u8, u32 } = rig.views;
    const at = rig.arena + layout.ARENA_TX_MESSAGES + message * MESSAGE_BYTES;
    const content = (rig.arena + layout.ARENA_TX_CONTENTS + message * layout.TX_CONTENT_BYTES) / 4;
    const first = u32[content]!;
    const end = u32[content + 1]!;
    const goesOn = u32[content + 2]!;
    const datagrams = u32[content + 3]!;
    const order = rig.arena + layout.ARENA_TX_ORDER;
    const classes = rig.arena + layout.ARENA_TX_CLASSES;
    const trafficClass = u8[classes + u8[order + first]!]!;
    const row = layout.DESTINATIONS_OFFSET + route * layout.DESTINATION_BYTES;
    this.#checkName(at, row, message);
    this.#checkControl(at, row, message, trafficClass, datagrams, u8[order + first]!);
    if (!(first < end && end <= layout.BATCH_MAX && goesOn <= 1))
      fault(`message ${message}: frames ${first} to ${end}`);
    const iovecs = rig.loadAddress(at + mmsghdr['msg_hdr.msg_iov']);
    const count = u32[(at + mmsghdr['msg_hdr.msg_iovlen']) / 4]!;
    if (!(count > 0 && u32[(at + mmsghdr['msg_hdr.msg_iovlen']) / 4 + 1] === 0))
      fault(`message ${message}: ${count} iovecs`);
    const inIovecs = iovecs - rig.arena - layout.ARENA_TX_IOVECS;
    const isInside =
      inIovecs >= 0 && inIovecs % IOVEC_BYTES === 0 && inIovecs / IOVEC_BYTES + count <= layout.TX_IOVECS_MAX;
    if (!isInside) fault(`message ${message}: iovecs at ${iovecs}`);
    const sizes = this.#sizes;
    sizes.length = 0;
    let vector = 0;
    for (let place = first; place < end; place++) {
      const i = u8[order + place]!;
      if (!(i >= this.#lastFrame)) fault(`message ${message}: frame ${i} after frame ${this.#lastFrame}`);
      this.#lastFrame = i;
      if (u8[classes + i] !== trafficClass)
        fault(`message ${message}: frame ${i} is of another traffic class`);
      if (this.#socketOf(i) !== fd - SEND_FD) fault(`frame ${i} is in the group of another socket`);
      const way = this.#ways[i]!;
      const isAllowed = way === route || world.lists.get(way)?.includes(route) === true;
      if (!isAllowed) fault(`frame ${i} goes to ${route}, not to ${way}`);
      const frameBytes = this.guard.lengths[i]! - layout.VNET_HDR_BYTES;
      if (!(this.#done[i]! < frameBytes)) fault(`frame ${i} is sent twice`);
      while (vector < count && this.#done[i]! < frameBytes) {
        const used = this.#checkDatagram(device, i, iovecs + vector * IOVEC_BYTES, sizes);
        vector += used;
        if (!(vector <= count)) fault(`message ${message}: iovecs end within a datagram`);
      }
      const isWhole = this.#done[i] === frameBytes;
      if (!(isWhole || (goesOn === 1 && place === end - 1)))
        fault(`message ${message}: frame ${i} is not whole`);
    }
    if (vector !== count) fault(`message ${message}: ${count} iovecs, ${vector} of frames`);
    if (sizes.length !== datagrams)
      fault(`message ${message}: ${datagrams} datagrams, ${sizes.length} there`);
    const most = world.frameMax(route);
    let bytes = 0;
    for (let index = 0; index < sizes.length; index++) {
      const size = sizes[index]!;
      const isLast = index === sizes.length - 1;
      if (!(isLast ? size <= sizes[0]! : size === sizes[0]))
        fault(`message ${message}: datagram ${index} of ${size} bytes`);
      if (!(most === 0 || size - this.#outerBytes <= most))
        fault(`message ${message}: ${size} bytes are too many`);
      bytes += size;
    }
    if (datagrams === 1) return;
    this.joined++;
    const mayJoin = (device.flags & layout.DEVICE_FLAG_UDP_SEGMENT) !== 0;
    const isJoinable = mayJoin && datagrams <= DATAGRAMS_MAX && bytes <= MESSAGE_DATA_BYTES_MAX;
    if (!isJoinable) fault(`message ${message}: ${datagrams} datagrams of ${bytes} bytes`);
    // The size by which the kernel cuts is checked with the other control messages.
    const cut = this.#cut;
    if (cut !== sizes[0]) fault(`message ${message}: cut by ${cut}, datagrams of ${sizes[0]}`);
  }

  /** Size by which the kernel cuts the message that is looked at. */
  #cut = 0;

  #checkName(at: number, row: number, message: number): void {
    const { u32 } = this.rig.views;
    const isName =
      this.rig.loadAddress(at + mmsghdr['msg_hdr.msg_name']) === row + layout.DESTINATION_NAME &&
      u32[(at + mmsghdr['msg_hdr.msg_namelen']) / 4] === u32[(row + layout.DESTINATION_NAME_BYTES) / 4];
    if (!isName) fault(`message ${message}: name of another destination`);
  }

  /** Control messages: those of the destination, then traffic class, flow label and size where there are any. */
  #checkControl(
    at: number,
    row: number,
    message: number,
    trafficClass: number,
    datagrams: number,
    frame: number,
  ): void {
    const { rig } = this;
    const { u8, u32 } = rig.views;
    const control = rig.loadAddress(at + mmsghdr['msg_hdr.msg_control']);
    const bytes = u32[(at + mmsghdr['msg_hdr.msg_controllen']) / 4]!;
    const ownBytes = u32[(row + layout.DESTINATION_CONTROL_BYTES) / 4]!;
    const own = row + layout.DESTINATION_CONTROL;
    if (trafficClass === 0 && datagrams === 1 && !this.#isLabelled) {
      if (!(control === own && bytes === ownBytes))
        fault(`message ${message}: control of another destination`);
      return;
    }
    const from = rig.arena + layout.ARENA_TX_CONTROLS + message * layout.TX_CONTROL_BYTES;
    let next = from + ownBytes;
    let isRight = control === from && bytes >= ownBytes && bytes <= layout.TX_CONTROL_BYTES;
    for (let i = 0; i < ownBytes; i += 4) isRight = isRight && u32[(from + i) / 4] === u32[(own + i) / 4];
    if (!isRight) fault(`message ${message}: control of another destination`);
    const isIpv6 = rig.family === 6;
    if (trafficClass !== 0) {
      this.marked++;
      const level = isIpv6 ? IPPROTO_IPV6 : IPPROTO_IP;
      const isClass = this.#isControl(next, INT_CONTROL_BYTES, level, isIpv6 ? IPV6_TCLASS : IP_TOS);
      if (!(isClass && u32[(next + 16) / 4] === trafficClass)) fault(`message ${message}: traffic class`);
      next += CONTROL_BYTES;
    }
    if (this.#isLabelled) {
      const isLabel =
        this.#isControl(next, INT_CONTROL_BYTES, IPPROTO_IPV6, IPV6_FLOWINFO) && u8[next + 16] === 0;
      const flow = u8[rig.arena + layout.ARENA_TX_FLOWS + frame]!;
      const value = (u8[next + 17]! << 16) | (u8[next + 18]! << 8) | u8[next + 19]!;
      const isOfFlow = isLabel && value === Math.imul(flow + 1, 0x9e3779b1) >>> 12;
      if (!isOfFlow) fault(`message ${message}: flow label ${value} of flow ${flow}`);
      next += CONTROL_BYTES;
    }
    if (datagrams > 1) {
      const isSize = this.#isControl(next, SHORT_CONTROL_BYTES, SOL_UDP, UDP_SEGMENT);
      if (!isSize) fault(`message ${message}: no size by which it is cut`);
      this.#cut = u32[(next + 16) / 4]!;
      next += CONTROL_BYTES;
    }
    if (bytes !== next - from) fault(`message ${message}: ${bytes} bytes of control messages`);
  }

  #isControl(at: number, bytes: number, level: number, type: number): boolean {
    const { u32 } = this.rig.views;
    const word = at / 4;
    return u32[word] === bytes && u32[word + 1] === 0 && u32[word + 2] === level && u32[word + 3] === type;
  }

  /** A frame in one piece, or the next segment of a super-frame: its headers, then its payload. Returns the iovecs. */
  #checkDatagram(device: FuzzDevice, i: number, iovec: number, sizes: number[]): number {
    const { rig } = this;
    const { u32 } = rig.views;
    const inner = u32[(rig.arena + layout.ARENA_TX_HEADER_BYTES) / 4 + i]!;
    const frame = this.guard.offsets[i]! + layout.VNET_HDR_BYTES;
    const frameBytes = this.guard.lengths[i]! - layout.VNET_HDR_BYTES;
    const base = rig.loadAddress(iovec + iovecStruct.iov_base);
    const length = u32[(iovec + iovecStruct.iov_len) / 4]!;
    if (u32[(iovec + iovecStruct.iov_len) / 4 + 1] !== 0) fault(`frame ${i}: iovec of 4 GiB`);
    if (!(base >= rig.arena && base + length <= rig.end)) fault(`frame ${i}: iovec outside the arena`);
    if (inner === 0) {
      const isFrame = base === frame - this.#outerBytes && length === frameBytes + this.#outerBytes;
      if (!isFrame) fault(`frame ${i}: iovec is not header + frame`);
      this.#checkHeader(device, base, i);
      this.#done[i] = frameBytes;
      sizes.push(length);
      return 1;
    }
    const headers = rig.arena + layout.ARENA_TX_HEADERS;
    const isScratch = base >= headers && base + length <= headers + layout.TX_HEADERS_BYTES;
    if (!(isScratch && length === this.#outerBytes + inner)) fault(`frame ${i}: headers of a segment`);
    this.#checkHeader(device, base, i);
    const from = rig.loadAddress(iovec + IOVEC_BYTES + iovecStruct.iov_base);
    const bytes = u32[(iovec + IOVEC_BYTES + iovecStruct.iov_len) / 4]!;
    const done = Math.max(this.#done[i]!, inner);
    const size = u32[(rig.arena + layout.ARENA_TX_SEGMENT_BYTES) / 4 + i]!;
    const isNext = from === frame + done && bytes === Math.min(size, frameBytes - done);
    if (!isNext) fault(`frame ${i}: payload of a segment`);
    this.#done[i] = done + bytes;
    sizes.push(length + bytes);
    return 2;
  }

  #checkHeader(device: FuzzDevice, base: number, i: number): void {
    const { u8 } = this.rig.views;
    let header = this.#headers.get(device.row);
    if (!header) {
      header = this.rig.encapsulation.header(device.rules.vnetid);
      this.#headers.set(device.row, header);
    }
    const { hasFlowId } = this.rig.encapsulation;
    const fixed = hasFlowId ? header.length - 1 : header.length;
    let isHeader = !hasFlowId || u8[base + fixed] === u8[this.rig.arena + layout.ARENA_TX_FLOWS + i];
    for (let at = 0; at < fixed; at++) isHeader = isHeader && u8[base + at] === header[at];
    if (!isHeader) fault(`frame ${i}: outer header`);
  }
}
