/**
 * The MTU of devices, by that of the underlay: what is left of it when the outer headers are taken away. A device whose `mtu`
 * nobody has set has that one, and follows when routes, links or its own headers change; one that was set stays, and the
 * device says so when it does not fit.
 */
import type { Engine } from '../datapath/engine.js';
import type { Device, MtuSum, UnderlayMtu } from '../device.js';
import { formatOverhead, overhead, overheadBytes, taggedOverhead } from '../encap/overhead.js';
import { OverlayError } from '../errors.js';
import type { Events } from '../events.js';
import type { Fma } from '../fma.js';
import { familyOf, isMulticast } from '../ip.js';
import { MTU_DEFAULT_BYTES, MTU_MIN_BYTES } from '../limits.js';
import type { Log } from '../log.js';
import { isWildcard } from '../mux.js';
import { after, monotonicMs } from '../sys/clock.js';
import { mssOf } from './mss.js';
import type { PortSource } from './ports.js';
import type { Entry } from './setprop.js';

export interface MtusContext {
  readonly engine: Engine;
  readonly ports: PortSource;
  readonly fma: Fma;
  readonly events: Events;
  readonly log: Log;
  entries(): Iterable<Entry>;
}

/** Of those of a device that listens on all addresses: routes are asked for one by one. */
const WAYS_MAX = 64;

/** Largest packet that the underlay takes with all headers, and a tag where the encapsulation carries tags. */
function roomOf({ underlay, headers }: MtuSum): number {
  return underlay.bytes - overheadBytes(taggedOverhead(headers));
}

/** The MTU of a device that nobody has set one for. */
export function automaticMtu({ mtuSum, mtuMax }: Pick<Device, 'mtuSum' | 'mtuMax'>): number {
  if (!mtuSum) return Math.min(MTU_DEFAULT_BYTES, mtuMax);
  return Math.max(MTU_MIN_BYTES, Math.min(roomOf(mtuSum), mtuMax));
}

/** `1446 = 1500 - 20 IPv4 - 8 UDP - 8 vxlan - 14 Ethernet - 4 VLAN`; undefined while the underlay's is not known. */
export function formatMtuSum({
  mtu,
  mtuMax,
  isMtuAuto,
  mtuSum,
}: Pick<Device, 'mtu' | 'mtuMax' | 'isMtuAuto' | 'mtuSum'>): string | undefined {
  if (!mtuSum) return undefined;
  const room = roomOf(mtuSum);
  const sum = `${room} = ${mtuSum.underlay.bytes}${formatOverhead('-', taggedOverhead(mtuSum.headers))}`;
  if (!isMtuAuto) return `${mtu} set, of ${sum}`;
  if (room === mtu) return sum;
  return `${mtu} (${mtu === mtuMax ? 'mtu_max' : 'the least there can be'}), of ${sum}`;
}

export class Mtus {
  #cancel: (() => void) | undefined;
  /** When all may be looked at again. */
  #freeAtMs = 0;

  constructor(readonly context: MtusContext) {}

  close(): void {
    this.#cancel?.();
  }

