/**
 * The store when it is killed, or refused, at any system call on its files: strace stands in for the crash and for the
 * broken disk. Whatever happens, what is loaded afterwards is what was kept before or what was to be kept.
 */
import { spawn } from 'node:child_process';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import type { TargetRecord } from '../src/state/record.js';
import { StateStore } from '../src/state/store.js';
import { testWith } from './harness/needs.js';
import { recordOf, targetsOf } from './harness/state-child.js';

const crash = suite('state: crashes');
const NEEDS = ['strace'];
const child = join(import.meta.dirname, 'harness', 'state-child.js');
/** More than any task makes of one call. */
const CALLS_MAX = 40;

type Task = 'save' | 'create' | 'remove' | 'targets';

/** What is kept of ov0, as the number of its generation, 0 for nothing. */
interface Kept {
  readonly device: number;
  readonly targets: number;
}

/** What there is before a task, and after it. */
const effects: Readonly<Record<Task, readonly [old: Kept, next: Kept]>> = {
  save: [
    { device: 1, targets: 1 },
    { device: 2, targets: 1 },
  ],
  create: [
    { device: 0, targets: 0 },
    { device: 2, targets: 0 },
  ],
  remove: [
    { device: 1, targets: 1 },
    { device: 0, targets: 0 },
  ],
  targets: [
    { device: 1, targets: 1 },
    { device: 1, targets: 2 },
  ],
};

interface Run {
  /** The injection came about. */
  readonly isHit: boolean;
  /** What the program said, undefined when it was killed first. */
  readonly outcome: unknown;
  readonly trace: string;
}

