/** The encapsulations the core knows, one row in each function. Mirror of `src/encap/registry.ts`. */
import { check } from '../check';
import { ENCAP_GENEVE, ENCAP_NVGRE, ENCAP_VXLAN, ENCAP_VXLAN_GPE } from '../layout';
import { decapGeneve, encapGeneve, geneveReserved, geneveSignature, geneveVnetid } from './geneve';
import { decapNvgre, encapNvgre, nvgreReserved, nvgreSignature, nvgreVnetid } from './nvgre';
import { decapVxlan, encapVxlan, vxlanReserved, vxlanSignature, vxlanVnetid } from './vxlan';
import { decapVxlanGpe, encapVxlanGpe, vxlanGpeReserved, vxlanGpeSignature, vxlanGpeVnetid } from './vxlan-gpe';

/** Vnetid of the datagram that `decap` accepted last. */
export let vnetid: u64 = 0;

/**
 * Writes the outer header of `encap` in front of the frame; returns its length. Traps on an unknown encap.
 * @param flow low byte of the flow hash
 */
// @ts-expect-error: decorator
@inline
export function encapFrame(encap: u32, frame: usize, template: usize, id: u64, flow: u8): u32 {
  if (encap == ENCAP_VXLAN) return encapVxlan(frame, template, id);
  if (encap == ENCAP_GENEVE) return encapGeneve(frame, template, id);
  if (encap == ENCAP_NVGRE) return encapNvgre(frame, template, id, flow);
  if (encap == ENCAP_VXLAN_GPE) return encapVxlanGpe(frame, template, id);
  check(false);
  return 0;
}

/** True where nothing in front of the header tells flows apart: there are no ports. */
export function hasNoPorts(encap: u32): bool {
  return encap == ENCAP_NVGRE;
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
  if (encap == ENCAP_GENEVE) {
    const header = decapGeneve(datagram, length);
    vnetid = geneveVnetid;
    return header;
  }
  if (encap == ENCAP_NVGRE) {
    const header = decapNvgre(datagram, length);
    vnetid = nvgreVnetid;
    return header;
  }
  if (encap == ENCAP_VXLAN_GPE) {
    const header = decapVxlanGpe(datagram, length);
    vnetid = vxlanGpeVnetid;
    return header;
  }
  check(false);
  return 0;
}

/** A signature is made of this many first bytes; every encapsulation has at least these. */
export const SIGNATURE_BYTES: u32 = 8;

/**
 * What of the first bytes decides: a datagram of the same signature as one that `decapDatagram` accepted has the same
 * vnetid and a header of the same length, so that neighbours in a batch need not be looked at again. Traps on an
 * unknown encap.
 */
@inline
export function signatureOf(encap: u32, datagram: usize): u64 {
  if (encap == ENCAP_VXLAN) return vxlanSignature(datagram);
  if (encap == ENCAP_GENEVE) return geneveSignature(datagram);
  if (encap == ENCAP_NVGRE) return nvgreSignature(datagram);
  if (encap == ENCAP_VXLAN_GPE) return vxlanGpeSignature(datagram);
  check(false);
  return 0;
}

/** True when a reserved bit of a header that `decapDatagram` accepted is not zero. Traps on an unknown encap. */
export function hasReservedBits(encap: u32, datagram: usize): bool {
  if (encap == ENCAP_VXLAN) return vxlanReserved(datagram);
  if (encap == ENCAP_GENEVE) return geneveReserved(datagram);
  if (encap == ENCAP_NVGRE) return nvgreReserved(datagram);
  if (encap == ENCAP_VXLAN_GPE) return vxlanGpeReserved(datagram);
  check(false);
  return false;
}
