import { join } from 'node:path';
import { underlay } from '../../test/harness/hosts.js';
import { other, sides } from '../testbed.js';
import { type Peer, VNI, VXLAN_OVERHEAD } from './peer.js';

const LINK = 'tap0';
const PROGRAM = join(import.meta.dirname, 'node-daemon.js');

export const node: Peer = {
  name: 'node',
  what: 'written by hand in Node: fs and dgram (bench/peers/node-daemon.ts)',
  needs: [],
  packages: [],
  layer: 2,
  overhead: VXLAN_OVERHEAD,
  up: async (bed) => {
    for (const side of sides) {
      const ends = [underlay[4][side], underlay[4][other(side)]];
      await bed.start(side, process.execPath, [PROGRAM, LINK, ...ends, `${VNI}`], LINK);
    }
    return { a: LINK, b: LINK };
  },
};
