/** What the soak calls growth: its estimator against series whose slope is known. */
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { type Point, slopeOf, verdictOf } from '../bench/soak/slope.js';
import { Xorshift } from './harness/xorshift.js';

const slope = suite('slope of the soak');
const SAMPLE_SECONDS = 10;
const ALLOWED = 1;

/** A start, a slope in MiB an hour, and noise of as many MiB both ways; one sample of 20 is 10 MiB above. */
function series(minutes: number, perHour: number, noise: number, seed: number): Point[] {
  const random = new Xorshift(seed);
  return Array.from({ length: (minutes * 60) / SAMPLE_SECONDS }, (_, index) => {
    const x = (index * SAMPLE_SECONDS) / 3600;
    const wobble = ((random.next() >>> 0) / 2 ** 32 - 0.5) * 2 * noise;
    return { x, y: 120 + perHour * x + wobble + (index % 20 === 7 ? 10 : 0) };
  });
}

const verdicts = (minutes: number, perHour: number, noise: number) =>
  new Set(
    Array.from({ length: 20 }, (_, seed) =>
      verdictOf(slopeOf(series(minutes, perHour, noise, seed + 1)), ALLOWED),
    ),
  );

slope('2 MiB an hour are found in half an hour, past outliers of 10 MiB', () => {
  assert.equal([...verdicts(30, 2, 0.05)], ['grows']);
});

slope('100 KiB a minute are found in five minutes', () => {
  assert.equal([...verdicts(5, 6, 0.05)], ['grows']);
});

slope('half a MiB an hour is within what is allowed', () => {
  assert.equal([...verdicts(30, 0.5, 0.05)], ['flat']);
});

slope('with more noise than the run is long, nothing is shown, and flat is not said', () => {
  assert.not.ok(verdicts(2, 0, 2).has('flat'));
  assert.equal([...verdicts(1, 0, 0)], ['cannot show']);
  assert.is(slopeOf([]), undefined);
});

slope.run();
