/** All measures, in the order they are taken and shown. */
import { latency } from './latency.js';
import type { Measure } from './measure.js';
import { memory } from './memory.js';
import { tcp1, tcp4, tcpr } from './tcp.js';
import { flood, flows64, rate64 } from './udp.js';

export type { Figure, Measure } from './measure.js';

export interface Section {
  readonly title: string;
  readonly measures: readonly Measure[];
}

/** A table each. */
export const sections: readonly Section[] = [
  { title: 'TCP', measures: [tcp1, tcp4, tcpr] },
  { title: 'UDP', measures: [flood(64), flood(512), flood(1400)] },
  { title: 'Small frames', measures: [rate64, flows64] },
  { title: 'Round trip and memory', measures: [latency, memory] },
];

export const measures: readonly Measure[] = sections.flatMap((section) => section.measures);
