/**
 * Writer's side of the tables that workers read (`assembly/table.ts` is the reader's). Main alone writes, and
 * a row is filled before the atomic store that publishes it. What is retired here must be quiesced
 * (`workers.quiesce`) before its row is given out again: the `free` functions are for after that.
 */
import * as layout from '../../assembly/layout.js';
import { assert, OverlayError } from '../errors.js';
import { isIpv6Name } from '../sys/control-message.js';
import type { Core } from './core.js';
import type { MemoryViews } from './memory.js';

/** What a device row holds; see DEVICE_ in `assembly/layout.ts`. */
export interface DeviceRow {
  mux: number;
  vnetid: bigint;
  encap: number;
  flags: number;
  mtu: number;
  mode: number;
  destination: number;
  /** Offset of the target table, 0 for none. */
  targets: number;
  /** Of outer headers: 0 to 63, or DSCP_INHERIT; 0 when it is not said. */
  dscp?: number;
  /** What TCP may offer; anything when it is not said. */
  mss?: Mss;
}

/** The largest segments that TCP may offer, by family, 0 for any; and whether what a path takes counts too. */
export interface Mss {
  readonly 4: number;
  readonly 6: number;
  readonly isByPath: boolean;
}

const anyMss: Mss = { 4: 0, 6: 0, isByPath: false };

/** Row numbers 0 to max - 1; the one freed last is given out first. */
class RowPool {
  readonly #used: boolean[] = [];
  readonly #free: number[] = [];
  constructor(
    readonly what: string,
    readonly max: number,
  ) {}

  get inUse(): number {
    return this.#used.length - this.#free.length;
  }

  take(): number {
    const row = this.#free.pop() ?? this.#used.length;
    if (row >= this.max) {
      throw new OverlayError(
        'ENOSPC',
        'table_full',
        `no room for another ${this.what}: the limit is ${this.max}`,
      );
    }
    this.#used[row] = true;
    return row;
  }

  free(row: number): void {
    assert(this.#used[row], `${this.what} row ${row} is freed twice`);
    this.#used[row] = false;
    this.#free.push(row);
  }
}

export class Tables {
  readonly devices = new RowPool('device', layout.DEVICES_MAX);
  readonly muxes = new RowPool('underlay address', layout.MUXES_MAX);
  readonly destinations = new RowPool('destination', layout.DESTINATIONS_MAX);

  constructor(
    readonly views: MemoryViews,
    readonly core: Core,
  ) {}

  /** Fills a device row; it stays in state DROP until `setDeviceState`. */
  writeDevice(row: number, device: DeviceRow): void {
    const { u32, u64 } = this.views;
    const at = layout.DEVICES_OFFSET + row * layout.DEVICE_BYTES;
    this.setDeviceState(row, layout.DEVICE_STATE_DROP);
    u32[(at + layout.DEVICE_MUX) / 4] = device.mux;
    u64[(at + layout.DEVICE_VNETID) / 8] = device.vnetid;
    u32[(at + layout.DEVICE_ENCAP) / 4] = device.encap;
    u32[(at + layout.DEVICE_FLAGS) / 4] = device.flags;
    u32[(at + layout.DEVICE_MODE) / 4] = device.mode;
    u32[(at + layout.DEVICE_DESTINATION) / 4] = device.destination;
    u32[(at + layout.DEVICE_DSCP) / 4] = device.dscp ?? 0;
    this.setTargets(row, device.targets);
    this.setDeviceMtu(row, device.mtu);
    this.setDeviceMss(row, device.mss ?? anyMss);
  }

  /** Live: the next batch reads the table at this offset. */
  setTargets(row: number, offset: number): void {
    const at = layout.DEVICES_OFFSET + row * layout.DEVICE_BYTES + layout.DEVICE_TARGETS;
    Atomics.store(this.views.u32, at / 4, offset);
  }

