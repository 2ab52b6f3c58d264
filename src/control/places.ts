/** Places that callers take and give back: how many one user, all users who may not write, and everybody may have. */
import type { Caps } from '../limits.js';
import type { Caller } from './rights.js';

export class Places {
  /** Taken by each user who may not write. */
  readonly #counts = new Map<number, number>();
  #users = 0;
  #all = 0;

  constructor(readonly caps: Caps) {}

  /** All that are taken. */
  get size(): number {
    return this.#all;
  }

  /** Takes a place: returns what gives it back, which does nothing the second time; undefined when none is free. */
  take({ uid, mayWrite }: Pick<Caller, 'uid' | 'mayWrite'>): (() => void) | undefined {
    const { caps } = this;
    if (this.#all >= caps.all) return undefined;
    if (!mayWrite && (this.#users >= caps.users || this.#of(uid) >= caps.user)) return undefined;
    this.#count(uid, mayWrite, 1);
    let isTaken = true;
    return () => {
      if (isTaken) this.#count(uid, mayWrite, -1);
      isTaken = false;
    };
  }

  /** The user, or all of those who may not write, have half of what they may. */
  isShort(uid: number): boolean {
    return this.#of(uid) * 2 >= this.caps.user || this.#users * 2 >= this.caps.users;
  }

  #of(uid: number): number {
    return this.#counts.get(uid) ?? 0;
  }

  #count(uid: number, mayWrite: boolean, change: 1 | -1): void {
    this.#all += change;
    if (mayWrite) return;
    this.#users += change;
    const count = this.#of(uid) + change;
    if (count > 0) this.#counts.set(uid, count);
    else this.#counts.delete(uid);
  }
}
