/** Files that are opened by name: only what root or our own user has put there, and no wait for a pipe. */
import { execFileSync, spawnSync } from 'node:child_process';
import {
  chmodSync,
  chownSync,
  constants,
  existsSync,
  mkdirSync,
  mkdtempSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { takeLinks } from '../src/daemon/handover.js';
import { OverlayError } from '../src/errors.js';
import { StateStore } from '../src/state/store.js';
import { lockDirectory } from '../src/sys/lock.js';
import { openTrusted, openTrustedAside } from '../src/sys/trusted-file.js';
import { resolveModule } from '../src/varpd/remote/resolve.js';
import { testWith } from './harness/needs.js';

const openFiles = suite('files opened by name');
const DAEMON = join(import.meta.dirname, '../src/daemon/main.js');
const SOMEBODY = 64_001;

/** Runs the work in a directory of root's. */
async function inDirectory(work: (directory: string) => void | Promise<void>): Promise<void> {
  const directory = mkdtempSync(join(tmpdir(), 'overlayd-open-'));
  try {
    await work(directory);
  } finally {
    rmSync(directory, { recursive: true });
  }
}

function messageOf(work: () => unknown): string {
  try {
    work();
  } catch (error) {
    assert.instance(error, OverlayError);
    return (error as OverlayError).message;
  }
  return '';
}

/** How a file is made wrong, and what is said of it. */
const faults: readonly [fault: RegExp, spoil: (path: string, directory: string) => void][] = [
  [
    /it is a symbolic link; put the file itself there/,
    (path, directory) => symlinkSync(join(directory, 'elsewhere'), path),
  ],
  [/it is not a regular file/, (path) => execFileSync('mkfifo', [path])],
  [/it is not a regular file/, (path) => mkdirSync(path)],
  [/it is not a regular file/, (path) => execFileSync('mknod', [path, 'c', '1', '5'])],
  [
    /it belongs to user 64001; let it belong to root or user 0 \(chown\)/,
    (path) => {
      writeFileSync(path, '{}');
      chownSync(path, SOMEBODY, SOMEBODY);
    },
  ],
  ...[0o666, 0o660, 0o602].map((mode): [RegExp, (path: string) => void] => [
    /its group or others may write it; take that from them \(chmod go-w\)/,
    (path) => {
      writeFileSync(path, '{}');
      chmodSync(path, mode);
    },
  ]),
];

testWith(openFiles, ['root'], 'each fault has its sentence, and nothing waits', () =>
  inDirectory(async (directory) => {
    for (const [fault, spoil] of faults) {
      const path = join(directory, 'file');
      spoil(path, directory);
      const text = messageOf(() => openTrusted(path, constants.O_RDONLY));
      assert.match(text, fault);
      assert.ok(text.startsWith(`${path} is not used: `), text);
      await openTrustedAside(path, constants.O_RDONLY).then(
        () => assert.unreachable(),
        (error: Error) => assert.is(error.message, text),
      );
      rmSync(path, { recursive: true });
    }
    writeFileSync(join(directory, 'good'), 'x', { mode: 0o644 });
    openTrusted(join(directory, 'good'), constants.O_RDONLY);
  }),
);

testWith(openFiles, ['root'], 'the lock: no link makes a file elsewhere', () =>
  inDirectory((directory) => {
    for (const [fault, spoil] of faults.filter(([text]) => !/regular/.test(text.source))) {
      const path = join(directory, 'lock');
      spoil(path, directory);
      assert.match(
        messageOf(() => lockDirectory(directory)),
        fault,
      );
      assert.not.ok(existsSync(join(directory, 'elsewhere')));
      rmSync(path);
    }
    lockDirectory(directory)();
  }),
);

testWith(openFiles, ['root'], 'the state directory and what is in it belong to nobody else', () =>
  inDirectory((directory) => {
    chmodSync(directory, 0o777);
    assert.match(
      messageOf(() => lockDirectory(directory)),
      /its group or others may write it/,
    );
    chmodSync(directory, 0o700);
    chownSync(directory, SOMEBODY, SOMEBODY);
    assert.match(
      messageOf(() => lockDirectory(directory)),
      /it belongs to user 64001/,
    );
    chownSync(directory, 0, 0);
    mkdirSync(join(directory, 'elsewhere'), { mode: 0o755 });
    symlinkSync(join(directory, 'elsewhere'), join(directory, 'devices'));
    assert.match(
      messageOf(() => StateStore.open(directory)),
      /devices is not used: it is a symbolic link/,
    );
  }),
);

testWith(openFiles, ['root'], 'a module that others may write is not loaded; one of anybody is', () =>
  inDirectory((directory) => {
    const path = join(directory, 'plugin.mjs');
    writeFileSync(path, '');
    chownSync(path, SOMEBODY, SOMEBODY);
    assert.is(resolveModule(path, directory).kind, 'file');
    chmodSync(path, 0o666);
    assert.match(
      messageOf(() => resolveModule(path, directory)),
      /its group or others may write it/,
    );
  }),
);

openFiles('a hand-over from a descriptor that is no file: refused, without a wait', () => {
  process.env.OVERLAYD_LINKS = '999999';
  assert.match(messageOf(takeLinks), /OVERLAYD_LINKS=999999 names no links/);
});

testWith(openFiles, ['root'], 'the configuration: exit code 8 and one sentence for each fault', () =>
  inDirectory((directory) => {
    for (const [fault, spoil] of faults.filter(([text]) => !/symbolic/.test(text.source))) {
      const path = join(directory, 'overlayd.yaml');
      spoil(path, directory);
      const { status, stderr } = spawnSync(process.execPath, [DAEMON, '--test', '--config', path], {
        encoding: 'utf8',
      });
      assert.is(status, 8, stderr);
      assert.match(stderr, fault);
      assert.is(stderr.trim().split('\n').length, 1, stderr);
      rmSync(path, { recursive: true });
    }
  }),
);

openFiles.run();
