/** `files`: the JSON scanner against JSON.parse, its positions and bounds; addresses against their slow twins. */
import { isDeepStrictEqual } from 'node:util';
import * as fc from 'fast-check';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { OverlayError } from '../src/errors.js';
import { parseIp } from '../src/ip.js';
import { formatMac, parseMac } from '../src/target/mac.js';
import { formatIpWords, ipWords, macOf, macWords, readIp, readMac } from '../src/varpd/files/address.js';
import { JsonScanner } from '../src/varpd/files/json.js';
import { RowIndex, Rows } from '../src/varpd/files/rows.js';

const json = suite('files: JSON');
const PART_BYTES = 1 << 20;

function readValue(scanner: JsonScanner): unknown {
  const kind = scanner.kind();
  switch (kind) {
    case 'object': {
      const members: [string, unknown][] = [];
      scanner.enter();
      for (let first = true; scanner.member(first); first = false) {
        members.push([scanner.text(), readValue(scanner)]);
      }
      return Object.fromEntries(members);
    }
    case 'array': {
      const elements: unknown[] = [];
      scanner.enter();
      for (let first = true; scanner.element(first); first = false) elements.push(readValue(scanner));
      return elements;
    }
    case 'string':
      scanner.string();
      return scanner.text();
    case 'number':
      return scanner.number();
    default:
      scanner.word(kind);
      return { true: true, false: false, null: null }[kind];
  }
}

type Outcome = { value: unknown } | { refusal: string };

function scan(bytes: Buffer, read: (scanner: JsonScanner) => unknown = readValue): Outcome {
  const scanner = new JsonScanner(bytes, 'f', PART_BYTES);
  try {
    const value = read(scanner);
    scanner.finish();
    return { value };
  } catch (error) {
    if (!(error instanceof OverlayError)) throw error;
    assert.equal([error.errno, error.code], ['EINVAL', 'bad_json']);
    return { refusal: error.message };
  }
}

function oracle(bytes: Buffer): { value: unknown } | undefined {
  try {
    const text = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes);
    return { value: JSON.parse(text) };
  } catch {
    return undefined;
  }
}

/** Both accept with the same value, or both refuse; passing over the value is the same as reading it. */
function compareWithParse(bytes: Buffer): boolean {
  const ours = scan(bytes);
  const skipped = scan(bytes, (scanner) => scanner.skip());
  const theirs = oracle(bytes);
  const shown = JSON.stringify(bytes.toString());
  assert.is('value' in skipped, 'value' in ours, `skip ${shown}`);
  if (!theirs) assert.ok('refusal' in ours, `${shown} was accepted`);
  else {
    assert.ok('value' in ours, `${shown}: ${JSON.stringify(ours)}`);
    assert.ok(isDeepStrictEqual(ours.value, theirs.value), `${shown} is another value`);
  }
  if ('refusal' in ours) {
    const [, line, column, sentence] = /^f:(\d+):(\d+): (\S+ .+)$/.exec(ours.refusal)!;
    assert.ok(sentence, ours.refusal);
    const lines = bytes.toString().split('\n');
    assert.ok(Number(line) >= 1 && Number(line) <= lines.length, ours.refusal);
    const length = Buffer.byteLength(lines[Number(line) - 1]!);
    assert.ok(Number(column) >= 1 && Number(column) <= length + 1, ours.refusal);
  }
  return theirs !== undefined;
}

const accepted = [
  '{}',
  ' [ ] ',
  '\t\r\n{"a" : 1 , "b":[true,false,null]}\n',
  '0',
  '-0',
  '-0.0e+00',
  '1E400',
  '123456789012345678901234567890.5e-3',
  '4789',
  '""',
  String.raw`"\"\\\/\b\f\n\r\t\u0041\u00e9\u20AC\ud83d\ude00\ud800\u0000"`,
  '"\u007f\u0080\u07ff\u0800\ud7ff\ue000\uffff\u{10000}\u{10ffff}"',
  '{"__proto__": {"x": 1}, "constructor": 2, "a": 1, "a": 2}',
];

