/** The matrix of whom we have been seen to work with: what is published is the list of `reference/`, and its tests are there. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { hasTest } from './harness/test-names.js';
import { oracleRows, peerRows, TRAFFIC } from './reference/interoperability.js';

const interoperability = suite('interoperability');
const README = join(import.meta.dirname, '../../README.md');

const lineOf = (cells: readonly string[]) => `| ${cells.join(' | ')} |`;
const ruleOf = (columns: number) => `|${'---|'.repeat(columns)}`;

/** The lines of both tables. */
function tables(): string[] {
  const peers = peerRows.map(({ peer, how, encapsulations, families, traffic }) =>
    lineOf([
      peer,
      how,
      encapsulations.join(', '),
      families.map((family) => `IPv${family}`).join(', '),
      ...TRAFFIC.map((kind) => (traffic.includes(kind) ? 'yes' : 'no')),
    ]),
  );
  const oracles = oracleRows.map(({ oracle, what, encapsulations }) =>
    lineOf([oracle, what, encapsulations.join(', ')]),
  );
  return [
    lineOf(['peer', 'how', 'encapsulation', 'underlay', ...TRAFFIC]),
    ruleOf(4 + TRAFFIC.length),
    ...peers,
    lineOf(['oracle', 'what', 'encapsulation']),
    ruleOf(3),
    ...oracles,
  ];
}

interoperability('the README has what the list has', () => {
  const [, behind = ''] = readFileSync(README, 'utf8').split('\n## Interoperability\n');
  const [section = ''] = behind.split('\n## ');
  const published = section.split('\n').filter((line) => line.startsWith('|'));
  assert.is(published.join('\n'), tables().join('\n'));
});

interoperability('each row has a test that is there, and compares what it has shown with the list', () => {
  for (const { test } of [...peerRows, ...oracleRows]) {
    const [file, name] = test;
    assert.ok(hasTest(file, name), `test/${file}.ts has no test '${name}'`);
    assert.ok(hasTest(file, 'all that is to be shown has been'), `test/${file}.ts does not look at its end`);
  }
});

interoperability.run();
