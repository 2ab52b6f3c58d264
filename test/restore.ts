/** What of devices is kept, and how they come back: everything but the disk and the kernel's links. */
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { OverlayError } from '../src/errors.js';
import { Fma } from '../src/fma.js';
import { silent } from '../src/log.js';
import { Persistence } from '../src/overlay/persistence.js';
import type { Entry } from '../src/overlay/setprop.js';
import { nextTurn } from '../src/sys/clock.js';
import { until } from './harness/hosts.js';
import { faultOf, force, HERE } from './harness/lifecycle.js';
import {
  assertRefused,
  freePort,
  MemoryOverlay,
  type MemoryOverlayOptions,
  request,
} from './harness/memory-overlay.js';
import { MemoryStore } from './harness/memory-store.js';
import { ScriptedLookup } from './harness/scripted-lookup.js';

const restore = suite('restore');
const THERE = '127.0.0.2';

/** Runs `work` with an engine on the store, and ends it as a planned stop does. */
async function running(
  store: MemoryStore,
  work: (memory: MemoryOverlay) => Promise<void>,
  options: MemoryOverlayOptions = {},
): Promise<void> {
  const memory = await MemoryOverlay.start({ poolBytes: 2 ** 24, ...options, store });
  try {
    const failures = await memory.overlay.restore([...store.records.values()]);
    assert.equal(failures, []);
    await memory.overlay.resume();
    await work(memory);
  } finally {
    await memory.close();
  }
}

restore('every property, the state, the order and the address of the link come back', async () => {
  const store = new MemoryStore();
  const port = await freePort(HERE);
  const shown = (memory: MemoryOverlay) =>
    memory.overlay.names.map((name) => [
      name,
      memory.overlay.state(name),
      memory.overlay.properties(name).map(({ info, value }) => [info.name, String(value)]),
    ]);
  let before: unknown;
  await running(store, async (memory) => {
    const { overlay } = memory;
    await overlay.createOverlay(request('ov2', 2, port));
    await overlay.createOverlay(request('ov1', 1, port));
    await overlay.create('ov3', 'vxlan', 'direct', 3);
    await overlay.createOverlay({ ...request('gone', 4, port), isTemporary: true });
    await overlay.setprop('ov2', 'mtu_max', 20_000);
    await overlay.setprop('ov2', 'mtu', 9500);
    await overlay.setprop('ov1', 'vnetid', 11);
    await overlay.setprop('ov1', 'vxlan/source_check', 'off');
    await overlay.setprop('ov3', 'direct/dest_port', 77);
    memory.links.changeMtu('ov1', 1300);
    await memory.up('ov2');
    await overlay.delete('gone', force);
    before = shown(memory);
    assert.is(memory.links.get('ov2').isKept, true);
  });
  await running(store, async (memory) => {
    const stopped = JSON.parse(JSON.stringify(before).replace('started', 'activated')) as unknown;
    assert.equal(shown(memory), stopped);
    assert.equal(
      memory.overlay.names.map((name) => memory.links.get(name).hasCarrier),
      [true, true, false],
    );
    await memory.up('ov2');
    assert.is(memory.overlay.state('ov2'), 'started');
    // Numbers go on where they were.
    await memory.overlay.createOverlay(request('ov9', 9, port));
    const ids = memory.overlay.names.map((name) => memory.overlay.property(name, 'varpd/id').value);
    assert.is(new Set(ids).size, 4);
    await memory.overlay.delete('ov2', force);
    assert.is(memory.links.get('ov2').isKept, false);
  });
  assert.equal([...store.records.keys()].sort(), ['ov1', 'ov3', 'ov9']);
});

restore('a temporary device is not kept', async () => {
  const store = new MemoryStore();
  const port = await freePort(HERE);
  await running(store, async ({ overlay, links }) => {
    await overlay.createOverlay({ ...request('ov0', 1, port), isTemporary: true });
    await overlay.setprop('ov0', 'vnetid', 2);
    assert.is(links.get('ov0').isKept, false);
  });
  assert.is(store.records.size, 0);
});

