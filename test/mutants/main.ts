/**
 * Plants each fault of `list.ts` into a copy of the build and runs the tests that must notice it: `npm run mutants [part of what the
 * fault does ...]`. A fault that no test notices, or that has no place in the build any more, is a failure.
 */
import { spawn } from 'node:child_process';
import { cpSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { type Mutant, mutants } from './list.js';

const root = resolve(import.meta.dirname, '../../..');
const folder = mkdtempSync(join(tmpdir(), 'overlayd-mutants-'));
const FILE_SECONDS = '200';
const KILLED = 'killed';
/** Most of a test is waiting. */
const LANES = 3;

/** Where a text is once, without regard to white space; undefined when it is not. */
function placeOf(source: string, text: string): { at: number; length: number } | undefined {
  const words = text.split(/\s+/).map((word) => word.replace(/[.*+?^${}()|[\]\\]/g, '\\$&'));
  const found = [...source.matchAll(new RegExp(words.join('\\s+'), 'g'))];
  return found.length === 1 ? { at: found[0]!.index, length: found[0]![0].length } : undefined;
}

/** Names of the tests that fail in a copy; undefined when none does. */
function failure(copy: string, tests: readonly string[]): Promise<string | undefined> {
  const args = ['--enable-source-maps', join(copy, 'dist/test/run.js'), ...tests];
  // One that hangs is noticed as well: the run ends it.
  const env = { ...process.env, FILE_SECONDS };
  const child = spawn(process.execPath, args, { env, stdio: ['ignore', 'pipe', 'inherit'] });
  let output = '';
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    output += text;
  });
  return new Promise((resolve) =>
    child.once('close', (code) => {
      if (code === 0) return resolve(undefined);
      const names = [...output.matchAll(/^ *FAIL +\S+ +(.*)$/gm)].map((match) => match[1]);
      resolve(names.length > 0 ? names.join('; ') : 'a file that ends before it reports');
    }),
  );
}

async function verdict(copy: string, { file, from, to, tests }: Mutant): Promise<string> {
  const path = join(copy, 'dist', file);
  const source = readFileSync(path, 'utf8');
  const place = placeOf(source, from);
  if (!place) return 'HAS NO PLACE';
  writeFileSync(path, source.slice(0, place.at) + to + source.slice(place.at + place.length));
  try {
    const failed = await failure(copy, tests);
    return failed === undefined ? 'SURVIVED' : `${KILLED} by ${failed}`;
  } finally {
    writeFileSync(path, source);
  }
}

const wanted = process.argv.slice(2);
const chosen = mutants.filter(
  ({ what }) => wanted.length === 0 || wanted.some((part) => what.includes(part)),
);
const copies = Array.from({ length: LANES }, (_, lane) => join(folder, `${lane}`));
let left = 0;
try {
  for (const copy of copies) {
    cpSync(join(root, 'dist'), join(copy, 'dist'), { recursive: true });
    cpSync(join(root, 'package.json'), join(copy, 'package.json'));
    symlinkSync(join(root, 'node_modules'), join(copy, 'node_modules'));
  }
  const failed = await failure(copies[0]!, [...new Set(chosen.flatMap(({ tests }) => tests))]);
  if (failed !== undefined) throw new Error(`without a fault, too: ${failed}`);
  const waiting = [...chosen];
  const run = async (copy: string) => {
    for (let mutant = waiting.shift(); mutant; mutant = waiting.shift()) {
      const result = await verdict(copy, mutant);
      if (!result.startsWith(KILLED)) left++;
      console.log(`${mutant.file}: ${mutant.what}: ${result}`);
    }
  };
  await Promise.all(copies.map(run));
} finally {
  rmSync(folder, { recursive: true });
}
console.log(`\n${chosen.length - left} of ${chosen.length} faults are noticed`);
process.exit(left > 0 ? 1 : 0);