  /**
   * Routes, links or VTEPs have changed: looks at all devices, soon. For a tenth of the time at most: a router's table may change
   * all the time, and there may be many devices. @param pauseMs for what may follow at once
   */
  followAll(pauseMs: number): void {
    if (this.#cancel) return;
    const waitMs = Math.max(pauseMs, this.#freeAtMs - monotonicMs());
    if (waitMs > 0) this.#cancel = after(waitMs, () => this.#followNow());
    else this.#followNow();
  }

  #followNow(): void {
    this.#cancel = undefined;
    const began = monotonicMs();
    this.context.engine.destinations.pathMtus.forgetLocal();
    this.follow(this.context.entries());
    const ended = monotonicMs();
    this.#freeAtMs = ended + 9 * (ended - began);
  }

  /** Looks at the underlays of devices that are activated, and does what follows from that. */
  follow(entries: Iterable<Entry>): void {
    // Many devices have one underlay.
    const known = new Map<string, UnderlayMtu | undefined>();
    for (const entry of entries) {
      const { device } = entry;
      if (!device.isActivated || device.isLinkGone || device.isAway) continue;
      const sum = this.#sumOf(entry, known);
      // What was known last holds while there is no way: there is nobody whom another one would help.
      if (sum) device.mtuSum = sum;
      if (!device.mtuSum) continue;
      if (device.isMtuAuto) this.#set(device, automaticMtu(device));
      this.#judge(device);
    }
  }

  /** Gives a device an MTU, on the link and for its frames. Throws what the link does. */
  set(device: Device, mtu: number): void {
    device.port.setMtu(mtu);
    device.mtu = mtu;
    this.apply(device);
  }

  /** Its frames have the MTU that it has now, and TCP what follows from that. */
  apply(device: Device): void {
    // Before it has no row that is its own to write.
    if (!device.isActivated) return;
    const { tables } = this.context.engine;
    tables.setDeviceMtu(device.row, device.mtu);
    tables.setDeviceMss(device.row, mssOf(device));
  }

  #set(device: Device, mtu: number): void {
    const { events, log } = this.context;
    if (mtu === device.mtu) return;
    try {
      this.set(device, mtu);
    } catch (error) {
      if (!(error instanceof OverlayError)) throw error;
      log.warn({ device: device.name, mtu, error: error.message }, 'the link does not take the MTU');
      return;
    }
    events.emit('mtu-changed', { device: device.name, text: `it is ${mtu}` });
  }

  #judge(device: Device): void {
    const { fma } = this.context;
    const { name, mtu, mtuSum } = device;
    if (!mtuSum) return;
    const { underlay, headers } = mtuSum;
    const parts = overhead(headers);
    const needed = mtu + overheadBytes(parts);
    if (needed <= underlay.bytes) {
      fma.restore(name, 'mtu_above_underlay');
      return;
    }
    const remedy = device.isMtuAuto
      ? `raise the MTU of ${underlay.link}`
      : `set mtu to auto or at most ${underlay.bytes - overheadBytes(parts)}, or raise the MTU of ${underlay.link}`;
    fma.degrade(
      name,
      'mtu_above_underlay',
      `a packet of the MTU takes ${needed} = ${mtu}${formatOverhead('+', [...parts].reverse())}, ` +
        `and the underlay (${underlay.link}) takes ${underlay.bytes}: ${remedy}`,
    );
  }

  /** Of the way with the least room, where there are several. */
  #sumOf(entry: Entry, known: Map<string, UnderlayMtu | undefined>): MtuSum | undefined {
    const { encap, properties, underlayNetns } = entry.device;
    const ip = listenIp(entry.device);
    if (ip === undefined) return undefined;
    const encapBytes = encap.operations.encap(0n, properties).length;
    const sums = waysOf(entry, ip).flatMap((to) => {
      const key = `${ip} ${to} ${underlayNetns}`;
      if (!known.has(key)) known.set(key, this.context.ports.underlayMtu(ip, to, underlayNetns));
      const underlay = known.get(key);
      return underlay ? [{ underlay, headers: { encap, encapBytes, family: familyOf(to ?? ip) } }] : [];
    });
    return sums.sort((one, other) => roomOf(one) - roomOf(other))[0];
  }
}

/** Where packets of a device go to, undefined for wherever the interface that has `listen_ip` leads. */
function waysOf({ lookup }: Entry, listen: string): (string | undefined)[] {
  const { mode, point, peers = [] } = lookup;
  // It has one destination, and which is not known yet.
  if (mode === 'point') return point ? [point.ip] : [];
  if (!isWildcard(listen)) return [undefined];
  return peers.filter((ip) => !isMulticast(ip)).slice(0, WAYS_MAX);
}

/** Undefined while there is something wrong with it: that shows when the device is started. */
function listenIp({ encap, properties }: Device): string | undefined {
  try {
    return encap.operations.socket(properties).ip;
  } catch (error) {
    if (error instanceof OverlayError) return undefined;
    throw error;
  }
}
