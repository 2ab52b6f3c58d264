/** `modify-overlay` and `show-overlay -t` as an operator types them. */
import { spawn } from 'node:child_process';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { shortMac } from '../src/cli/short-mac.js';
import type { OverlayView } from '../src/control/view.js';
import { formatMac, parseMac } from '../src/target/mac.js';
import { type Rig, withRig } from './harness/control-rig.js';
import { frameTo } from './harness/frame-to.js';
import { HandleClient } from './harness/handle-client.js';
import { until } from './harness/hosts.js';
import { freePort, type MemoryOverlayOptions, request } from './harness/memory-overlay.js';

const cli = suite('target cache by command');
const CLI = join(import.meta.dirname, '../src/cli/main.js');
const HERE = '127.0.0.1';
const MAC = '02:08:20:01:02:03';

interface Ended {
  readonly status: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs overlayadm; the daemon is in this process, so nothing may block it. */
function run(socket: string, ...args: string[]): Promise<Ended> {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [CLI, '-S', socket, ...args], {
      stdio: ['ignore', 'pipe', 'pipe'],
      timeout: 20_000,
    });
    let stdout = '';
    let stderr = '';
    child.stdout.setEncoding('utf8').on('data', (part: string) => {
      stdout += part;
    });
    child.stderr.setEncoding('utf8').on('data', (part: string) => {
      stderr += part;
    });
    child.on('error', reject);
    child.on('close', (status) => resolve({ status, stdout, stderr }));
  });
}

const silence = { status: 0, stdout: '', stderr: '' };

