/**
 * Reads JSON (RFC 8259) from bytes, one value at a time, without building it: a file of a million mappings never
 * becomes a million objects, and every complaint has a line and a column. What is accepted is what JSON.parse accepts,
 * in UTF-8, with bounds on depth and length.
 */
import { OverlayError } from '../../errors.js';

/** Objects and arrays within one another; the format needs four. */
const DEPTH_MAX = 64;

export type JsonKind = 'object' | 'array' | 'string' | 'number' | 'true' | 'false' | 'null';

/** Both from 1; columns count code points, as editors do. */
export interface Position {
  readonly line: number;
  readonly column: number;
}

const QUOTE = 0x22;
const PLUS = 0x2b;
const COMMA = 0x2c;
const MINUS = 0x2d;
const POINT = 0x2e;
const ZERO = 0x30;
const NINE = 0x39;
const COLON = 0x3a;
const ARRAY = 0x5b;
const BACKSLASH = 0x5c;
const ARRAY_END = 0x5d;
const OBJECT = 0x7b;
const OBJECT_END = 0x7d;
const BYTE_ORDER_MARK = Buffer.from('\ufeff');
const NEWLINE = 0x0a;
const RETURN = 0x0d;
const TAB = 0x09;
const SPACE = 0x20;
const UNICODE_ESCAPE = 0x75;
/** What may follow a backslash, besides `u`. */
const escapes = new Set(Buffer.from('"\\/bfnrt'));
/** What JSON itself is made of. */
const marks = new Set(Buffer.from('{}[]:,"'));
const words = { true: Buffer.from('true'), false: Buffer.from('false'), null: Buffer.from('null') };

const isDigit = (byte: number): boolean => byte >= ZERO && byte <= NINE;
const isHexDigit = (byte: number): boolean =>
  isDigit(byte) || (byte >= 0x41 && byte <= 0x46) || (byte >= 0x61 && byte <= 0x66);
const isContinuation = (byte: number): boolean => byte >= 0x80 && byte <= 0xbf;

/** `file:line:column: sentence`, EINVAL. */
export function faultAt(
  file: string,
  { line, column }: Position,
  code: 'bad_json' | 'bad_mapping',
  sentence: string,
): OverlayError {
  return new OverlayError('EINVAL', code, `${file}:${line}:${column}: ${sentence}`);
}

/**
 * The caller says what comes next and is refused (EINVAL, `bad_json`) where something else is there:
 *
 *   value:  kind(), then one of enter() for objects and arrays, string(), number(), word(), skip()
 *   object: enter(); for (let first = true; member(first); first = false) { the key is the token; read a value }
 *   array:  enter(); for (let first = true; element(first); first = false) { read a value }
 *   end:    finish()
 */
export class JsonScanner {
  /** The text of the last string (without its quotes) or number in the bytes. */
  tokenStart = 0;
  tokenEnd = 0;
  /** The last string has escapes: only `text` knows what it stands for. */
  hasEscapes = false;
  #at = 0;
  #end: number;
  #line = 1;
  #lineStart = 0;
  /** Bytes of this line that are no code point's first. */
  #continuations = 0;
  #depth = 0;
  #tokenLine = 1;
  #tokenColumn = 1;
  /** Where the part began whose length is bounded, and how long it may be. */
  #part: Position = { line: 1, column: 1 };
  #partBytesMax: number;

  /**
   * @param file its name, for complaints
   * @param partBytesMax how much may be read from one `beginPart` to the next
   */
  constructor(
    readonly bytes: Buffer,
    readonly file: string,
    partBytesMax: number,
  ) {
    this.#partBytesMax = partBytesMax;
    this.#end = Math.min(bytes.length, partBytesMax);
  }

  /** Bytes read so far. */
  get offset(): number {
    return this.#at;
  }

