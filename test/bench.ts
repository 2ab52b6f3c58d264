/** The benches still run and say something; how fast is not a test's business. */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { testWith } from './harness/needs.js';

const bench = suite('benches, for a moment each');
const program = join(import.meta.dirname, '../bench/run.js');

function run(name: string, ...flags: string[]): string {
  const words = [program, '--smoke', name, ...flags];
  return execFileSync(process.execPath, words, { encoding: 'utf8', timeout: 120_000 });
}

testWith(bench, ['gcc'], 'core', () => {
  const output = run('core');
  for (const step of ['encap', 'decap', 'arrange']) assert.match(output, new RegExp(`${step} +\\d`));
  assert.match(output, /ratio \d/, 'compared with C');
});

testWith(bench, ['gcc'], 'offload', () => {
  const output = run('offload');
  for (const what of ['checksum-1400', 'segment', 'coalesce-1-flow', 'coalesce-64-flows'])
    assert.match(output, new RegExp(`${what} +\\d`));
  assert.match(output, /ratio \d/, 'compared with C');
});

testWith(bench, ['gcc'], 'lookup', () => {
  const output = run('lookup');
  for (const what of ['hit   lookup ', 'miss  lookup and count'])
    assert.match(output, new RegExp(`${what} +\\d`));
  assert.match(output, /ratio \d/, 'compared with C');
});

bench('encapsulation', () => {
  const output = run('encapsulation');
  for (const name of ['vxlan', 'geneve', 'geneve with 63 options', 'nvgre'])
    assert.match(output, new RegExp(`${name} +encap`));
});

testWith(bench, ['gcc'], 'ring', () => {
  assert.match(run('ring'), /1410 bytes +\d.*ratio \d/);
});

bench('miss', () => {
  const output = run('miss');
  assert.match(output, /median \d+\.\d+ ms/);
  assert.match(output, /frames arrived, \d+ lost/);
});

testWith(bench, ['root', '/dev/net/tun', 'iperf3', 'ip', 'ping'], 'soak', () => {
  const soak = join(import.meta.dirname, '../bench/soak.js');
  const output = execFileSync(process.execPath, [soak, '--minutes', '0.3', '--brief'], {
    encoding: 'utf8',
    timeout: 180_000,
  });
  assert.match(output, /churn: [1-9]\d* frames, [1-9]\d* addresses/);
  assert.match(output, /a: resident set: .*: cannot show/);
  // A run as short as this one shows no leak, and says so.
  assert.match(output, /NOT SHOWN: this run can show of a: heap: (slopes above \d|nothing)/);
  assert.match(output, /nothing lost, nothing left open, growth of 1 MiB an hour not ruled out/);
});

/** Nothing may be lost; and on a busy machine each trial of a rate may lose too much. */
const mayBe0 = (figure: string) => figure.endsWith('loss') || figure === 'rate64';

interface EndToEnd {
  readonly figures: readonly { readonly name: string }[];
  readonly summaries: readonly { readonly peers: Record<string, Record<string, { median: number }>> }[];
}

testWith(bench, ['root', '/dev/net/tun', 'iperf3', 'ip', 'ping', 'gcc'], 'end-to-end', () => {
  const folder = mkdtempSync(join(tmpdir(), 'overlayd-bench-'));
  try {
    const [json, svg] = [join(folder, 'new', 'figures.json'), join(folder, 'new', 'figures.svg')];
    const output = run('end-to-end', '--json', json, '--svg', svg);
    const { figures, summaries } = JSON.parse(readFileSync(json, 'utf8')) as EndToEnd;
    assert.is(summaries.length, 1, 'scenes');
    assert.ok(figures.length > 10, 'figures');
    const ofPrograms = ['own cpu', 'memory'];
    const ofKernel = figures.map(({ name }) => name).filter((name) => !ofPrograms.includes(name));
    for (const [peer, names] of Object.entries({
      kernel: ofKernel,
      overlayd: [...ofKernel, ...ofPrograms],
    })) {
      assert.match(output, new RegExp(`^${peer} +\\d+\\.\\d+ `, 'm'));
      const measured = summaries[0]!.peers[peer]!;
      assert.equal(Object.keys(measured).sort(), names.toSorted());
      for (const name of names) {
        const { median } = measured[name]!;
        assert.ok(mayBe0(name) ? median >= 0 : median > 0, `${name} of ${peer} is ${median}`);
      }
      assert.match(readFileSync(svg, 'utf8'), new RegExp(`>${peer}</text>`));
    }
  } finally {
    rmSync(folder, { recursive: true });
  }
});

bench.run();
