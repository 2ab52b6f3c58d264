import { type Side, underlay } from '../../test/harness/hosts.js';
import { other, sides } from '../testbed.js';
import { type Peer, VNI, VXLAN_OVERHEAD } from './peer.js';

const LINK = 'ov0';

/** @param flags of the daemons */
function withFlags(name: string, what: string, flags: readonly string[]): Peer {
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
        const { client } = await bed.daemon(side, ['--log-level', 'error', ...flags]);
        const properties = {
          'vxlan/listen_ip': underlay[4][side],
          'direct/dest_ip': underlay[4][other(side)],
          'direct/dest_port': 4789,
          // Its default is below what an underlay of 9000 has room for.
          mtu_max: mtu,
          mtu,
        };
        const overlay = { name: LINK, encap: 'vxlan', search: 'direct', vnetid: VNI, properties };
        await client.post('/v1/overlays', overlay);
      };
      await Promise.all(sides.map(start));
      return { a: LINK, b: LINK };
    },
  };
}

export const overlayd = withFlags('overlayd', 'this project', []);

/** What other numbers of threads make of it; measured when they are named. */
export const overlaydThreads: readonly Peer[] = [
  withFlags('overlayd-1', 'this project with one worker', ['--workers', '1']),
  withFlags('overlayd-split-1', 'this project, one thread out and one in', [
    '--workers',
    '1',
    '--threads',
    'split',
  ]),
  withFlags('overlayd-split-2', 'this project, two threads out and two in', [
    '--workers',
    '2',
    '--threads',
    'split',
  ]),
];
