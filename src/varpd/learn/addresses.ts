/**
 * The addresses that one overlay has learned: where each is, since when it was not heard of, and how often it has moved. Time and
 * data path are handed in. What becomes of an address that is seen behind a VTEP:
 *
 *   not known       learned, or not: the limit is reached
 *   there           as it was
 *   elsewhere       moves there, or not: it is sticky, or has moved so often that it is held where it is (RFC 7432 section 15.1)
 *   set by hand     as it was
 *
 * A held address follows as soon as its old place is silent for SILENT_SECONDS, since a loop or a duplicate keeps sending there.
 *
 * One that was not seen for `ageSeconds` is forgotten. So is, sooner, that frames to an unknown address are flooded, so that a scan
 * does not fill the target cache.
 */

import { KeyedQueue } from '../../keyed-queue.js';
import { timeShare } from '../../sys/clock.js';

/** Seconds without a frame from the old place after which a held address follows to the new one. */
export const SILENT_SECONDS = 3;
/** How long an unknown address is flooded to before it is looked at again. */
export const FLOOD_SECONDS = 60;
/** What a sweep may spend. */
export const SWEEP_SPENT_MS = 2;
/** Addresses that leave for one that comes: more than one, so that what is beyond the limit gets fewer. */
const EVICTED_MAX = 2;
/** Addresses named in what is said about those that are held. */
const NAMED_MAX = 3;

export interface AddressesOptions {
  /** Seconds without a frame from it after which an address is forgotten; 0 for never. */
  readonly ageSeconds: number;
  /** Addresses learned, and as many flooded to, at most. */
  readonly limit: number;
  /** Addresses stay where they were first seen. */
  readonly isSticky: boolean;
  /** Moves within `movesSeconds` after which an address is held; 0 for never. */
  readonly movesMax: number;
  readonly movesSeconds: number;
  /** Longest time that an address is held. */
  readonly holdSeconds: number;
  nowSeconds(): number;
  nowMs(): number;
  lastSeen(mac: string): number;
  isStatic(mac: string): boolean;
  /** Nothing of it is under way in the target cache. */
  isSettled(mac: string): boolean;
  /** Frames to it go there from now on. Throws an OverlayError when there is no room. */
  set(mac: string, ip: string): void;
  /** Nothing is known of it any more. */
  forget(mac: string): void;
  count(what: 'learned' | 'moved' | 'unlearned'): void;
}

interface Address {
  ip: string;
  /** Seconds; of the last frame from it that is known of. */
  seen: number;
  /** When it moved, the last times. */
  moves: number[];
  /** Where else it is seen, while it is held. */
  other: string | undefined;
  heldUntil: number;
}

export class LearnedAddresses {
  readonly #known = new Map<string, Address>();
  /** Addresses that are flooded to, the oldest first, and since when. */
  readonly #flooded = new KeyedQueue<string, number>();
  readonly #held = new Map<string, Address>();
  #refused = 0;
  #agedOf: Iterator<[string, Address]> | undefined;
  #heldOf: Iterator<[string, Address]> | undefined;

  constructor(readonly options: AddressesOptions) {}

  get size(): number {
    return this.#known.size;
  }

  /** Where it is, undefined when that is not known. */
  find(mac: string): string | undefined {
    return this.#known.get(mac)?.ip;
  }

  /** A frame from it has come from there. */
  observe(mac: string, ip: string): void {
    const { options } = this;
    if (options.isStatic(mac)) return;
    const known = this.#known.get(mac);
    const now = options.nowSeconds();
    if (!known) this.#learn(mac, ip, now);
    // The target cache has lost it: an operator has removed or flushed it.
    else if (known.ip === ip) options.set(mac, ip);
    else if (options.isSticky) options.count('unlearned');
    else this.#move(mac, known, ip, now);
  }

