/** Third-party lookup plugins, and what is left of one that goes wrong. */
import { spawn } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, relative } from 'node:path';
import { pathToFileURL } from 'node:url';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { OverlayError } from '../src/errors.js';
import type { Log } from '../src/log.js';
import type { LookupInstance, LookupRequest, LookupServices } from '../src/varpd/plugin.js';
import { Bucket } from '../src/varpd/remote/bucket.js';
import { CALLS_PER_SESSION_MAX } from '../src/varpd/remote/calls.js';
import { Memory } from '../src/varpd/remote/memory.js';
import { Outbox } from '../src/varpd/remote/outbox.js';
import { CHANGE_RATE, type FromThread, SERVICE_CALLS_MAX } from '../src/varpd/remote/protocol.js';
import { RareLog } from '../src/varpd/remote/rare-log.js';
import { loadRemotePlugin, type RemotePlugin, type RemotePluginOptions } from '../src/varpd/remote.js';
import { until } from './harness/hosts.js';
import { assertRefused } from './harness/memory-overlay.js';
import { MemoryPair, sideIp } from './harness/memory-pair.js';
import { lies } from './plugins/lies.js';
import * as frames from './reference/frames.js';

const remote = suite('remote plugins');
/** What anything may take on a slow machine; nothing here should need it. */
const PATIENCE_MS = 30_000;
const IP_AND_PORT = 6;

type Line = { level: string; message: string; fields: Readonly<Record<string, unknown>> };

class TestLog implements Log {
  readonly lines: Line[] = [];
  debug = (fields: object, message: string) => this.#push('debug', fields, message);
  info = (fields: object, message: string) => this.#push('info', fields, message);
  warn = (fields: object, message: string) => this.#push('warn', fields, message);
  error = (fields: object, message: string) => this.#push('error', fields, message);

  count(message: RegExp): number {
    return this.lines.filter((line) => message.test(line.message)).length;
  }

  #push(level: string, fields: object, message: string): void {
    this.lines.push({ level, message, fields: { ...fields } });
  }
}

/** Services that write down how they are used. */
class Recorder implements LookupServices {
  readonly overlay = 'ov0';
  readonly uses: unknown[][] = [];
  /** The device's words, as `Fma` would have them. */
  fault: string | undefined;

  constructor(readonly vnetid = 42n) {}

  set = (...use: unknown[]) => void this.uses.push(['set', ...use]);
  invalidate = (...use: unknown[]) => void this.uses.push(['invalidate', ...use]);
  invalidateAll = () => void this.uses.push(['invalidateAll']);
  gratuitousArp = (use: object) => void this.uses.push(['gratuitousArp', use]);
  peersChanged = () => void this.uses.push(['peersChanged']);
  log = (...use: unknown[]) => void this.uses.push(['log', ...use]);
  degrade = (text: string) => {
    this.fault = text;
  };
  restore = () => {
    this.fault = undefined;
  };
}

interface Rig {
  readonly plugin: RemotePlugin;
  readonly log: TestLog;
}

const fixture = (name: string) => join(import.meta.dirname, 'plugins', `${name}.js`);

/** Runs a test with a plugin, and sees its thread end. */
async function withPlugin(
  name: string,
  options: Partial<RemotePluginOptions>,
  work: (rig: Rig) => Promise<void>,
): Promise<void> {
  const log = new TestLog();
  const plugin = await loadRemotePlugin(fixture(name), { log, backoffMs: 20, ...options });
  try {
    await work({ plugin, log });
  } finally {
    await plugin.close();
  }
}

type Values = Readonly<Record<string, string | number>>;

async function started(plugin: RemotePlugin, values: Values = {}, services = new Recorder()) {
  const instance = plugin.create(IP_AND_PORT);
  for (const [name, value] of Object.entries(values)) instance.properties.set(name, value);
  await instance.start(services);
  return { instance, services };
}

let asked = 0;

/** A request for a MAC address with this last octet. */
function request(last: string): LookupRequest {
  return {
    id: String(++asked),
    overlay: 'ov0',
    vnetid: 42n,
    source: '02:00:00:00:00:01',
    destination: `02:00:00:00:00:${last}`,
    kind: 'unicast',
    isDhcp: false,
    etherType: 0x0800,
    vlan: 0,
    headerBytes: 14,
    payloadBytes: 50,
  };
}

const lookup = (instance: LookupInstance, last: string) => Promise.resolve(instance.lookup!(request(last)));
const GOOD: Values = { 'good/ip': '192.0.2.1' };
const ROUTE = { ip: '192.0.2.1', port: 4789 };

/** It answers as `good` does; `unknown` is an answer that it gives whatever its properties are. */
async function assertWorks(instance: LookupInstance): Promise<void> {
  await until('it answers', PATIENCE_MS, async () => {
    try {
      return (await lookup(instance, '00')) !== undefined;
    } catch (error) {
      assert.ok(error instanceof OverlayError, String(error));
      return false;
    }
  });
}

