/** How the process and its devices are, as JSON: health first. */
import { discreetText, type FaultEntry } from '../fma.js';
import type { Overlay } from '../overlay.js';
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
  readonly faults: readonly FaultView[];
  readonly devices: Readonly<Record<string, { state: string; status: string; message: string }>>;
  readonly workers: readonly { worker: number; directions: string; state: string; restarts: number }[];
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
}

/** @param mayRead false leaves out the texts of faults, which may hold values of properties */
export function statusView(overlay: Overlay, mayRead: boolean): StatusView {
  const { fma, engine, names } = overlay;
  const faults = fma.list().map((fault) => faultView(fault, mayRead));
  const devices = names.map((name) => {
    const { status, message } = toldStatus(fma.status(name), mayRead);
    return [name, { state: overlay.state(name), status, message }] as const;
  });
  const workers = engine.workers.list.map(({ queue, state, restarts }) => {
    return { worker: queue.index, directions: queue.directions, state, restarts };
  });
  const { rss, heapUsed } = process.memoryUsage();
  return {
    status: fma.processStatus,
    counts: {
      devices: devices.length,
      started: devices.filter(([, { state }]) => state === 'started').length,
      degraded: devices.filter(([, { status }]) => status === 'DEGRADED').length,
      faults: faults.length,
      workers: workers.length,
      workers_running: workers.filter(({ state }) => state === 'running').length,
    },
    faults,
    devices: Object.fromEntries(devices),
    workers,
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
  };
}

function faultView(fault: FaultEntry, mayRead: boolean): FaultView {
  const { device, code, severity, remedy, since, ageSeconds } = fault;
  const text = mayRead ? fault.text : discreetText(code);
  return { device: device ?? null, code, severity, text, remedy, since, age: ageSeconds };
}
