/** TAP links, in the network namespace the process was started in or in named ones. */
import { existsSync, writeFileSync } from 'node:fs';
import type { UnderlayMtu } from '../device.js';
import { assert, OverlayError } from '../errors.js';
import { parseIp } from '../ip.js';
import { NETLINK_POLL_MS } from '../limits.js';
import { type HeldNamespace, prefixOf } from '../mux.js';
import { every } from '../sys/clock.js';
import type { Link, LinkEvent } from '../sys/netlink/index.js';
import type { Port } from '../sys/port.js';
import { Tap } from '../sys/tap.js';
import { canBind } from '../sys/underlay.js';
import type { PortEvent, PortLeft, PortRequest, PortSource } from './ports.js';
import { type Space, Spaces } from './space.js';
import { overlayOf } from './tap-alias.js';
import { TapLeft } from './tap-left.js';
import { TapVnics } from './tap-vnics.js';

/** Turns of NETLINK_POLL_MS between looks at whether namespaces are there. */
const NAMESPACE_TURNS = 10;

export class TapSource implements PortSource {
  readonly #spaces = new Spaces();
  /** Held for as long as this source lives. */
  readonly #own = this.#spaces.hold('');
  readonly #opened = new Map<Port, Space>();
  /** Namespaces in which events were lost; a list of everything makes up for them. */
  readonly #behind = new Set<Space>();
  /** Addresses of the host in each namespace, until one comes or goes. */
  readonly #addresses = new WeakMap<Space, ReadonlySet<string>>();
  #turns = 0;

  /** @param ring frames that a link keeps for each worker which does not take them at once; the kernel's default when left out */
  constructor(readonly ring?: number) {}

  readonly left = new TapLeft(this.#own);
  readonly vnics = new TapVnics((port) => this.#spaceOf(port));

  open({ name, queues, mtu, alias, netns }: PortRequest, mac?: string): Port {
    return this.#enter(netns, (space) => {
      refuseLeft(space.netlink, name);
      const tap = new Tap({ name, queues, netlink: space.netlink });
      try {
        tap.setMtu(mtu);
        this.#setRing(tap, space);
        tap.setAlias(alias);
        quietIpv6(tap, space);
        if (mac !== undefined) tap.mac = mac;
        return tap;
      } catch (error) {
        void tap.release();
        throw error;
      }
    });
  }

