/**
 * The one place that traps on purpose. A failed check is a broken promise between our own parts (a table row
 * out of range, a buffer outside its arena), never something a frame can cause: frames get verdicts. The
 * worker catches the trap, drops that one frame as `core_trap` and goes on. See `src/overlay.ts`.
 */

// @ts-expect-error: decorator
@inline
export function check(ok: bool): void {
  if (!ok) unreachable();
}
