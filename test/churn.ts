/** Leaks, interleaved operations, and traffic while others come and go. */
import * as fc from 'fast-check';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import * as layout from '../assembly/layout.js';
import { OverlayError } from '../src/errors.js';
import { until } from './harness/hosts.js';
import { CYCLES, force, gently, HERE, withMemory } from './harness/lifecycle.js';
import { assertBooks, freePort, MemoryOverlay, request } from './harness/memory-overlay.js';

const churn = suite('churn');
const LIVES = 5 * CYCLES;

churn(`${2 * LIVES} lives: descriptors, rows and heap are back where they were`, async () => {
  await withMemory(async (memory) => {
    const { overlay } = memory;
    const port = await freePort(HERE);
    const live = async (count: number) => {
      for (let i = 0; i < count; i++) {
        await overlay.createOverlay(request('ov0', i, port));
        await memory.up('ov0');
        assert.is(overlay.state('ov0'), 'started');
        await memory.down('ov0');
        await overlay.delete('ov0', gently);
      }
    };
    const heap = () => {
      globalThis.gc?.();
      return process.memoryUsage().heapUsed;
    };
    // Until the compilers are done with it.
    await live(LIVES);
    const before = memory.holdings();
    const heapBefore = heap();
    await live(LIVES);
    const grown = heap() - heapBefore;
    assert.equal(memory.holdings(), before);
    // Measured: within 500 kB over 5,000 lives. A kilobyte a life would be 1 MB here.
    if (globalThis.gc) assert.ok(grown < 700_000, `the heap grew by ${grown} bytes`);
  });
});

const names = ['ov0', 'ov1', 'ov2'] as const;

type Verb =
  | { verb: 'create' | 'createOverlay'; name: string; vnetid: number }
  | { verb: 'setprop'; name: string; property: string; value: number }
  | { verb: 'activate' | 'up' | 'down' | 'remove' | 'read'; name: string }
  | { verb: 'mtu'; name: string; value: number }
  | { verb: 'delete'; name: string; isForced: boolean };

const name = fc.constantFrom(...names);
const vnetid = fc.integer({ min: 1, max: 3 });
const verbs: fc.Arbitrary<Verb> = fc.oneof(
  fc.record({ verb: fc.constantFrom('create' as const, 'createOverlay' as const), name, vnetid }),
  fc.record({ verb: fc.constant('createOverlay' as const), name, vnetid }),
  fc.record({ verb: fc.constant('setprop' as const), name, property: fc.constant('vnetid'), value: vnetid }),
  fc.record({
    verb: fc.constant('setprop' as const),
    name,
    property: fc.constantFrom('mtu', 'vxlan/listen_port', 'nope'),
    value: fc.integer({ min: 500, max: 9500 }),
  }),
  fc.record({ verb: fc.constantFrom(...(['activate', 'up', 'up', 'down', 'read'] as const)), name }),
  fc.record({ verb: fc.constant('remove' as const), name }),
  fc.record({ verb: fc.constant('mtu' as const), name, value: fc.integer({ min: 500, max: 9500 }) }),
  fc.record({ verb: fc.constant('delete' as const), name, isForced: fc.boolean() }),
);

/** Does one verb; whatever an operator may do ends in success or an OverlayError. */
async function perform(memory: MemoryOverlay, verb: Verb, port: number): Promise<void> {
  const { overlay, links } = memory;
  const isLink = links.has(verb.name) && !links.get(verb.name).isReleased;
  const work = (): unknown => {
    switch (verb.verb) {
      case 'create':
        return overlay.create(verb.name, 'vxlan', 'direct', verb.vnetid);
      case 'createOverlay':
        return overlay.createOverlay(request(verb.name, verb.vnetid, port));
      case 'setprop':
        return overlay.setprop(verb.name, verb.property, verb.value);
      case 'activate':
        return overlay.activate(verb.name);
      case 'delete':
        return overlay.delete(verb.name, { force: verb.isForced });
      case 'up':
      case 'down':
        return isLink ? links.setUp(verb.name, verb.verb === 'up') : undefined;
      case 'mtu':
        return isLink ? links.changeMtu(verb.name, verb.value) : undefined;
      case 'remove':
        return isLink ? links.remove(verb.name) : undefined;
      case 'read':
        return [
          overlay.properties(verb.name),
          overlay.status(verb.name),
          overlay.state(verb.name),
          overlay.deviceStats(verb.name),
        ];
    }
  };
  try {
    await work();
  } catch (error) {
    if (!(error instanceof OverlayError)) throw error;
  }
}

