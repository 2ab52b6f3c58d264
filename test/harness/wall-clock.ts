/** A wall clock that can be stepped, as an operator or NTP does: that of this thread alone. */
export const DAY_MS = 86_400_000;

/** @param work is given a function that puts the wall clock off by so many milliseconds against the real one */
export async function withSteppedClock(
  work: (stepTo: (byMs: number) => void) => void | Promise<void>,
): Promise<void> {
  const RealDate = Date;
  const stepTo = (byMs: number): void => {
    globalThis.Date = class extends RealDate {
      constructor(...given: [] | [number]) {
        super(given[0] ?? RealDate.now() + byMs);
      }
      static override now = () => RealDate.now() + byMs;
    } as DateConstructor;
  };
  try {
    await work(stepTo);
  } finally {
    globalThis.Date = RealDate;
  }
}
