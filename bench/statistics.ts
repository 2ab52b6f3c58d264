/** Medians and spreads of repeated measurements. */

/** Middle value; the mean of the two middle ones of an even number. */
export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
}

/** Half the distance from lowest to highest, in percent of the median. */
export function spread(values: readonly number[]): string {
  const half = (Math.max(...values) - Math.min(...values)) / 2;
  return `±${((100 * half) / median(values)).toFixed(0)} %`;
}
