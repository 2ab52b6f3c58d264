/** A transfer from host a to host b, whatever carries it. */

export interface TransferResult {
  readonly bytes: number;
  /** From the first byte to the last, at the receiver. */
  readonly seconds: number;
  /** Every byte is the one that was sent. */
  readonly isIntact: boolean;
}

/** A transfer that has not moved for this long has failed. */
export const STALL_MS_MAX = 10_000;

/** What a whole transfer may take. */
export function transferMsMax(bytes: number): number {
  return 30_000 + bytes / 2000;
}

/** What the two processes of a TCP transfer tell the demo. */
export type TransferMessage =
  | { kind: 'listening' }
  | { kind: 'progress'; bytes: number }
  | ({ kind: 'received' } & TransferResult)
  | { kind: 'failed'; reason: string };
