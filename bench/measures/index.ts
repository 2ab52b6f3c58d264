/** All measures, in the order they are taken and shown. */
import type { Measure } from './measure.js';
import { tcp1, tcp4, tcpr } from './tcp.js';

export type { Figure, Measure } from './measure.js';

export interface Section {
  readonly title: string;
  readonly measures: readonly Measure[];
}

/** A table each. */
export const sections: readonly Section[] = [{ title: 'TCP', measures: [tcp1, tcp4, tcpr] }];

export const measures: readonly Measure[] = sections.flatMap((section) => section.measures);
