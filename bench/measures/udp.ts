/** Datagrams: how many arrive, and at what rate nearly all of them do. */
import { across } from './across.js';
import type { Measure } from './measure.js';

/** Of Ethernet, IPv4 and UDP; a frame of 64 bytes is counted here without its checksum, as on a TAP. */
const HEADER_BYTES = 14 + 20 + 8;
/** Interleaved, a packet from each in turn: a batch never holds two of the same flow. */
const FLOWS = 64;
/** As the project's design has it, and RFC 2544 does not: on a shared machine a lossless rate is a matter of luck. */
const LOSS_MAX = 0.005;
/** Parts of the seconds for one TCP stream. */
const FLOOD_PART = 0.25;
const TRIAL_PART = 0.075;

const KPPS = 'k/s';

/** As fast as one socket sends. */
export function flood(bytes: number): Measure {
  const name = `udp${bytes}`;
  return {
    name,
    needs: ['gcc'],
    figures: [
      { name, unit: KPPS, what: `UDP, ${bytes} bytes of payload, sent without pause: arrived`, digits: 1 },
      { name: `${name} loss`, unit: '%', what: `part of those that did not arrive`, digits: 1 },
    ],
    run: async (bed, seconds) => {
      const { offered, delivered } = await across(bed, 'flood', bytes, seconds * FLOOD_PART, 1);
      return [delivered! / 1000, 100 * (1 - delivered! / offered!)];
    },
  };
}

export const rate64: Measure = {
  name: 'rate64',
  needs: ['gcc'],
  figures: [
    {
      name: 'rate64',
      unit: KPPS,
      what: `highest paced rate of UDP with 64 bytes of payload of which at most ${LOSS_MAX * 100} % is lost`,
      digits: 1,
    },
  ],
  run: async (bed, seconds) => {
    const { rate } = await across(bed, 'search', 64, seconds * TRIAL_PART, LOSS_MAX);
    return [rate! / 1000];
  },
};

export const flows64: Measure = {
  name: 'flows64',
  needs: ['gcc'],
  figures: [
    {
      name: 'flows64',
      unit: KPPS,
      what: `frames of 64 bytes in ${FLOWS} interleaved flows, sent without pause: arrived`,
      digits: 1,
    },
    { name: 'flows64 loss', unit: '%', what: 'part of those that did not arrive', digits: 1 },
  ],
  run: async (bed, seconds) => {
    const payload = 64 - HEADER_BYTES;
    const { offered, delivered } = await across(bed, 'flood', payload, seconds * FLOOD_PART, FLOWS);
    return [delivered! / 1000, 100 * (1 - delivered! / offered!)];
  },
};
