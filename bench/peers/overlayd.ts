import { underlay } from '../../test/harness/hosts.js';
import { other, sides } from '../testbed.js';
import { type Peer, VNI, VXLAN_OVERHEAD } from './peer.js';

const LINK = 'ov0';

export const overlayd: Peer = {
  name: 'overlayd',
  what: 'this project',
  needs: [],
  packages: [],
  layer: 2,
  overhead: VXLAN_OVERHEAD,
  up: async (bed) => {
    const start = async (side: 'a' | 'b') => {
      const daemon = await bed.daemon(side, ['--log-level', 'error']);
      const [local, remote] = [underlay[4][side], underlay[4][other(side)]];
      await daemon.createOverlay(bed.hosts[side], LINK, VNI, local, remote);
    };
    await Promise.all(sides.map(start));
    return { a: LINK, b: LINK };
  },
};