  /** Who may send to the device: a SOURCE_MODE_ number, and the offset of a set. Live but for a change of the mode. */
  setSources(row: number, mode: number, offset: number): void {
    const at = layout.DEVICES_OFFSET + row * layout.DEVICE_BYTES;
    this.views.u32[(at + layout.DEVICE_SOURCE_MODE) / 4] = mode;
    Atomics.store(this.views.u32, (at + layout.DEVICE_SOURCES) / 4, offset);
  }

  setDeviceState(row: number, state: number): void {
    const at = layout.DEVICES_OFFSET + row * layout.DEVICE_BYTES + layout.DEVICE_STATE;
    Atomics.store(this.views.u32, at / 4, state);
  }

  /** The bits of `mask` become those of `flags`. Live: workers read them afresh for every batch. */
  setDeviceFlags(row: number, mask: number, flags: number): void {
    const at = (layout.DEVICES_OFFSET + row * layout.DEVICE_BYTES + layout.DEVICE_FLAGS) / 4;
    const { u32 } = this.views;
    Atomics.store(u32, at, (Atomics.load(u32, at) & ~mask) | (flags & mask));
  }

  /** Live: workers read it afresh for every frame. */
  setDeviceMtu(row: number, mtu: number): void {
    const at = layout.DEVICES_OFFSET + row * layout.DEVICE_BYTES + layout.DEVICE_MTU;
    Atomics.store(this.views.u32, at / 4, mtu);
  }

  /** Live. */
  setDeviceMss(row: number, mss: Mss): void {
    const at = layout.DEVICES_OFFSET + row * layout.DEVICE_BYTES;
    Atomics.store(this.views.u32, (at + layout.DEVICE_MSS_IPV6) / 4, mss[6]);
    Atomics.store(this.views.u32, (at + layout.DEVICE_MSS_IPV4) / 4, mss[4]);
    const flag = layout.DEVICE_FLAG_MSS_PATH;
    this.setDeviceFlags(row, flag, mss.isByPath ? flag : 0);
  }

  /**
   * @param isIpv6 form of senders' addresses, @param hasIpHeader an IPv4 header comes in front of datagrams
   * @param port of the receive sockets, 0 for GRE
   */
  writeMux(row: number, encap: number, bank: number, isIpv6: boolean, hasIpHeader = false, port = 0): void {
    assert(bank >= 1 && bank <= layout.BANK_MAX, `a bank of ${bank} send sockets`);
    const at = layout.MUXES_OFFSET + row * layout.MUX_BYTES;
    this.views.u32[(at + layout.MUX_ENCAP) / 4] = encap;
    this.views.u32[(at + layout.MUX_BANK) / 4] = bank;
    this.views.u32[(at + layout.MUX_IS_IPV6) / 4] = isIpv6 ? 1 : 0;
    this.views.u32[(at + layout.MUX_HAS_IP_HEADER) / 4] = hasIpHeader ? 1 : 0;
    this.views.u32[(at + layout.MUX_PORT) / 4] = port;
  }

  /** Fills a destination: where the kernel sends to, and the encap header that goes in front of frames. */
  writeDestination(row: number, name: Uint8Array, control: Uint8Array, header: Uint8Array): void {
    assert(name.length <= layout.DESTINATION_NAME_BYTES_MAX, 'sockaddr too long');
    assert(control.length <= layout.DESTINATION_CONTROL_BYTES_MAX, 'control message too long');
    assert(header.length <= layout.DESTINATION_HEADER_BYTES_MAX, 'encap header too long');
    const { u8, u32 } = this.views;
    const at = layout.DESTINATIONS_OFFSET + row * layout.DESTINATION_BYTES;
    u8.set(name, at + layout.DESTINATION_NAME);
    u8.set(control, at + layout.DESTINATION_CONTROL);
    u8.set(header, at + layout.DESTINATION_HEADER);
    u32[(at + layout.DESTINATION_NAME_BYTES) / 4] = name.length;
    u32[(at + layout.DESTINATION_CONTROL_BYTES) / 4] = control.length;
    u32[(at + layout.DESTINATION_HEADER_BYTES) / 4] = header.length;
    u32[(at + layout.DESTINATION_KIND) / 4] = layout.DESTINATION_KIND_UNICAST;
    u32[(at + layout.DESTINATION_IS_IPV6) / 4] = isIpv6Name(name) ? 1 : 0;
    this.setFrameMax(row, 0);
  }

