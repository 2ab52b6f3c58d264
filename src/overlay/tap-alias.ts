/** Alias of an overlay's link: it says whose the link is, to operators and to the next daemon. */
import type { Link } from '../sys/netlink/index.js';

/** Every alias of ours begins so. A link is attached after a restart, or deleted, only when its alias does. */
const BEGIN = 'overlayd overlay ';

/** Text for the kernel to keep with the link. */
export function aliasOf(name: string, encap: string, vnetid: bigint): string {
  return `${BEGIN}${name}, ${encap} vnetid ${vnetid}`;
}

/** Name of the overlay that a link says it is of; undefined for a link that is not ours. */
export function overlayOf({ kind, alias }: Pick<Link, 'kind' | 'alias'>): string | undefined {
  if (kind !== 'tun' || !alias?.startsWith(BEGIN)) return undefined;
  const end = alias.indexOf(',', BEGIN.length);
  return end < 0 ? undefined : alias.slice(BEGIN.length, end);
}