/** Runs a task on a fresh directory under strace, which sees the store's files alone; `inject` as strace has it. */
async function run(
  task: Task,
  inject: string | undefined,
  check: (run: Run, directory: string) => Promise<void>,
) {
  const directory = mkdtempSync(join(tmpdir(), 'overlayd-crash-'));
  try {
    const state = join(directory, 'state');
    mkdirSync(state);
    const store = StateStore.open(state);
    store.save(recordOf(3, 'ov1'));
    if (effects[task][0].device === 1) {
      store.save(recordOf(1));
      await store.saveTargets('ov0', targetsOf(1));
    }
    const trace = join(directory, 'trace');
    const devices = ['', 'ov0.json', '.tmp-ov0.json', '.old-ov0.json', '.gone-ov0.json'];
    const targets = ['', 'ov0', '.tmp-ov0', '.gone-ov0'];
    const paths = [
      ...devices.map((name) => join(state, 'devices', name)),
      ...targets.map((name) => join(state, 'targets', name)),
    ].map((path) => path.replace(/\/$/, ''));
    const calls = 'trace=openat,read,pread64,write,pwrite64,fsync,close,link,linkat,rename,renameat2,unlink';
    const flags = ['-f', '-qq', '-y', '-o', trace, '-e', calls, ...paths.flatMap((path) => ['-P', path])];
    if (inject !== undefined) flags.push('-e', `inject=${inject}`);
    const said = await output('strace', [
      ...flags,
      process.execPath,
      child,
      state,
      task === 'create' ? 'save' : task,
    ]);
    const text = readFileSync(trace, 'utf8');
    const isHit = /\(INJECTED\)|killed by SIGKILL/.test(text);
    await check({ isHit, outcome: said === '' ? undefined : JSON.parse(said), trace: text }, state);
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

function output(program: string, args: readonly string[]): Promise<string> {
  return new Promise((resolve, reject) => {
    // One thread for files, so that strace, which counts for each thread, counts all of their calls.
    const env = { ...process.env, UV_THREADPOOL_SIZE: '1', NODE_OPTIONS: '' };
    const process_ = spawn(program, args, { stdio: ['ignore', 'pipe', 'inherit'], env });
    let said = '';
    process_.stdout.on('data', (text) => {
      said += text;
    });
    process_.on('error', reject);
    process_.on('close', () => resolve(said));
  });
}

async function keptIn(directory: string): Promise<Kept> {
  const store = StateStore.open(directory);
  const { devices, problems } = store.load();
  assert.equal(problems, []);
  const other = devices.find(({ name }) => name === 'ov1');
  assert.equal(other, recordOf(3, 'ov1'), 'the other device is as it was');
  const left = ['devices', 'targets'].flatMap((folder) => readdirSync(join(directory, folder)));
  assert.equal(
    left.filter((name) => !/^ov[01](\.json)?$/.test(name)),
    [],
    'nothing lies about',
  );
  const record = devices.find(({ name }) => name === 'ov0');
  const rows: TargetRecord[] = [];
  for await (const some of store.loadTargets('ov0')) rows.push(...some);
  const which = (matches: (generation: number) => boolean, isNone: boolean) =>
    isNone ? 0 : ([1, 2].find(matches) ?? Number.NaN);
  const same = (one: unknown, other: unknown) => JSON.stringify(one) === JSON.stringify(other);
  return {
    device: which((generation) => same(record, recordOf(generation)), record === undefined),
    targets: which((generation) => same(rows, targetsOf(generation)), rows.length === 0),
  };
}

const tasks = Object.keys(effects) as Task[];
const calls = ['openat', 'write', 'fsync', 'link', 'rename', 'unlink', 'close'];

/** Injects into each call of a kind, one a run, until the program makes no more of them. Returns how many it made. */
async function atEach(
  task: Task,
  call: string,
  inject: string,
  check: (run: Run, directory: string, where: string) => Promise<void>,
): Promise<number> {
  for (let when = 1; when <= CALLS_MAX; when++) {
    let isHit = false;
    const where = `${task}, ${call} ${when}, ${inject}`;
    await run(task, `${call}:${inject}:when=${when}`, async (result, directory) => {
      isHit = result.isHit;
      await check(result, directory, where);
    });
    if (!isHit) return when - 1;
  }
  throw new Error(`${task} makes more than ${CALLS_MAX} calls of ${call}`);
}

for (const task of tasks) {
  testWith(crash, NEEDS, `${task}: killed before each call, old or new is there`, async () => {
    const [old, next] = effects[task];
    const seen = new Set<string>();
    const killsAt = (call: string) =>
      atEach(task, call, 'signal=KILL', async ({ isHit, outcome }, directory, where) => {
        assert.is(outcome === undefined, isHit, where);
        const kept = JSON.stringify(await keptIn(directory));
        assert.ok([old, next].map((one) => JSON.stringify(one)).includes(kept), `${where}: ${kept}`);
        if (!isHit) assert.is(kept, JSON.stringify(next), where);
        else seen.add(kept);
      });
    const kills = (await Promise.all(calls.map(killsAt))).reduce((sum, count) => sum + count, 0);
    assert.ok(kills >= 10, `${kills} kills`);
    assert.is(seen.size, 2, 'killed before and after it counted');
  });

  testWith(crash, NEEDS, `${task}: each call refused, a typed error and the old state`, async () => {
    const [old, next] = effects[task];
    let refusals = 0;
    for (const [errno, refused] of [
      ['EIO', ['openat', 'write', 'fsync', 'link', 'rename', 'close']],
      ['ENOSPC', ['openat', 'write', 'fsync', 'link', 'rename']],
      ['EROFS', ['openat', 'link', 'rename', 'unlink']],
      ['EACCES', ['openat', 'rename']],
    ] as const) {
      const refuse = (call: string) =>
        atEach(task, call, `error=${errno}`, async ({ isHit, outcome, trace }, directory, where) => {
          const kept = await keptIn(directory);
          if (outcome === 'done') {
            // What is only tidied up may fail: the next load does it.
            assert.equal(kept, next, where);
            assert.ok(!isHit || call === 'unlink', `${where}: nobody heard of it`);
            return;
          }
          refusals++;
          const { errno: said, code, message } = outcome as { errno: string; code: string; message: string };
          assert.equal([said, code], [errno, 'state_failed'], where);
          assert.match(
            message,
            /(devices\/ov0\.json|targets\/ov0|devices|targets) cannot be \w+: .{10}.*\(E\w+: /,
          );
          // Targets are in place before their directory is durable: whole, but not acknowledged.
          const isInPlace = task === 'targets' && /rename.* = 0\n/.test(trace);
          assert.equal(kept, isInPlace ? next : old, `${where}: ${message}`);
        });
      await Promise.all(refused.map(refuse));
    }
    assert.ok(refusals >= 15, `${refusals} refusals`);
  });
}

testWith(crash, NEEDS, 'a disk that refuses from some call on: old or new, and a typed error', async () => {
  for (const call of ['fsync', 'rename'] as const) {
    for (let when = 1; when <= 4; when++) {
      await run('save', `${call}:error=EIO:when=${when}+`, async ({ isHit, outcome }, directory) => {
        assert.is(outcome === 'done', !isHit);
        assert.equal(await keptIn(directory), effects.save[isHit ? 0 : 1]);
      });
    }
  }
});

testWith(crash, NEEDS, 'the order of the calls, on which a loss of power depends', async () => {
  const order = (trace: string) =>
    [
      ...trace.matchAll(/^\d+ +(write|fsync|link|rename|unlink)\((.*)\) += 0|^\d+ +(write)\((\d+<[^>]*>)/gm),
    ].map(
      ([, call = 'write', args, , file]) =>
        `${call} ${[...(args ?? file ?? '').matchAll(/[^/"<>, ]+(?=[">])/g)].map(([name]) => name).join(' ')}`,
    );
  await run('save', undefined, async ({ trace }) => {
    assert.equal(order(trace), [
      'write .tmp-ov0.json',
      'fsync .tmp-ov0.json',
      'link ov0.json .old-ov0.json',
      'rename .tmp-ov0.json ov0.json',
      'fsync devices',
      'unlink .old-ov0.json',
    ]);
  });
  await run('remove', undefined, async ({ trace }) => {
    assert.equal(order(trace), [
      'rename ov0 .gone-ov0',
      'fsync targets',
      'rename ov0.json .gone-ov0.json',
      'fsync devices',
      'unlink .gone-ov0.json',
      'unlink .gone-ov0',
    ]);
  });
  await run('targets', undefined, async ({ trace }) => {
    const calls = order(trace);
    assert.ok(calls.length >= 7, `${calls}`);
    assert.equal(new Set(calls.slice(0, -3)), new Set(['write .tmp-ov0']));
    assert.equal(calls.slice(-3), ['fsync .tmp-ov0', 'rename .tmp-ov0 ov0', 'fsync targets']);
  });
});

crash.run();