const refused = [
  '',
  ' ',
  '{',
  '[',
  '{]',
  '[}',
  '{"a"}',
  '{"a" 1}',
  '{"a":}',
  '{"a":1,}',
  '{,}',
  '{a:1}',
  "{'a':1}",
  '[1,]',
  '[,1]',
  '[1 2]',
  '{} {}',
  '{}x',
  '{}//',
  '/* */{}',
  '\ufeff{}',
  '\u00a0{}',
  '\f{}',
  '01',
  '-',
  '-a',
  '+1',
  '.5',
  '1.',
  '1.e1',
  '1e',
  '1e+',
  '0x10',
  'NaN',
  'Infinity',
  'tru',
  'truE',
  'nulll',
  'undefined',
  '"',
  '"a',
  '"\n"',
  '"\t"',
  '"\0"',
  '"\\',
  String.raw`"\q"`,
  String.raw`"\u"`,
  String.raw`"\u12"`,
  String.raw`"\u12g4"`,
  String.raw`"\U0041"`,
];

json('what JSON.parse accepts and what it refuses', () => {
  for (const text of accepted) assert.is(compareWithParse(Buffer.from(text)), true, JSON.stringify(text));
  for (const text of refused) assert.is(compareWithParse(Buffer.from(text)), false, JSON.stringify(text));
});

json('escapes that illumos got wrong: four hexadecimal digits, and characters above 127', () => {
  const one = (text: string): unknown => (scan(Buffer.from(text)) as { value: unknown }).value;
  assert.is(one(String.raw`"\u0032\u003a"`), '2:');
  assert.is(one(String.raw`"\u00e9\u20ac"`), 'é€');
  assert.is(one(String.raw`"\uD83D\uDE00"`), '😀');
});

json('bytes that are no UTF-8', () => {
  const bad = [
    '80',
    'bf',
    'c0af',
    'c1bf',
    'c3',
    'c328',
    'e0809f',
    'e28228',
    'eda080',
    'f0808080',
    'f4908080',
  ];
  for (const bytes of [...bad, 'f5808080', 'ff', 'fe', 'e282', 'f09f98']) {
    const outcome = scan(Buffer.from(`22${bytes}22`, 'hex'));
    assert.is('refusal' in outcome && outcome.refusal, 'f:1:2: the file is not UTF-8 here', bytes);
  }
});

json('where it went wrong: lines, and columns in characters', () => {
  const cases: [text: string, refusal: string][] = [
    ['', 'f:1:1: the file ends where a value is expected'],
    ['\n\n  ', 'f:3:3: the file ends where a value is expected'],
    ['{\n  "a": 1\n  "b": 2\n}', `f:3:3: ',' or '}' is expected, not '"'`],
    ['{"a": 1,\r\n}', `f:2:1: a key in double quotes is expected, not '}'`],
    ['{a}', `f:1:2: a key in double quotes or '}' is expected, not a letter`],
    ['{"é€😀" 1}', `f:1:8: ':' behind the key is expected, not a digit`],
    ['{"é":\n"é€😀" x}', `f:2:7: ',' or '}' is expected, not a letter`],
    ['[1, \u00a0]', 'f:1:5: a value is expected, not another character'],
    ['\ufeff{}', 'f:1:1: the file begins with a byte order mark (U+FEFF): save it as UTF-8 without one'],
    ['[\ufeff]', 'f:1:2: a value is expected, not another character'],
    ['[😀]', 'f:1:2: a value is expected, not another character'],
    ['[\n"abc', 'f:2:1: this string has no closing quote'],
    ['"a\tb"', 'f:1:3: a control character (U+0009) must be written as an escape in a string'],
    ['"a\nb"', 'f:1:3: a control character (U+000A) must be written as an escape in a string'],
    [String.raw`"a\q"`, String.raw`f:1:4: one of "\/bfnrtu behind the backslash is expected, not a letter`],
    [
      String.raw`"\u00g0"`,
      String.raw`f:1:6: a hexadecimal digit (\u has four of them) is expected, not a letter`,
    ],
    ['[1.]', `f:1:4: a digit is expected, not ']'`],
    ['[-]', `f:1:3: a digit is expected, not ']'`],
    ['[01]', `f:1:3: ',' or ']' is expected, not a digit`],
    ['[trup]', `f:1:5: 'true' is expected, not a letter`],
    ['{}\n\n x', `f:3:2: only whitespace may follow the value that ends before a letter`],
  ];
  for (const [text, refusal] of cases)
    assert.equal(scan(Buffer.from(text)), { refusal }, JSON.stringify(text));
});

