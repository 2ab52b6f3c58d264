/**
 * Where lines of the log go: to a descriptor, in order, before the next statement runs. A pipe that nobody reads, a terminal that
 * is gone and a full disk cost lines, which are counted; they never hold the daemon up.
 */
import { writeSync } from 'node:fs';
import { POLLOUT } from '../sys/abi.js';
import { poll } from '../sys/libc.js';

/** A pipe that can be written to takes that many bytes at once (man 7 pipe, PIPE_BUF). */
const PART_BYTES = 4096;
/** How long a line waits for its reader, when none was lost before it. */
const WAIT_MS = 200;

export class LogStream {
  /** Lines that could not be written since the last that could. */
  #lost = 0;

  constructor(readonly fd: number) {}

  get lost(): number {
    return this.#lost;
  }

  /** A whole line, with its end. */
  write(line: string): void {
    if (this.#lost > 0) {
      const text = `{"level":40,"name":"overlayd","lost":${this.#lost},"msg":"lines of the log were lost: nobody took them"}\n`;
      if (!this.#isWritten(text)) {
        this.#lost++;
        return;
      }
      this.#lost = 0;
    }
    if (!this.#isWritten(line)) this.#lost++;
  }

  #isWritten(line: string): boolean {
    const bytes = Buffer.from(line);
    try {
      for (let at = 0; at < bytes.length; ) {
        if (!this.#isReady()) return false;
        at += writeSync(this.fd, bytes, at, Math.min(PART_BYTES, bytes.length - at));
      }
      return true;
    } catch {
      // EPIPE, EIO, ENOSPC, EBADF: there is no other place to say it.
      return false;
    }
  }

  #isReady(): boolean {
    const request = new Int32Array([this.fd, POLLOUT]);
    return poll(request, 1, this.#lost === 0 ? WAIT_MS : 0) > 0;
  }
}