/** What holds whenever no operation is under way. */
function assertConsistent(memory: MemoryOverlay): void {
  const { overlay, links, varpd } = memory;
  const { names } = overlay;
  const started = names.filter((each) => overlay.state(each) === 'started');
  const { devices, muxes, destinations, vnets } = memory.tables();
  const open = overlay.muxStats().length;
  assert.is(layout.DEVICES_MAX - devices, names.length, 'a row a device');
  assert.is(varpd.live.size, names.length, 'an instance a device');
  assert.equal([...links.unreleased].sort(), [...names].sort(), 'a link a device');
  assert.is(vnets, started.length, 'a vnetid a started device');
  assert.is(layout.MUXES_MAX - muxes, open, 'a row a mux');
  assert.ok(started.length > 0 ? open > 0 : open === 0, 'muxes are those of started devices');
  assert.ok(
    layout.DESTINATIONS_MAX - destinations <= started.length,
    'destinations are those of started devices',
  );
  const vnetids = names.map((each) => overlay.property(each, 'vnetid').value);
  assert.is(new Set(vnetids).size, names.length, 'no vnetid twice');
  for (const each of names) {
    const isActive = overlay.state(each) !== 'created';
    assert.is(overlay.target(each) !== undefined, isActive);
    const isGone = overlay.status(each).faults.some(({ code }) => code === 'link_gone');
    if (isGone) assert.is(overlay.state(each) === 'started', false);
    else if (isActive) assert.is(overlay.state(each) === 'started', links.get(each).isUp, 'the link decides');
  }
}

churn('random operations from several clients at a time never leave a mess', async () => {
  await withMemory(async (memory) => {
    const port = await freePort(HERE);
    const before = memory.holdings();
    const clients = fc.array(fc.array(verbs, { minLength: 1, maxLength: 8 }), { minLength: 1, maxLength: 4 });
    await fc.assert(
      fc.asyncProperty(fc.array(clients, { minLength: 1, maxLength: 4 }), async (rounds) => {
        for (const round of rounds) {
          await Promise.all(
            round.map(async (client) => {
              for (const verb of client) await perform(memory, verb, port);
            }),
          );
          await memory.settle();
          assertConsistent(memory);
        }
        for (const each of memory.overlay.names) await memory.overlay.delete(each, force);
        assert.equal(memory.holdings(), before);
      }),
      { numRuns: 300 },
    );
  });
});

/** Sends numbered frames from one side to the other, never more on the way than the buffers hold. */
class Flow {
  readonly #frame = new Uint8Array(200);
  readonly #view = new DataView(this.#frame.buffer);
  sent = 0;
  received = 0;
  strange = 0;

  constructor(
    readonly from: MemoryOverlay,
    readonly to: MemoryOverlay,
    readonly mark: number,
  ) {
    this.#frame.fill(mark, 0, 14);
  }

