/** Counters of devices, underlay addresses and workers: our own, and with them what the kernel dropped before we saw it. */
import type { Counts } from '../datapath/counters.js';
import type { Engine } from '../datapath/engine.js';
import type { Directions } from '../datapath/queue.js';
import { type Groups, groupName } from '../groups.js';
import { keyOf, type Muxes } from '../mux.js';
import { socketOverflow } from '../sys/underlay.js';
import { NO_PROBES, type PathProbes, type ProbeCounts } from './path-probes.js';
import type { PortSource } from './ports.js';
import type { Entry } from './setprop.js';

export interface DeviceStats {
  readonly counts: Counts;
  /** Frames the kernel dropped because we did not take them from the link in time. */
  readonly linkOverflow: bigint;
}

export interface MuxStats {
  readonly name: string;
  readonly encap: string;
  readonly counts: Counts;
  /** Datagrams the kernel dropped because we did not take them from the sockets in time. */
  readonly socketOverflow: number;
  /** Source ports that were passed over when its sockets were opened, since somebody else had them. */
  readonly portsSkipped: number;
  readonly probes: ProbeCounts;
}

export interface WorkerStats {
  readonly directions: Directions;
  readonly worker: number;
  readonly state: string;
  readonly restarts: number;
  /** How often the machine gave it no CPU for long. */
  readonly starvations: number;
  readonly counts: Counts;
}

export class Stats {
  constructor(
    readonly engine: Engine,
    readonly muxes: Muxes,
    readonly groups: Groups,
    readonly pathProbes: PathProbes,
    readonly ports: PortSource,
  ) {}

  /** Of each device, in the given order. */
  ofDevices(entries: readonly Entry[]): DeviceStats[] {
    const there = entries.filter(({ device }) => !device.isLinkGone && !device.isAway);
    const overflows = this.ports.overflows(there.map(({ device }) => device.port));
    const overflowOf = new Map(there.map((entry, index) => [entry, overflows[index]!]));
    return entries.map((entry) => ({
      counts: this.engine.counters.device(entry.device.row),
      linkOverflow: overflowOf.get(entry) ?? 0n,
    }));
  }

  /** Of underlay addresses, then of the groups on them. */
  ofMuxes(): MuxStats[] {
    const muxes = this.muxes.list.map((mux) => ({
      name: keyOf(mux.ip, mux.port, mux.netns),
      encap: mux.encap.name,
      counts: this.engine.counters.mux(mux.row),
      socketOverflow: this.muxes.overflow(mux),
      portsSkipped: mux.underlay.portsSkipped,
      probes: this.pathProbes.counts(mux),
    }));
    const groups = this.groups.list.map((group) => ({
      name: groupName(group),
      encap: group.mux.encap.name,
      counts: this.engine.counters.mux(group.row),
      socketOverflow: socketOverflow([group.fd]),
      portsSkipped: 0,
      probes: NO_PROBES,
    }));
    return [...muxes, ...groups];
  }

  ofWorkers(): WorkerStats[] {
    return this.engine.workers.list.map((worker) => ({
      worker: worker.queue.index,
      directions: worker.queue.directions,
      state: worker.condition,
      restarts: worker.restarts,
      starvations: worker.starvations,
      counts: this.engine.counters.worker(worker.queue.arena),
    }));
  }
}
