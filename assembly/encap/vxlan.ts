/**
 * VXLAN header, 8 bytes (RFC 7348 section 5):
 *
 *   0               8              24              56
 *   | flags, I = 08 | reserved     | VNI           | reserved |
 *
 * Sent with every reserved bit zero; received with every reserved bit ignored, or dropped. Mirror of `src/encap/vxlan.ts`.
 */
import { DROP_RX_BAD_HEADER, DROP_RX_SHORT_DATAGRAM } from '../layout';
import { refuse } from './refusal';

const FLAGS: usize = 0;
const I_FLAG: u8 = 0x08;
const VNI: usize = 4;
export const VXLAN_BYTES: u32 = 8;

/** Vnetid of the datagram that `decapVxlan` accepted last. */
export let vxlanVnetid: u64 = 0;

/** Writes the header in front of a frame; returns its length. */
// @ts-expect-error: decorator
@inline
export function encapVxlan(frame: usize, template: usize, vnetid: u64): u32 {
  const header = frame - VXLAN_BYTES;
  store<u32>(header, load<u32>(template), FLAGS);
  store<u32>(header, bswap(u32(vnetid) << 8), VNI);
  return VXLAN_BYTES;
}

/** Length of the header, or a refusal. */
// @ts-expect-error: decorator
@inline
export function decapVxlan(datagram: usize, length: u32): i32 {
  if (length < VXLAN_BYTES) return refuse(DROP_RX_SHORT_DATAGRAM);
  if ((load<u8>(datagram, FLAGS) & I_FLAG) == 0) return refuse(DROP_RX_BAD_HEADER);
  vxlanVnetid = bswap(load<u32>(datagram, VNI)) >> 8;
  return VXLAN_BYTES;
}

// All but the I flag and the VNI.
const RESERVED_MASK: u64 = 0xff000000fffffff7;

/** True when a reserved bit of a header that was accepted is not zero. */
export function vxlanReserved(datagram: usize): bool {
  return (load<u64>(datagram) & RESERVED_MASK) != 0;
}

// Flags byte and VNI of the header as one little-endian word.
const SIGNATURE_MASK: u64 = 0x00ffffff00000008;

/** Two datagrams of one signature have the same VNI, and if one is accepted so is the other. See the registry. */
@inline
export function vxlanSignature(datagram: usize): u64 {
  return load<u64>(datagram) & SIGNATURE_MASK;
}