/** A call that dies with the thread; then the device is degraded, and works again. */
async function assertReplaced(
  { plugin, log }: Rig,
  { instance, services }: { instance: LookupInstance; services: Recorder },
  reason: RegExp,
  kill: () => Promise<unknown>,
): Promise<void> {
  const deaths = plugin.counts.deaths;
  const other = await started(plugin);
  // What is asked when it dies is told at once, of all instances.
  const killing = kill();
  await assertRefused(killing, 'ECANCELED', 'plugin_died', reason);
  assert.match(services.fault ?? '', reason);
  assert.match(other.services.fault ?? '', reason);
  await assertRefused(() => lookup(instance, '00'), 'EAGAIN', 'plugin_away', /is being started again/);
  await until('both are restored', PATIENCE_MS, () => !services.fault && !other.services.fault);
  await assertWorks(instance);
  await assertWorks(other.instance);
  assert.ok(plugin.counts.deaths > deaths);
  assert.ok(log.count(/^a lookup plugin died$/) > 0 && log.count(/works again$/) > 0);
  await other.instance.stop();
}

remote('a good one: declaration, properties, every answer and every service', async () => {
  await withPlugin('good', {}, async ({ plugin, log }) => {
    assert.equal([plugin.version, plugin.name, plugin.mode], [1, 'good', 'dynamic']);
    assert.equal(plugin.properties(IP_AND_PORT), ['good/at', 'good/ip', 'good/port']);
    const { instance, services } = await started(plugin, { 'good/ip': '::ffff:192.0.2.1' });
    assert.is(instance.properties.get('good/port'), 4789n);
    assert.equal(instance.properties.info('good/port').possible, [{ min: 1n, max: 65_535n }]);
    assert.equal(await lookup(instance, '01'), ROUTE);
    assert.equal(await lookup(instance, '02'), { spread: [ROUTE, { ...ROUTE, port: 1 }] });
    assert.is(await lookup(instance, '03'), 'unknown');
    assert.is(await lookup(instance, '04'), 'proxy-arp');
    const query = { ip: '10.0.0.1', request: request('04') };
    assert.is(await instance.arp!({ ...query, family: 4 }), '02:00:00:00:00:04');
    assert.is(await instance.arp!({ ...query, family: 6 }), '02:00:00:00:00:06');
    assert.is(await instance.arp!({ ...query, family: 4, ip: '10.0.0.2' }), undefined);
    assert.is(await instance.dhcp!(request('04')), '02:00:00:00:00:dd');
    assert.equal(instance.peers!(), ['192.0.2.1', '2001:db8::1', '127.0.0.1']);
    assert.is(instance.point, undefined);
    for (const trick of ['a1', 'a2', 'a3', 'a4', 'a5', 'a8']) await lookup(instance, trick);
    assert.equal(services.uses, [
      ['set', '02:00:00:00:00:77', { replicate: [ROUTE, { ...ROUTE, port: 4790 }] }],
      ['invalidate', '02:00:00:00:00:77'],
      ['invalidateAll'],
      ['gratuitousArp', { mac: '02:00:00:00:00:77', ip: '10.0.0.1', vlan: 5 }],
      ['peersChanged'],
      ['log', 'warn', 'mind the gap'],
    ]);
    assert.equal(instance.peers!(), ['192.0.2.9']);
    await lookup(instance, 'a6');
    assert.is(services.fault, 'its source is gone');
    await lookup(instance, 'a7');
    assert.is(services.fault, undefined);
    await lookup(instance, 'a9');
    const printed = log.lines.filter(({ message }) => message === 'a lookup plugin printed');
    assert.equal(
      printed.map(({ fields }) => fields),
      [
        { plugin: 'good', line: 'printed and 42' },
        { plugin: 'good', line: 'no end of line yet, now' },
      ],
    );
    // What is wrong is refused where it is done, in the plugin's own call.
    await assertRefused(() => lookup(instance, 'aa'), 'EINVAL', 'bad_mac');
    await assertRefused(() => lookup(instance, 'ab'), 'EINVAL', 'bad_address');
    await instance.stop();
    const { asked: all } = instance.save!() as { asked: string[] };
    assert.equal(all.slice(0, 4), ['01', '02', '03', '04']);
    assert.equal(plugin.counts, {
      deaths: 0,
      strayAnswers: 0,
      oddMessages: 0,
      droppedCalls: 0,
      refusedCalls: 0,
    });
  });
});

remote('properties: refused at the start, passed on while it runs', async () => {
  await withPlugin('good', {}, async ({ plugin }) => {
    const instance = plugin.create(IP_AND_PORT);
    const services = new Recorder();
    await assertRefused(instance.start(services) as Promise<void>, 'EAGAIN', 'property_missing', /good\/ip/);
    await assertRefused(() => instance.properties.set('good/port', 0), 'EINVAL', 'bad_property_value');
    instance.properties.set('good/ip', '192.0.2.1');
    // What only the plugin's own code finds wrong.
    instance.properties.set('good/port', 666);
    await assertRefused(instance.start(services) as Promise<void>, 'EINVAL', 'bad_property_value', /beast/);
    instance.properties.set('good/port', 99);
    await instance.start(services);
    assert.equal(await lookup(instance, '01'), { ...ROUTE, port: 99 });
    instance.properties.set('good/port', 100);
    assert.equal(await lookup(instance, '01'), { ...ROUTE, port: 100 });
    instance.properties.set('good/port', 666);
    await until('it is told', PATIENCE_MS, () => /refuses good\/port/.test(services.fault ?? ''));
    assert.equal(await lookup(instance, '01'), { ...ROUTE, port: 100 });
    await instance.stop();
    await instance.stop();
  });
});

