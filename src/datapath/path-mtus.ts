/**
 * Path MTU by destination address (RFC 1191, RFC 8201): what ICMP has said of the way there, until it is old. Each
 * destination row of the address has the largest inner frame that fits, which the core reads for every frame.
 */
import { outerOverhead, overheadBytes } from '../encap/overhead.js';
import { familyOf } from '../ip.js';
import { MTU_MIN_BYTES, PATH_MTU_AGE_MS, PATH_MTU_MIN_BYTES } from '../limits.js';
import { monotonicMs } from '../sys/clock.js';
import { endpointOf } from '../sys/sockaddr.js';
import type { Tables } from './tables.js';

/** Guests must be able to send the least that there is for IPv4: Linux does not go below 552. */
const FRAME_MAX_MIN_BYTES = MTU_MIN_BYTES + 18;

interface Known {
  /** Of an IP packet. */
  readonly bytes: number;
  readonly atMs: number;
  /** By this host's own kernel, of its links. */
  readonly isLocal: boolean;
}

interface Row {
  readonly row: number;
  readonly ip: string;
  /** Of all outer headers. */
  readonly overhead: number;
}

export class PathMtus {
  readonly #known = new Map<string, Known>();
  readonly #byRow = new Map<number, Row>();
  readonly #byIp = new Map<string, Set<Row>>();

  constructor(
    readonly tables: Pick<Tables, 'setFrameMax'>,
    readonly nowMs: () => number = monotonicMs,
  ) {}

  /** A row is in use. @param name sockaddr, without a port for GRE, @param encapBytes of the encapsulation's header */
  add(row: number, name: Uint8Array, encapBytes: number): void {
    const to = endpointOf(name);
    if (!to) return;
    const { ip, port } = to;
    const encap = { name: '', flags: 0, transport: port === 0 ? 'gre' : 'udp' } as const;
    const overhead = overheadBytes(outerOverhead({ encap, encapBytes, family: familyOf(ip) }));
    const added = { row, ip, overhead };
    this.#byRow.set(row, added);
    const rows = this.#byIp.get(ip) ?? new Set();
    this.#byIp.set(ip, rows.add(added));
    this.#apply(added, this.#known.get(ip));
  }

  /** The reverse. What is known of the address stays while another row has it. */
  remove(row: number): void {
    const removed = this.#byRow.get(row);
    if (!removed) return;
    this.#byRow.delete(row);
    const rows = this.#byIp.get(removed.ip)!;
    rows.delete(removed);
    if (rows.size > 0) return;
    this.#byIp.delete(removed.ip);
    this.#known.delete(removed.ip);
  }

  /**
   * Somebody says how large a packet to an address may be. Anybody can say so, so that it never goes below what every way must
   * take, and means nothing of addresses that nothing is sent to. @param isLocal this host's kernel says so, of its links
   */
  learn(ip: string, told: number, isLocal: boolean): void {
    const rows = this.#byIp.get(ip);
    if (!rows) return;
    const bytes = Math.max(told, PATH_MTU_MIN_BYTES[familyOf(ip)]);
    const known = this.#known.get(ip);
    // A larger one is a smaller one's age to tell (RFC 1191 section 6.3).
    if (known && known.bytes < bytes) return;
    const learned = { bytes, atMs: this.nowMs(), isLocal };
    this.#known.set(ip, learned);
    for (const row of rows) this.#apply(row, learned);
  }

  /** Of an IP packet to the address, or undefined where nothing is known. */
  get(ip: string): number | undefined {
    return this.#known.get(ip)?.bytes;
  }

  /** Bytes of the largest inner frame for a row, or undefined where nothing is known. */
  frameMax(row: number): number | undefined {
    const there = this.#byRow.get(row);
    const known = there && this.#known.get(there.ip);
    return known && frameMaxOf(there, known);
  }

  /** Forgets what is old. */
  age(): void {
    const now = this.nowMs();
    this.#forget(({ atMs }) => now - atMs >= PATH_MTU_AGE_MS);
  }

  /** This host's links may have changed: what its kernel has said of them may not be so any more. */
  forgetLocal(): void {
    this.#forget(({ isLocal }) => isLocal);
  }

  #forget(isGone: (known: Known) => boolean): void {
    for (const [ip, known] of [...this.#known]) {
      if (!isGone(known)) continue;
      this.#known.delete(ip);
      for (const row of this.#byIp.get(ip)!) this.#apply(row, undefined);
    }
  }

  #apply(row: Row, known: Known | undefined): void {
    this.tables.setFrameMax(row.row, known ? frameMaxOf(row, known) : 0);
  }
}

function frameMaxOf({ overhead }: Row, { bytes }: Known): number {
  return Math.max(bytes - overhead, FRAME_MAX_MIN_BYTES);
}
