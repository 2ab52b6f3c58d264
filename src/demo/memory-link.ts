/** A memory port that behaves as a link: it has a name, an index and an administrative state. */
import { MemoryPort } from '../sys/memory-port.js';
import type { Port } from '../sys/port.js';

export class MemoryLink implements Port {
  readonly #port: MemoryPort;
  readonly fds: readonly number[];
  readonly mac = '';
  isUp = false;
  #isReleased = false;

  constructor(
    readonly name: string,
    readonly index: number,
    readonly queues: number,
    mtu: number,
  ) {
    this.#port = new MemoryPort(queues);
    this.#port.setMtu(mtu);
    this.fds = this.#port.fds;
  }

  get mtu(): number {
    return this.#port.mtu;
  }

  get hasCarrier(): boolean {
    return this.#port.hasCarrier;
  }

  setCarrier(on: boolean): void {
    this.#port.setCarrier(on);
  }

  setMtu(bytes: number): void {
    this.#port.setMtu(bytes);
  }

  setAlias(text: string): void {
    this.#port.setAlias(text);
  }

  /** Sends a frame towards the engine on one queue; false when the queue takes no more for now. */
  send(queue: number, frame: Uint8Array): boolean {
    return !this.#isReleased && this.#port.send(queue, frame);
  }

  /** The next frame from the engine, or undefined. */
  receive(): Uint8Array | undefined {
    return this.#isReleased ? undefined : this.#port.receive();
  }

  keep(): void {}

  handOver(): void {}

  readonly offloads = { checksum: false, tso: false, uso: false };
  readonly takes = 'none';

  offer(): void {}

  async release(): Promise<void> {
    this.#isReleased = true;
    await this.#port.release();
  }
}
