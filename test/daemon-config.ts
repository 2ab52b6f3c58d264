/** The configuration of overlayd: every fault with its place, groups, declared overlays, and what a start is missing. */

import { spawnSync } from 'node:child_process';
import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import * as fc from 'fast-check';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { checkConfig, type Flags, readConfig } from '../src/daemon/config.js';
import { checkRights, type Needs, type Rights, readRights } from '../src/daemon/rights.js';
import { OverlayError } from '../src/errors.js';
import { inNamespace } from '../src/sys/netns.js';
import { Daemon, Host } from './harness/hosts.js';
import { assertRefused } from './harness/memory-overlay.js';
import { testWith } from './harness/needs.js';

const config = suite('daemon configuration');
const DAEMON = join(import.meta.dirname, '../src/daemon/main.js');
const PROGRAM_MS_MAX = 20_000;

function withDirectory(work: (directory: string) => void | Promise<void>): () => Promise<void> {
  return async () => {
    const directory = mkdtempSync(join(tmpdir(), 'overlayd-config-'));
    chmodSync(directory, 0o755);
    try {
      await work(directory);
    } finally {
      rmSync(directory, { recursive: true, force: true });
    }
  };
}

/** Faults of a file, with its name taken off. */
function faultsOf(file: string, text: string | Buffer, flags: Flags = {}): string[] {
  writeFileSync(file, text);
  const checked = checkConfig(flags, file);
  return 'faults' in checked ? checked.faults.map((fault) => fault.text.replace(`${file}:`, '')) : [];
}

const whole = `
socketMode: '0660'
group: 0
adminGroup: root
overlays:
  ov0:
    encap: vxlan
    search: direct
    vnetid: 42
    properties:
      vxlan/listen_ip: 192.0.2.1
      direct/dest_ip: 192.0.2.2
      direct/dest_port: 4789
      mtu: 1450
  ov1: {encap: vxlan, search: files, vnetid: '43', temporary: true,
        properties: {vxlan/listen_ip: "2001:db8::1", files/config: /etc/hosts.json, targets: 10}}
`;

config(
  'a whole configuration: access, groups as they are given, overlays in the order of the file',
  withDirectory((directory) => {
    const file = join(directory, 'overlayd.yaml');
    writeFileSync(file, whole);
    const { socketMode, group, adminGroup, overlays } = readConfig({}, file);
    assert.equal([socketMode, group, adminGroup], [0o660, 0, 'root']);
    assert.equal([...overlays.keys()], ['ov0', 'ov1']);
    assert.equal(overlays.get('ov0'), {
      encap: 'vxlan',
      search: 'direct',
      vnetid: 42,
      properties: {
        'vxlan/listen_ip': '192.0.2.1',
        'direct/dest_ip': '192.0.2.2',
        'direct/dest_port': 4789,
        mtu: 1450,
      },
    });
    assert.is(overlays.get('ov1')?.temporary, true);
    assert.is(readConfig({ socketMode: '600', group: '7' }, file).socketMode, 0o600, 'a flag wins');
    assert.is(readConfig({ group: '7' }, file).group, '7');
    const plain = readConfig({}, undefined);
    assert.equal(
      [plain.socketMode, plain.group, plain.adminGroup, plain.overlays.size],
      [0o666, undefined, undefined, 0],
    );
  }),
);

config(
  'every fault is said, each with its place',
  withDirectory((directory) => {
    const file = join(directory, 'overlayd.yaml');
    const text = [
      'workers: 0',
      'colour: red',
      "socketMode: '0999'",
      'group: nobody-here',
      'overlays:',
      '  ov0: {encap: vxlan, search: direct, vnetid: 1, size: 3}',
      '  ov1: hello',
      '  ov2:',
      '    encap: vxlan',
      '    vnetid: true',
      '    properties: {mtu: [1]}',
    ].join('\n');
    const faults = faultsOf(file, text, { bank: '0', logLevel: 'loud' });
    for (const pattern of [
      /^1:10: workers: .*>=1/,
      /^2:9: colour: Unrecognized key: "colour"$/,
      /^3:13: socketMode: it is octal text, such as '0660'$/,
      /^4:8: group: there is no group 'nobody-here' in \/etc\/group/,
      /^6:56: overlays\.ov0\.size: Unrecognized key: "size"$/,
      /^7:8: overlays\.ov1: it is an overlay: encap/,
      /^9:5: overlays\.ov2\.search: it is missing$/,
      /^10:13: overlays\.ov2\.vnetid: it is text or a number$/,
      /^11:23: overlays\.ov2\.properties\.mtu: it is text, a number, or true or false for on or off$/,
      /^--bank: /,
      /^--log-level: /,
    ]) {
      assert.is(faults.filter((line) => pattern.test(line)).length, 1, `${pattern} in ${faults.join('\n')}`);
    }
    assert.is(faults.length, 11, faults.join('\n'));
  }),
);

