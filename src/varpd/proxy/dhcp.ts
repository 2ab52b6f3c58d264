/**
 * Proxy DHCP: a guest's broadcast to any DHCP server (RFC 2131) goes to one given server by its MAC address
 * instead. Nothing above Ethernet changes; the server answers by unicast. The packet, behind the Ethernet
 * header:
 *
 *   IPv4:   0 version, header length   2 total length   6 fragment   9 protocol
 *   UDP:    0 source port   2 destination port   4 length
 *   BOOTP:  0 operation   1 hardware type   2 hardware length   4 transaction   28 client MAC   236 cookie
 *
 * Checksums are left to the server: a guest or local kernel may have left that of UDP unfinished, to be
 * filled in on the way out.
 */
import { BROADCAST, macAt, macBytes } from '../../target/mac.js';
import { hasBytes, uint16At } from './bytes.js';
import { ETHERTYPE_IPV4, isStationMac, parseEthernet, parseProxied } from './ethernet.js';

const IPV4_BYTES_MIN = 20;
const UDP = 17;
const UDP_BYTES = 8;
const CLIENT_PORT = 68;
const SERVER_PORT = 67;
const REQUEST = 1;
/** Hardware type and length of Ethernet. */
const ETHERNET = [1, 6];
const TRANSACTION_AT = 4;
const CLIENT_MAC_AT = 28;
const COOKIE_AT = 236;
const COOKIE = [0x63, 0x82, 0x53, 0x63];
/**
 * The fixed fields and the cookie. BOOTP had 64 bytes of vendor area, 300 bytes in all (RFC 951), and illumos
 * asks for these; in DHCP options are of any length (RFC 2131 section 2), and clients that do not pad send
 * less.
 */
const MESSAGE_BYTES_MIN = COOKIE_AT + COOKIE.length;
const DATAGRAM_BYTES_MIN = UDP_BYTES + MESSAGE_BYTES_MIN;

export interface DhcpRequest {
  /** Who asks: MAC address of the frame. */
  readonly asker: number;
  /** The client's, as the message says (chaddr). */
  readonly client: number;
  /** The client's number for the exchange (xid), 0 to 2^32 - 1. */
  readonly transaction: number;
  /** VLAN id of the outer tag, 0 when untagged. */
  readonly vlan: number;
}

/** The request of a DHCP or BOOTP client in a broadcast frame, or undefined when there is none. */
export function parseDhcpRequest(frame: Uint8Array): DhcpRequest | undefined {
  const header = parseProxied(frame, ETHERTYPE_IPV4);
  if (!header || header.destination !== BROADCAST) return undefined;
  const datagram = udpDatagram(frame.subarray(header.headerBytes));
  if (!datagram) return undefined;
  if (uint16At(datagram, 0) !== CLIENT_PORT || uint16At(datagram, 2) !== SERVER_PORT) return undefined;
  const message = datagram.subarray(UDP_BYTES);
  if (message[0] !== REQUEST || !hasBytes(message, 1, ETHERNET)) return undefined;
  if (!hasBytes(message, COOKIE_AT, COOKIE)) return undefined;
  return {
    asker: header.source,
    client: macAt(message, CLIENT_MAC_AT),
    transaction: uint16At(message, TRANSACTION_AT) * 0x10000 + uint16At(message, TRANSACTION_AT + 2),
    vlan: header.vlan,
  };
}

/**
 * A copy of the request's frame to the server's MAC address, otherwise the same. Undefined when it must not
 * be sent: to a group it would come back to the proxy for ever, and to its own sender it has nowhere to go.
 */
export function dhcpRequestTo(frame: Uint8Array, serverMac: number): Uint8Array | undefined {
  const header = parseEthernet(frame);
  if (!header || !isStationMac(serverMac) || serverMac === header.source) return undefined;
  const copy = frame.slice();
  copy.set(macBytes(serverMac), 0);
  return copy;
}

/**
 * The UDP datagram, header first, of an IPv4 packet that is no fragment. Undefined when there is none, it is
 * cut, or it has no room for a message.
 */
function udpDatagram(packet: Uint8Array): Uint8Array | undefined {
  // Long enough for every read below, whatever the header length.
  if (packet.length < IPV4_BYTES_MIN + DATAGRAM_BYTES_MIN) return undefined;
  if (packet[0]! >> 4 !== 4 || packet[9] !== UDP) return undefined;
  const headerBytes = (packet[0]! & 0x0f) * 4;
  const totalBytes = uint16At(packet, 2);
  if (headerBytes < IPV4_BYTES_MIN || totalBytes > packet.length) return undefined;
  // More fragments, or an offset; the bit for "don't" may be set.
  if ((uint16At(packet, 6) & 0x3fff) !== 0) return undefined;
  const datagramBytes = uint16At(packet, headerBytes + 4);
  if (datagramBytes < DATAGRAM_BYTES_MIN || datagramBytes > totalBytes - headerBytes) return undefined;
  return packet.subarray(headerBytes, headerBytes + datagramBytes);
}
