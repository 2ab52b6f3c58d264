/** Where devices get their ports from: TAP links in this namespace, or memory. */
import { existsSync, writeFileSync } from 'node:fs';
import { OverlayError } from '../errors.js';
import { NETLINK_POLL_MS } from '../limits.js';
import { every } from '../sys/clock.js';
import { EventSocket, type LinkEvent, Netlink } from '../sys/netlink/index.js';
import type { Port } from '../sys/port.js';
import { Tap } from '../sys/tap.js';

/** A change of a port's link. */
export type PortEvent =
  | { kind: 'link'; index: number; isUp: boolean; mtu: number; name: string; isDeleted: boolean }
  /** An address of this host came or went: a start that failed may work now. */
  | { kind: 'address' };

export interface PortSource {
  /** @param alias says on the link which overlay it is */
  open(name: string, queues: number, mtu: number, alias: string): Port;
  /** True when the link is administratively up, as the kernel has it now. */
  isUp(port: Port): boolean;
  /** The link's MTU, as the kernel has it now. */
  mtu(port: Port): number;
  /** Names of the links on top of the port (macvlan and its like), which a delete would take away. */
  upperLinks(port: Port): string[];
  /** Frames the kernel could not hand over to us because the queue was full. */
  overflow(port: Port): bigint;
  /** Calls the listener on every change from here on; returns how to stop that. */
  watch(listener: (event: PortEvent) => void): () => void;
  close(): void;
}

/** TAP links in the network namespace the process was started in. */
export class TapSource implements PortSource {
  readonly #netlink = new Netlink();
  readonly #events = new EventSocket();
  /** Names of the links we made, by index. */
  readonly #opened = new Map<number, string>();
  /** Events were lost; a list of everything makes up for them. */
  #isBehind = false;

  open(name: string, queues: number, mtu: number, alias: string): Port {
    const tap = new Tap({ name, queues, netlink: this.#netlink });
    try {
      tap.setMtu(mtu);
      tap.setAlias(alias);
      this.#quietIpv6(tap);
      this.#opened.set(tap.index, name);
    } catch (error) {
      tap.release();
      throw error;
    }
    return tap;
  }

  isUp(port: Port): boolean {
    try {
      return this.#netlink.getLink(port.index).isUp;
    } catch (error) {
      // Deleted a moment ago; the event that says so is on its way.
      if (error instanceof OverlayError && error.errno === 'ENODEV') return false;
      throw error;
    }
  }

  mtu(port: Port): number {
    return this.#netlink.getLink(port.index).mtu;
  }

  upperLinks(port: Port): string[] {
    const links = this.#netlink.listLinks();
    // A veth's linkIndex is its peer's, in whatever namespace that is: another link of the same number.
    const upper = links.filter(({ linkIndex, kind }) => linkIndex === port.index && kind !== 'veth');
    const master = links.find(({ index }) => index === port.index)?.master;
    return links.filter((link) => upper.includes(link) || link.index === master).map(({ name }) => name);
  }

  overflow(port: Port): bigint {
    try {
      return this.#netlink.getLink(port.index).stats.txDropped;
    } catch (error) {
      // Deleted a moment ago; the event that says so is on its way.
      if (error instanceof OverlayError && error.errno === 'ENODEV') return 0n;
      throw error;
    }
  }

  watch(listener: (event: PortEvent) => void): () => void {
    return every(NETLINK_POLL_MS, () => {
      try {
        const events = this.#events.drain();
        for (const event of events) this.#pass(event, listener);
        // Once for all of them: each makes every waiting device try again.
        if (events.some(({ kind }) => kind === 'address')) listener({ kind: 'address' });
        if (this.#isBehind) this.#resync(listener);
      } catch (error) {
        // A list that changes while it is read, no memory: the next turn lists everything afresh.
        if (!(error instanceof OverlayError)) throw error;
        this.#isBehind = true;
      }
    });
  }

  close(): void {
    this.#events.close();
    this.#netlink.close();
  }

  #pass(event: LinkEvent, listener: (event: PortEvent) => void): void {
    if (event.kind === 'overrun') this.#isBehind = true;
    else if (event.kind !== 'address') listener(linkEvent(event, event.deleted));
  }

  /** Events were lost: tells of every link as it is now, and of our own that are gone. */
  #resync(listener: (event: PortEvent) => void): void {
    const links = this.#netlink.listLinks();
    this.#isBehind = false;
    for (const link of links) listener(linkEvent(link, false));
    const there = new Set(links.map(({ index }) => index));
    for (const [index, name] of this.#opened) {
      if (there.has(index)) continue;
      listener({ kind: 'link', index, isUp: false, mtu: 0, name, isDeleted: true });
      this.#opened.delete(index);
    }
    listener({ kind: 'address' });
  }

  /** The link is a wire for what stands on it; by itself it has no address and takes part in no autoconfiguration. */
  #quietIpv6(tap: Tap): void {
    const settings = `/proc/sys/net/ipv6/conf/${tap.name}`;
    if (!existsSync(settings)) return; // no IPv6 in this kernel: nothing to switch off
    this.#netlink.setLink(tap.index, { addrGenModeNone: true });
    for (const setting of ['accept_ra', 'autoconf']) {
      try {
        writeFileSync(`${settings}/${setting}`, '0');
      } catch (error) {
        // A container's /proc/sys may be read-only; without a link-local address nothing is solicited.
        if (!['EROFS', 'EACCES'].includes((error as NodeJS.ErrnoException).code ?? '')) throw error;
      }
    }
  }
}

function linkEvent(
  link: { index: number; isUp: boolean; mtu: number; name: string },
  isDeleted: boolean,
): PortEvent {
  const { index, isUp, mtu, name } = link;
  return { kind: 'link', index, isUp, mtu, name, isDeleted };
}
