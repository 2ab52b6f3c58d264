/**
 * The UDP sockets of one underlay address: a receive socket for each worker at the listen port, and a bank of send
 * sockets at ports of the dynamic range, which all workers share. A flow then has one source port whichever worker sends it, so
 * that the far side's kernel gives it to one worker there, whose answers have one port, too: it settles on one worker on
 * each side. With ports of their own it could go to and fro between two workers for ever (measured).
 *
 * The first receive socket is bound without SO_REUSEPORT, which is set on it afterwards: with it, another
 * process of the same user would share our port silently (measured). The send sockets' ports give the network's
 * paths and the far side's workers something to tell flows by; a filter drops whatever is sent to them.
 */
import { OverlayError } from '../errors.js';
import { formatEndpoint } from '../ip.js';
import { SOCKET_BUFFER_BYTES } from '../limits.js';
import {
  AF_INET,
  AF_INET6,
  IP_MTU_DISCOVER,
  IP_MULTICAST_ALL,
  IP_PMTUDISC_PROBE,
  IP_RECVERR,
  IP_RECVTOS,
  IP_TTL,
  IPPROTO_IP,
  IPPROTO_IPV6,
  IPPROTO_UDP,
  IPV6_AUTOFLOWLABEL,
  IPV6_MTU_DISCOVER,
  IPV6_MULTICAST_ALL,
  IPV6_PMTUDISC_PROBE,
  IPV6_RECVERR,
  IPV6_RECVTCLASS,
  IPV6_UNICAST_HOPS,
  IPV6_V6ONLY,
  SK_MEMINFO_DROPS,
  SO_BINDTODEVICE,
  SO_MARK,
  SO_MEMINFO,
  SO_RCVBUF,
  SO_RCVBUFFORCE,
  SO_REUSEPORT,
  SO_SNDBUF,
  SO_SNDBUFFORCE,
  SOCK_CLOEXEC,
  SOCK_DGRAM,
  SOCK_NONBLOCK,
  SOL_SOCKET,
  UDP_GRO,
  UDP_NO_CHECK6_RX,
  UDP_NO_CHECK6_TX,
} from './abi.js';
import { EADDRINUSE, ENODEV, lastErrno, must, SystemError } from './errno.js';
import { closeEach, closeFd } from './fd.js';
import * as libc from './libc.js';
import { kernelTunnels, udpPortOwner } from './port-owner.js';
import { openSendBank } from './send-bank.js';
import { sockaddr } from './sockaddr.js';
import type { SocketSettings } from './socket-settings.js';

/** Of outer headers, where nobody says another one. */
export const TTL = 64;

export interface UnderlayOptions {
  readonly ip: string;
  readonly port: number;
  /** One receive socket for each. */
  readonly workers: number;
  /** Send sockets. */
  readonly bank: number;
  readonly settings: SocketSettings;
}

export interface Underlay {
  /** AF_INET6 (dual stack), or AF_INET where the kernel has no IPv6: the domain of destinations. */
  readonly domain: number;
  readonly receive: readonly number[];
  /** One of them may stand here several times. */
  readonly send: readonly number[];
  /** True when the kernel gave less buffer than asked for (no right to force it). */
  readonly isBufferShort: boolean;
  /** Source ports that were passed over, since somebody else had them. */
  readonly portsSkipped: number;
}

/**
 * Opens and binds all of them in the namespace of the calling thread, or none. Throws EADDRINUSE when anyone holds
 * the listen port or too many source ports, EADDRNOTAVAIL when the address is not this host's, ENODEV for a network device
 * that there is not, EINVAL for too few source ports.
 */
