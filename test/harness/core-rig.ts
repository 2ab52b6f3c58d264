/**
 * The core without workers or sockets: a memory with one arena whose last byte is the last byte of the
 * WebAssembly memory, so that a read past the end of a frame placed there traps.
 */
import * as layout from '../../assembly/layout.js';
import { type Core, compileCore, instantiateCore } from '../../src/datapath/core.js';
import { createMemory, type MemoryViews, memoryBytesNeeded } from '../../src/datapath/memory.js';
import { type Mss, Tables } from '../../src/datapath/tables.js';
import { assert } from '../../src/errors.js';
import { TUNING_DEFAULT } from '../../src/limits.js';
import { AF_INET, AF_INET6, structs, UDP_GRO, UDP_SEGMENT } from '../../src/sys/abi.js';
import { sockaddr } from '../../src/sys/sockaddr.js';
import { WorkerContext } from '../../workers/context.js';
import type { Kernel } from '../../workers/kernel.js';
import { concat } from '../reference/frames.js';
import type { DeviceRules } from '../reference/vxlan.js';
import { type Encapsulation, vxlanEncapsulation } from './encapsulations.js';

export const MESSAGE_BYTES = structs.mmsghdr.size;
export const IOVEC_BYTES = structs.iovec.size;
/** Descriptor numbers that the rig writes: they are only carried through, never used. */
export const SEND_FD = 1000;
export const TAP_FD = 2000;

const MESSAGE_FLAGS = structs.mmsghdr['msg_hdr.msg_flags'];
const MESSAGE_LENGTH = structs.mmsghdr.msg_len;
const MSG_TRUNC = 0x20;
const SOL_UDP = 17;
const SOL_IP = 0;
const IP_TOS = 1;
const SOL_IPV6 = 41;
const IPV6_TCLASS = 67;
/** A control message with one number, padded (man 3 cmsg). */
const CONTROL_BYTES = 24;
/** `initialMemory` of asconfig.json, in bytes. */
const CORE_MEMORY_BYTES_MIN = 256 * 65536;

export interface RigOptions {
  readonly seed?: bigint;
  /** Send sockets. */
  readonly bank?: number;
  /** VXLAN when it is not said. */
  readonly encapsulation?: Encapsulation;
  /** Of the underlay, IPv6 when it is not said; IPv4 is on a socket of IPv6, but for what has an IP header in front. */
  readonly family?: 4 | 6;
}

/** What a device row holds beside what the twin needs to know. */
export interface RigDevice extends Partial<DeviceRules> {
  readonly vnetid: number;
  /** DEVICE_FLAG_ bits beside that for tags. */
  readonly flags?: number;
  readonly dscp?: number;
  readonly mss?: Mss;
  /** Destination row of a point device; the rig's when it is not said. */
  readonly destination?: number;
  /** Offset of the target table of a dynamic device. */
  readonly targets?: number;
}

/** One send group as the core lists it, with the datagrams it holds. */
export interface Group {
  readonly fd: number;
  readonly datagrams: readonly Uint8Array[];
  /** Index of each datagram's frame in the batch. */
  readonly frames: readonly number[];
}

/** One write to a TAP as the core lists it. */
export interface Write {
  readonly fd: number;
  readonly device: number;
  /** Where its bytes, virtio_net_hdr first, lie in the memory; or its iovecs when there are any. */
  readonly offset: number;
  readonly bytes: Uint8Array;
}

export class CoreRig {
  readonly module = compileCore();
  readonly views: MemoryViews;
  readonly core: Core;
  readonly tables: Tables;
  readonly arena: number;
  /** End of the arena and of the memory. */
  readonly end: number;
  readonly mux: number;
  /** Of the mux, 0 for GRE. */
  readonly port: number;
  readonly destination: number;
  readonly rules = new Map<number, DeviceRules>();

  readonly encapsulation: Encapsulation;
  readonly family: 4 | 6;
  /** Of the sockets. */
  readonly domain: number;

