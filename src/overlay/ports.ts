/** Where devices get their ports from, and what they hear of the host's network: TAP links (`tap-source.ts`), or memory. */
import type { UnderlayMtu } from '../device.js';
import type { Namespaces } from '../mux.js';
import type { Port } from '../sys/port.js';

/** A change of a port's link. */
export type PortEvent =
  | {
      kind: 'link';
      /** The namespace it was told in, '' for the daemon's own. */
      netns: string;
      index: number;
      isUp: boolean;
      mtu: number;
      mac: string;
      name: string;
      /** The link left its namespace: deleted, or moved to another one. */
      isDeleted: boolean;
    }
  /** An address or an interface of an underlay came or went: a start that failed may work now. */
  | { kind: 'underlay' }
  /** Routes have changed. */
  | { kind: 'routes' }
  /** A namespace came or went. */
  | { kind: 'netns' };

export interface PortRequest {
  readonly name: string;
  /** One a worker. */
  readonly queues: number;
  readonly mtu: number;
  /** Says on the link which overlay it is. */
  readonly alias: string;
  /** Name of a network namespace, '' for the daemon's own. */
  readonly netns: string;
}

/** A link that was there before this daemon. */
export interface PortLeft extends PortRequest {
  /** Address it had, for when it has to be made anew. */
  readonly mac: string | undefined;
  /** Descriptors of its queues, where an earlier process handed them over. */
  readonly fds: readonly number[];
}

/** A link on top of a port: a VNIC, or another that somebody has put there. */
export interface UpperLink {
  readonly name: string;
  readonly index: number;
  /** 'macvlan', 'vlan', ... */
  readonly kind: string | undefined;
  readonly mac: string;
  readonly mtu: number;
  readonly isUp: boolean;
  readonly alias: string | undefined;
  /** Name of the namespace it is in, '' for the daemon's own, undefined when no name leads there any more. */
  readonly netns: string | undefined;
  /** Id of that namespace for the one of the port; undefined when it is in that one. */
  readonly namespaceId: number | undefined;
}

export interface VnicRequest {
  readonly name: string;
  readonly mac: string;
  readonly alias: string;
  /** Name of a network namespace, '' for the daemon's own; undefined for that of the port. */
  readonly netns: string | undefined;
}

/** Links on top of ports, as the kernel has them now, whatever namespace they are in. */
export interface VnicSource {
  /** Of each port, those in its own namespace first. */
  list(ports: readonly Port[]): UpperLink[][];
  /** A macvlan in bridge mode, down. Throws EEXIST, ENOENT for an unknown namespace, EBUSY, EPERM; nothing is made then. */
  create(port: Port, request: VnicRequest): UpperLink;
  /** Names of the links that stand on a link of `list`, in its namespace. */
  above(port: Port, link: UpperLink): string[];
  /** Throws ENOENT when it is gone, EPERM. */
  delete(port: Port, link: UpperLink): void;
  /** Takes the port's own link up. */
  takeUp(port: Port): void;
}

/** A link that an overlayd left: its alias is ours, and nobody has it open. */
export interface LeftLink {
  readonly name: string;
  /** The overlay that its alias names. */
  readonly overlay: string;
  /** Name of its namespace, '' for the daemon's own. */
  readonly netns: string;
  readonly index: number;
  /** Id of the namespace for the daemon's own; undefined when it is that one. */
  readonly namespaceId: number | undefined;
  readonly isUp: boolean;
}

/** Links that an overlayd left. */
export interface LeftLinks {
  /** Those in the daemon's own namespace, and in the named ones: others may have a daemon of their own. */
  list(namespaces: ReadonlySet<string>): LeftLink[];
  /** Throws EPERM and the like; does nothing for a link that is gone. */
  delete(link: LeftLink): void;
}

export interface PortSource extends Namespaces {
  /** A new link. Throws EEXIST when there is one of that name, ENOENT for an unknown namespace. */
  open(request: PortRequest): Port;
  /**
   * The link that an earlier daemon left, as it is, or a new one like it when it is gone (as after a reboot). Throws EEXIST
   * when the link of that name is not ours.
   */
  reopen(left: PortLeft): Port;
  /** The link that an earlier daemon left is there, and up. */
  isLeftUp(name: string, netns: string): boolean;
  /** Takes the link away that an earlier daemon left, where it is there. Throws EPERM and the like. */
  discard(name: string, netns: string): void;
  /** Puts the link into another namespace. Throws ENOENT, EEXIST for a name that is taken there. */
  move(port: Port, netns: string): void;
  /** The namespace that the port was opened in is there under its name. */
  isNamespaceThere(port: Port): boolean;
  /** True when the link is administratively up, as the kernel has it now. */
  isUp(port: Port): boolean;
  /** The link's MTU, as the kernel has it now. */
  mtu(port: Port): number;
  /** Links that were left, where ports are links. */
  readonly left?: LeftLinks;
  /** VNICs, where ports can have some. */
  readonly vnics?: VnicSource;
  /** Names of the links on top of the port (macvlan and its like), in any namespace, which a delete would take away. */
  upperLinks(port: Port): string[];
  /** Frames the kernel could not hand over to us because the queue was full, port by port in the given order. */
  overflows(ports: readonly Port[]): bigint[];
  /** Why the address cannot be an underlay in that namespace just now, as a sentence, or undefined when it can. */
  underlayFault(ip: string, netns: string): string | undefined;
  /** Addresses of the host in a namespace, canonical; none where the namespace is not there. */
  hostAddresses(netns: string): ReadonlySet<string>;
  /**
   * The MTU of the route from an address of this host to another one, or where that is not known of the link that has the
   * address. Undefined when there is none.
   */
  underlayMtu(from: string, to: string | undefined, netns: string): UnderlayMtu | undefined;
  /** Calls the listener on every change from here on; returns how to stop that. */
  watch(listener: (event: PortEvent) => void): () => void;
  close(): void;
}

/** The port with something done to it; released when that throws. No worker has it yet. */
export function prepared(port: Port, work: (port: Port) => void): Port {
  try {
    work(port);
    return port;
  } catch (error) {
    void port.release();
    throw error;
  }
}
