/**
 * How fast something grows, and how sure that is. Theil-Sen: the median of the slopes of all pairs, which no single sample can
 * move. Bounds are those of Sen by Kendall's rank statistic, at 95 % both ways.
 *
 * Neighbouring samples resemble each other, which would make the bounds too narrow: they are taken of medians of blocks.
 */
import { median } from '../statistics.js';

/** 95 %, both sides. */
const Z = 1.96;
const BLOCKS_MAX = 30;
/** With fewer blocks the bounds are those of no statistic. */
export const BLOCKS_MIN = 8;

export interface Point {
  readonly x: number;
  readonly y: number;
}

export interface Slope {
  readonly value: number;
  readonly low: number;
  readonly high: number;
}

/** Medians of consecutive samples, as many in each. */
function blocks(points: readonly Point[]): readonly Point[] {
  const size = Math.max(1, Math.ceil(points.length / BLOCKS_MAX));
  const result: Point[] = [];
  for (let at = 0; at + size <= points.length; at += size) {
    const block = points.slice(at, at + size);
    result.push({ x: median(block.map(({ x }) => x)), y: median(block.map(({ y }) => y)) });
  }
  return result;
}

/** Undefined when there are too few samples to say anything. */
export function slopeOf(points: readonly Point[]): Slope | undefined {
  const taken = blocks(points);
  const n = taken.length;
  if (n < BLOCKS_MIN) return undefined;
  const slopes: number[] = [];
  for (const [i, from] of taken.entries()) {
    for (const to of taken.slice(i + 1)) slopes.push((to.y - from.y) / (to.x - from.x));
  }
  slopes.sort((a, b) => a - b);
  const width = Z * Math.sqrt((n * (n - 1) * (2 * n + 5)) / 18);
  const at = (rank: number) => slopes[Math.min(slopes.length - 1, Math.max(0, rank))]!;
  return {
    value: median(slopes),
    low: at(Math.floor((slopes.length - width) / 2) - 1),
    high: at(Math.ceil((slopes.length + width) / 2)),
  };
}

export type Verdict = 'grows' | 'flat' | 'cannot show';

/** `flat` only when even the upper bound is within what is allowed. */
export function verdictOf(slope: Slope | undefined, allowed: number): Verdict {
  if (slope === undefined) return 'cannot show';
  if (slope.low > allowed) return 'grows';
  return slope.high <= allowed ? 'flat' : 'cannot show';
}

/** The least true slope that this run would have called growth. */
export function shownAbove({ low, value, high }: Slope, allowed: number): number {
  return allowed + Math.max(value - low, high - value);
}
