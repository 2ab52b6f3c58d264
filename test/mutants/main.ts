/**
 * Plants each fault of `list.ts` into a copy of the build and runs the tests that must notice it: `npm run mutants [part of what the
 * fault does ...]`. A fault that no test notices, or that has no place in the build any more, is a failure.
 */
import { spawnSync } from 'node:child_process';
import { cpSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { type Mutant, mutants } from './list.js';

const root = resolve(import.meta.dirname, '../../..');
const folder = mkdtempSync(join(tmpdir(), 'overlayd-mutants-'));
const RUN_MS_MAX = 300_000;
const SURVIVED = 'SURVIVED';

/** Where a text is once, without regard to white space; undefined when it is not. */
function placeOf(source: string, text: string): { at: number; length: number } | undefined {
  const words = text.split(/\s+/).map((word) => word.replace(/[.*+?^${}()|[\]\\]/g, '\\$&'));
  const found = [...source.matchAll(new RegExp(words.join('\\s+'), 'g'))];
  return found.length === 1 ? { at: found[0]!.index, length: found[0]![0].length } : undefined;
}

/** Names of the tests that fail; undefined when none does. */
function failure(tests: readonly string[]): string | undefined {
  const args = ['--enable-source-maps', join(folder, 'dist/test/run.js'), ...tests];
  // One that hangs is noticed as well: the run ends it.
  const { status, stdout } = spawnSync(process.execPath, args, {
    encoding: 'utf8',
    env: { ...process.env, FILE_SECONDS: '120' },
    timeout: RUN_MS_MAX,
  });
  if (status === 0) return undefined;
  const names = [...stdout.matchAll(/^ *FAIL +(.*)$/gm)].map((match) => match[1]);
  return names.length > 0 ? names.join('; ') : 'a file ends before it reports';
}

function verdict({ file, from, to, tests }: Mutant): string {
  const path = join(folder, 'dist', file);
  const source = readFileSync(path, 'utf8');
  const place = placeOf(source, from);
  if (!place) return 'HAS NO PLACE';
  writeFileSync(path, source.slice(0, place.at) + to + source.slice(place.at + place.length));
  try {
    const failed = failure(tests);
    return failed === undefined ? SURVIVED : `killed by ${failed}`;
  } finally {
    writeFileSync(path, source);
  }
}

const wanted = process.argv.slice(2);
const chosen = mutants.filter(
  ({ what }) => wanted.length === 0 || wanted.some((part) => what.includes(part)),
);
let left = 0;
try {
  cpSync(join(root, 'dist'), join(folder, 'dist'), { recursive: true });
  cpSync(join(root, 'package.json'), join(folder, 'package.json'));
  symlinkSync(join(root, 'node_modules'), join(folder, 'node_modules'));
  const tests = [...new Set(chosen.flatMap((mutant) => mutant.tests))];
  const failed = failure(tests);
  if (failed !== undefined) throw new Error(`without a fault, too: ${failed}`);
  for (const mutant of chosen) {
    const result = verdict(mutant);
    if (!result.startsWith('killed')) left++;
    console.log(`${mutant.file}: ${mutant.what}: ${result}`);
  }
} finally {
  rmSync(folder, { recursive: true });
}
console.log(`\n${chosen.length - left} of ${chosen.length} faults are noticed`);
process.exit(left > 0 ? 1 : 0);
