/** A host that is a network namespace: the kernel's network stack, a veth end as underlay, one overlayd. */
import { OverlayError } from '../errors.js';
import { closeFd } from '../sys/fd.js';
import { type Link, Netlink } from '../sys/netlink/index.js';
import { createNamespace, inNamespace } from '../sys/netns.js';
import type { Cleanup } from './cleanup.js';
import type { Daemon } from './daemon.js';
import { DEVICE, type Host, type LinkRow } from './pair.js';

export const UNDERLAY = 'underlay0';
const PREFIX = 24;

export interface NamespaceHostOptions {
  readonly name: 'a' | 'b';
  readonly socket: string;
  readonly underlayIp: string;
  readonly innerIp: string;
}

export class NamespaceHost implements Host {
  readonly name: 'a' | 'b';
  readonly socket: string;
  readonly underlayIp: string;
  readonly innerIp: string;
  readonly namespace: number;
  readonly #netlink: Netlink;

  /** Makes the namespace, with nothing in it. */
  constructor(cleanup: Cleanup, options: NamespaceHostOptions) {
    this.name = options.name;
    this.socket = options.socket;
    this.underlayIp = options.underlayIp;
    this.innerIp = options.innerIp;
    this.namespace = cleanup.hold(createNamespace, closeFd);
    this.#netlink = cleanup.hold(
      () => inNamespace(this.namespace, () => new Netlink()),
      (netlink) => netlink.close(),
    );
    this.#netlink.setLink(this.#netlink.getLink('lo').index, { up: true });
  }

  /** Joins two hosts by a veth pair and gives both ends addresses; the commands that would do the same. */
  joinTo(other: NamespaceHost): readonly string[] {
    this.#netlink.createVeth(UNDERLAY, UNDERLAY, { peerNamespaceFd: other.namespace });
    const ends = [this, other].flatMap((host) => host.#takeUp(UNDERLAY, host.underlayIp));
    return [
      `ip link add ${UNDERLAY} netns ${this.name} type veth peer name ${UNDERLAY} netns ${other.name}`,
      ...ends,
    ];
  }

  takeUp(): readonly string[] {
    return this.#takeUp(DEVICE, this.innerIp);
  }

  #takeUp(link: string, ip: string): readonly string[] {
    const { index } = this.#netlink.getLink(link);
    this.#quietIpv6(index);
    this.#netlink.addAddress(index, `${ip}/${PREFIX}`);
    this.#netlink.setLink(index, { up: true });
    return [
      `ip -n ${this.name} address add ${ip}/${PREFIX} dev ${link}`,
      `ip -n ${this.name} link set ${link} up`,
    ];
  }

  /** Nothing is on the wire but what the demo sends. */
  #quietIpv6(index: number): void {
    try {
      this.#netlink.setLink(index, { addrGenModeNone: true });
    } catch (error) {
      if (!(error instanceof OverlayError)) throw error; // a kernel without IPv6 is quiet by itself
    }
  }

  links(): LinkRow[] {
    return this.#netlink.listLinks().map((link) => this.#row(link));
  }

  #row(link: Link): LinkRow {
    const addresses = this.#netlink.listAddresses(link.index);
    return {
      name: link.name,
      kind: link.kind ?? 'loopback',
      mac: link.mac,
      mtu: link.mtu,
      state: `${link.isUp ? 'up' : 'down'}, ${link.hasCarrier ? 'carrier' : 'no carrier'}`,
      addresses: addresses.map(({ address }) => address).join(' '),
    };
  }

  underlayDrops(): number {
    return Number(this.#netlink.getLink(UNDERLAY).stats.txDropped);
  }

  /** The words of a command line that runs `words` in this host, from another terminal. */
  enterWords(daemon: Daemon, isNested: boolean, ...words: readonly string[]): string[] {
    // In a user namespace of ours its owner is root; the namespace of the network belongs to that.
    const user = isNested ? ['-U', '--preserve-credentials'] : [];
    return ['nsenter', '-t', `${daemon.pid}`, ...user, '-n', ...words];
  }
}
