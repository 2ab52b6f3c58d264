/** What the control API shows of devices and counters, as JSON: numbers above 2^53 are decimal strings. */

import type { Counts } from '../datapath/counters.js';
import { type DropName, dropNames, dropSentences } from '../datapath/drop.js';
import type { SearchState } from '../datapath/path-search.js';
import { DESTINATION_ETHERNET, DESTINATION_IP, DESTINATION_PORT } from '../encap/plugin.js';
import { OverlayError } from '../errors.js';
import { discreetText, type FaultStatus } from '../fma.js';
import { CONTROL_PAGE_ROWS_MAX } from '../limits.js';
import type { OffloadName, OffloadState } from '../offload.js';
import type { ProbeCounts } from '../overlay/path-probes.js';
import type { DeviceProperty } from '../overlay/properties.js';
import type { Overlay } from '../overlay.js';
import { formatPossible, propertyToJson } from '../property.js';
import { wallTimeOf } from '../sys/clock.js';
import { formatRoute, type Route } from '../target/destination.js';
import type { TargetView } from '../target/entries.js';
import { formatMac } from '../target/mac.js';
import { type ControlView, controlView, type Load } from './load.js';
import { namesAfter, type PageWanted, pageOf } from './page.js';
import { type RefusalName, refusals } from './refusals.js';

export type { VnicView } from './vnic-view.js';

/** Version of every document below; additions keep it, changes of meaning do not. */
export const API_VERSION = 1;

export interface PropertyView {
  readonly name: string;
  readonly id: number;
  readonly type: string;
  /** `rw`, `r-` or `--`. */
  readonly permission: string;
  readonly required: boolean;
  readonly value: string | number | null;
  readonly default: string | number | null;
  readonly possible: string | null;
}

/** One entry of a target cache. */
export interface TargetJson {
  /** MAC address; for the one entry of a POINT device `*:*:*:*:*:*`, or the zero address on the external handle. */
  readonly target: string;
  /** valid, drop, pending (asked about) or draining (what was held goes out first). */
  readonly state: string;
  /** Where its frames go; null while that is not known. What a PUT takes. */
  readonly to: Route | 'drop' | null;
  /** The same as text. */
  readonly destination: string | null;
  /** How it came about: lookup, operator or plugin. */
  readonly source: string;
  /** Seconds since it came into its state. */
  readonly age: number;
  readonly frames: number;
  readonly bytes: number;
  /** Largest IP packet that the way to it takes, as ICMP or probes have said; of several the least; null where nothing is known. */
  readonly path_mtu: number | null;
  /** How far the search by probes has come; of several one that has not ended; null where nothing is probed. */
  readonly path_probe: SearchState | null;
  /** ISO 8601, to the second; null when it has never been used. */
  readonly last_use: string | null;
}

/** One page of a target cache. */
export interface TargetsPage {
  readonly targets: readonly TargetJson[];
  /** `marker` of the next page; null behind the last. */
  readonly next: string | null;
}

/** What a DYNAMIC device has open. */
export interface RequestsView {
  readonly targets: number;
  readonly requests: number;
  readonly held_frames: number;
  readonly held_bytes: number;
}

export interface OverlayView {
  readonly state: string;
  readonly status: string;
  readonly message: string;
  readonly faults: readonly { code: string; text: string; since: string }[];
  readonly properties: readonly PropertyView[];
  /** What each offload has come to: used, off, refused (the kernel does not have it) or down (after an error, for a while). */
  readonly offloads: Readonly<Record<OffloadName, OffloadState>>;
  /** Parts of a destination, for this device's encapsulation. */
  readonly destination_kinds: readonly string[];
  /** Target cache: a POINT device has one entry, for every address; of others the first. */
  readonly targets: readonly TargetJson[];
  /** There are more targets than that; `/targets` has them all. */
  readonly targets_more: boolean;
  /** Null for a POINT device and before activation. */
  readonly requests: RequestsView | null;
  /** There when the caller may not read: values are null, and targets and requests are left out. */
  readonly redacted?: true;
}

export interface RowView {
  readonly counters: Readonly<Record<string, string | number>>;
  /** Drops by name; those that never happened are left out. */
  readonly drops: Readonly<Partial<Record<DropName, string | number>>>;
}

