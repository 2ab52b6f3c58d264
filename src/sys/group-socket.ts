/**
 * Multicast groups on the underlay (man 7 ip, ipv6; RFC 7348 section 4.2): a socket of its own for each, which gets that group's
 * datagrams and no others, on the link that has the underlay's address.
 */
import { readFileSync } from 'node:fs';
import { OverlayError } from '../errors.js';
import { familyOf, formatEndpoint, ipBytes, ipNativeBytes } from '../ip.js';
import {
  AF_INET6,
  IP_ADD_MEMBERSHIP,
  IP_DROP_MEMBERSHIP,
  IP_MULTICAST_IF,
  IP_MULTICAST_LOOP,
  IP_MULTICAST_TTL,
  IPPROTO_IP,
  IPPROTO_IPV6,
  IPPROTO_UDP,
  IPV6_JOIN_GROUP,
  IPV6_LEAVE_GROUP,
  IPV6_MULTICAST_HOPS,
  IPV6_MULTICAST_IF,
  IPV6_MULTICAST_LOOP,
  SOCK_CLOEXEC,
  SOCK_DGRAM,
  SOCK_NONBLOCK,
  structs,
  UDP_NO_CHECK6_RX,
} from './abi.js';
import { must } from './errno.js';
import { closeFd } from './fd.js';
import * as libc from './libc.js';
import { sockaddr } from './sockaddr.js';
import type { SocketSettings } from './socket-settings.js';
import {
  applySettings,
  bindTo,
  enlargeBuffers,
  refuseGroups,
  reportTrafficClass,
  setInt,
  TTL,
  type Underlay,
} from './underlay.js';

export interface GroupOptions {
  /** The group, IPv4 or IPv6. */
  readonly group: string;
  readonly port: number;
  /** The underlay's address, of the same family: its link is the one that joins. */
  readonly ip: string;
  /** The underlay's: senders are compared with destinations byte by byte, so both are written in one way. */
  readonly domain: number;
  readonly settings: SocketSettings;
}

/**
 * Joins the group in the namespace of the calling thread (IGMP or MLD is the kernel's); the group is left when the socket closes.
 * Throws EADDRINUSE when another program has the group's port, EADDRNOTAVAIL when no link has the underlay's address.
 */
export function openGroup({ group, port, ip, domain, settings }: GroupOptions): number {
  const family = familyOf(group);
  const fd = must(libc.socket(domain, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), 'socket');
  try {
    applySettings(fd, settings);
    bindTo(fd, sockaddr(domain, group, port), port, `listening on the group ${formatEndpoint(group, port)}`);
    refuseGroups(fd, [family]);
    join(fd, group, ip);
    reportTrafficClass(fd, [family]);
    if (settings.zerocsum6Rx && family === 6) setInt(fd, IPPROTO_UDP, UDP_NO_CHECK6_RX, 1);
    enlargeBuffers(fd);
    return fd;
  } catch (error) {
    closeFd(fd);
    throw error;
  }
}

function join(fd: number, group: string, ip: string): void {
  const isIpv4 = familyOf(group) === 4;
  const [level, name] = isIpv4 ? [IPPROTO_IP, IP_ADD_MEMBERSHIP] : [IPPROTO_IPV6, IPV6_JOIN_GROUP];
  const request = isIpv4 ? requestOf4(group, ip) : requestOf6(group, linkOf(ip));
  must(
    libc.setsockopt(fd, level, name, request, request.length),
    `joining the group ${group} on the link of ${ip}`,
  );
}

/**
 * The underlay's address is on another link than when the group was joined, or on one made anew: the kernel has forgotten the
 * membership, but the socket has not. Throws EADDRNOTAVAIL, ENODEV when the address is gone again.
 * @param left index of the link that had it
 */
export function joinAnew(
  fd: number,
  { group, ip }: Pick<GroupOptions, 'group' | 'ip'>,
  left: number | undefined,
): void {
  if (left !== undefined) {
    const isIpv4 = familyOf(group) === 4;
    const [level, name] = isIpv4 ? [IPPROTO_IP, IP_DROP_MEMBERSHIP] : [IPPROTO_IPV6, IPV6_LEAVE_GROUP];
    const request = isIpv4 ? requestOf4(group, '0.0.0.0', left) : requestOf6(group, left);
    // There is nothing to leave when the last attempt to join failed.
    libc.setsockopt(fd, level, name, request, request.length);
  }
  join(fd, group, ip);
}

/**
 * What sockets send to groups goes out by the link of the underlay's address, does not come back, and has the TTL of all else.
 * @param ip the underlay's address
 */
export function aimAtGroups({ send, domain }: Underlay, ip: string): void {
  const family = familyOf(ip);
  for (const fd of send) {
    if (family === 4) {
      const request = requestOf4('0.0.0.0', ip);
      must(
        libc.setsockopt(fd, IPPROTO_IP, IP_MULTICAST_IF, request, request.length),
        `sending by the link of ${ip}`,
      );
      setInt(fd, IPPROTO_IP, IP_MULTICAST_LOOP, 0);
      // A socket for both families does by this what the other one says (measured).
      if (domain === AF_INET6) setInt(fd, IPPROTO_IPV6, IPV6_MULTICAST_LOOP, 0);
      setInt(fd, IPPROTO_IP, IP_MULTICAST_TTL, TTL);
    } else {
      setInt(fd, IPPROTO_IPV6, IPV6_MULTICAST_IF, linkOf(ip));
      setInt(fd, IPPROTO_IPV6, IPV6_MULTICAST_LOOP, 0);
      setInt(fd, IPPROTO_IPV6, IPV6_MULTICAST_HOPS, TTL);
    }
  }
}

/** struct ip_mreqn: the kernel finds the link by its address, unless it is told an index. */
function requestOf4(group: string, ip: string, link = 0): Uint8Array {
  const { size, imr_multiaddr, imr_address, imr_ifindex } = structs.ip_mreqn;
  const request = new Uint8Array(size);
  request.set(ipNativeBytes(group), imr_multiaddr);
  request.set(ipNativeBytes(ip), imr_address);
  new DataView(request.buffer).setInt32(imr_ifindex, link, true);
  return request;
}

/** struct ipv6_mreq. */
function requestOf6(group: string, link: number): Uint8Array {
  const { size, ipv6mr_multiaddr, ipv6mr_interface } = structs.ipv6_mreq;
  const request = new Uint8Array(size);
  request.set(ipBytes(group), ipv6mr_multiaddr);
  new DataView(request.buffer).setUint32(ipv6mr_interface, link, true);
  return request;
}

/** Index of the link that has an IPv6 address. Throws EADDRNOTAVAIL. */
function linkOf(ip: string): number {
  const wanted = Buffer.from(ipBytes(ip)).toString('hex');
  // Address, index of the link, and more, in hexadecimal; of the namespace that the thread is in.
  const line = readFileSync('/proc/thread-self/net/if_inet6', 'utf8')
    .split('\n')
    .find((each) => each.startsWith(wanted));
  if (line) return Number.parseInt(line.split(/ +/)[1]!, 16);
  throw new OverlayError('EADDRNOTAVAIL', 'address_not_here', `no interface of this host has ${ip}`);
}
