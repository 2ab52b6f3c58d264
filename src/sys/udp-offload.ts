/**
 * What UDP sockets of this kernel can do for us, tried and not only asked for: a message cut into datagrams (UDP_SEGMENT) and
 * datagrams handed over as one message (UDP_GRO), from socket to socket over loopback (man 7 udp).
 */
import type { SocketOffloads } from '../offload.js';
import {
  AF_INET,
  IPPROTO_UDP,
  SOCK_CLOEXEC,
  SOCK_DGRAM,
  SOCK_NONBLOCK,
  UDP_GRO,
  UDP_SEGMENT,
} from './abi.js';
import { must } from './errno.js';
import { closeFd } from './fd.js';
import * as libc from './libc.js';
import { sockaddr } from './sockaddr.js';

/** Of the calls it makes, those that a kernel may refuse; others in tests. */
export type UdpOffloadCalls = Pick<typeof libc, 'setsockopt' | 'sendto' | 'recv'>;

const SEGMENT_BYTES = 100;
const MESSAGE_BYTES = 250;

/** False for what is refused or does not do what it says. Where nothing passes over loopback (it is down) the kernel's word counts. */
export function probeUdpOffloads(calls: UdpOffloadCalls = libc): SocketOffloads {
  const receiver = must(libc.socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), 'socket');
  const sender = libc.socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  try {
    must(sender, 'socket');
    const anyPort = sockaddr(AF_INET, '127.0.0.1', 0);
    must(libc.bind(receiver, anyPort, anyPort.length), 'bind');
    const address = new Uint8Array(anyPort.length);
    must(libc.getsockname(receiver, address, new Uint32Array([address.length])), 'getsockname');
    const lengths = () => received(calls, receiver);
    const send = () => calls.sendto(sender, message, message.length, 0, address, address.length) >= 0;
    const passes = send() && lengths().join() === `${MESSAGE_BYTES}`;
    const udp_segment =
      set(calls, sender, UDP_SEGMENT, SEGMENT_BYTES) &&
      (!passes || (send() && lengths().join() === '100,100,50'));
    // With nothing cut there is nothing to join, which harms nobody.
    const udp_gro =
      set(calls, receiver, UDP_GRO, 1) &&
      (!passes || !udp_segment || (send() && lengths().join() === `${MESSAGE_BYTES}`));
    return { udp_segment, udp_gro };
  } finally {
    closeFd(receiver);
    if (sender >= 0) closeFd(sender);
  }
}

const message = new Uint8Array(MESSAGE_BYTES);

function set(calls: UdpOffloadCalls, fd: number, name: number, value: number): boolean {
  return calls.setsockopt(fd, IPPROTO_UDP, name, new Int32Array([value]) as unknown as Buffer, 4) >= 0;
}

/** Lengths of what has come: loopback delivers before a send returns. */
function received(calls: UdpOffloadCalls, fd: number): number[] {
  const buffer = new Uint8Array(MESSAGE_BYTES + 1);
  const lengths: number[] = [];
  // Never more than the segments of one message.
  while (lengths.length < 4) {
    const bytes = calls.recv(fd, buffer, buffer.length, 0);
    if (bytes < 0) break;
    lengths.push(bytes);
  }
  return lengths;
}
