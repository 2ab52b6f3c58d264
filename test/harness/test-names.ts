/** Whether a test is there that somebody refers to. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';

const SOURCES = join(import.meta.dirname, '../../../test');
const sources = new Map<string, string>();

function sourceOf(file: string): string {
  const text = sources.get(file) ?? readFileSync(join(SOURCES, `${file}.ts`), 'utf8');
  sources.set(file, text);
  return text;
}

/**
 * True when the file has the text in the name of a test, not just anywhere.
 * @param file name in `test/`
 */
export function hasTest(file: string, name: string): boolean {
  return sourceOf(file)
    .split('\n')
    .some((line) => line.includes(name) && /['`]/.test(line) && !/^\s*(\/\/|\*|assert)/.test(line));
}
