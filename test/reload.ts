/** A reload: the diff of two configurations, and that it is done whole or not at all. */
import { mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import * as fc from 'fast-check';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { applySteps } from '../src/daemon/apply.js';
import { type Config, readConfig } from '../src/daemon/config.js';
import type { Declared } from '../src/daemon/declared.js';
import { Health } from '../src/daemon/health.js';
import { planReload, type Step } from '../src/daemon/reload.js';
import { Reloader } from '../src/daemon/reloader.js';
import { OverlayError } from '../src/errors.js';
import { type Log, silent } from '../src/log.js';
import { PropertyStore } from '../src/property.js';
import type { LookupPlugin } from '../src/varpd/plugin.js';
import { Daemon, Host, until } from './harness/hosts.js';
import { freePort, MemoryOverlay, refusal } from './harness/memory-overlay.js';
import { testWith } from './harness/needs.js';

const reload = suite('reload');
const plain = readConfig({ workers: '1' }, undefined);

function declared(vnetid: string | number, more: Partial<Declared> = {}): Declared {
  const { properties = {}, ...rest } = more;
  return {
    encap: 'vxlan',
    search: 'direct',
    vnetid,
    ...rest,
    properties: {
      'vxlan/listen_ip': '127.0.0.1',
      'direct/dest_ip': '127.0.0.2',
      'direct/dest_port': 4789,
      ...properties,
    },
  };
}

function withOverlays(overlays: Record<string, Declared>, more: Partial<Config> = {}): Config {
  return { ...plain, ...more, overlays: new Map(Object.entries(overlays)) };
}

function stepsOf(before: Config, after: Config): readonly Step[] {
  const plan = planReload(before, after);
  assert.ok('steps' in plan, JSON.stringify(plan));
  return (plan as { steps: readonly Step[] }).steps;
}

// ─── The diff ───────────────────────────────────────────────────────────────────────────────────────────

reload('nothing changed: nothing to do, however it is written', () => {
  assert.equal(stepsOf(plain, plain), []);
  const before = withOverlays({ ov0: declared(42, { properties: { mtu: 1400 } }) });
  const { mtu: _, ...others } = before.overlays.get('ov0')!.properties;
  const same = { ...declared('42'), temporary: false, properties: { mtu: '1400', ...others } };
  assert.equal(stepsOf(before, withOverlays({ ov0: same })), []);
});

reload('what needs a restart is named, all of it, and nothing else is planned', () => {
  const changes: [Partial<Config>, string][] = [
    [{ workers: 2 }, 'workers'],
    [{ memoryBytes: 2 ** 30 }, 'memory'],
    [{ pin: [0] }, 'pin'],
    [{ bank: 3 }, 'bank'],
    [{ socket: '/run/b' }, 'socket'],
    [{ stateDir: '/b' }, 'stateDir'],
    [{ plugin: ['b'] }, 'plugin'],
  ];
  for (const [change, key] of changes) {
    const after = withOverlays({ ov0: declared(1) }, { ...change, logLevel: 'debug' });
    assert.equal(planReload(plain, after), { refused: [key] });
  }
  const everything = Object.assign({}, plain, ...changes.map(([change]) => change));
  assert.equal(planReload(plain, everything), { refused: changes.map(([, key]) => key) });
});

reload('access first, deletions before creations, the log level last', () => {
  const before = withOverlays({ ov0: declared(1), ov1: declared(2) });
  const after = withOverlays(
    { ov1: declared(2, { properties: { mtu: 1450 } }), ov2: declared(1) },
    { logLevel: 'debug', socketMode: 0o600, group: 7 },
  );
  const steps = stepsOf(before, after);
  assert.equal(
    steps.map((step) => ('name' in step ? `${step.kind} ${step.name}` : step.kind)),
    ['access', 'delete ov0', 'change ov1', 'create ov2', 'log_level'],
  );
  assert.equal(steps[0], {
    kind: 'access',
    from: { socketMode: 0o666, group: undefined, adminGroup: undefined },
    to: { socketMode: 0o600, group: 7, adminGroup: undefined },
  });
});

reload('an overlay changes where it can; another encap, search or a vnetid of another makes it anew', () => {
  const was = { ov0: declared(1, { properties: { mtu: 1450 } }), ov1: declared(2) };
  const kinds = (after: Record<string, Declared>) =>
    stepsOf(withOverlays(was), withOverlays({ ...was, ...after })).map((step) =>
      'name' in step ? `${step.kind} ${step.name}` : step.kind,
    );
  const [change] = stepsOf(
    withOverlays(was),
    withOverlays({ ...was, ov0: declared(3, { properties: { mtu_max: 9000 } }) }),
  );
  assert.ok(change?.kind === 'change');
  assert.equal(
    [change.set, change.unset],
    [
      [
        ['vnetid', 3],
        ['mtu_max', 9000],
      ],
      ['mtu'],
    ],
  );
  assert.equal(kinds({ ov0: declared(1, { search: 'external' }) }), ['delete ov0', 'create ov0']);
  assert.equal(kinds({ ov0: { ...was.ov0, encap: 'geneve' } }), ['delete ov0', 'create ov0']);
  assert.equal(kinds({ ov0: { ...was.ov0, temporary: true } }), ['delete ov0', 'create ov0']);
  assert.equal(kinds({ ov0: declared(2), ov1: declared(1) }), [
    'delete ov0',
    'delete ov1',
    'create ov0',
    'create ov1',
  ]);
});

reload('whatever changes: the steps lead from the one to the other, and no vnetid is ever held twice', () => {
  const overlay = fc.record(
    {
      encap: fc.constantFrom('vxlan', 'geneve'),
      search: fc.constantFrom('direct', 'files'),
      vnetid: fc.nat(4),
      properties: fc.dictionary(fc.constantFrom('a', 'b', 'c'), fc.nat(3), {
        maxKeys: 3,
        noNullPrototype: true,
      }),
    },
    { noNullPrototype: true },
  );
  const overlays = fc
    .dictionary(fc.constantFrom('ov0', 'ov1', 'ov2', 'ov3'), overlay, { noNullPrototype: true })
    .filter(
      (all) =>
        new Set(Object.values(all).map(({ encap, vnetid }) => `${encap} ${vnetid}`)).size ===
        Object.keys(all).length,
    );
  fc.assert(
    fc.property(overlays, overlays, (from, to) => {
      const state = new Map<string, Declared>(Object.entries(from));
      for (const step of stepsOf(withOverlays(from), withOverlays(to))) {
        if (step.kind === 'delete') assert.ok(state.delete(step.name));
        else if (step.kind === 'create') {
          assert.not(state.has(step.name));
          state.set(step.name, step.to);
        } else {
          assert.is(step.kind, 'change');
          const { name, set, unset } = step as Step & { kind: 'change' };
          const old = state.get(name)!;
          const values = new Map<string, string | number>(
            Object.entries({ ...old.properties, vnetid: old.vnetid }),
          );
          for (const property of unset) assert.ok(values.delete(property));
          for (const [property, value] of set) values.set(property, value);
          const { vnetid, ...properties } = Object.fromEntries(values);
          state.set(name, { ...old, vnetid: vnetid!, properties });
        }
        const vnets = [...state.values()].map(({ encap, vnetid }) => `${encap} ${vnetid}`);
        assert.is(new Set(vnets).size, vnets.length, 'two hold a vnetid');
      }
      const sorted = (all: Record<string, Declared>) =>
        Object.entries(all).toSorted(([a], [b]) => (a < b ? -1 : 1));
      assert.equal(sorted(Object.fromEntries(state)), sorted(to));
    }),
    { numRuns: 2000 },
  );
});

// ─── Doing it ───────────────────────────────────────────────────────────────────────────────────────────

/** A plugin with a property that has no default and one that cannot change on an activated device. */
const odd: LookupPlugin = {
  version: 1,
  name: 'odd',
  mode: 'point',
  properties: () => ['odd/free', 'odd/fixed'],
  create: () => ({
    properties: new PropertyStore([
      {
        name: 'odd/free',
        type: 'string',
        isRequired: false,
        isReadable: true,
        isWritable: true,
        applies: 'live',
      },
      { name: 'odd/fixed', type: 'uint', isRequired: false, isReadable: true, isWritable: true, default: 1n },
    ]),
    start: () => {},
    stop: () => {},
    point: () => ({ ip: '127.0.0.2', port: 4789 }),
  }),
};

interface Bench {
  readonly memory: MemoryOverlay;
  readonly port: number;
  readonly access: object[];
  readonly levels: string[];
  apply(before: Config, after: Config): Promise<void>;
  value(name: string, property: string): unknown;
}

async function withBench(work: (bench: Bench) => Promise<void>): Promise<void> {
  const memory = await MemoryOverlay.start({ plugins: [odd] });
  const { overlay } = memory;
  const access: object[] = [];
  const levels: string[] = [];
  try {
    await work({
      memory,
      port: await freePort('127.0.0.1'),
      access,
      levels,
      apply: (before, after) =>
        applySteps(stepsOf(before, after), {
          overlay,
          log: silent,
          setAccess: (to) => access.push(to),
          setLogLevel: (level) => levels.push(level),
        }),
      value: (name, property) => overlay.property(name, property).value,
    });
  } finally {
    await memory.close();
  }
}

/** Every property of every device, with the life-cycle state. */
function picture({ overlay }: MemoryOverlay): object {
  return Object.fromEntries(
    overlay.names.toSorted().map((name) => [
      name,
      [
        overlay.state(name),
        ...overlay
          .properties(name)
          .filter(({ info }) => info.name !== 'varpd/id')
          .map(({ info, value }) => `${info.name}=${value}`),
      ],
    ]),
  );
}

reload('overlays are created, changed and deleted; access and log level follow', () =>
  withBench(async ({ memory, port, apply, value, access, levels }) => {
    const listen = { 'vxlan/listen_port': port };
    const first = withOverlays({
      ov0: declared(1, { properties: listen }),
      ov1: declared(2, { properties: listen }),
    });
    await apply(plain, first);
    assert.equal(memory.overlay.names, ['ov0', 'ov1']);
    await memory.up('ov0');
    const link = memory.links.get('ov0');
    const second = withOverlays(
      {
        ov0: declared(7, {
          properties: { ...listen, mtu: 9000, mtu_max: 9000, 'direct/dest_ip': '127.0.0.3' },
        }),
        ov2: declared(2, { properties: listen }),
      },
      { logLevel: 'warn', socketMode: 0o600 },
    );
    await apply(first, second);
    assert.equal(memory.overlay.names, ['ov0', 'ov2']);
    assert.equal(
      ['vnetid', 'mtu', 'direct/dest_ip'].map((property) => value('ov0', property)),
      [7n, 9000n, '127.0.0.3'],
    );
    assert.equal([link.isReleased, memory.overlay.state('ov0')], [false, 'started'], 'the link has stayed');
    assert.equal([access.length, levels], [1, ['warn']]);
    // What is not said any more goes back to its default, the bound behind the value.
    await apply(second, first);
    assert.equal([value('ov0', 'mtu'), value('ov0', 'mtu_max')], [1400n, 8900n]);
    await apply(first, plain);
    assert.equal(memory.overlay.names, []);
  }),
);

reload('where a device cannot change, it is made anew: a fixed property, one that is to have no value', () =>
  withBench(async ({ memory, port, apply, value }) => {
    const with_ = (properties: Declared['properties']) =>
      withOverlays({
        ov0: {
          encap: 'vxlan',
          search: 'odd',
          vnetid: 1,
          properties: { 'vxlan/listen_ip': '127.0.0.1', 'vxlan/listen_port': port, ...properties },
        },
      });
    await apply(plain, with_({ 'odd/free': 'a' }));
    const link = memory.links.get('ov0');
    await apply(with_({ 'odd/free': 'a' }), with_({ 'odd/free': 'b' }));
    assert.equal([value('ov0', 'odd/free'), link.isReleased], ['b', false]);
    await apply(with_({ 'odd/free': 'b' }), with_({ 'odd/free': 'b', 'odd/fixed': 2 }));
    assert.equal([value('ov0', 'odd/fixed'), value('ov0', 'odd/free'), link.isReleased], [2n, 'b', true]);
    await apply(with_({ 'odd/free': 'b', 'odd/fixed': 2 }), with_({ 'odd/fixed': 2 }));
    assert.equal([value('ov0', 'odd/fixed'), value('ov0', 'odd/free')], [2n, undefined]);
  }),
);

reload('a step that fails: everything before it is taken back', () =>
  withBench(async ({ memory, port, apply, access, levels }) => {
    const listen = { 'vxlan/listen_port': port };
    const odds = (properties: Declared['properties']): Declared => ({
      encap: 'vxlan',
      search: 'odd',
      vnetid: 3,
      properties: { 'vxlan/listen_ip': '127.0.0.1', ...listen, ...properties },
    });
    let before = withOverlays({
      ov0: declared(1, { properties: { ...listen, mtu: 9000, mtu_max: 9000 } }),
      ov1: declared(2, { properties: listen }),
      ov3: odds({}),
    });
    await apply(plain, withOverlays({}));
    // As the operator writes them here: the bound first.
    const ordered = { ...listen, mtu_max: 9000, mtu: 9000 };
    await apply(
      withOverlays({}),
      withOverlays({ ...Object.fromEntries(before.overlays), ov0: declared(1, { properties: ordered }) }),
    );
    // Set by hand, after the configuration: it comes back as well.
    await memory.overlay.setprop('ov0', 'vxlan/source_check', 'off');
    await memory.overlay.setprop('ov1', 'mtu', 700);
    await memory.overlay.create('hand', 'vxlan', 'direct', 99);
    // Declared, made by hand as declared, and never activated.
    await memory.overlay.create('idle', 'vxlan', 'odd', 60);
    await memory.overlay.setprop('idle', 'vxlan/listen_ip', '127.0.0.1');
    before = withOverlays({ ...Object.fromEntries(before.overlays), idle: { ...odds({}), vnetid: 60 } });
    const external: Declared = {
      encap: 'vxlan',
      search: 'external',
      vnetid: 1,
      properties: { 'vxlan/listen_ip': '127.0.0.1', ...listen },
    };
    const seen = picture(memory);
    const held = memory.holdings();
    const failing: [Record<string, Declared>, RegExp][] = [
      [
        { ov1: declared(2, { properties: listen }), bad: declared(1, { search: 'nope' }) },
        /no lookup plugin 'nope'/,
      ],
      [
        { ov0: declared(5, { properties: { ...listen, mtu: 1300 } }), bad: declared(99) },
        /vnetid 99 is that of overlay 'hand'/,
      ],
      [
        {
          ov0: declared(1, { properties: { ...listen, mtu: 1300 } }),
          ov1: declared(4, { properties: { mtu: 1 } }),
        },
        /mtu cannot be '1'/,
      ],
      [{ ov0: external, hand: declared(50) }, /'hand' exists already and is not what is declared: vnetid/],
      [{ ov3: odds({ 'odd/free': 'x', 'odd/fixed': 4 }), bad: declared(99) }, /vnetid 99/],
      [
        { ov3: odds({ 'odd/free': 'x' }), ov1: declared(2, { properties: { ...listen, mtu: 1 } }) },
        /mtu cannot be '1'/,
      ],
    ];
    for (const [overlays, message] of failing) {
      const after = withOverlays(overlays, { socketMode: 0o600, logLevel: 'debug' });
      const error = await refusal(apply(before, after));
      assert.match(error.message, message);
      assert.equal(
        error.parts.filter((part) => part.startsWith('not taken back')),
        [],
      );
      assert.equal(picture(memory), seen, `${message}`);
      assert.equal({ ...memory.holdings(), names: [], links: [] }, { ...held, names: [], links: [] });
      assert.equal(access.at(-1), { socketMode: 0o666, group: undefined, adminGroup: undefined });
    }
    assert.equal(levels, []);
  }),
);

reload('what an operator has deleted or made by hand as declared is no fault', () =>
  withBench(async ({ memory, port, apply }) => {
    const listen = { 'vxlan/listen_port': port };
    const one = withOverlays({ ov0: declared(1, { properties: listen }) });
    await memory.overlay.createOverlay({
      name: 'ov0',
      ...declared('1', { properties: { ...listen, 'vxlan/listen_ip': '::ffff:127.0.0.1' } }),
    });
    await apply(plain, one);
    await memory.overlay.delete('ov0', { force: true });
    const changed = withOverlays({ ov0: declared(2, { properties: listen }) });
    await apply(one, changed);
    assert.is(memory.overlay.property('ov0', 'vnetid').value, 2n);
    await memory.overlay.delete('ov0', { force: true });
    await apply(changed, plain);
    assert.equal(memory.overlay.names, []);
  }),
);

// ─── One after the other ────────────────────────────────────────────────────────────────────────────────

function recorder(): { log: Log; lines: string[] } {
  const lines: string[] = [];
  const keep = (_: object, message: string) => lines.push(message);
  return { log: { debug: keep, info: keep, warn: keep, error: keep }, lines };
}

reload(
  'the reloader: declared overlays at the start, those that failed again, degraded until all is well',
  async () => {
    const memory = await MemoryOverlay.start();
    const { log, lines } = recorder();
    const health = new Health(memory.overlay.fma);
    const port = await freePort('127.0.0.1');
    const listen = { 'vxlan/listen_port': port };
    let now: () => Config;
    const both = withOverlays({
      ov0: declared(1, { properties: listen }),
      ov1: declared(1, { properties: listen }),
    });
    const reloader = new Reloader(
      { overlay: memory.overlay, log, health, read: () => now(), setAccess: () => {}, setLogLevel: () => {} },
      both,
    );
    try {
      await reloader.start();
      assert.equal([memory.overlay.names.length, memory.overlay.fma.processStatus], [1, 'DEGRADED']);
      assert.match(health.faults[0]!, /^declared overlay 'ov1' is not there: .*vnetid 1/);

      now = () => {
        throw new OverlayError('EINVAL', 'bad_config', 'f:1:2: one', ['f:3:4: two']);
      };
      lines.length = 0;
      await reloader.reload();
      assert.equal(
        lines.filter((line) => line.startsWith('reload: ')),
        ['reload: f:1:2: one', 'reload: f:3:4: two'],
      );
      now = () => ({ ...both, workers: 9, bank: 3 });
      await reloader.reload();
      assert.ok(lines.includes('reload: needs a restart: workers, bank'), lines.join('\n'));
      assert.equal([memory.overlay.names, health.faults.length], [['ov0'], 2]);

      now = () =>
        withOverlays({ ov0: declared(1, { properties: listen }), ov1: declared(2, { properties: listen }) });
      await Promise.all([reloader.reload(), reloader.reload(), reloader.reload()]);
      assert.equal([memory.overlay.names, memory.overlay.fma.processStatus], [['ov0', 'ov1'], 'ONLINE']);
      assert.is(
        lines.filter((line) => line === 'configuration reloaded').length,
        1,
        'those that wait are one',
      );

      let reads = 0;
      now = () => {
        reads++;
        return plain;
      };
      await reloader.close();
      await reloader.reload();
      assert.equal([reads, memory.overlay.names], [0, ['ov0', 'ov1']], 'nothing begins after the end');
    } finally {
      await memory.close();
    }
  },
);

testWith(
  reload,
  ['root', '/dev/net/tun'],
  'SIGHUP: a file put into force, refused, broken, and mended',
  async () => {
    const host = new Host();
    const directory = mkdtempSync(join(tmpdir(), 'overlayd-reload-'));
    try {
      const file = join(directory, 'overlayd.yaml');
      const overlay = (vnetid: number) =>
        `{encap: vxlan, search: external, vnetid: ${vnetid}, properties: {vxlan/listen_ip: 192.0.2.1}}`;
      writeFileSync(file, `overlays:\n  ov0: ${overlay(1)}\n`);
      const daemon = await Daemon.start(host, directory, {
        flags: ['--workers', '1', '--memory', '64M', '--config', file],
      });
      await until('it is ready', 5000, () => daemon.log.includes('"ready"'));
      const names = async () =>
        Object.keys((await daemon.client.get<{ overlays: object }>('/v1/overlays')).overlays);
      const hangup = async (text: string, expected: string) => {
        writeFileSync(file, text);
        const from = daemon.log.length;
        daemon.child.kill('SIGHUP');
        await until(expected, 5000, () => daemon.log.slice(from).includes(expected));
        return daemon.log.slice(from);
      };
      await hangup(
        `logLevel: debug\nsocketMode: '0600'\ngroup: 12345\noverlays:\n  ov1: ${overlay(1)}\n`,
        'configuration reloaded',
      );
      assert.equal(await names(), ['ov1']);
      const { mode, gid } = statSync(daemon.socket);
      assert.equal([mode & 0o777, gid], [0o600, 12345]);
      const broken = await hangup('overlays:\n  ov1: 5\nbank: 0\n', 'reload refused');
      assert.match(broken, /overlayd\.yaml:2:8: overlays\.ov1: it is an overlay/);
      assert.match(broken, /overlayd\.yaml:3:7: bank: /);
      assert.match(await hangup('bank: 3\nworkers: 1\n', 'reload refused'), /needs a restart: bank/);
      assert.equal(await names(), ['ov1']);
      await hangup(`overlays:\n  ov1: ${overlay(1)}\n  ov2: ${overlay(2)}\n`, 'configuration reloaded');
      assert.equal((await names()).toSorted(), ['ov1', 'ov2']);
      assert.is(statSync(daemon.socket).mode & 0o777, 0o666, 'what is not said any more goes back');
      await daemon.stop();
      assert.is(daemon.child.exitCode, 0, daemon.log);
    } finally {
      await host.close();
      rmSync(directory, { recursive: true, force: true });
    }
  },
);

reload.run();
