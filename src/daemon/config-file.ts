/**
 * The YAML file of the configuration: plain values, and where in the file each of them is. Whatever is in the file costs
 * bounded time and no more than a fault: the daemon reads it again while it forwards.
 */
import { closeSync, constants, readSync } from 'node:fs';
import { Composer, type CST, type Document, isScalar, LineCounter, Parser, visit } from 'yaml';
import { OverlayError } from '../errors.js';
import { openTrusted, Untrusted } from '../sys/trusted-file.js';

/** Room for OVERLAYS_MAX overlays with many properties each. */
const FILE_BYTES_MAX = 2 ** 20;
/** The deepest the settings go is 4. The composer calls itself for each level, and deep files would end the process. */
const DEPTH_MAX = 32;
/** Each costs a walk of the whole file. */
const ALIASES_MAX = 1000;
/** Whoever has this many faults mends some first. */
export const FAULTS_MAX = 100;

/** Something wrong in the configuration. */
export interface Fault {
  /** Stable snake_case name. */
  readonly code: string;
  /** One line, with the place in front: `FILE:LINE:COLUMN: ` or `--flag: `. */
  readonly text: string;
}

/** Where a value is: keys from the outside in. */
export type Path = readonly (string | number)[];

export class ConfigFile {
  /** What the file holds; an empty object for an empty file and for one with faults. */
  readonly values: unknown;
  /** Syntax errors, unknown tags, keys given twice and aliases that lead nowhere or too far. */
  readonly faults: readonly Fault[];
  readonly #lines = new LineCounter();
  readonly #document: Document.Parsed | undefined;

  /** @param text UTF-8, decoded */
  constructor(
    readonly name: string,
    text: string,
  ) {
    const tokens = [...new Parser(this.#lines.addNewLine).parse(text)];
    const excess = excessOf(tokens);
    if (excess) {
      this.values = {};
      this.faults = [this.#at(excess.offset, excess.text)];
      return;
    }
    // Checking keys by pairs, as the composer does, takes minutes for a file of keys.
    const composer = new Composer({ uniqueKeys: false, intAsBigInt: true });
    const [document, second] = [...composer.compose(tokens, true, text.length)] as Document.Parsed[];
    this.#document = document!;
    const faults = [...document!.errors, ...document!.warnings]
      .slice(0, FAULTS_MAX)
      .map(({ pos, message }) => this.#at(pos[0], message.split('\n')[0]!));
    if (second) faults.push(this.#at(second.range[0], 'there is a second document: the file is one'));
    faults.push(...this.#walk());
    const values = faults.length === 0 ? this.#plain(faults) : {};
    this.values = values;
    this.faults = faults.slice(0, FAULTS_MAX);
  }

  /** Reads a file. Throws what the system refuses with, EINVAL when it is too long, no file or not UTF-8. */
  static read(name: string): ConfigFile {
    return new ConfigFile(name, readText(name));
  }

  /** A fault of the value there, or of what is nearest around it. */
  fault(path: Path, text: string, code = 'bad_config'): Fault {
    for (let depth = path.length; depth > 0; depth--) {
      const node = this.#document?.getIn(path.slice(0, depth), true) as { range?: [number] } | undefined;
      if (node?.range) return this.#at(node.range[0], text, code);
    }
    return this.#at(0, text, code);
  }

  #at(offset: number, text: string, code = 'bad_config'): Fault {
    const { line, col } = this.#lines.linePos(offset);
    return { code, text: `${this.name}:${Math.max(1, line)}:${Math.max(1, col)}: ${text}` };
  }

  /** Finds keys that are given twice, and makes numbers that a number cannot hold exactly decimal text. */
  #walk(): Fault[] {
    const faults: Fault[] = [];
    visit(this.#document!, {
      Scalar: (_, scalar) => {
        scalar.value = exact(scalar.value);
      },
      Map: (_, { items }) => {
        const seen = new Set<unknown>();
        for (const { key } of items) {
          if (!isScalar(key)) continue;
          const value = String(key.value);
          if (seen.has(value)) faults.push(this.#at(key.range![0], `${value}: keys must be unique`));
          seen.add(value);
        }
      },
    });
    return faults;
  }

  #plain(faults: Fault[]): unknown {
    try {
      return this.#document!.toJS() ?? {};
    } catch (error) {
      if (!(error instanceof ReferenceError)) throw error;
      faults.push(this.#at(0, error.message));
      return {};
    }
  }
}

function exact(value: unknown): unknown {
  if (typeof value !== 'bigint') return value;
  const number = Number(value);
  return Number.isSafeInteger(number) ? number : value.toString();
}

function unreadable(errno: string, why: string): OverlayError {
  return new OverlayError(errno, 'config_unreadable', `the configuration cannot be read: ${why}`);
}

function readText(name: string): string {
  let bytes: Buffer;
  try {
    bytes = readBytes(name);
  } catch (error) {
    if (error instanceof Untrusted) throw unreadable(error.errno, error.message);
    if (error instanceof OverlayError) throw error;
    const { code = 'EIO', message } = error as NodeJS.ErrnoException;
    throw unreadable(code, message.includes(name) ? message : `${message} (${name})`);
  }
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes);
  } catch {
    throw unreadable('EINVAL', `${name} is not UTF-8 text`);
  }
}

/** Of a regular file alone: a pipe that nobody writes into would hold us up for good, and a device may never end. */
function readBytes(name: string): Buffer {
  const fd = openTrusted(name, constants.O_RDONLY, { isLinkFine: true });
  try {
    const bytes = Buffer.alloc(FILE_BYTES_MAX + 1);
    let length = 0;
    for (;;) {
      const count = readSync(fd, bytes, length, bytes.length - length, null);
      length += count;
      if (length > FILE_BYTES_MAX)
        throw unreadable('EINVAL', `${name} is larger than ${FILE_BYTES_MAX} bytes`);
      if (count === 0) return bytes.subarray(0, length);
    }
  } finally {
    closeSync(fd);
  }
}

/** Where the file is too deep or has too many aliases, found without calling ourselves for each level. */
function excessOf(tokens: readonly CST.Token[]): { offset: number; text: string } | undefined {
  const rest = tokens.map((token) => ({ token, depth: 0 }));
  let aliases = 0;
  for (let next = rest.pop(); next; next = rest.pop()) {
    const { token, depth } = next;
    const { offset } = token as { offset: number };
    if (depth > DEPTH_MAX) return { offset, text: `it is nested deeper than ${DEPTH_MAX} levels` };
    if (token.type === 'alias' && ++aliases > ALIASES_MAX) {
      return { offset, text: `it has more than ${ALIASES_MAX} aliases` };
    }
    for (const inner of innerOf(token)) rest.push({ token: inner, depth: depth + 1 });
  }
  return undefined;
}

function innerOf(token: CST.Token): CST.Token[] {
  if (token.type === 'document') return token.value ? [token.value] : [];
  if (!('items' in token)) return [];
  return token.items.flatMap(({ key, value }) => [key ?? [], value ?? []].flat());
}