json('64 levels and no more; length is bounded too', () => {
  const nested = (levels: number): Buffer => Buffer.from('['.repeat(levels) + ']'.repeat(levels));
  assert.ok('value' in scan(nested(64)));
  assert.equal(scan(nested(65)), { refusal: 'f:1:65: objects and arrays are nested more than 64 deep' });
  assert.ok(
    'value' in scan(Buffer.from(`[${'[{"a":{}}],'.repeat(100)}{}]`)),
    'one after the other is not deep',
  );
  assert.ok('refusal' in scan(Buffer.from('['.repeat(1_000_000))), 'a deep one overflows no stack');
  const long = (kind: string): Outcome => scan(Buffer.from(kind.repeat(PART_BYTES + 1)));
  const tooLong = { refusal: `f:1:1: what begins here goes on for more than ${PART_BYTES} bytes` };
  assert.equal(long(' '), tooLong);
  assert.equal(long('1'), { refusal: tooLong.refusal }, 'a number');
  assert.equal(scan(Buffer.from(`"${'x'.repeat(PART_BYTES)}"`)), tooLong);
  assert.equal(scan(Buffer.from(`[]${' '.repeat(PART_BYTES)}`)), tooLong);
  assert.ok('value' in scan(Buffer.from(`"${'x'.repeat(PART_BYTES - 2)}"`)), 'exactly as much is fine');
});

json('any valid document has the value that JSON.parse gives it', () => {
  const document = fc.record({
    value: fc.jsonValue({ maxDepth: 8, stringUnit: 'binary' }),
    indent: fc.constantFrom('', ' ', '\t', '\n'),
  });
  fc.assert(
    fc.property(document, ({ value, indent }) => {
      assert.is(compareWithParse(Buffer.from(JSON.stringify(value, null, indent))), true);
    }),
    { numRuns: 5000 },
  );
});

const edit = fc.record({
  at: fc.nat(),
  cut: fc.nat({ max: 3 }),
  put: fc.oneof(
    fc.constantFrom(...'{}[]":,\\/0123456789-+.eEtfnu \n\t\r\0'),
    fc.constantFrom('é', '😀', '\ufeff', 'true', 'null', String.raw`\u00e9`, '""', ''),
  ),
});

json('a mutated document is refused if and only if JSON.parse refuses it', () => {
  let valid = 0;
  let total = 0;
  const mutated = fc
    .tuple(fc.jsonValue({ maxDepth: 6 }), fc.array(edit, { minLength: 1, maxLength: 3 }))
    .map(([value, edits]) => {
      let text = JSON.stringify(value);
      for (const { at, cut, put } of edits) {
        const from = at % (text.length + 1);
        text = text.slice(0, from) + put + text.slice(from + cut);
      }
      return Buffer.from(text.isWellFormed() ? text : text.toWellFormed());
    });
  fc.assert(
    fc.property(mutated, (bytes) => {
      total++;
      if (compareWithParse(bytes)) valid++;
    }),
    { numRuns: 30_000 },
  );
  assert.ok(valid > total / 20 && valid < total * 0.95, `${valid} of ${total} were still valid`);
});

json('mutated bytes likewise, UTF-8 or not', () => {
  const mutated = fc
    .tuple(fc.jsonValue({ maxDepth: 4, stringUnit: 'grapheme' }), fc.array(fc.tuple(fc.nat(), fc.nat(255))))
    .map(([value, edits]) => {
      const bytes = Buffer.from(JSON.stringify(value));
      for (const [at, byte] of edits.slice(0, 2)) bytes[at % bytes.length] = byte;
      return bytes;
    });
  fc.assert(
    fc.property(mutated, (bytes) => {
      compareWithParse(bytes);
    }),
    { numRuns: 10_000 },
  );
});