remote('POINT, by default export; asked once, and not available for other destination kinds', async () => {
  await withPlugin('point', {}, async ({ plugin }) => {
    assert.is(plugin.mode, 'point');
    for (const kinds of [0, 2, 7, 8, -1, 1.5]) {
      await assertRefused(() => plugin.create(kinds), 'ENOTSUP', 'destination_not_supported');
      assert.equal(plugin.properties(kinds), []);
    }
    const quiet = plugin.create(IP_AND_PORT);
    await assertRefused(() => quiet.point!(), 'EAGAIN', 'not_started');
    await quiet.start(new Recorder());
    assert.equal([quiet.point!().ip, quiet.lookup], ['192.0.2.1', undefined]);
    await quiet.stop();
    // Its thread ends, and then it names another destination: frames cannot follow.
    const services = new Recorder(1n);
    const instance = plugin.create(IP_AND_PORT);
    await instance.start(services);
    const point = instance.point!();
    await until('it says so', PATIENCE_MS, () => /frames go where they went/.test(services.fault ?? ''));
    assert.equal(instance.point!(), point);
    await instance.stop();
  });
});

remote('found by absolute and relative path, URL, directory and package name', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'overlayd-remote-'));
  const log = new TestLog();
  const write = (path: string, text: string) => {
    mkdirSync(join(folder, path, '..'), { recursive: true });
    writeFileSync(join(folder, path), text);
  };
  const source = (name: string) => `
    const properties = { infos: [], set() {} };
    const plugin = { version: 1, name: '${name}', mode: 'dynamic', properties: () => [], create: () =>
      ({ properties, start() {}, stop() {}, lookup: () => 'drop' }) };
    export default plugin;`;
  try {
    write('file.mjs', source('by-file'));
    write('folder/package.json', '{ "type": "module", "main": "lib/plugin.js" }');
    write('folder/lib/plugin.js', source('by-folder'));
    write('empty/readme', '');
    // `import` alone finds these.
    const exports =
      '{ "type": "module", "exports": { "./sub": { "import": "./s.js" }, ".": { "import": "./p.js" } } }';
    for (const name of ['some-package', '@scope/other']) {
      write(`node_modules/${name}/package.json`, exports);
      write(`node_modules/${name}/p.js`, source(name.replace('/', ' ')));
      write(`node_modules/${name}/s.js`, source('by-sub-path'));
    }
    const cases: [specifier: string, name: string][] = [
      [join(folder, 'file.mjs'), 'by-file'],
      ['./file.mjs', 'by-file'],
      ['file.mjs', 'by-file'],
      [pathToFileURL(join(folder, 'file.mjs')).href, 'by-file'],
      ['./folder', 'by-folder'],
      ['some-package', 'some-package'],
      ['some-package/sub', 'by-sub-path'],
      ['@scope/other', '@scope other'],
    ];
    for (const [specifier, name] of cases) {
      const plugin = await loadRemotePlugin(specifier, { log, directory: folder });
      assert.is(plugin.name, name, specifier);
      const { instance } = await started(plugin);
      assert.is(await lookup(instance, '00'), 'drop');
      await plugin.close();
    }
    const here = relative(process.cwd(), fixture('good'));
    const plugin = await loadRemotePlugin(here, { log });
    assert.is(plugin.name, 'good', 'relative to the working directory');
    await plugin.close();
    const load = (specifier: string) => loadRemotePlugin(specifier, { log, directory: folder });
    const missing = [
      './nope.js',
      '/nope/nope.js',
      'nope',
      '@scope/nope',
      'fs',
      'node:fs',
      './empty',
      'data:text/x,1',
    ];
    for (const specifier of missing) {
      await assertRefused(load(specifier), 'ENOENT', 'no_such_plugin_module', /./);
    }
    for (const specifier of ['', 'a\0b', 'x'.repeat(5000), 'file://elsewhere/x']) {
      await assertRefused(load(specifier), 'EINVAL', 'bad_plugin_module');
    }
    await assertRefused(load('some-package/nope'), 'EINVAL', 'bad_plugin_module', /its import failed/);
  } finally {
    rmSync(folder, { recursive: true });
  }
});

