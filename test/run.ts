/**
 * Runs every test file in a process of its own (a file that leaks a thread or a namespace cannot spoil the next), LANES at
 * a time, since most of them wait for something most of the time, and prints uvu's own counts.
 * `node dist/test/run.js [part of a file name, or the whole of it with .js ...]`.
 */
import { fork } from 'node:child_process';
import { readdirSync } from 'node:fs';
import { join } from 'node:path';

interface Result {
  passed: number;
  failed: number;
  skipped: string[];
}

const folder = import.meta.dirname;
const FILE_SECONDS_MAX = Number(process.env.FILE_SECONDS ?? 300);
const LANES = 2;
/** Those that measure, or that drive the machine to its limit: nothing else runs meanwhile. */
const ALONE = ['bench', 'chaos', 'files-million', 'miss', 'overload'];

function testFiles(wanted: readonly string[]): string[] {
  const names = readdirSync(folder).filter((name) => name.endsWith('.js') && name !== 'run.js');
  const isWanted = (name: string) =>
    wanted.some((part) => (part.endsWith('.js') ? name === part : name.includes(part)));
  return names.filter((name) => wanted.length === 0 || isWanted(name)).sort();
}

/** Runs a file and prints what it printed when it has ended. One that dies before it has reported counts as one failure. */
function runFile(name: string): Promise<Result> {
  return new Promise((resolve) => {
    const begun = process.hrtime.bigint();
    const child = fork(join(folder, 'harness', 'file.js'), [join(folder, name)], {
      execArgv: ['--enable-source-maps', '--expose-gc'],
      stdio: ['ignore', 'pipe', 'pipe', 'ipc'],
    });
    let output = '';
    for (const stream of [child.stdout, child.stderr]) {
      stream?.setEncoding('utf8').on('data', (text: string) => {
        output += text;
      });
    }
    const end = (result: Result, more = '') => {
      const seconds = (Number(process.hrtime.bigint() - begun) / 1e9).toFixed(1);
      console.log(`\n${name.replace(/\.js$/, '')}\n${output}${more}  ${seconds} s`);
      resolve(result);
    };
    const timer = setTimeout(() => child.kill('SIGKILL'), FILE_SECONDS_MAX * 1000);
    let result: Result | undefined;
    child.on('message', (message) => {
      result = message as Result;
    });
    child.on('close', (code, signal) => {
      clearTimeout(timer);
      if (result && code === 0) return end(result);
      const { passed = 0, failed = 0, skipped = [] } = result ?? {};
      const why = `  ${name} ended with ${signal ?? `code ${code}`}${result ? '' : ' before it reported'}\n`;
      end({ passed, failed: Math.max(1, failed), skipped }, why);
    });
  });
}

const totals: Result = { passed: 0, failed: 0, skipped: [] };
const files = testFiles(process.argv.slice(2));
if (files.length === 0) {
  console.log(`no test file matches ${process.argv.slice(2).join(' ')}`);
  totals.failed = 1;
}
const run = async (waiting: string[]) => {
  for (let name = waiting.shift(); name; name = waiting.shift()) {
    const { passed, failed, skipped } = await runFile(name);
    totals.passed += passed;
    totals.failed += failed;
    totals.skipped.push(...skipped);
  }
};
const alone = files.filter((name) => ALONE.includes(name.replace(/\.js$/, '')));
const together = files.filter((name) => !alone.includes(name));
await Promise.all(Array.from({ length: LANES }, () => run(together)));
await run(alone);
if (totals.skipped.length > 0) {
  console.log(`\nNot run here:\n${totals.skipped.map((line) => `  ${line}`).join('\n')}`);
  if (process.env.CI === 'true') {
    console.log('In CI nothing may be skipped.');
    totals.failed += totals.skipped.length;
    totals.skipped = [];
  }
}
const skips = totals.skipped.length > 0 ? `, ${totals.skipped.length} skipped` : '';
console.log(`\n${totals.passed} passed, ${totals.failed} failed${skips}`);
process.exit(totals.failed > 0 ? 1 : 0);