  move(): void {
    while (this.sent - this.received < 64) {
      this.#view.setUint32(20, this.sent);
      if (!this.from.links.get('ov0').port.send(0, this.#frame)) break;
      this.sent++;
    }
    this.take();
  }

  take(): void {
    const { port } = this.to.links.get('ov0');
    for (let frame = port.receive(); frame; frame = port.receive()) {
      const isNext = frame.length === 200 && frame[0] === this.mark;
      const number = new DataView(frame.buffer, frame.byteOffset).getUint32(20);
      if (!isNext || number !== this.received) this.strange++;
      this.received++;
    }
  }
}

churn('traffic both ways loses nothing while a third device comes and goes 100 times', async () => {
  const a = await MemoryOverlay.start();
  const b = await MemoryOverlay.start();
  try {
    const port = await freePort('0.0.0.0');
    const other = '127.0.0.2';
    await a.overlay.createOverlay(request('ov0', 1, port));
    await b.overlay.createOverlay(request('ov0', 1, port, { ip: other, peer: HERE }));
    await a.up('ov0');
    await b.up('ov0');
    const flows = [new Flow(a, b, 1), new Flow(b, a, 2)];
    let isDone = false;
    const traffic = (async () => {
      while (!isDone) {
        for (const flow of flows) flow.move();
        await new Promise((resolve) => setTimeout(resolve, 1));
      }
    })();
    for (let i = 0; i < 100; i++) {
      // On the mux of the first, then on one of its own, then gone without having started.
      const own = { properties: { 'vxlan/listen_port': await freePort(HERE) } };
      await a.overlay.createOverlay(request('ov9', 1000 + i, port, i % 3 === 1 ? own : {}));
      if (i % 3 < 2) {
        await a.up('ov9');
        assert.is(a.overlay.state('ov9'), 'started');
      }
      await new Promise((resolve) => setTimeout(resolve, 2));
      await a.overlay.delete('ov9', force);
    }
    isDone = true;
    await traffic;
    await until('the last frames arrive', 3000, () => {
      for (const flow of flows) flow.take();
      return flows.every(({ sent, received }) => sent === received);
    });
    for (const { sent, strange } of flows) {
      assert.ok(sent > 1000, `${sent} frames`);
      assert.is(strange, 0, 'whole and in order');
    }
    await new Promise((resolve) => setTimeout(resolve, 50));
    await assertBooks(a.overlay, `${HERE}:${port}`);
    await assertBooks(b.overlay, `${other}:${port}`);
    const { counters } = a.overlay.deviceStats('ov0').counts;
    assert.equal([counters.tx_read, counters.rx_frames], [BigInt(flows[0]!.sent), BigInt(flows[1]!.sent)]);
    assert.is(counters.tx_frames, counters.tx_read, 'no drop at all');
  } finally {
    await a.close();
    await b.close();
  }
});

churn('books balance where frames are dropped: stopped, too big, short, unknown vnetid', async () => {
  const a = await MemoryOverlay.start();
  const b = await MemoryOverlay.start();
  try {
    const port = await freePort('0.0.0.0');
    const other = '127.0.0.2';
    await a.overlay.createOverlay(request('ov0', 1, port));
    await a.overlay.createOverlay(request('ov1', 2, port));
    await b.overlay.createOverlay(request('ov0', 1, port, { ip: other, peer: HERE }));
    const link = (name: string) => a.links.get(name).port;
    for (let i = 0; i < 5; i++) assert.ok(link('ov0').send(0, new Uint8Array(100)));
    const drops = () => a.overlay.deviceStats('ov0').counts.drops;
    await until('frames of a stopped device are dropped', 2000, () => drops().tx_device_stopped === 5n);
    for (const name of ['ov0', 'ov1']) await a.up(name);
    await b.up('ov0');
    for (const bytes of [13, 14, 1414, 1418, 1419, 1500]) link('ov0').send(0, new Uint8Array(bytes));
    for (let i = 0; i < 7; i++) link('ov1').send(0, new Uint8Array(60));
    await until('all has been read', 2000, () => b.overlay.muxStats()[0]!.counts.counters.rx_read === 10n);
    await new Promise((resolve) => setTimeout(resolve, 50));
    let received = 0n;
    while (b.links.get('ov0').port.receive()) received++;
    const { drops: dropped, counters } = a.overlay.deviceStats('ov0').counts;
    assert.equal([counters.tx_read, counters.tx_frames], [11n, 3n]);
    assert.equal([dropped.tx_short_frame, dropped.tx_too_big, dropped.tx_device_stopped], [1n, 2n, 5n]);
    assert.is(b.overlay.deviceStats('ov0').counts.counters.rx_frames, received);
    assert.is(b.overlay.muxStats()[0]!.counts.drops.rx_unknown_vnetid, 7n);
    await assertBooks(a.overlay, `${HERE}:${port}`);
    await assertBooks(b.overlay, `${other}:${port}`);
  } finally {
    await a.close();
    await b.close();
  }
});

churn.run();
