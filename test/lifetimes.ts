/**
 * Nothing is freed, closed or given out again while a worker may be using it. In each test a worker stands still with the thing in
 * its hands, main does what takes it away, and the thing must be there until the worker has moved on, and not longer.
 */
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import * as layout from '../assembly/layout.js';
import type { Workers } from '../src/datapath/workers.js';
import { ARENAS_SPARE, SUPERVISE_MS, WORKER_STUCK_MS } from '../src/limits.js';
import { AF_INET, EFD_CLOEXEC, EFD_NONBLOCK, IPPROTO_IP, SOCK_CLOEXEC, SOCK_DGRAM } from '../src/sys/abi.js';
import { must } from '../src/sys/errno.js';
import { closeFd, ringEventfd } from '../src/sys/fd.js';
import * as libc from '../src/sys/libc.js';
import { sockaddr } from '../src/sys/sockaddr.js';
import { frameTo } from './harness/frame-to.js';
import { before, fileOf, Hold, hasEnded, heldEntry, turns } from './harness/hold.js';
import { until } from './harness/hosts.js';
import { force } from './harness/lifecycle.js';
import { freePort, MemoryOverlay, request } from './harness/memory-overlay.js';
import { ScriptedLookup } from './harness/scripted-lookup.js';
import { encap } from './reference/vxlan.js';

const lifetimes = suite('lifetimes');
const HERE = '127.0.0.1';
const PEER = '127.0.0.2';
const GROUP = '239.1.1.1';
const VNETID = 42;
const MAC = 0x020820000007;
const MAC_TEXT = '02:08:20:00:00:07';
const ROW = 0;
const MULTICAST_IF = 32;
const VNET_HDR_BYTES = 10;

/** One worker that can be held, and a started device with its link in row 0. */
class Scene {
  readonly hold: Hold;
  /** Offsets of the pool that were given back. */
  readonly freed: number[] = [];
  /** How often main has begun to wait for the workers. */
  waits = 0;
  readonly #socket = must(libc.socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), 'socket');

