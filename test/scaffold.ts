/** `overlayadm create-plugin`: what it writes compiles, passes its own test, and is loaded. */
import { execFileSync } from 'node:child_process';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { createPlugin } from '../src/cli/scaffold.js';
import { silent } from '../src/log.js';
import { loadRemotePlugin } from '../src/varpd/remote.js';
import { assertRefused } from './harness/memory-overlay.js';

const scaffold = suite('create-plugin');
const root = resolve(import.meta.dirname, '../..');
let folder = '';

scaffold.before.each(() => {
  folder = mkdtempSync(join(tmpdir(), 'overlayd-scaffold-'));
});

scaffold.after.each(() => {
  rmSync(folder, { recursive: true });
});

const tree = (directory: string) => readdirSync(directory, { recursive: true, encoding: 'utf8' }).sort();

/** Runs a program of the repository's in a directory; its output is in the error when it fails. */
function run(directory: string, program: string, ...args: string[]): string {
  return execFileSync(program, args, { cwd: directory, encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] });
}

/** As `npm install` would leave it. */
function install(directory: string): void {
  mkdirSync(join(directory, 'node_modules'));
  symlinkSync(root, join(directory, 'node_modules/overlayd'));
  for (const name of ['@types', 'undici-types']) {
    const from = join(root, 'node_modules', name);
    if (existsSync(from)) symlinkSync(from, join(directory, 'node_modules', name));
  }
}

scaffold('it compiles, passes its own test, is loaded by path and by name, and answers', async () => {
  const directory = join(folder, 'new', 'my-lookup');
  const written = createPlugin('my-lookup', directory);
  assert.equal(
    written.map((path) => path.slice(directory.length + 1)),
    ['src/index.ts', 'test/index.ts', 'README.md', 'package.json', 'tsconfig.json', '.gitignore'],
  );
  assert.equal(
    tree(directory),
    ['src', 'test', ...written.map((path) => path.slice(directory.length + 1))].sort(),
  );
  install(directory);
  const manifest = JSON.parse(readFileSync(join(directory, 'package.json'), 'utf8'));
  assert.is(manifest.scripts.test, 'tsc && node --test dist/test/index.js');
  try {
    run(directory, process.execPath, join(root, 'node_modules/typescript/bin/tsc'));
    const report = run(directory, process.execPath, '--test', '--test-reporter=tap', 'dist/test/index.js');
    assert.match(report, /# pass 2\n# fail 0/);
  } catch (error) {
    const { stdout, stderr } = error as { stdout?: string; stderr?: string };
    throw new Error(`${error}\n${stdout}\n${stderr}`);
  }
  // Where it is installed, too.
  const host = join(folder, 'host');
  mkdirSync(join(host, 'node_modules'), { recursive: true });
  symlinkSync(directory, join(host, 'node_modules/my-lookup'));
  for (const specifier of [directory, 'my-lookup']) {
    const plugin = await loadRemotePlugin(specifier, { log: silent, directory: host });
    try {
      assert.equal([plugin.name, plugin.mode], ['my-lookup', 'dynamic']);
      const instance = plugin.create(6);
      const said: string[] = [];
      const ignore = () => {};
      await instance.start({
        overlay: 'ov0',
        vnetid: 42n,
        set: ignore,
        invalidate: ignore,
        invalidateAll: ignore,
        gratuitousArp: ignore,
        peersChanged: ignore,
        degrade: ignore,
        restore: ignore,
        log: (level, message) => said.push(`${level} ${message}`),
      });
      const request = { id: '1', overlay: 'ov0', vnetid: 42n, source: '02:08:20:00:00:09' };
      const rest = {
        kind: 'unicast',
        isDhcp: false,
        etherType: 0x0800,
        vlan: 0,
        headerBytes: 14,
        payloadBytes: 46,
      } as const;
      const lookup = (destination: string) => instance.lookup!({ ...request, ...rest, destination });
      assert.equal(await lookup('02:08:20:00:00:01'), { ip: '192.0.2.1', port: 4789 });
      assert.is(await lookup('02:08:20:00:00:02'), 'unknown');
      assert.equal(said, ['info knows 1 hosts']);
      await instance.stop();
    } finally {
      await plugin.close();
    }
  }
});

scaffold('the plugin is at most 20 lines of code', () => {
  createPlugin('short', join(folder, 'short'));
  const source = readFileSync(join(folder, 'short/src/index.ts'), 'utf8');
  const code = source.replace(/\/\*\*[\s\S]*?\*\//g, '').split('\n');
  const lines = code.map((line) => line.trim()).filter((line) => line !== '' && !line.startsWith('//'));
  assert.ok(lines.length <= 20, `${lines.length} lines`);
});

scaffold('a name with a scope; the current directory', () => {
  const directory = join(folder, 'empty');
  mkdirSync(directory);
  createPlugin('@some.scope/nice_lookup-2', directory);
  assert.is(
    JSON.parse(readFileSync(join(directory, 'package.json'), 'utf8')).name,
    '@some.scope/nice_lookup-2',
  );
  assert.match(readFileSync(join(directory, 'src/index.ts'), 'utf8'), /name: 'nice_lookup-2',/);
});

scaffold('names that no plugin or package can have', async () => {
  const bad = [
    '',
    'My-Lookup',
    'a b',
    'a/b',
    '../x',
    '@scope',
    '@scope/',
    '@/x',
    '.x',
    '_x',
    '-x',
    "x'",
    'x`',
    'ü',
    'x\n',
    'fs',
    'node_modules',
    'overlayd',
    'direct',
    '@scope/files',
    'x'.repeat(32),
    `@${'s'.repeat(220)}/x`,
  ];
  for (const name of bad) {
    await assertRefused(() => createPlugin(name, join(folder, 'x')), 'EINVAL', 'bad_plugin_name');
    assert.equal(tree(folder), [], name);
  }
  createPlugin('x'.repeat(31), join(folder, 'x'));
});

scaffold('a directory that is not empty, or is a file, is left as it is', async () => {
  writeFileSync(join(folder, 'file'), 'mine');
  for (const directory of [folder, join(folder, 'file')]) {
    await assertRefused(() => createPlugin('x', directory), 'EEXIST', 'directory_not_empty');
  }
  assert.equal(tree(folder), ['file']);
  assert.is(readFileSync(join(folder, 'file'), 'utf8'), 'mine');
});

scaffold('nothing is left when it cannot be written', async () => {
  writeFileSync(join(folder, 'file'), 'mine');
  await assertRefused(() => createPlugin('x', join(folder, 'file/below')), 'ENOTDIR', 'plugin_not_written');
  const long = join(folder, 'made', 'y'.repeat(255), 'z'.repeat(256));
  await assertRefused(() => createPlugin('x', long), 'ENAMETOOLONG', 'plugin_not_written');
  // So deep that the directory can be made, and its files cannot.
  const deep = 'd'.repeat(200);
  let directory = folder;
  while (directory.length + 201 + 'src/index.ts'.length < 4094) directory = join(directory, deep);
  directory = join(directory, 'e'.repeat(4094 - 'src/index.ts'.length - directory.length));
  await assertRefused(() => createPlugin('x', directory), 'ENAMETOOLONG', 'plugin_not_written');
  assert.equal(tree(folder), ['file']);
});

scaffold.run();
