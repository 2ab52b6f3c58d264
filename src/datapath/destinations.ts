/**
 * Destination rows, shared and counted: one a VTEP, one a list of VTEPs. A row that nobody holds any more is given out
 * again only after a quiesce, since workers may still be reading it: see `leaving`.
 */
import { assert } from '../errors.js';
import { ttlMessage } from '../sys/control-message.js';
import { PathMtus } from './path-mtus.js';
import type { Pool } from './pool.js';
import type { Tables } from './tables.js';

interface Held {
  readonly key: string;
  readonly row: number;
  users: number;
  /** Of a list: its rows, each held once by it, and where in the pool they stand. */
  readonly members: readonly number[];
  readonly list: number | undefined;
}

export class Destinations {
  readonly #byKey = new Map<string, Held>();
  readonly #byRow = new Map<number, Held>();
  readonly pathMtus: PathMtus;
  #left: Held[] = [];

  constructor(
    readonly tables: Tables,
    readonly pool: Pool,
  ) {
    this.pathMtus = new PathMtus(tables);
  }

  get hasLeft(): boolean {
    return this.#left.length > 0;
  }

  /**
   * Row of the destination, made when it is new. Throws ENOSPC.
   * @param netns of the underlay, @param name sockaddr, @param header encap template, @param ttl of the outer header, where it is not that of the sockets
   */
  hold(netns: string, name: Uint8Array, header: Uint8Array, ttl?: number): number {
    return this.#hold(`unicast ${netns} ${hex(name)} ${hex(header)} ${ttl}`, () => {
      const row = this.tables.destinations.take();
      const control = ttl === undefined ? new Uint8Array(0) : ttlMessage(name, ttl);
      this.tables.writeDestination(row, name, control, header);
      this.pathMtus.add(row, netns, name, header.length);
      return { row, members: [], list: undefined };
    });
  }

  /**
   * The same for a list. Throws ENOSPC, ENOMEM. @param kind DESTINATION_KIND_, @param names sockaddrs, @param as what the list stands
   * for: lists that stand for different things have rows of their own
   */
  holdList(
    netns: string,
    kind: number,
    names: readonly Uint8Array[],
    header: Uint8Array,
    ttl?: number,
    as = '',
  ): number {
    return this.#hold(`${kind} ${netns} ${names.map(hex).join(' ')} ${hex(header)} ${ttl} ${as}`, () => {
      const members: number[] = [];
      let list: number | undefined;
      try {
        for (const name of names) members.push(this.hold(netns, name, header, ttl));
        list = this.pool.take(names.length * 4, `a list of ${names.length} destinations`);
        this.pool.views.u32.set(members, list / 4);
        const row = this.tables.destinations.take();
        this.tables.writeList(row, kind, list, members.length, header);
        return { row, members, list };
      } catch (error) {
        for (const row of members) this.release(row);
        if (list !== undefined) this.pool.free(list);
        throw error;
      }
    });
  }

  /** The reverse of `hold` and `holdList`. */
  release(row: number): void {
    const held = this.#byRow.get(row);
    assert(held && held.users > 0, `destination row ${row} is released and not held`);
    held.users--;
    if (held.users > 0) return;
    this.#byKey.delete(held.key);
    this.#byRow.delete(row);
    this.pathMtus.remove(row);
    this.#left.push(held);
  }

  /**
   * Remembers the rows that have left so far; call the returned function after a quiesce. When a row fails, another call goes on
   * behind it.
   */
  leaving(): () => void {
    const left = this.#left;
    this.#left = [];
    let next = 0;
    return () => {
      while (next < left.length) {
        const { row, members, list } = left[next++]!;
        for (const member of members) this.release(member);
        if (list !== undefined) this.pool.free(list);
        this.tables.destinations.free(row);
      }
    };
  }

  #hold(key: string, make: () => Pick<Held, 'row' | 'members' | 'list'>): number {
    const known = this.#byKey.get(key);
    if (known) {
      known.users++;
      return known.row;
    }
    const held: Held = { key, users: 1, ...make() };
    this.#byKey.set(key, held);
    this.#byRow.set(held.row, held);
    return held.row;
  }
}

function hex(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString('hex');
}
