/** A memory port that behaves as a link: it has a name, an index and an administrative state. */
import { MemoryPort } from '../sys/memory-port.js';

export class MemoryLink extends MemoryPort {
  isUp = false;
  #isReleased = false;

  constructor(
    readonly name: string,
    override readonly index: number,
    queues: number,
    mtu: number,
  ) {
    super(queues);
    this.setMtu(mtu);
  }

  override send(queue: number, frame: Uint8Array): boolean {
    return !this.#isReleased && super.send(queue, frame);
  }

  override receive(): Uint8Array | undefined {
    return this.#isReleased ? undefined : super.receive();
  }

  override async release(): Promise<void> {
    this.#isReleased = true;
    await super.release();
  }
}
