/**
 * What the demo has made in the system, and how each of it is unmade: the last first, every one bounded.
 * Also for the end in a hurry (a second Ctrl-C, a crash), where there is no time to wait.
 */
import { problemOf } from './problem.js';

const UNDO_MS_MAX = 12_000;

interface Undo {
  readonly undo: () => void | Promise<void>;
  readonly undoNow: () => void;
}

/** Thrown at whoever wants to make something new while everything is being taken down. */
export class Interrupted extends Error {
  override readonly name: string = 'Interrupted';
}

export class Cleanup {
  readonly #undos: Undo[] = [];
  #running: Promise<void> | undefined;

  get hasBegun(): boolean {
    return this.#running !== undefined;
  }

  /**
   * Makes a thing and remembers how to unmake it. Throws `Interrupted` once the cleanup has begun.
   *
   * @param undoNow for the end in a hurry: synchronous, and not needed for what goes with the process
   */
  hold<T>(
    make: () => T,
    undo: (thing: T) => void | Promise<void>,
    undoNow: (thing: T) => void = () => {},
  ): T {
    if (this.hasBegun) throw new Interrupted('the demo is ending');
    const thing = make();
    this.#undos.push({ undo: () => undo(thing), undoNow: () => undoNow(thing) });
    return thing;
  }

  /** Unmakes everything; the second call waits for the first. Never rejects. */
  run(): Promise<void> {
    this.#running ??= this.#run();
    return this.#running;
  }

  async #run(): Promise<void> {
    for (let last = this.#undos.at(-1); last; last = this.#undos.at(-1)) {
      try {
        await within(UNDO_MS_MAX, last.undo);
      } catch (error) {
        console.error(`demo: cleaning up: ${problemOf(error)}`);
        last.undoNow();
      }
      this.#undos.pop();
    }
  }

  /** Unmakes at once what would outlive the process. */
  now(): void {
    this.#running ??= Promise.resolve();
    while (this.#undos.length > 0) {
      try {
        this.#undos.pop()?.undoNow();
      } catch (error) {
        console.error(`demo: cleaning up: ${problemOf(error)}`);
      }
    }
  }
}

/** Runs work that may take so long and no longer; what it resolves to. */
export async function within<T>(ms: number, work: () => T | Promise<T>, what = 'it'): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${what} took longer than ${ms / 1000} s`)), ms);
  });
  try {
    return await Promise.race([work(), late]);
  } finally {
    clearTimeout(timer);
  }
}
