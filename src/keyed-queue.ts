/**
 * A queue whose entries have keys: put at the back, taken from the front, taken out anywhere. Each of these takes the same time
 * however long the queue is; an array moves all that is behind, and a Map passes over the places of all that have left.
 */

interface Place<Key, Value> {
  readonly key: Key;
  readonly value: Value;
  before: Place<Key, Value> | undefined;
  behind: Place<Key, Value> | undefined;
}

export class KeyedQueue<Key, Value> {
  readonly #places = new Map<Key, Place<Key, Value>>();
  #front: Place<Key, Value> | undefined;
  #back: Place<Key, Value> | undefined;

  get size(): number {
    return this.#places.size;
  }

  get(key: Key): Value | undefined {
    return this.#places.get(key)?.value;
  }

  /** Puts an entry at the back; one that has the key already leaves its place. */
  put(key: Key, value: Value): void {
    this.delete(key);
    const place = { key, value, before: this.#back, behind: undefined };
    if (this.#back) this.#back.behind = place;
    else this.#front = place;
    this.#back = place;
    this.#places.set(key, place);
  }

  /** The entry that has been in the queue longest, which stays there; undefined when there is none. */
  get first(): readonly [key: Key, value: Value] | undefined {
    return this.#front && [this.#front.key, this.#front.value];
  }

  /** Takes that entry out. */
  take(): Value | undefined {
    const front = this.#front;
    if (!front) return undefined;
    this.delete(front.key);
    return front.value;
  }

  delete(key: Key): boolean {
    const place = this.#places.get(key);
    if (!place) return false;
    this.#places.delete(key);
    const { before, behind } = place;
    if (before) before.behind = behind;
    else this.#front = behind;
    if (behind) behind.before = before;
    else this.#back = before;
    return true;
  }

  *values(): Generator<Value> {
    for (let place = this.#front; place; place = place.behind) yield place.value;
  }
}