remote('a bad declaration is refused with what is wrong', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'overlayd-remote-'));
  const path = join(folder, 'plugin.mjs');
  const head = "version: 1, name: 'x', mode: 'dynamic', properties: () => []";
  const rest = "start() {}, stop() {}, lookup: () => 'drop'";
  const infos = (text: string) =>
    `plugin = { ${head}, create: () => ({ properties: { set() {}, infos: ${text} }, ${rest} }) }`;
  const info = "name: 'x/y', type: 'uint', isRequired: false, isReadable: true, isWritable: true";
  const cases: [text: string, why: RegExp][] = [
    ['nothing = 1', /exports no object/],
    ['plugin = 7', /exports no object/],
    ['plugin = {}', /version is undefined/],
    ["plugin = { version: '1' }", /version is 1, it must be 1/],
    ['plugin = { version: 2 }', /version is 2/],
    ['plugin = { version: 1 }', /the name is/],
    ["plugin = { version: 1, name: 'a/b' }", /the name is/],
    [`plugin = { version: 1, name: '${'x'.repeat(32)}' }`, /the name is/],
    ["plugin = { version: 1, name: 'x', mode: 'both' }", /mode is neither/],
    ["plugin = { version: 1, name: 'x', mode: 'point', create() {} }", /properties is no function/],
    [`plugin = { ${head} }`, /create is no function/],
    [`plugin = { ${head}, create() {} }`, /create gave no object/],
    [`plugin = { ${head}, create() { throw new TypeError('oh') } }`, /something else than ENOTSUP: oh/],
    [
      `plugin = { ${head}, create() { throw { errno: 'ENOTSUP', code: 'no', message: 'not me' } } }`,
      /no kind of destination: not me/,
    ],
    [`plugin = { ${head}, create: () => ({ start() {}, stop: 1 }) }`, /stop of an instance/],
    [`plugin = { ${head}, create: () => ({ start() {}, stop() {} }) }`, /needs the function lookup/],
    [`plugin = { ${head}, create: () => ({ ${rest} }) }`, /no PropertyStore/],
    [
      `plugin = { ${head}, create: () => ({ properties: { set() {}, infos: [] }, ${rest}, arp: 1 }) }`,
      /arp of/,
    ],
    [infos('7'), /a list of at most 64 properties/],
    [infos('Array(65).fill({})'), /a list of at most 64 properties/],
    [infos('[7]'), /a property is no object/],
    [infos('[{}]'), /name is 1 to 63 bytes/],
    [infos("[{ name: 'x/y', type: 'float' }]"), /unknown type/],
    [infos("[{ name: 'x/y', type: 'uint' }]"), /a flag of property x\/y/],
    [infos(`[{ ${info}, possible: [] }]`), /what property x\/y may be/],
    [infos(`[{ ${info}, possible: [{ min: 1, max: 2 }] }]`), /two bigints/],
    [infos(`[{ ${info}, default: 1 }]`), /is no bigint/],
    [infos(`[{ ${info}, default: -1n }]`), /not possible/],
    [infos(`[{ ${info} }]`), /properties\(\) does not name/],
    [infos(`[{ ${info} }, { ${info} }]`), /two properties have one name/],
    ["plugin = new Proxy({}, { get() { throw new Error('a trap') } })", /a trap/],
  ];
  try {
    for (const [text, why] of cases) {
      writeFileSync(path, `export const ${text};`);
      const load = loadRemotePlugin(path, { log: new TestLog() });
      const error = await assertRefused(
        load,
        why.source === 'a trap' ? 'EIO' : 'EINVAL',
        why.source === 'a trap' ? 'lookup_failed' : 'bad_lookup_plugin',
        why,
      );
      assert.match(error.message, /plugin\.mjs' cannot be loaded/, text);
    }
  } finally {
    rmSync(folder, { recursive: true });
  }
});

remote('an import that throws, never ends, loops or ends the process', async () => {
  const log = new TestLog();
  const load = (name: string) => loadRemotePlugin(fixture(name), { log, importMs: 1000 });
  await assertRefused(load('refuses'), 'EINVAL', 'bad_plugin_module', /its import failed: not on this host/);
  await assertRefused(load('slow'), 'ETIME', 'plugin_import_slow', /takes more than 1000 ms/);
  await assertRefused(load('spins'), 'ETIME', 'plugin_import_slow', /takes more than 1000 ms/);
  const folder = mkdtempSync(join(tmpdir(), 'overlayd-remote-'));
  try {
    const path = join(folder, 'plugin.mjs');
    writeFileSync(path, 'process.exit(0);');
    await assertRefused(loadRemotePlugin(path, { log }), 'EIO', 'plugin_died', /ended by itself/);
    writeFileSync(path, 'const all = []; for (;;) all.push([all.length, {}]);');
    await assertRefused(
      loadRemotePlugin(path, { log, memoryMb: 32 }),
      'EIO',
      'plugin_died',
      /32 MiB|all memory/,
    );
  } finally {
    rmSync(folder, { recursive: true });
  }
});

remote('throws: the call fails with what it threw, whatever that is', async () => {
  await withPlugin('throws', {}, async (rig) => {
    const { plugin } = rig;
    for (const at of ['start', 'peers']) {
      const start = started(plugin, { 'throws/at': at });
      await assertRefused(start, 'EIO', 'lookup_failed', new RegExp(`${at} went wrong`));
    }
    const both = await started(plugin);
    const { instance } = both;
    await assertRefused(() => lookup(instance, '01'), 'EHOSTUNREACH', 'source_gone', /the source is gone/);
    await assertRefused(() => lookup(instance, '02'), 'ECONNREFUSED', 'lookup_failed', /refused/);
    await assertRefused(() => lookup(instance, '03'), 'EIO', 'lookup_failed', /undefined|it threw/).catch(
      () => {},
    );
    await assertRefused(() => lookup(instance, '04'), 'EIO', 'lookup_failed', /cannot be shown/);
    const long = await lookup(instance, '05').catch((error: Error) => error);
    assert.ok(long instanceof OverlayError && long.message.length === 1024);
    await assertRefused(() => lookup(instance, '06'), 'EIO', 'lookup_failed', /cannot be shown/);
    await assertWorks(instance);
    const dying = (last: string, why: RegExp) =>
      assertReplaced(rig, both, why, async () => {
        // It answers before it dies, and so another must be under way.
        for (;;) await lookup(instance, last);
      });
    await dying('07', /nobody catches: later/);
    await dying('08', /nobody catches: nobody looks/);
    await instance.stop();
    for (const at of ['lookup', 'arp', 'dhcp']) {
      const { instance: one } = await started(plugin, { 'throws/at': at });
      const why = new RegExp(`${at} went wrong`);
      const query = { family: 4, ip: '10.0.0.1', request: request('00') } as const;
      const ask = {
        lookup: () => lookup(one, '00'),
        arp: () => one.arp!(query),
        dhcp: () => one.dhcp!(query.request),
      };
      await assertRefused(() => ask[at as 'arp'](), 'EIO', 'lookup_failed', why);
      await one.stop();
    }
    const stopping = await started(plugin, { 'throws/at': 'stop' });
    await assertRefused(stopping.instance.stop() as Promise<void>, 'EIO', 'lookup_failed', /stop went wrong/);
    const restoring = plugin.create(IP_AND_PORT);
    restoring.properties.set('throws/at', 'restore');
    restoring.restore!({ some: 'thing' });
    await assertRefused(
      restoring.start(new Recorder()) as Promise<void>,
      'EIO',
      'lookup_failed',
      /restore went/,
    );
  });
});

