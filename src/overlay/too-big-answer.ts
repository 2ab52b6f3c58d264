/**
 * What the sender of a frame that is too big is told, in the name of whom it sent to, since there is no router between them:
 * ICMP "fragmentation needed" (RFC 792, RFC 1191 section 4) or ICMPv6 "packet too big" (RFC 4443 section 3.2). Nobody is told of
 * ICMP errors, of fragments but the first (RFC 1122 section 3.2.2), of what comes from or goes to no single station.
 */
import { isGroupMac } from '../target/mac.js';
import { putUint16, uint16At } from '../varpd/proxy/bytes.js';
import { onesComplementSum } from '../varpd/proxy/checksum.js';
import {
  ETHERTYPE_IPV4,
  ETHERTYPE_IPV6,
  type EthernetHeader,
  isStationMac,
  joined,
  parseEthernet,
  readdressed,
} from '../varpd/proxy/ethernet.js';

const IPV4_BYTES = 20;
const IPV6_BYTES = 40;
const ICMP_BYTES = 8;
const TTL = 64;
const ICMP = 1;
const ICMPV6 = 58;
const DESTINATION_UNREACHABLE = 3;
const FRAGMENTATION_NEEDED = 4;
const PACKET_TOO_BIG = 2;
/** RFC 1812 section 4.3.2.3: as much as fits in 576 bytes. */
const ICMP_PACKET_BYTES_MAX = 576;
/** RFC 4443 section 3.2: as much as fits in the least that every way takes, which is as small as it gets, too. */
const IPV6_MTU_MIN = 1280;
/** RFC 791: what every way takes. */
const IPV4_MTU_MIN = 68;
const DONT_FRAGMENT = 0x4000;
const FRAGMENT_OFFSET = 0x1fff;
/** Destination unreachable, source quench, redirect, time exceeded, parameter problem. */
const icmpErrors: readonly number[] = [3, 4, 5, 11, 12];
/** RFC 4443 section 2.1: errors are below; a redirect is answered no more than they are. */
const ICMPV6_INFORMATIONAL = 128;
const ICMPV6_REDIRECT = 137;
const FRAGMENT = 44;
const HOP_BY_HOP = 0;
const ROUTING = 43;
const DESTINATION_OPTIONS = 60;
const EXTENSIONS_MAX = 6;

/**
 * The frame for its sender, or undefined when nobody is to be told.
 *
 * @param head beginning of the frame, from its Ethernet header on
 * @param mtuFor largest IP packet that may pass, behind an Ethernet header of so many bytes
 */
export function tooBigAnswer(
  head: Uint8Array,
  mtuFor: (ethernetBytes: number) => number,
): Uint8Array | undefined {
  const header = parseEthernet(head);
  if (!header || !isStationMac(header.source) || isGroupMac(header.destination)) return undefined;
  const packet = head.subarray(header.headerBytes);
  const mtu = mtuFor(header.headerBytes);
  const answer =
    header.etherType === ETHERTYPE_IPV4
      ? answer4(packet, mtu)
      : header.etherType === ETHERTYPE_IPV6
        ? answer6(packet, mtu)
        : undefined;
  return answer && joined(back(head, header), answer);
}

/** The Ethernet header of a frame back to its sender, tags and all. */
function back(head: Uint8Array, { headerBytes, source, destination }: EthernetHeader): Uint8Array {
  return readdressed(head, { headerBytes, destination: source, source: destination });
}

