/**
 * Proxy NDP: neighbour solicitations of guests, answered in the name of the owner (RFC 4861, RFC 4862). The
 * message, behind the Ethernet header; options follow, each a type, a length in units of 8 bytes, and its
 * content:
 *
 *   IPv6:    0 version, class   4 payload length   6 next header   7 hop limit   8 source   24 destination
 *   ICMPv6: 40 type   41 code   42 checksum   44 flags   48 target   64 options
 *
 * As with ARP, what the sender says of its link-layer address must be what the frame says.
 *
 * Duplicate address detection asks from the unspecified address, and any answer takes the address away from
 * the asker. So only the truth is told: that another MAC has it. When the asker itself or nobody has it,
 * silence.
 */
import { assert } from '../../errors.js';
import { familyOf, ipNativeBytes, parseIp } from '../../ip.js';
import { isGroupMac, macAt, macBytes } from '../../target/mac.js';
import { hasBytes, putUint16, uint16At } from './bytes.js';
import { onesComplementSum } from './checksum.js';
import {
  ETHERTYPE_IPV6,
  type EthernetHeader,
  ethernetHeader,
  isStationMac,
  joined,
  parseProxied,
  readdressed,
} from './ethernet.js';

const IPV6_BYTES = 40;
const PAYLOAD_LENGTH_AT = 4;
const NEXT_HEADER_AT = 6;
const HOP_LIMIT_AT = 7;
const SOURCE_AT = 8;
const DESTINATION_AT = 24;
const TYPE_AT = 40;
const CODE_AT = 41;
const CHECKSUM_AT = 42;
const FLAGS_AT = 44;
const TARGET_AT = 48;
const OPTIONS_AT = 64;

const ICMPV6 = 58;
/** Nobody off the link can send it: routers would have counted it down (RFC 4861 section 3.1). */
const HOP_LIMIT = 255;
const SOLICITATION = 135;
const ADVERTISEMENT = 136;
const SOLICITATION_BYTES_MIN = 24;
const ADVERTISEMENT_BYTES = 32;
const OPTION_SOURCE_MAC = 1;
const OPTION_TARGET_MAC = 2;
const OPTION_UNIT_BYTES = 8;
const FLAG_SOLICITED = 0x40;
const FLAG_OVERRIDE = 0x20;

const UNSPECIFIED = new Uint8Array(16);
const LOOPBACK = Uint8Array.of(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1);
const MAPPED_PREFIX = Uint8Array.of(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff);
const SOLICITED_NODE_PREFIX = Uint8Array.of(0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff);
const ALL_NODES = Uint8Array.of(0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1);
/** RFC 2464 section 7: the last 32 bits of an IPv6 group follow 33:33. */
const GROUP_MAC_BASE = 0x3333 * 2 ** 32;
const ALL_NODES_MAC = GROUP_MAC_BASE + 1;

export interface Solicitation {
  /** Whose MAC address is wanted: canonical IPv6 text. */
  readonly ip: string;
  /** Who asks: MAC address, and canonical IPv6 text; `::` under duplicate address detection. */
  readonly asker: number;
  readonly askerIp: string;
  /** The asker wants to know whether `ip` is free (RFC 4862 section 5.4). */
  readonly isDad: boolean;
  /** VLAN id of the outer tag, 0 when untagged. */
  readonly vlan: number;
  /** Where the IPv6 header begins in the frame. */
  readonly headerBytes: number;
}

/**
 * The neighbour solicitation in a frame, or undefined when there is none to be answered: all checks of RFC
 * 4861 section 7.1.1, and those on addresses below.
 *
 * @param isChecksumUnfinished the frame's vnet_hdr has NEEDS_CSUM: a local kernel or guest may have left the
 * pseudo-header's sum alone in the checksum field; that passes too
 */
