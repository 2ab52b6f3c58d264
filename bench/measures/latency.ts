/** Round trips of small datagrams, one at a time. */
import { across } from './across.js';
import type { Figure, Measure } from './measure.js';

/** As sockperf sends by default. */
const BYTES = 14;
const PART = 0.5;

const figure = (name: string, what: string): Figure => ({ name, unit: 'us', what, digits: 1 });

export const latency: Measure = {
  name: 'latency',
  needs: ['gcc'],
  figures: [
    figure('p50', `round trip of UDP with ${BYTES} bytes of payload, one at a time: median`),
    figure('p99', 'the same: 99 of 100 are faster'),
    figure('p99.9', 'the same: 999 of 1000 are faster'),
  ],
  run: async (bed, seconds) => {
    const { p50, p99, p999 } = await across(bed, 'echo', BYTES, seconds * PART);
    return [p50, p99, p999];
  },
};
