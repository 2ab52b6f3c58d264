/**
 * What the operator asks for by signals, heard from the first moment on: what comes while the daemon starts is remembered
 * until somebody takes it. Without a listener each of them would end the process (man 7 signal).
 */
export type Ask = 'stop' | 'restart' | 'reload';

const asks = {
  SIGTERM: 'stop',
  SIGINT: 'stop',
  SIGUSR2: 'restart',
  SIGHUP: 'reload',
} as const satisfies Partial<Record<NodeJS.Signals, Ask>>;

export class Signals {
  /** What is asked for and was not taken yet, and by which signal; the same again is the same. */
  readonly #asked = new Map<Ask, string>();
  #listener: () => void = () => {};

  /** Hears them from here on. */
  constructor() {
    // Node would open its debugger, to which every user of this host can connect.
    process.on('SIGUSR1', () => {});
    for (const [signal, ask] of Object.entries(asks)) {
      process.on(signal, () => {
        this.#asked.set(ask, signal);
        this.#listener();
      });
    }
  }

  /** Has `listener` called now, and after each signal, in place of the one before. It takes what it can act on. */
  listen(listener: () => void): void {
    this.#listener = listener;
    listener();
  }

  /** The signal by which that was asked for, once; undefined when it was not. */
  take(ask: Ask): string | undefined {
    const signal = this.#asked.get(ask);
    this.#asked.delete(ask);
    return signal;
  }
}