export function parseSolicitation(
  frame: Uint8Array,
  { isChecksumUnfinished }: { isChecksumUnfinished: boolean } = { isChecksumUnfinished: false },
): Solicitation | undefined {
  const header = parseProxied(frame, ETHERTYPE_IPV6);
  if (!header) return undefined;
  const packet = frame.subarray(header.headerBytes);
  if (packet.length < OPTIONS_AT) return undefined;
  if (packet[0]! >> 4 !== 6) return undefined;
  // Directly: nobody puts extension headers before a solicitation, and RFC 6980 forbids fragments.
  if (packet[NEXT_HEADER_AT] !== ICMPV6 || packet[HOP_LIMIT_AT] !== HOP_LIMIT) return undefined;
  const messageBytes = uint16At(packet, PAYLOAD_LENGTH_AT);
  if (messageBytes < SOLICITATION_BYTES_MIN || messageBytes > packet.length - IPV6_BYTES) return undefined;
  // Behind the message there may be padding.
  const message = packet.subarray(0, IPV6_BYTES + messageBytes);
  if (message[TYPE_AT] !== SOLICITATION || message[CODE_AT] !== 0) return undefined;
  if (!hasGoodChecksum(message, isChecksumUnfinished)) return undefined;
  if (!hasGoodAddresses(message, header)) return undefined;
  const isDad = hasBytes(message, SOURCE_AT, UNSPECIFIED);
  const options = parseOptions(message, header.source);
  if (!options) return undefined;
  // RFC 4861 sections 4.3 and 7.1.1: never under DAD, else always to a group, at will to one.
  const isMulticast = message[DESTINATION_AT] === 0xff;
  if (isDad ? options.hasSourceMac : isMulticast && !options.hasSourceMac) return undefined;
  return {
    ip: ipv6At(message, TARGET_AT),
    asker: header.source,
    askerIp: ipv6At(message, SOURCE_AT),
    isDad,
    vlan: header.vlan,
    headerBytes: header.headerBytes,
  };
}

/**
 * The answer to a solicitation: `mac` has the address (RFC 4861 section 7.2.4). To the asker, Solicited;
 * under duplicate address detection to all nodes, not Solicited. Override in both: the plugin knows. A new
 * frame with the solicitation's VLAN tags. Undefined when silence is right: `mac` is no interface's address,
 * or the asker's.
 *
 * @param frame the one that `solicitation` was parsed from, unchanged
 */
export function advertisement(
  frame: Uint8Array,
  solicitation: Solicitation,
  mac: number,
): Uint8Array | undefined {
  const { headerBytes, asker, isDad } = solicitation;
  if (!isStationMac(mac) || mac === asker) return undefined;
  const addressAt = (at: number) => frame.slice(headerBytes + at, headerBytes + at + 16);
  return joined(
    readdressed(frame, { headerBytes, destination: isDad ? ALL_NODES_MAC : asker, source: mac }),
    advertisementPacket({
      target: addressAt(TARGET_AT),
      destination: isDad ? ALL_NODES : addressAt(SOURCE_AT),
      flags: isDad ? FLAG_OVERRIDE : FLAG_SOLICITED | FLAG_OVERRIDE,
      mac,
    }),
  );
}

/**
 * Tells all who hear it that `ip` is at `mac` (RFC 4861 section 7.2.6). 86 bytes, or 90 with a tag for a
 * `vlan` that is not 0.
 *
 * @param announced `ip` is canonical IPv6 text, `vlan` 0 to 4094
 */
export function unsolicitedAdvertisement(announced: { mac: number; ip: string; vlan: number }): Uint8Array {
  const { mac, ip, vlan } = announced;
  assert(familyOf(ip) === 6, `${ip} cannot be announced by NDP`);
  return joined(
    ethernetHeader({ destination: ALL_NODES_MAC, source: mac, vlan, etherType: ETHERTYPE_IPV6 }),
    advertisementPacket({ target: ipNativeBytes(ip), destination: ALL_NODES, flags: FLAG_OVERRIDE, mac }),
  );
}

/** IPv6 header from the target's address, ICMPv6 message, and the option with its MAC address. */
function advertisementPacket(fields: {
  target: Uint8Array;
  destination: Uint8Array;
  flags: number;
  mac: number;
}): Uint8Array {
  const packet = new Uint8Array(IPV6_BYTES + ADVERTISEMENT_BYTES);
  packet[0] = 6 << 4;
  putUint16(packet, PAYLOAD_LENGTH_AT, ADVERTISEMENT_BYTES);
  packet[NEXT_HEADER_AT] = ICMPV6;
  packet[HOP_LIMIT_AT] = HOP_LIMIT;
  packet.set(fields.target, SOURCE_AT);
  packet.set(fields.destination, DESTINATION_AT);
  packet[TYPE_AT] = ADVERTISEMENT;
  packet[FLAGS_AT] = fields.flags;
  packet.set(fields.target, TARGET_AT);
  packet[OPTIONS_AT] = OPTION_TARGET_MAC;
  packet[OPTIONS_AT + 1] = 1;
  packet.set(macBytes(fields.mac), OPTIONS_AT + 2);
  putUint16(packet, CHECKSUM_AT, 0xffff - messageSum(packet));
  return packet;
}

