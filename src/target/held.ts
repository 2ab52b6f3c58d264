/** The frames of one device that main holds, whatever they wait for: how many, and on whose account their bytes are. */
import { Budget, HELD_BYTES_PER_DEVICE_MAX } from './budget.js';
import type { CacheServices, HeldFrame } from './services.js';

export class Held {
  readonly #budget: Budget;
  #frames = 0;

  constructor(
    /** The process's account. */
    process: Budget,
    readonly services: Pick<CacheServices, 'drop'>,
  ) {
    this.#budget = new Budget(HELD_BYTES_PER_DEVICE_MAX, process);
  }

  get frames(): number {
    return this.#frames;
  }

  get bytes(): number {
    return this.#budget.bytes;
  }

  /** Charges a frame to the accounts; false when one refuses, and the frame is dropped. */
  take({ frame }: HeldFrame): boolean {
    const refusing = this.#budget.refuses(frame.length);
    if (refusing) {
      this.services.drop(refusing === this.#budget ? 'tx_held_full_device' : 'tx_held_full_process', 1);
      return false;
    }
    this.#budget.take(frame.length);
    this.#frames++;
    return true;
  }

  /** They are held no more. */
  giveBack(frames: readonly HeldFrame[]): void {
    for (const { frame } of frames) this.#budget.giveBack(frame.length);
    this.#frames -= frames.length;
  }
}
