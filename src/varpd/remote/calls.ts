/** Main's calls to one life of a plugin's thread that are not answered: numbered, bounded, each with a deadline. */
import { OverlayError } from '../../errors.js';
import { after, nextTurn } from '../../sys/clock.js';
import type { Method } from './protocol.js';

/** Calls of one session: a plugin that is so far behind will not answer the next one in time either. */
export const CALLS_PER_SESSION_MAX = 4096;

interface Call {
  readonly session: number;
  resolve(value: unknown): void;
  reject(error: Error): void;
}

export interface CallsOptions {
  /** Name of the plugin, for errors. */
  plugin(): string;
  send(call: number, session: number, method: Method, argument: unknown): void;
  /** There are calls now, or there are none any more. */
  onBusy(isBusy: boolean): void;
}

export class Calls {
  readonly #open = new Map<number, Call>();
  readonly #ofSession = new Map<number, number>();
  #last = 0;

  constructor(readonly options: CallsOptions) {}

  get size(): number {
    return this.#open.size;
  }

  /** Rejects with ETIME after `ms`, EAGAIN when too many are open, ECANCELED by `cancel`, and the plugin's error. */
  ask(session: number, method: Method, argument: unknown, ms: number): Promise<unknown> {
    const plugin = this.options.plugin();
    const open = this.#ofSession.get(session) ?? 0;
    if (open >= CALLS_PER_SESSION_MAX) {
      const text = `lookup plugin '${plugin}' is behind: ${open} calls wait already`;
      return Promise.reject(new OverlayError('EAGAIN', 'plugin_busy', text));
    }
    const call = ++this.#last;
    return new Promise((resolve, reject) => {
      const late = () => {
        const text = `lookup plugin '${plugin}' did not end ${method} within ${ms} ms`;
        this.#take(call)?.reject(new OverlayError('ETIME', 'lookup_slow', text));
      };
      // An answer that came while main was busy is read before this turn ends.
      const cancel = after(ms, () => nextTurn().then(late));
      this.#ofSession.set(session, open + 1);
      this.#open.set(call, {
        session,
        resolve: (value) => {
          cancel();
          resolve(value);
        },
        reject: (error) => {
          cancel();
          reject(error);
        },
      });
      if (this.#open.size === 1) this.options.onBusy(true);
      this.options.send(call, session, method, argument);
    });
  }

  /** False when nobody waits for it: it was answered before, is late, or there was no such call. */
  answer(call: number, value: unknown): boolean {
    const found = this.#take(call);
    found?.resolve(value);
    return found !== undefined;
  }

  /** See `answer`. */
  fail(call: number, error: Error): boolean {
    const found = this.#take(call);
    found?.reject(error);
    return found !== undefined;
  }

  /** Rejects the calls of a session, or all. */
  cancel(error: Error, session?: number): void {
    for (const [number, call] of this.#open) {
      if (session === undefined || call.session === session) this.fail(number, error);
    }
  }

  #take(number: number): Call | undefined {
    const call = this.#open.get(number);
    if (!call) return undefined;
    this.#open.delete(number);
    const left = this.#ofSession.get(call.session)! - 1;
    if (left > 0) this.#ofSession.set(call.session, left);
    else this.#ofSession.delete(call.session);
    if (this.#open.size === 0) this.options.onBusy(false);
    return call;
  }
}