  constructor(options: RigOptions = {}) {
    const { seed = 0x123456789abcdefn, bank = 16, encapsulation = vxlanEncapsulation } = options;
    this.encapsulation = encapsulation;
    this.family = encapsulation.hasIpHeader ? 4 : (options.family ?? 6);
    this.domain = encapsulation.hasIpHeader ? AF_INET : AF_INET6;
    // More than an arena needs, which is then moved up to the end; core.wasm asks for this much at least.
    this.end = Math.max(memoryBytesNeeded(1), CORE_MEMORY_BYTES_MIN);
    this.views = createMemory(this.end, 1, seed);
    this.arena = this.end - layout.ARENA_BYTES;
    assert(this.arena % layout.LINE_BYTES === 0, 'an arena begins on a line');
    assert(this.views.u8.length === this.end, 'the arena ends where the memory does');
    // What is left in front of it is the pool.
    this.views.u32[(layout.HEADER_OFFSET + layout.HEADER_POOL) / 4] = layout.ARENAS_OFFSET;
    this.views.u32[(layout.HEADER_OFFSET + layout.HEADER_POOL_BYTES) / 4] = this.arena - layout.ARENAS_OFFSET;
    this.core = instantiateCore(this.module, this.views.memory);
    this.tables = new Tables(this.views, this.core);
    this.mux = this.tables.muxes.take();
    const isIpv6 = this.domain === AF_INET6;
    this.port = encapsulation.hasFlowId ? 0 : 4789;
    this.tables.writeMux(this.mux, encapsulation.core, bank, isIpv6, encapsulation.hasIpHeader, this.port);
    this.destination = this.addDestination(this.family === 4 ? '192.0.2.2' : 'fd00::2');
    const { i32 } = this.views;
    const sends = (this.arena + layout.ARENA_SEND_FDS) / 4 + this.mux * layout.BANK_MAX;
    for (let socket = 0; socket < layout.BANK_MAX; socket++) i32[sends + socket] = SEND_FD + socket;
    const taps = (this.arena + layout.ARENA_TAP_FDS) / 4;
    for (let device = 0; device < layout.DEVICES_MAX; device++) i32[taps + device] = TAP_FD + device;
    this.core.rxPrepare(this.arena);
    this.core.ringCreate(this.arena + layout.ARENA_MISSES, layout.MISS_RING_BYTES);
  }

  /** Adds a VTEP; returns its row. */
  addDestination(ip: string): number {
    const row = this.tables.destinations.take();
    // As a destination holds it: the core writes the vnetid.
    const header = this.encapsulation.header(0);
    this.tables.writeDestination(row, this.nameOf(ip), new Uint8Array(40).fill(0xcc), header);
    return row;
  }

  /** Socket address as the rig's sockets have it. */
  nameOf(ip: string): Uint8Array {
    return sockaddr(this.domain, ip, 4789);
  }

  /** Adds a device on the rig's mux; returns its row. */
  addDevice(given: RigDevice): number {
    const row = this.tables.devices.take();
    this.writeDevice(row, given);
    this.tables.insertVnet(this.mux, BigInt(given.vnetid), row);
    return row;
  }

  /** Writes the row of a device, anew for one that is there. */
  writeDevice(row: number, given: RigDevice): void {
    const { flags = 0, destination = this.destination, targets = 0, ...rest } = given;
    const { dscp = 0, mss = { 4: 0, 6: 0, isByPath: false }, ...own } = rest;
    const rules = { mtu: 1400, carriesVlan: true, isActive: true, hasTarget: true, ...own };
    this.rules.set(row, rules);
    const { TARGET_MODE_DYNAMIC, TARGET_MODE_NONE, TARGET_MODE_POINT } = layout;
    const alone = rules.hasTarget ? TARGET_MODE_POINT : TARGET_MODE_NONE;
    this.tables.writeDevice(row, {
      mux: this.mux,
      vnetid: BigInt(rules.vnetid),
      encap: this.encapsulation.core,
      flags: (rules.carriesVlan ? layout.DEVICE_FLAG_VLAN : 0) | flags,
      mtu: rules.mtu,
      mode: targets === 0 ? alone : TARGET_MODE_DYNAMIC,
      destination: rules.hasTarget ? destination : layout.NONE,
      targets,
      dscp,
      mss,
    });
    if (rules.isActive) this.tables.setDeviceState(row, layout.DEVICE_STATE_ACTIVE);
  }

