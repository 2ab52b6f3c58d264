/** The two hosts as the demo sees them, whatever they are made of. */
import type { Echoer } from './ping.js';
import type { TransferResult } from './transfer.js';

export const DEVICE = 'overlay0';
export const VNETID = 4242;

export interface Host {
  readonly name: 'a' | 'b';
  /** Control socket of its overlayd. */
  readonly socket: string;
  readonly underlayIp: string;
  /** Address on the overlay. */
  readonly innerIp: string;
  /** Gives the overlay device its address and takes it up; the commands that would do the same. */
  takeUp(): readonly string[];
  /** Its links, for people. */
  links(): LinkRow[];
  /** Datagrams of ours that the underlay's link did not take. */
  underlayDrops(): number;
}

export interface LinkRow {
  readonly name: string;
  readonly kind: string;
  readonly mac: string;
  readonly mtu: number;
  readonly state: string;
  readonly addresses: string;
}

export interface Pair {
  readonly a: Host;
  readonly b: Host;
  /** UDP port of both. */
  readonly port: number;
  /** What a transfer is made of, for people. */
  readonly carries: string;
  readonly megabytesDefault: number;
  /** Rejects when one of the hosts has failed. Never resolves. */
  readonly lost: Promise<never>;
  /** From a to b. */
  readonly echo: Echoer;
  /** From a to b. Rejects when it fails. */
  transfer(bytes: number, onProgress: (bytes: number) => void): Promise<TransferResult>;
  /** What to try while it stays up: a sentence and its command. */
  commands(): readonly (readonly [what: string, command: string])[];
}
