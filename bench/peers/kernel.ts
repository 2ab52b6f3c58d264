import { underlay } from '../../test/harness/hosts.js';
import { other, sides } from '../testbed.js';
import { type Peer, VNI, VXLAN_OVERHEAD } from './peer.js';

const LINK = 'vxlan0';

export const kernel: Peer = {
  name: 'kernel',
  what: "the kernel's VXLAN device",
  needs: ['ip'],
  packages: ['iproute2'],
  layer: 2,
  overhead: VXLAN_OVERHEAD,
  up: async ({ hosts }) => {
    for (const side of sides) {
      const ends = ['local', underlay[4][side], 'remote', underlay[4][other(side)], 'dstport', '4789'];
      hosts[side].run(
        'ip',
        'link',
        'add',
        LINK,
        'type',
        'vxlan',
        'id',
        `${VNI}`,
        ...ends,
        'dev',
        'underlay0',
      );
    }
    return { a: LINK, b: LINK };
  },
};