restore('a full disk refuses every change, and nothing is half done', async () => {
  const store = new MemoryStore();
  const port = await freePort(HERE);
  await running(store, async (memory) => {
    const { overlay } = memory;
    await overlay.createOverlay(request('ov0', 1, port));
    await overlay.create('ov1', 'vxlan', 'direct', 2);
    await memory.up('ov0');
    const holdings = memory.holdings();
    const records = JSON.stringify([...store.records]);
    store.isFull = true;
    const refused = (work: Promise<unknown>) => assertRefused(work, 'ENOSPC', 'state_failed');
    await refused(overlay.createOverlay(request('ov2', 3, port)));
    await refused(overlay.create('ov2', 'vxlan', 'direct', 3));
    await refused(overlay.setprop('ov0', 'vnetid', 7));
    await refused(overlay.setprop('ov0', 'mtu', 1300));
    await refused(overlay.setprop('ov1', 'direct/dest_port', 9));
    await refused(overlay.activate('ov1')).catch(() => {});
    await refused(overlay.delete('ov0', force));
    assert.equal(memory.holdings(), holdings);
    assert.is(JSON.stringify([...store.records]), records);
    assert.is(overlay.property('ov0', 'vnetid').value, 1n);
    assert.is(overlay.property('ov0', 'mtu').value, 1400n);
    assert.is(overlay.state('ov0'), 'started');
    // Nobody asked for this one, so that nobody hears of it but from the fault state.
    memory.links.changeMtu('ov0', 1350);
    await memory.settle();
    assert.match(faultOf(memory, 'ov0'), /the disk is full/);
    store.isFull = false;
    memory.links.changeMtu('ov0', 1360);
    await memory.settle();
    assert.is(faultOf(memory, 'ov0'), '');
    assert.is(store.records.get('ov0')!.properties.mtu, 1360);
  });
});

restore(
  'a link that cannot be kept: the device does not come about, and a restart does not bring it back',
  async () => {
    const store = new MemoryStore();
    await running(store, async (memory) => {
      const { overlay, links } = memory;
      const holdings = memory.holdings();
      const failure = new OverlayError('EPERM', 'no_cap_net_admin', 'it cannot be kept');
      const open = links.open.bind(links);
      links.open = (asked) => {
        const link = open(asked);
        link.keepFailure = failure;
        return link;
      };
      await assertRefused(overlay.create('ov0', 'vxlan', 'direct', 1), 'EPERM', 'no_cap_net_admin');
      await assertRefused(overlay.createOverlay(request('ov0', 1, 4789)), 'EPERM', 'no_cap_net_admin');
      assert.is(store.records.size, 0);
      assert.equal(memory.holdings(), holdings);
    });
  },
);

/** What saving targets needs of a device with some. */
function entryWithTargets(name: string): Entry {
  const cache = {
    takeDirty: () => true,
    records: () => [],
    markDirty: () => {},
    beginLoading: () => {},
    endLoading: () => {},
  };
  return {
    device: { name, isKept: true, encap: {}, port: { keep: () => {} } },
    lookup: { dynamic: { cache }, instance: {} },
  } as unknown as Entry;
}

restore('targets that are saved say nothing about a record that was not', async () => {
  const fma = new Fma(() => {});
  const entry = entryWithTargets('ov0');
  const store = new MemoryStore();
  const persistence = new Persistence(store, () => [entry], fma, silent);
  fma.degrade('ov0', 'state_failed', 'the disk was full');
  await persistence.saveTargets();
  assert.equal(
    fma.status('ov0').faults.map(({ code }) => code),
    ['state_failed'],
  );
  store.isFull = true;
  await persistence.saveTargets();
  assert.equal(
    fma.status('ov0').faults.map(({ code }) => code),
    ['state_failed', 'targets_unsaved'],
  );
  store.isFull = false;
  await persistence.saveTargets();
  assert.equal(
    fma.status('ov0').faults.map(({ code }) => code),
    ['state_failed'],
  );
  persistence.close();
});

