/** What the control API shows of devices and counters, as JSON: numbers above 2^53 are decimal strings. */

import type { Counts } from '../datapath/counters.js';
import { type DropName, dropNames, dropSentences } from '../datapath/drop.js';
import { formatEndpoint } from '../ip.js';
import type { DeviceProperty } from '../overlay/properties.js';
import type { Overlay } from '../overlay.js';
import { formatPossible, propertyToJson } from '../property.js';

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

export interface OverlayView {
  readonly state: string;
  readonly status: string;
  readonly message: string;
  readonly faults: readonly { code: string; text: string; since: string }[];
  readonly properties: readonly PropertyView[];
  /** Target cache: a POINT device has one entry, for every address. */
  readonly targets: readonly { target: string; destination: string }[];
}

export interface RowView {
  readonly counters: Readonly<Record<string, string | number>>;
  /** Drops by name; those that never happened are left out. */
  readonly drops: Readonly<Partial<Record<DropName, string | number>>>;
}

export interface StatsView {
  /** A sentence for each drop that stands below. */
  readonly meanings: Readonly<Partial<Record<DropName, string>>>;
  readonly overlays: Readonly<Record<string, RowView & { link_overflow: string | number }>>;
  readonly muxes: Readonly<Record<string, RowView & { encap: string; socket_overflow: number }>>;
  readonly workers: readonly (RowView & { worker: number; state: string; restarts: number })[];
}

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

export function overlayView(overlay: Overlay, name: string): OverlayView {
  const point = overlay.target(name);
  return {
    state: overlay.state(name),
    ...overlay.status(name),
    properties: overlay.properties(name).map(propertyView),
    targets: point ? [{ target: '*:*:*:*:*:*', destination: formatEndpoint(point.ip, point.port) }] : [],
  };
}

const deviceCounters = [
  'tx_read',
  'tx_frames',
  'tx_bytes',
  'tx_retries',
  'rx_frames',
  'rx_bytes',
  'rx_super_frames',
];
const muxCounters = ['rx_read'];
const workerCounters = ['wakeups', 'tx_batches', 'rx_batches', 'send_calls', 'events_lost'];

export function statsView(overlay: Overlay): StatsView {
  const overlays = overlay.names.map((name) => {
    const { counts, linkOverflow } = overlay.deviceStats(name);
    return [name, { ...rowView(counts, deviceCounters), link_overflow: countToJson(linkOverflow) }] as const;
  });
  const muxes = overlay.muxStats().map(({ name, encap, counts, socketOverflow }) => {
    return [name, { encap, ...rowView(counts, muxCounters), socket_overflow: socketOverflow }] as const;
  });
  const workers = overlay.workerStats().map(({ worker, state, restarts, counts }) => {
    return { worker, state, restarts, ...rowView(counts, workerCounters) };
  });
  const rows = [...overlays, ...muxes].map(([, { drops }]) => drops);
  const happened = dropNames.filter((name) => rows.some((drops) => name in drops));
  const meanings = Object.fromEntries(happened.map((name) => [name, dropSentences[name]]));
  return { meanings, overlays: Object.fromEntries(overlays), muxes: Object.fromEntries(muxes), workers };
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
