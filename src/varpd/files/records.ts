/** What a mapping file says, read into rows: see `src/varpd/files.ts` for the format. */
import { DESTINATION_IP, DESTINATION_PORT } from '../../encap/plugin.js';
import { OverlayError } from '../../errors.js';
import { checkDestination, ROUTE_DESTINATIONS_MAX } from '../../target/destination.js';
import { formatMac } from '../../target/mac.js';
import { formatIpWords, IP_WORDS, MAC_WORDS, macOf, readIp, readMac } from './address.js';
import { faultAt, type JsonKind, JsonScanner, type Position } from './json.js';
import { OPTION_TEXTS_MAX, OptionTexts, withOptions, withPort } from './option-texts.js';
import { hashWords, Rows } from './rows.js';

/** As many targets as a device can have. */
const MAPPINGS_MAX = 1 << 20;
/** One mapping or the flood list with 1,024 VTEPs, and room for keys that are reserved. Read without a pause. */
const PART_BYTES_MAX = 1 << 20;
/** Hardly one is shorter. Room that is never written costs no memory, moving rows to more room costs time. */
const MAPPING_BYTES = 48;
/** Some hundred mappings, well below a millisecond. */
const STEP_BYTES = 32 * 1024;
/** IP addresses known to be good; more VTEPs than that are only slower. A power of two. */
const CHECKED_SLOTS = 65536;
/** How much of a bad value is repeated. */
const SHOWN_MAX = 64;

/** Words of an endpoint: address, and port with options (`OptionTexts`); the port is 0 where the encapsulation takes none. */
export const ENDPOINT_WORDS = IP_WORDS + 1;
/** First word of a DHCP server's MAC address that is not there. */
export const NO_MAC = 0xffffffff;

/** One of a flood list. Without a port it stands for every endpoint of the file that has the address. */
export interface FloodItem {
  readonly position: Position;
  /** ENDPOINT_WORDS */
  readonly endpoint: Uint32Array;
  readonly hasPort: boolean;
}

export interface Flood {
  readonly position: Position;
  /** Undefined for `true`: all VTEPs of the file. */
  readonly items: readonly FloodItem[] | undefined;
}

/** One row a mapping, in the order of the file; of two with one MAC address the later one counts. */
export interface Records {
  readonly file: string;
  /** DESTINATION_ bits of the encapsulation. */
  readonly kinds: number;
  readonly macs: Rows;
  readonly endpoints: Rows;
  /** What endpoints say of options. */
  readonly options: OptionTexts;
  readonly dhcp: Rows;
  /** Inner IPv4 address (a word) and the number of its mapping. */
  readonly arp: Rows;
  /** Inner IPv6 address (four words) and the number of its mapping. */
  readonly ndp: Rows;
  readonly flood: Flood | undefined;
}

const keys = {
  ip: Buffer.from('ip'),
  port: Buffer.from('port'),
  options: Buffer.from('options'),
  arp: Buffer.from('arp'),
  ndp: Buffer.from('ndp'),
  dhcpProxy: Buffer.from('dhcp-proxy'),
  flood: Buffer.from('flood'),
};

const kindNames: Record<JsonKind, string> = {
  object: 'an object',
  array: 'a list',
  string: 'text',
  number: 'a number',
  true: 'true',
  false: 'false',
  null: 'null',
};

export interface ReadOptions {
  readonly bytes: Buffer;
  /** Name for complaints. */
  readonly file: string;
  readonly kinds: number;
  /** What is wrong with options of a destination, or undefined. */
  readonly optionsFault: (text: string) => string | undefined;
  /** Why the device can never send to a VTEP, undefined when it can. */
  readonly vtepFault: (ip: string) => string | undefined;
  /** Hears of each reserved key that is passed over. */
  readonly onReserved: (key: string, position: Position) => void;
}

/**
 * Reads in small steps; yields how much of the file is read, 0 to 1. Throws EINVAL with line and column, `bad_json`
 * or `bad_mapping`.
 */
export function readRecords(options: ReadOptions): Generator<number, Records> {
  return new RecordReader(options).read();
}

