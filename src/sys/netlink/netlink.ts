/** rtnetlink requests: links, addresses, neighbours. Each instance works in the namespace it was opened in. */
import { macros } from '../abi.js';
import { type Address, decodeAddress, decodeNeighbour, encodeAddress, encodeNeighbour, type Neighbour } from './address.js';
import { decodeLink, encodeChange, encodeInfo, encodeKind, type Link, type LinkChange } from './link.js';
import { type Attribute, encodeAttributes, text, u32 } from './message.js';
import { RequestSocket } from './socket.js';

const { NLM_F_CREATE, NLM_F_EXCL } = macros['linux/netlink.h'];
const rt = macros['linux/rtnetlink.h'];
const link = macros['linux/if_link.h'];
const { VETH_INFO_PEER } = macros['linux/veth.h'];
const NEW = NLM_F_CREATE | NLM_F_EXCL;

export class Netlink {
  readonly #socket = new RequestSocket();

  close(): void {
    this.#socket.close();
  }

  // ─── Links ────────────────────────────────────────────────────────────────────────────────────────────

  listLinks(): Link[] {
    return this.#socket.dump(rt.RTM_GETLINK, encodeInfo(0), 'list links').map(decodeLink);
  }

  /** By name or index. Throws ENODEV when there is none. */
  getLink(nameOrIndex: string | number): Link {
    const isName = typeof nameOrIndex === 'string';
    const attributes: Attribute[] = isName ? [[link.IFLA_IFNAME, text(nameOrIndex)]] : [];
    const fixed = encodeInfo(isName ? 0 : nameOrIndex);
    return decodeLink(this.#socket.get(rt.RTM_GETLINK, fixed, attributes, `get link ${nameOrIndex}`));
  }

  /** Changes what is given, in one request. */
  setLink(index: number, change: LinkChange): void {
    const [fixed, attributes] = encodeChange(index, change);
    this.#socket.change(rt.RTM_NEWLINK, 0, fixed, attributes, `set link ${index} ${JSON.stringify(change)}`);
  }

  /** Two joined Ethernet links; the peer may be born in another namespace. Throws EEXIST. */
  createVeth(name: string, peer: string, options: { peerNamespaceFd?: number; peerNamespacePid?: number } = {}): void {
    const { peerNamespaceFd, peerNamespacePid } = options;
    const [peerInfo, peerAttributes] = encodeChange(0, {
      name: peer,
      ...(peerNamespaceFd === undefined ? {} : { namespaceFd: peerNamespaceFd }),
      ...(peerNamespacePid === undefined ? {} : { namespacePid: peerNamespacePid }),
    });
    this.#create(name, 'veth', [], { peerInfo, peerAttributes });
  }

  /** A link of its own MAC on top of another, in bridge mode. Throws EEXIST. */
  createMacvlan(name: string, lowerIndex: number, change: Pick<LinkChange, 'mac' | 'namespaceFd'> = {}): void {
    const data: Attribute[] = [[link.IFLA_MACVLAN_MODE, u32(link.MACVLAN_MODE_BRIDGE)]];
    const [, attributes] = encodeChange(0, change);
    this.#create(name, 'macvlan', [[link.IFLA_LINK, u32(lowerIndex)], ...attributes], undefined, data);
  }

  /** Throws EEXIST. */
  createBridge(name: string): void {
    this.#create(name, 'bridge', []);
  }

  deleteLink(index: number): void {
    this.#socket.change(rt.RTM_DELLINK, 0, encodeInfo(index), [], `delete link ${index}`);
  }

  #create(
    name: string,
    kind: string,
    attributes: readonly Attribute[],
    peer?: { peerInfo: Uint8Array; peerAttributes: readonly Attribute[] },
    data?: readonly Attribute[],
  ): void {
    const all: Attribute[] = [[link.IFLA_IFNAME, text(name)], ...attributes];
    all.push(peer ? vethKind(peer.peerInfo, peer.peerAttributes) : encodeKind(kind, data));
    this.#socket.change(rt.RTM_NEWLINK, NEW, encodeInfo(0), all, `create ${kind} ${name}`);
  }

  // ─── Addresses ────────────────────────────────────────────────────────────────────────────────────────

  /** `10.0.0.1/24` or IPv6. Throws EINVAL, EEXIST. */
  addAddress(index: number, address: string, options: { noDad?: boolean } = {}): void {
    const [fixed, attributes] = encodeAddress(index, address, options);
    this.#socket.change(rt.RTM_NEWADDR, NEW, fixed, attributes, `add address ${address}`);
  }

  removeAddress(index: number, address: string): void {
    const [fixed, attributes] = encodeAddress(index, address, {});
    this.#socket.change(rt.RTM_DELADDR, 0, fixed, attributes, `remove address ${address}`);
  }

  /** Of all links, or of one. */
  listAddresses(index?: number): Address[] {
    const all = this.#socket.dump(rt.RTM_GETADDR, new Uint8Array(8), 'list addresses').map(decodeAddress);
    return index === undefined ? all : all.filter((address) => address.index === index);
  }

  // ─── Neighbours ───────────────────────────────────────────────────────────────────────────────────────

  addNeighbour(index: number, ip: string, mac: string): void {
    const [fixed, attributes] = encodeNeighbour(index, ip, mac);
    this.#socket.change(rt.RTM_NEWNEIGH, NLM_F_CREATE, fixed, attributes, `add neighbour ${ip}`);
  }

  removeNeighbour(index: number, ip: string): void {
    const [fixed, attributes] = encodeNeighbour(index, ip);
    this.#socket.change(rt.RTM_DELNEIGH, 0, fixed, attributes, `remove neighbour ${ip}`);
  }

  /** Of all links, or of one. */
  listNeighbours(index?: number): Neighbour[] {
    const all = this.#socket.dump(rt.RTM_GETNEIGH, new Uint8Array(12), 'list neighbours').map(decodeNeighbour);
    return index === undefined ? all : all.filter((neighbour) => neighbour.index === index);
  }
}

/** VETH_INFO_PEER holds a whole link message: ifinfomsg, then attributes. */
function vethKind(peerInfo: Uint8Array, peerAttributes: readonly Attribute[]): Attribute {
  return encodeKind('veth', [[VETH_INFO_PEER, joinPeer(peerInfo, peerAttributes)]]);
}

function joinPeer(info: Uint8Array, attributes: readonly Attribute[]): Uint8Array {
  const encoded = encodeAttributes(attributes);
  const joined = new Uint8Array(info.length + encoded.length);
  joined.set(info);
  joined.set(encoded, info.length);
  return joined;
}
