/** How the process and its devices are, as JSON: health first. */
import { discreetText, type FaultEntry } from '../fma.js';
import type { Overlay } from '../overlay.js';
import { type ControlView, controlView, type Load } from './load.js';
import { type PageWanted, pageOf } from './page.js';
import { toldStatus } from './view.js';

export interface FaultView {
  /** Null for a reason of the process itself. */
  readonly device: string | null;
  readonly code: string;
  /** critical: nothing is forwarded; major: some is not, or may not be; minor: all that is known is. */
  readonly severity: string;
  readonly text: string;
  /** What can be done about it. */
  readonly remedy: string;
  /** ISO 8601. */
  readonly since: string;
  /** Seconds since then. */
  readonly age: number;
}

export interface StatusView {
  /** ONLINE, or DEGRADED while any device is, or for reasons of the process itself. */
  readonly status: string;
  readonly counts: {
    readonly devices: number;
    readonly started: number;
    readonly degraded: number;
    readonly faults: number;
    readonly workers: number;
    readonly workers_running: number;
  };
  /** Of the process, on the first page, and of the devices below. */
  readonly faults: readonly FaultView[];
  /** One page of them; `counts` are of all. */
  readonly devices: Readonly<Record<string, { state: string; status: string; message: string }>>;
  readonly workers: readonly { worker: number; directions: string; state: string; restarts: number }[];
  /** Parts of devices that are gone or stopped, which a worker may still be reading. */
  readonly retained: readonly {
    readonly what: string;
    readonly steps: readonly string[];
    readonly reason: string;
    /** ISO 8601. */
    readonly since: string;
    readonly given_up: boolean;
  }[];
  readonly memory: {
    /** Reserved for tables and buffers, of which what was used once is in memory. */
    readonly shared_bytes: number;
    /** Of that, for target tables. */
    readonly pool_bytes: number;
    readonly pool_free_bytes: number;
    /** Resident set of the process. */
    readonly rss_bytes: number;
    readonly heap_bytes: number;
  };
  readonly pid: number;
  /** Seconds for which the process has been running. */
  readonly uptime: number;
  /** Number of the newest event. */
  readonly event: number;
  readonly control: ControlView;
  /** `after` of the next page; null behind the last. */
  readonly next: string | null;
}

/** @param mayRead false leaves out the texts of faults, which may hold values of properties */
export function statusView(overlay: Overlay, mayRead: boolean, wanted: PageWanted, load: Load): StatusView {
  const { fma, engine, names } = overlay;
  const list = fma.list();
  const known = new Set(names);
  const faultsOf = new Map<string | undefined, FaultEntry[]>();
  for (const fault of list) {
    const key = fault.device !== undefined && known.has(fault.device) ? fault.device : undefined;
    const those = faultsOf.get(key) ?? [];
    those.push(fault);
    faultsOf.set(key, those);
  }
  const { rows, next } = pageOf(names, wanted, (name) => {
    const { status, message } = toldStatus(fma.status(name), mayRead);
    const faults = (faultsOf.get(name) ?? []).map((fault) => faultView(fault, mayRead));
    return { device: { state: overlay.state(name), status, message }, faults };
  });
  const own = wanted.after === undefined ? (faultsOf.get(undefined) ?? []) : [];
  const workers = engine.workers.list.map(({ queue, condition, restarts }) => {
    return { worker: queue.index, directions: queue.directions, state: condition, restarts };
  });
  const { rss, heapUsed } = process.memoryUsage();
  return {
    status: fma.processStatus,
    counts: {
      devices: names.length,
      started: names.filter((name) => overlay.state(name) === 'started').length,
      degraded: names.filter((name) => faultsOf.has(name)).length,
      faults: list.length,
      workers: workers.length,
      workers_running: workers.filter(({ state }) => state === 'running').length,
    },
    faults: [...own.map((fault) => faultView(fault, mayRead)), ...rows.flatMap(([, { faults }]) => faults)],
    devices: Object.fromEntries(rows.map(([name, { device }]) => [name, device])),
    workers,
    retained: mayRead
      ? engine.retired.list.map(({ isGivenUp, ...part }) => ({ ...part, given_up: isGivenUp }))
      : [],
    memory: {
      shared_bytes: engine.views.u8.length,
      pool_bytes: engine.pool.bytes,
      pool_free_bytes: engine.pool.freeBytes,
      rss_bytes: rss,
      heap_bytes: heapUsed,
    },
    pid: process.pid,
    uptime: Math.floor(process.uptime()),
    event: overlay.events.last,
    control: controlView(load),
    next,
  };
}

function faultView(fault: FaultEntry, mayRead: boolean): FaultView {
  const { device, code, severity, remedy, since, ageSeconds } = fault;
  const text = mayRead ? fault.text : discreetText(code);
  return { device: device ?? null, code, severity, text, remedy, since, age: ageSeconds };
}
