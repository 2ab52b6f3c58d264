/** Whether a test is there that somebody refers to. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';

const SOURCES = join(import.meta.dirname, '../../../test');
/** Names of the tests of each file, as they are written. */
const names = new Map<string, readonly string[]>();

/** Which argument of `testWith` is the name; of a suite it is the first. */
const NAME_OF_TEST_WITH = 2;
const QUOTES = '\'"`';
const closing: Readonly<Record<string, string>> = { '(': ')', '[': ']', '{': '}' };

/** Index behind a string or template that begins at `at`. */
function endOfString(text: string, at: number): number {
  const quote = text[at];
  for (let i = at + 1; i < text.length; i++) {
    if (text[i] === '\\') i++;
    else if (quote === '`' && text.startsWith('${', i)) i = endOfBracket(text, i + 1) - 1;
    else if (text[i] === quote) return i + 1;
  }
  return text.length;
}

/** Index behind the bracket that closes the one at `at`; `onComma` hears of commas between the two. */
function endOfBracket(text: string, at: number, onComma: (index: number) => boolean = () => true): number {
  const end = closing[text[at]!]!;
  for (let i = at + 1; i < text.length; ) {
    const character = text[i]!;
    if (character === end) return i + 1;
    if (character === ',' && !onComma(i)) return i;
    if (QUOTES.includes(character)) i = endOfString(text, i);
    else if (character in closing) i = endOfBracket(text, i);
    else i++;
  }
  return text.length;
}

/** Argument `which` of the call whose bracket is at `at`. */
function argumentOf(text: string, at: number, which: number): string {
  let begins = at + 1;
  let left = which;
  const end = endOfBracket(text, at, (comma) => {
    if (left-- === 0) return false;
    begins = comma + 1;
    return true;
  });
  return text.slice(begins, end);
}

/** The strings of an expression, without what is put into them. */
function stringsOf(expression: string): string[] {
  const strings: string[] = [];
  for (let i = 0; i < expression.length; i++) {
    if (!QUOTES.includes(expression[i]!)) continue;
    const end = endOfString(expression, i);
    strings.push(expression.slice(i + 1, end - 1));
    i = end - 1;
  }
  return strings;
}

function namesIn(text: string): string[] {
  const suites = [...text.matchAll(/^const (\w+) = suite\(/gm)].map(([, name]) => name);
  const calls = new RegExp(`^ *(testWith|${suites.join('|')})(?=\\()`, 'gm');
  return [...text.matchAll(calls)].flatMap((call) => {
    const which = call[1] === 'testWith' ? NAME_OF_TEST_WITH : 0;
    return stringsOf(argumentOf(text, call.index + call[0].length, which));
  });
}

/**
 * True when the file has the text in the name of a test, not just anywhere.
 * @param file name in `test/`
 */
export function hasTest(file: string, name: string): boolean {
  const known = names.get(file) ?? namesIn(readFileSync(join(SOURCES, `${file}.ts`), 'utf8'));
  names.set(file, known);
  return known.some((each) => each.includes(name));
}
