/** Bytes held for targets that are being looked up: caps for each target, device and the process. */

export const HELD_BYTES_PER_TARGET_MAX = 1024 * 1024;
export const HELD_FRAMES_PER_TARGET_MAX = 1024;
export const HELD_BYTES_PER_DEVICE_MAX = 16 * 1024 * 1024;
export const HELD_BYTES_MAX = 64 * 1024 * 1024;

/** An account with a cap, and one above it that must agree too. */
export class Budget {
  #bytes = 0;

  constructor(
    readonly max: number,
    readonly above?: Budget,
  ) {}

  get bytes(): number {
    return this.#bytes;
  }

  /** The account that refuses, or undefined when all have room; nothing is taken. */
  refuses(bytes: number): Budget | undefined {
    if (this.#bytes + bytes > this.max) return this;
    return this.above?.refuses(bytes);
  }

  take(bytes: number): void {
    this.#bytes += bytes;
    this.above?.take(bytes);
  }

  giveBack(bytes: number): void {
    this.#bytes -= bytes;
    this.above?.giveBack(bytes);
  }
}
