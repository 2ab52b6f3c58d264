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
    return (this.next() * (bound / 0x100000000)) >>> 0;
  }
}

/** Marsaglia's xorshift128, for runs that draw more than the 2^32 numbers after which the other one begins again. */
export class Xorshift128 extends Xorshift {
  #x = 123456789;
  #y = 362436069;
  #z = 521288629;
  #w: number;

  constructor(seed: number) {
    super(seed);
    this.#w = super.next();
    // Seeds that are neighbours begin alike.
    for (let i = 0; i < 20; i++) this.next();
  }

  override next(): number {
    const t = this.#x ^ (this.#x << 11);
    this.#x = this.#y;
    this.#y = this.#z;
    this.#z = this.#w;
    this.#w = this.#w ^ (this.#w >>> 19) ^ t ^ (t >>> 8);
    return this.#w >>> 0;
  }
}