export function openUnderlay(options: UnderlayOptions): Underlay {
  const opened: number[] = [];
  const { settings } = options;
  const open = (domain: number) => {
    const fd = openSocket(domain);
    opened.push(fd);
    applySettings(fd, settings);
    return fd;
  };
  try {
    const domain = usableDomain();
    const address = sockaddr(domain, options.ip, options.port);
    const receive = Array.from({ length: options.workers }, (_, worker) => {
      const fd = open(domain);
      refuseGroups(fd, familiesOf(domain));
      if (worker > 0) setInt(fd, SOL_SOCKET, SO_REUSEPORT, 1);
      bindTo(fd, address, options.port, `listening on ${formatEndpoint(options.ip, options.port)}`);
      if (worker === 0 && options.workers > 1) setInt(fd, SOL_SOCKET, SO_REUSEPORT, 1);
      reportTrafficClass(fd, familiesOf(domain));
      if (settings.zerocsum6Rx && domain === AF_INET6) setInt(fd, IPPROTO_UDP, UDP_NO_CHECK6_RX, 1);
      return fd;
    });
    const { ip, bank } = options;
    const openSender = () => {
      const fd = open(domain);
      reportErrors(fd, familiesOf(domain));
      if (settings.zerocsum6Tx && domain === AF_INET6) setInt(fd, IPPROTO_UDP, UDP_NO_CHECK6_TX, 1);
      return fd;
    };
    const ports = settings.sourcePorts;
    const { fds: send, skipped } = openSendBank({ open: openSender, domain, ip, count: bank, ports });
    const isShort = [...opened].map((fd) => enlargeBuffers(fd)).some((short) => short);
    return { domain, receive, send, isBufferShort: isShort, portsSkipped: skipped };
  } catch (error) {
    for (const fd of opened) closeFd(fd);
    throw error;
  }
}

/** Whether the kernel may hand over datagrams of one sender and size as one message. Live. */
export function joinDatagrams({ receive }: Underlay, isOn: boolean): void {
  for (const fd of receive) setInt(fd, IPPROTO_UDP, UDP_GRO, isOn ? 1 : 0);
}

/** Closes every socket. */
export function closeUnderlay(underlay: Underlay): void {
  closeEach(socketsOfUnderlay(underlay));
}

/** Descriptors of every socket. */
export function socketsOfUnderlay({ receive, send }: Underlay): number[] {
  return [...new Set([...receive, ...send])];
}

/** Datagrams the kernel dropped because sockets were full, since they were opened. */
export function socketOverflow(sockets: readonly number[]): number {
  const info = new Uint32Array(16);
  const bytes = new Uint32Array(1);
  let drops = 0;
  for (const fd of sockets) {
    bytes[0] = info.byteLength;
    must(libc.getsockopt(fd, SOL_SOCKET, SO_MEMINFO, info, bytes), 'getsockopt SO_MEMINFO');
    drops += info[SK_MEMINFO_DROPS]!;
  }
  return drops;
}

/** True when an address is one of this host's, in the namespace of the calling thread: a socket can be bound to it. */
export function canBind(ip: string): boolean {
  const domain = usableDomain();
  const fd = must(libc.socket(domain, SOCK_DGRAM | SOCK_CLOEXEC, 0), 'socket');
  try {
    const address = sockaddr(domain, ip, 0);
    return libc.bind(fd, address, address.length) >= 0;
  } finally {
    closeFd(fd);
  }
}

/** AF_INET6, or AF_INET where the kernel has no IPv6: of every underlay socket of this process. */
export function usableDomain(): number {
  const fd = libc.socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return AF_INET;
  closeFd(fd);
  return AF_INET6;
}

function openSocket(domain: number): number {
  const fd = must(libc.socket(domain, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), 'socket');
  try {
    if (domain === AF_INET6) setInt(fd, IPPROTO_IPV6, IPV6_V6ONLY, 0);
    setOuterHeader(fd, familiesOf(domain));
    return fd;
  } catch (error) {
    closeFd(fd);
    throw error;
  }
}

/**
 * What the kernel writes into outer IP headers of its own accord. VTEPs must not fragment (RFC 7348 section 4.3, RFC 7637
 * section 4): DF on, and too big for the link is an error we see. What ICMP says of paths is left to us (`ErrorQueue`): the
 * kernel would believe whoever says 552 bytes, which leave guests nothing they can send.
 */
export function setOuterHeader(fd: number, families: readonly (4 | 6)[]): void {
  if (families.includes(4)) {
    setInt(fd, IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_PROBE);
    setInt(fd, IPPROTO_IP, IP_TTL, TTL);
  }
  if (families.includes(6)) {
    setInt(fd, IPPROTO_IPV6, IPV6_MTU_DISCOVER, IPV6_PMTUDISC_PROBE);
    setInt(fd, IPPROTO_IPV6, IPV6_UNICAST_HOPS, TTL);
    // Of the addresses and ports (RFC 6438): where the system leaves it to sockets, and it is no default.
    setInt(fd, IPPROTO_IPV6, IPV6_AUTOFLOWLABEL, 1);
  }
}

