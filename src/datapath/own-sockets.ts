/**
 * Where the sockets of this daemon listen, for workers to know which received frames would lead there (`assembly/own.ts`). A set
 * of addresses never grows: another takes its place.
 */
import * as layout from '../../assembly/layout.js';
import { assert } from '../errors.js';
import { familyOf, ipBytes } from '../ip.js';
import type { Core } from './core.js';
import type { MemoryViews } from './memory.js';
import type { Pool } from './pool.js';
import type { Steps } from './retired.js';

/** What a mux listens on. */
interface OwnSocket {
  /** 0 for GRE. */
  readonly port: number;
  /** `ip/length`, with full length for an address. */
  readonly prefixes: readonly string[];
}

/** Both halves of an address, as the core loads them, the lower 128 less `bits` bits zero. */
type Halves = readonly [high: bigint, low: bigint];

const ADDRESS_BITS = 128;
const EVERYTHING = '::/0';

export class OwnSockets {
  readonly #sockets = new Map<number, OwnSocket>();
  /** Offset of the set, or 0, and its bytes. */
  #set = 0;

  constructor(
    readonly views: MemoryViews,
    readonly core: Core,
    readonly pool: Pool,
    /** See `Engine.retire`. */
    readonly retire: (what: string, steps: Steps) => Promise<boolean>,
  ) {}

