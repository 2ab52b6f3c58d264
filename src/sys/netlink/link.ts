/** Links: what a link message says, and the requests that make and change links (man 7 rtnetlink). */
import { AF_INET6, macros, structs } from '../abi.js';
import { type Attribute, encodeMac, type Message, readMac, readText, readU32, splitBody, text, u32, u8, viewOf, decodeAttributes } from './message.js';

const link = macros['linux/if_link.h'];
const { IFF_UP, IFF_LOWER_UP } = macros['linux/if.h'];
const { RTM_DELLINK } = macros['linux/rtnetlink.h'];
const INFO = structs.ifinfomsg;
const STATS = structs.rtnl_link_stats64;

export interface LinkStats {
  readonly rxPackets: bigint;
  readonly rxBytes: bigint;
  readonly rxErrors: bigint;
  readonly rxDropped: bigint;
  readonly txPackets: bigint;
  readonly txBytes: bigint;
  readonly txErrors: bigint;
  readonly txDropped: bigint;
}

export interface Link {
  readonly index: number;
  readonly name: string;
  /** `veth`, `tun`, ...; undefined for hardware and loopback. */
  readonly kind: string | undefined;
  readonly mac: string;
  readonly mtu: number;
  /** Administratively up. */
  readonly isUp: boolean;
  readonly hasCarrier: boolean;
  /** Index of the bridge it is a port of. */
  readonly master: number | undefined;
  /** Index of the link it stands on (macvlan) or is joined to (veth). */
  readonly linkIndex: number | undefined;
  readonly alias: string | undefined;
  readonly stats: LinkStats;
}

export interface LinkChange {
  readonly up?: boolean;
  readonly mtu?: number;
  readonly mac?: string;
  readonly name?: string;
  /** Bridge to become a port of, null to leave it. */
  readonly master?: number | null;
  readonly alias?: string;
  /** Descriptor of the network namespace to move to. */
  readonly namespaceFd?: number;
  /** Process whose network namespace to move to. */
  readonly namespacePid?: number;
  /** No IPv6 link-local address by itself. */
  readonly addrGenModeNone?: boolean;
}

/** struct ifinfomsg. `change` is which bits of `flags` to set. */
export function encodeInfo(index: number, flags = 0, change = 0): Uint8Array {
  const bytes = new Uint8Array(INFO.size);
  const view = viewOf(bytes);
  view.setInt32(INFO.ifi_index, index, true);
  view.setUint32(INFO.ifi_flags, flags, true);
  view.setUint32(INFO.ifi_change, change, true);
  return bytes;
}

/** Fixed part and attributes of a change. */
export function encodeChange(index: number, change: LinkChange): [fixed: Uint8Array, attributes: Attribute[]] {
  const { up, mtu, mac, name, master, alias, namespaceFd, namespacePid, addrGenModeNone } = change;
  const attributes: Attribute[] = [];
  if (mtu !== undefined) attributes.push([link.IFLA_MTU, u32(mtu)]);
  if (mac !== undefined) attributes.push([link.IFLA_ADDRESS, encodeMac(mac)]);
  if (name !== undefined) attributes.push([link.IFLA_IFNAME, text(name)]);
  if (master !== undefined) attributes.push([link.IFLA_MASTER, u32(master ?? 0)]);
  if (alias !== undefined) attributes.push([link.IFLA_IFALIAS, text(alias)]);
  if (namespaceFd !== undefined) attributes.push([link.IFLA_NET_NS_FD, u32(namespaceFd)]);
  if (namespacePid !== undefined) attributes.push([link.IFLA_NET_NS_PID, u32(namespacePid)]);
  if (addrGenModeNone) {
    const mode: Attribute = [link.IFLA_INET6_ADDR_GEN_MODE, u8(link.IN6_ADDR_GEN_MODE_NONE)];
    attributes.push([link.IFLA_AF_SPEC, [[AF_INET6, [mode]]]]);
  }
  return [encodeInfo(index, up ? IFF_UP : 0, up === undefined ? 0 : IFF_UP), attributes];
}

/** IFLA_LINKINFO of a new link. */
export function encodeKind(kind: string, data?: readonly Attribute[]): Attribute {
  const info: Attribute[] = [[link.IFLA_INFO_KIND, text(kind)]];
  if (data) info.push([link.IFLA_INFO_DATA, data]);
  return [link.IFLA_LINKINFO, info];
}

export function decodeLink({ body }: Message): Link {
  const [fixed, attributes] = splitBody(body, INFO.size);
  const flags = fixed.getUint32(INFO.ifi_flags, true);
  const info = attributes.get(link.IFLA_LINKINFO);
  return {
    index: fixed.getInt32(INFO.ifi_index, true),
    name: readText(attributes.get(link.IFLA_IFNAME)) ?? '',
    kind: info && readText(decodeAttributes(info).get(link.IFLA_INFO_KIND)),
    mac: readMac(attributes.get(link.IFLA_ADDRESS)),
    mtu: readU32(attributes.get(link.IFLA_MTU)) ?? 0,
    isUp: (flags & IFF_UP) !== 0,
    hasCarrier: (flags & IFF_LOWER_UP) !== 0,
    master: readU32(attributes.get(link.IFLA_MASTER)),
    linkIndex: readU32(attributes.get(link.IFLA_LINK)),
    alias: readText(attributes.get(link.IFLA_IFALIAS)),
    stats: decodeStats(attributes.get(link.IFLA_STATS64)),
  };
}

/** Kernels append fields; those before must be there. */
function decodeStats(attribute: Uint8Array | undefined): LinkStats {
  const view = attribute && attribute.length >= STATS.tx_dropped + 8 ? viewOf(attribute) : undefined;
  const read = (offset: number) => view?.getBigUint64(offset, true) ?? 0n;
  return {
    rxPackets: read(STATS.rx_packets),
    rxBytes: read(STATS.rx_bytes),
    rxErrors: read(STATS.rx_errors),
    rxDropped: read(STATS.rx_dropped),
    txPackets: read(STATS.tx_packets),
    txBytes: read(STATS.tx_bytes),
    txErrors: read(STATS.tx_errors),
    txDropped: read(STATS.tx_dropped),
  };
}

export function isDeletion(message: Message): boolean {
  return message.type === RTM_DELLINK;
}
