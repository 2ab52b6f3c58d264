/**
 * A mux is one underlay address shared by devices; it tells their datagrams apart by vnetid. Opened by the first
 * device that starts on it, closed with the last. Key: network namespace, address, and port or `gre`; another encap on the same
 * is EEXIST.
 */

import type { Engine } from './datapath/engine.js';
import type { EncapPlugin } from './encap/plugin.js';
import { assert, OverlayError } from './errors.js';
import { familyOf, formatEndpoint } from './ip.js';
import { AF_INET, AF_INET6 } from './sys/abi.js';
import { closeEach } from './sys/fd.js';
import { openGreUnderlay } from './sys/gre-underlay.js';
import type { SocketSettings } from './sys/socket-settings.js';
import {
  closeUnderlay,
  joinDatagrams,
  openUnderlay,
  socketOverflow,
  socketsOfUnderlay,
  type Underlay,
} from './sys/underlay.js';

export interface Mux {
  readonly row: number;
  readonly ip: string;
  /** 0 for GRE, which has none. */
  readonly port: number;
  readonly encap: EncapPlugin;
  /** Network namespace of its sockets, '' for the daemon's own. */
  readonly netns: string;
  readonly underlay: Underlay;
  readonly settings: SocketSettings;
  /** The one its sockets are in. */
  readonly namespace: HeldNamespace;
  users: number;
  /** Devices that do not want datagrams joined by the kernel. */
  readonly unjoined: Set<string>;
}

/** A network namespace that somebody is in. */
export interface HeldNamespace {
  /** False when its name leads nowhere, or elsewhere, by now. */
  readonly isThere: boolean;
  leave(): void;
}

/** The network namespaces that underlays may be in, by name. */
export interface Namespaces {
  /** Runs synchronous work in one. Throws ENOENT for an unknown one. */
  inNamespace<T>(netns: string, work: () => T): T;
  /** Index of the link that has an address, in one; undefined when none has, or nobody knows. */
  linkIndex(ip: string, netns: string): number | undefined;
  /** What the host takes for itself in one, as prefixes `ip/length`. Throws SystemError. */
  ownPrefixes(netns: string): readonly string[];
  /** Keeps one open, and its changes heard of, until it is left. Throws ENOENT. */
  holdNamespace(netns: string): HeldNamespace;
}

export class Muxes {
  readonly #open = new Map<string, Mux>();
  /** Addresses may have changed since `OwnSockets` was told. */
  #isBehind = false;

  /** @param bank send sockets of each mux */
  constructor(
    readonly engine: Engine,
    readonly bank: number,
    readonly namespaces: Namespaces,
    /** The kernel can hand over datagrams joined (UDP_GRO). */
    readonly joins: boolean,
  ) {}

