/** Every exit code of overlayadm and overlayd, each by a program that ends with it; and a JSON document of every command. */
import { spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { exitCodeOf, exitCodes } from '../src/cli/exit-code.js';
import { withRig } from './harness/control-rig.js';
import { freePort } from './harness/memory-overlay.js';
import { withVnics } from './harness/test-vnics.js';

const exits = suite('exit codes and documents');
const CLI = join(import.meta.dirname, '../src/cli/main.js');
const DAEMON = join(import.meta.dirname, '../src/daemon/main.js');

interface Ended {
  readonly status: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs a program while this process goes on: it may be what the program talks to. */
function run(file: string, ...args: string[]): Promise<Ended> {
  const child = spawn(process.execPath, [file, ...args], { stdio: ['ignore', 'pipe', 'pipe'] });
  let stdout = '';
  let stderr = '';
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    stdout += text;
  });
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    stderr += text;
  });
  return new Promise((resolve) => child.once('close', (status) => resolve({ status, stdout, stderr })));
}

async function withDirectory(work: (directory: string) => Promise<void>): Promise<void> {
  const directory = mkdtempSync(join(tmpdir(), 'overlayd-exit-'));
  try {
    await work(directory);
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

/** A daemon that answers everything in the same way. */
async function withAnswer(
  answer: { status: number; text: string },
  work: (socket: string) => Promise<void>,
): Promise<void> {
  await withDirectory(async (directory) => {
    const socket = join(directory, 'socket');
    const server = createServer((_, response) => response.writeHead(answer.status).end(answer.text));
    await new Promise<void>((resolve) => server.listen(socket, resolve));
    try {
      await work(socket);
    } finally {
      await new Promise((resolve) => server.close(resolve));
    }
  });
}

exits('overlayadm: each code, whatever the daemon fails with', async () => {
  const answers: [errno: string, code: number][] = [
    ['EINVAL', 1],
    ['ENODEV', 1],
    ['ECONNREFUSED', 1],
    ['EWHATEVER', 1],
    ['ENOENT', 3],
    ['EEXIST', 4],
    ['EBUSY', 4],
    ['EPERM', 5],
    ['EACCES', 5],
    ['ETIME', 7],
  ];
  const seen = new Set<number>();
  for (const [errno, code] of answers) {
    const text = JSON.stringify({
      error: { errno, code: 'a_code', message: 'it rains', details: ['mtu: wet'] },
    });
    await withAnswer({ status: 500, text }, async (socket) => {
      const ended = await run(CLI, '-S', socket, 'delete-overlay', 'ov0');
      assert.equal(ended, { status: code, stdout: '', stderr: 'overlayadm: it rains\n  mtu: wet\n' }, errno);
      seen.add(code);
    });
  }
  await withAnswer({ status: 200, text: '<html>' }, async (socket) => {
    const ended = await run(CLI, '-S', socket, 'show-overlay');
    assert.equal([ended.status, ended.stdout], [1, '']);
    assert.match(ended.stderr, /is not overlayd \(HTTP 200\)/);
  });
  await withAnswer({ status: 200, text: '{"version":1,"overlays":{}}' }, async (socket) => {
    seen.add((await run(CLI, '-S', socket, 'show-overlay')).status!);
    seen.add((await run(CLI, '-S', socket, 'show-overlay', '-p')).status!);
    seen.add((await run(CLI, '-S', socket, 'show-overlay', '-o', 'colour')).status!);
  });
  seen.add((await run(CLI, '-S', '/nonexistent/socket', 'show-overlay')).status!);
  const documented = Object.keys(exitCodes).map(Number);
  assert.equal(
    [...seen].toSorted((a, b) => a - b),
    documented,
    'each that is documented, and no other',
  );
  assert.is(exitCodeOf({ errno: 'ETIME', code: 'daemon_silent' }), 7);
});

exits('overlayadm: 7 when the daemon hangs up on a request, 6 when there is none', () =>
  withDirectory(async (directory) => {
    const socket = join(directory, 'socket');
    const server = createServer((request) => request.socket.destroy());
    await new Promise<void>((resolve) => server.listen(socket, resolve));
    const ended = await run(CLI, '-S', socket, 'delete-overlay', 'ov0');
    await new Promise((resolve) => server.close(resolve));
    assert.is(ended.status, 7);
    assert.match(ended.stderr, /hung up before it answered: see whether it has done/);
    assert.is((await run(CLI, '-S', socket, 'delete-overlay', 'ov0')).status, 6);
  }),
);

exits('the codes are in the help and in the README', async () => {
  const { status, stdout } = await run(CLI, '--help');
  assert.is(status, 0);
  const readme = readFileSync(join(import.meta.dirname, '../../README.md'), 'utf8').replaceAll(/\s+/g, ' ');
  for (const [code, meaning] of Object.entries(exitCodes)) {
    assert.ok(stdout.includes(`${code} ${meaning}`), `${code} in the help`);
    assert.match(
      readme,
      new RegExp(`\\b${code} ${meaning.split(',')[0]!.split(' ')[0]}`),
      `${code} in the README`,
    );
  }
});

exits('overlayd: 0 with a good configuration, 1, 2 and 8', () =>
  withDirectory(async (directory) => {
    const file = join(directory, 'overlayd.yaml');
    const state = join(directory, 'file');
    writeFileSync(state, '');
    writeFileSync(file, 'workers: 1\n');
    const daemon = async (...flags: string[]) => (await run(DAEMON, '--config', file, ...flags)).status;
    assert.is(await daemon('--test'), 0);
    assert.is(await daemon('--state-dir', state), 1);
    assert.is(await daemon('--nope'), 2);
    writeFileSync(file, 'workers: none\n');
    assert.is(await daemon('--test'), 8);
    assert.is(await daemon(), 8);
  }),
);

exits('every command has a JSON document with its version', () =>
  withRig(async ({ socket, memory, directory }) => {
    withVnics(memory);
    const port = await freePort('127.0.0.1');
    const properties = `vxlan/listen_ip=127.0.0.1,vxlan/listen_port=${port}`;
    const direct = `${properties},direct/dest_ip=127.0.0.2,direct/dest_port=4789`;
    const create = (name: string, search: string, vnetid: string, props: string) => [
      'create-overlay',
      ...['-e', 'vxlan', '-s', search, '-v', vnetid, '-p', props, name],
    ];
    const help = await run(CLI, '--help');
    const commands = [...help.stdout.matchAll(/^ {2}([a-z]+(?:-[a-z]+)?) \[/gm)].map((match) => match[1]!);
    const calls: [args: string[], keys: string[]][] = [
      [create('ov0', 'direct', '1', direct), ['version']],
      [create('ov1', 'external', '2', properties), ['version']],
      [['modify-overlay', '-f', 'ov1'], ['version']],
      [['set-prop', '-p', 'vnetid=7,mtu=1300', 'ov0'], ['version']],
      [
        ['status'],
        [
          'version',
          'status',
          'counts',
          'faults',
          'devices',
          'workers',
          'retained',
          'memory',
          'pid',
          'uptime',
          'event',
          'control',
          'next',
        ],
      ],
      [['show-overlay'], ['version', 'overlays']],
      [
        ['show-overlay', '-f'],
        ['version', 'overlays'],
      ],
      [
        ['show-overlay', '-t'],
        ['version', 'overlays'],
      ],
      [
        ['create-vnic', '-l', 'ov1', 'v0'],
        ['version', 'vnic', 'link_taken_up'],
      ],
      [['show-vnic'], ['version', 'vnics']],
      [['delete-vnic', 'v0'], ['version']],
      [['show-stats'], ['version', 'meanings', 'overlays', 'muxes', 'workers', 'control', 'next']],
      [['delete-overlay', 'ov0'], ['version']],
      [['tidy'], ['version', 'deleted', 'left']],
      [
        ['create-plugin', 'my-lookup', join(directory, 'plugin')],
        ['version', 'files'],
      ],
    ];
    for (const [args, keys] of calls) {
      if (args[0] === 'modify-overlay') await memory.overlay.associate('ov1', { mode: 'dynamic' });
      const { status, stdout, stderr } = await run(CLI, '-S', socket, ...args, '--json');
      assert.equal([status, stderr], [0, ''], args.join(' '));
      const document = JSON.parse(stdout);
      assert.equal([document.version, Object.keys(document)], [1, keys], args.join(' '));
    }
    assert.equal(
      commands.filter((command) => !calls.some(([[name]]) => name === command)),
      // Each line of events is a document.
      ['events', 'help'],
      'no other command is left out',
    );
    assert.ok(commands.length >= 6, commands.join(' '));
  }),
);

exits.run();
