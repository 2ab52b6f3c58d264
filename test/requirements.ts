/**
 * The matrix of what RFCs ask for: every line has tests that are there, or says why it is otherwise; and every key word of
 * their texts is some line's.
 */
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { hasTest } from './harness/test-names.js';
import type { Level } from './reference/requirements/rfc.js';
import { rfcs } from './reference/requirements.js';

const matrix = suite('requirements of RFCs');
/** Less is no reason. */
const REASON_CHARACTERS_MIN = 40;

const lines = rfcs.flatMap(({ number, requirements }) =>
  requirements.map((requirement) => {
    const sections = Object.keys(requirement.sections).join(', ');
    return { ...requirement, number, what: `RFC ${number} section ${sections}: ${requirement.rule}` };
  }),
);

matrix('each has a test that is there, or a reason why it is otherwise', () => {
  for (const { what, tests = [], exception } of lines) {
    assert.ok(tests.length > 0 || exception !== undefined, `${what}: neither a test nor a reason`);
    if (exception !== undefined)
      assert.ok(exception.length >= REASON_CHARACTERS_MIN, `${what}: ${exception}`);
    for (const [file, name] of tests) {
      assert.ok(hasTest(file, name), `${what}: test/${file}.ts has no test '${name}'`);
    }
  }
  assert.is(new Set(lines.map(({ what }) => what)).size, lines.length, 'each is there once');
  for (const { number, requirements } of rfcs) {
    const otherwise = requirements.filter(({ exception }) => exception !== undefined);
    console.log(`  RFC ${number}: ${requirements.length}, with ${otherwise.length} exceptions`);
  }
});

matrix('a test is there when the text is in its name, not just anywhere in its file', () => {
  for (const [file, name] of [
    ['sockets', 'a mark decides the route'],
    ['sockets', 'devices share the sockets of an address: other ones'],
    ['path-mtu', 'a stream of each family goes on'],
    ['nvgre-hosts', 'ping, TCP and UDP both ways, each datagram by one of'],
  ] as const) {
    assert.ok(hasTest(file, name), name);
  }
  for (const [file, name] of [
    ['sockets', 'another mark is not meant'],
    ['sockets', 'sockets of the underlay'],
    ['sockets', 'What an operator says'],
    ['sockets', 'const HERE'],
    ['sockets', 'tcpdump'],
    ['path-mtu', 'and knows'],
  ] as const) {
    assert.not.ok(hasTest(file, name), `${name} is the name of no test`);
  }
});

/** Of a section's two counts, the one that a level is in; undefined for what has no key word. */
const KIND: Readonly<Record<Level, 0 | 1 | undefined>> = {
  MUST: 0,
  'MUST NOT': 0,
  SHOULD: 1,
  'SHOULD NOT': 1,
  MAY: undefined,
  IS: undefined,
};

matrix('each key word of a text is one of a line, and no line has more than there are', () => {
  for (const { number, keywords, requirements } of rfcs) {
    const covered: Record<string, [musts: number, shoulds: number]> = {};
    for (const { level, sections, rule } of requirements) {
      const kind = KIND[level];
      for (const [section, count] of Object.entries(sections)) {
        assert.is(count > 0, kind !== undefined, `RFC ${number} section ${section}, ${level}: ${rule}`);
        if (kind === undefined) continue;
        covered[section] ??= [0, 0];
        covered[section][kind] += count;
      }
    }
    if (!keywords) continue;
    for (const section of new Set([...Object.keys(keywords), ...Object.keys(covered)])) {
      assert.equal(covered[section], keywords[section], `RFC ${number} section ${section}: [musts, shoulds]`);
    }
  }
});

matrix.run();
