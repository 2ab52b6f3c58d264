/**
 * Multicast groups on muxes. A group is a mux row of its own, with the devices of those that joined it and one socket, which the
 * first worker alone reads: so that each datagram comes in once, however many workers there are.
 */
import type { Engine } from './datapath/engine.js';
import { assert, OverlayError } from './errors.js';
import { formatEndpoint, isMulticast } from './ip.js';
import { isWildcard, keyOf, type Mux, type Namespaces, prefixOf } from './mux.js';
import { AF_INET6 } from './sys/abi.js';
import { closeFd } from './sys/fd.js';
import { aimAtGroups, joinAnew, openGroup } from './sys/group-socket.js';

/** A group that somebody on a mux is in. */
export interface Group {
  readonly row: number;
  readonly ip: string;
  readonly mux: Mux;
  readonly fd: number;
  users: number;
  /** Index of the link that has joined, undefined when it is not known. */
  link: number | undefined;
  /** The link was not there when it was last looked for. */
  isLinkGone: boolean;
}

export class Groups {
  readonly #joined: Group[] = [];

  constructor(
    readonly engine: Engine,
    readonly namespaces: Namespaces,
  ) {}

  get list(): readonly Group[] {
    return this.#joined;
  }

  /**
   * The group on the mux, joined when nobody is in it yet; the mux must be held until it is released. Throws ENOTSUP for an
   * encapsulation without ports, EINVAL for a mux of all addresses, EADDRINUSE, EADDRNOTAVAIL, ENOSPC.
   */
  hold(mux: Mux, ip: string): Group {
    assert(isMulticast(ip), `${ip} is no group`);
    const known = this.#joined.find((group) => group.mux === mux && group.ip === ip);
    if (known) {
      known.users++;
      return known;
    }
    const group = this.#join(mux, ip);
    this.#joined.push(group);
    return group;
  }

  /** The reverse of `hold`, when no worker finds a device by it any more. Its socket closes when no worker reads it. */
  async release(group: Group): Promise<void> {
    assert(group.users > 0, `the group ${group.ip} is released once too often`);
    group.users--;
    if (group.users > 0) return;
    this.#joined.splice(this.#joined.indexOf(group), 1);
    await this.#leave(group);
  }

  /**
   * Addresses or links have changed: joins the mux's groups again where the link is another one. Returns why that cannot be done
   * now, as a sentence.
   */
  follow(mux: Mux): string | undefined {
    const groups = this.#joined.filter((group) => group.mux === mux);
    if (groups.length === 0) return undefined;
    try {
      const link = this.namespaces.linkIndex(mux.ip, mux.netns);
      const left = groups.filter((group) => group.isLinkGone || group.link !== link);
      if (link === undefined) {
        for (const group of left) group.isLinkGone = true;
        return undefined;
      }
      if (left.length === 0) return undefined;
      this.namespaces.inNamespace(mux.netns, () => {
        aimAtGroups(mux.underlay, mux.ip);
        for (const group of left) {
          joinAnew(group.fd, { group: group.ip, ip: mux.ip }, group.link);
          Object.assign(group, { link, isLinkGone: false });
        }
      });
      return undefined;
    } catch (error) {
      if (!(error instanceof OverlayError)) throw error;
      for (const group of groups) group.isLinkGone = true;
      return error.message;
    }
  }

  #join(mux: Mux, ip: string): Group {
    const { encap, port, settings } = mux;
    const { engine } = this;
    if (encap.transport === 'gre') {
      throw new OverlayError(
        'ENOTSUP',
        'no_groups',
        `${encap.name} has no multicast groups: list the VTEPs instead`,
      );
    }
    if (isWildcard(mux.ip)) {
      throw new OverlayError(
        'EINVAL',
        'group_needs_address',
        `the group ${ip} is joined on the link that has listen_ip, and ${mux.ip} is on all of them: set it to one address`,
      );
    }
    const { domain } = mux.underlay;
    const fd = this.namespaces.inNamespace(mux.netns, () => {
      aimAtGroups(mux.underlay, mux.ip);
      return openGroup({ group: ip, port, ip: mux.ip, domain, settings });
    });
    let row: number;
    let link: number | undefined;
    try {
      link = this.namespaces.linkIndex(mux.ip, mux.netns);
      row = engine.tables.muxes.take();
    } catch (error) {
      closeFd(fd);
      throw error;
    }
    const group = { row, ip, mux, fd, users: 1, link, isLinkGone: false };
    try {
      engine.counters.clearMux(row);
      engine.tables.writeMux(row, encap.core, 1, domain === AF_INET6, false, port);
      engine.ownSockets.set(row, port, [prefixOf(ip)]);
      engine.attachMux(row, [fd], []);
      return group;
    } catch (error) {
      // The first worker may have it already, and read from it.
      void this.#leave(group);
      throw error;
    }
  }

  async #leave(group: Group): Promise<void> {
    this.engine.detachMux(group.row);
    this.engine.ownSockets.delete(group.row);
    await this.engine.retire(`the group ${groupName(group)}`, {
      socket: () => closeFd(group.fd),
      row: () => this.engine.tables.muxes.free(group.row),
    });
  }
}

/** How a group is called: its address, behind that of its mux. */
export function groupName({ ip, mux }: Group): string {
  return `${keyOf(mux.ip, mux.port, mux.netns)} ${formatEndpoint(ip, mux.port)}`;
}
