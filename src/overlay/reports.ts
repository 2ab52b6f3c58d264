/** What the data path reports: workers that die, frames that the core traps on, offloads that the kernel refuses. */
import type { TrapEvent } from '../datapath/events.js';
import type { Retired, RetiredChange } from '../datapath/retired.js';
import type { WorkerEvent, Workers } from '../datapath/workers.js';
import type { Events } from '../events.js';
import type { Fma } from '../fma.js';
import type { Log } from '../log.js';
import type { FallibleOffload } from '../offload.js';
import { monotonicMs } from '../sys/clock.js';
import { errnoName } from '../sys/errno.js';
import type { Devices } from './devices.js';
import type { Offloads } from './offloads.js';
import type { Targets } from './targets.js';
import type { Traps } from './traps.js';

const TRAP_LOG_MS = 1000;

export interface ReportsContext {
  readonly workers: Workers;
  readonly retired: Retired;
  readonly devices: Devices;
  readonly targets: Targets;
  readonly traps: Traps;
  readonly offloads: Offloads;
  readonly fma: Fma;
  readonly events: Events;
  readonly log: Log;
}

export class Reports {
  #trapLoggedAtMs = Number.NEGATIVE_INFINITY;
  #trapsUnlogged = 0;

  constructor(readonly context: ReportsContext) {}

  /** Faults that workers cause are on the process and on every device: each has a queue at the worker. */
  onWorker(event: WorkerEvent): void {
    const { workers, devices, fma, events, log } = this.context;
    log.warn(event, `worker ${event.kind}`);
    events.emit('worker', { text: `worker ${event.worker} is ${event.kind}` });
    const names = [...devices.entries.keys()];
    if (event.kind !== 'replaced' && event.kind !== 'fed') {
      const text = `worker ${event.worker} ${workerText(event)}`;
      fma.degradeProcess('workers', text);
      for (const name of names) fma.degrade(name, 'worker', text);
    } else if (workers.list.every(({ condition }) => condition === 'running')) {
      fma.restoreProcess('workers');
      for (const name of names) fma.restore(name, 'worker');
    }
  }

  /** Something that left use waits for a worker, or was reclaimed. The fault names the oldest part. */
  onRetired({ kind, part }: RetiredChange): void {
    const { fma, log, retired } = this.context;
    const { what, steps, reason, since } = part;
    if (kind === 'reclaimed') log.info({ what, since }, 'reclaimed');
    else log.error({ what, steps, reason }, kind === 'given up' ? 'never reclaimed' : 'retained');
    const [first, ...more] = retired.list;
    if (!first) {
      fma.restoreProcess('retained');
      return;
    }
    const others = more.length > 0 ? `, and ${more.length} more parts` : '';
    const end = first.isGivenUp ? '; it is given up' : '';
    const text = `${first.what} (${first.steps.join(', ')}) since ${first.since}: ${first.reason}${end}${others}`;
    fma.degradeProcess('retained', text);
  }

  /** A worker has something for us. */
  onBell(): void {
    this.context.targets.onBell();
  }

  /** The kernel has refused what an offload of the device in that row needs. */
  onRefused(row: number, name: FallibleOffload, errno: number): void {
    const { devices, offloads } = this.context;
    const entry = [...devices.entries.values()].find(({ device }) => device.row === row);
    if (entry) offloads.stepDown(entry.device, name, errnoName(errno));
  }

  /** The core has trapped on a frame of one device, or of one that shares a mux with others. */
  onTrap(event: TrapEvent): void {
    const { devices, traps } = this.context;
    this.#logTrap(event);
    for (const { device } of devices.entries.values()) {
      const isHit =
        event.kind === 'tx_trap' ? device.row === event.row : device.attachment?.mux.row === event.row;
      if (isHit) traps.note(device.name);
    }
  }

  /** At most one line a second: whoever can make the core trap must not fill the log. */
  #logTrap(event: TrapEvent): void {
    const now = monotonicMs();
    if (now - this.#trapLoggedAtMs < TRAP_LOG_MS) {
      this.#trapsUnlogged++;
      return;
    }
    this.context.log.error({ ...event, before: this.#trapsUnlogged }, 'core trap');
    this.#trapLoggedAtMs = now;
    this.#trapsUnlogged = 0;
  }
}

function workerText(event: Exclude<WorkerEvent, { kind: 'replaced' | 'fed' }>): string {
  if (event.kind === 'starved') return `is starved: ${event.reason}`;
  if (event.kind === 'stuck') return `is stuck: ${event.reason}`;
  if (event.kind === 'lost') return `is lost: ${event.reason}`;
  const pace = event.again ? 'it dies again and again, the next start waits' : 'it is being replaced';
  return `died (${event.reason}); ${pace}`;
}
