/** One thread a lane, or one a direction. */
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { until } from './harness/hosts.js';
import { descriptors } from './harness/memory-overlay.js';
import { MemoryPair } from './harness/memory-pair.js';

const threads = suite('threads');
const FRAMES = 400;

for (const [isSplit, workers] of [
  [false, 2],
  [true, 1],
  [true, 2],
] as const) {
  const name = isSplit ? 'split' : 'combined';
  threads(`${name}, ${workers} lanes: each thread does what is its part, nothing is lost`, async () => {
    const before = descriptors();
    const pair = await MemoryPair.start({ workers, isSplit });
    try {
      const { a, b } = pair;
      for (const [from, to] of [
        [a, b],
        [b, a],
      ] as const) {
        const seen = new Set<number>();
        for (let number = 0; number < FRAMES; number++) {
          // Of many flows, so that every receive socket has some.
          const frame = new Uint8Array(100).fill(1 + (number & 0x7e), 0, 14);
          new DataView(frame.buffer).setUint32(20, number);
          while (!from.port.send(number % workers, frame)) {
            await new Promise((resolve) => setTimeout(resolve, 1));
          }
        }
        await until('all arrive', 5000, () => {
          for (let frame = to.port.receive(); frame; frame = to.port.receive()) {
            seen.add(new DataView(frame.buffer, frame.byteOffset).getUint32(20));
          }
          return seen.size === FRAMES;
        });
      }
      for (const { overlay } of [a, b]) {
        const did = overlay
          .workerStats()
          .map(({ directions, counts }) => [
            directions,
            counts.counters.tx_batches > 0,
            counts.counters.rx_batches > 0,
          ]);
        const out = Array.from({ length: workers }, () => ['out', true, false]);
        const into = Array.from({ length: workers }, () => ['in', false, true]);
        const both = Array.from({ length: workers }, () => ['both', true, true]);
        assert.equal(did, isSplit ? [...out, ...into] : both);
        assert.is(overlay.engine.workers.list.length, isSplit ? 2 * workers : workers);
        await overlay.delete('ov0', { force: true });
      }
    } finally {
      await pair.close();
    }
    assert.equal(descriptors(), before, 'no descriptor is left');
  });
}

threads.run();