/** Sum of the pseudo-header (RFC 8200 section 8.1): both addresses, length, protocol. */
function pseudoHeaderSum(packet: Uint8Array): number {
  return onesComplementSum(packet, SOURCE_AT, IPV6_BYTES, packet.length - IPV6_BYTES + ICMPV6);
}

function messageSum(packet: Uint8Array): number {
  return onesComplementSum(packet, IPV6_BYTES, packet.length, pseudoHeaderSum(packet));
}

function hasGoodChecksum(packet: Uint8Array, mayBeUnfinished: boolean): boolean {
  if (messageSum(packet) === 0xffff) return true;
  return mayBeUnfinished && uint16At(packet, CHECKSUM_AT) === pseudoHeaderSum(packet);
}

function hasGoodAddresses(packet: Uint8Array, { destination }: EthernetHeader): boolean {
  if (!isHostIp(packet, TARGET_AT)) return false;
  const isDad = hasBytes(packet, SOURCE_AT, UNSPECIFIED);
  if (!isDad && !isHostIp(packet, SOURCE_AT)) return false;
  const target = packet.subarray(TARGET_AT, TARGET_AT + 16);
  // As with an ARP announcement: an answer would take the sender's own address away.
  if (hasBytes(packet, SOURCE_AT, target)) return false;
  if (packet[DESTINATION_AT] === 0xff) {
    if (!isGoodGroup(packet, target, isDad)) return false;
  } else if (isDad || !hasBytes(packet, DESTINATION_AT, target)) {
    return false;
  }
  // A frame to one interface may carry a packet to a group (RFC 6085). One to a group carries nothing else.
  if (!isGroupMac(destination)) return true;
  const groupBits = uint16At(packet, DESTINATION_AT + 12) * 0x10000 + uint16At(packet, DESTINATION_AT + 14);
  return packet[DESTINATION_AT] === 0xff && destination === GROUP_MAC_BASE + groupBits;
}

/**
 * The target's solicited-node group, or without DAD another of link-local scope; never that of another
 * address.
 */
function isGoodGroup(packet: Uint8Array, target: Uint8Array, isDad: boolean): boolean {
  if (hasBytes(packet, DESTINATION_AT, SOLICITED_NODE_PREFIX)) {
    return hasBytes(packet, DESTINATION_AT + 13, target.subarray(13));
  }
  return !isDad && (packet[DESTINATION_AT + 1]! & 0x0f) === 2;
}

/** False for what no interface on a link has: unspecified, loopback, multicast, IPv4-mapped. */
function isHostIp(packet: Uint8Array, at: number): boolean {
  if (packet[at] === 0xff) return false;
  return [UNSPECIFIED, LOOPBACK, MAPPED_PREFIX].every((bytes) => !hasBytes(packet, at, bytes));
}

/**
 * The options up to the end of the packet, or undefined when one is bad: of length zero, longer than what is
 * left, or a source link-layer address that is not 6 bytes or not `asker`. Each takes 8 bytes or more, which
 * bounds the loop.
 */
function parseOptions(packet: Uint8Array, asker: number): { hasSourceMac: boolean } | undefined {
  let hasSourceMac = false;
  let at = OPTIONS_AT;
  while (at < packet.length) {
    if (packet.length - at < OPTION_UNIT_BYTES) return undefined;
    const type = packet[at];
    const optionBytes = packet[at + 1]! * OPTION_UNIT_BYTES;
    if (optionBytes === 0 || optionBytes > packet.length - at) return undefined;
    if (type === OPTION_SOURCE_MAC) {
      if (optionBytes !== OPTION_UNIT_BYTES || macAt(packet, at + 2) !== asker) return undefined;
      hasSourceMac = true;
    }
    at += optionBytes;
  }
  return { hasSourceMac };
}

function ipv6At(packet: Uint8Array, at: number): string {
  const groups = Array.from({ length: 8 }, (_, i) => uint16At(packet, at + 2 * i).toString(16));
  return parseIp(groups.join(':'));
}
