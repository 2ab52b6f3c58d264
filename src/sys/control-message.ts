/** Control messages of sendmsg (man 3 cmsg, man 7 ip, man 7 ipv6), as bytes: length u64, level i32, type i32, data. */
import { AF_INET6, IP_TTL, IPPROTO_IP, IPPROTO_IPV6, IPV6_HOPLIMIT, structs } from './abi.js';

const HEADER_BYTES = 16;
const INT_BYTES = 4;
/** Data is padded to whole words of 8 bytes. */
const BYTES = 24;
const MAPPED = Buffer.from('00000000000000000000ffff', 'hex');

/** True for a socket address of IPv6 that is no mapped address of IPv4: what control messages depend on. */
export function isIpv6Name(name: Uint8Array): boolean {
  const { sin6_family, sin6_addr, size } = structs.sockaddr_in6;
  if (name.length < size) return false;
  const family = new DataView(name.buffer, name.byteOffset).getUint16(sin6_family, true);
  return family === AF_INET6 && MAPPED.compare(name.subarray(sin6_addr, sin6_addr + MAPPED.length)) !== 0;
}

/** Says the TTL or hop limit of a datagram to an address. @param ttl 1 to 255 */
export function ttlMessage(name: Uint8Array, ttl: number): Uint8Array {
  const isIpv6 = isIpv6Name(name);
  const bytes = new Uint8Array(BYTES);
  const view = new DataView(bytes.buffer);
  view.setBigUint64(0, BigInt(HEADER_BYTES + INT_BYTES), true);
  view.setInt32(8, isIpv6 ? IPPROTO_IPV6 : IPPROTO_IP, true);
  view.setInt32(12, isIpv6 ? IPV6_HOPLIMIT : IP_TTL, true);
  view.setInt32(HEADER_BYTES, ttl, true);
  return bytes;
}
