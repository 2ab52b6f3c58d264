/**
 * One at a time: what is done to a device, by operators, by its link or by a timer, runs in order and never interleaved
 * (illumos' MAC perimeter). Devices do not wait for each other: a lookup plugin that hangs holds up its own device only.
 */
import { Serial } from '../serial.js';

interface Perimeter {
  readonly serial: Serial;
  /** Pieces of work that have not ended. */
  entered: number;
}

export class Perimeters {
  /** By name of the device; those that nobody is in are not kept. */
  readonly #perimeters = new Map<string, Perimeter>();

  /** Devices that something is being done to, or waits to be done. */
  get busy(): string[] {
    return [...this.#perimeters.keys()];
  }

  /** Resolves or rejects as the work does. */
  async run<T>(device: string, work: () => T | Promise<T>): Promise<T> {
    const perimeter = this.#perimeters.get(device) ?? { serial: new Serial(), entered: 0 };
    this.#perimeters.set(device, perimeter);
    perimeter.entered++;
    try {
      return await perimeter.serial.run(work);
    } finally {
      perimeter.entered--;
      if (perimeter.entered === 0) this.#perimeters.delete(device);
    }
  }

  /** Resolves when everything that was handed over so far has ended. */
  async idle(): Promise<void> {
    await Promise.all([...this.#perimeters.values()].map(({ serial }) => serial.run(() => {})));
  }
}
