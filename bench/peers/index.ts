/** All peers, in the order of the tables. */
import { kernel } from './kernel.js';
import { native } from './native.js';
import { overlayd } from './overlayd.js';
import { onWire, type Peer } from './peer.js';
import { veth } from './veth.js';

export type { Peer } from './peer.js';

/** What the others are compared with unless a flag says otherwise. */
export const ANCHOR = kernel.name;

export const peers: readonly Peer[] = [veth, kernel, onWire(kernel), native, overlayd, onWire(overlayd)];
