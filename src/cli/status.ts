/** `status`: health first, then what is wrong, then all there is. */
import type { FaultView, StatusView } from '../control/status.js';
import { printable } from './output.js';
import { type Column, formatTable, unset } from './table.js';

const MiB = 2 ** 20;

type DeviceRow = { link: string; state: string; status: string };
const deviceColumns: Column<DeviceRow>[] = [
  { name: 'LINK', width: 20, value: ({ link }) => link },
  { name: 'STATE', width: 10, value: ({ state }) => state },
  { name: 'STATUS', width: 9, value: ({ status }) => status },
];

const workerColumns: Column<StatusView['workers'][number]>[] = [
  { name: 'WORKER', width: 7, value: ({ worker }) => `${worker}` },
  { name: 'FRAMES', width: 7, value: ({ directions }) => directions },
  { name: 'STATE', width: 10, value: ({ state }) => state },
  { name: 'RESTARTS', width: 9, value: ({ restarts }) => `${restarts}` },
];

const faultColumns: Column<FaultView>[] = [
  { name: 'LINK', width: 20, value: ({ device }) => device ?? unset },
  { name: 'FAULT', width: 19, value: ({ code }) => code },
  { name: 'SEVERITY', width: 9, value: ({ severity }) => severity },
  { name: 'AGE', width: 8, value: ({ age }) => formatAge(age) },
  { name: 'DETAILS', width: 20, value: ({ text, remedy }) => `${text} (${remedy})` },
];

/** Lines of `status`: the first alone says whether all is well. */
export function showStatus(view: StatusView): string[] {
  const { status, counts, faults, devices, workers, memory } = view;
  const health = [
    `${counts.devices} overlays`,
    `${counts.started} started`,
    `${counts.degraded} degraded`,
    `${counts.faults} faults`,
    `${counts.workers_running} of ${counts.workers} workers running`,
  ];
  const rows = Object.entries(devices).map(([link, device]) => ({ link, ...device }));
  const inPool = memory.pool_bytes - memory.pool_free_bytes;
  const lines = [
    `${status}: ${health.join(', ')}`,
    ...(faults.length > 0 ? ['', ...formatTable(faultColumns, faults)] : []),
    ...(rows.length > 0 ? ['', ...formatTable(deviceColumns, rows)] : []),
    '',
    ...formatTable(workerColumns, workers),
    '',
    `memory: ${mebi(memory.rss_bytes)} resident, ${mebi(memory.shared_bytes)} reserved for tables and buffers, ` +
      `${mebi(inPool)} of ${mebi(memory.pool_bytes)} for targets in use`,
    `process ${view.pid}, running for ${formatAge(view.uptime)}, newest event ${view.event}`,
    ...refusedLine(view),
  ];
  return lines.map(printable);
}

/** None while nobody was refused anything. */
function refusedLine({ control }: StatusView): string[] {
  const counts = Object.entries(control?.refused ?? {}).map(([name, count]) => `${name} ${count}`);
  if (counts.length === 0) return [];
  return [`refused to users: ${counts.join(', ')}; last to user ${control.last_refused_uid}`];
}

function mebi(bytes: number): string {
  return `${Math.ceil(bytes / MiB)} MiB`;
}

/** The largest unit of which there is one. */
export function formatAge(seconds: number): string {
  const units: readonly (readonly [seconds: number, name: string])[] = [
    [86_400, 'd'],
    [3_600, 'h'],
    [60, 'min'],
  ];
  for (const [size, name] of units) if (seconds >= size) return `${Math.floor(seconds / size)} ${name}`;
  return `${seconds} s`;
}
