/**
 * Links on top of TAPs (`VnicSource`), whatever namespace they are in. A macvlan that was moved is in no list of the
 * namespace of its lower link; the kernel tells of it only where it is. So every other namespace is asked, through the
 * socket of the TAP's namespace, by the id under which that one knows it (IFLA_TARGET_NETNSID, Linux 4.16): those that
 * have a name, those a link was ever moved to (the kernel gives them an id then, also when their name goes), and the
 * daemon's own. Nothing is entered, so this takes CAP_NET_ADMIN and no CAP_SYS_ADMIN. One namespace escapes: a link made
 * right in a namespace that never had a name.
 */
import { OverlayError } from '../errors.js';
import { EBUSY, EEXIST, EINVAL, ENODEV, EPERM, SystemError } from '../sys/errno.js';
import { closeFd } from '../sys/fd.js';
import type { Link, Netlink } from '../sys/netlink/index.js';
import type { Port } from '../sys/port.js';
import { randomBetween } from '../sys/random.js';
import type { UpperLink, VnicRequest, VnicSource } from './ports.js';
import { namespaceNames, openNamespace, type Space } from './space.js';

/** Namespaces that one list asks; each takes the kernel about 0.1 ms and this thread waits. */
const NAMESPACES_MAX = 4096;
/** A namespace went while it was looked at, or is not ours to look into. */
const passedOver: readonly string[] = ['EINVAL', 'EPERM', 'EACCES', 'ENOENT'];

/** Another namespace and its links. */
export interface Elsewhere {
  readonly id: number;
  readonly netns: string | undefined;
  readonly links: readonly Link[];
}

export class TapVnics implements VnicSource {
  /** @param spaceOf namespace that a port is in */
  constructor(readonly spaceOf: (port: Port) => Space) {}

  list(ports: readonly Port[]): UpperLink[][] {
    const found = new Map<Port, UpperLink[]>();
    for (const space of new Set(ports.map(this.spaceOf))) {
      const here = space.netlink.listLinks();
      // Without CAP_NET_ADMIN nobody could have put a link elsewhere through us.
      const self = passing(() => space.netlink.namespaceId(space.fd));
      const elsewhere = self === undefined ? [] : linksElsewhere(space, self);
      for (const port of ports) {
        if (this.spaceOf(port) !== space) continue;
        const own = here.filter((link) => isOn(link, port, undefined));
        const moved = elsewhere.flatMap(({ id, netns, links }) =>
          links.filter((link) => isOn(link, port, self)).map((link) => upperLink(link, netns, id)),
        );
        found.set(port, [...own.map((link) => upperLink(link, space.name, undefined)), ...moved]);
      }
    }
    return ports.map((port) => found.get(port)!);
  }

  create(port: Port, request: VnicRequest): UpperLink {
    const { netlink, name: own, fd } = this.spaceOf(port);
    const { name, netns = own } = request;
    return told(`VNIC '${name}'`, () => {
      if (netns === own) return createHere(netlink, port, request, own);
      const target = openNamespace(netns);
      try {
        const id = idOfNamed(netlink, target, netns);
        // Two names may lead to one namespace.
        if (id === netlink.namespaceId(fd)) return createHere(netlink, port, request, netns);
        return createElsewhere(netlink, port, request, { fd: target, id, netns });
      } finally {
        closeFd(target);
      }
    });
  }

  above(port: Port, { index, namespaceId }: UpperLink): string[] {
    const links = passing(() => this.spaceOf(port).netlink.listLinks(namespaceId)) ?? [];
    return links
      .filter(
        (link) => link.linkIndex === index && link.linkNamespaceId === undefined && link.kind !== 'veth',
      )
      .map((link) => printable(link.name));
  }

  delete(port: Port, link: UpperLink): void {
    const { netlink } = this.spaceOf(port);
    try {
      told(`VNIC '${link.name}'`, () => netlink.deleteLink(link.index, link.namespaceId));
    } catch (error) {
      // Its namespace, or only the link, went a moment ago.
      if (!(error instanceof SystemError) || ![EINVAL, ENODEV].includes(error.number)) throw error;
      throw new OverlayError('ENOENT', 'no_such_vnic', `VNIC '${link.name}' was deleted a moment ago`);
    }
  }

  takeUp(port: Port): void {
    this.spaceOf(port).netlink.setLink(port.index, { up: true });
  }
}

function createHere(netlink: Netlink, port: Port, request: VnicRequest, netns: string): UpperLink {
  const { name, mac, alias } = request;
  netlink.createMacvlan(name, port.index, { mac });
  const { index } = netlink.getLink(name);
  return undone(
    () => {
      netlink.setLink(index, { alias });
      return upperLink(netlink.getLink(index), netns, undefined);
    },
    () => netlink.deleteLink(index),
  );
}

