/** Where the frames of a batch were placed, with canaries around them. Cheap, since the fuzzer does it for every frame. */
import type { CoreRig } from './core-rig.js';

const CANARY = 0xa5a5a5a5;
/** Twice a word. */
const CANARY_BYTES = 8;

export class BatchFault extends Error {}

export function fault(what: string): never {
  throw new BatchFault(what);
}

export class BatchGuard {
  readonly offsets: Uint32Array;
  readonly lengths: Uint32Array;
  readonly #froms: Uint32Array;
  readonly #view: DataView;
  readonly #end: number;

  /** @param count placements */
  constructor(rig: CoreRig, count: number) {
    this.#froms = new Uint32Array(count);
    this.offsets = new Uint32Array(count);
    this.lengths = new Uint32Array(count);
    this.#view = new DataView(rig.views.memory.buffer);
    this.#end = rig.end;
  }

  /**
   * Notes a placement and guards the bytes around it; there are none after one that ends where the memory ends.
   * @param margin bytes before it that the core may write
   */
  place(index: number, offset: number, length: number, margin: number): void {
    this.offsets[index] = offset;
    this.lengths[index] = length;
    const view = this.#view;
    const from = offset - margin - CANARY_BYTES;
    this.#froms[index] = from;
    view.setUint32(from, CANARY);
    view.setUint32(from + 4, CANARY);
    const to = offset + length;
    if (to === this.#end) return;
    view.setUint32(to, CANARY);
    view.setUint32(to + 4, CANARY);
  }

  mustBeGuarded(index: number): void {
    const view = this.#view;
    const from = this.#froms[index]!;
    const isBefore = view.getUint32(from) === CANARY && view.getUint32(from + 4) === CANARY;
    if (!isBefore) fault(`frame ${index}: bytes before the buffer changed`);
    const to = this.offsets[index]! + this.lengths[index]!;
    if (to === this.#end) return;
    const isBehind = view.getUint32(to) === CANARY && view.getUint32(to + 4) === CANARY;
    if (!isBehind) fault(`frame ${index}: bytes after the buffer changed`);
  }
}
