/**
 * Nothing is freed, closed or given out again while a worker may be using it. In each test a worker stands still with the thing in
 * its hands, main does what takes it away, and the thing must be there until the worker has moved on, and not longer.
 */
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import * as layout from '../assembly/layout.js';
import { EFD_CLOEXEC, EFD_NONBLOCK } from '../src/sys/abi.js';
import { must } from '../src/sys/errno.js';
import { closeFd, ringEventfd } from '../src/sys/fd.js';
import * as libc from '../src/sys/libc.js';
import type { Route } from '../src/target/destination.js';
import { GROUP, HERE, type HeldScene, MAC, PEER, ROW, withScene } from './harness/held-scene.js';
import { before, fileOf, hasEnded, turns } from './harness/hold.js';
import { until } from './harness/hosts.js';
import { force } from './harness/lifecycle.js';

const lifetimes = suite('lifetimes');
const VNET_HDR_BYTES = 10;

lifetimes('a link goes down while frames are sent: destination, mux and sockets stay until they are', () =>
  withScene('direct', async (scene) => {
    const { hold, memory, tables } = scene;
    const files = scene.sockets().map((fd) => [fd, fileOf(fd)] as const);
    hold.take('send', scene.send);
    const down = memory.down('ov0');
    assert.is(await hasEnded(down), false, 'it waits for the worker');
    assert.equal([tables.destinations.inUse, tables.muxes.inUse], [1, 1]);
    for (const [fd, file] of files) assert.is(fileOf(fd), file);
    hold.release();
    await down;
    assert.equal([tables.destinations.inUse, tables.muxes.inUse], [0, 0]);
    for (const [fd, file] of files) assert.is.not(fileOf(fd), file);
  }),
);

for (const [what, search, to] of [
  ['sockets', 'direct', HERE],
  ['the socket of a group', 'learn', GROUP],
] as const) {
  const properties = search === 'learn' ? { 'learn/flood': GROUP, 'learn/port': 4789 } : {};
  lifetimes(`${what} of a mux that closes stay open while a worker reads them`, () =>
    withScene(
      search,
      async (scene) => {
        const { hold, memory, engine, tables } = scene;
        const row = search === 'learn' ? 1 : 0;
        const fd = scene.sockets(row)[0]!;
        const file = fileOf(fd);
        assert.match(file, /^socket:/);
        const inUse = tables.muxes.inUse;
        // Main has waited for workers before, for what was withdrawn then: this is after that.
        const stop = before(engine, 'detachMux', (mux) => {
          if (mux === row) hold.take('receive', () => scene.receive(to));
        });
        const down = memory.down('ov0');
        assert.is(await hasEnded(down), false, 'it waits for the worker');
        assert.is(fileOf(fd), file);
        assert.is(tables.muxes.inUse, inUse);
        stop();
        hold.release();
        await down;
        assert.is.not(fileOf(fd), file);
        assert.is(tables.muxes.inUse, 0);
      },
      properties,
    ),
  );
}

for (const search of ['direct', 'scripted']) {
  lifetimes(
    `${search}: a device that is deleted keeps link, row and table while a worker reads the link`,
    () =>
      withScene(search, async (scene) => {
        const { engine, freed, hold, overlay, tables } = scene;
        const fd = scene.tap();
        const file = fileOf(fd);
        const table = scene.deviceWord(layout.DEVICE_TARGETS);
        freed.length = 0;
        const stop = before(engine, 'detachPort', () => hold.take('read', scene.send));
        const gone = overlay.delete('ov0', force);
        assert.is(await hasEnded(gone), false, 'it waits for the worker');
        assert.is(fileOf(fd), file);
        assert.is(tables.devices.inUse, 1);
        assert.not.ok(freed.includes(table));
        stop();
        hold.release();
        await gone;
        assert.is.not(fileOf(fd), file);
        assert.is(tables.devices.inUse, 0);
        if (search === 'scripted') assert.ok(freed.includes(table));
      }),
  );
}

