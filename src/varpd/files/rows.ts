/** Rows of 32-bit words in one typed array, and an index of them: what a million mappings are kept in. */
import { assert } from '../../errors.js';
import { randomBetween } from '../../sys/random.js';

/** So that nobody can write a file whose keys all meet in one place. */
const seed = randomBetween(0, 0x7fffffff);

/** 32 well-mixed bits of `width` words. */
export function hashWords(words: Uint32Array, at: number, width: number): number {
  let hash = seed;
  for (let word = at; word < at + width; word++) {
    hash = Math.imul(hash ^ words[word]!, 0x9e3779b1);
    hash ^= hash >>> 15;
  }
  hash = Math.imul(hash, 0x85ebca6b);
  return (hash ^ (hash >>> 13)) >>> 0;
}

/** A list of rows that grows; rows are numbered from 0. */
export class Rows {
  words: Uint32Array;
  count = 0;

  /** @param width words of a row */
  constructor(
    readonly width: number,
    capacity = 64,
  ) {
    this.words = new Uint32Array(width * Math.max(1, capacity));
  }

  /** A new row of zeros: the offset of its first word. */
  push(): number {
    const at = this.count * this.width;
    if (at === this.words.length) {
      const more = new Uint32Array(this.words.length * 2);
      more.set(this.words);
      this.words = more;
    }
    this.count++;
    return at;
  }

  /** A new row of these words. */
  append(row: Uint32Array): void {
    const at = this.push();
    this.words.set(row, at);
  }

  /** The words, without room for more where that is most of it. */
  trimmed(): Uint32Array {
    const used = this.count * this.width;
    return used * 2 < this.words.length ? this.words.slice(0, used) : this.words;
  }
}

/** Finds rows by their first words. Open addressing, at most half full, so that every search ends. */
export class RowIndex {
  /** Row + 1, 0 for free. */
  readonly #slots: Uint32Array;
  readonly #mask: number;
  #count = 0;

  /**
   * @param words the rows, which must not move
   * @param stride words of a row
   * @param width words of its key
   * @param rows how many there will be at most
   */
  constructor(
    readonly words: Uint32Array,
    readonly stride: number,
    readonly width: number,
    rows: number,
  ) {
    const slots = 2 ** Math.ceil(Math.log2(Math.max(4, rows * 2)));
    this.#slots = new Uint32Array(slots);
    this.#mask = slots - 1;
  }

  /** Different keys. */
  get count(): number {
    return this.#count;
  }

  /** Enters a row unless there is one with its key: the row that has the key now. */
  add(row: number): number {
    const slot = this.#slotOf(this.words, row * this.stride);
    const known = this.#slots[slot]! - 1;
    if (known >= 0) return known;
    this.#enter(slot, row);
    return row;
  }

  /** Enters a row in place of one with its key: true when there was one. */
  replace(row: number): boolean {
    const slot = this.#slotOf(this.words, row * this.stride);
    const isKnown = this.#slots[slot] !== 0;
    if (isKnown) this.#slots[slot] = row + 1;
    else this.#enter(slot, row);
    return isKnown;
  }

  /** The row whose key is at `at` of `key`, or -1. */
  find(key: Uint32Array, at = 0): number {
    return this.#slots[this.#slotOf(key, at)]! - 1;
  }

  #enter(slot: number, row: number): void {
    assert(this.#count * 2 < this.#slots.length, 'an index of rows has more of them than it was made for');
    this.#slots[slot] = row + 1;
    this.#count++;
  }

  #slotOf(key: Uint32Array, at: number): number {
    const { words, stride, width } = this;
    let slot = hashWords(key, at, width) & this.#mask;
    for (;;) {
      const row = this.#slots[slot]! - 1;
      if (row < 0) return slot;
      let word = 0;
      while (word < width && words[row * stride + word] === key[at + word]) word++;
      if (word === width) return slot;
      slot = (slot + 1) & this.#mask;
    }
  }
}
