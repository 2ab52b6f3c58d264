/** Memory of the peer's own programs. */
import { peakBytes } from '../usage.js';
import type { Measure } from './measure.js';

/** After everything else: the most that they have had. */
export const memory: Measure = {
  name: 'memory',
  needs: [],
  figures: [
    {
      name: 'memory',
      unit: 'MiB',
      what: "resident memory of the peer's programs on both hosts, peak",
      digits: 0,
    },
  ],
  run: async ({ pids }) => [pids.length > 0 ? peakBytes(pids) / 2 ** 20 : undefined],
};
