/**
 * What a worker that does not respond may still be reading: rows, sockets, tables of devices that stopped or are gone.
 * Given back as soon as a quiesce succeeds, which is when the worker has moved on or its successor has begun.
 */
import type { Engine } from '../datapath/engine.js';
import { OverlayError } from '../errors.js';
import type { Log } from '../log.js';
import { after } from '../sys/clock.js';

const RETRY_MS = 5000;

export class Kept {
  #parts: { readonly what: string; readonly giveBack: () => void | Promise<void> }[] = [];
  #cancel: (() => void) | undefined;

  constructor(
    readonly engine: Engine,
    readonly log: Log,
  ) {}

  get count(): number {
    return this.#parts.length;
  }

  /** Keeps something until no worker can be reading it. */
  add(what: string, giveBack: () => void | Promise<void>): void {
    this.#parts.push({ what, giveBack });
    this.log.error({ what }, 'kept, since a worker does not respond');
    this.#cancel ??= after(RETRY_MS, () => this.#retry());
  }

  close(): void {
    this.#cancel?.();
  }

  #retry(): void {
    this.#cancel = undefined;
    this.#giveBack().catch((error: unknown) => {
      if (!(error instanceof OverlayError)) throw error;
      this.#cancel ??= after(RETRY_MS, () => this.#retry());
    });
  }

  async #giveBack(): Promise<void> {
    const parts = this.#parts;
    await this.engine.quiesce();
    this.#parts = this.#parts.filter((part) => !parts.includes(part));
    for (const { what, giveBack } of parts) {
      await giveBack();
      this.log.info({ what }, 'given back');
    }
  }
}
