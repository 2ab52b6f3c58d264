/** What the end-to-end bench measures of each peer. */
import type { Testbed } from '../testbed.js';

/** One column of a table. */
export interface Figure {
  readonly name: string;
  readonly unit: string;
  readonly what: string;
  /** After the point. */
  readonly digits: number;
}

export interface Measure {
  readonly name: string;
  readonly needs: readonly string[];
  readonly figures: readonly Figure[];
  /**
   * Values in the order of the figures; undefined where the peer has none, as the kernel has no process.
   * @param seconds to spend on it, about
   */
  run(bed: Testbed, seconds: number): Promise<readonly (number | undefined)[]>;
}
