/**
 * One that uses an overlay: its namespace, its link and addresses, and sockets of this process that are in its place. A socket is of
 * the namespace that the thread is in when it is made; Node makes it when an address has been looked up, in a later turn, and so the
 * lookups here answer at once.
 */
import { createSocket, type Socket } from 'node:dgram';
import { connect, createServer, type LookupFunction, type Server, type Socket as Stream } from 'node:net';
import { inNamespace } from '../../src/sys/netns.js';
import type { Daemon, Host } from './hosts.js';

export type Family = 4 | 6;

export interface Guest {
  readonly host: Host;
  readonly link: string;
  readonly inner: { readonly 4: string; readonly 6: string };
  /** Undefined where its overlay is not ours. */
  readonly daemon?: Daemon | undefined;
}

/** A UDP socket of the guest on all its addresses of a family. */
export function udpSocket({ host }: Guest, family: Family, port = 0): Socket {
  const socket = createSocket({
    type: `udp${family}`,
    reuseAddr: true,
    ipv6Only: family === 6,
    lookup: (address, _options, done) => done(null, address, family),
  });
  return inNamespace(host.namespace, () => socket.bind(port));
}

/** Joins a multicast group on the guest's link, and sends to groups on it. */
export function joinGroup({ host, link, inner }: Guest, socket: Socket, family: Family, group: string): void {
  const where = family === 4 ? inner[4] : `::%${link}`;
  inNamespace(host.namespace, () => {
    socket.addMembership(group, where);
    socket.setMulticastInterface(where);
    socket.setMulticastLoopback(false);
  });
}

/** Sends back what comes, on a port of the guest's that it says itself. */
export function tcpEcho({ host }: Guest): Server {
  const server = createServer({ allowHalfOpen: true }, (stream) => {
    // Whoever is at the other end sees it too, and says so.
    stream.on('error', () => stream.destroy());
    stream.pipe(stream);
  });
  return inNamespace(host.namespace, () => server.listen(0));
}

/** A connection of the guest's to an address. */
export function tcpConnection({ host }: Guest, address: string, family: Family, port: number): Stream {
  const lookup: LookupFunction = (_name, _options, done) => done(null, address, family);
  // By a name: an address is not looked up, and then the socket is made later.
  return inNamespace(host.namespace, () => connect({ host: 'peer', port, lookup, autoSelectFamily: false }));
}
