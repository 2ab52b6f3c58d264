import { underlay } from '../../test/harness/hosts.js';
import { compile } from '../compile.js';
import { other, sides } from '../testbed.js';
import { type Peer, VNI, VXLAN_OVERHEAD } from './peer.js';

const LINK = 'tap0';

export const native: Peer = {
  name: 'native',
  what: 'minimal C forwarder without offloads (bench/native.c)',
  needs: ['gcc'],
  packages: ['gcc', 'libc6-dev'],
  layer: 2,
  overhead: VXLAN_OVERHEAD,
  up: async (bed) => {
    for (const side of sides) {
      const ends = [underlay[4][side], underlay[4][other(side)]];
      await bed.start(side, compile('native'), [LINK, ...ends, `${VNI}`], LINK);
    }
    return { a: LINK, b: LINK };
  },
};
