/** struct sockaddr_in and sockaddr_in6 (man 7 ip, ipv6). */
import ipaddr from 'ipaddr.js';
import { OverlayError } from '../errors.js';
import { familyOf, ipBytes, ipNativeBytes, parseIp } from '../ip.js';
import { AF_INET, AF_INET6, structs } from './abi.js';

/**
 * Socket address of a canonical IP address. `domain` is the socket's: on an AF_INET6 socket IPv4 is written
 * as IPv4-mapped IPv6.
 */
export function sockaddr(domain: number, ip: string, port: number): Uint8Array {
  if (domain === AF_INET) {
    if (familyOf(ip) !== 4) {
      throw new OverlayError('EAFNOSUPPORT', 'no_ipv6', `this kernel has no IPv6, so ${ip} cannot be used`);
    }
    const { size, sin_family, sin_port, sin_addr } = structs.sockaddr_in;
    const bytes = new Uint8Array(size);
    const view = new DataView(bytes.buffer);
    view.setUint16(sin_family, AF_INET, true);
    view.setUint16(sin_port, port, false);
    bytes.set(ipNativeBytes(ip), sin_addr);
    return bytes;
  }
  const { size, sin6_family, sin6_port, sin6_addr } = structs.sockaddr_in6;
  const bytes = new Uint8Array(size);
  const view = new DataView(bytes.buffer);
  view.setUint16(sin6_family, AF_INET6, true);
  view.setUint16(sin6_port, port, false);
  bytes.set(ipBytes(ip), sin6_addr);
  return bytes;
}

/** Canonical IP address and port of a socket address, an IPv4-mapped one as IPv4; undefined for another kind. */
export function endpointOf(name: Uint8Array): { ip: string; port: number } | undefined {
  if (name.length < 2) return undefined;
  const view = new DataView(name.buffer, name.byteOffset, name.length);
  const family = view.getUint16(0, true);
  const { sockaddr_in: four, sockaddr_in6: six } = structs;
  const isFour = family === AF_INET && name.length >= four.size;
  if (!isFour && (family !== AF_INET6 || name.length < six.size)) return undefined;
  const [at, bytes] = isFour ? [four.sin_addr, 4] : [six.sin6_addr, 16];
  const ip = ipaddr.fromByteArray([...name.subarray(at, at + bytes)]).toString();
  return { ip: parseIp(ip), port: view.getUint16(isFour ? four.sin_port : six.sin6_port, false) };
}
