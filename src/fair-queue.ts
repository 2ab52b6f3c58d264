/** A queue that several owners share: they take turns, however much each has put there. What one owner has put stays in order. */
import { KeyedQueue } from './keyed-queue.js';

export class FairQueue<Owner, Key, Value> {
  /** Owners that have something, the next one first. */
  readonly #owners = new KeyedQueue<Owner, KeyedQueue<Key, Value>>();
  #size = 0;

  get size(): number {
    return this.#size;
  }

  /** Puts an entry behind the others of its owner; one that has the key already leaves its place. */
  put(owner: Owner, key: Key, value: Value): void {
    let own = this.#owners.get(owner);
    if (!own) {
      own = new KeyedQueue();
      this.#owners.put(owner, own);
    }
    this.#size -= own.size;
    own.put(key, value);
    this.#size += own.size;
  }

  /** The entry that is next, which stays there; undefined when there is none. */
  get first(): Value | undefined {
    return this.#owners.first?.[1].first?.[1];
  }

  /** Takes that entry out; its owner is behind the others from here on. */
  take(): Value | undefined {
    const next = this.#owners.first;
    if (!next) return undefined;
    const [owner, own] = next;
    const value = own.take();
    this.#size--;
    this.#owners.delete(owner);
    if (own.size > 0) this.#owners.put(owner, own);
    return value;
  }

  /** Takes out all that an owner has put there, which is returned. */
  forget(owner: Owner): Value[] {
    const own = this.#owners.get(owner);
    if (!own) return [];
    this.#owners.delete(owner);
    this.#size -= own.size;
    return [...own.values()];
  }

  *values(): Generator<Value> {
    for (const own of this.#owners.values()) yield* own.values();
  }
}
