/**
 * The devices of a fuzz run: a few that stay as they are, and others whose settings are drawn anew now and then from all that
 * the core reads. With them destinations, targets in every state, and senders. And what all of that means, for the checkers.
 */
import * as layout from '../../assembly/layout.js';
import { OwnSockets } from '../../src/datapath/own-sockets.js';
import { Pool } from '../../src/datapath/pool.js';
import { createSources } from '../../src/datapath/sources.js';
import { TargetTable } from '../../src/datapath/target-table.js';
import { ipBytes, ipNativeBytes } from '../../src/ip.js';
import { isToOwnSocket, type OwnSocket } from '../reference/own-socket.js';
import type { DeviceRules } from '../reference/vxlan.js';
import { fault } from './batch-guard.js';
import { type CoreRig, type RigDevice, reclaimAtOnce } from './core-rig.js';
import { OWN_PREFIXES } from './fuzz-samples.js';
import type { Xorshift } from './xorshift.js';

/** Bytes of the largest frame that the narrow way takes. */
export const NARROW_BYTES = 300;
/** Targets are 02:00:00:00:00:00 and on. */
export const MACS = 32;
const MAC_FIRST = 0x020000000000;
const BROADCAST = 0xffffffffffff;
const MTU = 576;

export interface Target {
  /** TARGET_ bits, 0 for none. */
  readonly flags: number;
  /** Destination row. */
  readonly destination: number;
}

/** A device and its settings. */
export interface FuzzDevice {
  readonly row: number;
  readonly rules: DeviceRules;
  readonly flags: number;
  readonly dscp: number;
  readonly mss: { readonly 4: number; readonly 6: number; readonly isByPath: boolean };
  /** Of a dynamic one frames go where their address says, of others there. */
  readonly destination: number;
  readonly isDynamic: boolean;
  readonly sourceMode: number;
  /** Senders are of the set only. */
  readonly isSetGiven: boolean;
}

function prefixBytes(prefix: string): { bytes: Uint8Array; bits: number } {
  const [ip = '', bits = ''] = prefix.split('/');
  return { bytes: ipNativeBytes(ip), bits: Number(bits) };
}

const anyMss = { 4: 0, 6: 0, isByPath: false };

export class FuzzWorld {
  readonly pool: Pool;
  /** The mux itself, which guests may not send to. */
  readonly own: readonly OwnSocket[];
  readonly devices = new Map<number, FuzzDevice>();
  /** By the last byte of the address. */
  readonly targets: readonly Target[];
  /** Rows of unicast destinations: the last is narrow. */
  readonly unicast: readonly number[];
  /** Rows of each list. */
  readonly lists = new Map<number, readonly number[]>();
  /** Socket addresses of those, and of a stranger. */
  readonly senders: readonly Uint8Array[];
  readonly #spread: number;
  readonly #replicate: number;
  readonly #tables = new Map<number, TargetTable>();
  readonly #varied: readonly number[];
  readonly #set: number;
  readonly #group: Target;
  #kept: Buffer[] = [];
  #draws = 0;