  /** Where the last key, string, number or looked-at value begins. */
  get position(): Position {
    return { line: this.#tokenLine, column: this.#tokenColumn };
  }

  /** The bound on length starts anew, with the last token. */
  beginPart(): void {
    this.#part = this.position;
    this.#end = Math.min(this.bytes.length, this.#at + this.#partBytesMax);
  }

  /** What value comes next. */
  kind(): JsonKind {
    this.#space();
    this.#mark();
    switch (this.#byte('a value')) {
      case OBJECT:
        return 'object';
      case ARRAY:
        return 'array';
      case QUOTE:
        return 'string';
      case 0x74:
        return 'true';
      case 0x66:
        return 'false';
      case 0x6e:
        return 'null';
      default:
        if (this.#peek() === MINUS || isDigit(this.#peek())) return 'number';
        if (this.#isByteOrderMark()) {
          throw this.#fault('the file begins with a byte order mark (U+FEFF): save it as UTF-8 without one');
        }
        throw this.#unexpected('a value');
    }
  }

  /** Into the object or array that `kind` has seen. */
  enter(): void {
    if (this.#depth === DEPTH_MAX) {
      throw this.#fault(`objects and arrays are nested more than ${DEPTH_MAX} deep`);
    }
    this.#depth++;
    this.#at++;
  }

  /** To the next member of an object: true, and the key is the token; false behind the object's end. */
  member(isFirst: boolean): boolean {
    if (this.#isOver(isFirst, OBJECT_END, '}')) return false;
    this.#space();
    const expected = isFirst ? `a key in double quotes or '}'` : 'a key in double quotes';
    if (this.#byte(expected) !== QUOTE) throw this.#unexpected(expected);
    this.string();
    this.#space();
    if (this.#byte(`':' behind the key`) !== COLON) throw this.#unexpected(`':' behind the key`);
    this.#at++;
    return true;
  }

  /** To the next element of an array: false behind the array's end. */
  element(isFirst: boolean): boolean {
    return !this.#isOver(isFirst, ARRAY_END, ']');
  }

  /** Over the string that `kind` has seen. */
  string(): void {
    this.#mark();
    this.#at++;
    this.tokenStart = this.#at;
    this.hasEscapes = false;
    for (;;) {
      if (this.#at >= this.#end) throw this.#cut('this string has no closing quote', true);
      const byte = this.#peek();
      if (byte === QUOTE) break;
      if (byte < SPACE) {
        throw this.#fault(
          `a control character (${codePoint(byte)}) must be written as an escape in a string`,
        );
      }
      if (byte === BACKSLASH) this.#escape();
      else if (byte < 0x80) this.#at++;
      else this.#utf8();
    }
    this.tokenEnd = this.#at;
    this.#at++;
  }

  /** What the last string stands for. */
  text(): string {
    if (!this.hasEscapes) return this.bytes.toString('utf8', this.tokenStart, this.tokenEnd);
    return JSON.parse(this.bytes.toString('utf8', this.tokenStart - 1, this.tokenEnd + 1)) as string;
  }

  /** The number that `kind` has seen. */
  number(): number {
    this.tokenStart = this.#at;
    if (this.#peek() === MINUS) this.#at++;
    if (this.#at < this.#end && this.#peek() === ZERO) this.#at++;
    else this.#digits();
    if (this.#at < this.#end && this.#peek() === POINT) {
      this.#at++;
      this.#digits();
    }
    if (this.#at < this.#end && (this.#peek() | 0x20) === 0x65) {
      this.#at++;
      if (this.#at < this.#end && (this.#peek() === PLUS || this.#peek() === MINUS)) this.#at++;
      this.#digits();
    }
    this.tokenEnd = this.#at;
    return Number(this.bytes.toString('latin1', this.tokenStart, this.tokenEnd));
  }

  /** Over the `true`, `false` or `null` that `kind` has seen. */
  word(kind: 'true' | 'false' | 'null'): void {
    for (const byte of words[kind]) {
      if (this.#byte(`'${kind}'`) !== byte) throw this.#unexpected(`'${kind}'`);
      this.#at++;
    }
  }

  /** Over the next value, whatever it is. */
  skip(): void {
    const kind = this.kind();
    switch (kind) {
      case 'object':
        this.enter();
        for (let first = true; this.member(first); first = false) this.skip();
        break;
      case 'array':
        this.enter();
        for (let first = true; this.element(first); first = false) this.skip();
        break;
      case 'string':
        this.string();
        break;
      case 'number':
        this.number();
        break;
      default:
        this.word(kind);
    }
  }

  /** Only whitespace may be left. */
  finish(): void {
    this.#space();
    if (this.#at === this.bytes.length) return;
    if (this.#at === this.#end) throw this.#cut('', false);
    throw this.#fault(`only whitespace may follow the value that ends before ${this.#shown()}`);
  }

  /** Some editors put U+FEFF in front of a file, which RFC 8259 section 8.1 forbids. */
  #isByteOrderMark(): boolean {
    return this.#at === 0 && this.bytes.subarray(0, 3).equals(BYTE_ORDER_MARK);
  }

  #here(): Position {
    return { line: this.#line, column: this.#at - this.#lineStart - this.#continuations + 1 };
  }

  #mark(): void {
    this.#tokenLine = this.#line;
    this.#tokenColumn = this.#at - this.#lineStart - this.#continuations + 1;
  }

  #peek(): number {
    return this.bytes[this.#at]!;
  }

  #byte(expected: string): number {
    if (this.#at >= this.#end) throw this.#cut(`the file ends where ${expected} is expected`, false);
    return this.#peek();
  }

  #space(): void {
    for (; this.#at < this.#end; this.#at++) {
      const byte = this.#peek();
      if (byte === NEWLINE) {
        this.#line++;
        this.#lineStart = this.#at + 1;
        this.#continuations = 0;
      } else if (byte !== SPACE && byte !== TAB && byte !== RETURN) return;
    }
  }

  /** Over the comma, or over the end: true. */
  #isOver(isFirst: boolean, end: number, endText: string): boolean {
    this.#space();
    const expected = isFirst ? `a value or '${endText}'` : `',' or '${endText}'`;
    const byte = this.#byte(expected);
    if (byte === end) {
      this.#at++;
      this.#depth--;
      return true;
    }
    if (isFirst) return false;
    if (byte !== COMMA) throw this.#unexpected(expected);
    this.#at++;
    return false;
  }

  #digits(): void {
    if (!isDigit(this.#byte('a digit'))) throw this.#unexpected('a digit');
    while (this.#at < this.#end && isDigit(this.#peek())) this.#at++;
  }

  #escape(): void {
    this.hasEscapes = true;
    this.#at++;
    const byte = this.#byte('the rest of an escape');
    if (byte === UNICODE_ESCAPE) {
      this.#at++;
      for (let digit = 0; digit < 4; digit++, this.#at++) {
        if (!isHexDigit(this.#byte('a hexadecimal digit'))) {
          throw this.#unexpected(String.raw`a hexadecimal digit (\u has four of them)`);
        }
      }
    } else if (escapes.has(byte)) this.#at++;
    else throw this.#unexpected(String.raw`one of "\/bfnrtu behind the backslash`);
  }

  /** Over one character of two to four bytes (RFC 3629 section 4). */
  #utf8(): void {
    const first = this.#peek();
    const second = this.bytes[this.#at + 1] ?? 0;
    const length = first >= 0xc2 && first <= 0xdf ? 2 : first >= 0xe0 && first <= 0xef ? 3 : 4;
    const isTooLong = (first === 0xe0 && second < 0xa0) || (first === 0xf0 && second < 0x90);
    const isSurrogate = first === 0xed && second > 0x9f;
    const isTooHigh = first > 0xf4 || (first === 0xf4 && second > 0x8f);
    let isValid = first >= 0xc2 && !isTooLong && !isSurrogate && !isTooHigh;
    for (let at = 1; at < length; at++) isValid &&= isContinuation(this.bytes[this.#at + at] ?? 0);
    if (!isValid) throw this.#fault('the file is not UTF-8 here');
    this.#at += length;
    this.#continuations += length - 1;
  }

  /** The character at hand, by its kind: whoever reads the complaint may not read the file. */
  #shown(): string {
    const byte = this.#peek();
    if (marks.has(byte)) return `'${String.fromCharCode(byte)}'`;
    if (isDigit(byte)) return 'a digit';
    if ((byte | 0x20) >= 0x61 && (byte | 0x20) <= 0x7a) return 'a letter';
    return 'another character';
  }

  #unexpected(expected: string): OverlayError {
    return this.#fault(`${expected} is expected, not ${this.#shown()}`);
  }

  #fault(sentence: string): OverlayError {
    return faultAt(this.file, this.#here(), 'bad_json', sentence);
  }

  /** The end of the file, or of what one part may be long. */
  #cut(sentence: string, isAtToken: boolean): OverlayError {
    if (this.#end < this.bytes.length) {
      const most = `${this.#partBytesMax} bytes`;
      return faultAt(this.file, this.#part, 'bad_json', `what begins here goes on for more than ${most}`);
    }
    return faultAt(this.file, isAtToken ? this.position : this.#here(), 'bad_json', sentence);
  }
}

function codePoint(value: number): string {
  return `U+${value.toString(16).toUpperCase().padStart(4, '0')}`;
}
