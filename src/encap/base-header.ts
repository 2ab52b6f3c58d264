/**
 * The first 8 bytes of VXLAN, VXLAN-GPE, Geneve and NVGRE, which differ in the first four of them and in what follows; the vnetid
 * is in the next three, and the last one is zero in a template.
 *
 *   0 the encapsulation's own   4 vnetid   7 zero; of NVGRE a flow hash, which the core puts there   8 end
 */
export const BASE_HEADER_BYTES = 8;
const VNETID = 4;

/** A header of zeros but for the vnetid, with room for what follows. */
export function headerWith(vnetid: bigint, restBytes = 0): Uint8Array {
  const header = new Uint8Array(BASE_HEADER_BYTES + restBytes);
  viewOf(header).setUint32(VNETID, Number(vnetid) * 256);
  return header;
}

/** The vnetid of a datagram, which has the whole header. */
export function vnetidOf(datagram: Uint8Array): bigint {
  return BigInt(viewOf(datagram).getUint32(VNETID) >>> 8);
}

export function viewOf({ buffer, byteOffset, byteLength }: Uint8Array): DataView {
  return new DataView(buffer, byteOffset, byteLength);
}
