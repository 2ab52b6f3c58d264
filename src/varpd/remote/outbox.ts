/**
 * In the plugin's thread: its uses of `LookupServices` on their way to main, several in one message. What is too much
 * is let go here, so that main is not asked to read it, and counted.
 */
import { destinationsOf } from '../../target/destination.js';
import { Bucket } from './bucket.js';
import {
  CHANGE_RATE,
  EVENT_RATE,
  type FromThread,
  LOG_RATE,
  SERVICE_CALLS_MAX,
  SERVICE_DESTINATIONS_MAX,
  type ServiceCall,
} from './protocol.js';

/** What a service call counts, and in which account. */
export function weightOf(call: ServiceCall): { account: 'change' | 'event' | 'log'; weight: number } {
  switch (call.what) {
    case 'set':
      return { account: 'change', weight: destinationsOf(call.route).length };
    case 'invalidate':
      return { account: 'change', weight: 1 };
    case 'log':
      return { account: 'log', weight: 1 };
    default:
      return { account: 'event', weight: 1 };
  }
}

/** The accounts of one instance; main has the same, for a plugin that gets round the thread's. */
export class Accounts {
  readonly #buckets = {
    change: new Bucket(CHANGE_RATE),
    event: new Bucket(EVENT_RATE),
    log: new Bucket(LOG_RATE),
  };

  take(call: ServiceCall): boolean {
    const { account, weight } = weightOf(call);
    return this.#buckets[account].take(weight);
  }
}

export class Outbox {
  #calls: ServiceCall[] = [];
  #destinations = 0;
  #dropped = 0;
  readonly #accounts = new Accounts();

  constructor(
    readonly session: number,
    readonly post: (message: FromThread) => void,
  ) {}

  push(call: ServiceCall): void {
    const { length } = this.#calls;
    if (length === 0 && this.#dropped === 0) setImmediate(() => this.flush());
    if (!this.#accounts.take(call)) {
      this.#dropped++;
      return;
    }
    const { weight } = weightOf(call);
    if (length >= SERVICE_CALLS_MAX || this.#destinations + weight > SERVICE_DESTINATIONS_MAX) this.flush();
    this.#calls.push(call);
    this.#destinations += weight;
  }

  /** What was pushed goes before whatever is posted next. */
  flush(): void {
    if (this.#calls.length === 0 && this.#dropped === 0) return;
    const message = {
      kind: 'services',
      session: this.session,
      calls: this.#calls,
      dropped: this.#dropped,
    } as const;
    this.#calls = [];
    this.#destinations = 0;
    this.#dropped = 0;
    this.post(message);
  }
}
