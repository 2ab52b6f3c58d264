/** Destination rows, shared: one a VTEP and mux, counted. */
import { assert } from '../errors.js';
import type { Engine } from './engine.js';

interface Held {
  readonly row: number;
  users: number;
}

export class Destinations {
  readonly #held = new Map<string, Held>();

  constructor(readonly engine: Engine) {}

  /** Row of the destination, made when it is new. @param name sockaddr, @param header encap header template */
  hold(mux: number, name: Uint8Array, header: Uint8Array): number {
    const key = keyOf(mux, name, header);
    const held = this.#held.get(key);
    if (held) {
      held.users++;
      return held.row;
    }
    const row = this.engine.tables.destinations.take();
    this.engine.tables.writeDestination(row, name, new Uint8Array(0), header);
    this.#held.set(key, { row, users: 1 });
    return row;
  }

  /** The reverse of `hold`; call after a quiesce, since the row may be given out again at once. */
  release(mux: number, name: Uint8Array, header: Uint8Array): void {
    const key = keyOf(mux, name, header);
    const held = this.#held.get(key);
    assert(held, 'a destination is released that is not held');
    held.users--;
    if (held.users > 0) return;
    this.#held.delete(key);
    this.engine.tables.destinations.free(held.row);
  }
}

function keyOf(mux: number, name: Uint8Array, header: Uint8Array): string {
  return `${mux} ${Buffer.from(name).toString('hex')} ${Buffer.from(header).toString('hex')}`;
}