restore('targets of a device that is deleted while they are saved: nobody is degraded', async () => {
  const fma = new Fma(() => {});
  const entry = entryWithTargets('ov0');
  const store = new MemoryStore();
  store.saveTargets = async () => {
    await nextTurn();
    throw new OverlayError('ENOENT', 'state_failed', 'the device has gone');
  };
  const persistence = new Persistence(store, () => [entry], fma, silent);
  const saved = persistence.saveTargets();
  persistence.forget(entry);
  await saved;
  assert.is(fma.processStatus, 'ONLINE');
  persistence.close();
});

restore('plugins that hang at their start hold up nobody: not each other, not the restore', async () => {
  const store = new MemoryStore();
  const port = await freePort(HERE);
  const mac = 0x020000000007;
  let isHanging = false;
  let end: () => void = () => {};
  const ended = new Promise<void>((resolve) => {
    end = resolve;
  });
  const plugin = new ScriptedLookup(() => 'drop', { start: () => (isHanging ? ended : undefined) });
  const options = { plugins: [plugin] };
  const listen = { 'vxlan/listen_ip': HERE, 'vxlan/listen_port': port };
  await running(
    store,
    async ({ overlay }) => {
      for (const vnetid of [1, 2, 3]) {
        const name = `ov${vnetid}`;
        await overlay.createOverlay({ name, encap: 'vxlan', search: 'scripted', vnetid, properties: listen });
        overlay.cacheSet(name, mac, { ip: THERE, port });
      }
      await overlay.createOverlay(request('ov4', 4, port));
    },
    options,
  );
  isHanging = true;
  const memory = await MemoryOverlay.start({ poolBytes: 2 ** 24, ...options, store });
  try {
    const { overlay } = memory;
    assert.equal(await overlay.restore([...store.records.values()]), []);
    let isResumed = false;
    const resumed = overlay.resume().then(() => {
      isResumed = true;
    });
    // Not `up`, which waits for everything.
    memory.links.setUp('ov4', true);
    await until('the others go on', 1000, () => overlay.state('ov4') === 'started');
    for (const vnetid of [1, 2, 3]) {
      const name = `ov${vnetid}`;
      await until('what was known is served', 1000, () => {
        try {
          return overlay.cacheGet(name, mac).state === 'valid';
        } catch {
          return false;
        }
      });
      await until('it says so', 3000, () => /has not started since/.test(faultOf(memory, name)));
    }
    assert.is(isResumed, false);
    end();
    await resumed;
    for (const name of overlay.names) assert.is(faultOf(memory, name), '', name);
  } finally {
    end();
    await memory.close();
  }
});

restore(
  'targets come in beside everything else: newer ones win, removed ones stay away, a flush ends it',
  async () => {
    const port = await freePort(HERE);
    const properties = { 'vxlan/listen_ip': HERE, 'vxlan/listen_port': port };
    const [kept, changed, removed, late] = [7, 8, 9, 10].map((last) => 0x020000000000 + last) as [
      number,
      number,
      number,
      number,
    ];
    for (const isFlushed of [false, true]) {
      const store = new MemoryStore();
      const options = { plugins: [new ScriptedLookup(() => 'drop')] };
      await running(
        store,
        async ({ overlay }) => {
          await overlay.createOverlay({
            name: 'ov0',
            encap: 'vxlan',
            search: 'scripted',
            vnetid: 1,
            properties,
          });
          for (const mac of [kept, changed, removed, late]) {
            overlay.cacheSet('ov0', mac, { ip: THERE, port: 1 });
            await until('valid', 1000, () => overlay.cacheGet('ov0', mac).state === 'valid');
          }
        },
        options,
      );
      const rows = store.targets.get('ov0')!;
      assert.is(rows.length, 4);
      let goOn: () => void = () => {};
      const gate = new Promise<void>((resolve) => {
        goOn = resolve;
      });
      store.loadTargets = async function* () {
        yield rows.filter(({ mac }) => mac === kept);
        await gate;
        yield rows.filter(({ mac }) => mac !== kept);
      };
      const memory = await MemoryOverlay.start({ poolBytes: 2 ** 24, ...options, store });
      const { overlay } = memory;
      assert.equal(await overlay.restore([...store.records.values()]), []);
      const resumed = overlay.resume();
      const routeOf = (mac: number) => {
        try {
          return overlay.cacheGet('ov0', mac).route;
        } catch {
          return undefined;
        }
      };
      await until('the first is there', 1000, () => routeOf(kept) !== undefined);
      overlay.cacheSet('ov0', changed, { ip: THERE, port: 2 });
      overlay.cacheSet('ov0', removed, { ip: THERE, port: 2 });
      overlay.cacheRemove('ov0', removed);
      if (isFlushed) overlay.cacheFlush('ov0');
      goOn();
      await resumed;
      const expected = isFlushed
        ? [undefined, undefined, undefined, undefined]
        : [{ ip: THERE, port: 1 }, { ip: THERE, port: 2 }, undefined, { ip: THERE, port: 1 }];
      assert.equal([kept, changed, removed, late].map(routeOf), expected);
      await memory.close();
    }
  },
);

