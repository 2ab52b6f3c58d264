/** The only source of randomness. */
import { randomBytes, randomInt } from 'node:crypto';

/** 64 random bits. */
export function random64(): bigint {
  return randomBytes(8).readBigUInt64LE();
}

/** A whole number from `min` to `max`, both included. */
export function randomBetween(min: number, max: number): number {
  return randomInt(min, max + 1);
}
