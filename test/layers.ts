/** Import arrows go down only. The table is the design's; a broken arrow fails with the reason. */
import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';

const layers = suite('import layers');
const root = join(import.meta.dirname, '../..');

interface Room {
  readonly layer: number;
  readonly path: RegExp;
  readonly why: string;
}

/** The first row that matches a file is its room. */
const rooms: readonly Room[] = [
  { layer: 0, path: /^assembly\/layout\.ts$/, why: 'it is numbers only and imports nothing' },
  {
    layer: 1,
    path: /^src\/(property|offload|limits|errors|log|ip|serial|keyed-queue|fair-queue)\.ts$/,
    why: 'values without the system',
  },
  { layer: 2, path: /^src\/sys\//, why: 'the only FFI and the only clock; it knows nothing of overlays' },
  { layer: 3, path: /^src\/(encap|target)\//, why: 'pure state, no I/O, no timers' },
  { layer: 3, path: /^src\/state\//, why: 'files and records, below whatever is kept in them' },
  {
    layer: 4,
    path: /^(src\/datapath|workers)\//,
    why: 'the data path must outlive control: it knows nothing of it',
  },
  {
    layer: 5,
    path: /^src\/(device|mux|groups|fma|events)\.ts$/,
    why: 'devices and underlays, below the operations on them',
  },
  { layer: 6, path: /^src\/varpd\//, why: 'varpd knows plugin interfaces and state, not the operations' },
  { layer: 7, path: /^src\/overlay(\/.*)?(\.ts)?$/, why: 'the operations, below their API' },
  { layer: 8, path: /^src\/control\//, why: 'the API, below the programs' },
  { layer: 9, path: /^src\/(daemon|cli|demo)\/|^src\/index\.ts$/, why: 'the programs' },
];

function filesBelow(folder: string): string[] {
  return readdirSync(join(root, folder), { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith('.ts') && !name.endsWith('.d.ts'))
    .map((name) => `${folder}/${name}`);
}

function importsOf(file: string): string[] {
  const text = readFileSync(join(root, file), 'utf8');
  const specifiers = [...text.matchAll(/(?:from|import)\s+'([^']+)'/g)].map((match) => match[1]!);
  return specifiers
    .filter((specifier) => specifier.startsWith('.'))
    .map((specifier) => relative(root, join(root, dirname(file), specifier)).replace(/\.js$/, '.ts'));
}

function roomOf(file: string): Room | undefined {
  return rooms.find(({ path }) => path.test(file));
}

/** Every arrow that points up, in words. */
export function upwardArrows(files: readonly string[], importsOfFile: (file: string) => string[]): string[] {
  return files.flatMap((file) => {
    const from = roomOf(file);
    if (!from) return [`${file} is in no room: add it to the table in test/layers.ts`];
    return importsOfFile(file).flatMap((target) => {
      const to = roomOf(target);
      if (!to) return [`${file} imports ${target}, which is in no room`];
      if (to.layer <= from.layer) return [];
      return [`${file} (layer ${from.layer}) imports ${target} (layer ${to.layer}): ${from.why}`];
    });
  });
}

const sources = [...filesBelow('src'), ...filesBelow('workers'), 'assembly/layout.ts'];

layers('arrows go down only', () => {
  assert.ok(sources.length > 40, `${sources.length} files were looked at`);
  assert.equal(upwardArrows(sources, importsOf), []);
});

layers('a broken arrow is found and explained', () => {
  const broken = upwardArrows(['src/sys/tap.ts'], () => ['src/overlay.ts']);
  assert.is(broken.length, 1);
  assert.match(broken[0]!, /layer 2.*layer 7.*only FFI/);
});

layers('the CLI uses of the API its client and its types alone', () => {
  for (const file of filesBelow('src/cli')) {
    const used = importsOf(file).filter((target) => target.startsWith('src/control/'));
    const other = used.filter((target) => !/^src\/control\/(client|view|status)\.ts$/.test(target));
    assert.equal(other, [], `${file}: it must start fast and hold no daemon code`);
  }
});

layers('koffi is imported below src/sys alone', () => {
  for (const file of sources) {
    const uses = /from 'koffi'/.test(readFileSync(join(root, file), 'utf8'));
    if (uses) assert.match(file, /^src\/sys\//, `${file}: the FFI has one door`);
  }
});

layers('waits for workers go through one place', () => {
  // These wait for something else than to free it: before a change, for the rings of one device, for a round of targets.
  const others = ['src/overlay/deletion.ts', 'src/overlay/setprop.ts', 'src/overlay/targets.ts'];
  const calls = sources.filter(
    (file) =>
      !file.startsWith('src/datapath/') &&
      /\b(engine|workers)\.quiesce\(/.test(readFileSync(join(root, file), 'utf8')),
  );
  assert.equal(calls.sort(), others, 'to free something call engine.retire, which never throws');
});

layers('the core imports only the core', () => {
  for (const file of filesBelow('assembly')) {
    for (const match of readFileSync(join(root, file), 'utf8').matchAll(/from '([^']+)'/g)) {
      const target = relative(root, join(root, dirname(file), match[1]!));
      assert.match(target, /^assembly\//, `${file} imports ${match[1]}: it is compiled apart`);
    }
  }
});

layers.run();
