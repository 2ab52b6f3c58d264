/**
 * The addresses that one overlay has learned: where each is, since when it was not heard of, and how often it has moved. Time and
 * data path are handed in. What becomes of an address that is seen behind a VTEP:
 *
 *   not known       learned, or not: the limit is reached
 *   there           as it was
 *   elsewhere       moves there, or not: it is sticky, or has moved so often that it is held where it is (RFC 7432 section 15.1)
 *   set by hand     as it was
 *
 * One that was not seen for `ageSeconds` is forgotten. So is, sooner, that frames to an unknown address are flooded, so that a scan
 * does not fill the target cache.
 */

/** Moves within a time after which an address is held. */
export const MOVES_MAX = 5;
export const MOVES_SECONDS = 180;
/** How long it is held where it was seen last. */
export const HOLD_SECONDS = 180;
/** How long an unknown address is flooded to before it is looked at again. */
export const FLOOD_SECONDS = 60;
/** Addresses looked at in one sweep. */
export const SWEEP_MAX = 1000;
/** Addresses named in what is said about those that are held. */
const NAMED_MAX = 3;

export interface AddressesOptions {
  /** Seconds without a frame from it after which an address is forgotten; 0 for never. */
  readonly ageSeconds: number;
  /** Addresses learned, and as many flooded to, at most. */
  readonly limit: number;
  /** Addresses stay where they were first seen. */
  readonly isSticky: boolean;
  nowSeconds(): number;
  lastSeen(mac: string): number;
  isStatic(mac: string): boolean;
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
  readonly #flooded = new Map<string, number>();
  readonly #held = new Map<string, Address>();
  #refused = 0;
  #sweep: Iterator<[string, Address]> | undefined;

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

  /** Frames to it are flooded. Group addresses are never learned and cost nothing to look up again, so they are like any. */
  flood(mac: string): void {
    const { options } = this;
    this.#flooded.delete(mac);
    this.#flooded.set(mac, options.nowSeconds());
    if (this.#flooded.size <= options.limit) return;
    const [oldest] = this.#flooded.keys();
    this.#flooded.delete(oldest!);
    options.forget(oldest!);
  }

  /** Forgets what is old, SWEEP_MAX addresses at a time; goes on where it left off. */
  sweep(): void {
    const now = this.options.nowSeconds();
    this.#sweepFlooded(now);
    for (const [mac, address] of this.#held) {
      if (address.heldUntil > now) continue;
      this.#held.delete(mac);
      address.moves = [];
      address.other = undefined;
    }
    this.#sweep ??= this.#known.entries();
    for (let looked = 0; looked < SWEEP_MAX; looked++) {
      const { done, value } = this.#sweep.next();
      if (done) {
        this.#sweep = undefined;
        return;
      }
      this.#age(value[0], value[1], now);
    }
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
      const named = [...this.#held].slice(0, NAMED_MAX);
      const each = named.map(([mac, { ip, other }]) => `${mac} (${ip} and ${other})`).join(', ');
      texts.push(
        `${this.#held.size} addresses are seen behind two VTEPs in turn and held where they were for ${HOLD_SECONDS} s: ${each}; ` +
          'look for a loop, or for two guests with one address',
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
    if (known.heldUntil > now) {
      known.other = ip;
      options.count('unlearned');
      return;
    }
    known.moves = [...known.moves.filter((at) => now - at < MOVES_SECONDS), now];
    if (known.moves.length >= MOVES_MAX) {
      known.other = ip;
      known.heldUntil = now + HOLD_SECONDS;
      this.#held.set(mac, known);
      options.count('unlearned');
      return;
    }
    options.set(mac, ip);
    known.ip = ip;
    known.seen = now;
    options.count('moved');
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

  #sweepFlooded(now: number): void {
    let looked = 0;
    for (const [mac, since] of this.#flooded) {
      if (now - since <= FLOOD_SECONDS || ++looked > SWEEP_MAX) return;
      this.#flooded.delete(mac);
      this.options.forget(mac);
    }
  }
}
