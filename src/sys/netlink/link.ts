/** Network links (man 7 rtnetlink, RTM_NEWLINK and its kin): struct ifinfomsg and IFLA_... attributes. */
import { OverlayError } from '../../errors.js';
import { DEVICE_NAME_BYTES_MAX } from '../../limits.js';
import { AF_INET6, macros, structs } from '../abi.js';
import {
  type Attribute,
  type Attributes,
  encodeBody,
  fixedPart,
  malformed,
  parseAttributes,
  readText,
  readU8,
  readU32,
  text,
  u8,
  u32,
  viewOf,
} from './message.js';
import type { RequestSocket } from './socket.js';

const { NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL } = macros['linux/netlink.h'];
const { RTM_DELLINK, RTM_GETLINK, RTM_NEWLINK, RTM_SETLINK } = macros['linux/rtnetlink.h'];
const { IFF_LOWER_UP, IFF_UP } = macros['linux/if.h'];
const { VETH_INFO_PEER } = macros['linux/veth.h'];
const {
  IFLA_ADDRESS,
  IFLA_AF_SPEC,
  IFLA_CARRIER,
  IFLA_IFALIAS,
  IFLA_IFNAME,
  IFLA_INET6_ADDR_GEN_MODE,
  IFLA_INFO_DATA,
  IFLA_INFO_KIND,
  IFLA_LINK,
  IFLA_LINK_NETNSID,
  IFLA_LINKINFO,
  IFLA_MACVLAN_MODE,
  IFLA_MASTER,
  IFLA_TUN_NUM_QUEUES,
  IFLA_TXQLEN,
  IFLA_MTU,
  IFLA_NET_NS_FD,
  IFLA_NET_NS_PID,
  IFLA_OPERSTATE,
  IFLA_STATS64,
  IFLA_TARGET_NETNSID,
  IN6_ADDR_GEN_MODE_EUI64,
  IN6_ADDR_GEN_MODE_NONE,
  MACVLAN_MODE_BRIDGE,
} = macros['linux/if_link.h'];

const INFO = structs.ifinfomsg;
const STATS = structs.rtnl_link_stats64;
const STATS_BYTES_MIN = STATS.tx_dropped + 8;

/** RFC 2863 ifOperStatus, in the order of linux/if.h. */
const operStates = ['unknown', 'notpresent', 'down', 'lowerlayerdown', 'testing', 'dormant', 'up'] as const;
export type OperState = (typeof operStates)[number];

/** Counted since the link was made, from the link's own side: what the host sends is tx. */
export interface LinkStats {
  readonly rxPackets: bigint;
  readonly rxBytes: bigint;
  readonly rxDropped: bigint;
  readonly rxErrors: bigint;
  readonly txPackets: bigint;
  readonly txBytes: bigint;
  readonly txDropped: bigint;
  readonly txErrors: bigint;
}

export interface Link {
  readonly index: number;
  readonly name: string;
  /** 'veth', 'bridge', 'tun', ...; undefined for hardware and loopback. */
  readonly kind: string | undefined;
  /** Bytes in hexadecimal with colons, '' for a link without an address. */
  readonly mac: string;
  /** Bytes. */
  readonly mtu: number;
  /** IFF_... */
  readonly flags: number;
  /** Administratively up. */
  readonly isUp: boolean;
  /** Something is at the other end. Told for a link that is down, too. */
  readonly hasCarrier: boolean;
  readonly operState: OperState;
  /** Index of the bridge it is a port of. */
  readonly master: number | undefined;
  /** Index of the link below it or, for a veth, of its peer; maybe in another namespace. */
  readonly linkIndex: number | undefined;
  /** Frames that its queue keeps. */
  readonly queueFrames: number;
  /** Where that link is, as the request socket's namespace numbers others; undefined: where this one is. */
  readonly linkNamespaceId: number | undefined;
  readonly alias: string | undefined;
  /** Queues of a TAP that somebody has open (Linux 4.18); undefined for other links. */
  readonly openQueues: number | undefined;
  readonly stats: LinkStats;
}

