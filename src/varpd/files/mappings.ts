/** The mappings of one file, ready to be asked. Never changed: a changed file makes new ones. */
import { DESTINATION_IP, DESTINATION_PORT } from '../../encap/plugin.js';
import type { OverlayError } from '../../errors.js';
import { type Destination, formatDestination, ROUTE_DESTINATIONS_MAX } from '../../target/destination.js';
import { formatMac, parseMac } from '../../target/mac.js';
import { formatIpWords, IP_WORDS, ipWords, MAC_WORDS, macOf, macWords } from './address.js';
import { faultAt, type Position } from './json.js';
import { type OptionTexts, portOf } from './option-texts.js';
import { ENDPOINT_WORDS, type FloodItem, NO_MAC, type Records } from './records.js';
import { RowIndex, Rows } from './rows.js';

/** Rows between two pauses: well below a millisecond. */
const STEP_ROWS = 4096;

export interface MappingParts {
  /** DESTINATION_ bits of the encapsulation. */
  readonly kinds: number;
  /** By MAC address: the mappings that count. */
  readonly macs: RowIndex;
  /** Rows of the file, those that do not count included. */
  readonly rows: number;
  /** Of each row, its number in `vteps`. */
  readonly vtepOf: Uint32Array;
  /** Of each row, the MAC address of its DHCP server. */
  readonly dhcp: Uint32Array;
  /** What endpoints say of options. */
  readonly options: OptionTexts;
  /** Different endpoints, the flood list's included, by address: the first one of each address is entered. */
  readonly vteps: RowIndex;
  readonly vtepCount: number;
  readonly arp: RowIndex;
  readonly arpRows: number;
  readonly ndp: RowIndex;
  /** Where broadcast and multicast go; empty for nowhere. */
  readonly flood: readonly Destination[];
}

export class Mappings {
  constructor(readonly parts: MappingParts) {}

  /** MAC addresses that have a mapping. */
  get count(): number {
    return this.parts.macs.count;
  }

  /** Where a MAC address (canonical text) is. */
  destination(mac: string): Destination | undefined {
    const row = this.rowOf(macWords(parseMac(mac)));
    if (row < 0) return undefined;
    const { vteps, vtepOf, kinds } = this.parts;
    const options = this.optionsOf(row);
    return {
      ...destinationOf(vteps.words, vtepOf[row]!, kinds),
      ...(options === undefined ? {} : { options }),
    };
  }

  /** Options of a row's own destination. */
  optionsOf(row: number): string | undefined {
    const { vteps, vtepOf, options } = this.parts;
    return options.of(vteps.words[vtepOf[row]! * ENDPOINT_WORDS + IP_WORDS]!);
  }

  /** DHCP server of a MAC address, both canonical text. */
  dhcpServer(mac: string): string | undefined {
    const row = this.rowOf(macWords(parseMac(mac)));
    const at = row * MAC_WORDS;
    if (row < 0 || this.parts.dhcp[at] === NO_MAC) return undefined;
    return formatMac(macOf(this.parts.dhcp, at));
  }

  /** MAC address of the first mapping of the file that owns the inner address. */
  owner(family: 4 | 6, ip: string): string | undefined {
    const words = ipWords(ip);
    const mac = family === 4 ? this.arpOwner(words, IP_WORDS - 1) : this.#ndpOwner(words);
    return mac === undefined ? undefined : formatMac(mac);
  }

  /** Addresses of all VTEPs, each once. */
  peers(): string[] {
    const { vteps, vtepCount } = this.parts;
    const ips: string[] = [];
    for (let vtep = 0; vtep < vtepCount; vtep++) {
      if (this.isFirstOfIp(vtep)) ips.push(formatIpWords(vteps.words, vtep * ENDPOINT_WORDS));
    }
    return ips;
  }

  /** Row of a MAC address whose words are at `at`, or -1. */
  rowOf(mac: Uint32Array, at = 0): number {
    return this.parts.macs.find(mac, at);
  }

