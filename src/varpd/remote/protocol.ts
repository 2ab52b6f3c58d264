/**
 * What main and a plugin's thread say to each other, over a channel that the plugin's code does not see. Main numbers
 * its calls; the thread answers each number once. A plugin that gets at the channel nevertheless can send anything, so
 * main reads whatever comes as unknown (`message.ts`).
 *
 *   main                                  thread
 *    │ load (worker's own channel)           │
 *    │ ────────────────────────────────────► │ imports the module
 *    │ ◄──────────────── declared or refused │
 *    │ ping ───────────────────────────────► │
 *    │ ◄─────────────────────────────── pong │
 *    │ call 7: lookup ─────────────────────► │
 *    │ ◄────────────────── answer or failed 7│
 *    │ ◄─────────── services, printed: unasked
 */
import type { MessagePort } from 'node:worker_threads';
import { ROUTE_DESTINATIONS_MAX, type Route } from '../../target/destination.js';
import type { Rate } from './bucket.js';
import type { Declaration } from './declaration.js';

/** Functions of an instance that main calls; `set` is a change of a property. */
export type Method = 'start' | 'stop' | 'lookup' | 'arp' | 'dhcp' | 'save' | 'set';

/** A module: a file, or a package as it is found from a directory. */
export type ModuleAddress =
  | { readonly kind: 'file'; readonly url: string }
  | { readonly kind: 'package'; readonly name: string; readonly from: string };

/** The first message, over the worker's own channel, which is closed then. */
export interface Load {
  readonly port: MessagePort;
  readonly module: ModuleAddress;
  /** What it may hold; see `Memory`. */
  readonly memoryBytes: number;
}

/** Argument of `start`. */
export interface StartArgument {
  /** DESTINATION_ bits. */
  readonly destinations: number;
  readonly overlay: string;
  readonly vnetid: bigint;
  /** Properties that have a value: name and text. */
  readonly values: readonly (readonly [name: string, text: string])[];
  /** JSON of what `save` gave, of an earlier life. */
  readonly saved: string | undefined;
}

/** Argument of `set`. */
export interface SetArgument {
  readonly name: string;
  readonly text: string;
}

export type ToThread =
  | { readonly kind: 'ping' }
  | {
      readonly kind: 'call';
      readonly call: number;
      readonly session: number;
      readonly method: Method;
      readonly argument: unknown;
    };

/** An error on its way between threads. */
export interface Fault {
  readonly errno: string;
  readonly code: string;
  readonly message: string;
}

/** A use of `LookupServices`. */
export type ServiceCall =
  | { readonly what: 'set'; readonly mac: string; readonly route: Route }
  | { readonly what: 'invalidate'; readonly mac: string }
  | { readonly what: 'invalidateAll' }
  | { readonly what: 'gratuitousArp'; readonly mac: string; readonly ip: string; readonly vlan: number }
  | { readonly what: 'peersChanged'; readonly peers: readonly string[] }
  | { readonly what: 'degrade'; readonly text: string }
  | { readonly what: 'restore' }
  | { readonly what: 'log'; readonly level: 'info' | 'warn' | 'error'; readonly message: string };

export type FromThread =
  | { readonly kind: 'declared'; readonly declaration: Declaration }
  | { readonly kind: 'refused'; readonly fault: Fault }
  /** `usedBytes`: what the thread holds, on its heap and beside it. */
  | { readonly kind: 'pong'; readonly usedBytes: number }
  | { readonly kind: 'answer'; readonly call: number; readonly value: unknown }
  | { readonly kind: 'failed'; readonly call: number; readonly fault: Fault }
  | {
      readonly kind: 'services';
      readonly session: number;
      readonly calls: readonly ServiceCall[];
      /** Calls that the thread let go since the last such message: there were too many. */
      readonly dropped: number;
    }
  | { readonly kind: 'printed'; readonly lines: readonly string[]; readonly dropped: number };

/** Service calls in one message: few messages for a whole table, none that is long to read. */
export const SERVICE_CALLS_MAX = 256;
/** Characters of a text for people, of a log line or of a line that a plugin prints. */
export const TEXT_MAX = 1024;
/** Longest JSON of `save`. Main keeps it for each instance, and asks for it every second. */
export const SAVED_CHARACTERS_MAX = 256 * 1024;
/** VTEPs of `peers`: more than one underlay has, and what the workers' sets of senders can hold. */
export const PEERS_MAX = 65_536;
/** Textual addresses and keys are shorter than this whatever their form. */
export const ADDRESS_CHARACTERS_MAX = 64;
/** Destinations in one service message: lists are the long thing in it. */
export const SERVICE_DESTINATIONS_MAX = 4 * ROUTE_DESTINATIONS_MAX;

/**
 * Changes of the cache that one instance may make: two whole tables of the default size at once, and in the long run
 * what main does beside its other work.
 */
export const CHANGE_RATE: Rate = { perSecond: 20_000, burst: 131_072 };
/** The same for whatever costs more than one entry, and is asked for by hand or by an event somewhere. */
export const EVENT_RATE: Rate = { perSecond: 200, burst: 1000 };
/** Lines of a plugin in the log, its prints and its `log` apart. */
export const LOG_RATE: Rate = { perSecond: 20, burst: 100 };