/** Puts a socket's mark and network device into force. Throws ENODEV, EPERM. */
export function applySettings(fd: number, { mark, device }: Pick<SocketSettings, 'mark' | 'device'>): void {
  if (mark !== 0) setInt(fd, SOL_SOCKET, SO_MARK, mark | 0);
  if (device === '') return;
  const name = Buffer.from(device);
  if (libc.setsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, name, name.length) >= 0) return;
  const errno = lastErrno();
  if (errno !== ENODEV) throw new SystemError(errno, `binding a socket to the network device ${device}`);
  throw new OverlayError(
    'ENODEV',
    'no_such_link',
    `there is no network device '${device}' where the underlay's sockets are: create it, or set the device to any`,
  );
}

/** Those of the datagrams of a socket; one of AF_INET6 is for both. */
function familiesOf(domain: number): readonly (4 | 6)[] {
  return domain === AF_INET6 ? [4, 6] : [4];
}

/**
 * No datagrams to groups that others on this host have joined, which a socket of all addresses gets otherwise: those of ours have
 * a socket of their own.
 */
export function refuseGroups(fd: number, families: readonly (4 | 6)[]): void {
  if (families.includes(4)) setInt(fd, IPPROTO_IP, IP_MULTICAST_ALL, 0);
  if (families.includes(6)) setInt(fd, IPPROTO_IPV6, IPV6_MULTICAST_ALL, 0);
}

/** With every message its traffic class: the core has to know the ECN field. */
export function reportTrafficClass(fd: number, families: readonly (4 | 6)[]): void {
  if (families.includes(4)) setInt(fd, IPPROTO_IP, IP_RECVTOS, 1);
  if (families.includes(6)) setInt(fd, IPPROTO_IPV6, IPV6_RECVTCLASS, 1);
}

/** Keeps what ICMP says of datagrams that were sent, for `ErrorQueue` (man 7 ip, IP_RECVERR). */
export function reportErrors(fd: number, families: readonly (4 | 6)[]): void {
  if (families.includes(4)) setInt(fd, IPPROTO_IP, IP_RECVERR, 1);
  if (families.includes(6)) setInt(fd, IPPROTO_IPV6, IPV6_RECVERR, 1);
}

/** Who has the port and what to do: a program, with its process where that is known, or a tunnel of the kernel. */
function holderText(port: number): string {
  const owner = udpPortOwner(port);
  const tunnels = owner === undefined ? kernelTunnels() : [];
  if (tunnels.length > 0) {
    return (
      `no program has the port, so a tunnel of the kernel has it (${tunnels.join(', ')}): delete it (ip link delete ` +
      `${tunnels[0]!.split(' ')[0]}) or choose another listen_port`
    );
  }
  const named = owner === undefined ? '' : ` (${owner})`;
  return `another program has the port${named}; stop it or choose another listen_port`;
}

/** Throws EADDRINUSE when anyone holds the port, EADDRNOTAVAIL when the address is not this host's. */
export function bindTo(fd: number, address: Uint8Array, port: number, what: string): void {
  if (libc.bind(fd, address, address.length) >= 0) return;
  const errno = lastErrno();
  if (errno === EADDRINUSE) {
    throw new OverlayError('EADDRINUSE', 'port_in_use', `${what}: ${holderText(port)}`);
  }
  const error = new SystemError(errno, what);
  if (error.errno !== 'EADDRNOTAVAIL') throw error;
  throw new OverlayError(
    'EADDRNOTAVAIL',
    'address_not_here',
    `${what}: no interface of this host has the address`,
  );
}

/** Asks for large buffers, past the system's limit where we may. True when the kernel gave less. */
export function enlargeBuffers(fd: number): boolean {
  let isShort = false;
  for (const [force, ask] of [
    [SO_RCVBUFFORCE, SO_RCVBUF],
    [SO_SNDBUFFORCE, SO_SNDBUF],
  ] as const) {
    const value = new Int32Array([SOCKET_BUFFER_BYTES]);
    if (libc.setsockopt(fd, SOL_SOCKET, force, value, 4) >= 0) continue;
    must(libc.setsockopt(fd, SOL_SOCKET, ask, value, 4), 'setsockopt SO_RCVBUF or SO_SNDBUF');
    isShort = true;
  }
  return isShort;
}

/** @param level protocol of the option */
export function setInt(fd: number, level: number, name: number, value: number): void {
  must(libc.setsockopt(fd, level, name, new Int32Array([value]), 4), `setsockopt ${level}/${name}`);
}