  /** False for a row that another one with the same MAC address has replaced. */
  counts(row: number): boolean {
    return this.count === this.parts.rows || this.rowOf(this.parts.macs.words, row * MAC_WORDS) === row;
  }

  /** Number of the MAC address that owns an inner IPv4 address. */
  arpOwner(words: Uint32Array, at: number): number | undefined {
    const { arp, macs } = this.parts;
    const row = arp.find(words, at);
    return row < 0 ? undefined : macOf(macs.words, arp.words[row * arp.stride + 1]! * MAC_WORDS);
  }

  /** The first endpoint with its address. */
  isFirstOfIp(vtep: number): boolean {
    return this.parts.vteps.find(this.parts.vteps.words, vtep * ENDPOINT_WORDS) === vtep;
  }

  #ndpOwner(words: Uint32Array): number | undefined {
    const { ndp, macs } = this.parts;
    const row = ndp.find(words);
    return row < 0 ? undefined : macOf(macs.words, ndp.words[row * ndp.stride + IP_WORDS]! * MAC_WORDS);
  }
}

/**
 * Mappings of what was read, in small steps; yields how much is done, 0 to 1. The records are used up. Throws EINVAL,
 * `bad_mapping`, for a flood list that cannot be.
 *
 * @param localIp this host's own VTEP, left out of floods
 */
export function* indexRecords(records: Records, localIp: string | undefined): Generator<number, Mappings> {
  const { macs: macRows, endpoints, kinds } = records;
  const rows = macRows.count;
  const total = rows * 4 + 1;
  const macs = new RowIndex(macRows.trimmed(), MAC_WORDS, MAC_WORDS, rows);
  for (let row = 0; row < rows; row++) {
    macs.replace(row);
    if (row % STEP_ROWS === 0) yield row / total;
  }
  const hasReplaced = macs.count < rows;
  const counts = (row: number): boolean => !hasReplaced || macs.find(macs.words, row * MAC_WORDS) === row;

  // The flood list's own endpoints come behind those of the mappings.
  for (const { endpoint, hasPort } of records.flood?.items ?? []) {
    if (hasPort) endpoints.append(endpoint);
  }
  const vtepOf = new Uint32Array(endpoints.count);
  const vtepRows = new Rows(ENDPOINT_WORDS);
  const different = new RowIndex(endpoints.words, ENDPOINT_WORDS, ENDPOINT_WORDS, endpoints.count);
  for (let row = 0; row < endpoints.count; row++) {
    if (row % STEP_ROWS === 0) yield (rows + row) / total;
    if (row < rows && !counts(row)) continue;
    const same = different.add(row);
    if (same === row) {
      vtepOf[row] = vtepRows.count;
      const at = row * ENDPOINT_WORDS;
      vtepRows.append(endpoints.words.subarray(at, at + ENDPOINT_WORDS));
    } else vtepOf[row] = vtepOf[same]!;
  }
  const vteps = new RowIndex(vtepRows.trimmed(), ENDPOINT_WORDS, IP_WORDS, vtepRows.count);
  for (let vtep = 0; vtep < vtepRows.count; vtep++) {
    vteps.add(vtep);
    if (vtep % STEP_ROWS === 0) yield (rows * 2 + vtep) / total;
  }

  const arp = new RowIndex(records.arp.trimmed(), 2, 1, records.arp.count);
  const ndp = new RowIndex(records.ndp.trimmed(), IP_WORDS + 1, IP_WORDS, records.ndp.count);
  for (const [step, index, count] of [
    [0, arp, records.arp.count],
    [0.5, ndp, records.ndp.count],
  ] as const) {
    for (let row = 0; row < count; row++) {
      // The first one with an address is its owner.
      if (counts(index.words[row * index.stride + index.width]!)) index.add(row);
      if (row % STEP_ROWS === 0) yield (rows * (3 + step) + row / 2) / total;
    }
  }

  const flood = yield* floodOf(records, vteps, vtepRows.count, localIp);
  return new Mappings({
    kinds,
    macs,
    rows,
    vtepOf,
    options: records.options,
    dhcp: records.dhcp.trimmed(),
    vteps,
    vtepCount: vtepRows.count,
    arp,
    arpRows: records.arp.count,
    ndp,
    flood,
  });
}

