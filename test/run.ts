/**
 * Runs every test file in a process of its own (a file that leaks a thread or a namespace cannot spoil the next),
 * and prints uvu's own counts. `node dist/test/run.js [part of a file name ...]`.
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
const FILE_SECONDS_MAX = 300;

function testFiles(wanted: readonly string[]): string[] {
  const names = readdirSync(folder).filter((name) => name.endsWith('.js') && name !== 'run.js');
  return names.filter((name) => wanted.length === 0 || wanted.some((part) => name.includes(part))).sort();
}

/** A file that dies before it has reported counts as one failure. */
function runFile(name: string): Promise<Result> {
  return new Promise((resolve) => {
    const child = fork(join(folder, 'harness', 'file.js'), [join(folder, name)], {
      execArgv: ['--enable-source-maps', '--expose-gc'],
    });
    const timer = setTimeout(() => child.kill('SIGKILL'), FILE_SECONDS_MAX * 1000);
    let result: Result | undefined;
    child.on('message', (message) => {
      result = message as Result;
    });
    child.on('exit', (code, signal) => {
      clearTimeout(timer);
      if (result && code === 0) return resolve(result);
      console.log(`  ${name} ended with ${signal ?? `code ${code}`}${result ? '' : ' before it reported'}`);
      const { passed = 0, failed = 0, skipped = [] } = result ?? {};
      resolve({ passed, failed: Math.max(1, failed), skipped });
    });
  });
}

const totals: Result = { passed: 0, failed: 0, skipped: [] };
const files = testFiles(process.argv.slice(2));
if (files.length === 0) {
  console.log(`no test file matches ${process.argv.slice(2).join(' ')}`);
  totals.failed = 1;
}
for (const name of files) {
  const begun = process.hrtime.bigint();
  console.log(`\n${name.replace(/\.js$/, '')}`);
  const result = await runFile(name);
  totals.passed += result.passed;
  totals.failed += result.failed;
  totals.skipped.push(...result.skipped);
  console.log(`  ${Number(process.hrtime.bigint() - begun) / 1e9} s`.replace(/(\.\d)\d* s/, '$1 s'));
}
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
