/**
 * NVGRE header, 8 bytes: GRE with a key and nothing else (RFC 7637 section 3.2, RFC 2890):
 *
 *   0                        16               32              56
 *   | C=0 | K=1 | S=0 | Ver=0 | EtherType     | VSID          | FlowID |
 *
 * The FlowID is the low byte of the flow hash. Sent with every reserved bit zero. Received: bits 1, 4 and 5 must be zero (RFC 2784
 * section 2.3), bits 6 to 12 are ignored. Mirror of `src/encap/nvgre.ts`.
 */
import { DROP_RX_BAD_HEADER, DROP_RX_NOT_ETHERNET, DROP_RX_SHORT_DATAGRAM } from '../layout';
import { refuse } from './refusal';

/** Flags C, K, S, bits 1, 4, 5 and the version, as they lie in memory, and what they must be: a key alone. */
const FORM_MASK: u16 = 0x07fc;
const FORM: u16 = 0x0020;
const PROTOCOL: usize = 2;
/** Transparent Ethernet bridging, 0x6558, as it lies in memory. */
const ETHERNET: u16 = 0x5865;
const KEY: usize = 4;
export const NVGRE_BYTES: u32 = 8;

/** Vnetid of the datagram that `decapNvgre` accepted last. */
export let nvgreVnetid: u64 = 0;

/** Writes the header in front of a frame; returns its length. @param flow the low byte of the flow hash */
// @ts-expect-error: decorator
@inline
export function encapNvgre(frame: usize, template: usize, vnetid: u64, flow: u8): u32 {
  const header = frame - NVGRE_BYTES;
  store<u32>(header, load<u32>(template));
  store<u32>(header, bswap((u32(vnetid) << 8) | u32(flow)), KEY);
  return NVGRE_BYTES;
}

/** Length of the header, or a refusal. */
// @ts-expect-error: decorator
@inline
export function decapNvgre(datagram: usize, length: u32): i32 {
  if (length < NVGRE_BYTES) return refuse(DROP_RX_SHORT_DATAGRAM);
  if ((load<u16>(datagram) & FORM_MASK) != FORM) return refuse(DROP_RX_BAD_HEADER);
  if (load<u16>(datagram, PROTOCOL) != ETHERNET) return refuse(DROP_RX_NOT_ETHERNET);
  nvgreVnetid = bswap(load<u32>(datagram, KEY)) >> 8;
  return NVGRE_BYTES;
}

// Bits 6 to 12, of which the highest five are in the second byte.
const RESERVED_MASK: u16 = 0xf803;

/** True when a reserved bit of a header that was accepted is not zero. */
export function nvgreReserved(datagram: usize): bool {
  return (load<u16>(datagram) & RESERVED_MASK) != 0;
}

// All but the bits that are ignored and the FlowID, as one little-endian word.
const SIGNATURE_MASK: u64 = 0x00ffffffffff07fc;

/** Two datagrams of one signature have the same VSID, and if one is accepted so is the other. See the registry. */
@inline
export function nvgreSignature(datagram: usize): u64 {
  return load<u64>(datagram) & SIGNATURE_MASK;
}
