/**
 * What an RFC asks for, in words of ours, and which test shows it, or why it is otherwise here.
 *
 * That nothing is left out can be counted: an RFC says how many key words of RFC 2119 each section of its text has, and each line
 * says how many of them it stands for. The counts are what this finds in a section, without the paragraph that defines the key
 * words ("MUST NOT" is one; SHALL and REQUIRED count as MUST, RECOMMENDED as SHOULD):
 *
 *     grep -oE '\b(MUST|SHALL|REQUIRED|SHOULD|RECOMMENDED)\b'
 */

/** IS: the text says so without a key word. */
export type Level = 'MUST' | 'MUST NOT' | 'SHOULD' | 'SHOULD NOT' | 'MAY' | 'IS';

export interface Requirement {
  readonly level: Level;
  /** Sections that ask for it, with the number of their key words that are for it; 0 for MAY and IS. */
  readonly sections: Readonly<Record<string, number>>;
  readonly rule: string;
  /** File in `test/`, and a part of the test's name. */
  readonly tests?: readonly (readonly [file: string, name: string])[];
  /** Why it is otherwise here, all of it or a part. */
  readonly exception?: string;
}

export interface Rfc {
  readonly number: number;
  /** Of each section that has any; left out where only what concerns an overlay was taken from a text about much else. */
  readonly keywords?: Readonly<Record<string, readonly [musts: number, shoulds: number]>>;
  readonly requirements: readonly Requirement[];
}

/** Reasons that several lines have. */
export const ON_THE_WAY =
  'For devices on the way. overlayd is an endpoint: it passes on no packet of a tunnel that does not end in it.';
export const ELSEWHERE = 'It points at requirements that stand elsewhere, and have lines of their own.';
