/**
 * ECN through the tunnel, by RFC 6040.
 *
 *   out  the outer field is the inner one ("normal mode", section 4.1), `flowClass` of `flow-hash.ts`; or zero where the device
 *        says so ("compatibility mode")
 *   in   section 4.2:        outer  Not-ECT  ECT(0)   ECT(1)   CE
 *        inner Not-ECT              Not-ECT  Not-ECT  Not-ECT  drop
 *              ECT(0)               ECT(0)   ECT(0)   ECT(1)   CE
 *              ECT(1)               ECT(1)   ECT(1)   ECT(1)   CE
 *              CE                   CE       CE       CE       CE
 */
import { innerIpAt, isInnerIpv6 } from './wire';

export const ECN_MASK: u32 = 3;
const NOT_ECT: u32 = 0;
const ECT_1: u32 = 1;
const ECT_0: u32 = 2;
const CE: u32 = 3;

/** What becomes of a received frame. */
export const ECN_KEEP: u32 = 0;
export const ECN_MARK: u32 = 1;
export const ECN_DROP: u32 = 2;

/** Puts the outer ECN field into the inner one, as the table says; an ECN_ number. Frames without IP are as they were. */
export function decapEcn(frame: usize, length: u32, outer: u32): u32 {
  if (outer != CE && outer != ECT_1) return ECN_KEEP;
  const at = innerIpAt(frame, length);
  if (at == 0) return ECN_KEEP;
  const ip = frame + at;
  const inner = u32(load<u8>(ip, 1)) >> (isInnerIpv6 ? 4 : 0) & ECN_MASK;
  if (inner == NOT_ECT) return outer == CE ? ECN_DROP : ECN_KEEP;
  if (inner == CE || inner == outer) return ECN_KEEP;
  if (outer == ECT_1 && inner != ECT_0) return ECN_KEEP;
  if (isInnerIpv6) {
    // Version, traffic class, flow label: the ECN bits are the upper ones of the second byte's lower half.
    store<u8>(ip, u8((u32(load<u8>(ip, 1)) & 0xcf) | (outer << 4)), 1);
    return ECN_MARK;
  }
  store<u8>(ip, u8((u32(load<u8>(ip, 1)) & 0xfc) | outer), 1);
  // RFC 1624, equation 3: the sum is of the words that changed, the complement of the old and the new.
  const before = u32(bswap(load<u16>(ip, IPV4_CHECKSUM)));
  let sum = (~before & 0xffff) + (~inner & 0xffff) + outer;
  sum = (sum & 0xffff) + (sum >> 16);
  sum = (sum & 0xffff) + (sum >> 16);
  store<u16>(ip, bswap(u16(~sum)), IPV4_CHECKSUM);
  return ECN_MARK;
}

const IPV4_CHECKSUM: usize = 10;
