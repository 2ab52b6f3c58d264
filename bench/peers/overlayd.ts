import { join } from 'node:path';
import { OverlayError } from '../../src/errors.js';
import { PORTS } from '../../test/harness/direct.js';
import { type Side, underlay } from '../../test/harness/hosts.js';
import { other, sides } from '../testbed.js';
import { type Peer, VNI, VXLAN_OVERHEAD } from './peer.js';

const LINK = 'ov0';
/** Variable of the environment. */
const BEFORE = 'OVERLAYD_BEFORE';
/** NVGRE reserves the lower ones. */
const NVGRE_VSID = 0x1000 + VNI;

interface Given {
  /** Of the daemons. */
  readonly flags?: readonly string[];
  readonly encap?: string;
  /** Properties of the devices. */
  readonly properties?: Readonly<Record<string, string>>;
  /** Main module of the daemons, where it is not this build's. */
  readonly main?: () => string;
}

function variant(
  name: string,
  what: string,
  { flags = [], encap = 'vxlan', properties: more, main }: Given = {},
): Peer {
  return {
    name,
    what,
    needs: [],
    packages: [],
    layer: 2,
    overhead: VXLAN_OVERHEAD,
    up: async (bed) => {
      const mtu = bed.scene.mtu - VXLAN_OVERHEAD;
      const start = async (side: Side) => {
        const { client } = await bed.daemon(side, ['--log-level', 'error', ...flags], main?.());
        const properties = {
          [`${encap}/listen_ip`]: underlay[4][side],
          'direct/dest_ip': underlay[4][other(side)],
          ...(PORTS[encap] ? { 'direct/dest_port': PORTS[encap] } : {}),
          // Its default is below what an underlay of 9000 has room for.
          mtu_max: mtu,
          mtu,
          ...more,
        };
        const vnetid = encap === 'nvgre' ? NVGRE_VSID : VNI;
        const overlay = { name: LINK, encap, search: 'direct', vnetid, properties };
        await client.post('/v1/overlays', overlay);
      };
      await Promise.all(sides.map(start));
      return { a: LINK, b: LINK };
    },
  };
}

/** That of the build which is compared with this one. Throws EINVAL when nobody has said where it is. */
function mainBefore(): string {
  const folder = process.env[BEFORE];
  if (folder !== undefined) return join(folder, 'dist/src/daemon/main.js');
  throw new OverlayError(
    'EINVAL',
    'no_build',
    `overlayd-before needs ${BEFORE}, the folder of a built checkout`,
  );
}

export const overlayd = variant('overlayd', 'this project');

/** What other encapsulations, settings and numbers of threads make of it; measured when they are named. */
export const overlaydVariants: readonly Peer[] = [
  variant('overlayd-geneve', 'this project with Geneve', { encap: 'geneve' }),
  variant('overlayd-gpe', 'this project with VXLAN-GPE', { encap: 'vxlan-gpe' }),
  variant('overlayd-nvgre', 'this project with NVGRE', { encap: 'nvgre' }),
  variant('overlayd-mss', 'this project with tcp_mss and path_mtu_probe', {
    properties: { tcp_mss: 'auto', path_mtu_probe: 'on' },
  }),
  variant('overlayd-before', `the build in ${BEFORE}`, { main: mainBefore }),
  variant('overlayd-1', 'this project with one worker', { flags: ['--workers', '1'] }),
  variant('overlayd-split-1', 'this project, one thread out and one in', {
    flags: ['--workers', '1', '--threads', 'split'],
  }),
  variant('overlayd-split-2', 'this project, two threads out and two in', {
    flags: ['--workers', '2', '--threads', 'split'],
  }),
];
