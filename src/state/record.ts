/** What is kept on disk of a device, and of its targets. */
import type { Route } from '../target/destination.js';

export interface DeviceRecord {
  readonly name: string;
  /** Number of the lookup instance: the order in which devices came about. */
  readonly id: number;
  readonly encap: string;
  readonly search: string;
  /** Decimal. */
  readonly vnetid: string;
  /** Those that were set. */
  readonly properties: Readonly<Record<string, string | number>>;
  readonly isActivated: boolean;
  /** Of the link. */
  readonly mac: string | null;
  /** What the holder of the external handle said the device is, as JSON. */
  readonly association: unknown;
  /** What the lookup plugin's `save` gave, as JSON. */
  readonly saved: unknown;
}

export interface TargetRecord {
  /** Number below 2^48. */
  readonly mac: number;
  readonly route: Route | 'drop';
  readonly source: string;
}