function* floodOf(
  { flood, file, kinds }: Records,
  vteps: RowIndex,
  vtepCount: number,
  localIp: string | undefined,
): Generator<number, Destination[]> {
  if (!flood) return [];
  const fault = (position: Position, sentence: string): OverlayError =>
    faultAt(file, position, 'bad_mapping', sentence);
  const local = localIp === undefined ? undefined : ipWords(localIp);
  const isLocal = (words: Uint32Array, at: number): boolean =>
    local?.every((word, index) => word === words[at + index]) ?? false;
  const found = new Map<string, Destination>();
  const add = (words: Uint32Array, vtep: number, position: Position): void => {
    if (isLocal(words, vtep * ENDPOINT_WORDS)) return;
    const destination = destinationOf(words, vtep, kinds);
    found.set(formatDestination(destination), destination);
    if (found.size > ROUTE_DESTINATIONS_MAX) {
      throw fault(
        position,
        `"flood" comes to more than ${ROUTE_DESTINATIONS_MAX} VTEPs; list those that need it`,
      );
    }
  };
  if (!flood.items) {
    for (let vtep = 0; vtep < vtepCount; vtep++) {
      add(vteps.words, vtep, flood.position);
      if (vtep % STEP_ROWS === 0) yield 1;
    }
    return [...found.values()];
  }
  const ofBare = yield* endpointsOf(flood.items, vteps, vtepCount);
  for (const item of flood.items) {
    if (item.hasPort) {
      add(item.endpoint, 0, item.position);
      continue;
    }
    const ip = formatIpWords(item.endpoint, 0);
    const known = ofBare.get(ip)!;
    if (known.length === 0) {
      throw fault(
        item.position,
        `no mapping has the VTEP ${ip}, so its port is not known; write {"ip": "${ip}", "port": 4789}`,
      );
    }
    for (const vtep of known) add(vteps.words, vtep, item.position);
  }
  return [...found.values()];
}

/** For the addresses that are listed without a port: the endpoints that have them. */
function* endpointsOf(
  items: readonly FloodItem[],
  vteps: RowIndex,
  vtepCount: number,
): Generator<number, Map<string, number[]>> {
  const bare = items.filter(({ hasPort }) => !hasPort);
  const wanted = new Map(bare.map(({ endpoint }): [string, number[]] => [formatIpWords(endpoint, 0), []]));
  const rows = new Rows(IP_WORDS, bare.length);
  for (const { endpoint } of bare) rows.append(endpoint.subarray(0, IP_WORDS));
  const index = new RowIndex(rows.words, IP_WORDS, IP_WORDS, bare.length);
  for (let row = 0; row < bare.length; row++) index.add(row);
  for (let vtep = 0; vtep < vtepCount; vtep++) {
    const at = vtep * ENDPOINT_WORDS;
    if (index.find(vteps.words, at) >= 0) wanted.get(formatIpWords(vteps.words, at))!.push(vtep);
    if (vtep % STEP_ROWS === 0) yield 1;
  }
  return wanted;
}

/** The endpoint with that number, with exactly the parts of `kinds` and without options: what is flooded has none of its own. */
function destinationOf(endpoints: Uint32Array, number: number, kinds: number): Destination {
  const at = number * ENDPOINT_WORDS;
  return {
    ...(kinds & DESTINATION_IP ? { ip: formatIpWords(endpoints, at) } : {}),
    ...(kinds & DESTINATION_PORT ? { port: portOf(endpoints[at + IP_WORDS]!) } : {}),
  };
}
