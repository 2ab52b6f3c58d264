/** Where devices get their ports from: TAP links in this namespace, or memory. */
import { writeFileSync } from 'node:fs';
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

  open(name: string, queues: number, mtu: number, alias: string): Port {
    const tap = new Tap({ name, queues, netlink: this.#netlink });
    try {
      tap.setMtu(mtu);
      tap.setAlias(alias);
      this.#quietIpv6(tap);
    } catch (error) {
      tap.release();
      throw error;
    }
    return tap;
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
      for (const event of this.#events.drain()) this.#pass(event, listener);
    });
  }

  close(): void {
    this.#events.close();
    this.#netlink.close();
  }

  #pass(event: LinkEvent, listener: (event: PortEvent) => void): void {
    if (event.kind === 'address') listener({ kind: 'address' });
    else if (event.kind === 'link') listener(linkEvent(event, event.deleted));
    else for (const link of this.#netlink.listLinks()) listener(linkEvent(link, false));
  }

  /** The link is a wire for what stands on it; by itself it has no address and takes part in no autoconfiguration. */
  #quietIpv6(tap: Tap): void {
    for (const [setting, value] of [
      ['accept_ra', '0'],
      ['autoconf', '0'],
    ] as const) {
      try {
        writeFileSync(`/proc/sys/net/ipv6/conf/${tap.name}/${setting}`, value);
      } catch {
        return; // no IPv6 in this kernel or namespace: nothing to switch off
      }
    }
    this.#netlink.setLink(tap.index, { addrGenModeNone: true });
  }
}

function linkEvent(
  link: { index: number; isUp: boolean; mtu: number; name: string },
  isDeleted: boolean,
): PortEvent {
  const { index, isUp, mtu, name } = link;
  return { kind: 'link', index, isUp, mtu, name, isDeleted };
}
