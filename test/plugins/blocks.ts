/** Blocks its thread with the first lookup, in what nobody can break off; `at` says in what. */
import { execFileSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { dynamic } from './make.js';

/** `ways` are made by the test in the directory that the property names: `WAY:DIRECTORY`. */
const ways: Readonly<Record<string, (directory: string) => unknown>> = {
  fifo: (directory) => readFileSync(join(directory, 'fifo')),
  child: (directory) => execFileSync('sh', ['-c', 'echo $$ > child; exec sleep 1000'], { cwd: directory }),
  // Another process has the lock.
  flock: (directory) =>
    execFileSync('sh', ['-c', 'echo $$ > child; exec flock locked true'], { cwd: directory }),
  engine: () => {
    for (;;) new Array(2 ** 28).fill(1.5);
  },
  memory: () => {
    const kept: unknown[] = [];
    for (;;) kept.push(new Array(1000).fill(1));
  },
};

export const plugin = dynamic('blocks', (at) => ({
  lookup: () => {
    const [way = '', directory = ''] = at().split(':');
    writeFileSync(join(directory, 'blocked'), '');
    ways[way]?.(directory);
    return 'drop';
  },
}));
