/**
 * Path MTU by destination address (RFC 1191, RFC 8201): what ICMP has said of the way there, or what probes have shown, until
 * it is old. Each destination row of the address has the largest inner frame that fits, which the core reads for every frame.
 * The same address in two network namespaces is two destinations.
 */
import { outerOverhead, overheadBytes } from '../encap/overhead.js';
import { familyOf } from '../ip.js';
import { MTU_MIN_BYTES, PATH_MTU_AGE_MS, PATH_MTU_MIN_BYTES } from '../limits.js';
import { monotonicMs } from '../sys/clock.js';
import { endpointOf } from '../sys/sockaddr.js';
import type { Tables } from './tables.js';

/** Guests must be able to send the least that there is for IPv4: Linux does not go below 552. */
const FRAME_MAX_MIN_BYTES = MTU_MIN_BYTES + 18;

/** Who says so: a router, this host's own kernel of its links, or probes (`PathSearch`). */
export type PathMtuSource = 'router' | 'local' | 'probe';

export interface PathMtu {
  /** Of an IP packet. */
  readonly bytes: number;
  readonly source: PathMtuSource;
}

interface Known extends PathMtu {
  readonly atMs: number;
}

interface Row {
  readonly row: number;
  /** Namespace and address. */
  readonly key: string;
  /** Of all outer headers. */
  readonly overhead: number;
}

export class PathMtus {
  readonly #known = new Map<string, Known>();
  readonly #byRow = new Map<number, Row>();
  readonly #byKey = new Map<string, Set<Row>>();

  constructor(
    readonly tables: Pick<Tables, 'setFrameMax'>,
    readonly nowMs: () => number = monotonicMs,
  ) {}

  /**
   * A row is in use. @param netns of the underlay, @param name sockaddr, without a port for GRE,
   * @param encapBytes of the encapsulation's header
   */
  add(row: number, netns: string, name: Uint8Array, encapBytes: number): void {
    const to = endpointOf(name);
    if (!to) return;
    const { ip, port } = to;
    const encap = { name: '', flags: 0, transport: port === 0 ? 'gre' : 'udp' } as const;
    const overhead = overheadBytes(outerOverhead({ encap, encapBytes, family: familyOf(ip) }));
    const key = keyOf(netns, ip);
    const added = { row, key, overhead };
    this.#byRow.set(row, added);
    const rows = this.#byKey.get(key) ?? new Set();
    this.#byKey.set(key, rows.add(added));
    this.#apply(added, this.#known.get(key));
  }

  /** The reverse. What is known of the address stays while another row has it. */
  remove(row: number): void {
    const removed = this.#byRow.get(row);
    if (!removed) return;
    this.#byRow.delete(row);
    const rows = this.#byKey.get(removed.key)!;
    rows.delete(removed);
    if (rows.size > 0) return;
    this.#byKey.delete(removed.key);
    this.#known.delete(removed.key);
  }

  /**
   * Somebody says how large a packet to an address may be. Anybody can say so, so that it never goes below what every way must
   * take, and means nothing of addresses that nothing is sent to. @param isLocal this host's kernel says so, of its links
   */
  learn(netns: string, ip: string, told: number, isLocal: boolean): void {
    const key = keyOf(netns, ip);
    if (!this.#byKey.has(key)) return;
    const bytes = Math.max(told, PATH_MTU_MIN_BYTES[familyOf(ip)]);
    const known = this.#known.get(key);
    // A larger one is a smaller one's age to tell (RFC 1191 section 6.3).
    if (known && known.bytes < bytes) return;
    this.#set(key, { bytes, atMs: this.nowMs(), source: isLocal ? 'local' : 'router' });
  }

  /**
   * Probes have shown how large a packet may be, whoever said less. @param most no larger ones were looked at: when they arrive,
   * what is known of larger ones stays
   */
  probed(netns: string, ip: string, bytes: number, most: number): void {
    const key = keyOf(netns, ip);
    if (!this.#byKey.has(key)) return;
    const known = this.#known.get(key);
    if (bytes < most) this.#set(key, { bytes, atMs: this.nowMs(), source: 'probe' });
    else if (known && known.bytes < most) this.#set(key, undefined);
  }

  /** Undefined where nothing is known. */
  get(netns: string, ip: string): PathMtu | undefined {
    return this.#known.get(keyOf(netns, ip));
  }

  /** Bytes of the largest inner frame for a row, or undefined where nothing is known. */
  frameMax(row: number): number | undefined {
    const there = this.#byRow.get(row);
    const known = there && this.#known.get(there.key);
    return known && frameMaxOf(there, known);
  }

  /** Forgets what is old. */
  age(): void {
    const now = this.nowMs();
    this.#forget(({ atMs }) => now - atMs >= PATH_MTU_AGE_MS);
  }

  /** This host's links may have changed: what its kernel has said of them may not be so any more. */
  forgetLocal(): void {
    this.#forget(({ source }) => source === 'local');
  }

  #forget(isGone: (known: Known) => boolean): void {
    for (const [key, known] of [...this.#known]) {
      if (isGone(known)) this.#set(key, undefined);
    }
  }

  #set(key: string, known: Known | undefined): void {
    if (known) this.#known.set(key, known);
    else this.#known.delete(key);
    for (const row of this.#byKey.get(key)!) this.#apply(row, known);
  }

  #apply(row: Row, known: Known | undefined): void {
    this.tables.setFrameMax(row.row, known ? frameMaxOf(row, known) : 0);
  }
}

function keyOf(netns: string, ip: string): string {
  return `${netns} ${ip}`;
}

function frameMaxOf({ overhead }: Row, { bytes }: Known): number {
  return Math.max(bytes - overhead, FRAME_MAX_MIN_BYTES);
}
