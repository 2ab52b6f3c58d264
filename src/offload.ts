/**
 * Offloads: work on many frames that is done once, by us or by the kernel, in place of once a frame. Each has a property of its
 * name on every device:
 *
 *   auto   used where the kernel has it; an error of the kernel turns it off for a while (`down`), and it is tried again
 *   on     the same, but it is refused where the kernel does not have it, and no error turns it off by which nothing is lost
 *   off    not used
 *
 * What passes is the same, byte for byte, whatever they are set to; only how fast differs (`test/offload.ts`).
 */
import { OverlayError } from './errors.js';

/** Out, from the link; out, to the underlay; in, from the underlay; in, to the link. What each is, in a few words. */
export const offloads = {
  checksum: 'the link leaves inner checksums to us',
  tso: 'the link hands over TCP super-frames, which we cut (needs checksum)',
  uso: 'the link hands over UDP super-frames, which we cut (needs checksum; Linux 6.2)',
  udp_segment:
    'datagrams of one size to one destination are handed to the kernel as one message (UDP_SEGMENT)',
  udp_gro: 'the kernel hands over datagrams of one size and sender as one message (UDP_GRO)',
  gro: 'received frames of a flow are joined for the link',
} as const satisfies Record<string, string>;
export type OffloadName = keyof typeof offloads;
export const offloadNames = Object.keys(offloads) as readonly OffloadName[];

export const offloadSettings = ['auto', 'on', 'off'] as const;
export type OffloadSetting = (typeof offloadSettings)[number];

/** Those that the kernel may refuse while they are used. */
export type FallibleOffload = 'udp_segment' | 'gro';

/** used; off by its property; refused by the kernel, or without what it needs; down after an error, to be tried again. */
export type OffloadState = 'used' | 'off' | 'refused' | 'down';

/** What the kernel leaves to whoever reads the link. */
export interface LinkOffloads {
  readonly checksum: boolean;
  readonly tso: boolean;
  readonly uso: boolean;
}

/** What a link takes: nothing larger than its MTU, super-frames of TCP, or those of UDP as well (from Linux 6.2). */
export type SuperFrames = 'none' | 'tcp' | 'tcp and udp';

/** What the kernel's UDP sockets have. */
export interface SocketOffloads {
  readonly udp_segment: boolean;
  readonly udp_gro: boolean;
}

export type OffloadTable<Value> = Record<OffloadName, Value>;

/** The same value for each. */
export function eachOffload<Value>(value: (name: OffloadName) => Value): OffloadTable<Value> {
  return Object.fromEntries(offloadNames.map((name) => [name, value(name)])) as OffloadTable<Value>;
}

/** What an offload comes to. @param has the kernel has it, @param isDown an error has turned it off */
export function offloadState(setting: OffloadSetting, has: boolean, isDown: boolean): OffloadState {
  if (setting === 'off') return 'off';
  if (!has) return 'refused';
  return isDown ? 'down' : 'used';
}

/** Throws ENOTSUP for a setting of `on` that the kernel refuses. */
export function refuseOffload(name: OffloadName, setting: OffloadSetting, state: OffloadState): void {
  if (setting !== 'on' || state !== 'refused') return;
  throw new OverlayError(
    'ENOTSUP',
    'offload_refused',
    `${name} cannot be on: the kernel does not have it, or what it needs is off; set it to auto`,
  );
}