/** Asserts that it said what is wrong in one sentence, to people, and left with the code. */
function assertSaid(ended: Ended, status: number, message: RegExp, what: string): void {
  assert.is(ended.status, status, `${what}: ${ended.stdout}${ended.stderr}`);
  assert.match(ended.stderr, message, what);
  assert.match(ended.stderr, /^(overlayadm|error): \S+ \S+/, what);
  assert.not.match(ended.stderr, /^\s+at |node:internal|\[object|undefined/m, `${what}: no stack`);
  assert.is(ended.stdout, '', `${what}: nothing on stdout`);
}

interface Scene extends Rig {
  readonly port: number;
  ask(...args: string[]): Promise<Ended>;
  /** `show-overlay -t -p -o`, lines. */
  show(columns: string, ...names: string[]): Promise<string[]>;
}

/** ov0 is DYNAMIC and started, ov1 POINT and activated, ov2 waits for its association. */
function withScene(work: (scene: Scene) => Promise<void>, options: MemoryOverlayOptions = {}): Promise<void> {
  return withRig(async (rig) => {
    const port = await freePort(HERE);
    const handle = await HandleClient.open(rig.socket, true);
    const ask = (...args: string[]) => run(rig.socket, ...args);
    const show = async (columns: string, ...names: string[]) => {
      const { status, stdout, stderr } = await ask('show-overlay', '-t', '-p', '-o', columns, ...names);
      assert.equal([status, stderr], [0, '']);
      return stdout === '' ? [] : stdout.trimEnd().split('\n');
    };
    try {
      const properties = { 'vxlan/listen_ip': HERE, 'vxlan/listen_port': port };
      const dynamic = { encap: 'vxlan', search: 'external', properties };
      await rig.client.post('/v1/overlays', { name: 'ov0', vnetid: 1, ...dynamic });
      await rig.client.post('/v1/overlays', request('ov1', 2, port));
      await rig.client.post('/v1/overlays', { name: 'ov2', vnetid: 3, ...dynamic });
      await handle.call('associate', { overlay: 'ov0', mode: 'dynamic' });
      await rig.memory.up('ov0');
      await work({ ...rig, port, ask, show });
    } finally {
      handle.cut();
    }
  }, options);
}

cli('MAC addresses are printed without leading zeros in their octets', () => {
  assert.equal(
    ['02:08:20:01:02:03', '00:00:00:00:00:00', 'ff:ff:ff:ff:ff:ff', '0a:b0:00:0c:d0:ee', '*:*:*:*:*:*'].map(
      shortMac,
    ),
    ['2:8:20:1:2:3', '0:0:0:0:0:0', 'ff:ff:ff:ff:ff:ff', 'a:b0:0:c:d0:ee', '*:*:*:*:*:*'],
  );
});

cli('set, drop, delete, flush, and what is shown of it', () =>
  withScene(async ({ ask, show, memory, port }) => {
    const modify = (...args: string[]) => ask('modify-overlay', ...args);
    const shown = () => show('target,destination', 'ov0');
    const escaped = (text: string) => text.replaceAll(':', '\\:');
    assert.equal(await modify('-s', '2:8:20:1:2:3=192.0.2.9:4789', 'ov0'), silence);
    assert.equal(await modify('ov0', '--set-entry', '02-08-20-0A-0B-0C=[::ffff:192.0.2.8]:4790'), silence);
    assert.equal(await modify('--set-entry=ff:ff:ff:ff:ff:ff=DrOp', 'ov0'), silence);
    assert.equal(await shown(), [
      `${escaped('2:8:20:1:2:3')}:${escaped('192.0.2.9:4789')}`,
      `${escaped('2:8:20:a:b:c')}:${escaped('192.0.2.8:4790')}`,
      `${escaped('ff:ff:ff:ff:ff:ff')}:drop`,
    ]);
    assert.equal(memory.overlay.cacheGet('ov0', parseMac(MAC)).route, { ip: '192.0.2.9', port: 4789 });
    await until('it is valid', 2000, () => memory.overlay.cacheGet('ov0', parseMac(MAC)).state === 'valid');

    const table = await ask('show-overlay', '-t');
    assert.equal([table.status, table.stderr], [0, '']);
    assert.equal(table.stdout.split('\n'), [
      'LINK                TARGET            DESTINATION',
      'ov0                 2:8:20:1:2:3      192.0.2.9:4789',
      'ov0                 2:8:20:a:b:c      192.0.2.8:4790',
      'ov0                 ff:ff:ff:ff:ff:ff drop',
      `ov1                 *:*:*:*:*:*       127.0.0.2:${port}`,
      '',
    ]);

    assert.equal(await modify('-s', '2:8:20:1:2:3=drop', 'ov0'), silence);
    assert.is((await shown())[0], `${escaped('2:8:20:1:2:3')}:drop`);
    assert.equal(await modify('-d', '2:8:20:A:B:C', 'ov0'), silence);
    assert.is((await shown()).length, 2);
    assertSaid(
      await modify('-d', '2:8:20:a:b:c', 'ov0'),
      3,
      /cannot delete 2:8:20:a:b:c of overlay 'ov0': ov0 has no target 02:08:20:0a:0b:0c/,
      'gone already',
    );
    const flushed = await modify('--json', '-f', 'ov0');
    assert.equal([flushed.status, JSON.parse(flushed.stdout), flushed.stderr], [0, { version: 1 }, '']);
    assert.equal(await shown(), []);
    assert.equal(await modify('-f', 'ov0'), silence, 'flushing nothing is no error');
  }),
);

cli('usage errors: a sentence, exit code 2, before any daemon is asked', async () => {
  const good = '2:8:20:1:2:3=192.0.2.9:4789';
  const usage: [args: string[], message: RegExp][] = [
    [['ov0'], /one of -s, -d and -f is needed/],
    [['-s', good, '-f', 'ov0'], /-s, -d and -f exclude each other/],
    [['-s', good, '-d', '2:8:20:1:2:3', 'ov0'], /exclude each other/],
    [['-d', '2:8:20:1:2:3', '-f', 'ov0'], /exclude each other/],
    [['-s', good, '-d', '2:8:20:1:2:3', '-f', 'ov0'], /exclude each other/],
    [['-s', good, '-s', good, 'ov0'], /'-s, --set-entry <mac=dest>'.*given twice/],
    [['-d', '2:8:20:1:2:3', '-d', '2:8:20:1:2:4', 'ov0'], /'-d, --delete-entry <mac>'.*given twice/],
    [['-f', '-f', 'ov0'], /'-f, --flush-table' is given twice/],
    [['-ff', 'ov0'], /is given twice/],
    [['-f'], /missing required argument 'name'/],
    [['-s', good], /missing required argument 'name'/],
    [['-f', 'ov0', 'ov1'], /too many arguments/],
    [['-s'], /argument missing/],
    [['-d'], /argument missing/],
    [['-s', '2:8:20:1:2:3', 'ov0'], /'2:8:20:1:2:3' is not mac=dest, such as/],
    [['-s', '2:8:20:1:2:3=', 'ov0'], /is not mac=dest/],
    [['-s', '=192.0.2.9:4789', 'ov0'], /is not mac=dest/],
    [['-s', '', 'ov0'], /is not mac=dest/],
    [['-s', 'red=192.0.2.9:4789', 'ov0'], /'red' is not a MAC address such as/],
    [['-s', '2:8:20:1:2=drop', 'ov0'], /'2:8:20:1:2' is not a MAC address/],
    [['-d', '2:8:20:1:2:3=drop', 'ov0'], /is not a MAC address/],
    [['-d', '2:8:20:1:2:100', 'ov0'], /'2:8:20:1:2:100' is not a MAC address/],
    [['-d', '', 'ov0'], /'' is not a MAC address/],
    [['--nope', 'ov0'], /unknown option '--nope'/],
  ];
  for (const [args, message] of usage) {
    assertSaid(await run('/nonexistent', 'modify-overlay', ...args), 2, message, args.join(' '));
  }
  for (const args of [
    ['-t', '-o', 'colour'],
    ['-t', '-p', '-o', 'link,pmtu,'],
  ]) {
    assertSaid(await run('/nonexistent', 'show-overlay', ...args), 2, /there is no column/, args.join(' '));
  }
  assertSaid(await run('/nonexistent', 'show-overlay', '-t', '-p'), 2, /-p needs -o/, '-p');
  assertSaid(await run('/nonexistent', 'show-overlay', '-t', '-f'), 2, /exclude each other/, '-t -f');
  for (const args of [
    ['modify-overlay', '-f', 'ov0'],
    ['show-overlay', '-t'],
    ['show-overlay', '-t', 'ov0'],
  ]) {
    assertSaid(await run('/nonexistent', ...args), 6, /no daemon answers on/, args.join(' '));
  }
});

cli('what the daemon refuses: a sentence that names the entry, its exit code, and nothing has changed', () =>
  withScene(async ({ ask, show, memory }) => {
    memory.overlay.cacheSet('ov0', parseMac(MAC), { ip: '192.0.2.1', port: 1 });
    const before = await show('link,target,destination,source');
    const bad = [
      '192.0.2.9',
      '192.0.2.9:',
      ':4789',
      '192.0.2.9:0',
      '192.0.2.9:65536',
      '192.0.2.9:4789x',
      '192.0.2.9:4789:1',
      '192.0.2:4789',
      '192.0.2.999:4789',
      '0.0.0.0:4789',
      '2001:db8::1:4789',
      '[2001:db8::1]',
      '[2001:db8::1]:',
      '[2001:db8::1:4789',
      '[::]:4789',
      '[2002::1]:4789',
      '[192.0.2.9:4789',
      '2:8:20:1:2:3,192.0.2.9:4789',
      'host.example:4789',
      'drop ',
      'dropped',
      'none',
      'x'.repeat(100),
    ];
    for (const to of bad) {
      assertSaid(
        await ask('modify-overlay', '-s', `2:8:20:1:2:4=${to}`, 'ov0'),
        1,
        /cannot set 2:8:20:1:2:4 of overlay 'ov0': '.*' is not ip:port/,
        to,
      );
    }
    const set = ['-s', '2:8:20:1:2:4=192.0.2.9:4789'];
    const remove = ['-d', '2:8:20:1:2:4'];
    const cases: [args: string[], status: number, message: RegExp][] = [
      [[...set, 'nope'], 3, /cannot set 2:8:20:1:2:4 of overlay 'nope': there is no overlay 'nope'/],
      [[...remove, 'nope'], 3, /cannot delete 2:8:20:1:2:4 of overlay 'nope': there is no overlay/],
      [['-f', 'nope'], 3, /cannot flush the targets of overlay 'nope': there is no overlay/],
      [[...set, 'ov1'], 1, /overlay 'ov1': ov1 sends everything to one destination/],
      [[...remove, 'ov1'], 1, /overlay 'ov1': ov1 sends everything to one destination/],
      [['-f', 'ov1'], 1, /overlay 'ov1': ov1 sends everything to one destination/],
      [[...set, 'ov2'], 1, /overlay 'ov2': ov2 is not activated/],
      [[...remove, 'ov2'], 1, /ov2 is not activated/],
      [['-f', 'ov2'], 1, /ov2 is not activated/],
      [[...remove, 'ov0'], 3, /has no target/],
      [[...set, ''], 3, /./],
      [['-f', '..'], 3, /./],
      [['-f', 'a/b'], 3, /no overlay 'a\/b'/],
    ];
    for (const [args, status, message] of cases) {
      assertSaid(await ask('modify-overlay', ...args), status, message, args.join(' '));
    }
    assert.equal(await show('link,target,destination,source'), before);
  }),
);

cli('the further columns; those that are not there are named, the others shown', () =>
  withScene(async ({ ask, show, memory, port }) => {
    memory.overlay.cacheSet('ov0', parseMac(MAC), { ip: '127.0.0.2', port: 9 });
    memory.overlay.cacheSet('ov0', 1, 'drop');
    await until('it is valid', 2000, () => memory.overlay.cacheGet('ov0', parseMac(MAC)).state === 'valid');
    const link = memory.links.get('ov0').port;
    link.send(0, frameTo(MAC, 1));
    await until('it is sent', 2000, () => memory.overlay.cacheGet('ov0', parseMac(MAC)).frames === 1);
    link.send(0, frameTo('02:08:20:00:00:09', 1));
    await until('it is asked about', 2000, () => memory.overlay.cacheStats('ov0')!.requests === 1);
    const lines = await show('target,state,source,frames,bytes,pmtu,destination', 'ov0');
    assert.equal(
      lines.map((line) => line.replaceAll('\\:', '.').split(':')),
      [
        ['0.0.0.0.0.1', 'drop', 'operator', '0', '0', '--', 'drop'],
        ['2.8.20.0.0.9', 'pending', 'lookup', '0', '0', '--', '--'],
        ['2.8.20.1.2.3', 'valid', 'operator', '1', `${frameTo(MAC, 1).length}`, '--', '127.0.0.2.9'],
      ],
    );
    const [age, use] = (await show('age,lastuse', 'ov0')).at(-1)!.replaceAll('\\:', '.').split(':');
    assert.match(age!, /^\d+$/);
    assert.match(use!, /^20\d\d-\d\d-\d\dT\d\d\.\d\d\.\d\d\.000Z$/);
    const all = await ask('show-overlay', '-t', '-o', 'all', 'ov1');
    assert.equal(all.stdout.split('\n')[0]!.split(/ +/), [
      'LINK',
      'TARGET',
      'DESTINATION',
      'STATE',
      'AGE',
      'SOURCE',
      'FRAMES',
      'BYTES',
      'PMTU',
      'PROBE',
      'LASTUSE',
    ]);
    const row = [
      'ov1',
      '*:*:*:*:*:*',
      `127.0.0.2:${port}`,
      'valid',
      '0',
      'plugin',
      '0',
      '0',
      '--',
      '--',
      '--',
    ];
    assert.equal(all.stdout.split('\n')[1]!.split(/ +/), row);

    assert.equal(await show('link', 'ov2'), [], 'nothing is associated yet');
    const header = await ask('show-overlay', '-t', 'ov2');
    assert.equal(header, { ...silence, stdout: 'LINK                TARGET            DESTINATION\n' });
    const some = await ask('show-overlay', '-t', '-p', '-o', 'link', 'nope', 'ov1', 'nor');
    assert.equal(some, {
      status: 3,
      stdout: 'ov1\n',
      stderr: "overlayadm: there is no overlay 'nope'\noverlayadm: there is no overlay 'nor'\n",
    });
  }),
);

cli('a big cache: every target, as lines and as a document; who stops reading is no error', () =>
  withScene(
    async ({ ask, show, memory, socket, client }) => {
      const first = parseMac('02:08:20:00:00:00');
      const all = Array.from({ length: 20_000 }, (_, index) => formatMac(first + index));
      for (const mac of all) memory.overlay.cacheSet('ov0', parseMac(mac), 'drop');
      assert.equal(await show('target', 'ov0'), all.map(shortMac));
      const table = (await ask('show-overlay', '-t')).stdout.trimEnd().split('\n');
      assert.is(table.length, 1 + 20_000 + 1);
      assert.is(table.filter((line) => line.startsWith('LINK')).length, 1);

      const { stdout, status } = await ask('show-overlay', '-t', '--json', 'ov0', 'nope', 'ov2');
      assert.is(status, 3);
      const { version, overlays } = JSON.parse(stdout) as {
        version: 1;
        overlays: Record<string, OverlayView>;
      };
      assert.equal([version, Object.keys(overlays)], [1, ['ov0', 'ov2']]);
      assert.equal(
        overlays.ov0!.targets.map(({ target }) => target),
        all,
      );
      assert.equal([overlays.ov2!.targets, overlays.ov0!.targets_more], [[], false]);
      const shown = await client.get<{ overlays: { ov0: OverlayView } }>('/v1/overlays/ov0');
      const { targets: _, targets_more: __, ...rest } = shown.overlays.ov0;
      const { targets: ___, targets_more: ____, ...same } = overlays.ov0!;
      assert.equal(same, rest);
      const none = JSON.parse((await ask('show-overlay', '-t', '--json', 'ov2')).stdout);
      assert.equal(Object.keys(none.overlays), ['ov2']);

      const head = spawn('sh', [
        '-c',
        `"${process.execPath}" "${CLI}" -S "${socket}" show-overlay -t | head -n 1`,
      ]);
      let output = '';
      for (const stream of [head.stdout, head.stderr]) {
        stream.setEncoding('utf8').on('data', (part: string) => {
          output += part;
        });
      }
      await new Promise((resolve) => head.on('close', resolve));
      assert.is(output, 'LINK                TARGET            DESTINATION\n');
    },
    { poolBytes: 16 * 1024 * 1024 },
  ),
);

cli.run();