config(
  'declared overlays are checked against what the plugins declare',
  withDirectory((directory) => {
    const file = join(directory, 'overlayd.yaml');
    const say = (overlay: string, more = '') =>
      faultsOf(
        file,
        `overlays:\n  ov0: {encap: vxlan, search: direct, vnetid: 1, properties: ${overlay}}\n${more}`,
      );
    const good = 'vxlan/listen_ip: 192.0.2.1, direct/dest_ip: 192.0.2.2, direct/dest_port: 4789';
    assert.equal(say(`{${good}}`), []);
    assert.equal(say(`{${good}, mtu: 9000, mtu_max: 9000}`), []);
    assert.equal(say(`{${good}, path_mtu_probe: true, vxlan/zerocsum6_tx: false}`), []);
    const { overlays } = readConfig({}, file);
    assert.is(overlays.get('ov0')?.properties.path_mtu_probe, 'on');
    const wrong: [overlay: string, more: string, fault: RegExp][] = [
      [
        `{${good}, mtu: 9000}`,
        '',
        /^2:\d+: overlays\.ov0\.properties\.mtu: mtu cannot be '9000': it may be 576-8900/,
      ],
      [`{${good}, mtu_max: 1}`, '', /properties\.mtu_max: mtu_max cannot be '1'/],
      [`{${good}, encap: vxlan}`, '', /properties\.encap: encap cannot be set/],
      [`{${good}, vnetid: 2}`, '', /properties\.vnetid: vnetid is the overlay's own key/],
      [`{${good}, svp/host: a}`, '', /there is no property 'svp\/host'/],
      [`{${good}, targets: 5}`, '', /there is no property 'targets'/],
      ['{}', '', /2:8: overlays\.ov0: vxlan\/listen_ip: it is required and has no value/],
      [
        `{${good}}`,
        '  ov1: {encap: vxlan, search: external, vnetid: "1", properties: {vxlan/listen_ip: "::1"}}',
        /^3:49: .*vnetid 1 is that of overlay 'ov0'/,
      ],
      [
        `{${good}}`,
        '  a/b: {encap: vxlan, search: external, vnetid: 2, properties: {vxlan/listen_ip: "::1"}}',
        /'a\/b' cannot be a device's name/,
      ],
      [
        `{${good}}`,
        '  ov1: {encap: gre, search: external, vnetid: 2}',
        /no encap plugin 'gre'; there are: vxlan/,
      ],
      [
        `{${good}}`,
        '  ov1: {encap: vxlan, search: svp, vnetid: 2}',
        /no lookup plugin 'svp'; there are: direct/,
      ],
      [
        `{${good}}`,
        '  ov1: {encap: vxlan, search: external, vnetid: 16777216, properties: {vxlan/listen_ip: "::1"}}',
        /vnetid cannot be '16777216'/,
      ],
      [
        `{${good}}`,
        '  __proto__: {encap: vxlan, search: external, vnetid: 2}',
        /overlays\.__proto__: Unrecognized key/,
      ],
    ];
    for (const [overlay, more, fault] of wrong) {
      const faults = say(overlay, more);
      assert.ok(
        faults.some((line) => fault.test(line)),
        `${fault} in ${faults.join('\n')}`,
      );
    }
    // What a plugin that is still to be loaded declares is not known; everything else is.
    const foreign =
      '  ov1: {encap: vxlan, search: mine, vnetid: 2, properties: {vxlan/listen_ip: "::1", mine/x: 1, mtu: 1}}';
    const faults = faultsOf(file, `plugin: ./mine.js\noverlays:\n${foreign}`);
    assert.is(faults.length, 1, faults.join('\n'));
    assert.match(faults[0]!, /properties\.mtu: mtu cannot be '1'/);
  }),
);

config(
  'a number that does not fit a JavaScript number stays as it is written',
  withDirectory((directory) => {
    const file = join(directory, 'overlayd.yaml');
    const overlay =
      'encap: vxlan, search: mine, vnetid: 0x10, properties: {vxlan/listen_ip: "::1", mine/x: 18446744073709551615}';
    writeFileSync(file, `plugin: ./mine.js\noverlays: {ov0: {${overlay}}}\n`);
    const { vnetid, properties } = readConfig({}, file).overlays.get('ov0')!;
    assert.equal([vnetid, properties['mine/x']], [16, '18446744073709551615']);
  }),
);

config(
  'limits: bytes, overlays, properties, depth, aliases, documents; each is a fault at its place',
  withDirectory(async (directory) => {
    const file = join(directory, 'overlayd.yaml');
    const overlay = '{encap: vxlan, search: external, vnetid: 1}';
    const many = Array.from({ length: 4097 }, (_, i) => `  ov${i}: ${overlay}`).join('\n');
    const properties = Array.from({ length: 257 }, (_, i) => `p${i}: 1`).join(', ');
    const wrong: [text: string, fault: RegExp][] = [
      [`overlays:\n${many}`, /^2:3: overlays: there are at most 4096 overlays$/],
      [
        `overlays: {ov0: {encap: vxlan, search: files, vnetid: 1, properties: {${properties}}}}`,
        /at most 256 properties$/,
      ],
      ['['.repeat(100_000), /^1:\d+: it is nested deeper than 32 levels$/],
      [`${'['.repeat(3000)}${']'.repeat(3000)}`, /nested deeper than 32 levels$/],
      ['- '.repeat(100_000), /nested deeper than 32 levels$/],
      [`a: &a 1\nb: [${'*a, '.repeat(1001)}]`, /more than 1000 aliases$/],
      ['a: &a [*a]', /^1:\d+: /],
      ['overlays: &a {ov0: *a}', /^1:\d+: /],
      ['workers: 1\n---\nworkers: 2\n', /^2:1: there is a second document/],
      ['workers: !!colour 2\n', /^1:10: .*tag/i],
      ['workers: 1\nworkers: 2\n', /^2:1: workers: keys must be unique$/],
      [`${'"\\q" '.repeat(2000)}`, /^1:\d+: /],
    ];
    for (const [text, fault] of wrong) {
      const faults = faultsOf(file, text);
      assert.ok(faults.length > 0 && faults.length <= 100, `${text.slice(0, 40)}: ${faults.length}`);
      assert.match(faults[0]!, fault, text.slice(0, 40));
    }
    writeFileSync(file, Buffer.alloc(2 ** 20 + 1, '#'));
    await assertRefused(
      () => readConfig({}, file),
      'EINVAL',
      'config_unreadable',
      /larger than 1048576 bytes/,
    );
    writeFileSync(file, Buffer.alloc(2 ** 20, '#'));
    assert.is(readConfig({ workers: '1' }, file).workers, 1, 'exactly at the limit');
    writeFileSync(file, Buffer.from([0x61, 0xff]));
    await assertRefused(() => readConfig({}, file), 'EINVAL', 'config_unreadable', /not UTF-8/);
    await assertRefused(
      () => readConfig({}, '/dev/zero'),
      'EINVAL',
      'config_unreadable',
      /not a regular file/,
    );
    await assertRefused(() => readConfig({}, directory), 'EINVAL', 'config_unreadable', /not a regular file/);
  }),
);

config(
  'whatever is in the file: settings or faults with a place, never anything else',
  withDirectory((directory) => {
    const file = join(directory, 'overlayd.yaml');
    const piece = fc.constantFrom(
      ...[
        ...whole.split(/(\s+)/),
        '{',
        '}',
        '[',
        ']',
        ':',
        '&a ',
        '*a',
        '- ',
        '!!x ',
        '<<',
        '"',
        "'",
        '|',
        '\t',
        '__proto__',
      ],
    );
    fc.assert(
      fc.property(fc.array(piece, { maxLength: 30 }), (pieces) => {
        for (const line of faultsOf(file, pieces.join(''))) assert.match(line, /^\d+:\d+: \S/);
      }),
      { numRuns: 1500 },
    );
    const at = fc.nat(whole.length);
    fc.assert(
      fc.property(at, at, fc.string({ maxLength: 5 }), (from, length, instead) => {
        const text = whole.slice(0, from) + instead + whole.slice(from + (length % 8));
        for (const line of faultsOf(file, text)) assert.match(line, /^\d+:\d+: \S/);
      }),
      { numRuns: 1500 },
    );
  }),
);

// ─── Rights ─────────────────────────────────────────────────────────────────────────────────────────────

const all: Rights = {
  capabilities: (1n << 41n) - 1n,
  tunFault: undefined,
  descriptorsMax: 1_048_576,
  addressBytesMax: undefined,
  memoryBytesMax: undefined,
};
const needs: Needs = { workers: 2, bank: 16, memoryBytes: 2 ** 28, devices: 0 };

config('rights: a sentence for each that is missing, and no start without CAP_NET_ADMIN', async () => {
  assert.equal(checkRights(all, needs), []);
  const unknown = { ...all, capabilities: undefined, descriptorsMax: undefined };
  assert.equal(checkRights(unknown, needs), [], 'what is not known is not missing');
  const without = (bit: bigint) => ({ ...all, capabilities: all.capabilities! & ~(1n << bit) });
  await assertRefused(
    () => checkRights(without(12n), needs),
    'EPERM',
    'no_cap_net_admin',
    /CAP_NET_ADMIN.*root/,
  );
  await assertRefused(
    () => checkRights({ ...all, addressBytesMax: 2 ** 27 }, needs),
    'ENOMEM',
    'limit_too_low',
    /the address space \(RLIMIT_AS\) may be 128 MiB/,
  );
  const cases: [Partial<Rights>, Partial<Needs>, RegExp][] = [
    [without(21n), {}, /^CAP_SYS_ADMIN is missing: .*another network namespace/],
    [{ tunFault: 'ENOENT' }, {}, /^\/dev\/net\/tun is missing: .*modprobe tun/],
    [{ tunFault: 'EACCES' }, {}, /^\/dev\/net\/tun cannot be opened \(EACCES\)/],
    [
      { descriptorsMax: 256 },
      {},
      /^at most 256 files may be open: that is room for 0 devices, 16 are wanted/,
    ],
    [{ descriptorsMax: 1024 }, { devices: 100 }, /room for 36 devices, 100 are wanted; raise the hard limit/],
    [{ memoryBytesMax: 2 ** 27 }, {}, /memory of its control group is 128 MiB/],
  ];
  for (const [rights, wanted, sentence] of cases) {
    const sentences = checkRights({ ...all, ...rights }, { ...needs, ...wanted });
    assert.is(sentences.length, 1, sentences.join('\n'));
    assert.match(sentences[0]!, sentence);
  }
  assert.equal(checkRights({ ...all, descriptorsMax: 1024 }, { ...needs, workers: 1 }), []);
});

config('rights: those of this process are read', () => {
  const { capabilities, descriptorsMax } = readRights();
  assert.ok(capabilities !== undefined);
  assert.ok(descriptorsMax !== undefined && descriptorsMax > 0);
  if (process.getuid?.() === 0)
    assert.ok((capabilities! & (1n << 12n)) !== 0n, 'these tests as root make links');
});

// ─── Programs ───────────────────────────────────────────────────────────────────────────────────────────

function run(program: string, ...args: string[]): { status: number; stdout: string; stderr: string } {
  const { status, signal, stdout, stderr } = spawnSync(program, args, {
    encoding: 'utf8',
    timeout: PROGRAM_MS_MAX,
  });
  assert.is(signal, null, `${stdout}${stderr}`);
  return { status: status ?? -1, stdout, stderr };
}

config(
  'overlayd --test: FILE: ok and 0, or every fault and 8; nothing is started',
  withDirectory((directory) => {
    const file = join(directory, 'overlayd.yaml');
    const state = join(directory, 'state');
    const test = (...flags: string[]) =>
      run(process.execPath, DAEMON, '--test', '--state-dir', state, ...flags);
    writeFileSync(file, whole);
    assert.equal(test('--config', file), { status: 0, stdout: `${file}: ok\n`, stderr: '' });
    assert.equal(test(), { status: 0, stdout: 'flags: ok\n', stderr: '' });
    writeFileSync(file, 'workers: 0\nbank: 0\n');
    const ended = test('--config', file, '--memory', 'lots');
    assert.equal([ended.status, ended.stdout], [8, '']);
    const places = ended.stderr
      .trimEnd()
      .split('\n')
      .map((line) => line.replace(/^(.*?(?:workers|bank|--memory)): .*$/, '$1'));
    assert.equal(places, [`${file}:1:10: workers`, `${file}:2:7: bank`, '--memory']);
    const absent = test('--config', join(directory, 'absent'));
    assert.equal([absent.status, absent.stdout], [8, '']);
    assert.match(absent.stderr, /^overlayd: the configuration cannot be read: .*absent/);
    // A daemon that is to start says the same, and leaves as well.
    const started = run(process.execPath, DAEMON, '--config', file, '--state-dir', state);
    assert.is(started.status, 8);
    assert.match(started.stderr, /^overlayd: .*:1:10: workers: .*\noverlayd: .*:2:7: bank: /);
    assert.throws(() => mkdirSync(join(state, 'x')), /ENOENT/, 'there is no state directory');
  }),
);

async function withHost(work: (host: Host, directory: string) => Promise<void>): Promise<void> {
  const host = new Host();
  try {
    await withDirectory((directory) => work(host, directory))();
  } finally {
    await host.close();
  }
}

testWith(
  config,
  ['root', '/dev/net/tun', 'setpriv'],
  'a start without CAP_NET_ADMIN is refused in a sentence',
  () =>
    withHost(async (host, directory) => {
      const flags = ['--socket', join(directory, 'socket'), '--state-dir', join(directory, 'state')];
      const ended = inNamespace(host.namespace, () =>
        run(
          'setpriv',
          '--bounding-set=-net_admin',
          '--inh-caps=-net_admin',
          process.execPath,
          DAEMON,
          ...flags,
        ),
      );
      assert.equal([ended.status, ended.stdout], [1, '']);
      assert.match(ended.stderr, /^overlayd: overlayd needs CAP_NET_ADMIN to make links/);
    }),
);

testWith(
  config,
  ['root', '/dev/net/tun', 'setpriv'],
  'an ordinary user with CAP_NET_ADMIN alone: it starts and says what is missing',
  () =>
    withHost(async (host, directory) => {
      chmodSync(directory, 0o777);
      const common = ['--workers', '1', '--memory', '64M', '--bank', '1'];
      const sentences: string[] = [];
      const socket = join(directory, 'socket');
      const child = host.start(
        'setpriv',
        '--reuid=65534',
        '--regid=65534',
        '--clear-groups',
        '--inh-caps=+net_admin',
        '--ambient-caps=+net_admin',
        'prlimit',
        '--nofile=280:280',
        process.execPath,
        DAEMON,
        ...common,
        '--socket',
        socket,
        '--state-dir',
        join(directory, 'state'),
      );
      await new Promise<void>((resolve, reject) => {
        let text = '';
        child.stderr!.setEncoding('utf8').on('data', (part: string) => {
          text += part;
          if (!text.includes('"ready"')) return;
          sentences.push(
            ...text
              .trimEnd()
              .split('\n')
              .map((line) => JSON.parse(line))
              .filter(({ level }) => level === 40)
              .map(({ msg }) => msg),
          );
          resolve();
        });
        child.once('exit', () => reject(new Error(`the daemon left: ${text}`)));
      });
      assert.ok(
        sentences.some((text) => /^CAP_SYS_ADMIN is missing/.test(text)),
        sentences.join('\n'),
      );
      assert.ok(
        sentences.some((text) => /^at most 280 files may be open/.test(text)),
        sentences.join('\n'),
      );
    }),
);

testWith(
  config,
  ['root', '/dev/net/tun'],
  'declared overlays are there after the start; one that fails is said and degrades',
  () =>
    withHost(async (host, directory) => {
      const file = join(directory, 'overlayd.yaml');
      const overlay = (vnetid: number) =>
        `{encap: vxlan, search: external, vnetid: ${vnetid}, properties: {vxlan/listen_ip: 192.0.2.1}}`;
      writeFileSync(file, `overlays:\n  ov0: ${overlay(1)}\n  lo: ${overlay(2)}\n  ov1: ${overlay(3)}\n`);
      const flags = ['--workers', '1', '--memory', '64M', '--config', file];
      const daemon = await Daemon.start(host, directory, { flags });
      for (let tries = 0; !daemon.log.includes('"ready"') && tries < 500; tries++) {
        await new Promise((resolve) => setTimeout(resolve, 10));
      }
      const { overlays } = await daemon.client.get<{ overlays: object }>('/v1/overlays');
      assert.equal(Object.keys(overlays).toSorted(), ['ov0', 'ov1']);
      assert.match(daemon.log, /declared overlay 'lo' is not there: .*there is a link 'lo' already/);
      assert.match(daemon.log, /"status":"DEGRADED"/);
      await daemon.stop();
      assert.is(daemon.child.exitCode, 0);
    }),
);

config('an error of a reading is never anything but ours', async () => {
  try {
    readConfig({}, '/nonexistent/overlayd.yaml');
    assert.unreachable();
  } catch (error) {
    assert.instance(error, OverlayError);
  }
});

config.run();