  /** Notes frame `index` of a transmit batch: `bytes` at `offset`, virtio_net_hdr first. */
  noteFrame(index: number, offset: number, bytes: number): void {
    const entry = (this.arena + layout.ARENA_TX_FRAMES + index * layout.TX_FRAME_BYTES) / 4;
    this.views.u32[entry] = offset;
    this.views.u32[entry + 1] = bytes;
  }

  /** Places what a TAP hands over as the only frame of a batch, flush with the end of memory. */
  placeFrameAtEnd(read: Uint8Array, index = 0): void {
    this.views.u8.set(read, this.end - read.length);
    this.noteFrame(index, this.end - read.length, read.length);
  }

  /** Places frames, each with a zero virtio_net_hdr, one after the other as a worker does. */
  placeFrames(frames: readonly Uint8Array[]): void {
    let at = this.arena + layout.ARENA_TX_BUFFER + layout.TX_HEADROOM_BYTES;
    for (const [index, frame] of frames.entries()) {
      const bytes = layout.VNET_HDR_BYTES + frame.length;
      this.views.u8.fill(0, at, at + layout.VNET_HDR_BYTES);
      this.views.u8.set(frame, at + layout.VNET_HDR_BYTES);
      this.noteFrame(index, at, bytes);
      at = Math.ceil((at + bytes) / 64) * 64 + layout.TX_HEADROOM_BYTES;
    }
  }

  /** Says that datagram `index` of a receive batch lies at `offset`. */
  noteDatagram(index: number, offset: number, bytes: number, isTruncated = false): void {
    const { u32 } = this.views;
    this.#storeAddress(this.arena + layout.ARENA_RX_IOVECS + index * IOVEC_BYTES, offset);
    const message = this.arena + layout.ARENA_RX_MESSAGES + index * MESSAGE_BYTES;
    u32[(message + MESSAGE_FLAGS) / 4] = isTruncated ? MSG_TRUNC : 0;
    u32[(message + MESSAGE_LENGTH) / 4] = bytes;
  }

  /** Says who sent message `index`. */
  noteSender(index: number, name: Uint8Array): void {
    this.views.u8.set(name, this.arena + layout.ARENA_RX_NAMES + index * layout.RX_NAME_BYTES);
  }

  /**
   * Says in control messages of what traffic class message `index` was, and of what size its datagrams are.
   * @param size 0 for one datagram
   */
  noteControl(index: number, trafficClass: number, size: number): void {
    const { u32 } = this.views;
    let at = (this.arena + layout.ARENA_RX_CONTROLS + index * layout.RX_CONTROL_BYTES) / 4;
    const first = at;
    const say = (level: number, type: number, value: number) => {
      u32[at] = 20;
      u32[at + 1] = 0;
      u32[at + 2] = level;
      u32[at + 3] = type;
      u32[at + 4] = value;
      at += CONTROL_BYTES / 4;
    };
    if (size !== 0) say(SOL_UDP, UDP_GRO, size);
    if (trafficClass !== 0) {
      if (this.family === 4) say(SOL_IP, IP_TOS, trafficClass);
      else say(SOL_IPV6, IPV6_TCLASS, trafficClass);
    }
    const message = this.arena + layout.ARENA_RX_MESSAGES + index * MESSAGE_BYTES;
    u32[(message + structs.mmsghdr['msg_hdr.msg_controllen']) / 4] = (at - first) * 4;
  }

  /** Places a datagram flush with the end of memory. */
  placeDatagramAtEnd(datagram: Uint8Array, isTruncated = false, index = 0): void {
    this.views.u8.set(datagram, this.end - datagram.length);
    this.noteDatagram(index, this.end - datagram.length, datagram.length, isTruncated);
  }

  /** Places datagrams in their slots as recvmmsg does. */
  placeDatagrams(datagrams: readonly Uint8Array[]): void {
    for (const [index, datagram] of datagrams.entries()) {
      const at = this.rxSlot(index);
      this.views.u8.set(datagram, at);
      this.noteDatagram(index, at, datagram.length);
    }
  }

