/** Main's calls to one life of a plugin's thread that are not answered: numbered, bounded, each with a deadline. */
import { OverlayError } from '../../errors.js';
import { KeyedQueue } from '../../keyed-queue.js';
import { after, nextTurn } from '../../sys/clock.js';
import type { Method } from './protocol.js';

/** Calls of one session: a plugin that is so far behind will not answer the next one in time either. */
export const CALLS_PER_SESSION_MAX = 4096;

/**
 * Of these so many are with the thread at a time, and the others wait in main: what one session asks for is a short queue to
 * others in the thread, and its answers, which may all come at once, are short work to main.
 */
export const CALLS_UNDER_WAY_MAX = 256;

/** What a frame may have the thread asked about; the others are rare, and wait for nobody. */
const ofFrames: ReadonlySet<Method> = new Set(['lookup', 'arp', 'dhcp']);

/** The calls of one session. */
class Session {
  open = 0;
  underWay = 0;
  /** None that waits is sent any more. */
  isCancelled = false;
  /** How each is sent, by its number. */
  readonly waiting = new KeyedQueue<number, () => void>();
}

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
  readonly #sessions = new Map<number, Session>();
  #last = 0;

  constructor(readonly options: CallsOptions) {}

  get size(): number {
    return this.#open.size;
  }

  /** Rejects with ETIME after `ms`, EAGAIN when too many are open, ECANCELED by `cancel`, and the plugin's error. */
  ask(session: number, method: Method, argument: unknown, ms: number): Promise<unknown> {
    const plugin = this.options.plugin();
    const ours = this.#sessions.get(session) ?? new Session();
    if (ours.open >= CALLS_PER_SESSION_MAX) {
      const text = `lookup plugin '${plugin}' is behind: ${ours.open} calls wait already`;
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
      this.#sessions.set(session, ours);
      ours.open++;
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
      const send = () => this.options.send(call, session, method, argument);
      if (ofFrames.has(method) && ours.underWay >= CALLS_UNDER_WAY_MAX) {
        ours.waiting.put(call, send);
        return;
      }
      ours.underWay++;
      send();
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
    for (const [number, each] of this.#sessions) {
      if (session === undefined || number === session) each.isCancelled = true;
    }
    for (const [number, call] of this.#open) {
      if (session === undefined || call.session === session) this.fail(number, error);
    }
  }

  #take(number: number): Call | undefined {
    const call = this.#open.get(number);
    if (!call) return undefined;
    this.#open.delete(number);
    const session = this.#sessions.get(call.session)!;
    session.open--;
    if (session.open === 0) this.#sessions.delete(call.session);
    if (!session.waiting.delete(number)) {
      session.underWay--;
      this.#sendNext(session);
    }
    if (this.#open.size === 0) this.options.onBusy(false);
    return call;
  }

  #sendNext(session: Session): void {
    if (session.isCancelled) return;
    const send = session.waiting.take();
    if (!send) return;
    session.underWay++;
    send();
  }
}
