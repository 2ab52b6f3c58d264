/** All peers, in the order of the tables. */
import { kernel } from './kernel.js';
import { native } from './native.js';
import { nebula } from './nebula.js';
import { node } from './node.js';
import { openvswitch } from './openvswitch.js';
import { overlayd, overlaydVariants } from './overlayd.js';
import { onWire, type Peer } from './peer.js';
import { veth } from './veth.js';
import { wireguardGo } from './wireguard-go.js';

export type { Peer } from './peer.js';

/** What the others are compared with unless a flag says otherwise. */
export const ANCHOR = kernel.name;

export const peers: readonly Peer[] = [
  veth,
  kernel,
  onWire(kernel),
  native,
  overlayd,
  onWire(overlayd),
  ...overlaydVariants,
  openvswitch,
  wireguardGo,
  nebula,
  node,
];

/** Those measured when none are named. */
export const usualPeers = peers.filter((peer) => !overlaydVariants.includes(peer)).map(({ name }) => name);
