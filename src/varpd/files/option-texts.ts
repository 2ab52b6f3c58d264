/**
 * Options of destinations (of Geneve's header), as a few texts that many mappings share. A mapping has the number of its text in
 * the half of its port's word that no port needs, so that files without options take no room for them, and endpoints that differ in
 * options alone differ in their words.
 */

/** Number of no options. */
const NONE = 0;
/** Different ones in a file, besides none: what the half of a word can say. */
export const OPTION_TEXTS_MAX = 0xffff;
const PORT_BITS = 16;
const PORT_MASK = 0xffff;

export class OptionTexts {
  readonly #texts: (string | undefined)[] = [undefined];
  readonly #numbers = new Map<string | undefined, number>([[undefined, NONE]]);

  /** Number of a text that is there. */
  numberOf(text: string): number | undefined {
    return this.#numbers.get(text);
  }

  /** Number of a text that is not there yet, or undefined when there are too many. */
  add(text: string): number | undefined {
    const number = this.#texts.length;
    if (number > OPTION_TEXTS_MAX) return undefined;
    this.#texts.push(text);
    this.#numbers.set(text, number);
    return number;
  }

  /** Options that an endpoint's last word says. */
  of(word: number): string | undefined {
    return this.#texts[word >>> PORT_BITS];
  }
}

/** An endpoint's last word with another port. */
export function withPort(word: number, port: number): number {
  return ((word & ~PORT_MASK) | port) >>> 0;
}

/** Likewise with options of another number. */
export function withOptions(word: number, number: number): number {
  return ((number << PORT_BITS) | (word & PORT_MASK)) >>> 0;
}

export function portOf(word: number): number {
  return word & PORT_MASK;
}
