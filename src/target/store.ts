/** The table of one device as its target cache sees it: `src/datapath/target-table.ts`, which is a layer above. */

/** TARGET_ bits of the table, as the layer above has them. */
export interface TargetFlags {
  readonly valid: number;
  readonly drop: number;
  readonly pending: number;
  readonly draining: number;
  readonly full: number;
}

/** The table of one device. */
export interface TargetStore {
  readonly size: number;
  readonly flags: TargetFlags;
  find(mac: number): Readonly<Record<'flags' | 'destination' | 'id' | 'generation', number>> | undefined;
  /** Throws ENOSPC or ENOMEM when there is no room. */
  insert(mac: number, flags: number, destination: number, generation: number): void;
  update(mac: number, flags: number, destination: number, generation: number): void;
  remove(mac: number): void;
  /** Removes everything at once. Throws ENOMEM when there is no room to do so. */
  clear(): void;
  macs(): Float64Array;
  counts(mac: number): { readonly frames: number; readonly bytes: number; readonly lastUse: number };
}
