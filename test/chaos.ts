/** What trouble with main or with a lookup may not do: known targets keep forwarding, memory stays inside the caps. */
import { Worker } from 'node:worker_threads';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import type { GuestTask } from '../bench/threads/guest.js';
import { AF_INET, SOCK_CLOEXEC, SOCK_DGRAM } from '../src/sys/abi.js';
import { must } from '../src/sys/errno.js';
import { closeFd } from '../src/sys/fd.js';
import * as libc from '../src/sys/libc.js';
import { sockaddr } from '../src/sys/sockaddr.js';
import { HELD_FRAMES_PER_TARGET_MAX } from '../src/target/budget.js';
import type { Answer } from '../src/varpd/plugin.js';
import { frameTo } from './harness/frame-to.js';
import { until } from './harness/hosts.js';
import { MemoryPair } from './harness/memory-pair.js';
import { inRounds, type Moment } from './harness/rounds.js';
import { ScriptedLookup } from './harness/scripted-lookup.js';

const chaos = suite('chaos around lookups');
const FAR = '127.0.0.9';
const MAC = '02:08:20:00:00:07';
const OTHER = '02:08:20:00:00:08';
const VNET_HDR_BYTES = 10;

async function withPlugin(
  answer: ScriptedLookup['answer'],
  work: (pair: MemoryPair, plugin: ScriptedLookup) => Promise<void>,
): Promise<void> {
  const plugin = new ScriptedLookup(answer);
  const idle = new ScriptedLookup(() => 'drop');
  const pair = await MemoryPair.start({ workers: 1, plugin: (side) => (side === 'a' ? plugin : idle) });
  try {
    await work(pair, plugin);
  } finally {
    await pair.close();
  }
}

/** A row, as often as it is asked for. */
function row(name: string, work: (moment: Moment) => Promise<void>): void {
  inRounds(name, (named, moment) => chaos(named, () => work(moment)));
}

function run(task: GuestTask): Promise<number> {
  return new Promise((resolve, reject) => {
    const url = new URL('../bench/threads/guest.js', import.meta.url);
    const worker = new Worker(url, { workerData: task });
    worker.once('message', resolve);
    worker.once('error', reject);
  });
}

row('main blocked for 10 s: a valid target loses no frame', async (moment) => {
  const fd = must(libc.socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), 'socket');
  const port = 30_000 + Math.floor(Math.random() * 10_000);
  const address = sockaddr(AF_INET, FAR, port);
  must(libc.bind(fd, address, address.length), 'bind');
  try {
    await withPlugin(
      () => ({ ip: FAR, port }),
      async ({ a }) => {
        a.overlay.cacheSet('ov0', 0x020820000007, { ip: FAR, port });
        await until('valid', 2000, () => a.overlay.cacheGet('ov0', 0x020820000007).state === 'valid');
        const inner = frameTo(MAC, 0);
        const frame = new Uint8Array(VNET_HDR_BYTES + inner.length);
        frame.set(inner, VNET_HDR_BYTES);
        const frames = 30_000;
        const task = { port: a.port.ends[0]!, socket: fd, frame, frames, rate: 3000, isDistinct: false };
        const counting = run({ ...task, kind: 'count' });
        const sending = run({ ...task, kind: 'many' });
        await until('it is on its way', 5000, () => a.overlay.cacheGet('ov0', 0x020820000007).frames > 100);
        await moment();
        const before = a.overlay.cacheGet('ov0', 0x020820000007).frames;
        const still = new Int32Array(new SharedArrayBuffer(4));
        Atomics.wait(still, 0, 0, 10_000);
        const during = a.overlay.cacheGet('ov0', 0x020820000007).frames - before;
        await sending;
        assert.is(await counting, frames);
        assert.ok(during > 1000, `${during} frames while main stood still`);
      },
    );
  } finally {
    closeFd(fd);
  }
});

row(
  'a lookup that does not answer: frames are held within the caps, the device says so, others go on',
  (moment) => {
    const pending: ((answer: Answer) => void)[] = [];
    return withPlugin(
      () => new Promise((resolve) => pending.push(resolve)),
      async ({ a, b, udpPort }) => {
        const route = { ip: '127.0.0.2', port: udpPort };
        a.overlay.cacheSet('ov0', 0x020820000008, route);
        const send = (mac: string, number: number) => {
          while (!a.port.send(0, frameTo(mac, number)));
        };
        for (let number = 0; number < HELD_FRAMES_PER_TARGET_MAX + 500; number++) {
          send(MAC, number);
          if (number % 20 === 0) await new Promise((resolve) => setImmediate(resolve));
        }
        const drops = () => a.overlay.deviceStats('ov0').counts.drops;
        await until('the cap', 2000, () => drops().tx_held_full === 500n);
        assert.is(a.overlay.cacheStats('ov0')!.heldFrames, HELD_FRAMES_PER_TARGET_MAX);
        await until('degraded', 4000, () => a.overlay.status('ov0').status === 'DEGRADED');
        assert.match(a.overlay.status('ov0').message, /not answered in time/);
        send(OTHER, 1);
        await until('the other target forwards', 2000, () => b.port.receive() !== undefined);
        // It was asked again; the first answer is late and changes nothing.
        await until('asked again', 4000, () => pending.length === 2);
        pending[0]!({ ip: '192.0.2.99', port: 1 });
        await new Promise((resolve) => setTimeout(resolve, 20));
        assert.is(a.overlay.cacheGet('ov0', 0x020820000007).state, 'pending');
        await moment();
        pending[1]!(route);
        let received = 0;
        await until('all that was held arrives', 5000, () => {
          while (b.port.receive()) received++;
          return received === HELD_FRAMES_PER_TARGET_MAX;
        });
        assert.is(a.overlay.status('ov0').status, 'ONLINE');
        assert.equal(a.overlay.cacheGet('ov0', 0x020820000007).route, route);
      },
    );
  },
);

row(
  'a device is deleted with lookups open: it always finishes, and what they answer is of no account',
  (moment) => {
    const pending: ((answer: Answer) => void)[] = [];
    return withPlugin(
      () => new Promise((resolve) => pending.push(resolve)),
      async ({ a, udpPort }) => {
        for (let number = 0; number < 300; number++) {
          const mac = `02:08:21:00:${(number >> 8).toString(16).padStart(2, '0')}:${(number & 255).toString(16).padStart(2, '0')}`;
          a.port.send(0, frameTo(mac, number));
          if (number % 20 === 0) await new Promise((resolve) => setImmediate(resolve));
        }
        await until('all are asked about', 2000, () => pending.length === 300);
        await moment();
        await a.overlay.delete('ov0', { force: true });
        for (const answer of pending) answer({ ip: '127.0.0.2', port: udpPort });
        await new Promise((resolve) => setTimeout(resolve, 50));
        assert.equal(a.overlay.names, []);
      },
    );
  },
);

chaos.run();
