/** The C programs of the benches, compiled once a run. */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const sources = join(import.meta.dirname, '../../bench');
const built = new Map<string, string>();
let folder: string | undefined;

/**
 * Path of the program made of `bench/NAME.c`; it goes when this process ends. Throws what gcc says.
 * @param name without `.c`
 */
export function compile(name: string): string {
  if (folder === undefined) {
    const made = mkdtempSync(join(tmpdir(), 'overlayd-bench-'));
    process.once('exit', () => rmSync(made, { recursive: true, force: true }));
    folder = made;
  }
  const program = built.get(name) ?? join(folder, name);
  if (!built.has(name)) {
    execFileSync('gcc', ['-O3', '-pthread', '-o', program, join(sources, `${name}.c`)]);
    built.set(name, program);
  }
  return program;
}
