/** Marsaglia's xorshift32: random numbers for tests that are cheap and repeat from a seed. */
export class Xorshift {
  #state: number;

  /** @param seed any number; zero, which the generator could not leave, is replaced */
  constructor(seed: number) {
    this.#state = seed | 0 || 0x9e3779b9;
  }

  /** 32 random bits, as an unsigned number. */
  next(): number {
    let x = this.#state;
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    this.#state = x;
    return x >>> 0;
  }

  /** 0 to `bound - 1`; bound at most 2^32. */
  below(bound: number): number {
    return Math.floor((this.next() / 0x100000000) * bound);
  }
}
