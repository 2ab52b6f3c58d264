/**
 * The checksum of IP, TCP and UDP (RFC 1071): words of 16 bits summed in ones' complement. Words are taken as a
 * little-endian load sees them, which gives the sum with its bytes swapped (RFC 1071 section 2 (B)), just as it is stored.
 */

const BIAS: i16 = -0x8000;

/** Sum of `length` bytes, unfolded; an odd last byte counts as if a zero followed it. @param length at most 2^20 */
export function sumBytes(from: usize, length: u32): u64 {
  // `dot` multiplies signed words, so each is made smaller by 2^15 and what was taken is added in the end.
  const flip = i16x8.splat(BIAS);
  const one = i16x8.splat(1);
  let at = from;
  const end = from + length;
  let a = i32x4.splat(0);
  let b = i32x4.splat(0);
  let c = i32x4.splat(0);
  let d = i32x4.splat(0);
  while (at + 64 <= end) {
    a = i32x4.add(a, i32x4.dot_i16x8_s(v128.xor(v128.load(at), flip), one));
    b = i32x4.add(b, i32x4.dot_i16x8_s(v128.xor(v128.load(at, 16), flip), one));
    c = i32x4.add(c, i32x4.dot_i16x8_s(v128.xor(v128.load(at, 32), flip), one));
    d = i32x4.add(d, i32x4.dot_i16x8_s(v128.xor(v128.load(at, 48), flip), one));
    at += 64;
  }
  const all = i32x4.add(i32x4.add(a, b), i32x4.add(c, d));
  const low = i64x2.extend_low_i32x4_s(all);
  const high = i64x2.extend_high_i32x4_s(all);
  const both = i64x2.add(low, high);
  let sum = u64(i64x2.extract_lane(both, 0) + i64x2.extract_lane(both, 1)) + (u64(at - from) << 14);
  while (at + 8 <= end) {
    const word = load<u64>(at);
    sum += (word & 0xffffffff) + (word >> 32);
    at += 8;
  }
  while (at + 2 <= end) {
    sum += load<u16>(at);
    at += 2;
  }
  if (at < end) sum += load<u8>(at);
  return sum;
}

/** The 16 bits that a sum stands for. */
// @ts-expect-error: decorator
@inline
export function fold(sum: u64): u16 {
  let folded = (sum & 0xffffffff) + (sum >> 32);
  folded = (folded & 0xffff) + ((folded >> 16) & 0xffff) + (folded >> 32);
  folded = (folded & 0xffff) + (folded >> 16);
  folded = (folded & 0xffff) + (folded >> 16);
  return u16(folded);
}
