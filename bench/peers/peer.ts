/** What the end-to-end bench compares. */
import type { Side } from '../../test/harness/hosts.js';
import type { Testbed } from '../testbed.js';

export interface Peer {
  readonly name: string;
  readonly what: string;
  /** Programs it needs besides ours. */
  readonly needs: readonly string[];
  /** Debian packages with those. */
  readonly packages: readonly string[];
  /** Whether its link carries Ethernet frames, or IP only: such a link has nothing above it but an address. */
  readonly layer: 2 | 3;
  /** Bytes that it takes of the underlay's MTU. */
  readonly overhead: number;
  /** Brings up both sides, and says the names of their links. */
  up(bed: Testbed): Promise<Readonly<Record<Side, string>>>;
}

/** The virtual network of those that have such a number. */
export const VNI = 100;
/** Ethernet inside, VXLAN, UDP and IPv4 (RFC 7348 section 5). */
export const VXLAN_OVERHEAD = 50;

/** The same peer on a NIC without tunnel offload. */
export function onWire(peer: Peer): Peer {
  return {
    ...peer,
    name: `${peer.name}-wire`,
    what: `${peer.what}, packets cut to the MTU before they leave`,
    needs: [...peer.needs, 'ethtool'],
    packages: [...peer.packages, 'ethtool'],
    up: (bed) => {
      bed.cutToMtu();
      return peer.up(bed);
    },
  };
}
