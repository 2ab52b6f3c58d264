/** The search for path MTUs by probes (RFC 8899): a path that is a function of size and time, and every answer it can give. */
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import {
  ANSWER_MS_MAX,
  CONFIRM_MS,
  PathSearch,
  RAISE_MS,
  type SearchState,
  UNANSWERED_MS,
} from '../src/datapath/path-search.js';
import { PATH_MTU_BASE_BYTES, PATH_MTU_MIN_BYTES } from '../src/limits.js';
import { Xorshift } from './harness/xorshift.js';

const search = suite('path MTU search');

/** A search on a path that carries packets up to a size, 0 for none; time goes by in steps of a tenth of a second. */
class Path {
  readonly search: PathSearch;
  readonly states: SearchState[] = ['base'];
  nowMs = 0;
  sent = 0;
  /** Size of the probe that is on its way, when it was sent, and what was found by then. */
  #open = 0;
  sizes: number[] = [];

  constructor(
    readonly family: 4 | 6,
    readonly most: number,
    public takes: number,
    /** Whether a probe of any size is lost all the same. */
    readonly isLost: () => boolean = () => false,
  ) {
    this.search = new PathSearch(family, most, 0);
  }

  /** Runs until it is true, at most for so long. How long that took. */
  until(isTrue: () => boolean, msMax: number): number {
    const begun = this.nowMs;
    while (!isTrue()) {
      assert.ok(this.nowMs - begun <= msMax, `still ${this.search.state}, found ${this.search.found}`);
      this.step();
    }
    return this.nowMs - begun;
  }