/**
 * Made here under a name that nobody has, then moved and given its own: before Linux 6.14 a link cannot be made elsewhere
 * under a name that is in use here.
 */
function createElsewhere(
  netlink: Netlink,
  port: Port,
  { name, mac, alias }: VnicRequest,
  { fd, id, netns }: { fd: number; id: number; netns: string },
): UpperLink {
  const temporary = `vnic-${randomBetween(0, 0xffffffff).toString(16).padStart(8, '0')}`;
  const there = () =>
    netlink.listLinks(id).find((link) => link.name === name && link.mac === mac && link.alias === alias);
  netlink.createMacvlan(temporary, port.index, { mac });
  return undone(
    () => {
      const { index } = netlink.getLink(temporary);
      netlink.setLink(index, { alias });
      netlink.setLink(index, { namespaceFd: fd, name });
      const link = there();
      if (!link) throw new SystemError(ENODEV, 'the VNIC was deleted while it was made');
      return upperLink(link, netns, id);
    },
    () => {
      // A name that is taken there is refused when it has been moved already.
      const moved = netlink.listLinks(id).find((link) => link.name === temporary);
      if (moved) netlink.deleteLink(moved.index, id);
      else netlink.deleteLink(netlink.getLink(temporary).index);
    },
  );
}

/** Links of every other namespace that the one of `space` knows or can know. */
export function linksElsewhere({ netlink }: Space, self: number): Elsewhere[] {
  const names = namesById(netlink);
  const ids = netlink.listNamespaceIds().filter((id) => id !== self);
  return ids.slice(0, NAMESPACES_MAX).flatMap((id) => {
    const links = passing(() => netlink.listLinks(id));
    return links ? [{ id, netns: names.get(id), links }] : [];
  });
}

/** Names of namespaces, the daemon's own included; the first of those that lead to one. */
function namesById(netlink: Netlink): Map<number, string> {
  const names = new Map<number, string>();
  for (const name of ['', ...namespaceNames()]) {
    passing(() => {
      const fd = openNamespace(name);
      try {
        const id = netlink.namespaceId(fd);
        if (!names.has(id)) names.set(id, name);
      } finally {
        closeFd(fd);
      }
    });
  }
  return names;
}

function idOfNamed(netlink: Netlink, fd: number, netns: string): number {
  try {
    return netlink.namespaceId(fd);
  } catch (error) {
    if (!(error instanceof SystemError) || error.number !== EINVAL) throw error;
    // What is left of a name when its mount has gone.
    throw new OverlayError(
      'ENOENT',
      'no_such_netns',
      `'${netns}' is a file but no network namespace: delete it and create it with ip netns add ${netns}`,
    );
  }
}

/** @param self id of the port's namespace for itself, for links that are elsewhere */
function isOn(link: Link, port: Port, self: number | undefined): boolean {
  // A veth's linkIndex is its peer's: it stands on nothing.
  return link.linkIndex === port.index && link.linkNamespaceId === self && link.kind !== 'veth';
}

function upperLink(link: Link, netns: string | undefined, namespaceId: number | undefined): UpperLink {
  const { index, kind, mac, mtu, isUp, alias } = link;
  return { name: printable(link.name), index, kind, mac, mtu, isUp, alias, netns, namespaceId };
}

/** Whoever is root in a namespace names its links; the names are printed on other people's terminals. */
function printable(name: string): string {
  return name.replace(/\p{C}/gu, '?');
}

export function passing<T>(work: () => T): T | undefined {
  try {
    return work();
  } catch (error) {
    if (error instanceof OverlayError && passedOver.includes(error.errno)) return undefined;
    throw error;
  }
}

function undone<T>(work: () => T, undo: () => void): T {
  try {
    return work();
  } catch (error) {
    quietly(undo);
    throw error;
  }
}

/** What is to be undone may be gone; the first error tells more. */
function quietly(work: () => void): void {
  try {
    work();
  } catch (error) {
    if (!(error instanceof OverlayError)) throw error;
  }
}

/** Says in our words what the kernel refuses. */
function told<T>(what: string, work: () => T): T {
  try {
    return work();
  } catch (error) {
    if (!(error instanceof SystemError)) throw error;
    const { number } = error;
    if (number === EEXIST) {
      const message = `${what}: there is a link of that name in the namespace already; choose another name`;
      throw new OverlayError('EEXIST', 'link_exists', message);
    }
    if (number === EPERM) {
      const message = `${what} needs CAP_NET_ADMIN in both network namespaces: run overlayd as root (${error.what})`;
      throw new OverlayError('EPERM', 'no_cap_net_admin', message);
    }
    if (number === EBUSY) {
      const message = `${what}: the overlay's link is in other use, such as a port of a bridge (${error.what})`;
      throw new OverlayError('EBUSY', 'link_in_use', message);
    }
    throw error;
  }
}
