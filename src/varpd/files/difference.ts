/** What a changed file means for the target cache, the guests and the peers. */
import { formatDestination } from '../../target/destination.js';
import { formatMac } from '../../target/mac.js';
import { formatIpWords, IP_WORDS, MAC_WORDS, macOf } from './address.js';
import type { Mappings } from './mappings.js';
import { portOf } from './option-texts.js';
import { ENDPOINT_WORDS } from './records.js';

/** Above that many changed targets it is cheaper to ask about all of them again. */
export const CHANGES_MAX = 10_000;
/** Guests are told of that many moved addresses; each costs every one of them a frame. */
export const MOVES_MAX = 1000;
/** Rows between two pauses: well below a millisecond. */
const STEP_ROWS = 1024;

export interface Difference {
  /** MAC addresses (canonical text) whose destination changed, vanished or appeared; undefined: all of them. */
  readonly changed: readonly string[] | undefined;
  /** Inner IPv4 addresses that another MAC address owns now. */
  readonly moved: readonly { readonly mac: string; readonly ip: string }[];
  /** There are more of those. */
  readonly isMovedCut: boolean;
  readonly arePeersOther: boolean;
}

/** Compares in small steps; yields how much is done, 0 to 1. */
export function* compare(before: Mappings, after: Mappings): Generator<number, Difference> {
  const changed = isFloodOther(before, after) ? undefined : yield* changedMacs(before, after);
  const { moved, isMovedCut } = yield* movedIps(before, after);
  return { changed, moved, isMovedCut, arePeersOther: yield* arePeersOther(before, after) };
}

function isFloodOther(before: Mappings, after: Mappings): boolean {
  const known = new Set(before.parts.flood.map(formatDestination));
  const { flood } = after.parts;
  return (
    flood.length !== known.size || flood.some((destination) => !known.has(formatDestination(destination)))
  );
}

function* changedMacs(before: Mappings, after: Mappings): Generator<number, string[] | undefined> {
  const changed: string[] = [];
  // Changed or vanished first, then what has appeared: it may be remembered as unknown.
  for (const [from, to, isBack] of [
    [before, after, false],
    [after, before, true],
  ] as const) {
    const { words } = from.parts.macs;
    for (let row = 0; row < from.parts.rows; row++) {
      if (row % STEP_ROWS === 0) yield row / from.parts.rows / 4 + (isBack ? 0.25 : 0);
      if (!from.counts(row)) continue;
      const other = to.rowOf(words, row * MAC_WORDS);
      if (other >= 0 && (isBack || isSameVtep(from, row, to, other))) continue;
      changed.push(formatMac(macOf(words, row * MAC_WORDS)));
      if (changed.length > CHANGES_MAX) return undefined;
    }
  }
  return changed;
}

function isSameVtep(from: Mappings, fromRow: number, to: Mappings, toRow: number): boolean {
  const fromAt = from.parts.vtepOf[fromRow]! * ENDPOINT_WORDS;
  const toAt = to.parts.vtepOf[toRow]! * ENDPOINT_WORDS;
  const { words } = from.parts.vteps;
  const toWords = to.parts.vteps.words;
  for (let word = 0; word < IP_WORDS; word++) if (words[fromAt + word] !== toWords[toAt + word]) return false;
  if (portOf(words[fromAt + IP_WORDS]!) !== portOf(toWords[toAt + IP_WORDS]!)) return false;
  // Each file numbers them by itself.
  return from.optionsOf(fromRow) === to.optionsOf(toRow);
}

function* movedIps(
  before: Mappings,
  after: Mappings,
): Generator<number, Pick<Difference, 'moved' | 'isMovedCut'>> {
  const moved: { mac: string; ip: string }[] = [];
  const { arp, arpRows } = after.parts;
  const ip = new Uint32Array(IP_WORDS);
  ip[2] = 0xffff;
  for (let row = 0; row < arpRows; row++) {
    if (row % STEP_ROWS === 0) yield 0.5 + row / arpRows / 4;
    const at = row * arp.stride;
    if (arp.find(arp.words, at) !== row) continue;
    const was = before.arpOwner(arp.words, at);
    const is = after.arpOwner(arp.words, at)!;
    if (was === undefined || was === is) continue;
    if (moved.length === MOVES_MAX) return { moved, isMovedCut: true };
    ip[IP_WORDS - 1] = arp.words[at]!;
    moved.push({ mac: formatMac(is), ip: formatIpWords(ip, 0) });
  }
  return { moved, isMovedCut: false };
}

function* arePeersOther(before: Mappings, after: Mappings): Generator<number, boolean> {
  const { vteps, vtepCount } = after.parts;
  if (vteps.count !== before.parts.vteps.count) return true;
  for (let vtep = 0; vtep < vtepCount; vtep++) {
    if (vtep % STEP_ROWS === 0) yield 0.75 + vtep / vtepCount / 4;
    if (before.parts.vteps.find(vteps.words, vtep * ENDPOINT_WORDS) < 0) return true;
  }
  return false;
}