  get list(): readonly Mux[] {
    return [...this.#open.values()];
  }

  /**
   * The mux of the address, opened when it is new. Throws EEXIST when it is there with another encap or with other sockets,
   * EADDRINUSE, EADDRNOTAVAIL and whatever else opening sockets gives.
   */
  hold(ip: string, port: number, encap: EncapPlugin, netns: string, settings: SocketSettings): Mux {
    const key = keyOf(ip, port, netns);
    const known = this.#open.get(key);
    if (known && !known.namespace.isThere) this.abandon(known);
    else if (known) {
      if (known.encap !== encap) {
        throw new OverlayError(
          'EEXIST',
          'mux_other_encap',
          `${key} is in use for ${known.encap.name}; choose another port for ${encap.name}`,
        );
      }
      const other = otherSetting(known.settings, settings);
      if (other !== undefined) {
        throw new OverlayError(
          'EEXIST',
          'mux_other_sockets',
          `the devices on ${key} share its sockets, and others there have another ${encap.name}/${other}: give this one the ` +
            'same, or another address or port',
        );
      }
      known.users++;
      return known;
    }
    const mux = this.#create(ip, port, encap, netns, settings);
    this.#open.set(key, mux);
    return mux;
  }

  /** From here on `hold` opens another one in its place: its sockets are in a namespace that has lost its name. */
  abandon(mux: Mux): void {
    const key = keyOf(mux.ip, mux.port, mux.netns);
    if (this.#open.get(key) === mux) this.#open.delete(key);
  }

  /**
   * The reverse of `hold`. The sockets close when nobody uses them and no worker can be reading them, and are retained until
   * then.
   */
  async release(mux: Mux): Promise<void> {
    assert(mux.users > 0, 'a mux is released once too often');
    mux.users--;
    if (mux.users > 0) return;
    this.abandon(mux);
    this.engine.detachMux(mux.row);
    this.engine.ownSockets.delete(mux.row);
    const sockets = socketsOfUnderlay(mux.underlay);
    await this.engine.retire(`the underlay ${keyOf(mux.ip, mux.port, mux.netns)}`, {
      sockets: () => closeEach(sockets),
      namespace: () => mux.namespace.leave(),
      row: () => this.engine.tables.muxes.free(mux.row),
    });
  }

  /** Whether the kernel joins datagrams for a device's mux: while no device on it says no. */
  joinDatagrams(mux: Mux, device: string, isWanted: boolean): void {
    // A kernel without it refuses to turn it off as well.
    if (!this.joins || isRaw(mux.encap)) return;
    const was = mux.unjoined.size === 0;
    if (isWanted) mux.unjoined.delete(device);
    else mux.unjoined.add(device);
    const is = mux.unjoined.size === 0;
    if (is !== was) joinDatagrams(mux.underlay, is);
  }

  /** Addresses have come or gone, of which those that listen on all of them have to know: now, or soon where it is not known. */
  followAddresses(isKnown: boolean): void {
    this.#isBehind = true;
    if (isKnown) this.catchUp();
  }

  /** What `followAddresses` has left to be done, and what could not be. */
  catchUp(): void {
    if (!this.#isBehind) return;
    try {
      const known = new Map<string, readonly string[]>();
      for (const mux of this.#open.values()) {
        if (!isWildcard(mux.ip) || !mux.namespace.isThere) continue;
        const prefixes = known.get(mux.netns) ?? this.namespaces.ownPrefixes(mux.netns);
        known.set(mux.netns, prefixes);
        this.engine.ownSockets.set(mux.row, mux.port, listenPrefixes(mux, prefixes));
      }
      this.#isBehind = false;
    } catch (error) {
      // A table that changes while it is read, no memory: what was known last holds until the next turn.
      if (!(error instanceof OverlayError)) throw error;
    }
  }

  /** Datagrams lost because the receive sockets were full. */
  overflow(mux: Mux): number {
    return socketOverflow(mux.underlay.receive);
  }

  /** Says so when it is we ourselves who hold the port: a wildcard and an address exclude each other. */
  #openUnderlay(
    ip: string,
    port: number,
    encap: EncapPlugin,
    netns: string,
    settings: SocketSettings,
  ): Underlay {
    const { bank } = this;
    const workers = this.engine.lanes;
    const open = () =>
      isRaw(encap)
        ? openGreUnderlay({ ip, workers, bank, settings })
        : openUnderlay({ ip, port, workers, bank, settings });
    try {
      return this.namespaces.inNamespace(netns, open);
    } catch (error) {
      const other = this.list.find(
        (mux) => mux.netns === netns && mux.port === port && isWildcard(mux.ip) !== isWildcard(ip),
      );
      if (!(error instanceof OverlayError) || error.errno !== 'EADDRINUSE' || !other) throw error;
      throw new OverlayError(
        'EADDRINUSE',
        'port_in_use',
        `listening on ${formatEndpoint(ip, port)}: another overlay of this daemon listens on ` +
          `${formatEndpoint(other.ip, port)}; all addresses and one of them cannot share a port`,
      );
    }
  }

  #create(ip: string, port: number, encap: EncapPlugin, netns: string, settings: SocketSettings): Mux {
    const namespace = this.namespaces.holdNamespace(netns);
    const undo: (() => void)[] = [() => namespace.leave()];
    try {
      const underlay = this.#openUnderlay(ip, port, encap, netns, settings);
      undo.push(() => closeUnderlay(underlay));
      if (this.joins && !isRaw(encap)) joinDatagrams(underlay, true);
      for (const fd of underlay.receive) encap.operations.sockopt?.(fd);
      const row = this.engine.tables.muxes.take();
      undo.push(() => this.engine.tables.muxes.free(row));
      this.engine.counters.clearMux(row);
      const hasIpHeader = isRaw(encap) && underlay.domain === AF_INET;
      this.engine.tables.writeMux(
        row,
        encap.core,
        this.bank,
        underlay.domain === AF_INET6,
        hasIpHeader,
        port,
      );
      const all = isWildcard(ip) ? this.namespaces.ownPrefixes(netns) : [];
      this.engine.ownSockets.set(row, port, listenPrefixes({ ip, encap }, all));
      const mux = {
        row,
        ip,
        port,
        encap,
        netns,
        underlay,
        settings,
        namespace,
        users: 1,
        unjoined: new Set<string>(),
      };
      // Some workers may have it already, and read from it.
      undo.splice(0, undo.length, () => void this.release(mux));
      this.engine.attachMux(row, underlay.receive, underlay.send);
      return mux;
    } catch (error) {
      for (const step of undo.reverse()) step();
      throw error;
    }
  }
}

/** Properties of what sockets are like. */
const settingNames: Readonly<Record<keyof SocketSettings, string>> = {
  mark: 'mark',
  device: 'device',
  sourcePorts: 'source_ports',
  zerocsum6Tx: 'zerocsum6_tx',
  zerocsum6Rx: 'zerocsum6_rx',
};

/** The first property in which they differ. */
function otherSetting(one: SocketSettings, other: SocketSettings): string | undefined {
  const names = Object.keys(settingNames) as (keyof SocketSettings)[];
  const different = names.find((name) => String(one[name]) !== String(other[name]));
  return different && settingNames[different];
}

/** How a mux is called: its address, behind its namespace. */
export function keyOf(ip: string, port: number, netns: string): string {
  return (netns === '' ? '' : `${netns}/`) + formatEndpoint(ip, port);
}

function isRaw(encap: EncapPlugin): boolean {
  return encap.transport === 'gre';
}

/** An address as the prefix that it is. */
export function prefixOf(ip: string): string {
  return `${ip}/${familyOf(ip) === 4 ? 32 : 128}`;
}

/** Destinations that lead to a mux. @param own all that the host takes for itself */
function listenPrefixes({ ip, encap }: Pick<Mux, 'ip' | 'encap'>, own: readonly string[]): string[] {
  if (!isWildcard(ip)) return [prefixOf(ip)];
  // Raw sockets have one family.
  const families = ip === '0.0.0.0' ? [4] : isRaw(encap) ? [6] : [4, 6];
  // Nor does IPV6_MULTICAST_ALL keep groups from one of IPv6.
  const groups = isRaw(encap) && ip === '::' ? ['ff00::/8'] : [];
  const isHeard = (prefix: string) => families.includes(familyOf(prefix));
  // Where nobody has an address yet, these are delivered all the same (RFC 1122 section 3.2.1.3).
  return [...new Set([...own, ...groups, '0.0.0.0/32', '255.255.255.255/32'])].filter(isHeard).sort();
}

/** True for the address that stands for all of a host's. */
export function isWildcard(ip: string): boolean {
  return ip === '0.0.0.0' || ip === '::';
}
