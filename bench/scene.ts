/** What is varied between the tables of the end-to-end bench: everything that peers do not choose themselves. */

export const placements = ['tap', 'macvlan', 'bridge'] as const;
/** Where the inner address is: on the overlay's own link, on a macvlan above it, or behind a bridge and a veth pair. */
export type Placement = (typeof placements)[number];

export interface Scene {
  /** Of the underlay, bytes. */
  readonly mtu: number;
  readonly placement: Placement;
  /** Each host with all its programs has one CPU; otherwise all share all. */
  readonly isOneCore: boolean;
}

const words: Record<Placement, string> = {
  tap: "address on the overlay's link",
  macvlan: 'address on a macvlan above it',
  bridge: 'address behind veth and bridge',
};

/** The scene in words. */
export function describe({ mtu, placement, isOneCore }: Scene): string {
  return `MTU ${mtu}, ${words[placement]}${isOneCore ? ', one core per host' : ''}`;
}
