/** The matrix of what RFCs ask for: every line has tests that are there, or says why it is otherwise. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { requirements } from './reference/requirements.js';

const matrix = suite('requirements of RFCs');
const SOURCES = join(import.meta.dirname, '../../test');
/** Less is no reason. */
const REASON_CHARACTERS_MIN = 40;

matrix('each has a test that is there, or a reason why it is otherwise', () => {
  const sources = new Map<string, string>();
  const sourceOf = (file: string) => {
    const text = sources.get(file) ?? readFileSync(join(SOURCES, `${file}.ts`), 'utf8');
    sources.set(file, text);
    return text;
  };
  for (const { rfc, section, rule, tests = [], exception } of requirements) {
    const what = `RFC ${rfc} section ${section}: ${rule}`;
    assert.ok(tests.length > 0 || exception !== undefined, `${what}: neither a test nor a reason`);
    if (exception !== undefined)
      assert.ok(exception.length >= REASON_CHARACTERS_MIN, `${what}: ${exception}`);
    for (const [file, name] of tests) {
      // In the name of a test, not just anywhere.
      const named = sourceOf(file)
        .split('\n')
        .filter((line) => line.includes(name) && /['`]/.test(line) && !/^\s*(\/\/|\*|assert)/.test(line));
      assert.ok(named.length > 0, `${what}: test/${file}.ts has no test '${name}'`);
    }
  }
  const rules = requirements.map(({ rfc, section, rule }) => `${rfc} ${section} ${rule}`);
  assert.is(new Set(rules).size, rules.length, 'each is there once');
  const byRfc = new Map<number, { all: number; otherwise: number }>();
  for (const { rfc, exception } of requirements) {
    const { all, otherwise } = byRfc.get(rfc) ?? { all: 0, otherwise: 0 };
    byRfc.set(rfc, { all: all + 1, otherwise: otherwise + (exception === undefined ? 0 : 1) });
  }
  for (const [rfc, { all, otherwise }] of byRfc)
    console.log(`  RFC ${rfc}: ${all}, with ${otherwise} exceptions`);
});

matrix.run();