  /**
   * Frames to it are flooded. Group addresses are never learned and cost nothing to look up again, so they are like any. Beyond the
   * limit the oldest leave, unless frames to them are still on their way: those would be asked about again, flooded again, and
   * would make others leave that are, without end. How many may be on their way is the target cache's to bound.
   */
  flood(mac: string): void {
    this.#flooded.put(mac, this.options.nowSeconds());
    for (let evicted = 0; evicted < EVICTED_MAX && this.#flooded.size > this.options.limit; evicted++) {
      if (!this.#evict()) return;
    }
  }

  /** Forgets what is old; spends no more than SWEEP_SPENT_MS, and goes on the next time where it left off. */
  sweep(): void {
    const { options } = this;
    const now = options.nowSeconds();
    const isSpent = timeShare(SWEEP_SPENT_MS, options.nowMs);
    while (!isSpent() && this.#isFloodedTooLong(now) && this.#evict());
    this.#heldOf = this.#goOn(this.#heldOf ?? this.#held.entries(), isSpent, (mac, address) => {
      if (address.heldUntil <= now) this.#release(mac, address);
    });
    this.#agedOf = this.#goOn(this.#agedOf ?? this.#known.entries(), isSpent, (mac, address) =>
      this.#age(mac, address, now),
    );
  }

  /** Looks at one address after the other, one at least; where to go on, undefined behind the last. */
  #goOn(
    addresses: Iterator<[string, Address]>,
    isSpent: () => boolean,
    look: (mac: string, address: Address) => void,
  ): Iterator<[string, Address]> | undefined {
    do {
      const { done, value } = addresses.next();
      if (done) return undefined;
      look(value[0], value[1]);
    } while (!isSpent());
    return addresses;
  }

  #isFloodedTooLong(now: number): boolean {
    const oldest = this.#flooded.first;
    if (!oldest) return false;
    return this.#flooded.size > this.options.limit || now - oldest[1] > FLOOD_SECONDS;
  }

  /** The address that was flooded to first leaves; false when frames to it are on their way. */
  #evict(): boolean {
    const [oldest] = this.#flooded.first!;
    if (!this.options.isSettled(oldest)) return false;
    this.#flooded.delete(oldest);
    this.options.forget(oldest);
    return true;
  }

  /** Forgets one address, or all: an operator has removed its target, so that the next frame says anew where it is. */
  forget(mac?: string): void {
    if (mac === undefined) {
      this.#known.clear();
      this.#held.clear();
      while (this.#flooded.size > 0) this.#flooded.take();
    } else {
      this.#known.delete(mac);
      this.#held.delete(mac);
      this.#flooded.delete(mac);
    }
    if (this.size < this.options.limit) this.#refused = 0;
  }

  /** It is not held any more. */
  #release(mac: string, address: Address): void {
    this.#held.delete(mac);
    address.moves = [];
    address.other = undefined;
    address.heldUntil = 0;
  }

  /** What an operator should know, or undefined. */
  get fault(): string | undefined {
    const texts: string[] = [];
    if (this.#refused > 0 && this.size >= this.options.limit) {
      texts.push(
        `${this.size} addresses are learned, which is learn/limit: frames to others are flooded; raise it, or find who sends ` +
          'from so many',
      );
    }
    if (this.#held.size > 0) {
      const named: string[] = [];
      for (const [mac, { ip, other }] of this.#held) {
        if (named.push(`${mac} (${ip} and ${other})`) === NAMED_MAX) break;
      }
      const each = named.join(', ');
      texts.push(
        `${this.#held.size} addresses are seen behind two VTEPs in turn and held where they were for up to ${this.options.holdSeconds} s: ${each}; ` +
          'look for a loop, or for two guests with one address; modify-overlay -d lets one go',
      );
    }
    return texts.length > 0 ? texts.join('; ') : undefined;
  }

  #learn(mac: string, ip: string, now: number): void {
    const { options } = this;
    if (this.size >= options.limit) {
      this.#refused++;
      options.count('unlearned');
      return;
    }
    options.set(mac, ip);
    this.#flooded.delete(mac);
    this.#known.set(mac, { ip, seen: now, moves: [], other: undefined, heldUntil: 0 });
    options.count('learned');
  }

  #move(mac: string, known: Address, ip: string, now: number): void {
    const { options } = this;
    if (known.heldUntil > now && !this.#isSilent(mac, known, now)) {
      known.other = ip;
      options.count('unlearned');
      return;
    }
    if (this.#held.has(mac)) this.#release(mac, known);
    known.moves = [...known.moves.filter((at) => now - at < options.movesSeconds), now];
    if (options.movesMax > 0 && known.moves.length >= options.movesMax) {
      known.other = ip;
      known.heldUntil = now + options.holdSeconds;
      this.#held.set(mac, known);
      options.count('unlearned');
      return;
    }
    options.set(mac, ip);
    known.ip = ip;
    known.seen = now;
    options.count('moved');
  }

  /** Nothing has come from its old place for a while. */
  #isSilent(mac: string, { seen }: Address, now: number): boolean {
    return now - Math.max(seen, this.options.lastSeen(mac)) > SILENT_SECONDS;
  }

  #age(mac: string, address: Address, now: number): void {
    const { options } = this;
    address.seen = Math.max(address.seen, options.lastSeen(mac));
    if (options.ageSeconds === 0 || now - address.seen <= options.ageSeconds) return;
    this.#known.delete(mac);
    this.#held.delete(mac);
    if (this.size < options.limit) this.#refused = 0;
    options.forget(mac);
  }
}
