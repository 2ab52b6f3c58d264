/** IP addresses as text in one canonical form, so that equal addresses are equal strings. */
import { isIPv4, isIPv6 } from 'node:net';
import ipaddr from 'ipaddr.js';
import { OverlayError } from './errors.js';

export type Family = 4 | 6;

/**
 * Canonical text of an IPv4 or IPv6 address; IPv4-mapped IPv6 becomes IPv4. Throws EINVAL for anything else
 * (a host name, a prefix, a zone, the short and octal IPv4 forms of inet_aton).
 */
export function parseIp(text: string): string {
  if (isIPv4(text)) return text;
  if (isIPv6(text) && !text.includes('%')) {
    const address = ipaddr.IPv6.parse(hexTail(text));
    return address.isIPv4MappedAddress() ? address.toIPv4Address().toString() : address.toRFC5952String();
  }
  throw new OverlayError('EINVAL', 'bad_address', `'${text}' is not an IPv4 or IPv6 address`);
}

/** An IPv4 tail as two groups: ipaddr.js would take `::192.0.2.1` for IPv4-mapped, which it is not. */
function hexTail(ip: string): string {
  return ip.replace(/(\d+)\.(\d+)\.(\d+)\.(\d+)$/, (_, ...octets: string[]) => {
    const [a, b, c, d] = octets.slice(0, 4).map(Number);
    return `${(a! * 256 + b!).toString(16)}:${(c! * 256 + d!).toString(16)}`;
  });
}

/** Family of a canonical address. */
export function familyOf(ip: string): Family {
  return ip.includes(':') ? 6 : 4;
}

/** 16 bytes, IPv4 as IPv4-mapped (RFC 4291 section 2.5.5.2): the form of illumos' targets. */
export function ipBytes(ip: string): Uint8Array {
  const address = ipaddr.parse(ip);
  const v6 = address.kind() === 'ipv4' ? (address as ipaddr.IPv4).toIPv4MappedAddress() : address;
  return Uint8Array.from(v6.toByteArray());
}

/** The reverse of `ipBytes`: canonical text of 16 bytes. */
export function ipOfBytes(bytes: Uint8Array): string {
  return parseIp(ipaddr.fromByteArray([...bytes]).toString());
}

/** 4 bytes of an IPv4 address or 16 of an IPv6 one. */
export function ipNativeBytes(ip: string): Uint8Array {
  return Uint8Array.from(ipaddr.parse(ip).toByteArray());
}

/** True for a group address: 224.0.0.0/4 or ff00::/8. */
export function isMulticast(ip: string): boolean {
  const bytes = ipBytes(ip);
  return familyOf(ip) === 4 ? bytes[12]! >= 224 && bytes[12]! <= 239 : bytes[0] === 0xff;
}

/** Why an address cannot be that of a tunnel endpoint of ours or of a peer, or undefined when it can. */
export function endpointFault(ip: string, allowMulticast: boolean): string | undefined {
  if (isMulticast(ip) && !allowMulticast) return 'it is a multicast address';
  if (familyOf(ip) === 4) return undefined;
  const bytes = ipBytes(ip);
  if (bytes[0] === 0x20 && bytes[1] === 0x02) return 'it is a 6to4 address (2002::/16)';
  const isCompatible = bytes.subarray(0, 12).every((byte) => byte === 0);
  const tail = new DataView(bytes.buffer).getUint32(12);
  if (isCompatible && tail > 1) return 'it is an IPv4-compatible address (::/96)';
  return undefined;
}

/** An address and port as people write them, IPv6 in brackets. */
export function formatEndpoint(ip: string, port: number): string {
  if (port === 0) return ip;
  return familyOf(ip) === 6 ? `[${ip}]:${port}` : `${ip}:${port}`;
}