restore('while targets come in, the file that they come from is not written over', async () => {
  const fma = new Fma(() => {});
  const store = new MemoryStore();
  let goOn: () => void = () => {};
  const gate = new Promise<void>((resolve) => {
    goOn = resolve;
  });
  store.loadTargets = async function* () {
    await gate;
    yield [];
  };
  let saves = 0;
  store.saveTargets = async () => {
    saves++;
  };
  const entry = entryWithTargets('ov0');
  const persistence = new Persistence(store, () => [entry], fma, silent);
  const loaded = persistence.loadTargets(entry);
  await persistence.saveTargets();
  assert.is(saves, 0);
  goOn();
  await loaded;
  await persistence.saveTargets();
  assert.is(saves, 1);
  persistence.close();
});

restore('a device that did not come back: deleted by its name, or made anew', async () => {
  const store = new MemoryStore();
  const port = await freePort(HERE);
  const options = { plugins: [new ScriptedLookup(() => 'drop')] };
  const properties = { 'vxlan/listen_ip': HERE, 'vxlan/listen_port': port };
  await running(
    store,
    async ({ overlay }) => {
      for (const [name, vnetid] of [
        ['ov0', 1],
        ['ov1', 2],
      ] as const) {
        await overlay.createOverlay({ name, encap: 'vxlan', search: 'scripted', vnetid, properties });
      }
    },
    options,
  );
  // Without the plugin.
  const memory = await MemoryOverlay.start({ poolBytes: 2 ** 24, store });
  const { overlay } = memory;
  const failures = await overlay.restore([...store.records.values()]);
  assert.equal(
    failures.map(({ hasTaken }) => hasTaken),
    [false, false],
  );
  await assertRefused(
    overlay.setprop('ov0', 'mtu', 1300),
    'ENOENT',
    'no_such_device',
    /did not come back after the restart; delete it, or create it anew/,
  );
  await overlay.delete('ov0', { force: false });
  await assertRefused(overlay.delete('ov0', { force: false }), 'ENOENT', 'no_such_device');
  const found: string[] = [];
  overlay.onFound = (name) => found.push(name);
  // A create that fails changes nothing about what is kept.
  await assertRefused(
    overlay.createOverlay({ ...request('ov1', 2, port), properties: { mtu: 1 } }),
    'EINVAL',
    'bad_property_value',
  );
  await assertRefused(overlay.activate('ov1'), 'ENOENT', 'no_such_device', /did not come back/);
  assert.is(store.records.get('ov1')!.search, 'scripted');
  assert.equal(found, []);
  await overlay.createOverlay(request('ov1', 2, port));
  assert.equal(found, ['ov1']);
  assert.equal([...store.records.keys()], ['ov1']);
  assert.is(store.records.get('ov1')!.search, 'direct');
  await overlay.delete('ov1', { force: true });
  assert.is(store.records.size, 0);
  await memory.close();
});