  private constructor(
    readonly memory: MemoryOverlay,
    readonly plugin: ScriptedLookup,
    readonly port: number,
  ) {
    this.hold = new Hold(this.engine);
    const peer = sockaddr(AF_INET, PEER, 0);
    must(libc.bind(this.#socket, peer, peer.length), 'bind');
    before(this.engine.pool, 'free', (offset) => this.freed.push(offset as number));
    before(this.engine.workers as Workers, 'quiesce', () => this.waits++);
  }

  static async start(search: string, properties: Record<string, unknown> = {}): Promise<Scene> {
    const plugin = new ScriptedLookup(() => 'drop');
    const memory = await MemoryOverlay.start({ entry: heldEntry, plugins: [plugin], poolBytes: 2 ** 22 });
    const scene = new Scene(memory, plugin, await freePort(HERE));
    await scene.create('ov0', VNETID, search, properties);
    return scene;
  }

  async create(name: string, vnetid: number, search: string, properties: Record<string, unknown> = {}) {
    const { memory, port } = this;
    const whole = request(name, vnetid, port, { search, properties });
    if (search !== 'direct') {
      const { 'direct/dest_ip': _ip, 'direct/dest_port': _port, ...others } = whole.properties;
      await memory.overlay.createOverlay({ ...whole, properties: others });
    } else await memory.overlay.createOverlay(whole);
    await memory.up(name);
    assert.is(memory.overlay.state(name), 'started', memory.overlay.status(name).message);
  }

  get overlay() {
    return this.memory.overlay;
  }

  get engine() {
    return this.memory.overlay.engine;
  }

  get tables() {
    return this.engine.tables;
  }

  link(name = 'ov0') {
    return this.memory.links.get(name).port;
  }

  /** A guest sends a frame. */
  readonly send = (name = 'ov0') => assert.ok(this.link(name).send(0, frameTo(MAC_TEXT, 0)));

  /** The peer sends a datagram. */
  readonly receive = (to = HERE, vnetid = VNETID) => {
    if (to === GROUP) {
      const local = new Uint8Array([127, 0, 0, 1]);
      must(libc.setsockopt(this.#socket, IPPROTO_IP, MULTICAST_IF, local, 4), 'setsockopt');
    }
    const datagram = encap(vnetid, new Uint8Array(60).fill(1));
    const address = sockaddr(AF_INET, to, this.port);
    must(libc.sendto(this.#socket, datagram, datagram.length, 0, address, address.length), 'sendto');
  };

  /** A word of the worker's arena. */
  word(table: number, index: number): number {
    return this.engine.views.i32[(this.hold.arena + table) / 4 + index]!;
  }

  tap(row = ROW): number {
    return this.word(layout.ARENA_TAP_FDS, row);
  }

  sockets(mux = 0): number[] {
    const bank = Array.from({ length: layout.BANK_MAX }, (_, index) =>
      this.word(layout.ARENA_SEND_FDS, mux * layout.BANK_MAX + index),
    );
    return [this.word(layout.ARENA_RECEIVE_FDS, mux), ...bank].filter((fd) => fd >= 0);
  }

  /** A word of the device's row. */
  deviceWord(word: number): number {
    return this.engine.views.u32[(layout.DEVICES_OFFSET + ROW * layout.DEVICE_BYTES + word) / 4]!;
  }

  /** Main has come to where it waits for the worker, or has not waited and gone on. */
  async reached(isGone: () => boolean): Promise<void> {
    const { waits } = this;
    await until('main waits for the worker', 5000, () => this.waits > waits || isGone());
    await turns();
  }

  async close(): Promise<void> {
    this.hold.close();
    closeFd(this.#socket);
    await this.memory.close();
  }
}

async function withScene(
  search: string,
  work: (scene: Scene) => Promise<void>,
  properties: Record<string, unknown> = {},
): Promise<void> {
  const scene = await Scene.start(search, properties);
  try {
    await work(scene);
  } finally {
    await scene.close();
  }
}

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

/** A target that is valid, and a frame to it in the worker's hands. */
async function sendToTarget(scene: Scene): Promise<void> {
  const { hold, overlay, port } = scene;
  overlay.cacheSet('ov0', MAC, { ip: PEER, port });
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
  () =>
    withScene('direct', async (scene) => {
      const { freed, hold, overlay } = scene;
      const set = scene.deviceWord(layout.DEVICE_SOURCES);
      assert.is.not(set, 0, 'there is one');
      freed.length = 0;
      hold.take('write', () => scene.receive());
      const done = overlay.setprop('ov0', 'direct/dest_ip', '127.0.0.3');
      await scene.reached(() => freed.includes(set));
      assert.not.ok(freed.includes(set));
      hold.release();
      await done;
      await until('it is freed', 5000, () => freed.includes(set));
    }),
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
  ['a link', (scene: Scene) => scene.send(), (scene: Scene) => scene.overlay.delete('ov0', force)],
  ['a socket', (scene: Scene) => scene.receive(), (scene: Scene) => scene.memory.down('ov0')],
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

/** A worker that is blocked in a system call with the link in its hands, and its successor, which has begun. */
async function replaceBlocked(scene: Scene): Promise<void> {
  const { engine, hold } = scene;
  const worker = engine.workers.list[0]!;
  const { restarts } = worker;
  hold.take('read', scene.send, 'blocked');
  await until('it is replaced', 20_000, () => worker.restarts === restarts + 1 && worker.hasBegun);
}

lifetimes(
  'a thread that was replaced and is still alive: what it may be using stays until it has ended',
  () =>
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
      await quiet;
      await gone;
      await until('all is given back', 10_000, () => tables.devices.inUse === 0);
      assert.is.not(fileOf(fd), file);
    }),
);

lifetimes('the arena of a thread that has ended has nothing on its rings when another gets it', () =>
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
    await engine.quiesce();
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

lifetimes('an arena is not given to another while the thread that had it is alive', () =>
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
      await engine.quiesce();
      closeFd(blocker);
    }
  }),
);

lifetimes('a stuck worker for which no arena is left comes back when a thread that was given up ends', () =>
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
      await engine.quiesce();
      for (const blocker of blockers) closeFd(blocker);
    }
  }),
);

lifetimes('a worker that stood still with the whole process is not to blame', () =>
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

/** Deletes the device while something of it is under way, which must be over first; then another has its row. */
async function deleteBehind(scene: Scene, letGo: () => void, search = 'direct'): Promise<void> {
  const { overlay, tables } = scene;
  const gone = overlay.delete('ov0', force);
  assert.is(await hasEnded(gone), false, 'what is under way is waited for');
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

lifetimes.run();
