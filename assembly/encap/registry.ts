/** The encapsulations the core knows, one row in each function. Mirror of `src/encap/registry.ts`. */
import { ENCAP_VXLAN } from '../layout';
import { decapVxlan, encapVxlan, vxlanVnetid } from './vxlan';

/** Vnetid of the datagram that `decap` accepted last. */
export let vnetid: u64 = 0;

/** Writes the outer header of `encap` in front of the frame; returns its length. Traps on an unknown encap. */
// @ts-expect-error: decorator
@inline
export function encapFrame(encap: u32, frame: usize, template: usize, id: u64): u32 {
  if (encap == ENCAP_VXLAN) return encapVxlan(frame, template, id);
  unreachable();
  return 0;
}

/** Length of the outer header and sets `vnetid`, or a refusal. Traps on an unknown encap. */
// @ts-expect-error: decorator
@inline
export function decapDatagram(encap: u32, datagram: usize, length: u32): i32 {
  if (encap == ENCAP_VXLAN) {
    const header = decapVxlan(datagram, length);
    vnetid = vxlanVnetid;
    return header;
  }
  unreachable();
  return 0;
}
