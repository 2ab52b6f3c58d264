/** Lines of one kind in the log: one a second at most, with the number of those that were left out. */
import { monotonicMs } from '../../sys/clock.js';

const LINE_MS = 1000;

export class RareLog {
  /** So many times it happened, said or not. */
  count = 0;
  #saidAtMs = Number.NEGATIVE_INFINITY;
  #said = 0;

  /** @param say writes the line; `more` is how often the same happened since the last one, beside this time */
  constructor(
    readonly say: (text: string, more: number) => void,
    readonly nowMs: () => number = monotonicMs,
  ) {}

  /** It happened, `times` at once. */
  note(text: string, times = 1): void {
    if (times < 1) return;
    this.count += times;
    const now = this.nowMs();
    if (now - this.#saidAtMs < LINE_MS) return;
    this.say(text, this.count - this.#said - 1);
    this.#saidAtMs = now;
    this.#said = this.count;
  }
}