class RecordReader {
  readonly #scanner: JsonScanner;
  readonly #macs: Rows;
  readonly #endpoints: Rows;
  readonly #options = new OptionTexts();
  readonly #dhcp: Rows;
  readonly #arp: Rows;
  readonly #ndp: Rows;
  readonly #needsPort: boolean;
  /** Four words of an address in each slot; zeros are no endpoint's. */
  readonly #checked = new Uint32Array(CHECKED_SLOTS * IP_WORDS);
  readonly #ip = new Uint32Array(IP_WORDS);
  readonly #mac = new Uint32Array(MAC_WORDS);

  constructor(readonly options: ReadOptions) {
    const { bytes, file, kinds } = options;
    this.#scanner = new JsonScanner(bytes, file, PART_BYTES_MAX);
    this.#needsPort = (kinds & DESTINATION_PORT) !== 0;
    const capacity = Math.min(MAPPINGS_MAX, Math.ceil(bytes.length / MAPPING_BYTES));
    this.#macs = new Rows(MAC_WORDS, capacity);
    this.#endpoints = new Rows(ENDPOINT_WORDS, capacity);
    this.#dhcp = new Rows(MAC_WORDS, capacity);
    this.#arp = new Rows(2, capacity);
    this.#ndp = new Rows(IP_WORDS + 1, capacity);
  }

  *read(): Generator<number, Records> {
    const { bytes, file, kinds } = this.options;
    const scanner = this.#scanner;
    let flood: Flood | undefined;
    let nextStep = STEP_BYTES;
    if (bytes.length === 0) {
      throw this.#fault('the file is empty; without mappings it holds {}', { line: 1, column: 1 });
    }
    const kind = scanner.kind();
    if (kind !== 'object') throw this.#fault(`the file must hold one JSON object, not ${kindNames[kind]}`);
    scanner.enter();
    for (let first = true; scanner.member(first); first = false) {
      scanner.beginPart();
      if (this.#isKey(keys.flood)) flood = this.#flood();
      else this.#mapping();
      if (scanner.offset < nextStep) continue;
      nextStep = scanner.offset + STEP_BYTES;
      yield scanner.offset / bytes.length;
    }
    scanner.finish();
    return {
      file,
      kinds,
      macs: this.#macs,
      endpoints: this.#endpoints,
      options: this.#options,
      dhcp: this.#dhcp,
      arp: this.#arp,
      ndp: this.#ndp,
      flood,
    };
  }

  #mapping(): void {
    const scanner = this.#scanner;
    const keyAt = scanner.position;
    if (!this.#tokenMac()) {
      throw this.#fault(`this key is not a MAC address such as 2:8:20:1:2:3`, keyAt);
    }
    const row = this.#macs.count;
    if (row === MAPPINGS_MAX) throw this.#fault(`there are more than ${MAPPINGS_MAX} mappings`, keyAt);
    this.#macs.append(this.#mac);
    const name = (): string => formatMac(macOf(this.#macs.words, row * MAC_WORDS));
    const kind = scanner.kind();
    if (kind !== 'object') {
      throw this.#fault(`the value of ${name()} must be an object such as {"ip": "192.0.2.1"}`);
    }
    const endpoint = this.#endpoints.push();
    const dhcp = this.#dhcp.push();
    this.#dhcp.words[dhcp] = NO_MAC;
    let hasIp = false;
    let hasPort = false;
    let arp: number | undefined;
    let hasNdp = false;
    scanner.enter();
    for (let first = true; scanner.member(first); first = false) {
      if (this.#isKey(keys.ip)) {
        this.#underlayIp('ip');
        this.#endpoints.words.set(this.#ip, endpoint);
        hasIp = true;
      } else if (this.#isKey(keys.port)) {
        const port = this.#port();
        if (this.#needsPort) {
          const word = this.#endpoints.words[endpoint + IP_WORDS]!;
          this.#endpoints.words[endpoint + IP_WORDS] = withPort(word, port);
        }
        hasPort = true;
      } else if (this.#isKey(keys.options)) {
        const word = this.#endpoints.words[endpoint + IP_WORDS]!;
        this.#endpoints.words[endpoint + IP_WORDS] = withOptions(word, this.#optionsNumber());
      } else if (this.#isKey(keys.arp)) {
        this.#innerIp('arp', 4, '10.0.0.1');
        arp = this.#ip[IP_WORDS - 1]!;
      } else if (this.#isKey(keys.ndp)) {
        this.#innerIp('ndp', 6, 'fd00::1');
        // A key that is there twice: the last one counts.
        const at = hasNdp ? (this.#ndp.count - 1) * this.#ndp.width : this.#ndp.push();
        this.#ndp.words.set(this.#ip, at);
        this.#ndp.words[at + IP_WORDS] = row;
        hasNdp = true;
      } else if (this.#isKey(keys.dhcpProxy)) {
        this.#string('dhcp-proxy', 'the MAC address of a DHCP server');
        if (!this.#tokenMac()) {
          throw this.#fault(
            `the value of "dhcp-proxy" must be a MAC address such as 2:8:20:1:2:3, not this text`,
          );
        }
        this.#dhcp.words.set(this.#mac, dhcp);
      } else this.#reserved();
    }
    if (!hasIp) throw this.#fault(`the mapping of ${name()} has no "ip"`, keyAt);
    if (!hasPort && this.#needsPort) {
      throw this.#fault(`the mapping of ${name()} has no "port", which the encapsulation needs`, keyAt);
    }
    if (arp === undefined) return;
    const at = this.#arp.push();
    this.#arp.words[at] = arp;
    this.#arp.words[at + 1] = row;
  }

  #flood(): Flood | undefined {
    const scanner = this.#scanner;
    const kind = scanner.kind();
    const { position } = scanner;
    if (kind === 'true' || kind === 'false') {
      scanner.word(kind);
      return kind === 'true' ? { position, items: undefined } : undefined;
    }
    if (kind !== 'array') {
      throw this.#fault(
        `the value of "flood" must be true, false or a list of VTEPs, not ${kindNames[kind]}`,
      );
    }
    const items: FloodItem[] = [];
    scanner.enter();
    for (let first = true; scanner.element(first); first = false) {
      const item = this.#floodItem();
      if (items.length === ROUTE_DESTINATIONS_MAX) {
        throw this.#fault(`a flood list has at most ${ROUTE_DESTINATIONS_MAX} VTEPs`, item.position);
      }
      items.push(item);
    }
    return { position, items };
  }

