/** Nebula: a mesh in Go, with certificates. It encrypts. */
import { execFileSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { stringify } from 'yaml';
import { type Side, underlay } from '../../test/harness/hosts.js';
import { inner, other, sides } from '../testbed.js';
import type { Peer } from './peer.js';

const LINK = 'nebula0';
const PORT = 4242;
/** IPv4, UDP and its own header and tag. */
const OVERHEAD = 60;
const BUFFER_BYTES = 4 << 20;

export const nebula: Peer = {
  name: 'nebula',
  what: 'Nebula, AES (encrypts)',
  needs: ['nebula', 'nebula-cert'],
  packages: ['nebula'],
  layer: 3,
  overhead: OVERHEAD,
  up: async (bed) => {
    const { directory } = bed.hosts;
    const file = (name: string) => join(directory, name);
    const make = (...args: string[]) => execFileSync('nebula-cert', args, { cwd: directory });
    make('ca', '-name', 'bench', '-out-crt', 'ca.crt', '-out-key', 'ca.key');
    const start = async (side: Side) => {
      const own = ['-name', side, '-ip', `${inner[side]}/24`];
      const out = ['-out-crt', `${side}.crt`, '-out-key', `${side}.key`];
      make('sign', '-ca-crt', 'ca.crt', '-ca-key', 'ca.key', ...own, ...out);
      const far = other(side);
      const all = [{ port: 'any', proto: 'any', host: 'any' }];
      const buffers = { read_buffer: BUFFER_BYTES, write_buffer: BUFFER_BYTES };
      const config = {
        pki: { ca: file('ca.crt'), cert: file(`${side}.crt`), key: file(`${side}.key`) },
        static_host_map: { [inner[far]]: [`${underlay[4][far]}:${PORT}`] },
        lighthouse: { am_lighthouse: false, hosts: [] },
        listen: { host: underlay[4][side], port: PORT, ...buffers },
        punchy: { punch: false },
        cipher: 'aes',
        tun: { disabled: false, dev: LINK, mtu: bed.scene.mtu - OVERHEAD, tx_queue: 500 },
        logging: { level: 'error' },
        firewall: { outbound: all, inbound: all },
      };
      writeFileSync(file(`${side}.yml`), stringify(config));
      await bed.start(side, 'nebula', ['-config', file(`${side}.yml`)], LINK);
    };
    await Promise.all(sides.map(start));
    return { a: LINK, b: LINK };
  },
};
