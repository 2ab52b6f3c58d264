import type { Peer } from './peer.js';

export const veth: Peer = {
  name: 'veth',
  what: 'no overlay: the bare veth pair',
  needs: [],
  packages: [],
  layer: 2,
  overhead: 0,
  up: async () => ({ a: 'underlay0', b: 'underlay0' }),
};
