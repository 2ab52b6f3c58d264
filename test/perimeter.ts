/** One at a time on each device, and no device waits for another. */
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { OverlayError } from '../src/errors.js';
import { Perimeters } from '../src/overlay/perimeter.js';
import { force, gently, HERE, withMemory } from './harness/lifecycle.js';
import { freePort, request } from './harness/memory-overlay.js';
import { ScriptedLookup } from './harness/scripted-lookup.js';
import { Xorshift } from './harness/xorshift.js';

const perimeter = suite('perimeter');
const CLIENTS = 6;
const STEPS = 250;
const SEED = Number(process.env.PERIMETER_SEED ?? Date.now() % 2 ** 31);

perimeter('work on one device runs in order, and a failure does not stop what follows', async () => {
  const perimeters = new Perimeters();
  const trace: string[] = [];
  const step = (device: string, what: string, fails = false) =>
    perimeters.run(device, async () => {
      trace.push(`${device} ${what} begins`);
      for (let turn = 0; turn < 3; turn++) await new Promise((resolve) => setImmediate(resolve));
      trace.push(`${device} ${what} ends`);
      if (fails) throw new Error(what);
    });
  const all = [step('a', '1', true), step('b', '1'), step('a', '2'), step('b', '2', true), step('a', '3')];
  const settled = Promise.allSettled(all);
  await perimeters.idle();
  assert.is(trace.length, 10, 'idle waits for all of it');
  const ended = await settled;
  assert.equal(
    ended.map(({ status }) => status),
    ['rejected', 'fulfilled', 'fulfilled', 'rejected', 'fulfilled'],
  );
  for (const device of ['a', 'b']) {
    const of = trace.filter((line) => line.startsWith(device));
    const expected = (device === 'a' ? [1, 2, 3] : [1, 2]).flatMap((n) => [
      `${device} ${n} begins`,
      `${device} ${n} ends`,
    ]);
    assert.equal(of, expected);
  }
  assert.ok(trace.indexOf('b 1 begins') < trace.indexOf('a 1 ends'), 'devices do not wait for each other');
});

perimeter('a plugin that hangs at its start holds up its own device only', async () => {
  let release = () => {};
  const hanging = new ScriptedLookup(() => 'drop', {
    start: () =>
      new Promise<void>((resolve) => {
        release = resolve;
      }),
  });
  await withMemory(
    async (memory) => {
      const { overlay } = memory;
      const port = await freePort(HERE);
      const properties = { 'vxlan/listen_ip': HERE, 'vxlan/listen_port': port };
      const slow = overlay.createOverlay({
        name: 'slow',
        encap: 'vxlan',
        search: 'scripted',
        vnetid: 9,
        properties,
      });
      await overlay.createOverlay(request('ov0', 1, port));
      memory.links.setUp('ov0', true);
      while (overlay.state('ov0') !== 'started') await new Promise((resolve) => setTimeout(resolve, 1));
      await overlay.setprop('ov0', 'vnetid', 2);
      await overlay.delete('ov0', force);
      assert.is(overlay.state('slow'), 'created');
      release();
      await slow;
      assert.is(overlay.state('slow'), 'activated');
    },
    { plugins: [hanging], poolBytes: 2 ** 24 },
  );
});

/** What clients may be refused with when they get in each other's way. */
const EXPECTED = ['ENOENT', 'EEXIST', 'ENOTSUP', 'EBUSY', 'EINVAL', 'EADDRNOTAVAIL'];

perimeter(`${CLIENTS} clients, ${STEPS} operations each on three devices, seed ${SEED}`, async () => {
  await withMemory(async (memory) => {
    const { overlay, links } = memory;
    const ports = [await freePort(HERE), await freePort(HERE)];
    const before = memory.holdings();
    const names = ['ov0', 'ov1', 'ov2'];
    const tally = new Map<string, number>();
    const client = async (number: number) => {
      const random = new Xorshift(SEED + number);
      const pick = <T>(from: readonly T[]) => from[random.below(from.length)]!;
      const operations: Record<string, (name: string) => unknown> = {
        createOverlay: (name) =>
          overlay.createOverlay(request(name, 1 + random.below(6), ports[random.below(2)]!)),
        create: (name) => overlay.create(name, 'vxlan', 'direct', 1 + random.below(6)),
        activate: (name) => overlay.activate(name),
        delete: (name) => overlay.delete(name, random.below(2) ? force : gently),
        vnetid: (name) => overlay.setprop(name, 'vnetid', 1 + random.below(6)),
        listen: (name) => overlay.setprop(name, 'vxlan/listen_port', ports[random.below(2)]!),
        mtu: (name) => overlay.setprop(name, 'mtu', 576 + random.below(1000)),
        linkMtu: (name) =>
          links.has(name) && overlay.names.includes(name) && links.changeMtu(name, random.below(9000)),
        up: (name) => links.has(name) && overlay.names.includes(name) && links.setUp(name, true),
        down: (name) => links.has(name) && overlay.names.includes(name) && links.setUp(name, false),
        address: () => links.addressChanged(),
        status: (name) => overlay.status(name),
        properties: (name) => overlay.properties(name),
      };
      for (let step = 0; step < STEPS; step++) {
        const what = pick(Object.keys(operations));
        let outcome = 'done';
        try {
          await operations[what]!(pick(names));
        } catch (error) {
          if (!(error instanceof OverlayError)) throw error;
          assert.ok(EXPECTED.includes(error.errno), `${what}: ${error.errno} ${error.message}`);
          outcome = 'refused';
        }
        tally.set(`${what} ${outcome}`, (tally.get(`${what} ${outcome}`) ?? 0) + 1);
      }
    };
    await Promise.all(Array.from({ length: CLIENTS }, (_, number) => client(number)));
    for (const what of [
      'createOverlay done',
      'delete done',
      'vnetid done',
      'listen done',
      'vnetid refused',
    ]) {
      assert.ok((tally.get(what) ?? 0) > 10, `${what}: ${tally.get(what)}`);
    }
    // What each is in the end is consistent: the link has the device's MTU, and a name for its vnetid.
    await memory.settle();
    for (const name of overlay.names) {
      assert.is(BigInt(links.get(name).mtu), overlay.property(name, 'mtu').value);
      assert.match(links.get(name).alias, new RegExp(`vnetid ${overlay.property(name, 'vnetid').value}$`));
    }
    for (const name of overlay.names) await overlay.delete(name, force);
    await memory.settle();
    await new Promise((resolve) => setTimeout(resolve, 50));
    assert.equal(memory.holdings(), before, 'nothing is left behind');
  });
});

perimeter.run();
