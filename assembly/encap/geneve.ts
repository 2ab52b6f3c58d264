/**
 * Geneve header, 8 bytes and up to 63 words of options (RFC 8926 sections 3.4 and 3.5):
 *
 *   0     2             8   9   10         16              32              56
 *   | Ver | Opt words   | O | C | reserved | EtherType     | VNI           | reserved |
 *   | option class              | type, C  | R, words      | data ...                 |
 *
 * Sent with the options of the template, every reserved bit zero. Received: control packets and what is not Ethernet are not
 * forwarded; options are walked, and one that is critical is dropped, since none is known. Mirror of `src/encap/geneve.ts`.
 */
import {
  DROP_RX_BAD_HEADER,
  DROP_RX_CONTROL_PACKET,
  DROP_RX_CRITICAL_OPTION,
  DROP_RX_NOT_ETHERNET,
  DROP_RX_SHORT_DATAGRAM,
} from '../layout';
import { refuse } from './refusal';

const FLAGS: usize = 1;
const CONTROL_FLAG: u8 = 0x80;
const PROTOCOL: usize = 2;
/** Trans-Ether bridging, 0x6558, as it lies in memory. */
const ETHERNET: u16 = 0x5865;
const VNI: usize = 4;
const WORDS_MASK: u32 = 0x3f;
const VERSION_SHIFT: u32 = 6;
export const GENEVE_BYTES: u32 = 8;
/** The header of an option, in front of its data. */
const OPTION_BYTES: u32 = 4;
/** Its critical flag, and its length in words, as they lie in memory. */
const OPTION_CRITICAL_MASK: u32 = 0x00800000;
const OPTION_LENGTH_MASK: u32 = 0x1f000000;
/** From the length where it lies to bytes. */
const OPTION_LENGTH_SHIFT: u32 = 22;

/** Vnetid of the datagram that `decapGeneve` accepted last. */
export let geneveVnetid: u64 = 0;

/** Writes the header, options included, in front of a frame; returns its length. */
// @ts-expect-error: decorator
@inline
export function encapGeneve(frame: usize, template: usize, vnetid: u64): u32 {
  const words = u32(load<u8>(template)) & WORDS_MASK;
  const header = frame - GENEVE_BYTES - words * 4;
  store<u32>(header, load<u32>(template));
  store<u32>(header, bswap(u32(vnetid) << 8), VNI);
  // At most 63.
  for (let word: u32 = 0; word < words; word++) {
    store<u32>(header + word * 4, load<u32>(template + word * 4, 8), 8);
  }
  return GENEVE_BYTES + words * 4;
}

/** Length of the header, or a refusal. */
// @ts-expect-error: decorator
@inline
export function decapGeneve(datagram: usize, length: u32): i32 {
  if (length < GENEVE_BYTES) return refuse(DROP_RX_SHORT_DATAGRAM);
  const first = u32(load<u8>(datagram));
  if (first >> VERSION_SHIFT != 0) return refuse(DROP_RX_BAD_HEADER);
  const header = GENEVE_BYTES + first * 4;
  if (length < header) return refuse(DROP_RX_SHORT_DATAGRAM);
  if (load<u8>(datagram, FLAGS) & CONTROL_FLAG) return refuse(DROP_RX_CONTROL_PACKET);
  if (load<u16>(datagram, PROTOCOL) != ETHERNET) return refuse(DROP_RX_NOT_ETHERNET);
  if (first != 0) {
    const fault = optionFault(datagram, header);
    if (fault != 0) return fault;
  }
  geneveVnetid = bswap(load<u32>(datagram, VNI)) >> 8;
  return header;
}

/** Walks the options, of which each takes a word at least; a refusal, or 0. The header lies within the datagram. */
function optionFault(datagram: usize, header: u32): i32 {
  const end = datagram + header;
  let at = datagram + GENEVE_BYTES;
  let seen: u32 = 0;
  while (at < end) {
    // Words on both sides, so an option's own header is always there.
    const option = load<u32>(at);
    seen |= option;
    at += OPTION_BYTES;
    // A branch, which is foreseen: else each option would wait for the load of the one before it.
    const length = option & OPTION_LENGTH_MASK;
    if (length != 0) at += length >> OPTION_LENGTH_SHIFT;
  }
  // The last one goes beyond the options.
  if (at != end) return refuse(DROP_RX_BAD_HEADER);
  return seen & OPTION_CRITICAL_MASK ? refuse(DROP_RX_CRITICAL_OPTION) : 0;
}

// The low six bits of the second byte, and the last byte.
const RESERVED_MASK: u64 = 0xff00000000003f00;
/** Of an option's header. */
const OPTION_RESERVED_MASK: u32 = 0xe0000000;

/** True when a reserved bit of a header that was accepted, or of one of its options, is not zero. */
export function geneveReserved(datagram: usize): bool {
  if (load<u64>(datagram) & RESERVED_MASK) return true;
  const end = datagram + GENEVE_BYTES + (u32(load<u8>(datagram)) & WORDS_MASK) * 4;
  let at = datagram + GENEVE_BYTES;
  // The chain was walked before, so it ends where it should.
  while (at < end) {
    const option = load<u32>(at);
    if (option & OPTION_RESERVED_MASK) return true;
    at += OPTION_BYTES + ((option & OPTION_LENGTH_MASK) >> OPTION_LENGTH_SHIFT);
  }
  return false;
}

// Version, words of options, flags O and C, protocol and VNI of the header as one little-endian word.
const SIGNATURE_MASK: u64 = 0x00ffffffffffc0ff;
/** No header without options has this bit. */
const ALONE: u64 = 0x8000000000000000;

/**
 * Two datagrams of one signature have the same VNI, and if one is accepted so is the other. See the registry. Those with options
 * are all different, since 8 bytes do not tell what is in the options.
 */
@inline
export function geneveSignature(datagram: usize): u64 {
  const signature = load<u64>(datagram) & SIGNATURE_MASK;
  return u32(signature) & WORDS_MASK ? ALONE | u64(datagram) : signature;
}
