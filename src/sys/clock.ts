/** The only clock: monotonic, so that a change of the wall clock means nothing. */

/** What work in turns may spend in one before timers, the API and plugins have theirs. */
export const TURN_MS = 4;

/** Milliseconds since an arbitrary start; never goes back. */
export function monotonicMs(): number {
  return performance.now();
}

/**
 * Whole seconds of the same clock in every thread, which `performance.now` is not; below 2^32. For stamps that one thread makes and
 * another compares.
 */
export function monotonicSeconds(): number {
  return process.hrtime()[0];
}

/** Wall-clock time for people to read (ISO 8601, UTC). Never used for an interval. */
export function wallTime(): string {
  return new Date().toISOString();
}

/** Likewise of a stamp by `monotonicSeconds`, to the second, as the wall clock goes now. */
export function wallTimeOf(stamp: number): string {
  const [seconds, nanoseconds] = process.hrtime();
  const agoMs = (seconds - stamp) * 1000 + nanoseconds / 1e6;
  return new Date(Math.floor((Date.now() - agoMs) / 1000) * 1000).toISOString();
}

/** Resolves after `ms`; does not keep the process alive. */
export function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => {
    setTimeout(resolve, ms).unref();
  });
}

/** Runs `work` every `ms` until the returned function is called; does not keep the process alive. */
export function every(ms: number, work: () => void): () => void {
  const timer = setInterval(work, ms);
  timer.unref();
  return () => clearInterval(timer);
}

/** Runs `work` once after `ms` unless the returned function is called first; does not keep the process alive. */
export function after(ms: number, work: () => void): () => void {
  const timer = setTimeout(work, ms);
  timer.unref();
  return () => clearTimeout(timer);
}

/**
 * Whether the work is over within `ms`; it goes on otherwise, and how it ends is nobody's business then. Rejects as the work
 * does. Keeps the process alive meanwhile.
 */
export async function isOverWithin(work: Promise<unknown>, ms: number): Promise<boolean> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<false>((resolve) => {
    timer = setTimeout(resolve, ms, false);
  });
  try {
    return await Promise.race([work.then(() => true), late]);
  } finally {
    clearTimeout(timer);
  }
}

/** Resolves when the event loop has gone round once. */
export function nextTurn(): Promise<void> {
  return new Promise((resolve) => {
    setImmediate(resolve);
  });
}

/**
 * A share of a thread's time that begins now: whether it is spent. To be asked after each piece of work: how long one takes is
 * never known, so that a number of them is no bound.
 */
export function timeShare(ms: number, nowMs: () => number = monotonicMs): () => boolean {
  const end = nowMs() + ms;
  return () => nowMs() >= end;
}

/** Does something with each, and lets others have their turn whenever a share of time is spent: there may be a million. */
export async function inTurns<T>(all: Iterable<T>, work: (each: T) => void): Promise<void> {
  let isSpent = timeShare(TURN_MS);
  for (const each of all) {
    work(each);
    if (!isSpent()) continue;
    await nextTurn();
    isSpent = timeShare(TURN_MS);
  }
}