restore(
  'a temporary device in place of one that did not come back: nothing of that one comes back later',
  async () => {
    const store = new MemoryStore();
    const port = await freePort(HERE);
    await running(store, async ({ overlay }) => {
      await overlay.createOverlay(request('ov0', 1, port));
    });
    store.records.set('ov0', { ...store.records.get('ov0')!, encap: 'nope' });
    const memory = await MemoryOverlay.start({ store });
    assert.is((await memory.overlay.restore([...store.records.values()])).length, 1);
    const before = memory.holdings();
    const open = memory.links.open.bind(memory.links);
    memory.links.open = (asked) => {
      const link = open(asked);
      link.carrierFailure = new OverlayError('EIO', 'system_call_failed', 'no carrier');
      return link;
    };
    await assertRefused(memory.overlay.createOverlay(request('ov0', 1, port)), 'EIO', 'system_call_failed');
    assert.equal(memory.holdings(), before, 'a link that cannot be prepared is given back');
    memory.links.open = open;
    await memory.overlay.createOverlay({ ...request('ov0', 1, port), isTemporary: true });
    assert.is(store.records.size, 0);
    await memory.close();
  },
);

restore('a restore that fails half-way leaves nothing behind', async () => {
  const store = new MemoryStore();
  const port = await freePort(HERE);
  await running(store, async ({ overlay }) => {
    await overlay.createOverlay(request('ov0', 1, port));
  });
  const memory = await MemoryOverlay.start({ store });
  const before = memory.holdings();
  const open = memory.links.open.bind(memory.links);
  memory.links.open = (asked) => {
    const link = open(asked);
    link.keepFailure = new OverlayError('EPERM', 'no_cap_net_admin', 'it cannot be kept');
    return link;
  };
  const failures = await memory.overlay.restore([...store.records.values()]);
  // Who handed descriptors over must not close them a second time: the numbers may be another's by then.
  assert.equal(
    failures.map(({ error, hasTaken }) => [error.code, hasTaken]),
    [['no_cap_net_admin', true]],
  );
  assert.equal(memory.holdings(), before);
  assert.is(store.records.size, 1, 'what is kept of it stays');
  await memory.close();
});

restore('what cannot come back is named and stays kept; the others come back', async () => {
  const store = new MemoryStore();
  const port = await freePort(HERE);
  await running(store, async ({ overlay }) => {
    for (const [index, name] of ['ov0', 'ov1', 'ov2', 'ov3'].entries()) {
      await overlay.createOverlay(request(name, index + 1, port));
    }
  });
  const change = (name: string, by: object) =>
    store.records.set(name, { ...store.records.get(name)!, ...by });
  change('ov0', { encap: 'nope' });
  change('ov1', { vnetid: '99999999999' });
  change('ov2', { properties: { 'vxlan/listen_port': 'x' } });
  const memory = await MemoryOverlay.start({ store });
  const before = memory.holdings();
  const failures = await memory.overlay.restore([...store.records.values()]);
  assert.equal(
    failures.map(({ name, error }) => [name, error.errno]),
    [
      ['ov0', 'ENOENT'],
      ['ov1', 'EINVAL'],
      ['ov2', 'EINVAL'],
    ],
  );
  assert.equal(memory.overlay.names, ['ov3']);
  assert.is(store.records.size, 4);
  await memory.overlay.delete('ov3', force);
  assert.equal(memory.holdings(), before, 'nothing is left of those that failed');
  await memory.close();
});

