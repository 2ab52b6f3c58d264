/** The end of the demo, whoever wants it first: the demo itself, a signal, the outer demo's end, a defect. */
import { monotonicMs } from '../sys/clock.js';
import type { Cleanup } from './cleanup.js';
import { SIGNALS, signalCode } from './nest.js';
import { lastWords, mute } from './screen.js';

/** One Ctrl-C may come twice, from the terminal and from npm. */
const SAME_SIGNAL_MS = 500;

export class Ending {
  /** Exit code when a signal ends the demo; the signal's own unless its work was done by then. */
  codeWhenSignalled: number | undefined;
  #signalledMs: number | undefined;

  /** Listens for whatever ends the demo from now on. */
  constructor(
    readonly cleanup: Cleanup,
    isNested: boolean,
  ) {
    for (const signal of SIGNALS) process.on(signal, () => this.#onSignal(signal));
    if (isNested) process.on('disconnect', () => this.#onSignal('SIGTERM'));
    // Nobody reads any more (as in `npm run demo | head`): there is nobody to show anything to.
    process.stdout.on('error', () => void this.finish(1));
    process.on('uncaughtException', (error) => {
      console.error(error);
      void this.finish(1);
    });
    process.on('exit', () => cleanup.now());
  }

  /** Cleans up and ends the process. The first call decides the code; later ones do nothing. */
  async finish(code: number): Promise<void> {
    if (this.cleanup.hasBegun) return;
    mute();
    await this.cleanup.run();
    lastWords('Cleaned up.');
    process.exit(code);
  }

  #onSignal(signal: NodeJS.Signals): void {
    const now = monotonicMs();
    if (this.#signalledMs === undefined) {
      this.#signalledMs = now;
      if (!this.cleanup.hasBegun) lastWords(`${signal}: cleaning up; once more ends everything at once.`);
      void this.finish(this.codeWhenSignalled ?? signalCode(signal));
    } else if (now - this.#signalledMs > SAME_SIGNAL_MS) {
      this.cleanup.now();
      process.exit(signalCode(signal));
    }
  }
}