/** One page of counters: devices by name, then underlay addresses. */
export interface StatsView {
  /** A sentence for each drop and each refusal that stands below. */
  readonly meanings: Readonly<Partial<Record<DropName | `refused_${RefusalName}`, string>>>;
  readonly overlays: Readonly<Record<string, RowView & { link_overflow: string | number }>>;
  readonly muxes: Readonly<
    Record<
      string,
      RowView & { encap: string; socket_overflow: number; ports_skipped: number; probes: ProbeCounts }
    >
  >;
  /** On the first page. */
  readonly workers: readonly (RowView & {
    worker: number;
    directions: string;
    state: string;
    restarts: number;
    starvations: number;
  })[];
  readonly control: ControlView;
  /** `after` of the next page; null behind the last. */
  readonly next: string | null;
}

type DeviceRow = StatsView['overlays'][string];
type MuxRow = StatsView['muxes'][string];
/** In front of an underlay address among the names of a page: no device has such a name, and it sorts behind all of them. */
const MUX_MARK = '~';

export function propertyView(property: DeviceProperty, id: number): PropertyView {
  const { info, value } = property;
  return {
    name: info.name,
    id,
    type: info.type,
    permission: `${info.isReadable ? 'r' : '-'}${info.isWritable ? 'w' : '-'}`,
    required: info.isRequired,
    value: propertyToJson(value),
    default: propertyToJson(info.default),
    possible: info.possible ? formatPossible(info.possible) : null,
  };
}

/** @param targetsMax how many of its targets are shown */
export function overlayView(overlay: Overlay, name: string, targetsMax: number): OverlayView {
  const { targets, next } = firstTargets(overlay, name, targetsMax);
  return {
    state: overlay.state(name),
    ...overlay.status(name),
    properties: overlay.properties(name).map(propertyView),
    offloads: overlay.offloads(name),
    destination_kinds: destinationKinds(overlay.encapNeeds(name)),
    targets,
    targets_more: next !== null,
    requests: requestsView(overlay, name),
  };
}

/** The same for a caller who may look and not read: names, states and faults. */
export function redactedView(overlay: Overlay, name: string): OverlayView {
  return {
    state: overlay.state(name),
    ...toldStatus(overlay.status(name), false),
    properties: overlay
      .properties(name)
      .map((property, id) => ({ ...propertyView(property, id), value: null })),
    offloads: overlay.offloads(name),
    destination_kinds: destinationKinds(overlay.encapNeeds(name)),
    targets: [],
    targets_more: false,
    requests: null,
    redacted: true,
  };
}

/** A device's fault state as a caller may see it. @param mayRead false leaves the texts out, which may hold values of properties */
export function toldStatus(status: FaultStatus, mayRead: boolean): FaultStatus {
  if (mayRead) return status;
  const faults = status.faults.map((fault) => ({ ...fault, text: discreetText(fault.code) }));
  return { ...status, message: faults[0]?.text ?? '', faults };
}

/** Names of DESTINATION_ bits. */
export function destinationKinds(bits: number): string[] {
  const kinds: [number, string][] = [
    [DESTINATION_ETHERNET, 'mac'],
    [DESTINATION_IP, 'ip'],
    [DESTINATION_PORT, 'port'],
  ];
  return kinds.filter(([bit]) => (bits & bit) !== 0).map(([, name]) => name);
}

/** None when nothing is associated yet. */
function firstTargets(overlay: Overlay, name: string, count: number): TargetsPage {
  try {
    return targetsPage(overlay, name, 0, count);
  } catch (error) {
    if (!(error instanceof OverlayError) || error.errno !== 'ENXIO') throw error;
    return { targets: [], next: null };
  }
}

/** Targets from `marker` on, at most `count`. Throws ENOENT, and ENXIO when nothing is associated. */
export function targetsPage(overlay: Overlay, name: string, marker: number, count: number): TargetsPage {
  const { targets, next } = overlay.cacheIterate(name, marker, count);
  const isPoint = overlay.cacheStats(name) === undefined;
  return {
    targets: targets.map((view) =>
      targetJson(overlay, name, view, isPoint ? ANY_TARGET : formatMac(view.mac)),
    ),
    next: next === undefined ? null : formatMac(next),
  };
}

/** As dladm shows the target of a POINT device. */
const ANY_TARGET = '*:*:*:*:*:*';