/** Where the peer goes. At most one; the namespace of the request socket when there is none. */
export interface VethOptions {
  readonly peerNamespacePid?: number;
  readonly peerNamespaceFd?: number;
}

export interface MacvlanOptions {
  /** 'bridge': the macvlans of one lower link reach each other. */
  readonly mode?: 'bridge';
  readonly mac?: string;
  readonly namespaceFd?: number;
}

export interface LinkChange {
  /** Frames that its queue keeps; of a TAP, each of its queues. */
  readonly queueFrames?: number;
  readonly up?: boolean;
  /** Bytes. */
  readonly mtu?: number;
  readonly mac?: string;
  readonly name?: string;
  /** Index of a bridge, or null to leave it. */
  readonly master?: number | null;
  readonly namespaceFd?: number;
  readonly namespacePid?: number;
  /** '' takes it away. */
  readonly alias?: string;
  /** True: the kernel gives the link no IPv6 address by itself; false: one from its MAC (EUI-64). */
  readonly addrGenModeNone?: boolean;
}

/**
 * Every link of the namespace, or of another one by its id (`namespaceId`), without entering it: that takes CAP_NET_ADMIN
 * there, and throws SystemError EINVAL when the namespace has gone.
 */
export function listLinks(socket: RequestSocket, namespaceId?: number): Link[] {
  const body = encodeBody(infoOf(0), targetAttributes(namespaceId));
  return socket.request({ type: RTM_GETLINK, flags: NLM_F_DUMP, body, what: 'list links' }).map(parseLink);
}

/** A link by name or index. Throws SystemError ENODEV when there is none. */
export function getLink(socket: RequestSocket, link: string | number): Link {
  const body = typeof link === 'number' ? infoOf(link) : encodeBody(infoOf(0), [nameAttribute(link)]);
  const [answer] = socket.request({ type: RTM_GETLINK, body, what: `get link ${link}` });
  if (answer === undefined) throw malformed(`no answer about link ${link}`);
  return parseLink(answer);
}

/** Makes a pair of links, both down. Throws SystemError EEXIST when a name is taken. */
export function createVeth(
  socket: RequestSocket,
  name: string,
  peerName: string,
  options: VethOptions = {},
): void {
  const { peerNamespaceFd, peerNamespacePid } = options;
  const peer = [nameAttribute(peerName), ...namespaceAttributes(peerNamespaceFd, peerNamespacePid)];
  const data = [{ type: VETH_INFO_PEER, value: encodeBody(infoOf(0), peer) }];
  create(socket, 'veth', name, data, []);
}

/** Makes a link with a MAC of its own on top of another one, down. Throws as `createVeth`. */
export function createMacvlan(
  socket: RequestSocket,
  name: string,
  lowerIndex: number,
  options: MacvlanOptions = {},
): void {
  const attributes: Attribute[] = [{ type: IFLA_LINK, value: u32(lowerIndex) }];
  if (options.mac !== undefined) attributes.push({ type: IFLA_ADDRESS, value: macBytes(options.mac) });
  attributes.push(...namespaceAttributes(options.namespaceFd, undefined));
  const data = [{ type: IFLA_MACVLAN_MODE, value: u32(MACVLAN_MODE_BRIDGE) }];
  create(socket, 'macvlan', name, data, attributes);
}

/** Makes a bridge without ports, down. Throws as `createVeth`. */
export function createBridge(socket: RequestSocket, name: string): void {
  create(socket, 'bridge', name, [], []);
}

/**
 * Deletes a link, of a veth pair both; in another namespace as `listLinks` lists it. Throws SystemError ENODEV when there
 * is none.
 */
export function deleteLink(socket: RequestSocket, index: number, namespaceId?: number): void {
  const body = encodeBody(infoOf(index), targetAttributes(namespaceId));
  socket.request({ type: RTM_DELLINK, body, what: `delete link ${index}` });
}