  /** Bytes of the largest inner frame that the way to a destination takes, 0 for any. Live. */
  setFrameMax(row: number, bytes: number): void {
    const at = layout.DESTINATIONS_OFFSET + row * layout.DESTINATION_BYTES + layout.DESTINATION_FRAME_MAX;
    Atomics.store(this.views.u32, at / 4, bytes);
  }

  /** Fills a list: `count` row numbers (u32) at `list`, all with the same encap header. */
  writeList(row: number, kind: number, list: number, count: number, header: Uint8Array): void {
    this.writeDestination(row, new Uint8Array(0), new Uint8Array(0), header);
    const at = layout.DESTINATIONS_OFFSET + row * layout.DESTINATION_BYTES;
    this.views.u32[(at + layout.DESTINATION_LIST) / 4] = list;
    this.views.u32[(at + layout.DESTINATION_LIST_COUNT) / 4] = count;
    this.views.u32[(at + layout.DESTINATION_KIND) / 4] = kind;
  }

  /** Device row behind (mux, vnetid), or undefined. */
  findVnet(mux: number, vnetid: bigint): number | undefined {
    const device = this.core.findDevice(mux, vnetid) >>> 0;
    return device === layout.NONE ? undefined : device;
  }

  /** Publishes (mux, vnetid) -> device. The pair must not be there (callers check, with EEXIST). */
  insertVnet(mux: number, vnetid: bigint, device: number): void {
    assert(this.findVnet(mux, vnetid) === undefined, `vnetid ${vnetid} is on mux ${mux} already`);
    const { u32, u64 } = this.views;
    const start = this.core.vnetSlot(mux, vnetid) >>> 0;
    for (let probe = 0; probe < layout.VNETS_MAX; probe++) {
      const at = this.#vnetAt(start + probe);
      const held = Atomics.load(u32, (at + layout.VNET_DEVICE) / 4);
      if (held !== 0 && held !== layout.NONE) continue;
      u64[(at + layout.VNET_VNETID) / 8] = vnetid;
      u32[(at + layout.VNET_MUX) / 4] = mux;
      Atomics.store(u32, (at + layout.VNET_DEVICE) / 4, device + 1);
      return;
    }
    assert(false, 'the vnet table is full: VNETS_MAX must exceed DEVICES_MAX');
  }

  /** Withdraws (mux, vnetid). Slots at the end of a probe run become fresh again, so that runs stay short. */
  removeVnet(mux: number, vnetid: bigint): void {
    const { u32, u64 } = this.views;
    const start = this.core.vnetSlot(mux, vnetid) >>> 0;
    for (let probe = 0; probe < layout.VNETS_MAX; probe++) {
      const at = this.#vnetAt(start + probe);
      const held = Atomics.load(u32, (at + layout.VNET_DEVICE) / 4);
      assert(held !== 0, `vnetid ${vnetid} is not on mux ${mux}`);
      if (held === layout.NONE) continue;
      if (u64[(at + layout.VNET_VNETID) / 8] !== vnetid || u32[(at + layout.VNET_MUX) / 4] !== mux) continue;
      Atomics.store(u32, (at + layout.VNET_DEVICE) / 4, layout.NONE);
      this.#freshen(start + probe);
      return;
    }
  }

  #freshen(slot: number): void {
    const { u32 } = this.views;
    const next = (this.#vnetAt(slot + 1) + layout.VNET_DEVICE) / 4;
    if (Atomics.load(u32, next) !== 0) return;
    for (let back = 0; back < layout.VNETS_MAX; back++) {
      const index = (this.#vnetAt(slot - back) + layout.VNET_DEVICE) / 4;
      if (Atomics.load(u32, index) !== layout.NONE) return;
      Atomics.store(u32, index, 0);
    }
  }

  #vnetAt(slot: number): number {
    return layout.VNETS_OFFSET + (slot & (layout.VNETS_MAX - 1)) * layout.VNET_BYTES;
  }
}
