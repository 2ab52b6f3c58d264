/**
 * Whether a worker that has run out of work looks again at once or sleeps. To be woken costs whoever sends, most of all on
 * virtual machines; to look in vain costs whoever else wants the CPU. So the worker looks on for a moment, gives way to others in
 * between, and does so less and less often while it does not pay:
 *
 *   work done ─► looks on for at most `ms` ─ finds some ─► it pays: does so every time
 *                                          └ finds none ─► sleeps, and sleeps at once the next 1, 3, 7 ... PAUSE_MAX times
 */
const PAUSE_MAX = 63;

export class BusyPoll {
  /** When to stop looking; 0 while it is not. */
  #until = 0;
  /** How often it sleeps at once before it tries again. */
  #left = 0;
  #pause = 0;

  /** @param ms 0 for not at all, @param now milliseconds of a clock that never goes back */
  constructor(
    readonly ms: number,
    readonly now: () => number,
  ) {}

  /** True while the next wait is not to sleep. */
  get isLooking(): boolean {
    if (this.#until === 0) return false;
    if (this.now() < this.#until) return true;
    this.#until = 0;
    this.#pause = Math.min(this.#pause * 2 + 1, PAUSE_MAX);
    this.#left = this.#pause;
    return false;
  }

  /** A wait has brought work, which is done now. */
  worked(): void {
    if (this.ms === 0) return;
    if (this.#until !== 0) this.#pause = 0;
    if (this.#left > 0) this.#left--;
    else this.#until = this.now() + this.ms;
  }
}
