/** TAP links that an overlayd left: ours by their alias, and open nowhere. */
import { ENODEV, SystemError } from '../sys/errno.js';
import type { Link } from '../sys/netlink/index.js';
import type { LeftLink, LeftLinks } from './ports.js';
import type { Space } from './space.js';
import { overlayOf } from './tap-alias.js';
import { linksElsewhere, passing } from './tap-vnics.js';

export class TapLeft implements LeftLinks {
  /** @param own namespace of the daemon */
  constructor(readonly own: Space) {}

  list(namespaces: ReadonlySet<string>): LeftLink[] {
    const { own } = this;
    const here = leftOf(own.netlink.listLinks(), own.name, undefined);
    if (namespaces.size === 0) return here;
    // Without CAP_NET_ADMIN nobody can look into another namespace.
    const self = passing(() => own.netlink.namespaceId(own.fd));
    const elsewhere = self === undefined ? [] : linksElsewhere(own, self);
    const there = elsewhere.flatMap(({ id, netns, links }) =>
      netns !== undefined && namespaces.has(netns) ? leftOf(links, netns, id) : [],
    );
    return [...here, ...there];
  }

  delete({ index, namespaceId }: LeftLink): void {
    try {
      this.own.netlink.deleteLink(index, namespaceId);
    } catch (error) {
      if (!(error instanceof SystemError) || error.number !== ENODEV) throw error;
    }
  }
}

function leftOf(links: readonly Link[], netns: string, namespaceId: number | undefined): LeftLink[] {
  return links.flatMap((link) => {
    const overlay = overlayOf(link);
    // An open queue is a daemon's at work: another one may run in the same namespace.
    if (overlay === undefined || link.openQueues !== 0) return [];
    const { name, index, isUp } = link;
    return [{ name, overlay, netns, index, namespaceId, isUp }];
  });
}
