/** rtnetlink in TypeScript: the product needs no `ip` command. */
export type { Address, Neighbour } from './address.js';
export { EventSocket, type LinkEvent } from './events.js';
export type { Link, LinkChange, LinkStats } from './link.js';
export { Netlink } from './netlink.js';