const addresses = [
  '01.2.3.4',
  '1.2.3.04',
  '00.0.0.0',
  '0.0.0.0',
  '1.2.3.256',
  '1.2.3.',
  '1.2.3.4.',
  '1.2.3.4.5',
  '::ffff:01.2.3.4',
  '::ffff:1.2.3.4',
  '::1.2.3.4',
  '1:2:3:4:5:6:1.2.3.4',
  '1:2:3:4:5:6:7:1.2.3.4',
  '1:2:3:4:5:6:7::',
  '::2:3:4:5:6:7:8',
  '1:2:3:4::5:6:7:8',
  '1::2::3',
  ':::',
  ':1::',
  '1::2:',
  'fe80::1%1',
];
const ip = new Uint32Array(4);
const mac = new Uint32Array(2);

json('an IP address is what parseIp takes for one, with the same canonical text', () => {
  const nearly = fc.stringMatching(/^[0-9a-fA-F:.%/]{0,24}$/);
  const groups = fc
    .array(fc.constantFrom('0', '1', 'ffff', '', '12345', '1.2.3.4'), { maxLength: 9 })
    .map((parts) => parts.join(':'));
  fc.assert(
    fc.property(fc.oneof(fc.ipV4(), fc.ipV6(), nearly, groups, fc.constantFrom(...addresses)), (text) => {
      let expected: string | undefined;
      try {
        expected = parseIp(text);
      } catch {
        expected = undefined;
      }
      // Bytes around it are not looked at.
      const bytes = Buffer.from(`9${text}9`);
      const family = readIp(bytes, 1, bytes.length - 1, ip);
      assert.is(family === 0 ? undefined : formatIpWords(ip, 0), expected, text);
      if (expected === undefined) return;
      assert.is(family, text.includes(':') ? 6 : 4);
      assert.equal(ipWords(expected), ip);
    }),
    { numRuns: 30_000 },
  );
});

json('a MAC address is six octets of one or two hexadecimal digits, with colons', () => {
  const octet = fc.nat(255).chain((value) => {
    const hex = value.toString(16);
    return fc.constantFrom(hex, hex.toUpperCase(), hex.padStart(2, '0'));
  });
  fc.assert(
    fc.property(fc.array(octet, { minLength: 6, maxLength: 6 }), (octets) => {
      const bytes = Buffer.from(`f${octets.join(':')}f`);
      assert.ok(readMac(bytes, 1, bytes.length - 1, mac), octets.join(':'));
      assert.is(macOf(mac, 0), parseMac(octets.join(':')));
      assert.equal(macWords(macOf(mac, 0)), mac);
      assert.is(parseMac(formatMac(macOf(mac, 0))), macOf(mac, 0));
    }),
  );
  const bad = ['', '1', '1:2:3:4:5', '1:2:3:4:5:', '1:2:3:4:5:6:', '1:2:3:4:5:6:7', ':1:2:3:4:5:6'];
  for (const text of [...bad, '1:2:3:4:5:006', '1::3:4:5:6', '1-2-3-4-5-6', '1:2:3:4:5:g', '1:2:3:4:5:6 ']) {
    const bytes = Buffer.from(text);
    assert.is(readMac(bytes, 0, bytes.length, mac), false, text);
  }
});

json('an index finds each row by its key, and nothing else', () => {
  const row = fc.tuple(fc.nat(40), fc.nat(3), fc.nat(9));
  fc.assert(
    fc.property(fc.array(row, { maxLength: 200 }), (list) => {
      const rows = new Rows(3, 1);
      for (const words of list) rows.append(Uint32Array.from(words));
      const first = new RowIndex(rows.words, 3, 2, list.length);
      const last = new RowIndex(rows.words, 3, 2, list.length);
      const key = ([a, b]: readonly number[]): string => `${a} ${b}`;
      for (const [number, words] of list.entries()) {
        const known = list.findIndex((other) => key(other) === key(words));
        assert.is(first.add(number), known);
        assert.is(last.replace(number), known < number);
      }
      for (let a = 0; a <= 40; a++) {
        for (let b = 0; b <= 3; b++) {
          const wanted = Uint32Array.of(a, b);
          assert.is(
            first.find(wanted),
            list.findIndex((words) => key(words) === key([a, b])),
          );
          assert.is(
            last.find(wanted),
            list.findLastIndex((words) => key(words) === key([a, b])),
          );
        }
      }
      assert.is(first.count, new Set(list.map(key)).size);
      assert.is(last.count, first.count);
    }),
    { numRuns: 200 },
  );
});

json.run();
