/** WireGuard in Go, as Tailscale and others carry it in them. It encrypts. Configured by its own socket. */
import { generateKeyPairSync, type KeyObject } from 'node:crypto';
import { existsSync } from 'node:fs';
import { connect } from 'node:net';
import { type Side, underlay, until } from '../../test/harness/hosts.js';
import { inner, other, sides } from '../testbed.js';
import type { Peer } from './peer.js';

const PORT = 51_820;
/** IPv4, UDP and its own header and tag. */
const OVERHEAD = 60;
const SOCKET_MS_MAX = 5000;

/** The 32 bytes that end the DER form of an X25519 key, private or public (RFC 8410), in hexadecimal. */
function hex(key: KeyObject): string {
  const type = key.type === 'private' ? 'pkcs8' : 'spki';
  return key.export({ format: 'der', type }).subarray(-32).toString('hex');
}

/** Sends lines to the socket of a link; throws what it answers when that is no success. */
function configure(link: string, lines: readonly string[]): Promise<void> {
  return new Promise((resolve, reject) => {
    const socket = connect(socketOf(link), () => socket.write(['set=1', ...lines, '', ''].join('\n')));
    socket.setEncoding('utf8').once('error', reject);
    socket.once('data', (answer: string) => {
      socket.destroy();
      if (answer.startsWith('errno=0\n')) resolve();
      else reject(new Error(`wireguard-go refuses its configuration: ${answer}`));
    });
  });
}

const socketOf = (link: string) => `/var/run/wireguard/${link}.sock`;

export const wireguardGo: Peer = {
  name: 'wireguard-go',
  what: 'WireGuard in Go (encrypts)',
  needs: ['wireguard-go'],
  packages: ['wireguard-go'],
  layer: 3,
  overhead: OVERHEAD,
  up: async (bed) => {
    // Sockets of all namespaces are in one directory.
    const links = { a: `wg${process.pid}a`, b: `wg${process.pid}b` };
    const keys = { a: generateKeyPairSync('x25519'), b: generateKeyPairSync('x25519') };
    const start = async (side: Side) => {
      const link = links[side];
      await bed.start(side, 'env', ['LOG_LEVEL=error', 'wireguard-go', '-f', link], link);
      await until('wireguard-go listens', SOCKET_MS_MAX, () => existsSync(socketOf(link)));
      await configure(link, [
        `private_key=${hex(keys[side].privateKey)}`,
        `listen_port=${PORT}`,
        `public_key=${hex(keys[other(side)].publicKey)}`,
        `endpoint=${underlay[4][other(side)]}:${PORT}`,
        `allowed_ip=${inner[other(side)]}/32`,
      ]);
    };
    await Promise.all(sides.map(start));
    return links;
  },
};