  constructor(
    readonly rig: CoreRig,
    readonly random: Xorshift,
  ) {
    this.pool = new Pool(rig.views);
    const ips = Array.from({ length: 6 }, (_, i) => (rig.family === 4 ? `192.0.2.1${i}` : `fd00::1${i}`));
    this.senders = ips.map((ip) => rig.nameOf(ip));
    this.unicast = ips.slice(0, 5).map((ip) => rig.addDestination(ip));
    const [a, b, c, d, narrow] = this.unicast as [number, number, number, number, number];
    rig.tables.setFrameMax(narrow, NARROW_BYTES);
    const own = new OwnSockets(rig.views, rig.core, this.pool, reclaimAtOnce);
    own.set(rig.mux, rig.port, OWN_PREFIXES);
    this.own = [{ port: rig.port, prefixes: OWN_PREFIXES.map(prefixBytes) }];
    this.#spread = this.#addList(layout.DESTINATION_KIND_SPREAD, [a, b, narrow]);
    this.#replicate = this.#addList(layout.DESTINATION_KIND_REPLICATE, [b, c, d]);
    this.targets = this.#targets();
    this.#group = { flags: layout.TARGET_VALID, destination: this.#replicate };
    this.#set = createSources(rig.views, rig.core, this.pool, ips.slice(0, 4).map(ipBytes));
    this.#add({ vnetid: 1, mtu: MTU, carriesVlan: false });
    this.#add({ vnetid: 0x10000, mtu: 1400 });
    this.#add({ vnetid: 2, isActive: false });
    this.#add({ vnetid: 3, hasTarget: false });
    this.#varied = [4, 5, 0xffff, 0xffffff].map((vnetid, index) => {
      const row = this.#add({ vnetid, mtu: MTU });
      if (index > 1) {
        const table = new TargetTable({
          views: rig.views,
          core: rig.core,
          tables: rig.tables,
          pool: this.pool,
          arenas: 1,
          row,
          max: MACS + 1,
        });
        for (const [last, { flags, destination }] of this.targets.entries()) {
          if (flags !== 0) table.insert(MAC_FIRST + last, flags, destination, 1);
        }
        table.insert(BROADCAST, this.#group.flags, this.#group.destination, 1);
        this.#tables.set(row, table);
      }
      return row;
    });
    this.draw();
  }

  #addList(kind: number, rows: readonly number[]): number {
    const { tables, views, encapsulation } = this.rig;
    const row = tables.destinations.take();
    const list = this.pool.take(rows.length * 4, 'a list');
    views.u32.set(rows, list / 4);
    tables.writeList(row, kind, list, rows.length, encapsulation.header(0));
    this.lists.set(row, rows);
    return row;
  }

  #targets(): Target[] {
    const { TARGET_VALID, TARGET_DROP, TARGET_PENDING, TARGET_FULL, TARGET_DRAINING } = layout;
    const [a, b, , , narrow] = this.unicast as [number, number, number, number, number];
    const odd: readonly Target[] = [
      { flags: TARGET_VALID, destination: this.#spread },
      { flags: TARGET_VALID, destination: this.#replicate },
      { flags: TARGET_VALID, destination: narrow },
      { flags: TARGET_DROP, destination: 0 },
      { flags: TARGET_PENDING, destination: 0 },
      { flags: TARGET_PENDING | TARGET_FULL, destination: 0 },
      { flags: TARGET_DRAINING, destination: b },
      { flags: 0, destination: 0 },
    ];
    const plain = { flags: TARGET_VALID, destination: a };
    return Array.from({ length: MACS }, (_, last) =>
      last % 2 === 0
        ? { ...plain, destination: this.unicast[(last / 2) % 4]! }
        : odd[(last >> 1) % odd.length]!,
    );
  }

  #add(given: RigDevice): number {
    const row = this.rig.addDevice(given);
    this.#keep(row, { destination: this.rig.destination });
    return row;
  }

  #keep(row: number, settings: Partial<FuzzDevice>): void {
    const rules = this.rig.rules.get(row)!;
    const rest = {
      flags: 0,
      dscp: 0,
      mss: anyMss,
      destination: 0,
      isDynamic: false,
      sourceMode: 0,
      isSetGiven: false,
    };
    this.devices.set(row, { row, rules, ...rest, ...settings });
  }

  /** Draws the settings of the devices that have others now and then. */
  draw(): void {
    this.#draws++;
    for (const [index, row] of this.#varied.entries()) this.#drawOne(row, (index + this.#draws) % 2 === 0);
  }

  /** The default comes as often as all others together. */
  #drawOne(row: number, isDefault: boolean): void {
    const { random, rig } = this;
    const table = this.#tables.get(row);
    const isDynamic = table !== undefined;
    const one = <T>(...choices: readonly T[]): T => choices[random.below(choices.length)]!;
    const maybe = (flag: number, byDefault: boolean) =>
      (isDefault ? byDefault : random.below(2) === 0) ? flag : 0;
    const flags =
      maybe(layout.DEVICE_FLAG_COALESCE, true) |
      maybe(layout.DEVICE_FLAG_COALESCE_UDP, true) |
      // Of raw sockets the kernel cuts nothing.
      (rig.encapsulation.hasFlowId ? 0 : maybe(layout.DEVICE_FLAG_UDP_SEGMENT, true)) |
      maybe(layout.DEVICE_FLAG_RESERVED, false) |
      maybe(layout.DEVICE_FLAG_INNER_TO_MUX, false) |
      maybe(layout.DEVICE_FLAG_ECN_CLEAR, false) |
      (isDynamic ? maybe(layout.DEVICE_FLAG_PROXY, true) | maybe(layout.DEVICE_FLAG_LEARN, false) : 0);
    const size = one(88, 500, 536, 1360);
    const limits = { 4: size, 6: Math.max(88, size - 20), isByPath: isDefault || random.below(2) === 0 };
    const mss = isDefault || random.below(2) === 0 ? limits : anyMss;
    const dscp = isDefault ? 0 : one(0, 63, random.below(64), layout.DSCP_INHERIT);
    const [first, , , , narrow] = this.unicast;
    const destination = one(first!, first!, narrow!);
    const carriesVlan = isDefault || random.below(2) === 0;
    const { SOURCE_MODE_KNOWN, SOURCE_MODE_OFF, SOURCE_MODE_STRICT } = layout;
    const sourceMode = one(
      SOURCE_MODE_OFF,
      SOURCE_MODE_KNOWN,
      isDynamic ? SOURCE_MODE_STRICT : SOURCE_MODE_KNOWN,
    );
    const isSetGiven = sourceMode === SOURCE_MODE_KNOWN || (sourceMode === SOURCE_MODE_STRICT && isDefault);
    const given = { flags, dscp, mss, destination, sourceMode, isSetGiven };
    this.set(row, { mtu: one(MTU, 1400), carriesVlan }, given);
  }

  /** Gives a device these settings. */
  set(row: number, rules: Partial<DeviceRules>, settings: Partial<FuzzDevice>): void {
    const { rig } = this;
    const { vnetid } = rig.rules.get(row)!;
    const { destination = rig.destination, flags = 0, dscp = 0, mss = anyMss, sourceMode = 0 } = settings;
    const targets = this.#tables.get(row)?.offset ?? 0;
    rig.writeDevice(row, { ...rules, vnetid, flags, dscp, mss, destination, targets });
    rig.tables.setSources(row, sourceMode, settings.isSetGiven ? this.#set : 0);
    this.#keep(row, { ...settings, destination, isDynamic: targets !== 0 });
  }

  /** Target of the address at `at`. */
  targetAt(at: number): Target | undefined {
    const { u8 } = this.rig.views;
    if (u8[at] === 0xff)
      return u8.subarray(at, at + 6).every((octet) => octet === 0xff) ? this.#group : undefined;
    const isOurs = u8[at] === 2 && (u8[at + 1]! | u8[at + 2]! | u8[at + 3]! | u8[at + 4]!) === 0;
    const target = isOurs ? this.targets[u8[at + 5]!] : undefined;
    return target && target.flags !== 0 ? target : undefined;
  }

  /** Where a frame may be sent that a link has handed over; undefined for nowhere. */
  wayOf(device: FuzzDevice, frame: number): number | undefined {
    if (!device.isDynamic) return device.rules.hasTarget ? device.destination : undefined;
    const target = this.targetAt(frame);
    return target && target.flags === layout.TARGET_VALID ? target.destination : undefined;
  }

  /** Bytes of the largest frame that a unicast destination takes, 0 for any. */
  frameMax(row: number): number {
    return row === this.unicast[4] ? NARROW_BYTES : 0;
  }

  /** What becomes of a datagram by who sent it; undefined when it may pass. @param source where the frame has its own, if it has */
  refusal(
    device: FuzzDevice,
    sender: number,
    source: number | undefined,
  ): 'rx_source_unknown' | 'rx_source_mac' | undefined {
    if (device.sourceMode === layout.SOURCE_MODE_OFF) return undefined;
    if (device.isSetGiven && sender > 3) return 'rx_source_unknown';
    if (device.sourceMode !== layout.SOURCE_MODE_STRICT || source === undefined) return undefined;
    const target = this.targetAt(source);
    if (!target || (target.flags & (layout.TARGET_VALID | layout.TARGET_DRAINING)) === 0)
      return 'rx_source_mac';
    const rows = this.lists.get(target.destination) ?? [target.destination];
    return rows.includes(this.unicast[sender]!) ? undefined : 'rx_source_mac';
  }

  /** True for a received frame that is dropped since it is for the mux itself. */
  isForMux({ flags }: FuzzDevice, frame: Uint8Array): boolean {
    return (flags & layout.DEVICE_FLAG_INNER_TO_MUX) === 0 && isToOwnSocket(frame, this.own);
  }

  /** Keeps a copy of what no batch may change: static data, header, tables, and what they lead to. */
  keep(): void {
    this.#kept = this.#fixed().map((bytes) => Buffer.from(bytes));
  }

  /** All of that is as it was kept. */
  mustBeKept(): void {
    for (const [index, bytes] of this.#fixed().entries()) {
      if (this.#kept[index]!.compare(bytes) !== 0) fault('the tables are not as they were');
    }
  }

  #fixed(): Uint8Array[] {
    const { u8, u32 } = this.rig.views;
    const tables = [...this.#tables.values()].map(({ offset }) => {
      const slots = u32[(offset + layout.TABLE_SLOTS) / 4]!;
      return u8.subarray(offset, offset + layout.TABLE_BYTES + slots * layout.SLOT_BYTES);
    });
    const lists = [...this.lists].map(([row, rows]) => {
      const at = layout.DESTINATIONS_OFFSET + row * layout.DESTINATION_BYTES + layout.DESTINATION_LIST;
      return u8.subarray(u32[at / 4]!, u32[at / 4]! + rows.length * 4);
    });
    return [u8.subarray(0, layout.ARENAS_OFFSET), ...tables, ...lists];
  }
}