/**
 * Changes a link in one request. The kernel moves it to another namespace first and does the rest there; what it
 * did before the part that it refuses stays done. Throws SystemError: ENODEV, EEXIST for a name that is taken,
 * EINVAL for an MTU the link cannot have.
 */
export function setLink(socket: RequestSocket, index: number, change: LinkChange): void {
  const { up, mtu, mac, name, master, namespaceFd, namespacePid, alias, addrGenModeNone, queueFrames } =
    change;
  const info = infoOf(index);
  const attributes: Attribute[] = namespaceAttributes(namespaceFd, namespacePid);
  if (up !== undefined) {
    viewOf(info).setUint32(INFO.ifi_flags, up ? IFF_UP : 0, true);
    viewOf(info).setUint32(INFO.ifi_change, IFF_UP, true);
  }
  if (mtu !== undefined) attributes.push({ type: IFLA_MTU, value: u32(mtu) });
  if (queueFrames !== undefined) attributes.push({ type: IFLA_TXQLEN, value: u32(queueFrames) });
  if (mac !== undefined) attributes.push({ type: IFLA_ADDRESS, value: macBytes(mac) });
  if (name !== undefined) attributes.push(nameAttribute(name));
  if (master !== undefined) attributes.push({ type: IFLA_MASTER, value: u32(master ?? 0) });
  // Without a NUL: a length of 0 is what takes an alias away.
  if (alias !== undefined) attributes.push({ type: IFLA_IFALIAS, value: new TextEncoder().encode(alias) });
  if (addrGenModeNone !== undefined) {
    const value = u8(addrGenModeNone ? IN6_ADDR_GEN_MODE_NONE : IN6_ADDR_GEN_MODE_EUI64);
    const inet6 = { type: AF_INET6, value: [{ type: IFLA_INET6_ADDR_GEN_MODE, value }] };
    attributes.push({ type: IFLA_AF_SPEC, value: [inet6] });
  }
  const what = `set link ${index} ${describeChange(change)}`.trimEnd();
  socket.request({ type: RTM_SETLINK, body: encodeBody(info, attributes), what });
}

/** A link from the body of an RTM_NEWLINK or RTM_DELLINK. Throws EIO `netlink_malformed`. */
export function parseLink(body: Uint8Array): Link {
  const info = fixedPart(body, INFO.size);
  const attributes = parseAttributes(body, INFO.size);
  const name = readText(attributes.get(IFLA_IFNAME));
  const mtu = readU32(attributes.get(IFLA_MTU));
  if (name === undefined || mtu === undefined) throw malformed('a link has no name or no MTU');
  const flags = info.getUint32(INFO.ifi_flags, true);
  const carrier = readU8(attributes.get(IFLA_CARRIER));
  const details = attributes.get(IFLA_LINKINFO);
  const linkInfo = details && parseAttributes(details);
  const kind = linkInfo && readText(linkInfo.get(IFLA_INFO_KIND));
  const data = kind === 'tun' ? linkInfo?.get(IFLA_INFO_DATA) : undefined;
  return {
    index: info.getInt32(INFO.ifi_index, true),
    name,
    kind,
    mac: macText(attributes.get(IFLA_ADDRESS) ?? new Uint8Array()),
    mtu,
    flags,
    isUp: (flags & IFF_UP) !== 0,
    hasCarrier: carrier === undefined ? (flags & IFF_LOWER_UP) !== 0 : carrier !== 0,
    operState: operStates[readU8(attributes.get(IFLA_OPERSTATE)) ?? 0] ?? 'unknown',
    master: readU32(attributes.get(IFLA_MASTER)),
    linkIndex: readU32(attributes.get(IFLA_LINK)),
    queueFrames: readU32(attributes.get(IFLA_TXQLEN)) ?? 0,
    linkNamespaceId: readU32(attributes.get(IFLA_LINK_NETNSID)),
    alias: readText(attributes.get(IFLA_IFALIAS)),
    openQueues: data && readU32(parseAttributes(data).get(IFLA_TUN_NUM_QUEUES)),
    stats: parseStats(attributes),
  };
}