  reopen(left: PortLeft): Port {
    const { name, queues, netns, mac, fds } = left;
    const there = this.#enterWithout(netns, ({ netlink }) => ours(netlink, name) ?? linkOf(netlink, name));
    if (!there) return this.open(left, mac);
    if (overlayOf(there) !== name) {
      throw new OverlayError(
        'EEXIST',
        'link_exists',
        `there is a link '${name}' that is not ours, or another overlay's: delete or rename it, then start overlayd again`,
      );
    }
    if (fds.length === 0 && (there.openQueues ?? 0) > 0) {
      throw new OverlayError(
        'EBUSY',
        'link_attached',
        `another process has the link '${there.name}' open: end it, then start overlayd again`,
      );
    }
    return this.#enter(netns, (space) => {
      // Somebody may have renamed it.
      const tap = new Tap({ name: there.name, queues, netlink: space.netlink, existing: { fds } });
      try {
        this.#setRing(tap, space);
        return tap;
      } catch (error) {
        void tap.release();
        throw error;
      }
    });
  }

  isLeftUp(name: string, netns: string): boolean {
    return this.#left(name, netns)?.isUp ?? false;
  }

  discard(name: string, netns: string): void {
    const link = this.#left(name, netns);
    if (link) this.#enterWithout(netns, ({ netlink }) => netlink.deleteLink(link.index));
  }

  /** Undefined too where the namespace is not there. */
  #left(name: string, netns: string): Link | undefined {
    try {
      return this.#enterWithout(netns, ({ netlink }) => ours(netlink, name));
    } catch (error) {
      if (error instanceof OverlayError && error.errno === 'ENOENT') return undefined;
      throw error;
    }
  }

  move(port: Port, netns: string): void {
    const from = this.#spaceOf(port);
    if (from.name === netns) return;
    const to = this.#spaces.hold(netns);
    const tap = port as Tap;
    try {
      if (to.run(() => linkOf(to.netlink, tap.name))) {
        throw new OverlayError(
          'EEXIST',
          'link_exists',
          `there is a link '${tap.name}' in network namespace '${netns}' already`,
        );
      }
      tap.moveTo(to.fd, to.netlink);
      to.run(() => quietIpv6(tap, to));
    } catch (error) {
      this.#spaces.release(to);
      throw error;
    }
    this.#opened.set(port, to);
    this.#spaces.release(from);
  }

  isNamespaceThere(port: Port): boolean {
    return this.#spaceOf(port).isThere;
  }

  isUp(port: Port): boolean {
    return this.#linkOf(port)?.isUp ?? false;
  }

  mtu(port: Port): number {
    return this.#linkOf(port)?.mtu ?? 0;
  }

  upperLinks(port: Port): string[] {
    const { netlink } = this.#spaceOf(port);
    const master = this.#linkOf(port)?.master;
    const bridge = master === undefined ? undefined : linkOf(netlink, master);
    const upper = this.vnics.list([port])[0]!.map(({ name, namespaceId, netns }) => {
      if (namespaceId === undefined) return name;
      if (netns === '') return `${name} (in the network namespace of overlayd)`;
      return `${name} (in ${netns === undefined ? 'a network namespace without a name' : `network namespace '${netns}'`})`;
    });
    return bridge ? [...upper, bridge.name] : upper;
  }

  overflows(ports: readonly Port[]): bigint[] {
    // One question about all links: each question about one waits for whatever the kernel does to any link.
    const spaces = new Set(ports.map((port) => this.#spaceOf(port)));
    const dropped = new Map<Space, Map<number, bigint>>();
    for (const space of spaces) {
      const links = ports.length === 1 ? [this.#linkOf(ports[0]!)] : space.netlink.listLinks();
      dropped.set(
        space,
        new Map(links.flatMap((link) => (link ? [[link.index, link.stats.txDropped]] : []))),
      );
    }
    return ports.map((port) => dropped.get(this.#spaceOf(port))!.get(port.index) ?? 0n);
  }

  underlayFault(ip: string, netns: string): string | undefined {
    let space: Space;
    try {
      space = this.#spaces.hold(netns);
    } catch (error) {
      if (error instanceof OverlayError) return error.message;
      throw error;
    }
    try {
      if (!space.isThere) return `the network namespace '${netns}' is gone`;
      if (!space.run(() => canBind(ip))) return `no interface of this host has ${ip}`;
      const index = indexOf(space.netlink, ip);
      // Of a loopback network every address is there, and most are in no list.
      const link = index === undefined ? undefined : space.netlink.getLink(index);
      return link && !link.isUp ? `${link.name}, which has ${ip}, is down` : undefined;
    } finally {
      this.#spaces.release(space);
    }
  }

  hostAddresses(netns: string): ReadonlySet<string> {
    try {
      return this.#enterWithout(netns, (space) => {
        const known = this.#addresses.get(space);
        if (known) return known;
        const listed = space.netlink.listAddresses().map(({ address }) => address.split('/')[0]!);
        const addresses = new Set(listed.map(parseIp));
        this.#addresses.set(space, addresses);
        return addresses;
      });
    } catch (error) {
      if (error instanceof OverlayError && error.errno === 'ENOENT') return new Set();
      throw error;
    }
  }

  underlayMtu(from: string, to: string | undefined, netns: string): UnderlayMtu | undefined {
    try {
      return this.#enterWithout(netns, ({ netlink }) => mtuTo(netlink, from, to));
    } catch (error) {
      if (error instanceof OverlayError && ['ENOENT', 'ENODEV'].includes(error.errno)) return undefined;
      throw error;
    }
  }

  linkIndex(ip: string, netns: string): number | undefined {
    return this.#enterWithout(netns, ({ netlink }) => indexOf(netlink, ip));
  }

  ownPrefixes(netns: string): readonly string[] {
    // Addresses of a VRF are in a table of its own.
    return this.#enterWithout(netns, ({ netlink }) => [
      ...netlink.listLocalPrefixes(),
      ...netlink.listAddresses().map(({ address }) => prefixOf(address.split('/')[0]!)),
    ]);
  }

  inNamespace<T>(netns: string, work: () => T): T {
    return this.#enterWithout(netns, () => work());
  }

  holdNamespace(netns: string): HeldNamespace {
    const space = this.#spaces.hold(netns);
    const spaces = this.#spaces;
    return {
      get isThere() {
        return space.isThere;
      },
      leave: () => spaces.release(space),
    };
  }

  watch(listener: (event: PortEvent) => void): () => void {
    return every(NETLINK_POLL_MS, () => {
      for (const space of this.#spaces.list) this.#drain(space, listener);
      this.#turns = (this.#turns + 1) % NAMESPACE_TURNS;
      if (this.#turns === 0) listener({ kind: 'netns' });
    });
  }

  close(): void {
    for (const space of this.#opened.values()) this.#spaces.release(space);
    this.#opened.clear();
    this.#spaces.release(this.#own);
  }

  #setRing(tap: Tap, { netlink }: Space): void {
    if (this.ring !== undefined) netlink.setLink(tap.index, { queueFrames: this.ring });
  }

  /** Makes a port in a namespace, which is held until the port is released. */
  #enter(netns: string, make: (space: Space) => Tap): Port {
    const space = this.#spaces.hold(netns);
    let tap: Tap;
    try {
      tap = space.run(() => make(space));
    } catch (error) {
      this.#spaces.release(space);
      throw error;
    }
    this.#opened.set(tap, space);
    tap.onRelease = () => {
      const last = this.#opened.get(tap);
      this.#opened.delete(tap);
      if (last) this.#spaces.release(last);
    };
    return tap;
  }

  #enterWithout<T>(netns: string, work: (space: Space) => T): T {
    const space = this.#spaces.hold(netns);
    try {
      return space.run(() => work(space));
    } finally {
      this.#spaces.release(space);
    }
  }

  #spaceOf(port: Port): Space {
    const space = this.#opened.get(port);
    assert(space, 'a port of this source');
    return space;
  }

  /** Undefined when it was deleted a moment ago; the event that says so is on its way. */
  #linkOf(port: Port): Link | undefined {
    return linkOf(this.#spaceOf(port).netlink, port.index);
  }

  #drain(space: Space, listener: (event: PortEvent) => void): void {
    try {
      const events = space.events.drain();
      for (const event of events) this.#pass(space, event, listener);
      // Once for all of them: each makes every device look at its underlay.
      if (this.#isUnderlayChanged(space, events)) {
        this.#addresses.delete(space);
        listener({ kind: 'underlay' });
      }
      if (space.routes.hasChanged()) listener({ kind: 'routes' });
      if (this.#behind.has(space)) this.#resync(space, listener);
    } catch (error) {
      // A list that changes while it is read, no memory: the next turn lists everything afresh.
      if (!(error instanceof OverlayError)) throw error;
      this.#behind.add(space);
    }
  }

  /**
   * An event is about an address, or about another link than ours, which may have the addresses of an underlay. One that
   * is deleted loses its addresses first, and we are told of those.
   */
  #isUnderlayChanged(space: Space, events: readonly LinkEvent[]): boolean {
    const ours = new Set([...this.#opened].flatMap(([port, of]) => (of === space ? [port.index] : [])));
    return events.some(
      (event) =>
        event.kind === 'address' || (event.kind === 'link' && !event.deleted && !ours.has(event.index)),
    );
  }

  #pass(space: Space, event: LinkEvent, listener: (event: PortEvent) => void): void {
    if (event.kind === 'overrun') this.#behind.add(space);
    else if (event.kind === 'link') listener(linkEvent(space, event, event.deleted));
  }

  /** Events were lost: tells of every link as it is now, and of our own that are gone. */
  #resync(space: Space, listener: (event: PortEvent) => void): void {
    const links = space.netlink.listLinks();
    this.#behind.delete(space);
    for (const link of links) listener(linkEvent(space, link, false));
    const there = new Set(links.map(({ index }) => index));
    for (const [port, of] of this.#opened) {
      if (of !== space || there.has(port.index)) continue;
      const gone = { index: port.index, isUp: false, mtu: 0, mac: '', name: (port as Tap).name };
      listener(linkEvent(space, gone, true));
    }
    this.#addresses.delete(space);
    listener({ kind: 'underlay' });
  }
}

