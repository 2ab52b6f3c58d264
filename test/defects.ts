/** Of every numbered defect of illumos' overlay devices it is known why we do not have it. */
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { type Defect, defects } from './reference/defects.js';

const table = suite('defects');
const DEFECTS = 76;
const root = join(import.meta.dirname, '../..');
const verdicts = ['excludedBy', 'cannotArise', 'notBuilt'] as const;
/** Parts that there are not yet, and a file that there is as soon as they are. */
const missing: Readonly<Record<string, string>> = { 'the lookup plugin svp': 'src/varpd/svp.ts' };

function faultOf(defect: Defect): string | undefined {
  const { bug, what } = defect;
  const given = verdicts.filter((verdict) => verdict in defect);
  if (given.length !== 1)
    return `${bug} has ${given.length} verdicts (${given.join(', ')}) and must have one`;
  if (!/^[A-Za-z0-9].*\.$/.test(what)) return `${bug}: what goes wrong is no sentence`;
  if ('cannotArise' in defect) {
    return defect.cannotArise.length > 20 ? undefined : `${bug}: why it cannot arise is not said`;
  }
  if ('notBuilt' in defect) {
    const file = missing[defect.notBuilt];
    if (file === undefined) return `${bug}: '${defect.notBuilt}' is no part that is missing`;
    return existsSync(join(root, file)) ? `${bug}: ${file} is there now, so name its test` : undefined;
  }
  return testFaultOf(bug, defect.excludedBy);
}

function testFaultOf(bug: number, { file, test }: { file: string; test: string }): string | undefined {
  const path = join(root, file);
  if (!/^test\/[a-z-]+\.ts$/.test(file) || !existsSync(path)) return `${bug}: there is no test file ${file}`;
  return namesIn(readFileSync(path, 'utf8')).some((name) => isNamed(name, test))
    ? undefined
    : `${bug}: there is no test '${test}' in ${file}`;
}

/** Every string and template of a file in the form in which it is written, with its quotes. */
function namesIn(source: string): string[] {
  const literals = /'(?:[^'\\\n]|\\.)*'|"(?:[^"\\\n]|\\.)*"|`(?:[^`\\\n]|\\.)*`/g;
  return source
    .split('\n')
    .filter((line) => !/^\s*(\*|\/\/|\/\*)/.test(line))
    .flatMap((line) => line.match(literals) ?? []);
}

/** True for the string itself, or a template with it as a fixed part. */
function isNamed(literal: string, name: string): boolean {
  const text = literal.slice(1, -1);
  if (!literal.startsWith('`')) return text === name;
  return text.split(/\$\{[^}]*\}/).some((fixed) => fixed.includes(name));
}

table('the numbers are 1 to 76, each once and in order', () => {
  assert.equal(
    defects.map(({ bug }) => bug),
    Array.from({ length: DEFECTS }, (_, index) => index + 1),
  );
});

table('each has one verdict, and every test that is named is there', () => {
  assert.equal(
    defects.map(faultOf).filter((fault) => fault !== undefined),
    [],
  );
  const count = (verdict: (typeof verdicts)[number]) => defects.filter((defect) => verdict in defect).length;
  const [excluded, cannot, unbuilt] = verdicts.map(count);
  console.log(
    `\n  ${excluded} excluded by a test, ${cannot} cannot arise, ${unbuilt} in a part that is not built`,
  );
});

table('a doctored row is found', () => {
  const what = 'It goes wrong.';
  const test = 'a doctored row is found';
  const file = 'test/defects.ts';
  const broken: [Record<string, unknown>, RegExp][] = [
    [{}, /has 0 verdicts/],
    [{ notBuilt: 'the lookup plugin svp', cannotArise: 'It cannot, for a good reason.' }, /has 2 verdicts/],
    [{ cannotArise: '' }, /is not said/],
    [{ notBuilt: 'everything' }, /no part that is missing/],
    [{ excludedBy: { file: 'test/nope.ts', test } }, /no test file/],
    [{ excludedBy: { file: 'src/overlay.ts', test } }, /no test file/],
    [{ excludedBy: { file, test: `${test} not` } }, /there is no test/],
    [{ excludedBy: { file, test: test.slice(0, -1) } }, /there is no test/],
    [{ what: '', excludedBy: { file, test } }, /no sentence/],
  ];
  for (const [row, message] of broken) {
    assert.match(faultOf({ bug: 1, what, ...row } as unknown as Defect) ?? 'none', message);
  }
  assert.is(faultOf({ bug: 1, what, excludedBy: { file, test } }), undefined);
});

table.run();