  /** Places messages as recvmmsg does: datagrams of one size joined, with that size in a control message (UDP_GRO). */
  placeMessages(messages: readonly (readonly Uint8Array[])[]): void {
    const { u8 } = this.views;
    for (const [index, datagrams] of messages.entries()) {
      const bytes = concat(...datagrams);
      u8.set(bytes, this.rxSlot(index));
      this.noteDatagram(index, this.rxSlot(index), bytes.length);
      this.noteControl(index, 0, datagrams.length > 1 ? datagrams[0]!.length : 0);
    }
  }

  /** Where recvmmsg puts datagram `index`. */
  rxSlot(index: number): number {
    return this.arena + layout.ARENA_RX_BUFFER + index * layout.RX_SLOT_BYTES + layout.RX_HEADROOM_BYTES;
  }

  /** Decides a transmit batch as a worker does: a trap costs its frame and the batch goes on. */
  decideTx(device: number, count: number): number {
    let traps = 0;
    for (let first = 0; first < count; ) {
      try {
        this.core.txDecide(this.arena, device, first, count);
        break;
      } catch (error) {
        if (!(error instanceof WebAssembly.RuntimeError)) throw error;
        first = this.core.txTrapped(this.arena, device);
        traps++;
      }
    }
    return traps;
  }

  /** Likewise for a receive batch of `messages` that fit the list of datagrams. */
  decideRx(messages: number): number {
    let traps = 0;
    this.core.rxBegin(this.arena, this.mux, messages);
    const count = this.core.rxUnfold(this.arena, this.mux);
    for (let first = 0; first < count; ) {
      try {
        this.core.rxDecide(this.arena, this.mux, first, count);
        break;
      } catch (error) {
        if (!(error instanceof WebAssembly.RuntimeError)) throw error;
        first = this.core.rxTrapped(this.arena, this.mux);
        traps++;
      }
    }
    this.core.rxGather(this.arena);
    return traps;
  }

  /** How many writes to TAPs the receive batch has produced. */
  get writeCount(): number {
    return this.views.u32[(this.arena + layout.ARENA_WRITES) / 4]!;
  }

  /** Copies of the writes of the receive batch. */
  writes(): Write[] {
    const { i32, u32, u8 } = this.views;
    return Array.from({ length: this.writeCount }, (_, index) => {
      const entry = (this.arena + layout.ARENA_RX_WRITES + index * layout.RX_WRITE_BYTES) / 4;
      const offset = u32[entry + 1]!;
      const iovecs = u32[entry + 4]!;
      return {
        fd: i32[entry]!,
        device: u32[entry + 3]!,
        offset,
        bytes: iovecs === 0 ? u8.slice(offset, offset + u32[entry + 2]!) : this.#gather(offset, iovecs),
      };
    });
  }

  /** Arranges the transmit batch and copies out all that would be sent. */
  groups(device: number, count: number): Group[] {
    const all: Group[] = [];
    for (let groups = this.core.txArrange(this.arena, device, count); groups > 0; ) {
      all.push(...this.laidOut(groups));
      groups = this.core.txLayOut(this.arena, device);
    }
    return all;
  }

  /** What would be sent of `groups` that are laid out, following pointers as the kernel does. */
  laidOut(groups: number): Group[] {
    const { i32, u32, u8 } = this.views;
    return Array.from({ length: groups }, (_, group) => {
      const at = (this.arena + layout.ARENA_TX_GROUPS + group * layout.TX_GROUP_BYTES) / 4;
      const datagrams: Uint8Array[] = [];
      const frames: number[] = [];
      for (let message = u32[at + 1]!; message < u32[at + 1]! + u32[at + 2]!; message++) {
        datagrams.push(...this.datagramsOf(message));
        const content = (this.arena + layout.ARENA_TX_CONTENTS + message * layout.TX_CONTENT_BYTES) / 4;
        const end = u32[content + 1]! - u32[content + 2]!;
        for (let place = u32[content]!; place < end; place++) {
          frames.push(u8[this.arena + layout.ARENA_TX_ORDER + place]!);
        }
      }
      return { fd: i32[at]!, datagrams, frames };
    });
  }