function answer4(packet: Uint8Array, mtu: number): Uint8Array | undefined {
  if (packet.length < IPV4_BYTES || packet[0]! >> 4 !== 4) return undefined;
  const headerBytes = (packet[0]! & 15) * 4;
  // With less than eight bytes behind the header the sender could not tell whose it is.
  if (headerBytes < IPV4_BYTES || packet.length < headerBytes + ICMP_BYTES) return undefined;
  const fragment = uint16At(packet, 6);
  if ((fragment & DONT_FRAGMENT) === 0 || (fragment & FRAGMENT_OFFSET) !== 0) return undefined;
  if (packet[9] === ICMP && icmpErrors.includes(packet[headerBytes]!)) return undefined;
  const [source, destination] = [packet.subarray(12, 16), packet.subarray(16, 20)];
  if (!isStation4(source) || !isStation4(destination)) return undefined;
  if (mtu < IPV4_MTU_MIN || uint16At(packet, 2) <= mtu) return undefined;
  const quoted = packet.subarray(0, ICMP_PACKET_BYTES_MAX - IPV4_BYTES - ICMP_BYTES);
  const answer = new Uint8Array(IPV4_BYTES + ICMP_BYTES + quoted.length);
  answer[0] = 0x45;
  // RFC 1812 section 4.3.2.5: internetwork control.
  answer[1] = 0xc0;
  putUint16(answer, 2, answer.length);
  answer[8] = TTL;
  answer[9] = ICMP;
  answer.set(destination, 12);
  answer.set(source, 16);
  putUint16(answer, 10, 0xffff - onesComplementSum(answer, 0, IPV4_BYTES));
  answer[IPV4_BYTES] = DESTINATION_UNREACHABLE;
  answer[IPV4_BYTES + 1] = FRAGMENTATION_NEEDED;
  putUint16(answer, IPV4_BYTES + 6, Math.min(mtu, 0xffff));
  answer.set(quoted, IPV4_BYTES + ICMP_BYTES);
  putUint16(answer, IPV4_BYTES + 2, 0xffff - onesComplementSum(answer, IPV4_BYTES, answer.length));
  return answer;
}

/** Not 0.0.0.0/8, not a group or the broadcast address, not loopback. */
function isStation4([first]: Uint8Array): boolean {
  return first! > 0 && first! < 224 && first !== 127;
}

function answer6(packet: Uint8Array, mtu: number): Uint8Array | undefined {
  if (packet.length < IPV6_BYTES || packet[0]! >> 4 !== 6) return undefined;
  // Nobody may send less (RFC 8201 section 4): one told so would go on as it is.
  if (mtu < IPV6_MTU_MIN || uint16At(packet, 4) + IPV6_BYTES <= mtu) return undefined;
  if (isUnanswered6(packet)) return undefined;
  const [source, destination] = [packet.subarray(8, 24), packet.subarray(24, 40)];
  if (!isStation6(source) || !isStation6(destination)) return undefined;
  const quoted = packet.subarray(0, IPV6_MTU_MIN - IPV6_BYTES - ICMP_BYTES);
  const bytes = ICMP_BYTES + quoted.length;
  const answer = new Uint8Array(IPV6_BYTES + bytes);
  answer[0] = 0x60;
  putUint16(answer, 4, bytes);
  answer[6] = ICMPV6;
  answer[7] = TTL;
  answer.set(destination, 8);
  answer.set(source, 24);
  answer[IPV6_BYTES] = PACKET_TOO_BIG;
  putUint16(answer, IPV6_BYTES + 6, Math.min(mtu, 0xffff));
  answer.set(quoted, IPV6_BYTES + ICMP_BYTES);
  // RFC 8200 section 8.1: addresses, length and protocol count too.
  const pseudo = onesComplementSum(answer, 8, IPV6_BYTES, bytes + ICMPV6);
  putUint16(answer, IPV6_BYTES + 2, 0xffff - onesComplementSum(answer, IPV6_BYTES, answer.length, pseudo));
  return answer;
}

/** It is an ICMPv6 error or a redirect, or what there is does not say. */
function isUnanswered6(packet: Uint8Array): boolean {
  let next = packet[6]!;
  let at = IPV6_BYTES;
  for (let walked = 0; walked < EXTENSIONS_MAX; walked++) {
    if (next !== FRAGMENT && ![HOP_BY_HOP, ROUTING, DESTINATION_OPTIONS].includes(next)) break;
    if (at + 8 > packet.length) return true;
    if (next === FRAGMENT && uint16At(packet, at + 2) >> 3 !== 0) return true;
    const bytes = next === FRAGMENT ? 8 : (packet[at + 1]! + 1) * 8;
    next = packet[at]!;
    at += bytes;
  }
  if (next !== ICMPV6) return false;
  if (at >= packet.length) return true;
  return packet[at]! < ICMPV6_INFORMATIONAL || packet[at] === ICMPV6_REDIRECT;
}

/** Neither a group, nor the unspecified or the loopback address. */
function isStation6(address: Uint8Array): boolean {
  const isLow = address.subarray(0, 15).every((byte) => byte === 0);
  return address[0] !== 0xff && !(isLow && address[15]! <= 1);
}
