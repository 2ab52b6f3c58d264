/** Long work on the main thread in slices, so that everything else goes on. */
import { monotonicMs, nextTurn } from '../../sys/clock.js';

/** How long the event loop waits for a slice. */
const SLICE_MS = 4;

export interface Slicing {
  /** Aborted: the work ends with the signal's reason. */
  readonly signal: AbortSignal;
  /** Hears after each slice how much is done, as the steps say. */
  readonly onProgress: (done: number) => void;
}

/** Takes all the steps of a generator, and gives the event loop a turn after each slice. */
export async function inSlices<T>(steps: Generator<number, T>, slicing: Slicing): Promise<T> {
  for (;;) {
    const end = monotonicMs() + SLICE_MS;
    let done = 0;
    do {
      const step = steps.next();
      if (step.done) return step.value;
      done = step.value;
    } while (monotonicMs() < end);
    slicing.onProgress(done);
    await nextTurn();
    slicing.signal.throwIfAborted();
  }
}
