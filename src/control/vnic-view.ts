/** What the control API shows of VNICs, as JSON. */
import type { Vnic } from '../overlay/vnics.js';

export interface VnicView {
  readonly name: string;
  /** The overlay it stands on. */
  readonly over: string;
  /** Name of its network namespace, null for the daemon's own and where none is known. */
  readonly netns: string | null;
  /** False when no name leads to the namespace any more: something else keeps it alive. */
  readonly netns_there: boolean;
  readonly index: number;
  readonly mac: string;
  /** random or fixed; null for one that was not made by the daemon. */
  readonly mac_type: string | null;
  /** Bytes. */
  readonly mtu: number;
  /** Administratively up. */
  readonly up: boolean;
}

export function vnicView(vnic: Vnic): VnicView {
  const { name, overlay, netns, isNamespaceThere, index, mac, macType, mtu, isUp } = vnic;
  return {
    name,
    over: overlay,
    netns: netns || null,
    netns_there: isNamespaceThere,
    index,
    mac,
    mac_type: macType ?? null,
    mtu,
    up: isUp,
  };
}
