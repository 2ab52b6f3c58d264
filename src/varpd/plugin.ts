/**
 * Lookup plugins answer the second question: where is the transformed frame sent? They run under varpd, off the
 * fast path; what they answer is kept in the device's target cache. A whole plugin:
 *
 *   import type { LookupPlugin } from 'overlayd';
 *   import { PropertyStore } from 'overlayd';
 *
 *   const hosts = new Map([['02:08:20:00:00:01', { ip: '192.0.2.1', port: 4789 }]]);
 *
 *   export const plugin: LookupPlugin = {
 *     version: 1,
 *     name: 'my-lookup',
 *     mode: 'dynamic',
 *     properties: () => [],
 *     create: () => ({
 *       properties: new PropertyStore([]),
 *       start: () => {},
 *       stop: () => {},
 *       lookup: ({ destination }) => hosts.get(destination) ?? 'unknown',
 *     }),
 *   };
 */
import type { PropertyStore } from '../property.js';
import type { Destination, Route } from '../target/destination.js';

export type { Destination, Route };

export const LOOKUP_VERSION = 1;

/** One frame without a known destination; what of it is known. MAC addresses are canonical text. */
export interface LookupRequest {
  /** Names the request; no other has the same. */
  readonly id: string;
  readonly overlay: string;
  readonly vnetid: bigint;
  /** Inner source and destination. The answer is for all frames to `destination`. */
  readonly source: string;
  readonly destination: string;
  readonly kind: 'unicast' | 'multicast' | 'broadcast';
  /** EtherType behind any tag, host order; 0 for LLC frames. */
  readonly etherType: number;
  /** A DHCPv4 client's message to whatever server there is: what `proxy-dhcp` can take. */
  readonly isDhcp: boolean;
  /** VLAN id, 0 when untagged. */
  readonly vlan: number;
  /** Bytes of the Ethernet header with its tag, and of what follows. */
  readonly headerBytes: number;
  readonly payloadBytes: number;
}

/**
 * A route: kept, and the frames that wait go there. `drop`: this frame is dropped, the next one is asked about again.
 * `unknown`: the same, and the target may be remembered as unknown for the device's `negative_ttl`. `proxy-…`: varpd
 * answers this frame in the name of its addressee, asking `arp` or `dhcp`; like `drop` for the frames behind it.
 */
export type Answer = Route | 'drop' | 'unknown' | 'proxy-arp' | 'proxy-ndp' | 'proxy-dhcp';

/** Whose MAC address is wanted: an inner IPv4 (ARP) or IPv6 (NDP) address, canonical text. */
export interface ArpQuery {
  readonly family: 4 | 6;
  readonly ip: string;
  readonly request: LookupRequest;
}

/** What varpd does for an instance, from `start` to `stop`. */
export interface LookupServices {
  readonly overlay: string;
  readonly vnetid: bigint;
  /** Puts a target into the cache unasked, as if it had been looked up. Throws EINVAL for a bad one, ENOSPC. */
  set(mac: string, route: Route): void;
  /** Takes a target out of the cache: it is asked about again. Nothing happens when it is not there. */
  invalidate(mac: string): void;
  /** Takes every target out. */
  invalidateAll(): void;
  /** Tells the guests of this host that `ip` is at `mac` (gratuitous ARP request, untagged for vlan 0). */
  gratuitousArp(options: { mac: string; ip: string; vlan: number }): void;
  /** `peers` has changed. */
  peersChanged(): void;
  /** Degrades the device with a reason for people; the last one counts. Forwarding goes on. */
  degrade(text: string): void;
  restore(): void;
  log(level: 'info' | 'warn' | 'error', message: string): void;
  /** For plugins of ours: what is wrong with options of a destination, for the device's encapsulation; undefined for nothing. */
  optionsFault?(text: string): string | undefined;
  /** For plugins of ours: throws EINVAL for a VTEP that the device can never send to. */
  refuseVtep?(ip: string): void;
  /** For plugins of ours that have `learn`; those that run in a thread of their own have none. */
  readonly learning?: LearningServices;
}

/** What a plugin that learns asks of the data path. */
export interface LearningServices {
  /** Seconds (`monotonicSeconds`) at which a frame from the address came in, 0 for not that is known. */
  lastSeen(mac: string): number;
  /** An operator has set the target: it stays as it is. */
  isStatic(mac: string): boolean;
  /** Nothing of the target is under way: it is neither asked about nor are frames of it on their way back. */
  isSettled(mac: string): boolean;
  /** Counts an address as learned, found elsewhere, or not learned. */
  count(what: 'learned' | 'moved' | 'unlearned'): void;
}

/** One overlay's use of a plugin. Every call has a deadline; a throw or a rejection degrades the device. */
export interface LookupInstance {
  readonly properties: PropertyStore;
  /** Checks that it has what it needs; throws EAGAIN naming what is missing. Nothing is asked before it. */
  start(services: LookupServices): void | Promise<void>;
  /** Nothing is asked after it. */
  stop(): void | Promise<void>;
  /** POINT: the one destination of every frame. */
  point?(): Destination;
  /** DYNAMIC: where does the frame go? Several are asked at a time. */
  lookup?(request: LookupRequest): Answer | Promise<Answer>;
  /** DYNAMIC, with `proxy-arp` or `proxy-ndp`: MAC address of an inner address, or undefined. */
  arp?(query: ArpQuery): string | undefined | Promise<string | undefined>;
  /** DYNAMIC, with `proxy-dhcp`: MAC address of the DHCP server for the request's source, or undefined. */
  dhcp?(request: LookupRequest): string | undefined | Promise<string | undefined>;
  /**
   * DYNAMIC, plugins of ours: a frame from `mac` has come from the VTEP `ip`, and the target cache does not have it there. Told
   * once a second at most for each, and only for senders that `<encap>/source_check` lets in.
   */
  learn?(mac: string, ip: string): void;
  /** DYNAMIC, plugins of ours: an operator has removed the target of `mac`, or all of them; the plugin forgets what it learned. */
  forget?(mac?: string): void;
  /**
   * Addresses of every VTEP it may answer with; those may send to us under `source_check=auto`. Undefined where that cannot be
   * told.
   */
  peers?(): readonly string[] | undefined;
  /** Plugins of ours: multicast groups of the underlay that the device is in while it is started. Asked before `start`, too. */
  groups?(): readonly string[];
  /** What a restart must not lose, besides properties; JSON. */
  save?(): unknown;
  /** Before `start`: what `save` gave. */
  restore?(saved: unknown): void;
}

export interface LookupPlugin {
  readonly version: number;
  readonly name: string;
  /** point: one destination for everything. dynamic: one for each MAC address. */
  readonly mode: 'point' | 'dynamic';
  /** Names of the properties there are for these DESTINATION_ bits, in the order in which they are shown. */
  properties(destinations: number): readonly string[];
  /** Throws ENOTSUP when it cannot supply exactly these DESTINATION_ bits. */
  create(destinations: number): LookupInstance;
}
