/**
 * Search for the path MTU of one destination by probes (RFC 8899), for ways on which routers say nothing. A probe is a packet of
 * the size in question that the far host answers; here is decided which size is asked about when, and what follows.
 *
 * | state      | asks about                                       | it arrives | it does not         |
 * |------------|--------------------------------------------------|------------|---------------------|
 * | base       | a size that nearly every way takes               | searching  | error               |
 * | error      | the least that there may be (less with IPv4 alone) | searching | unanswered          |
 * | searching  | what lies between what arrives and what does not | searching  | searching           |
 * | complete   | what was found, now and then                     | complete   | searching           |
 * | unanswered | (later) base                                     |            |                     |
 *
 * `searching` becomes `complete` when nothing is in between. Where not even the least is answered nothing can be told: the host is
 * gone, or answers nobody, and what was found before stays.
 *
 * A size does not arrive when PROBES_MAX probes of it were lost, each of them while a smaller one, sent right after it, arrived:
 * else it was the host that was away, and everything begins anew.
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
  /** How many times as long as otherwise whatever is asked now and then waits: there are many destinations. */
  pace = 1;
  /** The largest size that is known to arrive, and the smallest that is known not to. */
  #low = 0;
  #high: number;
  /** The most that this host's own link takes of `most`, as far as it has said so. */
  #limit: number;
  /** Sizes to ask about first. */
  #first: number[];
  /** Size that is in question. */
  #candidate = 0;
  /** Of it: how often it was lost, and whether it was that a smaller one is to tell. */
  #lost = 0;
  #isDoubted = false;
  /** How often in a row nothing came at all. */
  #silences = 0;
  #asked = 0;
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
    this.#limit = most;
    this.#high = most + 1;
    this.#first = [most];
    this.#dueMs = nowMs;
  }

  /** Bytes of the largest packet that arrives, which may be `limit`; undefined while it is not known to be less than that. */
  get found(): number | undefined {
    if (this.#low === 0 || (this.#low < this.#limit && this.#high > this.#limit)) return undefined;
    return this.#low;
  }

  /** Bytes of the largest packet that leaves this host: what does not is the kernel's to say, and no path's. */
  get limit(): number {
    return this.#limit;
  }

  /** Bytes that were asked about last, 0 when nothing is open. */
  get asked(): number {
    return this.#asked;
  }

  /** When there is something to ask, or to be taken as lost. */
  get dueMs(): number {
    return this.#dueMs;
  }

  /** Bytes of the packet to be probed with now, or undefined while there is nothing to ask, or an answer may still come. */
  next(nowMs: number): number | undefined {
    if (nowMs < this.#dueMs) return undefined;
    if (this.#asked > 0) this.#lose(nowMs);
    if (nowMs < this.#dueMs) return undefined;
    if (this.state === 'unanswered') this.#begin([this.most]);
    if (this.state === 'complete' && nowMs >= this.#raiseMs) this.#raise();
    if (this.#candidate === 0) this.#candidate = this.#choose();
    this.#asked = this.#isDoubted ? this.#control : this.#candidate;
    this.#dueMs = nowMs + ANSWER_MS_MAX;
    return this.#asked;
  }

  /** The probe of the size that was asked about last has arrived. */
  answered(nowMs: number): void {
    if (this.#asked === 0) return;
    const wasAway = this.#silences > 0;
    this.#asked = this.#silences = 0;
    this.#dueMs = nowMs;
    if (this.#isDoubted) {
      this.#isDoubted = false;
      // The host was there all the time: it was the size.
      if (!wasAway && ++this.#lost >= PROBES_MAX) this.#refute(nowMs);
      return;
    }
    const bytes = this.#candidate;
    this.#candidate = this.#lost = 0;
    this.#low = bytes;
    if (this.state === 'complete') this.#rest(nowMs);
    else this.#search(nowMs);
  }

  /** The last probe is larger than what this host's own link takes. */
  refused(nowMs: number): void {
    this.#asked = 0;
    this.#dueMs = nowMs;
    if (this.state === 'base') this.#fallBack();
    else if (this.state === 'error' || this.#isDoubted) this.#giveUp(nowMs);
    else {
      this.#limit = this.#candidate - 1;
      this.#refute(nowMs);
    }
  }

  /** The last probe could not be sent: that says nothing of the way. */
  unsent(nowMs: number): void {
    this.#asked = 0;
    this.#dueMs = nowMs + ANSWER_MS_MAX;
  }

  /**
   * A router says how much fits. True where that is news that must be believed: what was found is looked at first
   * (section 4.6.2), and with one probe lost it is no more.
   */
  told(said: number, nowMs: number): boolean {
    const bytes = Math.max(said, this.#least);
    if (bytes >= Math.min(this.#high, this.most)) return false;
    if (this.state !== 'complete') {
      this.#first = [bytes, bytes + 1, this.most];
      return true;
    }
    if (bytes >= this.#low) return false;
    if (this.#asked === 0) this.#dueMs = nowMs;
    return false;
  }

  /** What was found has just been lost once: whoever has been told of less may believe it now. */
  get isShaken(): boolean {
    return this.state === 'complete' && this.#isDoubted;
  }

  /** As `told`, of what `isShaken` is true of: the search begins with that. */
  believe(bytes: number, nowMs: number): void {
    this.#begin([bytes, bytes + 1, this.most]);
    this.#dueMs = nowMs;
  }

  /** A probe got no answer in time. */
  #lose(nowMs: number): void {
    this.#asked = 0;
    this.#dueMs = nowMs;
    if (!this.#isDoubted && this.#control > 0) {
      this.#isDoubted = true;
      return;
    }
    if (++this.#silences < PROBES_MAX) return;
    this.#silences = 0;
    // Neither the size nor a smaller one: nobody is there.
    if (this.state === 'base' && this.#base > this.#least) this.#fallBack();
    else if (this.state === 'base' || this.state === 'error') this.#giveUp(nowMs);
    else this.#begin([this.most]);
  }

  #fallBack(): void {
    this.state = 'error';
    this.#candidate = this.#least;
  }

  /** The size in question does not arrive, and smaller ones do. */
  #refute(nowMs: number): void {
    const bytes = this.#candidate;
    // A black hole, unless it was only tried.
    if (bytes === this.#low) this.#low = this.#control;
    this.#high = bytes;
    this.#candidate = this.#lost = 0;
    this.#isDoubted = false;
    this.#search(nowMs);
  }

  /** From the beginning. @param first sizes to ask about first */
  #begin(first: number[]): void {
    this.state = 'base';
    this.#low = this.#candidate = this.#asked = this.#lost = this.#silences = 0;
    this.#isDoubted = false;
    this.#limit = this.most;
    this.#high = this.most + 1;
    this.#first = first;
  }

  #giveUp(nowMs: number): void {
    this.#begin([]);
    this.state = 'unanswered';
    this.#dueMs = nowMs + UNANSWERED_MS * this.pace;
  }

  /** Goes on between what arrives and what does not. */
  #search(nowMs: number): void {
    this.state = 'searching';
    this.#dueMs = nowMs;
    if (this.#low >= this.#high) this.#high = this.#limit + 1;
    this.#first = this.#first.filter((bytes) => bytes > this.#low && bytes < this.#high);
    if (this.#high - this.#low > 1) return;
    this.state = 'complete';
    this.#raiseMs = nowMs + RAISE_MS;
    this.#rest(nowMs);
  }

  #rest(nowMs: number): void {
    this.#dueMs = nowMs + CONFIRM_MS * this.pace;
  }

  /** The way may take more by now. */
  #raise(): void {
    this.#raiseMs = Number.POSITIVE_INFINITY;
    if (this.#low >= this.most) return;
    this.state = 'searching';
    this.#candidate = 0;
    this.#first = [this.#low + 1, this.most];
    this.#limit = this.most;
    this.#high = this.most + 1;
  }

  #choose(): number {
    if (this.state === 'base') return this.#base;
    if (this.state === 'error') return this.#least;
    if (this.state === 'complete') return this.#low;
    return this.#first[0] ?? Math.floor((this.#low + this.#high) / 2);
  }

  /** A size that must arrive if the host is there, less than the one in question; 0 where there is none. */
  get #control(): number {
    if (this.#candidate > this.#low) return this.#low;
    return [this.#base, this.#least].find((bytes) => bytes < this.#candidate) ?? 0;
  }

  get #base(): number {
    return Math.min(PATH_MTU_BASE_BYTES[this.family], this.most);
  }

  get #least(): number {
    return Math.min(PATH_MTU_MIN_BYTES[this.family], this.most);
  }
}