  /** Messages of `groups`. */
  messageCount(groups: number): number {
    if (groups === 0) return 0;
    const at = (this.arena + layout.ARENA_TX_GROUPS + (groups - 1) * layout.TX_GROUP_BYTES) / 4;
    return this.views.u32[at + 1]! + this.views.u32[at + 2]!;
  }

  /** What the kernel would send of a message that is laid out. */
  datagramsOf(message: number): Uint8Array[] {
    const header = this.arena + layout.ARENA_TX_MESSAGES + message * MESSAGE_BYTES;
    const iovec = this.loadAddress(header + structs.mmsghdr['msg_hdr.msg_iov']);
    const count = this.views.u32[(header + structs.mmsghdr['msg_hdr.msg_iovlen']) / 4]!;
    return this.#cut(header, this.#gather(iovec, count));
  }

  /** What lies where iovecs say, one behind the other. */
  #gather(iovecs: number, count: number): Uint8Array {
    const parts = Array.from({ length: count }, (_, index) => {
      const at = iovecs + index * IOVEC_BYTES;
      const offset = this.loadAddress(at);
      return this.views.u8.slice(offset, offset + this.views.u32[(at + structs.iovec.iov_len) / 4]!);
    });
    return concat(...parts);
  }

  /** Datagrams that the kernel makes of a message: of the size that its last control message says, if there is one more. */
  #cut(message: number, bytes: Uint8Array): Uint8Array[] {
    const { u8, u32 } = this.views;
    const control = this.loadAddress(message + structs.mmsghdr['msg_hdr.msg_control']);
    const controlBytes = u32[(message + structs.mmsghdr['msg_hdr.msg_controllen']) / 4]!;
    const last = control + controlBytes - CONTROL_BYTES;
    const isCut =
      controlBytes >= CONTROL_BYTES && u32[last / 4 + 2] === SOL_UDP && u32[last / 4 + 3] === UDP_SEGMENT;
    const size = isCut ? u8[last + 16]! + u8[last + 17]! * 256 : bytes.length;
    const count = Math.max(1, Math.ceil(bytes.length / size));
    return Array.from({ length: count }, (_, index) => bytes.slice(index * size, (index + 1) * size));
  }

  /** Send socket of frame `index`, or TX_SOCKET_DROPPED. */
  socketOf(index: number): number {
    return this.views.u8[this.arena + layout.ARENA_TX_SOCKETS + index]!;
  }

  /** Offset in the memory that the absolute address at `at` means; not necessarily inside. */
  loadAddress(at: number): number {
    const { u32, base } = this.views;
    return u32[at / 4 + 1]! * 2 ** 32 + u32[at / 4]! - base;
  }

  #storeAddress(at: number, offset: number): void {
    const { u32, base } = this.views;
    u32[at / 4] = (base + offset) % 2 ** 32;
    u32[at / 4 + 1] = Math.floor((base + offset) / 2 ** 32);
  }

  /** A counter or drop count of a device. */
  deviceCount(device: number, counter: number): number {
    return this.views.u32[this.deviceCounterIndex(device, counter)]!;
  }

  /** A counter or drop count of the mux. */
  muxCount(counter: number): number {
    return this.views.u32[this.deviceCounterIndex(layout.DEVICES_MAX + this.mux, counter)]!;
  }

  /** Index in `views.u32` of the low word of a counter; mux rows follow device rows. */
  deviceCounterIndex(row: number, counter: number): number {
    return (this.arena + layout.ARENA_COUNTERS + row * layout.COUNTER_ROW_BYTES) / 4 + counter * 2;
  }
}

/** The real worker over a rig's memory, with a kernel of the test's. */
export function workerOf({ views, module, arena, core }: CoreRig, kernel: Kernel): WorkerContext {
  core.ringCreate(arena + layout.ARENA_EVENTS, layout.EVENT_RING_BYTES);
  const task = { memory: views.memory, module, arena, epoll: -1, wake: -1, cpu: -1, ...TUNING_DEFAULT };
  return new WorkerContext(task, kernel);
}

/** Stands for `Engine.retire` where no worker reads anything. */
export async function reclaimAtOnce(
  _what: string,
  steps: Readonly<Record<string, () => unknown>>,
): Promise<boolean> {
  for (const step of Object.values(steps)) await step();
  return true;
}