  /** `"192.0.2.1"` or `{"ip": "192.0.2.1", "port": 4789}`. */
  #floodItem(): FloodItem {
    const scanner = this.#scanner;
    const kind = scanner.kind();
    const { position } = scanner;
    const endpoint = new Uint32Array(ENDPOINT_WORDS);
    if (kind !== 'object') {
      this.#underlayIp('flood');
      endpoint.set(this.#ip);
      return { position, endpoint, hasPort: !this.#needsPort };
    }
    let hasIp = false;
    let hasPort = !this.#needsPort;
    scanner.enter();
    for (let first = true; scanner.member(first); first = false) {
      if (this.#isKey(keys.ip)) {
        this.#underlayIp('ip');
        endpoint.set(this.#ip);
        hasIp = true;
      } else if (this.#isKey(keys.port)) {
        const port = this.#port();
        if (this.#needsPort) endpoint[IP_WORDS] = port;
        hasPort = true;
      } else if (this.#isKey(keys.options)) {
        throw this.#fault(
          'a VTEP of the flood list has no "options": what is flooded has those of a property, the same for all',
        );
      } else this.#reserved();
    }
    if (!hasIp) throw this.#fault('this VTEP of the flood list has no "ip"', position);
    return { position, endpoint, hasPort };
  }

  /** The next value into `#ip`: an address to which frames can be sent. */
  #underlayIp(key: string): void {
    this.#string(key, 'an IP address of the underlay');
    if (this.#tokenIp() === 0) {
      throw this.#fault(`the value of "${key}" must be an IPv4 or IPv6 address, not this text`);
    }
    const slot = (hashWords(this.#ip, 0, IP_WORDS) & (CHECKED_SLOTS - 1)) * IP_WORDS;
    let word = 0;
    while (word < IP_WORDS && this.#checked[slot + word] === this.#ip[word]) word++;
    if (word === IP_WORDS && this.#ip.some((value) => value !== 0)) return;
    try {
      checkDestination({ ip: formatIpWords(this.#ip, 0) }, DESTINATION_IP);
    } catch (error) {
      if (!(error instanceof OverlayError)) throw error;
      throw this.#fault(`the value of "${key}" is not usable: ${error.message}`);
    }
    const fault = this.options.vtepFault(formatIpWords(this.#ip, 0));
    if (fault !== undefined) throw this.#fault(`the value of "${key}" is not usable: ${fault}`);
    this.#checked.set(this.#ip, slot);
  }

  /** The next value into `#ip`: an address of the overlay. */
  #innerIp(key: string, family: 4 | 6, example: string): void {
    this.#string(key, `an IPv${family} address of the overlay`);
    if (this.#tokenIp() === family) return;
    throw this.#fault(
      `the value of "${key}" must be an IPv${family} address such as ${example}, not this text`,
    );
  }

  #port(): number {
    const scanner = this.#scanner;
    const kind = scanner.kind();
    if (kind !== 'number') {
      throw this.#fault(`the value of "port" must be a number, 1 to 65535, not ${kindNames[kind]}`);
    }
    const port = scanner.number();
    if (!Number.isInteger(port) || port < 1 || port > 65535) {
      throw this.#fault('the value of "port" must be 1 to 65535');
    }
    return port;
  }

  /** Number of the options that are the next value. */
  #optionsNumber(): number {
    this.#string('options', 'such as 0102:3:0a0b0c0d');
    const text = this.#scanner.text();
    const known = this.#options.numberOf(text);
    if (known !== undefined) return known;
    const fault = this.options.optionsFault(text);
    if (fault !== undefined) throw this.#fault(`the value of "options" is not usable: ${fault}`);
    const number = this.#options.add(text);
    if (number !== undefined) return number;
    throw this.#fault(`the mappings have more than ${OPTION_TEXTS_MAX} different "options"`);
  }

  #string(key: string, what: string): void {
    const kind = this.#scanner.kind();
    if (kind !== 'string') {
      throw this.#fault(`the value of "${key}" must be text, ${what}, not ${kindNames[kind]}`);
    }
    this.#scanner.string();
  }

  #reserved(): void {
    this.options.onReserved(this.#scanner.text().slice(0, SHOWN_MAX), this.#scanner.position);
    this.#scanner.skip();
  }

  /** The last string is this key. */
  #isKey(key: Buffer): boolean {
    const { bytes, tokenStart, tokenEnd, hasEscapes } = this.#scanner;
    if (hasEscapes) return this.#scanner.text() === key.toString();
    if (tokenEnd - tokenStart !== key.length) return false;
    for (let at = 0; at < key.length; at++) if (bytes[tokenStart + at] !== key[at]) return false;
    return true;
  }

  /** The last string into `#mac`. */
  #tokenMac(): boolean {
    const { bytes, tokenStart, tokenEnd, hasEscapes } = this.#scanner;
    if (!hasEscapes) return readMac(bytes, tokenStart, tokenEnd, this.#mac);
    const text = Buffer.from(this.#scanner.text());
    return readMac(text, 0, text.length, this.#mac);
  }

  /** The last string into `#ip`; the family in which it is written, or 0. */
  #tokenIp(): 0 | 4 | 6 {
    const { bytes, tokenStart, tokenEnd, hasEscapes } = this.#scanner;
    if (!hasEscapes) return readIp(bytes, tokenStart, tokenEnd, this.#ip);
    const text = Buffer.from(this.#scanner.text());
    return readIp(text, 0, text.length, this.#ip);
  }

  #fault(sentence: string, position: Position = this.#scanner.position): OverlayError {
    return faultAt(this.options.file, position, 'bad_mapping', sentence);
  }
}
