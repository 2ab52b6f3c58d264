/**
 * The text of a file of targets. Lines: `overlayd targets 1`; then, mixed, `{"route":...,"source":...}`, which is what
 * rows refer to, numbered from 0, and `020820010203 17`, a row: the MAC in hexadecimal and such a number; at the end
 * `end <rows> <SHA-256 of all before the digest>`. After ENTRIES_MAX numbers they begin at 0 again and the earlier ones
 * are forgotten, which bounds the memory of both sides.
 */
import { assert } from '../errors.js';
import { destinationsOf, type Route } from '../target/destination.js';
import type { TargetRecord } from './record.js';
import { isObject } from './record-check.js';

export const TARGETS_VERSION = 1;
export const ENTRIES_MAX = 16_384;
/** A route with as many destinations as there may be is below this. */
const LINE_CHARACTERS_MAX = 256 * 1024;
/** What is put into text before main does something else, in destinations looked at: about a millisecond. */
const WORK_MAX = 1000;
/** What a route that was not met before takes, in the same measure. */
const ENTRY_WORK = 4;

export const headLine = (version: number): string => `overlayd targets ${version}\n`;
/** Of what a file's first line says; undefined for what is none of ours. */
export function versionOf(begin: string): number | undefined {
  const match = /^overlayd targets (\d{1,9})\n/.exec(begin);
  return match ? Number(match[1]) : undefined;
}

export const END_BYTES_MAX = 96;
const endRule = /(?:^|\n)(end (\d{1,9}) )([0-9a-f]{64})\n$/;

/** The last line without its digest, and how many bytes of the end it is with it; undefined for an end that is none. */
export function parseEnd(
  tail: string,
): { prefix: string; rows: number; digest: string; bytes: number } | undefined {
  const match = endRule.exec(tail);
  if (!match) return undefined;
  const [, prefix = '', rows, digest = ''] = match;
  return { prefix, rows: Number(rows), digest, bytes: prefix.length + digest.length + 1 };
}

/** Rows to text. */
export class TargetWriter {
  rows = 0;
  #lines: string[] = [headLine(TARGETS_VERSION)];
  #work = 0;
  readonly #entries = new Map<string, number>();

  /** Enough has come together to be written. */
  get isFull(): boolean {
    return this.#work >= WORK_MAX;
  }

  add({ mac, route, source }: TargetRecord): void {
    assert(Number.isInteger(mac) && mac >= 0 && mac < 2 ** 48, `${mac} is no address`);
    const key = keyOf(route, source);
    const work = route === 'drop' ? 1 : destinationsOf(route).length;
    let entry = this.#entries.get(key);
    this.#work += work;
    if (entry === undefined) {
      this.#work += ENTRY_WORK * work;
      if (this.#entries.size === ENTRIES_MAX) this.#entries.clear();
      entry = this.#entries.size;
      this.#entries.set(key, entry);
      this.#lines.push(asciiOf(JSON.stringify({ route, source })), '\n');
    }
    this.#lines.push(`${mac.toString(16).padStart(12, '0')} ${entry}\n`);
    this.rows++;
  }

  /** The text since the last call. */
  take(): string {
    const text = this.#lines.join('');
    this.#lines = [];
    this.#work = 0;
    return text;
  }
}

/** Text to rows, piece by piece. */
export class TargetReader {
  rows = 0;
  #rest = '';
  #isBegun = false;
  readonly #entries: Pick<TargetRecord, 'route' | 'source'>[] = [];

  /** The rows of the lines that are whole. Returns a sentence on what is wrong instead, should something be. */
  read(text: string): TargetRecord[] | string {
    const lines = (this.#rest + text).split('\n');
    this.#rest = lines.pop()!;
    if (this.#rest.length > LINE_CHARACTERS_MAX) return 'a line is too long';
    const rows: TargetRecord[] = [];
    for (const line of lines) {
      if (!this.#isBegun) {
        if (`${line}\n` !== headLine(TARGETS_VERSION)) return 'it does not begin as a file of targets does';
        this.#isBegun = true;
      } else if (line.startsWith('{')) {
        const entry = parseEntry(line);
        if (!entry) return `'${line.slice(0, 64)}' is no route`;
        if (this.#entries.length === ENTRIES_MAX) this.#entries.length = 0;
        this.#entries.push(entry);
      } else {
        const entry = rowRule.test(line) ? this.#entries[Number(line.slice(13))] : undefined;
        if (!entry) return `'${line.slice(0, 64)}' is no target`;
        rows.push({ mac: Number.parseInt(line.slice(0, 12), 16), route: entry.route, source: entry.source });
        this.rows++;
      }
    }
    return rows;
  }
}

/** Text that tells routes with their sources apart, made faster than JSON for those that most targets have. */
function keyOf(route: Route | 'drop', source: string): string {
  if (route === 'drop') return `drop ${source}`;
  if ('replicate' in route || 'spread' in route) return `${JSON.stringify(route)} ${source}`;
  const { mac = '', ip = '', port = '', options = '' } = route;
  return `${mac},${ip},${port},${options} ${source}`;
}

/** JSON with escapes for all but ASCII, so that a piece of a file never ends within a character. */
function asciiOf(json: string): string {
  return json.replaceAll(/[^ -~]/g, (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, '0')}`);
}

const textParts: readonly string[] = ['mac', 'ip', 'options'];
const rowRule = /^[0-9a-f]{12} \d{1,5}$/;

function parseEntry(line: string): Pick<TargetRecord, 'route' | 'source'> | undefined {
  let entry: unknown;
  try {
    entry = JSON.parse(line);
  } catch {
    return undefined;
  }
  if (!isObject(entry) || typeof entry.source !== 'string') return undefined;
  const { route, source } = entry;
  return route === 'drop' || isRoute(route) ? { route, source } : undefined;
}

/** The shape alone: what is in it is for the encapsulation to judge. */
function isRoute(value: unknown): value is Route {
  if (!isObject(value)) return false;
  const list = value.replicate ?? value.spread;
  return list === undefined ? isDestination(value) : Array.isArray(list) && list.every(isDestination);
}

function isDestination(value: unknown): boolean {
  return (
    isObject(value) &&
    Object.entries(value).every(([part, one]) =>
      part === 'port' ? Number.isInteger(one) : textParts.includes(part) && typeof one === 'string',
    )
  );
}