lifetimes('the link of a network namespace that has gone stays open while a worker reads it', () =>
  withScene(
    'direct',
    async (scene) => {
      const { engine, hold, memory } = scene;
      const fd = scene.tap();
      const file = fileOf(fd);
      const link = memory.links.get('ov0');
      const stop = before(engine, 'detachPort', () => hold.take('read', scene.send));
      memory.links.namespaceChanged(false);
      const left = memory.settle();
      assert.is(await hasEnded(left), false, 'it waits for the worker');
      assert.is(fileOf(fd), file);
      assert.is(link.isReleased, false);
      stop();
      hold.release();
      await left;
      assert.is(link.isReleased, true);
    },
    { netns: 'blue' },
  ),
);

/** A target that is valid, and a frame to it in the worker's hands. */
async function sendToTarget(scene: HeldScene, route: Route = { ip: PEER, port: scene.port }): Promise<void> {
  const { hold, overlay } = scene;
  overlay.cacheSet('ov0', MAC, route);
  await until('valid', 5000, () => overlay.cacheGet('ov0', MAC).state === 'valid');
  hold.take('send', scene.send);
}

lifetimes('a target is removed while frames are sent to it: its destination is not given out again', () =>
  withScene('scripted', async (scene) => {
    const { hold, overlay, port, tables } = scene;
    await sendToTarget(scene);
    overlay.cacheRemove('ov0', MAC);
    await scene.reached(() => tables.destinations.inUse === 0);
    assert.is(tables.destinations.inUse, 1, 'its row is kept');
    overlay.cacheSet('ov0', MAC + 1, { ip: '127.0.0.3', port });
    assert.is(tables.destinations.inUse, 2, 'another target has another row');
    hold.release();
    await until('its row is given back', 5000, () => tables.destinations.inUse === 1);
  }),
);

for (const kind of ['replicate', 'spread'] as const) {
  lifetimes(`${kind}: a list of destinations and its members stay while frames are sent to them`, () =>
    withScene('scripted', async (scene) => {
      const { freed, hold, overlay, port, tables } = scene;
      const route = [PEER, '127.0.0.3'].map((ip) => ({ ip, port }));
      await sendToTarget(scene, kind === 'replicate' ? { replicate: route } : { spread: route });
      freed.length = 0;
      overlay.cacheRemove('ov0', MAC);
      await scene.reached(() => tables.destinations.inUse < 3);
      assert.is(tables.destinations.inUse, 3);
      assert.equal(freed, []);
      hold.release();
      await until('all is given back', 5000, () => tables.destinations.inUse === 0);
      assert.is(freed.length, 1, 'the list, too');
    }),
  );
}

lifetimes('the target table grows while a worker reads it: the old one is freed when it has moved on', () =>
  withScene('scripted', async (scene) => {
    const { freed, hold, overlay, port } = scene;
    await sendToTarget(scene);
    const table = scene.deviceWord(layout.DEVICE_TARGETS);
    freed.length = 0;
    for (let i = 1; scene.deviceWord(layout.DEVICE_TARGETS) === table && i < 1000; i++) {
      overlay.cacheSet('ov0', MAC + i, { ip: PEER, port });
    }
    assert.is.not(scene.deviceWord(layout.DEVICE_TARGETS), table, 'it has grown');
    await scene.reached(() => freed.includes(table));
    assert.not.ok(freed.includes(table));
    hold.release();
    await until('it is freed', 5000, () => freed.includes(table));
  }),
);

lifetimes('the target table is flushed while a worker reads it: likewise', () =>
  withScene('scripted', async (scene) => {
    const { freed, hold, overlay, tables } = scene;
    await sendToTarget(scene);
    const table = scene.deviceWord(layout.DEVICE_TARGETS);
    freed.length = 0;
    overlay.cacheFlush('ov0');
    await scene.reached(() => freed.includes(table));
    assert.not.ok(freed.includes(table));
    assert.is(tables.destinations.inUse, 1);
    hold.release();
    await until('it is freed', 5000, () => freed.includes(table) && tables.destinations.inUse === 0);
  }),
);

