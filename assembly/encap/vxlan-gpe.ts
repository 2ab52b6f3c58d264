/**
 * VXLAN-GPE header, 8 bytes (draft-ietf-nvo3-vxlan-gpe-13 section 3):
 *
 *   0                             8              24              32              56
 *   | R R Ver Ver I P B O         | reserved     | next protocol | VNI           | reserved |
 *
 * Sent with I and P set and Ethernet as the next protocol. Received: OAM packets and protocols other than Ethernet are not
 * forwarded; without P it is a VXLAN header. Mirror of `src/encap/vxlan-gpe.ts`.
 */
import { DROP_RX_BAD_HEADER, DROP_RX_CONTROL_PACKET, DROP_RX_NOT_ETHERNET, DROP_RX_SHORT_DATAGRAM } from '../layout';
import { refuse } from './refusal';

const VERSION_MASK: u32 = 0x30;
const I_FLAG: u32 = 0x08;
const P_FLAG: u32 = 0x04;
const O_FLAG: u32 = 0x01;
const NEXT_PROTOCOL: usize = 3;
const ETHERNET: u8 = 3;
const VNI: usize = 4;
export const VXLAN_GPE_BYTES: u32 = 8;

/** Vnetid of the datagram that `decapVxlanGpe` accepted last. */
export let vxlanGpeVnetid: u64 = 0;

/** Writes the header in front of a frame; returns its length. */
// @ts-expect-error: decorator
@inline
export function encapVxlanGpe(frame: usize, template: usize, vnetid: u64): u32 {
  const header = frame - VXLAN_GPE_BYTES;
  store<u32>(header, load<u32>(template));
  store<u32>(header, bswap(u32(vnetid) << 8), VNI);
  return VXLAN_GPE_BYTES;
}

/** Length of the header, or a refusal. */
// @ts-expect-error: decorator
@inline
export function decapVxlanGpe(datagram: usize, length: u32): i32 {
  if (length < VXLAN_GPE_BYTES) return refuse(DROP_RX_SHORT_DATAGRAM);
  const flags = u32(load<u8>(datagram));
  if ((flags & (VERSION_MASK | I_FLAG)) != I_FLAG) return refuse(DROP_RX_BAD_HEADER);
  if (flags & O_FLAG) return refuse(DROP_RX_CONTROL_PACKET);
  if (flags & P_FLAG && load<u8>(datagram, NEXT_PROTOCOL) != ETHERNET) return refuse(DROP_RX_NOT_ETHERNET);
  vxlanGpeVnetid = bswap(load<u32>(datagram, VNI)) >> 8;
  return VXLAN_GPE_BYTES;
}

// Two flags, the reserved field, the last byte; and the next protocol where nothing says that there is one.
const RESERVED_MASK: u64 = 0xff00000000ffffc0;
const NEXT_PROTOCOL_MASK: u64 = 0x00000000ff000000;

/** True when a reserved bit of a header that was accepted is not zero. */
export function vxlanGpeReserved(datagram: usize): bool {
  const header = load<u64>(datagram);
  const mask = header & P_FLAG ? RESERVED_MASK : RESERVED_MASK | NEXT_PROTOCOL_MASK;
  return (header & mask) != 0;
}

// Flags that decide, next protocol and VNI, as one little-endian word.
const SIGNATURE_MASK: u64 = 0x00ffffffff00003d;

/** Two datagrams of one signature have the same VNI, and if one is accepted so is the other. See the registry. */
@inline
export function vxlanGpeSignature(datagram: usize): u64 {
  return load<u64>(datagram) & SIGNATURE_MASK;
}
