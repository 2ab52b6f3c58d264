/** The receiving core of one worker with DYNAMIC devices: datagrams with their senders in, verdicts out. */
import * as layout from '../../assembly/layout.js';
import { type Core, compileCore, instantiateCore } from '../../src/datapath/core.js';
import { Destinations } from '../../src/datapath/destinations.js';
import { dropNames } from '../../src/datapath/drop.js';
import { arenaOffset, createMemory, type MemoryViews, memoryBytesNeeded } from '../../src/datapath/memory.js';
import { Pool } from '../../src/datapath/pool.js';
import { Tables } from '../../src/datapath/tables.js';
import { TargetTable } from '../../src/datapath/target-table.js';
import { assert } from '../../src/errors.js';
import { structs } from '../../src/sys/abi.js';

import { type Encapsulation, vxlanEncapsulation } from './encapsulations.js';

const MESSAGE_BYTES = structs.mmsghdr.size;
const MESSAGE_LENGTH = structs.mmsghdr.msg_len;

/** What a device with source checks drops for, and nobody else. */
const SOURCE_DROPS = ['rx_source_unknown', 'rx_source_mac'] as const;

export interface ReceiveRigOptions {
  readonly encapsulation?: Encapsulation;
  /** Whether senders are IPv6 addresses, which IPv4-mapped ones are too. */
  readonly isIpv6?: boolean;
  readonly mtu?: number;
}

export class ReceiveRig {
  readonly views: MemoryViews = createMemory(memoryBytesNeeded(1), 1, 7n);
  readonly core: Core = instantiateCore(compileCore(), this.views.memory);
  readonly tables = new Tables(this.views, this.core);
  readonly pool = new Pool(this.views);
  readonly destinations = new Destinations(this.tables, this.pool);
  readonly arena = arenaOffset(0);
  /** The table of each device, in the order in which they were added. */
  readonly targets: TargetTable[] = [];
  readonly #mux = this.tables.muxes.take();
  /** Frames that were to be written to a link. */
  passed = 0;
  traps = 0;

  readonly #encapsulation: Encapsulation;
  readonly #mtu: number;

  constructor(options: ReceiveRigOptions = {}) {
    const { encapsulation = vxlanEncapsulation, isIpv6 = true, mtu = 1400 } = options;
    const { arena, core } = this;
    this.#encapsulation = encapsulation;
    this.#mtu = mtu;
    this.tables.writeMux(this.#mux, encapsulation.core, 1, isIpv6, encapsulation.hasIpHeader);
    core.ringCreate(arena + layout.ARENA_MISSES, layout.MISS_RING_BYTES);
    core.rxPrepare(arena);
  }

  /** @param mode a SOURCE_MODE_ number, @param sources a set of senders, or 0, @param flags further DEVICE_FLAG_ bits */
  addDevice(vnetid: number, mode: number, sources: number, flags = 0): void {
    const { tables, views, core, pool } = this;
    const row = tables.devices.take();
    tables.writeDevice(row, {
      mux: this.#mux,
      vnetid: BigInt(vnetid),
      encap: this.#encapsulation.core,
      flags: layout.DEVICE_FLAG_VLAN | layout.DEVICE_FLAG_PROXY | flags,
      mtu: this.#mtu,
      mode: layout.TARGET_MODE_DYNAMIC,
      destination: layout.NONE,
      targets: 0,
    });
    this.targets.push(new TargetTable({ views, core, pool, tables, arenas: 1, row, max: 10_000 }));
    tables.setSources(row, mode, sources);
    tables.setDeviceState(row, layout.DEVICE_STATE_ACTIVE);
    tables.insertVnet(this.#mux, BigInt(vnetid), row);
  }

  /** Where datagram `index` of a batch lies. */
  slot(index: number): number {
    return this.arena + layout.ARENA_RX_BUFFER + index * layout.RX_SLOT_BYTES + layout.RX_HEADROOM_BYTES;
  }

  /** Says how long it is and who sent it. @param name a sockaddr of the rig's family */
  note(index: number, bytes: number, name: Uint8Array): void {
    const { u8, u32 } = this.views;
    const message = this.arena + layout.ARENA_RX_MESSAGES + index * MESSAGE_BYTES;
    u32[(message + MESSAGE_LENGTH) / 4] = bytes;
    u8.set(name, this.arena + layout.ARENA_RX_NAMES + index * layout.RX_NAME_BYTES);
  }

  /** Decides a batch as a worker does: a trap costs its datagram and the batch goes on. */
  decide(count: number): void {
    const { arena, core, views } = this;
    core.rxBegin(arena, this.#mux, count);
    const datagrams = core.rxUnfold(arena, this.#mux);
    assert(datagrams === count, 'a message is a datagram here');
    for (let first = 0; first < count; ) {
      try {
        core.rxDecide(arena, this.#mux, first, count);
        break;
      } catch (error) {
        if (!(error instanceof WebAssembly.RuntimeError)) throw error;
        first = core.rxTrapped(arena, this.#mux);
        this.traps++;
      }
    }
    core.rxGather(arena);
    this.passed += views.u32[(arena + layout.ARENA_WRITES) / 4]!;
    core.rxDelivered(arena);
  }

  /** Takes everything off the miss ring and returns how much: sources that the STRICT device asks about, no more. */
  takeMisses(): number {
    const ring = this.arena + layout.ARENA_MISSES;
    const { u32 } = this.views;
    let taken = 0;
    for (let at = this.core.ringPeek(ring) >>> 0; at !== 0; at = this.core.ringPeek(ring) >>> 0) {
      const device = u32[at / 4]!;
      const kind = u32[at / 4 + 1]!;
      assert(kind === layout.MISS_SOURCE, `a received frame is handed to main as ${kind}`);
      assert(this.#modeOf(device) === layout.SOURCE_MODE_STRICT, `device ${device} asks about a source`);
      this.core.missDrop(this.arena);
      taken++;
    }
    return taken;
  }

  /** How often each of the source checks has dropped a frame. */
  counts(): [string, number][] {
    return SOURCE_DROPS.map((name) => {
      const reason = dropNames.indexOf(name);
      const sum = this.targets.reduce((count, { options: { row } }) => {
        const counters = this.arena + layout.ARENA_COUNTERS + row * layout.COUNTER_ROW_BYTES;
        return count + this.views.u32[counters / 4 + reason * 2]!;
      }, 0);
      return [name, sum];
    });
  }

  #modeOf(row: number): number {
    const at = layout.DEVICES_OFFSET + row * layout.DEVICE_BYTES + layout.DEVICE_SOURCE_MODE;
    return this.views.u32[at / 4]!;
  }
}
