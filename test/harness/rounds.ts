/**
 * Rows of chaos, each CHAOS_ROUNDS times. A fault comes at another moment each time; CHAOS_SEED repeats the moments, and the names
 * of the tests tell the seed.
 */
import { randomInt } from 'node:crypto';
import { Xorshift } from './xorshift.js';

const ROUNDS = Number(process.env.CHAOS_ROUNDS ?? 1);
const SEED = Number(process.env.CHAOS_SEED ?? randomInt(1, 2 ** 31));
const MOMENT_MS_MAX = 100;

if (!(Number.isInteger(ROUNDS) && ROUNDS >= 1 && Number.isInteger(SEED) && SEED >= 1)) {
  throw new Error(`CHAOS_ROUNDS ${ROUNDS} and CHAOS_SEED ${SEED} are whole numbers from 1 on`);
}

/** Waits for as long as the seed says, below a tenth of a second: the fault that follows finds another state each time. */
export type Moment = () => Promise<void>;

/** Registers a row once for each round. */
export function inRounds(name: string, register: (name: string, moment: Moment) => void): void {
  for (let round = 0; round < ROUNDS; round++) {
    // Seeds that follow one another make much the same numbers at first.
    const random = new Xorshift(SEED + round * 7919);
    const moment: Moment = () => new Promise((resolve) => setTimeout(resolve, random.below(MOMENT_MS_MAX)));
    register(ROUNDS === 1 ? name : `${name} [round ${round + 1} of ${ROUNDS}]`, moment);
  }
}

console.log(`  chaos: ${ROUNDS} rounds, CHAOS_SEED=${SEED}`);
