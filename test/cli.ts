/** overlayadm and overlayd as programs: tables, exit codes, sentences instead of stacks, refused starts. */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { chmodSync, existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import * as fc from 'fast-check';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { exitCodeOf } from '../src/cli/exit-code.js';
import { showOverlays, showStats } from '../src/cli/show.js';
import { type Column, chooseColumns, formatParsable, formatTable, Table } from '../src/cli/table.js';
import { ControlClient } from '../src/control/client.js';
import type { OverlayView } from '../src/control/view.js';
import { readConfig } from '../src/daemon/config.js';
import { EncapRegistry } from '../src/encap/registry.js';
import { OverlayError } from '../src/errors.js';
import { eachOffload } from '../src/offload.js';
import { inNamespace } from '../src/sys/netns.js';
import { socketDefault } from '../src/sys/socket-settings.js';
import { closeUnderlay, openUnderlay } from '../src/sys/underlay.js';
import { Daemon, Host, until } from './harness/hosts.js';
import { assertRefused } from './harness/memory-overlay.js';
import { testWith } from './harness/needs.js';

const cli = suite('command line');
const needs = ['root', '/dev/net/tun'];
const CLI = join(import.meta.dirname, '../src/cli/main.js');
const DAEMON = join(import.meta.dirname, '../src/daemon/main.js');
const NOBODY = 65534;
const PROGRAM_MS_MAX = 20_000;
/** One worker and little memory: these daemons move no frame. */
const small = ['--workers', '1', '--memory', '64M'];

// ─── Tables ─────────────────────────────────────────────────────────────────────────────────────────────

interface Row {
  readonly link: string;
  readonly text: string;
}
const columns: Column<Row>[] = [
  { name: 'LINK', width: 8, value: ({ link }) => link },
  { name: 'TEXT', width: 5, value: ({ text }) => text },
];

cli('columns: -o in its order, any case; all; an unknown one is named with those there are', async () => {
  const chosen = (wanted?: string) => chooseColumns(columns, wanted).map(({ name }) => name);
  assert.equal(chosen(), ['LINK', 'TEXT']);
  assert.equal(chosen('all'), ['LINK', 'TEXT']);
  assert.equal(
    [undefined, 'all', 'text'].map((wanted) => chooseColumns(columns, wanted, 1).map(({ name }) => name)),
    [['LINK'], ['LINK', 'TEXT'], ['TEXT']],
    'some are shown only when they are asked for',
  );
  assert.equal(chosen('text'), ['TEXT']);
  assert.equal(chosen('TEXT,link'), ['TEXT', 'LINK']);
  assert.equal(chosen('Text, Link'), ['TEXT', 'LINK']);
  assert.equal(chosen('link,link'), ['LINK', 'LINK']);
  for (const wanted of ['colour', 'link,colour', '', 'link,', 'all,link', '__proto__', 'constructor']) {
    const choose = () => chooseColumns(columns, wanted);
    await assertRefused(choose, 'EINVAL', 'no_such_column', /there are: link, text$/);
  }
});

cli('a table: widths of dladm at least, wider where the content is, nothing at the end of a line', () => {
  const rows = [
    { link: 'ov0', text: 'a' },
    { link: 'a-long-name', text: '' },
  ];
  assert.equal(formatTable(columns, rows.slice(0, 1)), ['LINK    TEXT', 'ov0     a']);
  assert.equal(formatTable(columns, rows), ['LINK        TEXT', 'ov0         a', 'a-long-name --']);
  const wild = [{ link: 'a\nb', text: '\x1b[2J\r' }];
  assert.equal(formatTable(columns, wild), ['LINK    TEXT', 'a b      [2J'], 'a row is a line');
  assert.equal(formatParsable(columns, wild), ['a b: [2J ']);
  assert.equal(formatTable(columns, []), ['LINK    TEXT']);
});

cli('a table in pages: one header, and the widths of the first page', () => {
  const table = new Table(columns);
  assert.equal(table.next([{ link: 'a-long-name', text: 'a' }]), ['LINK        TEXT', 'a-long-name a']);
  assert.equal(table.next([{ link: 'ov0', text: 'a' }]), ['ov0         a']);
  assert.equal(table.next([{ link: 'a-longer-name', text: 'a' }]), ['a-longer-name a']);
  assert.equal(table.next([]), []);
});

cli('parsable: fields divided by :, with : and \\ escaped; one field alone as it is; no header', () => {
  const rows = [{ link: 'ov0', text: '2001:db8::1 \\ [x]' }];
  assert.equal(formatParsable(columns, rows), ['ov0:2001\\:db8\\:\\:1 \\\\ [x]']);
  assert.equal(formatParsable(columns.slice(1), rows), ['2001:db8::1 \\ [x]']);
  assert.equal(formatParsable(columns, []), []);
  assert.equal(formatParsable(columns, [{ link: '', text: '' }]), [':'], 'nothing stands for an empty field');
});

/** The reverse of `formatParsable`, as a script would write it. */
function parseLine(line: string): string[] {
  const fields: string[] = [];
  let field = '';
  for (let at = 0; at < line.length; at++) {
    if (line[at] === ':') {
      fields.push(field);
      field = '';
    } else {
      field += line[at] === '\\' ? line[++at] : line[at];
    }
  }
  return [...fields, field];
}

cli('parsable: whatever is in the fields comes back out', () => {
  const field = fc.oneof(fc.string(), fc.stringMatching(/^[\\:a]{0,10}$/));
  fc.assert(
    fc.property(field, field, (link, text) => {
      assert.equal(parseLine(formatParsable(columns, [{ link, text }])[0]!), [link, text]);
    }),
    { numRuns: 2000 },
  );
});

const view: OverlayView = {
  offloads: eachOffload((name) => (name === 'uso' ? 'refused' : 'used')),
  state: 'activated',
  status: 'DEGRADED',
  message: 'not started: it rains',
  faults: [{ code: 'start_failed', text: 'not started: it rains', since: '2000-01-01T00:00:00.000Z' }],
  properties: [
    {
      name: 'vxlan/listen_ip',
      id: 4,
      type: 'ip',
      permission: 'rw',
      required: true,
      value: '2001:db8::1',
      default: null,
      possible: null,
    },
    {
      name: 'mtu',
      id: 0,
      type: 'uint',
      permission: 'rw',
      required: false,
      value: 0,
      default: 1400,
      possible: '576-8900',
    },
  ],
  destination_kinds: ['ip', 'port'],
  targets: [],
  targets_more: false,
  requests: null,
};

cli('show-overlay --offloads: each with its state', () => {
  const lines = showOverlays([['ov0', view]], { offloads: true });
  assert.match(lines[0]!, /^LINK +OFFLOAD +STATE +MEANING/);
  assert.match(lines[3]!, /^ov0 +uso +refused +the link hands over UDP super-frames/);
  assert.is(lines.length, 7);
});

cli('show-overlay: the columns of dladm, -- where nothing is, - without a fault', () => {
  assert.equal(showOverlays([['ov0', view]], {}), [
    'LINK               PROPERTY           PERM REQ VALUE       DEFAULT   POSSIBLE',
    'ov0                vxlan/listen_ip    rw   y   2001:db8::1 --        --',
    'ov0                mtu                rw   -   0           1400      576-8900',
  ]);
  const online = { ...view, status: 'ONLINE', message: '' };
  assert.equal(
    showOverlays(
      [
        ['ov0', view],
        ['ov1', online],
      ],
      { fma: true, parsable: true, output: 'all' },
    ),
    ['ov0:DEGRADED:not started\\: it rains', 'ov1:ONLINE:-'],
  );
  assert.equal(showOverlays([], { fma: true }), ['LINK                STATUS  DETAILS']);
});

cli('show-stats: counters, then drops, then workers', () => {
  const counters = { tx_read: 1, tx_frames: '9007199254740993' };
  const lines = showStats(
    {
      meanings: { tx_too_big: 'too long: it was', refused_rate: 'too fast' },
      overlays: { ov0: { counters, drops: { tx_too_big: 2 }, link_overflow: 3 } },
      muxes: {
        '192.0.2.1:4789': {
          encap: 'vxlan',
          counters: { rx_read: 4 },
          drops: {},
          socket_overflow: 5,
          ports_skipped: 8,
          probes: { sent: 9, answered: 10, unsent: 11 },
        },
      },
      workers: [
        {
          worker: 0,
          directions: 'both',
          state: 'running',
          restarts: 6,
          starvations: 8,
          counters: { wakeups: 7 },
          drops: {},
        },
      ],
      control: { connections: 12, refused: { rate: 13 }, last_refused_uid: 14 },
      next: null,
    },
    { parsable: true, output: 'all' },
  );
  assert.equal(lines, [
    'ov0:tx_read:1:',
    'ov0:tx_frames:9007199254740993:',
    'ov0:drop\\:link_overflow:3:',
    'ov0:drop\\:tx_too_big:2:too long\\: it was',
    '192.0.2.1\\:4789:rx_read:4:',
    '192.0.2.1\\:4789:ports_skipped:8:',
    '192.0.2.1\\:4789:probes_sent:9:',
    '192.0.2.1\\:4789:probes_answered:10:',
    '192.0.2.1\\:4789:probes_unsent:11:',
    '192.0.2.1\\:4789:drop\\:socket_overflow:5:',
    'worker 0:directions:both:',
    'worker 0:state:running:',
    'worker 0:restarts:6:',
    'worker 0:starvations:8:',
    'worker 0:wakeups:7:',
    'control:connections:12:',
    'control:refused_rate:13:too fast',
    'control:last_refused_uid:14:',
  ]);
});

cli('exit codes', () => {
  const codes = { ENOENT: 3, EEXIST: 4, EBUSY: 4, EPERM: 5, EACCES: 5, ETIME: 7 };
  for (const [errno, code] of Object.entries({ ...codes, EINVAL: 1, EAGAIN: 1, ECONNREFUSED: 1 })) {
    assert.is(exitCodeOf(new OverlayError(errno, 'x', 'x')), code, errno);
  }
  for (const code of ['daemon_busy', 'too_many_requests', 'too_many_connections']) {
    assert.is(exitCodeOf(new OverlayError('EAGAIN', code, 'x')), 4, code);
  }
});

// ─── Configuration ──────────────────────────────────────────────────────────────────────────────────────

function withDirectory(work: (directory: string) => void | Promise<void>): () => Promise<void> {
  return async () => {
    const directory = mkdtempSync(join(tmpdir(), 'overlayd-cli-'));
    chmodSync(directory, 0o755);
    try {
      await work(directory);
    } finally {
      rmSync(directory, { recursive: true, force: true });
    }
  };
}

cli(
  'configuration: flags over file over defaults',
  withDirectory((directory) => {
    const file = join(directory, 'overlayd.yaml');
    writeFileSync(file, '# ours\nworkers: 2\nmemory: 64M\nsocket: /run/a\npin: 0\nlogLevel: warn\n');
    const config = readConfig({ memory: '1G', socket: '/run/b' }, file);
    assert.equal(config, {
      workers: 2,
      threads: 'combined',
      memoryBytes: 2 ** 30,
      socket: '/run/b',
      pin: [0],
      logLevel: 'warn',
      bank: 8,
      batch: 64,
      busyPoll: 50,
      ring: 1000,
      stateDir: '/var/lib/overlayd',
      plugin: [],
      socketMode: 0o666,
      overlays: new Map(),
    });
    writeFileSync(file, '');
    assert.is(readConfig({ workers: '1' }, file).workers, 1);
    for (const [text, bytes] of [
      ['1048576', 2 ** 20],
      ['64k', 2 ** 16],
      ['256 MiB', 2 ** 28],
      ['2gb', 2 ** 31],
    ] as const) {
      assert.is(readConfig({ memory: text }, undefined).memoryBytes, bytes);
    }
    assert.equal(readConfig({ pin: '0' }, undefined).pin, [0]);
  }),
);

cli(
  'configuration: what is wrong in the file is named with line and column',
  withDirectory(async (directory) => {
    const file = join(directory, 'overlayd.yaml');
    const wrong: [text: string, place: string, message: RegExp][] = [
      ['workers: 0', '1:10', /workers: .*>=1/],
      ['workers: 65', '1:10', /workers: .*<=64/],
      ['workers: 1.5', '1:10', /workers: /],
      ['workers: true', '1:10', /workers: it is a whole number/],
      ['workers: [3]', '1:10', /workers: it is a whole number/],
      ['workers: "0x2"', '1:10', /workers: it is a whole number/],
      ['# ours\n\nmemory: lots', '3:9', /memory: it is a size such as 256M/],
      ['memory: -1', '1:9', /memory: it is a size/],
      ['memory: 1T', '1:9', /memory: it is a size/],
      ['bank: 65', '1:7', /bank: .*<=64/],
      ['pin: 3-1', '1:6', /pin: it is a list of CPUs/],
      ['workers: 1\nsocket: 5', '2:9', /socket: /],
      [`socket: ${'é'.repeat(54)}`, '1:9', /socket: it is at most 101 bytes/],
      ['stateDir: ""', '1:11', /stateDir: /],
      ['logLevel: loud', '1:11', /logLevel: .*debug/],
      ['workers: 1\nworker: 2', '2:9', /worker: Unrecognized key/],
      ['__proto__:\n  workers: 1', '2:3', /__proto__: Unrecognized key/],
      ['workers: 1\nworkers: 2', '2:1', /unique/],
      ['workers: 1\n  bank: 2\n', '1:10', /mapping|indent/i],
      ['workers: {', '1:11', /./],
      ['hello', '1:1', /file: .*object/],
      ['- 1', '1:1', /file: .*object/],
      ['workers: *nobody', '1:1', /alias/],
      [`a: &a [x,x,x,x,x,x,x,x,x]\n${unfolding()}`, '1:1', /alias/],
    ];
    for (const [text, place, message] of wrong) {
      writeFileSync(file, text);
      const error = await assertRefused(() => readConfig({}, file), 'EINVAL', 'bad_config', message);
      assert.ok(error.message.startsWith(`${file}:${place}: `), `${JSON.stringify(text)}: ${error.message}`);
    }
    const absent = join(directory, 'absent.yaml');
    await assertRefused(() => readConfig({}, absent), 'ENOENT', 'config_unreadable', /absent\.yaml/);
    await assertRefused(() => readConfig({}, directory), 'EINVAL', 'config_unreadable');
  }),
);

/** Aliases of aliases, which would unfold to a great many values. */
function unfolding(): string {
  const names = ['a', 'b', 'c', 'd'];
  return names
    .slice(1)
    .map((name, index) => `${name}: &${name} [${Array(9).fill(`*${names[index]}`).join()}]`)
    .join('\n');
}

cli('configuration: a wrong flag is named', async () => {
  for (const [flags, message] of [
    [{ workers: '0' }, /^--workers: /],
    [{ workers: 'two' }, /^--workers: it is a whole number/],
    [{ workers: '0x2' }, /^--workers: it is a whole number/],
    [{ workers: '1e0' }, /^--workers: it is a whole number/],
    [{ workers: '' }, /^--workers: it is a whole number/],
    [{ bank: '0' }, /^--bank: /],
    [{ memory: '' }, /^--memory: it is a size/],
    [{ pin: 'all' }, /^--pin: it is a list of CPUs/],
    [{ socket: '' }, /^--socket: /],
    [{ stateDir: '' }, /^--state-dir: /],
    [{ logLevel: 'loud' }, /^--log-level: /],
  ] as const) {
    await assertRefused(() => readConfig(flags, undefined), 'EINVAL', 'bad_config', message);
  }
  await assertRefused(() => readConfig({ pin: '9998' }, undefined), 'EINVAL', 'no_such_cpu', /no CPU 9998/);
});

// ─── Programs ───────────────────────────────────────────────────────────────────────────────────────────

interface Ended {
  readonly status: number;
  readonly stdout: string;
  readonly stderr: string;
}

function finished(result: { status: number | null; stdout: string; stderr: string; signal: unknown }): Ended {
  const { status, stdout, stderr, signal } = result;
  assert.is(signal, null, `ended by a signal: ${stdout}${stderr}`);
  return { status: status ?? -1, stdout, stderr };
}

const environment = { ...process.env, OVERLAYD_SOCKET: undefined };

function run(
  file: string,
  args: readonly string[],
  options: { uid?: number; env?: NodeJS.ProcessEnv } = {},
): Ended {
  const { uid = process.getuid!(), env = environment } = options;
  const settings = { encoding: 'utf8', timeout: PROGRAM_MS_MAX, uid, cwd: '/', env } as const;
  return finished(spawnSync(process.execPath, [file, ...args], settings));
}

/** Asserts that a program said what is wrong in a sentence, to people, and left with the code. */
function assertSaid(ended: Ended, status: number, message: RegExp, what: string): void {
  assert.is(ended.status, status, `${what}: ${ended.stdout}${ended.stderr}`);
  assert.match(ended.stderr, message, what);
  assert.match(ended.stderr, /^(overlayadm|overlayd|error): \S+ \S+/, what);
  assert.not.match(ended.stderr, /^\s+at |node:internal|\[object/m, `${what}: no stack`);
  assert.is(ended.stdout, '', `${what}: nothing on stdout`);
}

function create(
  name: string,
  given: Readonly<Record<string, string>> = {},
  more: readonly string[] = [],
): string[] {
  const { e = 'vxlan', s = 'direct', v = '1', p = properties('192.0.2.1') } = given;
  return ['create-overlay', '-e', e, '-s', s, '-v', v, ...(p ? ['-p', p] : []), ...more, name];
}

function properties(ip: string, port = 4789): string {
  return `vxlan/listen_ip=${ip},vxlan/listen_port=${port},direct/dest_ip=192.0.2.2,direct/dest_port=4789`;
}

cli('no daemon: said for every command, exit code 6', () => {
  const socket = '/nonexistent/overlayd.sock';
  for (const args of [
    create('ov0'),
    ['delete-overlay', 'ov0'],
    ['show-overlay'],
    ['show-overlay', 'ov0'],
    ['show-stats', '--json'],
  ]) {
    assertSaid(
      run(CLI, ['-S', socket, ...args]),
      6,
      /no daemon answers on \/nonexistent.*start overlayd/,
      args[0]!,
    );
  }
  const env = { ...environment, OVERLAYD_SOCKET: '/nonexistent/other.sock' };
  assertSaid(run(CLI, ['show-overlay'], { env }), 6, /\/nonexistent\/other\.sock/, 'from the environment');
});

cli('usage errors: exit code 2, before any daemon is asked', () => {
  const usage: [args: string[], message: RegExp][] = [
    [['show-overlay', '-p'], /-p needs -o/],
    [['show-stats', '-p'], /-p needs -o/],
    [['show-overlay', '-f', '-t'], /-f and -t exclude each other/],
    [['show-overlay', '-t', '--offloads'], /-t and --offloads exclude each other/],
    [['show-overlay', '--nope'], /unknown option '--nope'/],
    [['show-overlay', '-o'], /argument missing/],
    [['nope'], /unknown command 'nope'/],
    [['create-overlay'], /required option|missing required argument/],
    [create('ov0').slice(0, -1), /missing required argument 'name'/],
    [['create-overlay', '-s', 'direct', '-v', '1', 'ov0'], /'-e, --encap <plugin>' not specified/],
    [['create-overlay', '-e', 'vxlan', '-v', '1', 'ov0'], /'-s, --search <plugin>' not specified/],
    [['create-overlay', '-e', 'vxlan', '-s', 'direct', 'ov0'], /'-v, --vnetid <id>' not specified/],
    [create('ov0', {}, ['ov1']), /too many arguments/],
    [create('ov0', { p: 'mtu' }), /'mtu' is not prop=value/],
    [create('ov0', { p: 'mtu=' }), /'mtu=' is not prop=value/],
    [create('ov0', { p: '=1' }), /'=1' is not prop=value/],
    [create('ov0', { p: 'mtu=1,,' }), /'' is not prop=value/],
    [create('ov0', { p: 'mtu=1,mtu=2' }), /'mtu' is given twice/],
    [create('ov0', { p: 'mtu=1' }, ['-p', 'mtu=2']), /'mtu' is given twice/],
    [['delete-overlay'], /missing required argument 'name'/],
    [['delete-overlay', 'ov0', 'ov1'], /too many arguments/],
    [['show-stats', 'ov0'], /too many arguments/],
  ];
  for (const [args, message] of usage) {
    assertSaid(run(CLI, ['-S', '/nonexistent', ...args]), 2, message, args.join(' '));
  }
  assert.is(run(CLI, []).status, 2);
  for (const args of [['--help'], ['create-overlay', '--help']]) {
    const help = run(CLI, args);
    assert.equal([help.status, help.stderr], [0, '']);
    assert.match(help.stdout, /^Usage: overlayadm/);
  }
});

/** A host with a loopback that is up, an address of a tunnel endpoint, and a directory that all may enter. */
async function withHost(work: (host: Host, directory: string) => Promise<void>): Promise<void> {
  const host = new Host();
  const directory = mkdtempSync(join(tmpdir(), 'overlayd-cli-'));
  chmodSync(directory, 0o755);
  try {
    const { index } = host.netlink.getLink('lo');
    host.netlink.setLink(index, { up: true });
    host.netlink.addAddress(index, '192.0.2.1/32');
    await work(host, directory);
  } finally {
    await host.close();
    rmSync(directory, { recursive: true, force: true });
  }
}

function inHost(host: Host, file: string, args: readonly string[]): Ended {
  return inNamespace(host.namespace, () => run(file, args));
}

testWith(cli, needs, 'every bad input of an operator: a sentence and its exit code', () =>
  withHost(async (host, directory) => {
    const daemon = await Daemon.start(host, directory, { flags: small });
    const { socket } = daemon;
    const ask = (...args: string[]) => run(CLI, ['-S', socket, ...args]);
    assert.equal(ask(...create('ov0')), { status: 0, stdout: '', stderr: '' });
    const before = ask('show-overlay', '--json').stdout;

    const wrong: [args: string[], status: number, message: RegExp][] = [
      [create('ov1', { e: 'gre' }), 3, /no encap plugin 'gre'; there are: vxlan/],
      [create('ov1', { e: 'a/b' }), 1, /1 to 31 bytes without '\/'/],
      [create('ov1', { s: 'svp', v: '2' }), 3, /no lookup plugin 'svp'; there are: direct/],
      [create('ov1', { v: '16777216' }), 1, /vnetid cannot be '16777216': it may be 0-16777215/],
      [create('ov1', { v: '-1' }), 1, /vnetid cannot be '-1'/],
      [create('ov1', { v: 'red' }), 1, /vnetid cannot be 'red': it is a whole decimal number/],
      [create('ov1', { v: '12abc' }), 1, /vnetid cannot be '12abc'/],
      [create('ov1', { v: '0x10' }), 1, /vnetid cannot be '0x10'/],
      [create('ov1', { v: '99999999999999999999999' }), 1, /vnetid cannot be/],
      [
        create('ov1', { v: '2', p: properties('192.0.2') }),
        1,
        /vxlan\/listen_ip: .*'192\.0\.2': it is an IPv4 or/,
      ],
      [create('ov1', { v: '2', p: properties('224.0.0.1') }), 1, /listen_ip: .*it is a multicast address/],
      [create('ov1', { v: '2', p: properties('192.0.2.1', 65536) }), 1, /listen_port: .*1-65535/],
      [create('ov1', { v: '2', p: '' }), 1, /vxlan\/listen_ip: it is required and has no value/],
      [create('ov1', { v: '2', p: 'vxlan/listen_ip=192.0.2.1' }), 1, /direct\/dest_ip: it is required/],
      [create('ov1', { v: '2', p: 'svp/host=a' }), 3, /svp\/host: there is no property 'svp\/host'/],
      [create('ov1', { v: '2', p: 'constructor=a' }), 3, /constructor: there is no property/],
      [create('ov1', { v: '2', p: '__proto__=a' }), 1, /not understood/],
      [create('ov1', { v: '2', p: 'encap=vxlan' }), 5, /encap: encap cannot be set/],
      [create('ov0', { v: '2' }), 4, /overlay 'ov0' exists already/],
      [create('ov1'), 4, /vnetid 1 is that of overlay 'ov0'/],
      [create('a/b', { v: '2' }), 1, /'a\/b' cannot be a device's name/],
      [create('..', { v: '2' }), 1, /'\.\.' cannot be a device's name/],
      [create('x'.repeat(16), { v: '2' }), 1, /1 to 15 characters/],
      [create('all', { v: '2' }), 1, /the kernel reserves it/],
      [create('lo', { v: '2' }), 4, /there is a link 'lo' already/],
      [['delete-overlay', 'nope'], 3, /no overlay 'nope'/],
      [['delete-overlay', 'a/b'], 3, /no overlay 'a\/b'/],
      [['delete-overlay', '..'], 3, /./],
    ];
    for (const [args, status, message] of wrong) assertSaid(ask(...args), status, message, args.join(' '));
    assert.is(ask('show-overlay', '--json').stdout, before, 'nothing has changed');
    assert.equal(
      host.netlink
        .listLinks()
        .map(({ name }) => name)
        .toSorted(),
      ['lo', 'ov0'],
    );

    for (const name of ['nope', 'a/b', '../stats', '%', 'é', '?', '']) {
      const shown = ask('show-overlay', name);
      assert.equal(
        [shown.status, shown.stderr.startsWith('overlayadm: ')],
        [3, true],
        `${name}: ${shown.stderr}`,
      );
    }
    assertSaid(
      ask('show-overlay', '-o', 'colour'),
      2,
      /no column 'colour'; there are: link, property/,
      'a column',
    );

    host.netlink.setLink(host.netlink.getLink('ov0').index, { up: true });
    await until('it is started', 3000, async () => (await daemon.state('ov0')) === 'started');
    assertSaid(ask('delete-overlay', 'ov0'), 4, /ov0 is up: take it down .*--force/, 'delete while up');
    assert.is(ask('delete-overlay', '-f', 'ov0').status, 0);

    // Another user may look, and is told that he may not change.
    assertSaid(
      run(CLI, ['-S', socket, ...create('ov0')], { uid: NOBODY }),
      5,
      /may look but not change/,
      'nobody',
    );
    const shown = run(CLI, ['-S', socket, 'show-overlay'], { uid: NOBODY });
    assert.equal([shown.status, shown.stderr], [0, '']);
    chmodSync(socket, 0o600);
    assertSaid(
      run(CLI, ['-S', socket, 'show-overlay'], { uid: NOBODY }),
      5,
      /may not be opened by this user/,
      'nobody',
    );
  }),
);

testWith(cli, needs, 'the commands, their tables and documents', () =>
  withHost(async (host, directory) => {
    const { socket } = await Daemon.start(host, directory, { flags: small });
    const ask = (...args: string[]) => run(CLI, ['-S', socket, ...args]);
    const document = (...args: string[]): Record<string, unknown> => {
      const { status, stdout, stderr } = ask(...args, '--json');
      assert.equal([status, stderr], [0, ''], args.join(' '));
      const parsed = JSON.parse(stdout);
      assert.is(parsed.version, 1, args.join(' '));
      return parsed;
    };
    assert.equal(ask('show-overlay').stdout.split('\n').length, 2, 'a header alone');
    assert.equal(document(...create('ov0', { v: '23' })), { version: 1 });
    assert.equal(ask(...create('ov1', { v: '16777215' }, ['-p', 'mtu=1300'])).stderr, '');

    const [header, ...lines] = ask('show-overlay', 'ov0').stdout.trimEnd().split('\n');
    assert.match(header!, /^LINK +PROPERTY +PERM REQ VALUE +DEFAULT +POSSIBLE$/);
    assert.equal(
      lines.map((line) => line.split(/ +/).join(' ')),
      [
        'ov0 mtu rw - 1400 auto 576-8900,auto',
        'ov0 vnetid rw - 23 -- 0-16777215',
        `ov0 encap r- - vxlan -- ${new EncapRegistry().names}`,
        'ov0 varpd/id r- - 1 -- --',
        'ov0 vxlan/listen_ip rw y 192.0.2.1 -- --',
        'ov0 vxlan/listen_port rw y 4789 4789 1-65535',
        'ov0 vxlan/ttl rw - 64 64 1-255',
        'ov0 vxlan/dscp rw - 0 0 --',
        'ov0 vxlan/ecn rw - copy copy copy,clear',
        'ov0 vxlan/source_check rw - auto auto auto,off,known,strict',
        'ov0 vxlan/reserved rw - ignore ignore ignore,drop',
        'ov0 vxlan/inner_to_mux rw - drop drop drop,pass',
        'ov0 vxlan/mark rw - 0 0 0-4294967295',
        'ov0 vxlan/device rw - any any --',
        'ov0 vxlan/source_ports rw - 49152-65535 49152-65535 --',
        'ov0 vxlan/zerocsum6_tx rw - off off on,off',
        'ov0 vxlan/zerocsum6_rx rw - off off on,off',
        'ov0 search r- - direct -- direct,files,learn,external',
        'ov0 direct/dest_ip rw y 192.0.2.2 -- --',
        'ov0 direct/dest_port rw y 4789 -- 1-65535',
        'ov0 mtu_max rw - 8900 8900 576-65481',
        'ov0 mtu_sum r- - -- -- --',
        'ov0 tcp_mss rw - off off off,auto,88-65495',
        'ov0 path_mtu_probe rw - off off off,on',
        'ov0 netns rw - -- -- --',
        'ov0 underlay_netns rw - -- -- --',
        'ov0 checksum rw - auto auto auto,on,off',
        'ov0 tso rw - auto auto auto,on,off',
        'ov0 uso rw - auto auto auto,on,off',
        'ov0 udp_segment rw - auto auto auto,on,off',
        'ov0 udp_gro rw - auto auto auto,on,off',
        'ov0 gro rw - auto auto auto,on,off',
      ],
    );
    assert.is(ask('show-overlay', '-p', '-o', 'value', 'ov1').stdout.split('\n')[0], '1300');
    assert.equal(
      ask('show-overlay', '-f')
        .stdout.trimEnd()
        .split('\n')
        .slice(1)
        .map((line) => line.split(/ +/)),
      [
        ['ov0', 'ONLINE', '-'],
        ['ov1', 'ONLINE', '-'],
      ],
    );
    const target = ask('show-overlay', '-t', '-p', '-o', 'all', 'ov0').stdout.trimEnd();
    assert.equal(parseLine(target).slice(0, 3), ['ov0', '*:*:*:*:*:*', '192.0.2.2:4789']);
    assert.is(ask('show-overlay', '-t', '-p', '-o', 'target', 'ov0').stdout, '*:*:*:*:*:*\n');

    // As dladm: those that are there are shown, those that are not are named.
    const some = ask('show-overlay', '-p', '-o', 'link', 'nope', 'ov0', 'nor', 'ov1');
    assert.is(some.status, 3);
    assert.equal([...new Set(some.stdout.trimEnd().split('\n'))], ['ov0', 'ov1']);
    assert.equal(
      some.stderr,
      "overlayadm: there is no overlay 'nope'\noverlayadm: there is no overlay 'nor'\n",
    );

    assert.equal(Object.keys(document('show-overlay').overlays as object), ['ov0', 'ov1']);
    assert.equal(Object.keys(document('show-overlay', 'ov1').overlays as object), ['ov1']);
    const stats = document('show-stats');
    assert.equal(Object.keys(stats), [
      'version',
      'meanings',
      'overlays',
      'muxes',
      'workers',
      'control',
      'next',
    ]);
    assert.match(ask('show-stats', '-p', '-o', 'all').stdout, /^ov0:tx_read:0:$/m);
    assert.equal(document('delete-overlay', 'ov0'), { version: 1 });
    assert.equal(ask('delete-overlay', 'ov1'), { status: 0, stdout: '', stderr: '' });
    assert.equal(document('show-overlay').overlays, {});
  }),
);

testWith(cli, needs, 'the port is in use: created, degraded with the reason, in the table', () =>
  withHost(async (host, directory) => {
    const { socket } = await Daemon.start(host, directory, { flags: small });
    const ask = (...args: string[]) => run(CLI, ['-S', socket, ...args]);
    const options = { ip: '192.0.2.1', port: 4789, workers: 1, bank: 1, settings: socketDefault };
    const foreign = inNamespace(host.namespace, () => openUnderlay(options));
    const fault = () => ask('show-overlay', '-f', '-p', '-o', 'status,details', 'ov0').stdout;
    assert.is(ask(...create('ov0')).status, 0);
    host.netlink.setLink(host.netlink.getLink('ov0').index, { up: true });
    await until('it is degraded', 3000, () => fault().startsWith('DEGRADED:'));
    assert.match(
      fault(),
      /another program has the port \(.+, process \d+\); stop it or choose another listen_port.*EADDRINUSE/,
    );
    closeUnderlay(foreign);
    await until('it recovers', 5000, () => fault() === 'ONLINE:-\n');
  }),
);

/** Starts a daemon in another way than `Daemon.start` does, and waits until it answers. */
async function startOtherwise(host: Host, socket: string, start: () => ChildProcess): Promise<ChildProcess> {
  const child = inNamespace(host.namespace, start);
  let log = '';
  child.stderr?.setEncoding('utf8').on('data', (text: string) => {
    log += text;
  });
  const client = new ControlClient(socket);
  await until('the daemon answers', 10_000, async () => {
    if (child.exitCode !== null) throw new Error(`the daemon left: ${log}`);
    return client.get('/v1/overlays').then(
      () => true,
      () => false,
    );
  });
  return child;
}

async function stop(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const exited = new Promise((resolve) => child.once('exit', resolve));
  child.kill('SIGTERM');
  const timer = setTimeout(() => child.kill('SIGKILL'), 5000);
  await exited;
  clearTimeout(timer);
}

testWith(
  cli,
  needs,
  'a daemon without rights does not start; nor on a state directory of somebody else',
  () =>
    withHost(async (host, directory) => {
      const flags = [
        ...small,
        '--socket',
        join(directory, 'socket'),
        '--state-dir',
        join(directory, 'state'),
      ];
      const refused = inNamespace(host.namespace, () => run(DAEMON, flags, { uid: NOBODY }));
      assertSaid(refused, 1, /needs CAP_NET_ADMIN to make links: start it as root/, 'started by nobody');
      assert.is(existsSync(join(directory, 'state')), false);
      writeFileSync(join(directory, 'state'), '');
      assertSaid(inHost(host, DAEMON, flags), 1, /EEXIST|ENOTDIR/, 'a state directory that is none');
    }),
);

/** Runs the rest of its arguments where /dev/net is empty; the mount namespace is `unshare -m`'s. */
const withoutTun = `
  const { execFileSync, spawn } = require('node:child_process');
  execFileSync('mount', ['-t', 'tmpfs', 'none', '/dev/net']);
  const child = spawn(process.execPath, process.argv.slice(1), { stdio: 'inherit' });
  process.on('SIGTERM', () => child.kill('SIGTERM'));
  child.on('exit', (code) => process.exit(code ?? 255));
`;

testWith(cli, [...needs, 'unshare', 'mount'], 'no /dev/net/tun: the error names it and the remedy', () =>
  withHost(async (host, directory) => {
    const socket = join(directory, 'socket');
    const flags = [DAEMON, ...small, '--socket', socket, '--state-dir', join(directory, 'state')];
    const child = await startOtherwise(host, socket, () =>
      spawn('unshare', ['-m', process.execPath, '-e', withoutTun, ...flags], {
        stdio: ['ignore', 'ignore', 'pipe'],
      }),
    );
    try {
      const asked = run(CLI, ['-S', socket, ...create('ov0')]);
      assertSaid(asked, 1, /\/dev\/net\/tun is missing: load the tun module/, 'no tun');
      const client = new ControlClient(socket);
      const post = client.post('/v1/overlays', { name: 'ov0', encap: 'vxlan', search: 'direct', vnetid: 1 });
      await assertRefused(post, 'ENODEV', 'no_tun_device');
      assert.ok(existsSync('/dev/net/tun'), 'outside nothing has changed');
    } finally {
      await stop(child);
    }
  }),
);

testWith(
  cli,
  needs,
  'a second daemon on the state directory or the socket is refused; after a kill one may follow',
  () =>
    withHost(async (host, directory) => {
      const first = await Daemon.start(host, directory, { flags: small });
      const state = join(directory, 'state');
      const other = join(directory, 'other');
      const second = (socket: string, stateDir: string) =>
        inHost(host, DAEMON, [...small, '--log-level', 'error', '--socket', socket, '--state-dir', stateDir]);
      assertSaid(
        second(join(directory, 'b'), state),
        1,
        /another overlayd uses .*state: stop it/,
        'the directory',
      );
      assertSaid(second(first.socket, other), 1, /another daemon answers on .*--socket/, 'the socket');
      await first.client.get('/v1/overlays');
      assert.is(run(CLI, ['-S', first.socket, ...create('ov0')]).status, 0);

      first.child.kill('SIGKILL');
      await until('it is gone', 3000, () => first.child.signalCode === 'SIGKILL');
      assert.ok(existsSync(first.socket), 'its socket is left');
      await until('its link has no carrier', 3000, () => !host.netlink.getLink('ov0').hasCarrier);
      assertSaid(run(CLI, ['-S', first.socket, 'show-overlay']), 6, /no daemon answers/, 'a dead socket');
      const third = await Daemon.start(host, directory, { flags: small });
      assertSaid(run(CLI, ['-S', third.socket, ...create('ov0')]), 4, /'ov0' exists already/, 'it is back');
      assert.is(run(CLI, ['-S', third.socket, 'delete-overlay', '-f', 'ov0']).status, 0);
      await third.stop();
      assert.is(third.child.exitCode, 0, third.log);
      assert.is(existsSync(third.socket), false);
      assert.equal(
        host.netlink.listLinks().map(({ name }) => name),
        ['lo'],
      );
    }),
);

testWith(cli, needs, 'a daemon that cannot start says why, in a sentence', () =>
  withHost(async (host, directory) => {
    const config = join(directory, 'overlayd.yaml');
    const file = join(directory, 'file');
    writeFileSync(file, 'precious');
    const own = ['--socket', join(directory, 'socket'), '--state-dir', join(directory, 'state')];
    const cases: [flags: string[], config: string, status: number, message: RegExp][] = [
      [
        ['--memory', '8M'],
        '',
        1,
        /memory of 8 MiB is not usable: .* need \d+ MiB.*change --memory or --workers/,
      ],
      [['--memory', '5G'], '', 1, /the most is 4095 MiB/],
      [['--memory', 'lots'], '', 8, /--memory: it is a size such as 256M/],
      [['--workers', '0'], '', 8, /--workers: /],
      [['--workers', '65'], '', 8, /--workers: /],
      [['--bank', '65'], '', 8, /--bank: /],
      [['--log-level', 'loud'], '', 8, /--log-level: /],
      [['--pin', '9998'], '', 8, /--pin: this process has no CPU 9998/],
      [['--nope'], '', 2, /unknown option '--nope'/],
      [['hello'], '', 2, /too many arguments/],
      [['--config', config], 'workers: 1\nmemory: lots\n', 8, /overlayd\.yaml:2:9: memory: it is a size/],
      [['--config', config], 'workers: [', 8, /overlayd\.yaml:1:\d+: /],
      [['--config', config], 'worker: 1', 8, /overlayd\.yaml:1:9: worker: Unrecognized key/],
      [['--config', config], 'workers: *x', 8, /overlayd\.yaml:1:1: /],
      [['--config', join(directory, 'absent')], '', 8, /configuration cannot be read: .*absent/],
      [['--socket', file], '', 1, /is there and no socket: choose another --socket/],
      [['--socket', join(file, 'socket')], '', 1, /the control socket cannot be made: .*see --socket/],
      [['--state-dir', file], '', 1, /the state directory cannot be made: .*see --state-dir/],
    ];
    for (const [flags, text, status, message] of cases) {
      writeFileSync(config, text);
      const ended = inHost(host, DAEMON, ['--log-level', 'error', '--workers', '1', ...own, ...flags]);
      assertSaid(ended, status, message, flags.join(' '));
    }
    assert.is(readFileSync(file, 'utf8'), 'precious');
    const help = run(DAEMON, ['--help']);
    assert.equal([help.status, help.stderr], [0, '']);
    assert.match(help.stdout, /^Usage: overlayd/);
  }),
);

cli.run();
