/** The benches still run and say something; how fast is not a test's business. */
import { execFileSync } from 'node:child_process';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { testWith } from './harness/needs.js';

const bench = suite('benches, for a moment each');
const program = join(import.meta.dirname, '../bench/run.js');

function run(name: string): string {
  return execFileSync(process.execPath, [program, '--smoke', name], { encoding: 'utf8', timeout: 120_000 });
}

testWith(bench, ['gcc'], 'core', () => {
  const output = run('core');
  for (const step of ['encap', 'decap', 'arrange']) assert.match(output, new RegExp(`${step} +\\d`));
  assert.match(output, /ratio \d/, 'compared with C');
});

testWith(bench, ['gcc'], 'lookup', () => {
  const output = run('lookup');
  for (const what of ['hit   lookup ', 'miss  lookup and count'])
    assert.match(output, new RegExp(`${what} +\\d`));
  assert.match(output, /ratio \d/, 'compared with C');
});

bench('miss', () => {
  const output = run('miss');
  assert.match(output, /median \d+\.\d+ ms/);
  assert.match(output, /frames arrived, \d+ lost/);
});

testWith(bench, ['root', '/dev/net/tun', 'iperf3', 'ip', 'ping', 'gcc'], 'end-to-end', () => {
  const output = run('end-to-end');
  for (const peer of ['kernel', 'overlayd']) {
    assert.match(output, new RegExp(`^${peer} +\\d+\\.\\d+ `, 'm'));
  }
});

bench.run();
