/** Threads that were replaced and live on, with what they may be using; and threads that are not to be replaced. */
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import * as layout from '../assembly/layout.js';
import type { Engine } from '../src/datapath/engine.js';
import { ARENAS_SPARE, SUPERVISE_MS, WORKER_STUCK_MS } from '../src/limits.js';
import { closeFd, ringEventfd } from '../src/sys/fd.js';
import { type HeldScene, ROW, withScene } from './harness/held-scene.js';
import { before, fileOf, Hold, hasEnded, turns } from './harness/hold.js';
import { until } from './harness/hosts.js';
import { force } from './harness/lifecycle.js';

const replaced = suite('replaced threads');
const VNET_HDR_BYTES = 10;

/** Threads that were let go have ended, however long that takes on a loaded machine. */
async function quiesced(engine: Engine): Promise<void> {
  const isQuiet = () =>
    engine.quiesce().then(
      () => true,
      () => false,
    );
  await until('nobody is waited for', 30_000, isQuiet);
}

/** A worker that is blocked in a system call with the link in its hands, and its successor, which has begun. */
async function replaceBlocked(scene: HeldScene): Promise<void> {
  const { engine, hold } = scene;
  const worker = engine.workers.list[0]!;
  const { restarts } = worker;
  hold.take('read', scene.send, 'blocked');
  await until('it is replaced', 20_000, () => worker.restarts === restarts + 1 && worker.hasBegun);
}

replaced('a thread that was replaced and is still alive: what it may be using stays until it has ended', () =>
  withScene('direct', async (scene) => {
    const { engine, hold, overlay, tables } = scene;
    const fd = scene.tap();
    const file = fileOf(fd);
    const { arena } = hold;
    await replaceBlocked(scene);
    assert.is.not(hold.arena, arena, 'the successor has another arena');
    const quiet = engine.quiesce();
    assert.is(await hasEnded(quiet), false, 'its thread may wake up at any time');
    const gone = overlay.delete('ov0', force);
    assert.is(await hasEnded(gone), false);
    assert.is(fileOf(fd), file);
    assert.is(tables.devices.inUse, 1);
    hold.close();
    await quiet.catch(() => quiesced(engine));
    await gone;
    await until('all is given back', 10_000, () => tables.devices.inUse === 0);
    assert.is.not(fileOf(fd), file);
  }),
);

replaced('what is kept since a thread does not end is kept until it does, however often that is tried', () =>
  withScene('direct', async (scene) => {
    const { hold, overlay, tables } = scene;
    const fd = scene.tap();
    const file = fileOf(fd);
    await replaceBlocked(scene);
    await overlay.delete('ov0', force);
    assert.equal(overlay.names, []);
    const { waits } = scene;
    const isGone = () => tables.devices.inUse === 0 || tables.destinations.inUse === 0;
    await until('it is tried again', 20_000, () => scene.waits > waits || isGone());
    await turns();
    assert.is(tables.destinations.inUse, 1);
    assert.is(fileOf(fd), file);
    assert.is(tables.devices.inUse, 1);
    hold.close();
    await until('all is given back', 20_000, () => tables.devices.inUse === 0 && fileOf(fd) !== file);
  }),
);

replaced('the arena of a thread that has ended has nothing on its rings when another gets it', () =>
  withScene('direct', async (scene) => {
    const { engine, hold } = scene;
    const { arena } = hold;
    const frame = (number: number) => {
      const bytes = new Uint8Array(VNET_HDR_BYTES + 60);
      bytes[VNET_HDR_BYTES + 20] = number;
      return bytes;
    };
    const inject = (number: number) => {
      assert.ok(engine.injects.push(0, ROW, layout.INJECT_RX, frame(number)));
      engine.injects.wake();
    };
    const begin = before(engine.workers.list[0]!.queue, 'moveTo', () => inject(1));
    await replaceBlocked(scene);
    assert.is.not(hold.arena, arena);
    begin();
    hold.close();
    await quiesced(engine);
    // The one that came back last is given out first.
    await replaceBlocked(scene);
    assert.is(hold.arena, arena);
    hold.close();
    inject(2);
    const numbers: number[] = [];
    await until('the newer frame arrives', 5000, () => {
      for (let got = scene.link().receive(); got; got = scene.link().receive()) numbers.push(got[20]!);
      return numbers.includes(2);
    });
    assert.equal(numbers, [2]);
  }),
);