/** Throws EEXIST with the remedy for a link that an overlayd left without a record. */
function refuseLeft(netlink: Space['netlink'], name: string): void {
  const link = linkOf(netlink, name);
  if (!link || overlayOf(link) === undefined || link.openQueues !== 0) return;
  throw new OverlayError(
    'EEXIST',
    'link_exists',
    `there is a link '${name}' already, which an overlayd left without a record: delete it (overlayadm delete-overlay ` +
      `${name}), or choose another name`,
  );
}

/** The link is a wire for what stands on it; by itself it has no address and takes part in no autoconfiguration. */
function quietIpv6(tap: Tap, { netlink }: Space): void {
  const settings = `/proc/sys/net/ipv6/conf/${tap.name}`;
  if (!existsSync(settings)) return; // no IPv6 in this kernel: nothing to switch off
  netlink.setLink(tap.index, { addrGenModeNone: true });
  for (const setting of ['accept_ra', 'autoconf']) {
    try {
      writeFileSync(`${settings}/${setting}`, '0');
    } catch (error) {
      // A container's /proc/sys may be read-only; without a link-local address nothing is solicited.
      if (!['EROFS', 'EACCES'].includes((error as NodeJS.ErrnoException).code ?? '')) throw error;
    }
  }
}

/** By the route to an address, or by the link that has the other one. */
function mtuTo(netlink: Space['netlink'], from: string, to: string | undefined): UnderlayMtu | undefined {
  const isAny = from === '0.0.0.0' || from === '::';
  if (to === undefined && isAny) return undefined;
  const own = to === undefined ? indexOf(netlink, from) : undefined;
  // Of a loopback network every address is there, and most are in no list: the route to it says where.
  const route = own === undefined ? netlink.getRoute(to ?? from, isAny ? undefined : from) : undefined;
  const index = own ?? route?.link;
  if (index === undefined) return undefined;
  const { name, mtu } = netlink.getLink(index);
  return { bytes: Math.min(mtu, route?.mtu ?? mtu), link: name };
}

/** Of the link that has an address. */
function indexOf(netlink: Space['netlink'], ip: string): number | undefined {
  return netlink.listAddresses().find(({ address }) => address.split('/')[0] === ip)?.index;
}

function linkOf(netlink: Space['netlink'], nameOrIndex: string | number): Link | undefined {
  try {
    return netlink.getLink(nameOrIndex);
  } catch (error) {
    if (error instanceof OverlayError && error.errno === 'ENODEV') return undefined;
    throw error;
  }
}

/** The link that says it is an overlay's, whatever it is called by now. */
function ours(netlink: Space['netlink'], overlay: string): Link | undefined {
  const isOurs = (link: Link) => overlayOf(link) === overlay;
  const named = linkOf(netlink, overlay);
  // One question about one link is cheaper than about all.
  return named && isOurs(named) ? named : netlink.listLinks().find(isOurs);
}

function linkEvent(
  { name: netns }: Space,
  link: { index: number; isUp: boolean; mtu: number; mac: string; name: string },
  isDeleted: boolean,
): PortEvent {
  const { index, isUp, mtu, mac, name } = link;
  return { kind: 'link', netns, index, isUp, mtu, mac, name, isDeleted };
}
