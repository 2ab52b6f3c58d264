/** One thread a lane, or one a direction. */
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { until } from './harness/hosts.js';
import { descriptors } from './harness/memory-overlay.js';
import { type MemoryHost, MemoryPair, sideIp } from './harness/memory-pair.js';

const threads = suite('threads');
const FRAMES = 400;
const VNETID = 42;
/** One of two sockets gets none of so many flows once in 2^63 runs. */
const FLOWS_MAX = 64;

/** What each thread of a host has done. */
const partsOf = ({ overlay }: MemoryHost) =>
  overlay.workerStats().map(({ directions, counts: { counters } }) => ({
    directions,
    sent: counters.tx_batches > 0,
    received: counters.rx_batches > 0,
  }));

/**
 * Sends to a side from one port after another, until every thread that receives has had something: the kernel chooses the socket by
 * the port, and of all ports that the other side sends from may have chosen the same.
 */
async function reachEach(pair: MemoryPair, side: 'a' | 'b'): Promise<void> {
  const to = pair[side];
  const isReached = () => partsOf(to).every(({ directions, received }) => directions === 'out' || received);
  for (let flow = 0; flow < FLOWS_MAX && !isReached(); flow++) {
    const socket = createSocket('udp4');
    socket.bind(0, sideIp[side === 'a' ? 'b' : 'a']);
    await once(socket, 'listening');
    socket.send(pair.datagram(VNETID, 100), pair.udpPort, sideIp[side]);
    await until('it arrives', 5000, () => to.port.receive() !== undefined);
    socket.close();
    await once(socket, 'close');
  }
}

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
          // Of many flows.
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
      for (const side of ['a', 'b'] as const) {
        await reachEach(pair, side);
        const { overlay } = pair[side];
        // By queue of the link: each has had half of what was sent.
        const out = Array.from({ length: workers }, () => ({
          directions: 'out',
          sent: true,
          received: false,
        }));
        const into = Array.from({ length: workers }, () => ({
          directions: 'in',
          sent: false,
          received: true,
        }));
        const both = Array.from({ length: workers }, () => ({
          directions: 'both',
          sent: true,
          received: true,
        }));
        assert.equal(partsOf(pair[side]), isSplit ? [...out, ...into] : both);
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