replaced('an arena is not given to another while the thread that had it is alive', () =>
  withScene('direct', async (scene) => {
    const { engine, hold } = scene;
    const { arena } = hold;
    await replaceBlocked(scene);
    const second = new Hold(engine);
    const blocker = hold.giveAway();
    try {
      second.take('read', scene.send, 'blocked');
      await until('it is replaced', 20_000, () => engine.workers.list[0]!.restarts === 2);
      assert.is.not(second.arena, arena);
      second.close();
    } finally {
      ringEventfd(blocker);
      await quiesced(engine);
      closeFd(blocker);
    }
  }),
);

replaced('a stuck worker for which no arena is left comes back when a thread that was given up ends', () =>
  withScene('direct', async (scene) => {
    const { engine, hold, overlay } = scene;
    const worker = engine.workers.list[0]!;
    const blockers: number[] = [];
    try {
      for (let spare = 0; spare < ARENAS_SPARE; spare++) {
        await replaceBlocked(scene);
        blockers.push(hold.giveAway());
      }
      const arenas = new Set(engine.workers.arenas);
      arenas.delete(hold.arena);
      hold.take('read', scene.send, 'blocked');
      const fault = () => overlay.status('ov0').message;
      await until('it is lost', 20_000, () => /worker 0 is lost/.test(fault()));
      assert.match(
        fault(),
        /threads that were given up.*comes back when one of them ends.*restart is needed only if/,
      );
      assert.is(worker.restarts, ARENAS_SPARE);
      ringEventfd(blockers[0]!);
      await until('it runs again', 20_000, () => worker.restarts > ARENAS_SPARE && worker.hasBegun);
      assert.ok(arenas.has(hold.arena), 'in the arena of the one that has ended');
      await until('all is well', 5000, () => overlay.status('ov0').status === 'ONLINE');
    } finally {
      hold.close();
      for (const blocker of blockers) ringEventfd(blocker);
      await quiesced(engine);
      for (const blocker of blockers) closeFd(blocker);
    }
  }),
);

replaced('a worker that stood still with the whole process is not to blame', () =>
  withScene('direct', async (scene) => {
    const { engine, hold, overlay } = scene;
    const worker = engine.workers.list[0]!;
    hold.take('woken', scene.send, 'watched');
    const deadline = performance.now() + 20_000;
    while (!worker.isWatched) {
      assert.ok(performance.now() < deadline, 'it is watched');
      await new Promise((resolve) => setImmediate(resolve));
    }
    // As a stopped process, a frozen control group, or one that gets no CPU: no timer of main runs.
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 2 * WORKER_STUCK_MS);
    await new Promise((resolve) => setTimeout(resolve, 1.5 * SUPERVISE_MS));
    hold.release();
    assert.is(worker.state, 'running');
    await until('it moves', 5000, () => !worker.isWatched);
    assert.equal([worker.restarts, overlay.status('ov0').status], [0, 'ONLINE']);
  }),
);

replaced('what a worker that dies had aside is counted as lost, and its successor does not send it', () =>
  withScene('direct', async (scene) => {
    const { engine, hold } = scene;
    const worker = engine.workers.list[0]!;
    hold.take('woken', scene.send);
    // As frames that wait for their target to be settled.
    const at = hold.arena + layout.ARENA_TX_BUFFER + layout.TX_HEADROOM_BYTES;
    engine.views.u8.fill(2, at, at + VNET_HDR_BYTES + 60);
    engine.core.waitPush(hold.arena, ROW, at, VNET_HDR_BYTES + 60);
    assert.is.not(scene.word(layout.ARENA_WAIT_USED, 0), 0);
    worker.endThread();
    await until('it is replaced', 20_000, () => worker.restarts === 1 && worker.hasBegun);
    hold.release();
    // The frame that it had been woken for, and no other.
    await until('it is sent', 5000, () => engine.counters.device(ROW).counters.tx_frames > 0n);
    await quiesced(engine);
    const { counters, drops } = engine.counters.device(ROW);
    assert.equal([counters.tx_frames, drops.tx_worker_lost], [1n, 1n]);
    assert.is(scene.word(layout.ARENA_WAIT_USED, 0), 0);
  }),
);

replaced.run();
