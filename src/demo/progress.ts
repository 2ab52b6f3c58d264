/** How far a transfer has come: a bar on a terminal, a few plain lines elsewhere. */
import { monotonicMs } from '../sys/clock.js';
import { isTerminal, print, status } from './screen.js';

const BAR_CHARACTERS = 30;
const PLAIN_LINES = 4;
const REFRESH_MS = 50;

export class Progress {
  readonly #begunMs = monotonicMs();
  #shownMs = 0;
  #linesPrinted = 0;

  constructor(
    readonly what: string,
    readonly totalBytes: number,
  ) {}

  /** Shows that `bytes` of the total have arrived. */
  update(bytes: number): void {
    const part = this.totalBytes === 0 ? 1 : bytes / this.totalBytes;
    const now = monotonicMs();
    const seconds = (now - this.#begunMs) / 1000;
    const text =
      `${`${Math.floor(part * 100)}`.padStart(3)} %  ${megabytes(bytes)}/${megabytes(this.totalBytes)} MB` +
      `  ${gigabits(bytes, seconds)}`;
    if (isTerminal()) {
      if (now - this.#shownMs < REFRESH_MS && part < 1) return;
      this.#shownMs = now;
      const filled = Math.min(BAR_CHARACTERS, Math.round(part * BAR_CHARACTERS));
      status(`  ${this.what} [${'#'.repeat(filled).padEnd(BAR_CHARACTERS, '-')}] ${text}`);
    } else if (part * PLAIN_LINES >= this.#linesPrinted + 1) {
      this.#linesPrinted = Math.floor(part * PLAIN_LINES);
      print(`  ${this.what} ${text}`);
    }
  }
}

/** Bytes as megabytes, of 10^6. */
export function megabytes(bytes: number): string {
  return (bytes / 1e6).toFixed(0);
}

/** The rate as people say it. */
export function gigabits(bytes: number, seconds: number): string {
  return `${seconds > 0 ? ((bytes * 8) / seconds / 1e9).toFixed(2) : '0.00'} Gbit/s`;
}
