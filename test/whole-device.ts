/**
 * A worker does not respond at one of the waits of an operation. Whatever wait, and whatever operation: the device is whole or
 * gone, and everything that was retained is back when the worker responds again.
 */
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { type RetainedPart, Retired, type RetiredChange } from '../src/datapath/retired.js';
import { OverlayError } from '../src/errors.js';
import { nextTurn } from '../src/sys/clock.js';
import { until } from './harness/hosts.js';
import { force, HERE, withMemory } from './harness/lifecycle.js';
import { freePort, type MemoryOverlay, request } from './harness/memory-overlay.js';
import { MemoryStore } from './harness/memory-store.js';
import { ScriptedLookup } from './harness/scripted-lookup.js';

const whole = suite('whole device');

const stuck = () => new OverlayError('EBUSY', 'worker_stuck', 'worker 0 does not respond');

/** Waits for workers of one operation: some are refused, as `Workers.quiesce` refuses them when a worker hangs. */
class Hold {
  #waits = 0;
  isHit = false;
  isReleased = false;

  /**
   * @param from first wait that is refused, counted from 1
   * @param isForGood all waits behind it are refused, too
   */
  constructor(
    readonly memory: MemoryOverlay,
    readonly from: number,
    readonly isForGood: boolean,
  ) {
    const { engine } = memory.overlay;
    const real = engine.quiesce.bind(engine);
    engine.quiesce = () => {
      if (this.isReleased) return real();
      this.#waits++;
      if (this.#waits !== from && !(isForGood && this.#waits > from)) return real();
      this.isHit = true;
      return Promise.reject(stuck());
    };
  }

  /** The worker responds again: resolves when nothing is retained. */
  async release(): Promise<void> {
    this.isReleased = true;
    const { retired } = this.memory.overlay.engine;
    // A step of one part may have retired another, whose first wait is not over.
    await until('everything is reclaimed', 20_000, () => {
      void retired.retryNow();
      return retired.list.length === 0;
    });
  }
}

interface Operation {
  readonly name: string;
  readonly search: 'direct' | 'scripted';
  /** There is no device before it. */
  readonly isCreation?: boolean;
  /** The device is gone after it. */
  readonly isDeletion?: boolean;
  run(memory: MemoryOverlay, port: number): Promise<unknown>;
}

const setprop = (property: string, value: string, search: Operation['search'] = 'direct'): Operation => ({
  name: `set-prop ${property} (${search})`,
  search,
  run: ({ overlay }) => overlay.setprop('ov0', property, value),
});

const operations: readonly Operation[] = [
  {
    name: 'create',
    search: 'scripted',
    isCreation: true,
    run: ({ overlay }, port) => overlay.createOverlay(asked('scripted', port)),
  },
  {
    name: 'create that is refused at the end',
    search: 'direct',
    isCreation: true,
    isDeletion: true,
    run: ({ overlay }, port) => {
      const { properties, ...rest } = asked('direct', port);
      return overlay.createOverlay({ ...rest, properties: { ...properties, 'vxlan/ttl': 'none' } });
    },
  },
  { name: 'start', search: 'scripted', run: (memory) => memory.up('ov0') },
  { name: 'stop', search: 'scripted', run: (memory) => memory.down('ov0') },
  setprop('vnetid', '8'),
  setprop('vnetid', '8', 'scripted'),
  setprop('vxlan/listen_ip', '127.0.0.3'),
  setprop('vxlan/listen_ip', '127.0.0.3', 'scripted'),
  setprop('direct/dest_ip', '127.0.0.4'),
  setprop('vxlan/source_check', 'off'),
  {
    name: 'delete',
    search: 'direct',
    isDeletion: true,
    run: ({ overlay }) => overlay.delete('ov0', force),
  },
  {
    name: 'delete (scripted)',
    search: 'scripted',
    isDeletion: true,
    run: ({ overlay }) => overlay.delete('ov0', force),
  },
  {
    name: 'the link is deleted by somebody',
    search: 'direct',
    run: async (memory) => {
      memory.links.remove('ov0');
      await memory.settle();
    },
  },
];

function asked(search: string, port: number) {
  const properties = { 'vxlan/listen_ip': HERE, 'vxlan/listen_port': port };
  const { properties: direct, ...rest } = request('ov0', 7, port, { search });
  return { ...rest, properties: search === 'direct' ? direct : properties };
}

/** Asserts that the device is in every list, or in none. */
function assertWhole({ overlay, links }: MemoryOverlay, isThere: boolean, where: string): void {
  const { fma, engine } = overlay;
  assert.equal(overlay.names, isThere ? ['ov0'] : [], `${where}: names`);
  const faulty = fma.list().flatMap(({ device }) => (device === undefined ? [] : [device]));
  if (!isThere) assert.equal(faulty, [], `${where}: no fault of a device that is gone`);
  const named = fma.list().filter(({ code }) => code === 'retained');
  assert.is(named.length, engine.retired.list.length > 0 ? 1 : 0, `${where}: status names what is retained`);
  const [first] = engine.retired.list;
  if (first) assert.match(named[0]!.text, /^the .* since 20.*: worker 0 does not respond/, where);
  if (!isThere && links.unreleased.includes('ov0')) {
    assert.is(links.get('ov0').isUnlinked, true, `${where}: the name is free`);
  }
}

const plugin = () => new ScriptedLookup(() => 'drop');

async function held(operation: Operation, from: number, isForGood: boolean): Promise<boolean> {
  const { name, search, isCreation = false, isDeletion = false } = operation;
  const where = `${name}, wait ${from}${isForGood ? ' and all behind it' : ''}`;
  let isHit = false;
  await withMemory(
    async (memory) => {
      const { overlay } = memory;
      const port = await freePort(HERE);
      const before = holdingsOf(memory);
      if (!isCreation) {
        await overlay.createOverlay(asked(search, port));
        if (name !== 'start') await memory.up('ov0');
      }
      const hold = new Hold(memory, from, isForGood);
      const values = isCreation ? [] : valuesOf(memory);
      let refused: unknown;
      try {
        await operation.run(memory, port);
      } catch (error) {
        if (!(error instanceof OverlayError)) throw error;
        refused = error.code;
      }
      isHit = hold.isHit;
      const isThere = !isDeletion && !(isCreation && refused !== undefined);
      assertWhole(memory, isThere, where);
      if (from === 1 && /vnetid|listen_ip/.test(name)) {
        assert.equal(
          [refused, overlay.state('ov0')],
          ['worker_stuck', 'started'],
          `${where}: refused at once`,
        );
      }
      // What was refused for a worker's sake has changed nothing.
      if (refused === 'worker_stuck') assert.equal(valuesOf(memory), values, `${where}: refused`);
      if (isDeletion && !isCreation) assert.is(refused, undefined, `${where}: a delete always succeeds`);
      await hold.release();
      assertWhole(memory, isThere, `${where}, released`);
      if (isThere) {
        await memory.settle();
        const isGone = name.startsWith('the link');
        if (!isGone && name !== 'stop') {
          if (isCreation) await memory.up('ov0');
          await until(`${where}: it forwards`, 20_000, () => overlay.state('ov0') === 'started');
        }
        await overlay.delete('ov0', force);
      }
      assert.equal(holdingsOf(memory), before, `${where}: everything is back`);
      await overlay.createOverlay(asked(search, port));
      await memory.up('ov0');
      assert.is(overlay.state('ov0'), 'started', `${where}: the name is usable again`);
      await overlay.delete('ov0', force);
      assert.equal(holdingsOf(memory), before, `${where}: everything is back again`);
      assert.equal(overlay.engine.retired.list, []);
    },
    { plugins: [plugin()], poolBytes: 2 ** 24, store: new MemoryStore() },
  );
  return isHit;
}

/** Rows, descriptors, links and memory of the tables. */
function holdingsOf(memory: MemoryOverlay): object {
  return { ...memory.holdings(), pool: memory.overlay.engine.pool.freeBytes };
}

function valuesOf({ overlay }: MemoryOverlay): unknown[] {
  return overlay.properties('ov0').map(({ info, value }) => [info.name, String(value)]);
}

/** More waits than any operation has. */
const WAITS_MAX = 12;

for (const operation of operations) {
  whole(`${operation.name}: a worker does not respond at any of the waits`, async () => {
    for (const isForGood of [false, true]) {
      let hits = 0;
      while (await held(operation, hits + 1, isForGood)) {
        hits++;
        assert.ok(hits < WAITS_MAX, `${operation.name} has more than ${WAITS_MAX} waits`);
      }
      const isWaiting = !['create', 'start'].includes(operation.name);
      assert.ok(hits > 0 || !isWaiting, `${operation.name} waits for workers`);
    }
  });
}

whole('a fault that comes late does not outlive its device', () =>
  withMemory(async ({ overlay }) => {
    await overlay.create('ov0', 'vxlan', 'direct', 1);
    overlay.fma.degrade('ov0', 'worker', 'in time');
    assert.is(overlay.fma.list().length, 1);
    await overlay.delete('ov0', force);
    overlay.fma.degrade('ov0', 'worker', 'late');
    assert.equal([overlay.fma.list(), overlay.fma.processStatus], [[], 'ONLINE']);
  }),
);

/** A list of retired parts without workers, and what it says. */
function rig(quiesce: () => Promise<void> = async () => {}) {
  const changes: string[] = [];
  const onChange = ({ kind, part }: RetiredChange) => changes.push(`${kind}: ${part.what}`);
  return { retired: new Retired(quiesce, onChange), changes };
}

whole('each step runs once, whatever another throws, and what failed is named and tried again', async () => {
  const { retired, changes } = rig();
  const ran: string[] = [];
  let isBroken = true;
  const isWhole = await retired.retire('ov0', {
    first: () => ran.push('first'),
    second: () => {
      if (isBroken) throw new Error('no second');
      ran.push('second');
    },
    third: async () => ran.push('third'),
  });
  assert.is(isWhole, false);
  assert.equal(ran, ['first', 'third']);
  const [part] = retired.list as [RetainedPart];
  assert.equal([part.what, part.steps, part.reason], ['ov0', ['second'], 'second: no second']);
  assert.is(await retired.retire('ov1', { only: () => ran.push('only') }), true, 'others go on');
  isBroken = false;
  await retired.retryNow();
  assert.equal(retired.list, []);
  assert.equal(ran, ['first', 'third', 'only', 'second']);
  assert.equal(changes, ['retained: ov0', 'reclaimed: ov0']);
  await retired.close();
});

whole('a part that throws does not keep the parts behind it', async () => {
  let isHeld = true;
  const { retired } = rig(() => (isHeld ? Promise.reject(stuck()) : Promise.resolve()));
  const ran: string[] = [];
  await retired.retire('a', {
    only: () => {
      throw stuck();
    },
  });
  await retired.retire('b', { only: () => ran.push('b') });
  await retired.retire('c', { only: () => ran.push('c') });
  assert.equal(ran, [], 'nothing is reclaimed while a worker may read it');
  assert.equal(
    retired.list.map(({ what, reason }) => `${what}: ${reason}`),
    ['a', 'b', 'c'].map((what) => `${what}: worker 0 does not respond`),
  );
  isHeld = false;
  await retired.retryNow();
  assert.equal(ran, ['b', 'c']);
  assert.equal(
    retired.list.map(({ what }) => what),
    ['a'],
  );
  await retired.close();
});

whole('a step that fails again and again is given up, and stays named', async () => {
  const { retired, changes } = rig();
  let tries = 0;
  await retired.retire('ov0', {
    only: () => {
      tries++;
      throw new Error('never');
    },
  });
  for (let round = 0; round < 20; round++) await retired.retryNow();
  assert.is(tries, 10);
  assert.equal(changes, ['retained: ov0', 'given up: ov0']);
  assert.is(retired.list[0]!.isGivenUp, true);
  await retired.close();
});

whole('parts are tried again by themselves, and rounds do not overlap', async () => {
  let isHeld = true;
  const { retired } = rig(() => (isHeld ? Promise.reject(stuck()) : Promise.resolve()));
  let runs = 0;
  const only = async () => {
    runs++;
    await nextTurn();
  };
  await retired.retire('ov0', { only });
  isHeld = false;
  await Promise.all([retired.retryNow(), retired.retryNow()]);
  assert.is(runs, 1);
  isHeld = true;
  await retired.retire('ov1', { only });
  isHeld = false;
  await until('it is tried again', 10_000, () => retired.list.length === 0);
  assert.is(runs, 2);
  await retired.close();
});

whole('the end of the engine reclaims what is left, since no worker reads any more', async () => {
  let isBack = false;
  await withMemory(async (memory) => {
    new Hold(memory, 1, true);
    await memory.overlay.engine.retire('ov0', {
      only: () => {
        isBack = true;
      },
    });
    assert.is(isBack, false);
    memory.overlay.engine.quiesce = async () => {};
  });
  assert.is(isBack, true);
});

whole.run();
