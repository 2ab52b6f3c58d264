/**
 * What users who may not write may have main do for them: so many requests a second, each by his user id and all of them
 * together. Who may write has no such bound.
 */
import { CONTROL_USER_RATE, CONTROL_USERS_RATE } from '../limits.js';
import { Bucket } from '../varpd/remote/bucket.js';

/** Users whose requests are remembered; a namespace of users can have many more (man 7 user_namespaces). */
const USERS_MAX = 1024;

export class Budget {
  readonly #users = new Map<number, Bucket>();
  readonly #all: Bucket;

  constructor(readonly nowMs?: () => number) {
    this.#all = new Bucket(CONTROL_USERS_RATE, nowMs);
  }

  /** Whether the user may have one thing more done; it is counted if so. */
  take(uid: number): boolean {
    const own = this.#bucketOf(uid);
    if (!own?.has() || !this.#all.take()) return false;
    return own.take();
  }

  /** Counts what was done for the user already. A debt is his alone: it must not keep the others out. */
  charge(uid: number, weight: number): void {
    const covered = this.#bucketOf(uid)?.charge(weight) ?? 0;
    this.#all.charge(covered);
  }

  /** Undefined when too many users are remembered, none of whom has been quiet. */
  #bucketOf(uid: number): Bucket | undefined {
    const known = this.#users.get(uid);
    if (known) return known;
    if (this.#users.size >= USERS_MAX) this.#forget();
    if (this.#users.size >= USERS_MAX) return undefined;
    const bucket = new Bucket(CONTROL_USER_RATE, this.nowMs);
    this.#users.set(uid, bucket);
    return bucket;
  }

  #forget(): void {
    for (const [uid, bucket] of this.#users) if (bucket.isFull) this.#users.delete(uid);
  }
}