  /**
   * A mux listens, on these from here on; its row must have been written. Throws ENOMEM when the pool has no room; nothing has
   * changed then.
   */
  set(mux: number, port: number, prefixes: readonly string[]): void {
    const before = this.#sockets.get(mux);
    if (before?.port === port && String(before.prefixes) === String(prefixes)) return;
    const sockets = new Map(this.#sockets).set(mux, { port, prefixes });
    const set = this.#create(sockets);
    this.#sockets.set(mux, sockets.get(mux)!);
    this.#writePort(port, true);
    this.#publish(set);
  }

  /** The reverse of `set`: nothing leads to the mux from here on. Never throws. */
  delete(mux: number): void {
    const socket = this.#sockets.get(mux);
    if (!socket) return;
    this.#sockets.delete(mux);
    const { port } = socket;
    if (![...this.#sockets.values()].some((other) => other.port === port)) this.#writePort(port, false);
    if (this.#sockets.size > 0) this.#clearMux(mux);
    else if (this.#set !== 0) this.#publish(0);
  }

  #writePort(port: number, isOwn: boolean): void {
    // As it is on the wire.
    const swapped = ((port & 0xff) << 8) | (port >> 8);
    const at = layout.OWN_OFFSET + layout.OWN_PORTS + (swapped >> 3);
    const bit = 1 << (swapped & 7);
    const { u8 } = this.views;
    Atomics.store(u8, at, isOwn ? u8[at]! | bit : u8[at]! & ~bit);
  }

  /** Takes a mux out of the set as it is. */
  #clearMux(mux: number): void {
    if (this.#set === 0) return;
    const { u32, u64 } = this.views;
    const set = this.#set;
    const bit = 1n << BigInt(mux);
    const clear = (at: number) => Atomics.and(u64, at / 8, ~bit);
    clear(set + layout.OWN_SET_MUXES);
    const slots = u32[(set + layout.OWN_SET_SLOTS) / 4]!;
    for (let slot = 0; slot < slots; slot++) clear(slotAt(set, slot) + layout.OWN_SLOT_MUXES);
    const prefixes = u32[(set + layout.OWN_SET_PREFIXES) / 4]!;
    for (let i = 0; i < prefixes; i++) clear(prefixAt(set, slots, i) + layout.OWN_PREFIX_MUXES);
  }

  #publish(set: number): void {
    const before = this.#set;
    this.#set = set;
    Atomics.store(this.views.u32, (layout.OWN_OFFSET + layout.OWN_SET) / 4, set);
    if (before === 0) return;
    void this.retire('the addresses of this host that were replaced', { set: () => this.pool.free(before) });
  }

  #create(sockets: ReadonlyMap<number, OwnSocket>): number {
    const { addresses, prefixes } = fitting(sockets);
    let all = 0n;
    for (const mux of sockets.keys()) all |= 1n << BigInt(mux);
    const slots = 2 ** Math.ceil(Math.log2(Math.max(4, addresses.size * 2)));
    const { u32, u64 } = this.views;
    const bytes = prefixAt(0, slots, prefixes.size);
    const set = this.pool.take(bytes, `${addresses.size} addresses of this host`);
    u32[(set + layout.OWN_SET_SLOTS) / 4] = slots;
    u32[(set + layout.OWN_SET_PREFIXES) / 4] = prefixes.size;
    u64[(set + layout.OWN_SET_MUXES) / 8] = all;
    for (const [prefix, muxes] of addresses) {
      const address = halvesOf(prefix);
      const at = this.#emptySlot(set, slots, address);
      u64.set([...address, muxes], at / 8);
    }
    let i = 0;
    for (const [prefix, muxes] of prefixes) {
      u64.set([...halvesOf(prefix), ...maskOf(prefix), muxes], prefixAt(set, slots, i++) / 8);
    }
    return set;
  }

  /** At most half are taken, so there is one. */
  #emptySlot(set: number, slots: number, [high, low]: Halves): number {
    const { u64 } = this.views;
    for (let slot = this.core.sourceSlot(high, low, slots) >>> 0; ; slot = (slot + 1) & (slots - 1)) {
      const at = slotAt(set, slot);
      if (u64[at / 8] === 0n && u64[at / 8 + 1] === 0n) return at;
    }
  }
}

/** Muxes of each address and of each prefix, a bit for each row. */
interface Ends {
  readonly addresses: ReadonlyMap<string, bigint>;
  readonly prefixes: ReadonlyMap<string, bigint>;
}

/** As many as a set takes: a socket that has the most is taken for one that has all, until they are. */
function fitting(sockets: ReadonlyMap<number, OwnSocket>): Ends {
  const lists = [...sockets].map(([mux, { prefixes }]) => ({ mux, prefixes }));
  lists.sort((one, other) => one.prefixes.length - other.prefixes.length);
  for (let wide = lists.length; ; wide--) {
    const ends = endsOf(lists);
    const { OWN_ADDRESSES_MAX, OWN_PREFIXES_MAX } = layout;
    const fits = ends.addresses.size <= OWN_ADDRESSES_MAX && ends.prefixes.size <= OWN_PREFIXES_MAX;
    if (fits) return ends;
    assert(wide > 0, 'one prefix for all sockets fits');
    lists[wide - 1]!.prefixes = [EVERYTHING];
  }
}

function endsOf(lists: readonly { readonly mux: number; readonly prefixes: readonly string[] }[]): Ends {
  const addresses = new Map<string, bigint>();
  const prefixes = new Map<string, bigint>();
  for (const { mux, prefixes: all } of lists) {
    for (const prefix of all) {
      const into = bitsOf(prefix) === ADDRESS_BITS ? addresses : prefixes;
      into.set(prefix, (into.get(prefix) ?? 0n) | (1n << BigInt(mux)));
    }
  }
  return { addresses, prefixes };
}

function slotAt(set: number, slot: number): number {
  return set + layout.OWN_SET_BYTES + slot * layout.OWN_SLOT_BYTES;
}

function prefixAt(set: number, slots: number, index: number): number {
  return slotAt(set, slots) + index * layout.OWN_PREFIX_BYTES;
}

/** Length of a prefix, that of IPv4 as of IPv4-mapped addresses. */
function bitsOf(prefix: string): number {
  const [ip = '', length = ''] = prefix.split('/');
  return Number(length) + (familyOf(ip) === 4 ? ADDRESS_BITS - 32 : 0);
}

function halvesOf(prefix: string): Halves {
  return loaded(ipBytes(prefix.split('/')[0]!));
}

function maskOf(prefix: string): Halves {
  const bits = bitsOf(prefix);
  return loaded(
    Uint8Array.from({ length: 16 }, (_, i) => 0xff & ~(0xff >> Math.max(0, Math.min(8, bits - i * 8)))),
  );
}

function loaded(bytes: Uint8Array): Halves {
  const view = new DataView(bytes.buffer, bytes.byteOffset, 16);
  return [view.getBigUint64(0, true), view.getBigUint64(8, true)];
}
