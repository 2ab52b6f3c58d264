/**
 * Proxy ARP: requests of guests, answered in the name of the owner (RFC 826, RFC 5227). The packet, behind
 * the Ethernet header:
 *
 *    0 hardware type   2 protocol type   4 hardware length   5 protocol length   6 operation
 *    8 sender MAC     14 sender IP      18 target MAC       24 target IP        28 end
 *
 * What a sender says of itself is believed as little as possible. Its MAC address in the packet must be the
 * frame's source: RFC 826 has one host write both, plugins decide by the frame's source, and an answer that
 * carried a second address would be thrown away by ARP inspection in front of a guest, or would teach it a
 * false pair. Its IP address only comes back to it; hosts learn from the sender fields alone, and in our
 * answers those are the plugin's.
 */
import { assert } from '../../errors.js';
import { familyOf, ipNativeBytes } from '../../ip.js';
import { BROADCAST, macAt, macBytes } from '../../target/mac.js';
import { hasBytes, putUint16, uint16At } from './bytes.js';
import {
  ETHERTYPE_ARP,
  ethernetHeader,
  isStationMac,
  joined,
  parseProxied,
  readdressed,
} from './ethernet.js';

const PACKET_BYTES = 28;
const OPERATION_AT = 6;
const SENDER_MAC_AT = 8;
const SENDER_IP_AT = 14;
const TARGET_MAC_AT = 18;
const TARGET_IP_AT = 24;
/** Ethernet, IPv4, and the lengths of their addresses. */
const ETHERNET_IPV4 = [0, 1, 8, 0, 6, 4];
const REQUEST = 1;
const REPLY = 2;
const UNSPECIFIED = '0.0.0.0';

export interface ArpRequest {
  /** Whose MAC address is wanted: canonical IPv4 text. */
  readonly ip: string;
  /** Who asks: MAC address, and IPv4 text; `0.0.0.0` in a probe. */
  readonly asker: number;
  readonly askerIp: string;
  /** The asker wants to know whether `ip` is free (RFC 5227 section 2.1.1). */
  readonly isProbe: boolean;
  /** VLAN id of the outer tag, 0 when untagged. */
  readonly vlan: number;
  /** Where the packet begins in the frame. */
  readonly headerBytes: number;
}

/**
 * The request in a frame, or undefined when there is none to be answered. Announcements (sender and target
 * the same) are not: an answer would tell the sender that its address is taken. Probes are, so that a guest
 * learns it where it is true. Unicast requests are answered too: they are polls of a cache entry (RFC 1122
 * section 2.3.2.1).
 */
export function parseArpRequest(frame: Uint8Array): ArpRequest | undefined {
  const header = parseProxied(frame, ETHERTYPE_ARP);
  if (!header) return undefined;
  const { headerBytes, source: asker, vlan } = header;
  if (frame.length - headerBytes < PACKET_BYTES) return undefined;
  if (!hasBytes(frame, headerBytes, ETHERNET_IPV4)) return undefined;
  if (uint16At(frame, headerBytes + OPERATION_AT) !== REQUEST) return undefined;
  if (macAt(frame, headerBytes + SENDER_MAC_AT) !== asker) return undefined;
  const askerIp = ipv4At(frame, headerBytes + SENDER_IP_AT);
  const ip = ipv4At(frame, headerBytes + TARGET_IP_AT);
  if (ip === askerIp || !isHostIp(ip)) return undefined;
  const isProbe = askerIp === UNSPECIFIED;
  if (!isProbe && !isHostIp(askerIp)) return undefined;
  return { ip, asker, askerIp, isProbe, vlan, headerBytes };
}

/**
 * The answer to the request in `frame`: `mac` has the address. A new frame of header and packet, with the
 * request's VLAN tags and without its padding. Undefined when silence is right: `frame` holds no request to
 * be answered, `mac` is no interface's address, or it is the asker's. That would tell a guest that probes
 * that its own address is taken, and a bridge before it that the guest lives on our side.
 */
export function arpReply(frame: Uint8Array, mac: number): Uint8Array | undefined {
  const request = parseArpRequest(frame);
  if (!request || !isStationMac(mac) || mac === request.asker) return undefined;
  const { headerBytes, asker } = request;
  const ipOf = (at: number) => frame.slice(headerBytes + at, headerBytes + at + 4);
  return joined(
    readdressed(frame, { headerBytes, destination: asker, source: mac }),
    packet({
      operation: REPLY,
      senderMac: mac,
      senderIp: ipOf(TARGET_IP_AT),
      targetMac: asker,
      targetIp: ipOf(SENDER_IP_AT),
    }),
  );
}

/**
 * Tells all who hear it that `ip` is at `mac` (RFC 5227 section 2.3, in the form of illumos: a broadcast
 * request whose target MAC is broadcast too). 42 bytes, or 46 with a tag for a `vlan` that is not 0.
 *
 * @param announced `ip` is canonical IPv4 text, `vlan` 0 to 4094
 */
export function gratuitousArp(announced: { mac: number; ip: string; vlan: number }): Uint8Array {
  const { mac, ip, vlan } = announced;
  assert(familyOf(ip) === 4, `${ip} cannot be announced by ARP`);
  const ipBytes = ipNativeBytes(ip);
  return joined(
    ethernetHeader({ destination: BROADCAST, source: mac, vlan, etherType: ETHERTYPE_ARP }),
    packet({
      operation: REQUEST,
      senderMac: mac,
      senderIp: ipBytes,
      targetMac: BROADCAST,
      targetIp: ipBytes,
    }),
  );
}

function packet(fields: {
  operation: number;
  senderMac: number;
  senderIp: Uint8Array;
  targetMac: number;
  targetIp: Uint8Array;
}): Uint8Array {
  const bytes = new Uint8Array(PACKET_BYTES);
  bytes.set(ETHERNET_IPV4, 0);
  putUint16(bytes, OPERATION_AT, fields.operation);
  bytes.set(macBytes(fields.senderMac), SENDER_MAC_AT);
  bytes.set(fields.senderIp, SENDER_IP_AT);
  bytes.set(macBytes(fields.targetMac), TARGET_MAC_AT);
  bytes.set(fields.targetIp, TARGET_IP_AT);
  return bytes;
}

function ipv4At(frame: Uint8Array, at: number): string {
  return `${frame[at]}.${frame[at + 1]}.${frame[at + 2]}.${frame[at + 3]}`;
}

/**
 * False for what no host has on a wire: unspecified, loopback, multicast, broadcast (RFC 1122 section
 * 3.2.1.3).
 */
function isHostIp(ip: string): boolean {
  const first = Number.parseInt(ip, 10);
  const isMulticast = first >= 224 && first <= 239;
  return ip !== UNSPECIFIED && first !== 127 && !isMulticast && ip !== '255.255.255.255';
}
