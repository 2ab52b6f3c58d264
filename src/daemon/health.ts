/** Why the process itself is degraded: what no device can show, because it concerns none or one that is not there. */
import type { Log } from '../log.js';

export class Health {
  readonly #faults = new Map<string, string>();

  constructor(readonly log: Log) {}

  /** Sentences, the oldest first; none when all is well. */
  get faults(): string[] {
    return [...this.#faults.values()];
  }

  get status(): 'ONLINE' | 'DEGRADED' {
    return this.#faults.size > 0 ? 'DEGRADED' : 'ONLINE';
  }

  /** Adds or rewrites a reason. */
  degrade(reason: string, text: string): void {
    this.#faults.set(reason, text);
    this.#tell(text);
  }

  /** All is well again. */
  clear(): void {
    if (this.#faults.size === 0) return;
    this.#faults.clear();
    this.#tell('');
  }

  #tell(message: string): void {
    this.log.warn({ status: this.status, faults: this.#faults.size, message }, 'process fault state');
  }
}
