/** Workers that trap, throw, exit and hang under traffic: noticed, reported, replaced; the others do not notice. */
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import * as layout from '../assembly/layout.js';
import { until } from './harness/hosts.js';
import { MemoryPair } from './harness/memory-pair.js';
import { FAULT_ARENA, FAULT_KIND, faults } from './workers/faulty.js';

const death = suite('worker death');
const entry = new URL('./workers/faulty.js', import.meta.url);

/** Frames sent on both queues of a, until `done`; returns what was sent and what arrived by queue. */
async function traffic(
  pair: MemoryPair,
  done: () => boolean,
): Promise<{ sent: number[]; received: number[] }> {
  const sent = [0, 0];
  const received = [0, 0];
  const take = () => {
    for (let frame = pair.b.port.receive(); frame; frame = pair.b.port.receive()) received[frame[20]!]!++;
  };
  const push = () => {
    for (let burst = 0; burst < 16; burst++) {
      for (const queue of [0, 1]) {
        // One flow a queue, told apart by a byte; the queue of a dead worker may fill up.
        const frame = new Uint8Array(200).fill(queue + 1, 0, 14);
        frame[20] = queue;
        if (pair.a.port.send(queue, frame)) sent[queue]!++;
      }
    }
    take();
  };
  const deadline = performance.now() + 20_000;
  while (!done()) {
    if (performance.now() > deadline) throw new Error('it took too long');
    push();
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
  await new Promise((resolve) => setTimeout(resolve, 200));
  take();
  return { sent, received };
}

/** Every way of dying is the same story: worker 0 of a dies in the middle of traffic. */
async function dieUnderTraffic(kind: number, outageMsMax: number): Promise<void> {
  const pair = await MemoryPair.start({ workers: 2, entry });
  try {
    const { views, workers } = pair.a.overlay.engine;
    const worker = workers.list[0]!;
    const bystander = workers.list[1]!;
    const descriptors = [worker.queue.epoll, worker.queue.wake];
    let phase = 'before';
    const begun = performance.now();
    let died = 0;
    let recovered = 0;
    const degraded: string[] = [];
    const { sent, received } = await traffic(pair, () => {
      const now = performance.now();
      if (phase === 'before' && now - begun > 200) {
        Atomics.store(views.i32, FAULT_KIND, kind);
        Atomics.store(views.i32, FAULT_ARENA, worker.queue.arena);
        died = now;
        phase = 'dying';
      }
      const { status, message } = pair.a.overlay.status('ov0');
      if (status === 'DEGRADED') degraded.push(message);
      if (phase === 'dying' && worker.restarts === 1 && worker.hasBegun && status === 'ONLINE') {
        recovered = now;
        phase = 'after';
      }
      return phase === 'after' && now - recovered > 300;
    });
    assert.ok(degraded.length > 0, 'the device was degraded meanwhile');
    assert.match(degraded[0]!, /^worker 0 /);
    assert.ok(recovered - died < outageMsMax, `replaced after ${recovered - died} ms`);
    assert.equal(
      [worker.queue.epoll, worker.queue.wake],
      descriptors,
      'the successor has the same descriptors',
    );
    assert.is(bystander.restarts, 0);
    assert.ok(sent[1]! > 1000, `traffic flowed: ${sent[1]} frames`);
    assert.is(received[1], sent[1], 'the other worker lost nothing');
    // The dying worker may lose the batch in its hands; what waited in the queue is taken by its successor.
    assert.ok(sent[0]! - received[0]! <= layout.BATCH_MAX, `worker 0 lost ${sent[0]! - received[0]!} frames`);
    assert.ok(received[0]! > 500, `traffic of worker 0 goes on: ${received[0]} frames`);
    await pair.a.overlay.engine.quiesce();
  } finally {
    await pair.close();
  }
}

death('a throw in the loop', () => dieUnderTraffic(faults.throw, 1000));
death('process.exit in the worker', () => dieUnderTraffic(faults.exit, 1500));
// It counts the CPU that a worker is given, of which there is little on a loaded machine.
death('a hang', () => dieUnderTraffic(faults.spin, 15_000));

death('a device deleted while a worker hangs is gone with all it held', async () => {
  const pair = await MemoryPair.start({ workers: 2, entry });
  try {
    const { overlay, port } = pair.a;
    const { views, workers } = overlay.engine;
    const worker = workers.list[0]!;
    const retired = worker.queue.arena;
    Atomics.store(views.i32, FAULT_KIND, faults.spin);
    Atomics.store(views.i32, FAULT_ARENA, retired);
    assert.ok(port.send(0, new Uint8Array(60)));
    await until('it hangs', 2000, () => Atomics.load(views.i32, FAULT_ARENA) === 0);
    await overlay.delete('ov0', { force: true });
    assert.equal(overlay.names, []);
    // On a loaded machine it takes longer to have spun for long enough: what it may be using is kept meanwhile.
    await until('the mux is closed', 30_000, () => {
      const isClosed = overlay.muxStats().length === 0;
      assert.ok(
        !isClosed || worker.queue.arena !== retired,
        'nothing is freed before the worker is given up',
      );
      return isClosed;
    });
    await until('it is replaced', 5000, () => worker.restarts === 1);
    await until('the row is free', 30_000, () => overlay.engine.tables.devices.inUse === 0);
    const closing = await port.release().catch((error: unknown) => String(error));
    assert.match(String(closing), /EBADF/, 'the port is closed');
    assert.is(overlay.engine.tables.devices.take(), 0, 'the row is free again');
  } finally {
    await pair.close();
  }
});

death('a trap in the core costs one frame each, the batch goes on, five degrade', async () => {
  const pair = await MemoryPair.start({ workers: 1 });
  try {
    const { engine } = pair.a.overlay;
    // A destination that is out of range is a broken promise of main: the core's check traps on it.
    const row = layout.DEVICES_OFFSET + layout.DEVICE_DESTINATION;
    const destination = engine.views.u32[row / 4]!;
    const frame = new Uint8Array(100).fill(3);
    engine.views.u32[row / 4] = layout.NONE;
    for (let count = 1; count <= 4; count++) assert.ok(pair.a.port.send(0, frame));
    const drops = () => Number(engine.counters.device(0).drops.tx_core_trap);
    await until('four traps are counted', 2000, () => drops() === 4);
    assert.is(pair.a.overlay.status('ov0').status, 'ONLINE', 'four are not yet many');
    assert.ok(pair.a.port.send(0, frame));
    await until('five traps degrade', 2000, () => pair.a.overlay.status('ov0').status === 'DEGRADED');
    assert.match(pair.a.overlay.status('ov0').message, /trapped on 5 frames/);
    assert.is(engine.workers.list[0]!.restarts, 0, 'a trap does not cost the worker');
    engine.views.u32[row / 4] = destination;
    assert.ok(pair.a.port.send(0, frame));
    await until('frames pass again', 2000, () => pair.b.port.receive() !== undefined);
    assert.is(drops(), 5);
  } finally {
    await pair.close();
  }
});

death('a trap in the middle of a batch: the frames before and after it arrive', async () => {
  const pair = await MemoryPair.start({ workers: 1 });
  try {
    // Received frames of a second device whose row points outside of every table trap; the first one's do not.
    const { engine } = pair.b.overlay;
    engine.tables.insertVnet(0, 99n, layout.DEVICES_MAX + 5);
    const good = pair.datagram(42, 100);
    const bad = pair.datagram(99, 100);
    const batch = [good, good, bad, good, bad, good];
    for (const datagram of batch) pair.sendToB(datagram);
    let received = 0;
    await until('the four good ones arrive', 2000, () => {
      while (pair.b.port.receive()) received++;
      return received === 4;
    });
    assert.is(Number(engine.counters.mux(0).drops.rx_core_trap), 2);
    assert.is(Number(engine.counters.mux(0).counters.rx_read), 6);
    assert.is(engine.workers.list[0]!.restarts, 0);
  } finally {
    await pair.close();
  }
});

death('a worker that dies again and again is given time, and the device says so', async () => {
  const pair = await MemoryPair.start({ workers: 2, entry });
  try {
    const { views, workers } = pair.a.overlay.engine;
    const worker = workers.list[0]!;
    const messages = new Set<string>();
    for (let count = 1; count <= 5; count++) {
      Atomics.store(views.i32, FAULT_KIND, faults.throw);
      Atomics.store(views.i32, FAULT_ARENA, worker.queue.arena);
      await until(`death ${count}`, 5000, () => {
        pair.a.port.send(0, new Uint8Array(60));
        messages.add(pair.a.overlay.status('ov0').message);
        return worker.deaths.length === count;
      });
      if (count < 5) await until('it is replaced', 2000, () => worker.hasBegun);
    }
    messages.add(pair.a.overlay.status('ov0').message);
    assert.ok(
      [...messages].some((message) => /again and again/.test(message)),
      [...messages].join('\n'),
    );
    const dead = performance.now();
    await until('it comes back after a pause', 5000, () => worker.hasBegun);
    assert.ok(performance.now() - dead > 300, 'the restart was put off');
    assert.is(workers.list[1]!.restarts, 0);
  } finally {
    await pair.close();
  }
});

death.run();
