/** `show-overlay` and `show-stats`: what is printed, from what the API answers. */
import type { OverlayView, PropertyView, StatsView } from '../control/view.js';
import { type OffloadName, type OffloadState, offloadNames, offloads } from '../offload.js';
import { shortMac } from './short-mac.js';
import { type Column, chooseColumns, formatParsable, formatTable, unset } from './table.js';

export interface ShowOptions {
  readonly fma?: boolean;
  readonly target?: boolean;
  readonly offloads?: boolean;
  readonly parsable?: boolean;
  readonly output?: string;
}

type PropertyRow = PropertyView & { link: string };
const propertyColumns: Column<PropertyRow>[] = [
  { name: 'LINK', width: 19, value: ({ link }) => link },
  { name: 'PROPERTY', width: 19, value: ({ name }) => name },
  { name: 'PERM', width: 5, value: ({ permission }) => permission },
  { name: 'REQ', width: 4, value: ({ required }) => (required ? 'y' : '-') },
  { name: 'VALUE', width: 11, value: ({ type, value }) => valueText(type, value) },
  { name: 'DEFAULT', width: 10, value: (row) => valueText(row.type, row.default) },
  { name: 'POSSIBLE', width: 10, value: ({ possible }) => possible ?? unset },
];

function valueText(type: string, value: string | number | null): string {
  if (value === null) return unset;
  return type === 'ether' ? shortMac(String(value)) : String(value);
}

type FaultRow = { link: string } & Pick<OverlayView, 'status' | 'message'>;
const faultColumns: Column<FaultRow>[] = [
  { name: 'LINK', width: 20, value: ({ link }) => link },
  { name: 'STATUS', width: 8, value: ({ status }) => status },
  { name: 'DETAILS', width: 52, value: ({ message }) => message || '-' },
];

type OffloadRow = { link: string; name: OffloadName; state: OffloadState };
const offloadColumns: Column<OffloadRow>[] = [
  { name: 'LINK', width: 19, value: ({ link }) => link },
  { name: 'OFFLOAD', width: 12, value: ({ name }) => name },
  { name: 'STATE', width: 8, value: ({ state }) => state },
  { name: 'MEANING', width: 40, value: ({ name }) => offloads[name] },
];

type StatRow = { scope: string; name: string; value: string; meaning: string };
const statColumns: Column<StatRow>[] = [
  { name: 'SCOPE', width: 19, value: ({ scope }) => scope },
  { name: 'COUNTER', width: 26, value: ({ name }) => name },
  { name: 'VALUE', width: 16, value: ({ value }) => value },
  { name: 'MEANING', width: 10, value: ({ meaning }) => meaning },
];

/** Lines of `show-overlay`, without `-t`, for devices by name in the order in which they are to be shown. */
export function showOverlays(
  entries: readonly (readonly [name: string, view: OverlayView])[],
  options: ShowOptions,
): string[] {
  if (options.fma) {
    const rows = entries.map(([link, { status, message }]) => ({ link, status, message }));
    return format(faultColumns, rows, options);
  }
  if (options.offloads) {
    const rows = entries.flatMap(([link, view]) =>
      offloadNames.map((name) => ({ link, name, state: view.offloads[name] })),
    );
    return format(offloadColumns, rows, options);
  }
  const rows = entries.flatMap(([link, { properties }]) =>
    properties.map((property) => ({ link, ...property })),
  );
  return format(propertyColumns, rows, options);
}

/** Lines of `show-stats`: counters, then every drop that happened. */
export function showStats(stats: StatsView, options: ShowOptions): string[] {
  const rows: StatRow[] = [];
  const add = (scope: string, counts: Readonly<Record<string, unknown>>, prefix = '') => {
    for (const [name, value] of Object.entries(counts)) {
      const key = (prefix === 'refused_' ? prefix + name : name) as keyof typeof stats.meanings;
      const meaning = stats.meanings[key] ?? '';
      rows.push({ scope, name: prefix + name, value: `${value}`, meaning });
    }
  };
  for (const [link, { counters, drops, link_overflow }] of Object.entries(stats.overlays)) {
    add(link, counters);
    add(link, { link_overflow, ...drops }, 'drop:');
  }
  for (const [address, { counters, drops, socket_overflow, ports_skipped, probes }] of Object.entries(
    stats.muxes,
  )) {
    add(address, { ...counters, ports_skipped });
    add(address, { ...probes }, 'probes_');
    add(address, { socket_overflow, ...drops }, 'drop:');
  }
  for (const { worker, directions, state, restarts, starvations, counters } of stats.workers) {
    add(`worker ${worker}`, { directions, state, restarts, starvations, ...counters });
  }
  // A daemon before this version has none.
  const { connections, refused = {}, last_refused_uid } = stats.control ?? {};
  if (stats.control) add('control', { connections });
  add('control', refused, 'refused_');
  if (typeof last_refused_uid === 'number') add('control', { last_refused_uid });
  return format(statColumns, rows, options);
}

function format<Row>(columns: readonly Column<Row>[], rows: readonly Row[], options: ShowOptions): string[] {
  const chosen = chooseColumns(columns, options.output);
  return options.parsable ? formatParsable(chosen, rows) : formatTable(chosen, rows);
}
