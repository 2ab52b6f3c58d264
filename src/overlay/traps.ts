/** Core traps: each costs one frame; CORE_TRAPS_MAX within CORE_TRAPS_WINDOW_MS degrade the device. */
import { CORE_TRAPS_MAX, CORE_TRAPS_WINDOW_MS } from '../limits.js';
import { after, monotonicMs } from '../sys/clock.js';

export class Traps {
  readonly #times = new Map<string, number[]>();
  readonly #restores = new Map<string, () => void>();

  constructor(
    readonly onMany: (device: string, count: number) => void,
    readonly onQuiet: (device: string) => void,
  ) {}

  /** Notes a trap that hit a frame of the device. */
  note(device: string): void {
    const now = monotonicMs();
    const times = [...(this.#times.get(device) ?? []), now].filter((at) => now - at < CORE_TRAPS_WINDOW_MS);
    this.#times.set(device, times.slice(-CORE_TRAPS_MAX));
    if (times.length < CORE_TRAPS_MAX) return;
    this.onMany(device, times.length);
    this.#restores.get(device)?.();
    this.#restores.set(
      device,
      after(CORE_TRAPS_WINDOW_MS, () => this.#quiet(device)),
    );
  }

  forget(device: string): void {
    this.#restores.get(device)?.();
    this.#restores.delete(device);
    this.#times.delete(device);
  }

  #quiet(device: string): void {
    this.forget(device);
    this.onQuiet(device);
  }
}
