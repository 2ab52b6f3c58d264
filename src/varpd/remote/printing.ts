/**
 * In the plugin's thread: what the plugin prints goes to the daemon's log, line by line, and not to its terminal. It is
 * cut here, since a stream to main has no bound.
 */
import { Bucket } from './bucket.js';
import { type FromThread, LOG_RATE, TEXT_MAX } from './protocol.js';

/** Of one write, the bytes or characters that are looked at: more lines than may pass. */
const WRITE_MAX = 64 * 1024;

export class Printing {
  readonly #bucket = new Bucket(LOG_RATE);
  #dropped = 0;
  #rest = '';

  constructor(readonly post: (message: FromThread) => void) {}

  /** Takes over both streams of this thread. */
  capture(): void {
    for (const stream of [process.stdout, process.stderr]) {
      stream.write = (chunk: unknown, encoding?: unknown, done?: unknown): boolean => {
        this.write(chunk);
        const callback = typeof encoding === 'function' ? encoding : done;
        if (typeof callback === 'function') process.nextTick(callback as () => void);
        return true;
      };
    }
    process.on('warning', (warning) => this.write(`${warning.name}: ${warning.message}\n`));
  }

  write(chunk: unknown): void {
    const text =
      chunk instanceof Uint8Array
        ? Buffer.from(chunk.buffer, chunk.byteOffset, Math.min(chunk.length, WRITE_MAX)).toString()
        : String(chunk).slice(0, WRITE_MAX);
    const lines = text.split('\n');
    lines[0] = this.#rest + lines[0];
    this.#rest = lines.pop()!;
    // A line that does not end is one all the same.
    if (this.#rest.length >= TEXT_MAX) {
      lines.push(this.#rest);
      this.#rest = '';
    }
    const passed: string[] = [];
    for (const line of lines) {
      if (this.#bucket.take()) passed.push(line.slice(0, TEXT_MAX));
      else this.#dropped++;
    }
    if (passed.length === 0) return;
    this.post({ kind: 'printed', lines: passed, dropped: this.#dropped });
    this.#dropped = 0;
  }
}
