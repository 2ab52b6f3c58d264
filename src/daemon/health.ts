/**
 * Why the process itself is degraded, gathered from several places: a file, an overlay, the configuration. There may be
 * many faults of one kind; the fault state names the first and says how many there are.
 */
import type { Fma, ProcessFaultCode } from '../fma.js';

export class Health {
  /** Sentences of each kind, by what they are about. */
  readonly #faults = new Map<ProcessFaultCode, Map<string, string>>();

  constructor(readonly fma: Fma) {}

  /** Sentences, the oldest of each kind first; none when all is well. */
  get faults(): string[] {
    return [...this.#faults.values()].flatMap((faults) => [...faults.values()]);
  }

  /** Adds or rewrites a reason. */
  degrade(code: ProcessFaultCode, about: string, text: string): void {
    const faults = this.#faults.get(code) ?? new Map<string, string>();
    faults.set(about, text);
    this.#faults.set(code, faults);
    const more = faults.size > 1 ? ` (and ${faults.size - 1} more: see the log)` : '';
    this.fma.degradeProcess(code, [...faults.values()][0]! + more);
  }

  /** One thing is well again. */
  restore(code: ProcessFaultCode, about: string): void {
    const faults = this.#faults.get(code);
    if (!faults?.delete(about)) return;
    const [next] = faults;
    if (next) this.degrade(code, ...next);
    else this.clear(code);
  }

  /** All of that kind is well again. */
  clear(code: ProcessFaultCode): void {
    this.#faults.delete(code);
    this.fma.restoreProcess(code);
  }
}