remote('hangs: every call has its deadline, and other calls are answered meanwhile', async () => {
  await withPlugin('hangs', { lookupMs: 300, startMs: 300, stopMs: 300 }, async ({ plugin }) => {
    const { instance } = await started(plugin);
    const hung = lookup(instance, '01');
    assert.is(await lookup(instance, '02'), 'drop');
    await assertRefused(hung, 'ETIME', 'lookup_slow', /did not end lookup within 300 ms/);
    const query = { family: 4, ip: '10.0.0.1', request: request('00') } as const;
    await assertRefused(() => instance.arp!(query), 'ETIME', 'lookup_slow', /arp/);
    await assertRefused(() => instance.dhcp!(query.request), 'ETIME', 'lookup_slow', /dhcp/);
    // No more wait than there may be; a stop ends them at once.
    const many = Array.from({ length: CALLS_PER_SESSION_MAX + 10 }, () =>
      lookup(instance, '01').catch((error: OverlayError) => error.code),
    );
    const stopped = instance.stop();
    const ends = await Promise.all(many);
    await stopped;
    assert.is(ends.filter((code) => code === 'plugin_busy').length, 10);
    assert.is(ends.filter((code) => code === 'plugin_stopped').length, CALLS_PER_SESSION_MAX);
    await assertRefused(started(plugin, { 'hangs/at': 'start' }), 'ETIME', 'lookup_slow', /end start within/);
    const last = await started(plugin, { 'hangs/at': 'stop' });
    await assertRefused(last.instance.stop() as Promise<void>, 'ETIME', 'lookup_slow', /end stop within/);
    assert.is(plugin.counts.deaths, 0, 'an instance that hangs does not harm the others');
  });
});

remote('loops for ever: its thread is replaced, and every instance starts again', async () => {
  for (const at of ['lookup', 'microtasks']) {
    await withPlugin('loops', { pingMs: 250, lookupMs: PATIENCE_MS }, async (rig) => {
      const both = await started(rig.plugin);
      await assertReplaced(rig, both, /did not react for 1000 ms/, async () => {
        both.instance.properties.set('loops/at', at);
        const looping = lookup(both.instance, '00');
        // Not to be told again to the next life.
        both.instance.properties.set('loops/at', 'nowhere');
        return looping;
      });
      await both.instance.stop();
    });
  }
  await withPlugin('loops', { pingMs: 250 }, async ({ plugin }) => {
    await assertRefused(
      started(plugin, { 'loops/at': 'start' }),
      'ECANCELED',
      'plugin_died',
      /did not react/,
    );
    await until('it is back', PATIENCE_MS, async () => {
      try {
        const { instance } = await started(plugin, { 'loops/at': 'stop' });
        await instance.stop();
        return true;
      } catch {
        return false;
      }
    });
  });
});

remote('ends its process, as it thinks', async () => {
  await withPlugin('exits', {}, async (rig) => {
    const both = await started(rig.plugin);
    await assertReplaced(rig, both, /ended by itself \(code 3\)/, () => lookup(both.instance, '01'));
    await both.instance.stop();
  });
});