lifetimes(
  'a set of senders is changed while a worker reads it: the old one is freed when it has moved on',
  () => {
    let peers = [PEER];
    return withScene(
      'scripted',
      async (scene) => {
        const { freed, hold, plugin } = scene;
        const set = scene.deviceWord(layout.DEVICE_SOURCES);
        assert.is.not(set, 0, 'there is one');
        freed.length = 0;
        hold.take('write', scene.receive);
        peers = [PEER, '127.0.0.3'];
        plugin.services!.peersChanged();
        await turns();
        assert.is.not(scene.deviceWord(layout.DEVICE_SOURCES), set, 'another is in its place');
        assert.not.ok(freed.includes(set));
        hold.release();
        await until('it is freed', 5000, () => freed.includes(set));
      },
      {},
      { peers: () => peers },
    );
  },
);

/** New descriptors until one has the number of one that was closed. */
function openAt(number: number): number[] {
  const fds: number[] = [];
  do fds.push(must(libc.eventfd(1, EFD_NONBLOCK | EFD_CLOEXEC), 'eventfd'));
  while (fds.at(-1) !== number && fds.length < 200);
  assert.is(fds.at(-1), number, 'the number is used again');
  return fds;
}

for (const [what, lead, end] of [
  ['a link', (scene: HeldScene) => scene.send(), (scene: HeldScene) => scene.overlay.delete('ov0', force)],
  ['a socket', (scene: HeldScene) => scene.receive(), (scene: HeldScene) => scene.memory.down('ov0')],
] as const) {
  lifetimes(`a worker that has heard of ${what} that is closed by now reads nothing in its place`, () =>
    withScene('direct', async (scene) => {
      const { engine, hold } = scene;
      const fd = what === 'a link' ? scene.tap() : scene.sockets()[0]!;
      // Parked, so that nobody waits for it.
      hold.take('woken', () => lead(scene));
      await end(scene);
      const others = openAt(fd);
      const worker = engine.workers.list[0]!;
      const { epoch } = worker;
      assert.is(epoch % 2, 0);
      hold.release();
      await until('it has moved on', 5000, () => worker.epoch !== epoch && worker.epoch % 2 === 0);
      for (const other of others) {
        assert.is(libc.read(other, new Uint8Array(8), 8), 8, 'nobody has read what has the number now');
        closeFd(other);
      }
      assert.is.not(hold.readFd, fd);
    }),
  );
}

lifetimes('of a device that is deleted no arena has a descriptor, and none that the queue moves to', () =>
  withScene('direct', async (scene) => {
    const { engine, overlay } = scene;
    assert.ok(scene.tap() >= 0 && scene.sockets().length === 3);
    await overlay.delete('ov0', force);
    const { queue } = engine.workers.list[0]!;
    for (let time = 0; time < 2; time++) {
      assert.is(scene.tap(), -1);
      assert.equal(scene.sockets(), []);
      queue.moveTo(queue.arena);
    }
  }),
);

/** Deletes the device while something of it is under way, which must be over first; then another has its row. */
async function deleteBehind(scene: HeldScene, letGo: () => void, search = 'direct'): Promise<void> {
  const { engine, overlay, tables } = scene;
  const gone = overlay.delete('ov0', force);
  assert.is(await hasEnded(gone), false, 'what is under way is waited for');
  assert.is(engine.injects.isWaiting, false, 'what has found no room is forgotten');
  assert.is(tables.devices.inUse, 1, 'its row is nobody else’s');
  letGo();
  await gone;
  await scene.create('ov1', 77, search);
  assert.is(scene.deviceWord(layout.DEVICE_VNETID), 77, 'the other has its row');
}