export function targetJson(
  overlay: Pick<Overlay, 'paths'>,
  name: string,
  view: TargetView,
  target: string,
): TargetJson {
  const { state, route, source, ageSeconds, frames, bytes, lastUse } = view;
  const paths = overlay.paths(name, route);
  const known = paths.flatMap((path) => path.bytes ?? []);
  const probes = paths.flatMap(({ probe }) => probe ?? []);
  return {
    target,
    state,
    to: state === 'drop' ? 'drop' : (route ?? null),
    destination: state === 'drop' ? 'drop' : route ? formatRoute(route) : null,
    source,
    age: ageSeconds,
    frames,
    bytes,
    path_mtu: known.length > 0 ? Math.min(...known) : null,
    path_probe: probes.find((probe) => probe !== 'complete') ?? probes[0] ?? null,
    last_use: lastUse === 0 ? null : wallTimeOf(lastUse),
  };
}

export function requestsView(overlay: Overlay, name: string): RequestsView | null {
  const stats = overlay.cacheStats(name);
  if (!stats) return null;
  const { targets, requests, heldFrames, heldBytes } = stats;
  return { targets, requests, held_frames: heldFrames, held_bytes: heldBytes };
}

const deviceCounters = [
  'tx_read',
  'tx_frames',
  'tx_bytes',
  'tx_super_frames',
  'tx_datagrams',
  'tx_messages',
  'tx_uncut',
  'tx_retries',
  'tx_deferred',
  'tx_resumed',
  'tx_copies',
  'tx_proxied',
  'tx_resent',
  'tx_too_big_told',
  'tx_too_big_untold',
  'tx_unlabelled',
  'rx_frames',
  'rx_bytes',
  'rx_super_frames',
  'rx_joined',
  'rx_marked',
  'rx_writes',
  'rx_injected',
  'rx_learned',
  'rx_moved',
  'rx_unlearned',
  'rx_learn_limited',
];
const muxCounters = ['rx_read', 'rx_messages'];
const workerCounters = ['wakeups', 'tx_batches', 'rx_batches', 'send_calls', 'events_lost'];

/** @param mayRead false leaves out the underlay addresses, which are values of properties */
export function statsView(overlay: Overlay, mayRead: boolean, wanted: PageWanted, load: Load): StatsView {
  const muxes = new Map(
    (mayRead ? overlay.muxStats() : []).map((mux) => [MUX_MARK + mux.name, mux] as const),
  );
  const names = [...overlay.names, ...muxes.keys()];
  // The kernel is asked once for all devices that the page can have.
  const likely = namesAfter(names, wanted).slice(0, CONTROL_PAGE_ROWS_MAX);
  const devices = overlay.devicesStats(likely.filter((name) => !muxes.has(name)));
  const { rows, next } = pageOf<DeviceRow | MuxRow>(names, wanted, (key) => {
    const mux = muxes.get(key);
    if (!mux) {
      const { counts, linkOverflow } = devices.get(key)!;
      return { ...rowView(counts, deviceCounters), link_overflow: countToJson(linkOverflow) };
    }
    const { encap, counts, socketOverflow, portsSkipped, probes } = mux;
    const rest = { socket_overflow: socketOverflow, ports_skipped: portsSkipped, probes };
    return { encap, ...rowView(counts, muxCounters), ...rest };
  });
  const workers = (wanted.after === undefined ? overlay.workerStats() : []).map(
    ({ worker, directions, state, restarts, starvations, counts }) => {
      return { worker, directions, state, restarts, starvations, ...rowView(counts, workerCounters) };
    },
  );
  const happened = dropNames.filter((name) => rows.some(([, { drops }]) => name in drops));
  const control = controlView(load);
  const refused = Object.keys(control.refused) as RefusalName[];
  return {
    meanings: Object.fromEntries([
      ...happened.map((name) => [name, dropSentences[name]]),
      ...refused.map((name) => [`refused_${name}`, refusals[name]]),
    ]),
    overlays: Object.fromEntries(rows.filter(([key]) => !muxes.has(key))) as Record<string, DeviceRow>,
    muxes: Object.fromEntries(
      rows.flatMap(([key, row]) => (muxes.has(key) ? [[key.slice(MUX_MARK.length), row as MuxRow]] : [])),
    ),
    workers,
    control,
    next,
  };
}

function rowView({ counters, drops }: Counts, names: readonly string[]): RowView {
  const shown = names.map((name) => [name, countToJson(counters[name as keyof typeof counters])]);
  const dropped = dropNames
    .filter((name) => drops[name] > 0n)
    .map((name) => [name, countToJson(drops[name])]);
  return { counters: Object.fromEntries(shown), drops: Object.fromEntries(dropped) };
}

function countToJson(count: bigint): string | number {
  return propertyToJson(count) ?? 0;
}
