/** Where a device's frames come from and go to: a TAP link, or memory for tests and for hosts without TAPs. */

import type { LinkOffloads, SuperFrames } from '../offload.js';

export interface Port {
  /** One descriptor a worker. Each read and write is one frame behind a VNET_HDR_BYTES header. */
  readonly fds: readonly number[];
  /** What the link is called; none for a port that is not one. */
  readonly name?: string;
  /** Interface index, or 0 for a port that is not a link. */
  readonly index: number;
  setCarrier(on: boolean): void;
  setMtu(bytes: number): void;
  /** Says what may be handed over unfinished or uncut; `offloads` then says what the kernel has agreed to. */
  offer(wanted: LinkOffloads): void;
  readonly offloads: LinkOffloads;
  /** What super-frames may be written to it: behind it there is a kernel that can cut them. */
  readonly takes: SuperFrames;
  /** A text that the kernel keeps with the link. */
  setAlias(text: string): void;
  /** Address of the link, in hexadecimal with colons; '' for a port that is not a link. */
  readonly mac: string;
  /** Whether the link stays when its descriptors close. */
  keep(isKept: boolean): void;
  /** Lets the descriptors pass to whatever program this process becomes (man 2 execve). */
  handOver(): void;
  /** Takes the link away, and leaves the descriptors open; `release` follows. */
  unlink(): void;
  /**
   * Closes the descriptors, off the calling thread; a link that is not kept goes away with them. Resolves when they are
   * closed.
   */
  release(): Promise<void>;
}
