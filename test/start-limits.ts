/** Starts with few descriptors, little address space and no place for the log: one sentence each, and no stack. */
import { spawn, spawnSync } from 'node:child_process';
import { closeSync, constants, mkdtempSync, openSync, rmSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { checkLimits } from '../src/daemon/limits.js';
import { LogStream } from '../src/daemon/log-stream.js';
import { isOverWithin } from '../src/sys/clock.js';
import { until } from './harness/hosts.js';
import { testWith } from './harness/needs.js';

const limits = suite('limits at the start');
const DAEMON = join(import.meta.dirname, '../src/daemon/main.js');
const CLI = join(import.meta.dirname, '../src/cli/main.js');

/** Runs a program with limits; its exit code, and the lines that it says. */
function run(program: string, flags: readonly string[], prlimit: readonly string[]) {
  const { status, signal, stderr } = spawnSync('prlimit', [...prlimit, process.execPath, program, ...flags], {
    encoding: 'utf8',
  });
  return { status, signal, lines: stderr.trim().split('\n') };
}

for (const files of [40, 64, 75, 100, 127]) {
  testWith(limits, ['root'], `the daemon with ${files} files: one sentence, exit code 1`, () => {
    const { status, lines } = run(DAEMON, [], [`--nofile=${files}:${files}`]);
    assert.equal([status, lines.length], [1, 1], lines.join('\n'));
    assert.match(lines[0]!, /^overlayd: at most \d+ files may be open, .*raise the hard limit/);
  });
}

for (const files of [20, 24]) {
  testWith(limits, [], `overlayadm with ${files} files: one sentence, exit code 1`, () => {
    const flags = ['-S', '/nowhere', 'status'];
    const { status, lines } = run(CLI, flags, [`--nofile=${files}:${files}`]);
    assert.equal([status, lines.length], [1, 1], lines.join('\n'));
    assert.match(lines[0]!, /^overlayadm: the program cannot be loaded .*raise the limit of open files/);
  });
}

for (const mebibytes of [850, 1200, 3000, 8000, 12_000]) {
  testWith(limits, ['root'], `the daemon with ${mebibytes} MiB of address space: one sentence`, () => {
    const { status, signal, lines } = run(DAEMON, [], [`--as=${mebibytes * 2 ** 20}`]);
    assert.equal([status, signal, lines.length], [1, null, 1], lines.join('\n'));
    assert.match(lines[0]!, /^overlayd: the address space \(RLIMIT_AS\) may be \d+ MiB.*ulimit -v unlimited/);
  });
}

limits('more threads need more address space', () => {
  const addressBytesMax = 14 * 2 ** 30;
  checkLimits({ descriptorsMax: undefined, addressBytesMax }, 2);
  assert.throws(() => checkLimits({ descriptorsMax: undefined, addressBytesMax }, 4), /address space/);
});

/** What each standard descriptor is, as a redirection of the shell; the program's words follow as its arguments. */
for (const redirections of ['<&-', '2>&-', '>&- 2>&-', '<&- >&- 2>&-', '2>/dev/full', '2>/dev/null']) {
  testWith(
    limits,
    ['root', '/dev/net/tun'],
    `standard descriptors ${redirections}: it starts and ends`,
    async () => {
      const directory = mkdtempSync(join(tmpdir(), 'overlayd-limits-'));
      const socket = join(directory, 'socket');
      const flags = [
        '--socket',
        socket,
        '--state-dir',
        join(directory, 'state'),
        '--workers',
        '1',
        '--memory',
        '64M',
      ];
      const words = ['unshare', '-n', process.execPath, DAEMON, ...flags];
      const child = spawn('sh', ['-c', `exec "$@" ${redirections}`, 'sh', ...words], { stdio: 'ignore' });
      const ended = new Promise<unknown>((resolve) => child.once('exit', (...how) => resolve(how)));
      try {
        for (;;) {
          if (child.exitCode !== null || child.signalCode !== null) break;
          if (run(CLI, ['-S', socket, 'status'], []).status === 0) break;
        }
        child.kill('SIGTERM');
        assert.equal(await ended, [0, null]);
      } finally {
        rmSync(directory, { recursive: true });
      }
    },
  );
}

testWith(
  limits,
  ['root', '/dev/net/tun'],
  'nobody reads the log and its pipe is full: it starts and ends',
  async () => {
    const directory = mkdtempSync(join(tmpdir(), 'overlayd-limits-'));
    const fifo = join(directory, 'log');
    spawnSync('mkfifo', [fifo]);
    const log = openSync(fifo, constants.O_RDWR | constants.O_NONBLOCK);
    try {
      for (;;) writeSync(log, Buffer.alloc(4096));
    } catch {
      // Full.
    }
    const socket = join(directory, 'socket');
    const flags = [
      '--socket',
      socket,
      '--state-dir',
      join(directory, 'state'),
      '--workers',
      '1',
      '--memory',
      '64M',
    ];
    const words = ['unshare', '-n', process.execPath, DAEMON, ...flags];
    const child = spawn('sh', ['-c', 'exec "$@" 2<>"$0"', fifo, ...words], { stdio: 'ignore' });
    const ended = new Promise<unknown>((resolve) => child.once('exit', (...how) => resolve(how)));
    try {
      const isUp = () => run(CLI, ['-S', socket, 'status'], []).status === 0;
      await until('it serves', 30_000, isUp);
      child.kill('SIGTERM');
      assert.ok(await isOverWithin(ended, 15_000), 'it ends');
      assert.equal(await ended, [0, null]);
    } finally {
      child.kill('SIGKILL');
      closeSync(log);
      rmSync(directory, { recursive: true });
    }
  },
);

limits('lines that nobody takes are counted, and never thrown', () => {
  const full = openSync('/dev/full', 'w');
  const stream = new LogStream(full);
  for (let turn = 0; turn < 3; turn++) stream.write('line\n');
  closeSync(full);
  stream.write('line\n');
  assert.is(stream.lost, 4);
});

limits.run();