  step(): void {
    if (this.#open > 0 && this.#open <= this.takes && !this.isLost()) this.search.answered(this.nowMs);
    this.#open = 0;
    const bytes = this.search.next(this.nowMs);
    if (bytes !== undefined) {
      assert.ok(
        bytes >= Math.min(PATH_MTU_MIN_BYTES[this.family], this.most) && bytes <= this.most,
        `${bytes}`,
      );
      this.#open = bytes;
      this.sizes.push(bytes);
      this.sent++;
    }
    if (this.states.at(-1) !== this.search.state) this.states.push(this.search.state);
    this.nowMs += 100;
  }

  get isComplete(): boolean {
    return this.search.state === 'complete';
  }
}

const DONE_MS = 60_000;

search('a path that takes all there is: two probes, and a look now and then', () => {
  const path = new Path(4, 1500, 9000);
  path.until(() => path.isComplete, 1000);
  assert.equal([path.sizes, path.search.found], [[1200, 1500], 'all']);
  const { sent } = path;
  path.until(() => path.nowMs > 20 * CONFIRM_MS, 21 * CONFIRM_MS);
  assert.is(path.sent - sent, 19);
  assert.equal(path.states, ['base', 'searching', 'complete']);
});

search('every size that a path may take is found to the byte, of either family', () => {
  for (const [family, most] of [
    [4, 1500],
    [6, 1500],
    [4, 9000],
  ] as const) {
    const least = PATH_MTU_MIN_BYTES[family];
    for (let takes = least; takes < most; takes += most > 1500 ? 37 : 1) {
      const path = new Path(family, most, takes);
      path.until(() => path.isComplete, DONE_MS);
      assert.is(path.search.found, takes);
    }
  }
});

search('whatever is found on the way there arrives, and less than half a minute is needed', () => {
  let longest = 0;
  for (let takes = 1200; takes < 1500; takes++) {
    const path = new Path(4, 1500, takes);
    const isFine = () => {
      const { found } = path.search;
      assert.ok(found === undefined || (found !== 'all' && found <= takes), `${found} of ${takes}`);
      return path.isComplete;
    };
    longest = Math.max(longest, path.until(isFine, DONE_MS));
    const first = new Path(4, 1500, takes);
    assert.ok(first.until(() => first.search.found !== undefined, DONE_MS) <= 3 * ANSWER_MS_MAX + 500);
  }
  assert.ok(longest < 30_000, `${longest} ms`);
  console.log(`  ${longest} ms at most until it is known to the byte`);
});

search('a path falls: what arrives is found again; it rises: that, too', () => {
  const path = new Path(4, 1500, 1500);
  path.until(() => path.isComplete, 1000);
  path.takes = 1380;
  const until = path.until(() => typeof path.search.found === 'number', CONFIRM_MS + 4 * ANSWER_MS_MAX);
  assert.ok(Number(path.search.found) <= 1380);
  path.until(() => path.isComplete, DONE_MS);
  assert.is(path.search.found, 1380);
  console.log(`  a black hole is seen after ${until} ms`);
  path.takes = 1450;
  path.until(() => path.search.found === 1450 && path.isComplete, RAISE_MS + DONE_MS);
  path.takes = 1500;
  path.until(() => path.search.found === 'all', RAISE_MS + DONE_MS);
  // Below what a search begins with.
  path.takes = 700;
  path.until(() => path.search.found === 700 && path.isComplete, CONFIRM_MS + DONE_MS);
  assert.ok(path.states.includes('error'));
});

search('a host that answers nothing says nothing, and is asked again', () => {
  for (const family of [4, 6] as const) {
    const path = new Path(family, 1500, 0);
    path.until(() => path.search.state === 'unanswered', 10_000);
    assert.is(path.search.found, undefined);
    assert.equal(
      [...new Set(path.sizes)],
      [...new Set([PATH_MTU_BASE_BYTES[family], PATH_MTU_MIN_BYTES[family]])],
    );
    path.takes = 1400;
    path.until(() => path.isComplete, UNANSWERED_MS + DONE_MS);
    assert.is(path.search.found, 1400);
    // It falls silent: what was found is left to whoever keeps it.
    path.takes = 0;
    path.until(() => path.search.state === 'unanswered', CONFIRM_MS + 15_000);
    assert.is(path.search.found, undefined);
  }
});

search('a router’s word is tried first, and is no more than that', () => {
  // It is so: one byte more is lost, and the search is over.
  const path = new Path(4, 1500, 1400);
  path.search.told(1400, 0);
  path.until(() => path.isComplete, 5 * ANSWER_MS_MAX);
  assert.equal([path.sizes, path.search.found], [[1200, 1400, 1401, 1401, 1401], 1400]);

  // It is not: forged.
  const forged = new Path(4, 1500, 1500);
  forged.until(() => forged.isComplete, 1000);
  forged.search.told(600, forged.nowMs);
  assert.is(forged.search.found, undefined, 'not known any more');
  forged.until(() => forged.search.found === 'all', 20 * ANSWER_MS_MAX);
  assert.ok(forged.isComplete);
  for (const nonsense of [0, 68, 575, 1500, 1501, 65_535]) forged.search.told(nonsense, forged.nowMs);
  assert.is(forged.search.found, 'all');
  assert.ok(forged.isComplete);
});

search('what this host’s own link does not take is not asked about three times', () => {
  const path = new PathSearch(4, 1500, 0);
  assert.is(path.next(0), 1200);
  path.answered(1);
  assert.is(path.next(1), 1500);
  path.refused(1);
  assert.equal([path.found, path.next(1)], [1200, 1350]);
});

search('losses at random: nothing is found that does not arrive, and it ends', () => {
  const random = new Xorshift(0x8899);
  for (let round = 0; round < 300; round++) {
    const takes = 576 + random.below(1500 - 576);
    const path = new Path(4, 1500, takes, () => random.below(5) === 0);
    const isFine = () => {
      const { found } = path.search;
      assert.ok(found === undefined || (found !== 'all' && found <= takes), `${found} of ${takes}`);
      return path.isComplete;
    };
    path.until(isFine, 20 * DONE_MS);
    assert.ok(Number(path.search.found) <= takes);
  }
});

search('no more than one probe is open, nor asked again within a second', () => {
  const path = new PathSearch(4, 1500, 0);
  assert.is(path.next(0), 1200);
  for (let ms = 1; ms < ANSWER_MS_MAX; ms++) assert.is(path.next(ms), undefined);
  assert.is(path.next(ANSWER_MS_MAX), 1200);
});

search.run();
