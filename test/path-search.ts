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
  assert.equal([path.sizes, path.search.found], [[1200, 1500], 1500]);
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

search('whatever is found on the way there arrives, and less than 40 seconds are needed', () => {
  let longest = 0;
  for (let takes = 1200; takes < 1500; takes++) {
    const path = new Path(4, 1500, takes);
    const isFine = () => {
      const { found } = path.search;
      assert.ok(found === undefined || found <= takes, `${found} of ${takes}`);
      return path.isComplete;
    };
    longest = Math.max(longest, path.until(isFine, DONE_MS));
    const first = new Path(4, 1500, takes);
    assert.ok(first.until(() => first.search.found !== undefined, DONE_MS) <= 3 * ANSWER_MS_MAX + 1500);
  }
  assert.ok(longest < 40_000, `${longest} ms`);
  console.log(`  ${longest} ms at most until it is known to the byte`);
});

search('a path falls: what arrives is found again; it rises: that, too', () => {
  const path = new Path(4, 1500, 1500);
  path.until(() => path.isComplete, 1000);
  path.takes = 1380;
  const until = path.until(() => path.search.found !== 1500, CONFIRM_MS + 5 * ANSWER_MS_MAX);
  assert.ok(Number(path.search.found) <= 1380);
  path.until(() => path.isComplete, DONE_MS);
  assert.is(path.search.found, 1380);
  console.log(`  a black hole is seen after ${until} ms`);
  path.takes = 1450;
  path.until(() => path.search.found === 1450 && path.isComplete, RAISE_MS + DONE_MS);
  path.takes = 1500;
  path.until(() => path.search.found === 1500, RAISE_MS + DONE_MS);
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
  // It is so: one byte more does not arrive, and the search is over.
  const path = new Path(4, 1500, 1400);
  assert.ok(path.search.told(1400, 0), 'nothing is known yet');
  path.until(() => path.isComplete, 5 * ANSWER_MS_MAX);
  assert.equal([path.sizes, path.search.found], [[1200, 1400, 1401, 1400, 1401, 1400, 1401, 1400], 1400]);

  // What was found is looked at, and arrives: forged.
  const forged = new Path(4, 1500, 1500);
  forged.until(() => forged.isComplete, 1000);
  const { sent } = forged;
  for (let step = 0; step < 100; step++) {
    assert.not.ok(forged.search.told(600, forged.nowMs));
    forged.step();
    assert.not.ok(forged.search.isShaken);
    assert.equal([forged.search.state, forged.search.found], ['complete', 1500]);
  }
  assert.ok(forged.sent > sent, 'it was looked at');
  for (const nonsense of [1500, 1501, 65_535]) assert.not.ok(forged.search.told(nonsense, forged.nowMs));

  // It does not: after one lost probe the word counts.
  const fallen = new Path(4, 1500, 1500);
  fallen.until(() => fallen.isComplete, 1000);
  fallen.takes = 1300;
  assert.not.ok(fallen.search.told(1300, fallen.nowMs));
  assert.ok(fallen.until(() => fallen.search.isShaken, 2000) <= ANSWER_MS_MAX + 200);
  fallen.search.believe(1300, fallen.nowMs);
  fallen.until(() => fallen.isComplete, 6 * ANSWER_MS_MAX);
  assert.is(fallen.search.found, 1300);
});

search('a host that is away for any time, at any moment, is found as it was', () => {
  const outcomes = new Map<string, number>();
  for (const most of [1500, 9000]) {
    for (const takes of [most, 1400]) {
      for (let awayMs = 500; awayMs <= 20_000; awayMs += 700) {
        for (let begunMs = 0; begunMs < CONFIRM_MS + 1000; begunMs += 1300) {
          let isAway = false;
          const path = new Path(4, most, takes, () => isAway);
          const isFine = () => {
            const { found } = path.search;
            // Never less than a size that is sure to pass, but for a moment that is sure by then.
            assert.ok(found === undefined || found <= takes);
            if (takes === most) assert.ok(found === undefined || found === most, `${found} of ${takes}`);
            return path.nowMs >= begunMs;
          };
          path.until(isFine, DONE_MS);
          isAway = true;
          const backMs = path.nowMs + awayMs;
          path.until(() => isFine() && path.nowMs >= backMs, DONE_MS);
          isAway = false;
          path.until(
            () => isFine() && path.isComplete && path.search.found === takes,
            UNANSWERED_MS + DONE_MS,
          );
          outcomes.set(path.search.state, (outcomes.get(path.search.state) ?? 0) + 1);
        }
      }
    }
  }
  assert.equal([...outcomes.keys()], ['complete']);
  console.log(`  ${outcomes.get('complete')} outages`);
});

search('what this host cannot send says nothing of the way', () => {
  const path = new PathSearch(4, 1500, 0);
  for (let nowMs = 0; nowMs < 60_000; nowMs += ANSWER_MS_MAX) {
    assert.is(path.next(nowMs), 1200);
    path.unsent(nowMs);
  }
  assert.equal([path.state, path.found], ['base', undefined]);
});

search('what this host’s own link does not take is not asked about three times', () => {
  const path = new PathSearch(4, 1500, 0);
  assert.is(path.next(0), 1200);
  path.answered(1);
  assert.is(path.next(1), 1500);
  // No path is less for that: nobody is to be told.
  path.refused(1);
  for (const bytes of [1350, 1425, 1462, 1481, 1490]) {
    assert.equal([path.found, path.next(1)], [undefined, bytes]);
    path.answered(1);
  }
  for (const bytes of [1495, 1492, 1491]) {
    assert.equal([path.found, path.next(1)], [undefined, bytes]);
    path.refused(1);
  }
  assert.equal([path.state, path.found, path.limit], ['complete', 1490, 1490]);
  // Not even the least.
  const small = new PathSearch(4, 1500, 0);
  for (const bytes of [1200, 576]) {
    assert.is(small.next(0), bytes);
    small.refused(0);
  }
  assert.equal([small.state, small.found], ['unanswered', undefined]);
});

search('losses at random: nothing is found that does not arrive, and it ends', () => {
  const random = new Xorshift(0x8899);
  for (let round = 0; round < 300; round++) {
    const takes = 576 + random.below(1500 - 576);
    const path = new Path(4, 1500, takes, () => random.below(5) === 0);
    const isFine = () => {
      const { found } = path.search;
      assert.ok(found === undefined || found <= takes, `${found} of ${takes}`);
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
