/** A store that lives as long as a test, and fails when it is told to. */
import { OverlayError } from '../../src/errors.js';
import type { Store } from '../../src/overlay/persistence.js';
import type { DeviceRecord, TargetRecord } from '../../src/state/record.js';

export class MemoryStore implements Store {
  readonly records = new Map<string, DeviceRecord>();
  readonly targets = new Map<string, TargetRecord[]>();
  /** The disk takes nothing. */
  isFull = false;

  save(record: DeviceRecord): void {
    this.#check();
    // As a file would: what is changed afterwards is not in it.
    this.records.set(record.name, JSON.parse(JSON.stringify(record)) as DeviceRecord);
  }

  remove(name: string): void {
    this.#check();
    this.records.delete(name);
    this.targets.delete(name);
  }

  async saveTargets(name: string, rows: Iterable<TargetRecord>): Promise<void> {
    this.#check();
    this.targets.set(name, [...rows]);
  }

  async *loadTargets(name: string): AsyncGenerator<TargetRecord[]> {
    yield this.targets.get(name) ?? [];
  }

  #check(): void {
    if (this.isFull) throw new OverlayError('ENOSPC', 'state_failed', 'the disk is full');
  }
}