restore('last-known targets are served until the lookup source is back, then asked about again', async () => {
  const store = new MemoryStore();
  const port = await freePort(HERE);
  const route = { ip: THERE, port: 9 };
  let isSourceGone = false;
  const plugin = new ScriptedLookup(() => route, {
    start: () => {
      if (isSourceGone) throw new Error('the source is away');
    },
  });
  const options = { plugins: [plugin] };
  await running(
    store,
    async (memory) => {
      const { overlay } = memory;
      const properties = { 'vxlan/listen_ip': HERE, 'vxlan/listen_port': port };
      await overlay.createOverlay({ name: 'ov0', encap: 'vxlan', search: 'scripted', vnetid: 1, properties });
      await memory.up('ov0');
      overlay.cacheSet('ov0', 0x020000000001, route);
      overlay.cacheSet('ov0', 0x020000000002, 'drop');
      memory.links.get('ov0').port.send(0, Uint8Array.of(2, 0, 0, 0, 0, 3, ...new Array<number>(60).fill(1)));
      await until('it is known', 2000, () => {
        const { targets } = overlay.cacheIterate('ov0', 0, 10);
        return targets.length === 3 && targets.every(({ state }) => state === 'valid' || state === 'drop');
      });
    },
    options,
  );
  assert.is(store.targets.get('ov0')!.length, 3);
  isSourceGone = true;
  await running(
    store,
    async (memory) => {
      const { overlay } = memory;
      await memory.up('ov0');
      assert.is(overlay.state('ov0'), 'started', 'it forwards with what it knew');
      assert.match(faultOf(memory, 'ov0'), /the source is away/);
      const states = () =>
        overlay.cacheIterate('ov0', 0, 10).targets.map(({ state, source }) => `${state} ${source}`);
      await until(
        'the targets are settled',
        2000,
        () => states().join() === 'valid operator,drop operator,valid saved',
      );
      isSourceGone = false;
      await until('the source is asked again', 5000, () => faultOf(memory, 'ov0') === '');
      await until(
        'what was only remembered is gone',
        2000,
        () => states().join() === 'valid operator,drop operator',
      );
    },
    options,
  );
});

restore('saved targets that are no routes are passed over', async () => {
  const store = new MemoryStore();
  const port = await freePort(HERE);
  const options = { plugins: [new ScriptedLookup(() => 'drop')] };
  const properties = { 'vxlan/listen_ip': HERE, 'vxlan/listen_port': port };
  await running(
    store,
    ({ overlay }) =>
      overlay.createOverlay({ name: 'ov0', encap: 'vxlan', search: 'scripted', vnetid: 1, properties }),
    options,
  );
  const bad = [{ ip: '999.1.1.1', port: 9 }, { ip: THERE, port: 70_000 }, {}, { spread: [{ ip: 'x' }] }];
  const good = { mac: 0x020000000009, route: { ip: THERE, port: 9 }, source: 'operator' };
  const rows = bad.map((route, index) => ({ mac: 0x020000000001 + index, route, source: 'operator' }));
  store.targets.set('ov0', [...rows, good] as never);
  await running(
    store,
    async ({ overlay }) => {
      await until('the good one is there', 2000, () => overlay.cacheStats('ov0')!.targets === 1);
      assert.is(overlay.cacheGet('ov0', good.mac).source, 'operator');
    },
    options,
  );
});

restore('an external device comes back associated, and says that nobody answers', async () => {
  const store = new MemoryStore();
  const port = await freePort(HERE);
  await running(store, async (memory) => {
    const { overlay } = memory;
    const properties = { 'vxlan/listen_ip': HERE, 'vxlan/listen_port': port };
    await overlay.createOverlay({ name: 'ov0', encap: 'vxlan', search: 'external', vnetid: 1, properties });
    await overlay.associate('ov0', { mode: 'point', destination: { ip: THERE, port: 9 } });
    assert.is(overlay.state('ov0'), 'activated');
  });
  await running(store, async (memory) => {
    const { overlay } = memory;
    assert.is(overlay.state('ov0'), 'activated');
    assert.match(faultOf(memory, 'ov0'), /nobody answers lookups: the daemon was restarted/);
    await memory.up('ov0');
    assert.equal(overlay.target('ov0'), { ip: THERE, port: 9 });
    await overlay.associate('ov0', { mode: 'point', destination: { ip: THERE, port: 10 } });
    assert.is(faultOf(memory, 'ov0'), '');
  });
});

restore.run();
