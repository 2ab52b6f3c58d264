/**
 * Lookup plugins answer the second question: where is the transformed frame sent? They run under varpd, off the
 * fast path; what they answer is kept by the device.
 */
import type { PropertyStore } from '../property.js';

export const LOOKUP_VERSION = 1;

/** An underlay destination. Which parts are there follows the encap's destination kinds. */
export interface Point {
  readonly ip: string;
  readonly port: number;
}

/** One overlay's use of a plugin. */
export interface LookupInstance {
  readonly properties: PropertyStore;
  /** Checks that it has what it needs; throws EAGAIN naming what is missing. Nothing is asked before it. */
  start(): void;
  /** Nothing is asked after it. */
  stop(): void;
  /** POINT: the one destination of every frame. */
  point(): Point;
}

export interface LookupPlugin {
  readonly version: number;
  readonly name: string;
  /** point: one destination for everything. */
  readonly mode: 'point';
  /** Names of the properties there are for these DESTINATION_ bits, in the order in which they are shown. */
  properties(destinations: number): readonly string[];
  /** Throws ENOTSUP when it cannot supply exactly these DESTINATION_ bits. */
  create(destinations: number): LookupInstance;
}