for (const [what, count] of [
  ['on a worker’s ring', 1],
  ['waiting for room on it', 20_000],
] as const) {
  lifetimes(`a frame ${what} when its device is deleted does not go to the next device in the row`, () =>
    withScene('direct', async (scene) => {
      const { engine, hold } = scene;
      hold.take('woken', () => ringEventfd(engine.workers.list[0]!.queue.wake));
      const frame = new Uint8Array(VNET_HDR_BYTES + 60).fill(9);
      for (let i = 0; i < count; i++) assert.ok(engine.injects.push(0, ROW, layout.INJECT_RX, frame));
      assert.is(engine.injects.isWaiting, count > 1);
      await deleteBehind(scene, () => hold.release());
      await engine.quiesce();
      await turns();
      assert.is(scene.link('ov1').receive(), undefined);
    }),
  );
}

lifetimes(
  'a frame that main has not seen to when its device is deleted is no miss of the next device in the row',
  () =>
    withScene('scripted', async (scene) => {
      const { engine, plugin } = scene;
      // Main has others' misses to see to, so that it does not come to this one.
      const { drain } = engine.misses;
      engine.misses.drain = () => false;
      scene.send();
      const { arena } = scene.hold;
      const ring = arena + layout.ARENA_MISSES;
      await until('it is on the ring', 5000, () => engine.core.ringPeek(ring) !== 0);
      await deleteBehind(
        scene,
        () => {
          engine.misses.drain = drain;
        },
        'scripted',
      );
      await turns();
      assert.equal(plugin.requests, []);
    }),
);

lifetimes(
  'a frame in a wait queue when its device is deleted is not sent by the next device in the row',
  () =>
    withScene('direct', async (scene) => {
      const { engine, hold } = scene;
      const sent = () => engine.counters.device(ROW).counters.tx_frames;
      scene.send();
      await until('it has been sent', 5000, () => sent() === 1n);
      hold.take('woken', () => ringEventfd(engine.workers.list[0]!.queue.wake));
      const at = hold.arena + layout.ARENA_TX_BUFFER + layout.TX_HEADROOM_BYTES;
      engine.views.u8.fill(2, at, at + VNET_HDR_BYTES + 60);
      engine.core.waitPush(hold.arena, ROW, at, VNET_HDR_BYTES + 60);
      assert.is.not(scene.word(layout.ARENA_WAIT_USED, 0), 0);
      await deleteBehind(scene, () => hold.release());
      await engine.quiesce();
      assert.is(sent(), 0n, 'nor does it have the other’s counters');
    }),
);

lifetimes('a worker that may be putting frames that come back on its miss ring is waited for', () =>
  withScene('direct', async (scene) => {
    const { engine, hold, overlay, tables } = scene;
    await scene.create('ov1', 77, 'direct');
    // Main has waited for what workers had read from the link before: this is after that.
    const stop = before(engine.injects, 'forget', () => hold.take('read', () => scene.send('ov1')));
    const gone = overlay.delete('ov0', force);
    assert.is(await hasEnded(gone), false);
    assert.is(tables.devices.inUse, 2);
    stop();
    hold.release();
    await gone;
    assert.is(tables.devices.inUse, 1);
  }),
);

lifetimes('what leaves while main waits for what has left before waits for the next time', () =>
  withScene('scripted', async (scene) => {
    const { freed, hold, overlay, port, tables } = scene;
    overlay.cacheSet('ov0', MAC + 1, { ip: '127.0.0.3', port });
    await until('valid', 5000, () => overlay.cacheGet('ov0', MAC + 1).state === 'valid');
    await sendToTarget(scene);
    overlay.cacheRemove('ov0', MAC + 1);
    await scene.reached(() => tables.destinations.inUse < 2);
    const table = scene.deviceWord(layout.DEVICE_TARGETS);
    freed.length = 0;
    // It moves on, which is what main waits for, and has the table in its hands again before main sees that.
    hold.release();
    hold.take('send', scene.send);
    overlay.cacheFlush('ov0');
    await until('what had left before is given back', 5000, () => tables.destinations.inUse < 2);
    await turns();
    assert.is(tables.destinations.inUse, 1);
    assert.not.ok(freed.includes(table));
    hold.release();
    await until('the rest is', 5000, () => tables.destinations.inUse === 0 && freed.includes(table));
  }),
);

lifetimes.run();