remote('takes memory without end: on its heap, beside it, at once and little by little', async () => {
  const options = { memoryMb: 64, lookupMs: PATIENCE_MS, pingMs: 250 };
  for (const [at, why] of [
    ['objects', /is busy, and has taken more than 64 MiB/],
    ['map', /is busy, and has taken more than 64 MiB/],
    // So fast that the engine may be first.
    ['doubles', /is busy, and has taken more than 64 MiB|used up all memory/],
  ] as const) {
    await withPlugin('allocates', { ...options, pingMs: 500 }, async (rig) => {
      const both = await started(rig.plugin, { 'allocates/at': at });
      await assertReplaced(rig, both, why, () => lookup(both.instance, '01'));
      await both.instance.stop();
    });
  }
  for (const at of ['buffers', 'steadily']) {
    await withPlugin('allocates', options, async ({ plugin, log }) => {
      const { instance, services } = await started(plugin, { 'allocates/at': at });
      await lookup(instance, '01');
      await until('its thread is replaced', PATIENCE_MS, () => plugin.counts.deaths === 1);
      assert.match(String(log.lines.find(({ fields }) => fields.reason)?.fields.reason), /64 MiB of memory/);
      await assertWorks(instance);
      await until('it is restored', PATIENCE_MS, () => services.fault === undefined);
    });
  }
  // Garbage is not held.
  await withPlugin('allocates', { ...options, pingMs: 50 }, async ({ plugin }) => {
    const { instance } = await started(plugin, { 'allocates/at': 'garbage' });
    await lookup(instance, '01');
    for (let round = 0; round < 300; round++) {
      await lookup(instance, '00');
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
    assert.is(plugin.counts.deaths, 0);
  });
});

remote('dies again and again: each replacement waits longer', async () => {
  await withPlugin('exits', { backoffMs: 4 }, async ({ plugin, log }) => {
    const { instance } = await started(plugin);
    for (let death = 1; death <= 4; death++) {
      await assertWorks(instance);
      await assertRefused(() => lookup(instance, '01'), 'ECANCELED', 'plugin_died');
    }
    await assertWorks(instance);
    const waits = log.lines.flatMap(({ fields }) => fields.againMs ?? []);
    assert.equal(waits, [4, 8, 16, 32]);
    await instance.stop();
  });
});

remote('an instance keeps its properties and what it saved over a death', async () => {
  await withPlugin('good', { pingMs: 250 }, async ({ plugin }) => {
    const { instance, services } = await started(plugin, { ...GOOD, 'good/port': 99 });
    await lookup(instance, '01');
    await lookup(instance, 'a5');
    await until('it is saved', PATIENCE_MS, () => JSON.stringify(instance.save!() ?? '').includes('a5'));
    services.uses.length = 0;
    await assertRefused(() => lookup(instance, 'ff'), 'ECANCELED', 'plugin_died', /endless loop/);
    assert.match(services.fault ?? '', /it is started again in 20 ms/);
    assert.equal(instance.peers!(), ['192.0.2.9'], 'as it was while it is away');
    await until('it is restored', PATIENCE_MS, () => services.fault === undefined);
    assert.equal(await lookup(instance, '01'), { ...ROUTE, port: 99 });
    assert.equal(instance.peers!(), ['192.0.2.1', '2001:db8::1', '127.0.0.1']);
    assert.equal(services.uses, [['peersChanged']]);
    await instance.stop();
    assert.equal(instance.save!(), { asked: ['01', 'a5', 'restored', '01'] });
    // Over a restart of the whole, by whoever keeps it.
    const next = plugin.create(IP_AND_PORT);
    next.properties.set('good/ip', '192.0.2.1');
    next.restore!(instance.save!());
    await next.start(new Recorder());
    await next.stop();
    assert.equal(next.save!(), { asked: ['01', 'a5', 'restored', '01', 'restored'] });
  });
});

remote('lies: refused, and nothing else happens', async () => {
  await withPlugin('lies', {}, async ({ plugin }) => {
    const { instance } = await started(plugin);
    for (const [number, lie] of lies.entries()) {
      const last = number.toString(16).padStart(2, '0');
      await assertRefused(() => lookup(instance, last), 'EINVAL', 'plugin_lied').catch((error: Error) => {
        throw new Error(`lie ${number}, ${lie}: ${error.message}`);
      });
    }
    const query = { family: 4, ip: '10.0.0.1', request: request('00') } as const;
    for (const at of ['type', 'none', 'text']) {
      instance.properties.set('lies/at', at);
      await assertRefused(() => instance.arp!(query), 'EINVAL', 'plugin_lied', /^arp: /);
    }
    await assertRefused(() => instance.dhcp!(query.request), 'EINVAL', 'plugin_lied', /^dhcp: /);
    await instance.stop();
    for (const at of ['peers', 'all peers']) {
      await assertRefused(started(plugin, { 'lies/at': at }), 'EINVAL', 'plugin_lied', /^peers: /);
    }
    for (const at of ['save', 'circle']) {
      const { instance: one } = await started(plugin, { 'lies/at': at });
      await assertRefused(one.stop() as Promise<void>, 'EINVAL', 'plugin_lied', /^save: /);
    }
    assert.equal([plugin.counts.deaths, plugin.counts.oddMessages], [0, 0]);
  });
});

remote('answers twice, to nobody, and with what is no message', async () => {
  await withPlugin('twice', { lookupMs: PATIENCE_MS }, async ({ plugin, log }) => {
    const { instance, services } = await started(plugin);
    assert.is(await lookup(instance, '00'), 'unknown');
    assert.is(plugin.counts.strayAnswers, 0, "the worker's own channel leads nowhere");
    instance.properties.set('twice/at', 'raw');
    assert.is(await lookup(instance, '00'), 'unknown', 'the first answer counts');
    instance.properties.set('twice/at', 'nothing');
    await until('all is counted', PATIENCE_MS, () => plugin.counts.oddMessages === 8);
    assert.is(plugin.counts.strayAnswers, 2);
    assert.is(plugin.counts.refusedCalls, 5);
    assert.equal(services.uses, []);
    for (const line of [/that nobody waits for$/, /what is no message$/, /what is refused$/]) {
      assert.is(log.count(line), 1, 'one line a second');
    }
    await assertRefused(
      () => instance.dhcp!(request('00')),
      'EINVAL',
      'plugin_lied',
      /^dhcp: an address is text/,
    );
    assert.is(await lookup(instance, '00'), 'unknown');
    // What a thread would have let go is let go here.
    instance.properties.set('twice/at', 'services');
    assert.is(await lookup(instance, '00'), 'unknown');
    instance.properties.set('twice/at', 'nothing');
    const { burst } = CHANGE_RATE;
    const changes = services.uses.length;
    assert.ok(changes >= burst && changes < 256_000, `${changes} changes`);
    assert.is(changes + plugin.counts.droppedCalls, 256_000);
    assert.is(plugin.counts.deaths, 0);
    // More messages than main can read end its thread.
    const query = { family: 4, ip: '10.0.0.1', request: request('00') } as const;
    await assertRefused(() => instance.arp!(query), 'ECANCELED', 'plugin_died', /nobody asked for/);
    await assertWorks(instance);
  });
});

remote('floods its services: what is too much is dropped and counted', async () => {
  await withPlugin('floods', {}, async ({ plugin, log }) => {
    const { instance, services } = await started(plugin);
    const { instance: other, services: others } = await started(plugin, { 'floods/at': 'late' });
    await until('calls are dropped', PATIENCE_MS, () => plugin.counts.droppedCalls > 500_000);
    const count = (what: string) => services.uses.filter(([one]) => one === what).length;
    assert.ok(count('set') >= 100_000);
    assert.ok(count('log') >= 100 && count('log') < 5000, `${count('log')} lines`);
    assert.ok(services.uses.every(([what, , text]) => what !== 'log' || String(text).length === 1024));
    assert.is(services.fault, 'everything is wrong');
    assert.is(await lookup(instance, '00'), 'drop', 'it is served all the same');
    assert.is(await lookup(other, '00'), 'drop');
    assert.equal(others.uses, [['set', '02:00:00:00:00:01', { ip: '192.0.2.1', port: 1 }]]);
    assert.ok(log.count(/asks for too much/) < 100);
    await instance.stop();
    const before = services.uses.length;
    await lookup(other, '00');
    assert.is(services.uses.length, before, 'nothing after its stop');
    assert.is(plugin.counts.deaths, 0);
  });
});

remote('prints without end: some lines in the log, cut', async () => {
  await withPlugin('prints', {}, async ({ plugin, log }) => {
    const { instance } = await started(plugin);
    for (let round = 0; round < 50; round++) assert.is(await lookup(instance, '00'), 'drop');
    await until('lines are left out', PATIENCE_MS, () => log.count(/lines are left out/) > 0);
    const lines = log.lines.filter(({ message }) => message === 'a lookup plugin printed');
    assert.ok(lines.length >= 100 && lines.length < 2000, `${lines.length} lines`);
    assert.ok(lines.every(({ fields }) => String(fields.line).length <= 1024));
    assert.is(plugin.counts.deaths, 0);
    await instance.stop();
  });
});

remote('a module that has become another is not taken', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'overlayd-remote-'));
  const path = join(folder, 'plugin.mjs');
  const log = new TestLog();
  const write = (name: string) =>
    writeFileSync(
      path,
      `export const plugin = { version: 1, name: '${name}', mode: 'dynamic', properties: () => [], create: () => ({
        properties: { infos: [], set() {} }, start() {}, stop() {},
        lookup: ({ destination }) => destination.endsWith('1') ? process.exit(0) : 'drop' }) };`,
    );
  write('before');
  const plugin = await loadRemotePlugin(path, { log, backoffMs: 5 });
  try {
    const { instance, services } = await started(plugin);
    write('after');
    await assertRefused(() => lookup(instance, '01'), 'ECANCELED', 'plugin_died');
    await until('it is refused', PATIENCE_MS, () => /declares something else/.test(services.fault ?? ''));
    rmSync(path);
    await until('its import fails', PATIENCE_MS, () => /its import failed/.test(services.fault ?? ''));
    await assertRefused(started(plugin), 'EAGAIN', 'plugin_away');
    write('before');
    await until('it works again', PATIENCE_MS, () => services.fault === undefined);
    assert.is(await lookup(instance, '00'), 'drop');
  } finally {
    await plugin.close();
    rmSync(folder, { recursive: true });
  }
});

