/** What a decap returns instead of a header length: a drop reason, told from a length by its sign. */

// @ts-expect-error: decorator
@inline
export function refuse(reason: u32): i32 {
  return ~i32(reason);
}

// @ts-expect-error: decorator
@inline
export function refusalReason(refusal: i32): u32 {
  return u32(~refusal);
}