/** Bytes of an Ethernet address written with colons. Throws EINVAL `bad_mac`. */
export function macBytes(mac: string): Uint8Array {
  if (!/^[0-9a-f]{2}(:[0-9a-f]{2}){5}$/i.test(mac)) {
    const message = `'${mac.slice(0, 64)}' is not a MAC address such as 02:00:00:00:00:01`;
    throw new OverlayError('EINVAL', 'bad_mac', message);
  }
  return Uint8Array.from(mac.split(':'), (byte) => Number.parseInt(byte, 16));
}

/** Link-layer address of any length in hexadecimal with colons. */
export function macText(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join(':');
}

function create(
  socket: RequestSocket,
  kind: string,
  name: string,
  data: readonly Attribute[],
  attributes: readonly Attribute[],
): void {
  const details = [
    { type: IFLA_INFO_KIND, value: text(kind) },
    { type: IFLA_INFO_DATA, value: data },
  ];
  const all = [nameAttribute(name), ...attributes, { type: IFLA_LINKINFO, value: details }];
  const flags = NLM_F_CREATE | NLM_F_EXCL;
  const body = encodeBody(infoOf(0), all);
  socket.request({ type: RTM_NEWLINK, flags, body, what: `create ${kind} ${name}` });
}

/** struct ifinfomsg of a link; 0 is none. */
function infoOf(index: number): Uint8Array {
  const info = new Uint8Array(INFO.size);
  viewOf(info).setInt32(INFO.ifi_index, index, true);
  return info;
}

/** Throws EINVAL `bad_link_name`: the kernel would cut a name at its NUL, and work on another link. */
function nameAttribute(name: string): Attribute {
  const bytes = Buffer.byteLength(name);
  if (bytes === 0 || bytes > DEVICE_NAME_BYTES_MAX || name.includes('\0')) {
    const shown = JSON.stringify(name.slice(0, 64));
    const message = `${shown} cannot be a link's name: 1 to ${DEVICE_NAME_BYTES_MAX} bytes, none of them NUL`;
    throw new OverlayError('EINVAL', 'bad_link_name', message);
  }
  return { type: IFLA_IFNAME, value: text(name) };
}

function namespaceAttributes(fd: number | undefined, pid: number | undefined): Attribute[] {
  if (fd !== undefined) return [{ type: IFLA_NET_NS_FD, value: u32(fd) }];
  return pid === undefined ? [] : [{ type: IFLA_NET_NS_PID, value: u32(pid) }];
}

/** By id, where a request is not about the namespace of its socket. */
function targetAttributes(namespaceId: number | undefined): Attribute[] {
  return namespaceId === undefined ? [] : [{ type: IFLA_TARGET_NETNSID, value: u32(namespaceId) }];
}

/** A change in words, for errors: "up, mtu 1400". */
function describeChange({ up, ...rest }: LinkChange): string {
  const words = up === undefined ? [] : [up ? 'up' : 'down'];
  for (const [key, value] of Object.entries(rest)) if (value !== undefined) words.push(`${key} ${value}`);
  return words.join(', ');
}

function parseStats(attributes: Attributes): LinkStats {
  const bytes = attributes.get(IFLA_STATS64) ?? new Uint8Array(STATS_BYTES_MIN);
  if (bytes.length < STATS_BYTES_MIN) throw malformed('the counters of a link are cut short');
  const view = viewOf(bytes);
  const at = (offset: number) => view.getBigUint64(offset, true);
  return {
    rxPackets: at(STATS.rx_packets),
    rxBytes: at(STATS.rx_bytes),
    rxDropped: at(STATS.rx_dropped),
    rxErrors: at(STATS.rx_errors),
    txPackets: at(STATS.tx_packets),
    txBytes: at(STATS.tx_bytes),
    txDropped: at(STATS.tx_dropped),
    txErrors: at(STATS.tx_errors),
  };
}