remote('closed: calls are refused, a stop is not', async () => {
  const plugin = await loadRemotePlugin(fixture('good'), { log: new TestLog() });
  const { instance } = await started(plugin, GOOD);
  await plugin.close();
  await plugin.close();
  await assertRefused(() => lookup(instance, '01'), 'EAGAIN', 'plugin_away', /is closed/);
  await instance.stop();
  await assertRefused(started(plugin, GOOD), 'EAGAIN', 'plugin_away', /is closed/);
});

remote('a process with an open plugin ends by itself', async () => {
  const child = spawn(process.execPath, [fixture('ends-by-itself')], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  let output = '';
  child.stdout.on('data', (chunk) => {
    output += chunk;
  });
  const timer = setTimeout(() => child.kill('SIGKILL'), PATIENCE_MS);
  const code = await new Promise((resolve) => child.on('close', resolve));
  clearTimeout(timer);
  assert.equal([code, output], [0, 'answered\n']);
});

remote('while it loops, VALID targets are forwarded and the device says why it is degraded', async () => {
  await withPlugin('good', { pingMs: 250, backoffMs: 200 }, async ({ plugin }) => {
    const instances: LookupInstance[] = [];
    const create = (destinations: number) => {
      const instance = plugin.create(destinations);
      instances.push(instance);
      return instance;
    };
    const { version, name, mode, properties } = plugin;
    const pair = await MemoryPair.start({
      workers: 1,
      plugin: () => ({ version, name, mode, properties, create }),
      properties: { 'good/ip': sideIp.b },
    });
    try {
      const { overlay, port } = pair.a;
      // Known since the pair is there.
      instances[0]!.properties.set('good/port', pair.udpPort);
      const frameTo = (last: number) => {
        const payload = new Uint8Array(64).fill(last);
        const udp = frames.udp({ ends: frames.ENDS_4, sourcePort: 1024, payload });
        const frame = frames.ethernet(0x0800, frames.ipv4({ protocol: 17, payload: udp }));
        frame.set([2, 0, 0, 0, 0, last]);
        return frame;
      };
      let received = 0;
      const arrives = async (last: number) => {
        port.send(0, frameTo(last));
        await until('a frame arrives', PATIENCE_MS, () => pair.b.port.receive()?.at(-1) === last);
        received++;
      };
      await arrives(1);
      await until(
        'it is valid',
        PATIENCE_MS,
        () => overlay.cacheGet('ov0', 0x020000000001).state === 'valid',
      );
      const isDegraded = () => overlay.info('ov0').isDegraded;
      port.send(0, frameTo(0xff));
      await until('it is degraded', PATIENCE_MS, async () => {
        await arrives(1);
        return isDegraded();
      });
      const texts = overlay.fma.status('ov0').faults.map(({ text }) => text);
      assert.match(texts.join(), /the lookup plugin died: it did not react/);
      assert.ok(pair.b.overlay.info('ov0').isDegraded, 'the other device of the same plugin');
      await arrives(1);
      assert.is(overlay.state('ov0'), 'started');
      await until('it is restored', PATIENCE_MS, async () => {
        await arrives(1);
        return !overlay.fma.status('ov0').faults.some(({ code }) => code === 'plugin');
      });
      await until('a new target is found', PATIENCE_MS, () => {
        port.send(0, frameTo(5));
        return pair.b.port.receive()?.at(-1) === 5;
      });
      assert.ok(received > 4);
      assert.is(plugin.counts.refusedCalls, 0);
    } finally {
      await pair.close();
    }
  });
});

remote('an outbox lets go what is too much, in messages of a bounded size', () => {
  const messages: FromThread[] = [];
  const outbox = new Outbox(7, (message) => messages.push(message));
  const one = { what: 'set', mac: '02:00:00:00:00:01', route: ROUTE } as const;
  for (let set = 0; set < CHANGE_RATE.burst + 100_000; set++) outbox.push(one);
  outbox.flush();
  outbox.flush();
  let [passed, dropped] = [0, 0];
  for (const message of messages) {
    assert.ok(message.kind === 'services' && message.session === 7);
    assert.ok(message.calls.length <= SERVICE_CALLS_MAX);
    passed += message.calls.length;
    dropped += message.dropped;
  }
  assert.is(passed + dropped, CHANGE_RATE.burst + 100_000);
  assert.ok(passed >= CHANGE_RATE.burst && dropped > 0);
  // A long list counts as all of its destinations.
  messages.length = 0;
  const lists = new Outbox(7, (message) => messages.push(message));
  const route = { replicate: Array.from({ length: 1024 }, () => ROUTE) };
  for (let set = 0; set < 20; set++) lists.push({ ...one, route });
  lists.flush();
  assert.equal(
    messages.map((message) => message.kind === 'services' && message.calls.length),
    [4, 4, 4, 4, 4],
  );
});

remote('memory is counted without its garbage', () => {
  let garbage: Uint8Array[] | undefined = Array.from({ length: 50 }, () => new Uint8Array(2 * 1024 * 1024));
  assert.is(garbage.length, 50);
  const before = new Memory(Number.POSITIVE_INFINITY).used();
  garbage = undefined;
  assert.ok(before - new Memory(0).used() > 50 * 1024 * 1024);
});

remote('a bucket and a rare log, by a clock of ours', () => {
  let now = 0;
  const bucket = new Bucket({ perSecond: 10, burst: 20 }, () => now);
  const passed = () => {
    let count = 0;
    while (bucket.take()) count++;
    return count;
  };
  assert.is(passed(), 20);
  now = 1000;
  assert.is(bucket.take(11), false);
  assert.is(bucket.take(10), true);
  now = 100_000;
  assert.is(passed(), 20);
  const said: [string, number][] = [];
  const log = new RareLog(
    (text, more) => said.push([text, more]),
    () => now,
  );
  for (const [atMs, times] of [
    [0, 1],
    [10, 5],
    [999, 1],
    [1000, 2],
    [5000, 0],
    [6000, 1],
  ] as const) {
    now = atMs;
    log.note(`at ${atMs}`, times);
  }
  assert.equal(said, [
    ['at 0', 0],
    ['at 1000', 7],
    ['at 6000', 0],
  ]);
  assert.is(log.count, 10);
});

remote.run();
