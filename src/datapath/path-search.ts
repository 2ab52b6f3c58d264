/**
 * Search for the path MTU of one destination by probes (RFC 8899), for ways on which routers say nothing. A probe is a packet of
 * the size in question that the far host answers; here is decided which size is asked about when, and what follows.
 *
 * | state      | asks about                                | answered  | lost, PROBES_MAX times |
 * |------------|-------------------------------------------|-----------|------------------------|
 * | base       | a size that nearly every way takes        | searching | error                  |
 * | error      | the least that there may be               | searching | unanswered             |
 * | searching  | what lies between what arrives and does not | searching | searching            |
 * | complete   | what was found, now and then              | complete  | base                   |
 * | unanswered | (later) base                              |           |                        |
 *
 * `searching` becomes `complete` when nothing is in between. Where not even the least is answered nothing can be told: the host is
 * gone, or answers nobody, and what was found before stays.
 *
 * Unlike RFC 8899 nothing is held back before the first answer: guests send what the underlay's own link takes, and a way
 * that takes less shows within seconds.
 */
import type { Family } from '../ip.js';
import { PATH_MTU_BASE_BYTES, PATH_MTU_MIN_BYTES } from '../limits.js';

export type SearchState = 'base' | 'error' | 'searching' | 'complete' | 'unanswered';

/** Section 5.1.2. */
const PROBES_MAX = 3;
/** For an answer; not less than a second (section 5.1.1). */
export const ANSWER_MS_MAX = 1000;
/** How often it is looked whether what was found still holds. */
export const CONFIRM_MS = 15_000;
/** How often more is tried (PMTU_RAISE_TIMER). */
export const RAISE_MS = 600_000;
/** How often a host is asked that has answered nothing. */
export const UNANSWERED_MS = 60_000;

export class PathSearch {
  state: SearchState = 'base';
  /** The largest size that is known to arrive, and the smallest that is not known to. */
  #low = 0;
  #high: number;
  /** Something larger than `low` was lost: it is not merely untried. */
  #isBounded = false;
  /** Sizes to ask about first. */
  #first: number[];
  #asked = 0;
  #lost = 0;
  #dueMs: number;
  #raiseMs = Number.POSITIVE_INFINITY;

  /**
   * @param family of the outer header
   * @param most bytes of the largest packet that is ever sent
   * @param nowMs of the first probe
   */
  constructor(
    readonly family: Family,
    readonly most: number,
    nowMs: number,
  ) {
    this.#high = most + 1;
    this.#first = [most];
    this.#dueMs = nowMs;
  }

  /**
   * Bytes of the largest packet that arrives; `all` when the largest that is sent does, undefined while that is not known.
   */
  get found(): number | 'all' | undefined {
    if (this.#low >= this.most) return 'all';
    return this.#isBounded && this.#low > 0 ? this.#low : undefined;
  }

  /** Whether there is something to ask, or to be taken as lost. */
  isDue(nowMs: number): boolean {
    return nowMs >= this.#dueMs;
  }

  /** Bytes that were asked about last, 0 when nothing is open. */
  get asked(): number {
    return this.#asked;
  }

  /** Bytes of the packet to be probed with now, or undefined while there is nothing to ask, or an answer may still come. */
  next(nowMs: number): number | undefined {
    if (!this.isDue(nowMs)) return undefined;
    if (this.#asked > 0) this.#lose(nowMs);
    if (!this.isDue(nowMs)) return undefined;
    if (this.state === 'unanswered') this.#begin();
    if (this.state === 'complete' && nowMs >= this.#raiseMs) this.#raise();
    this.#asked = this.#size();
    this.#dueMs = nowMs + ANSWER_MS_MAX;
    return this.#asked;
  }

  /** A probe of the size that was asked about last has arrived. */
  answered(nowMs: number): void {
    if (this.#asked === 0) return;
    this.#low = this.#asked;
    this.#asked = this.#lost = 0;
    if (this.state === 'complete') this.#dueMs = nowMs + CONFIRM_MS;
    else this.#search(nowMs);
  }

  /** The last probe could not even be sent: its size is more than this host's own link takes. */
  refused(nowMs: number): void {
    this.#lost = PROBES_MAX - 1;
    this.#lose(nowMs);
  }

  /** A router says how much fits: looked at first, and believed when it is so (section 4.6.2). */
  told(bytes: number, nowMs: number): void {
    if (this.state === 'unanswered' || bytes === this.#low) return;
    if (bytes >= this.#high || bytes < PATH_MTU_MIN_BYTES[this.family]) return;
    if (bytes < this.#low) {
      this.#begin();
      // What the router says is in force meanwhile.
      this.#isBounded = false;
      this.#dueMs = nowMs;
    }
    // The last in case it is not so.
    this.#first = [bytes, bytes + 1, this.most];
  }

  /** One probe got no answer in time. */
  #lose(nowMs: number): void {
    this.#dueMs = nowMs;
    if (++this.#lost < PROBES_MAX) return;
    const bytes = this.#asked;
    this.#lost = this.#asked = 0;
    switch (this.state) {
      case 'base':
        this.#bound(bytes);
        if (this.#base > this.#least) this.state = 'error';
        else this.#giveUp(nowMs);
        return;
      case 'error':
        this.#giveUp(nowMs);
        return;
      case 'complete':
        // What arrived does not any more: a black hole, or the host is gone. A smaller one tells which.
        this.#begin();
        this.#bound(bytes);
        return;
      default:
        this.#bound(bytes);
        this.#search(nowMs);
    }
  }

  #bound(bytes: number): void {
    this.#high = bytes;
    this.#isBounded = true;
  }

  /** From the beginning. */
  #begin(): void {
    this.state = 'base';
    this.#low = this.#asked = this.#lost = 0;
    this.#high = this.most + 1;
    this.#first = [this.most];
  }

  #giveUp(nowMs: number): void {
    this.state = 'unanswered';
    this.#dueMs = nowMs + UNANSWERED_MS;
  }

  /** Goes on between what arrives and what does not. */
  #search(nowMs: number): void {
    this.state = 'searching';
    this.#dueMs = nowMs;
    // It was lost before, and arrives now.
    if (this.#low >= this.#high) this.#high = this.most + 1;
    this.#first = this.#first.filter((bytes) => bytes > this.#low && bytes < this.#high);
    if (this.#high - this.#low > 1) return;
    this.state = 'complete';
    this.#dueMs = nowMs + CONFIRM_MS;
    this.#raiseMs = nowMs + RAISE_MS;
  }

  /** The way may take more by now. */
  #raise(): void {
    this.#raiseMs = Number.POSITIVE_INFINITY;
    if (this.#low >= this.most) return;
    this.state = 'searching';
    this.#high = this.most + 1;
    this.#first = [this.#low + 1, this.most];
  }

  #size(): number {
    if (this.state === 'base') return this.#base;
    if (this.state === 'error') return this.#least;
    if (this.state === 'complete') return this.#low;
    return this.#first[0] ?? Math.floor((this.#low + this.#high) / 2);
  }

  get #base(): number {
    return Math.min(PATH_MTU_BASE_BYTES[this.family], this.most);
  }

  get #least(): number {
    return Math.min(PATH_MTU_MIN_BYTES[this.family], this.most);
  }
}
