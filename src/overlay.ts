/**
 * overlayd: the theory of the whole system. Every other core file points here.
 *
 * Two questions
 * ─────────────
 * An overlay device puts an isolated layer-2 network on an IP network, the underlay. For every frame it answers two
 * questions, apart from each other:
 *
 *   1. How is the frame transformed to go on the wire?   an encap plugin (vxlan, vxlan-gpe, geneve, nvgre)
 *   2. Where is the transformed frame sent?              a lookup plugin (direct, files, learn, external), run by varpd
 *
 * Parties
 * ───────
 *   link        a TAP the kernel sees as an Ethernet link; a queue for each worker
 *   device      one link, one vnetid, one encap, one lookup instance, its properties        src/device.ts
 *   target      a MAC address behind a DYNAMIC device and where its frames go               src/target/
 *   mux         one underlay address and port, shared by devices, told apart by vnetid       src/mux.ts
 *   worker      a thread that moves frames between TAP queues and sockets, both ways        workers/loop.ts
 *   core        WebAssembly in every worker and in main: decides everything per frame       assembly/
 *   main        this thread: operations, properties, tables, faults, API; no frame on the fast path
 *   varpd       the lookup plugins and their instances                                      src/varpd/
 *   fma         why a device is degraded; never touches the link or forwarding              src/fma.ts
 *
 * The core and its workers share one memory with main (`assembly/layout.ts` draws it). Every word has one writer: main
 * writes the tables, each worker writes its own arena. Workers read tables without locks: a row is published by
 * one atomic store and immutable while published. No lock is held across threads, so any thread may die anywhere.
 *
 * Nothing is freed while somebody reads it. A worker makes its epoch even before it waits and odd after. Main
 * withdraws a row (state DROP, out of the vnet table), waits until every worker's epoch is even or has moved, and
 * frees then. An idle engine has all workers waiting, so that costs nothing. `src/datapath/retired.ts` does so for everybody: when a
 * worker does not respond, what it may be reading is retained, named in the status, and reclaimed later. No operation fails for it.
 *
 * States of a device (`src/device.ts` has the table)
 * ──────────────────
 *   create ─► created ─ activate ─► activated ◄─ link down ─ link up ─► started        delete from anywhere
 *
 * Activation turns the carrier on. The link's administrative state then starts (joins the mux) and stops the device.
 * A start that fails degrades the device and is tried again.
 *
 * One frame out
 * ─────────────
 *   guest ─► TAP queue ─ read ─► headroom|vnet_hdr|frame
 *      length by MTU and VLAN flag ─► target (POINT: the one) ─► header from the destination's template, in place
 *      ─► flow hash picks one of the worker's send sockets ─► messages grouped by socket ─► sendmmsg ─► underlay
 *
 * One frame in
 * ────────────
 *   underlay ─ recvmmsg ─► datagram
 *      header check by the mux's encap ─► (mux, vnetid) -> device ─► inner length ─► vnet_hdr, in place over the
 *      outer header ─► write ─► TAP queue ─► guest
 *
 * A received frame never changes where frames are sent, unless the lookup is `learn`, which is told by the workers of sources that are
 * not in the table where they come from (`assembly/learn.ts`). Under `source_check` a datagram is taken only from a VTEP that the
 * lookup plugin vouches for.
 *
 * One miss (DYNAMIC devices)
 * ────────
 *   frame to an address that is not VALID ─► the worker's miss ring ─► main
 *      the cache holds it and asks varpd, once for all frames of the target; varpd asks the plugin, or acts as proxy
 *      ─► an answer: the target is DRAINING; what is held goes back over the inject rings to the workers it came from
 *      ─► VALID: the workers forward by themselves, and main hears nothing of the target any more
 *
 * States of a target and who may change them are in `src/target/state.ts`; how no frame overtakes another of its target
 * while that happens, in `src/overlay/targets.ts` and `assembly/deferred.ts`; how workers read the table while main
 * writes it, in `assembly/target.ts`. An answer of drop frees one held frame and asks about the next: that is how a proxy
 * takes one frame after the other. Every request has a generation, and a late answer changes nothing.
 *
 * Every frame ends in exactly one verdict, and every drop has a name in one closed list (`assembly/layout.ts`). For a
 * device, tx_read + tx_resent + tx_copies = tx_frames + the tx drops + tx_proxied + what is held; for a mux, rx_read = its
 * own drops + its devices' rx_frames and rx drops. The tests check these sums against the kernel's own counters.
 *
 * Offloads (`src/offload.ts`) do work once for many frames. Out, the link hands over a super-frame, which counts as one frame;
 * the core cuts it into tx_datagrams, their headers made in scratch space and their payload left where it is, and joins
 * those of one size to one destination in tx_messages, which the kernel cuts again. In, the kernel hands over datagrams in
 * rx_messages; frames of a flow that follow one another are joined, so that rx_frames leave in rx_writes. What passes is the same,
 * byte for byte, with all of that or none.
 *
 * What is too big for the device, or for the way as ICMP or probes have said (`src/datapath/path-mtus.ts`), is dropped by name, and its
 * sender told (`src/overlay/too-big.ts`): nothing is fragmented.
 *
 * A worker that dies (a throw, an exit, a hang) is replaced with the same descriptors, which main owns; a trap in the
 * core costs the one frame it happened on.
 *
 * Errors: what an operator, a peer or the system did is an `OverlayError` with a POSIX name, a stable code and a
 * sentence; what we did wrong is an assertion and crashes.
 */
import { Engine, type EngineOptions } from './datapath/engine.js';
import { EncapRegistry } from './encap/registry.js';
import { Events } from './events.js';
import { type FaultStatus, Fma } from './fma.js';
import { Groups } from './groups.js';
import { OFFLOAD_RETRY_MS } from './limits.js';
import type { Log } from './log.js';
import { Muxes } from './mux.js';
import type { OffloadState, OffloadTable, SocketOffloads } from './offload.js';
import { Attachments } from './overlay/attachment.js';
import { Devices } from './overlay/devices.js';
import { ExternalHandle } from './overlay/external-handle.js';
import { Life } from './overlay/life.js';
import type { Association } from './overlay/lookup.js';
import { Mtus } from './overlay/mtus.js';
import { Offloads } from './overlay/offloads.js';
import { Orphans, type Tidied } from './overlay/orphans.js';
import { PathProbes, type PathView } from './overlay/path-probes.js';
import { Perimeters } from './overlay/perimeter.js';
import { Persistence, type Store } from './overlay/persistence.js';
import type { PortSource } from './overlay/ports.js';
import { type DeviceProperty, deviceProperties, findProperty } from './overlay/properties.js';
import { Reports } from './overlay/reports.js';
import { Restarts, type RestoreFailure } from './overlay/restarts.js';
import { type Entry, Setprop } from './overlay/setprop.js';
import { type DeviceStats, type MuxStats, Stats, type WorkerStats } from './overlay/stats.js';
import { aliasOf } from './overlay/tap-alias.js';
import {
  flushTargets,
  getTarget,
  iterateTargets,
  removeTarget,
  setTarget,
} from './overlay/target-operations.js';
import { Targets } from './overlay/targets.js';
import { TooBig } from './overlay/too-big.js';
import { createOverlay, type OverlayRequest } from './overlay/transaction.js';
import { Traps } from './overlay/traps.js';
import { Vnics } from './overlay/vnics.js';
import type { DeviceRecord } from './state/record.js';
import { probeUdpOffloads } from './sys/udp-offload.js';
import type { CacheStats } from './target/cache.js';
import { type Destination, destinationsOf, type Route } from './target/destination.js';
import type { TargetView } from './target/entries.js';
import { Varpd } from './varpd/varpd.js';

export interface OverlayOptions
  extends Pick<EngineOptions, 'workers' | 'isSplit' | 'memoryBytes' | 'cpus' | 'tuning' | 'entry'> {
  readonly ports: PortSource;
  readonly log: Log;
  /** Send sockets of each mux. */
  readonly bank: number;
  readonly encaps?: EncapRegistry;
  readonly varpd?: Varpd;
  /** Where devices are kept over a restart; none of them is when left out. */
  readonly store?: Store;
  /** What UDP sockets can do; found out when left out. */
  readonly sockets?: SocketOffloads;
  /** After how long an offload that has failed is tried again for the first time. */
  readonly offloadRetryMs?: number;
}

export class Overlay {
  readonly engine: Engine;
  readonly encaps: EncapRegistry;
  readonly varpd: Varpd;
  readonly fma: Fma;
  readonly vnics: Vnics;
  /** Takes what the data path reports. */
  readonly reports: Reports;
  /** What has happened, for whoever reads along. */
  readonly events = new Events();
  readonly #muxes: Muxes;
  readonly #groups: Groups;
  readonly #devices = new Devices();
  readonly #perimeters = new Perimeters();
  readonly #traps: Traps;
  readonly #offloads: Offloads;
  readonly #targets: Targets;
  readonly #tooBig: TooBig;
  readonly #pathProbes: PathProbes;
  readonly #mtus: Mtus;
  readonly #setprop: Setprop;
  readonly #persistence: Persistence;
  readonly #life: Life;
  readonly #handle: ExternalHandle;
  readonly #restarts: Restarts;
  readonly #stats: Stats;
  readonly #orphans: Orphans;
  readonly #stopWatching: () => void;

  private constructor(
    readonly options: OverlayOptions,
    engine: Engine,
  ) {
    const { log, ports } = options;
    this.engine = engine;
    this.encaps = options.encaps ?? new EncapRegistry();
    this.varpd = options.varpd ?? new Varpd();
    this.fma = new Fma(
      ({ device, code, text, isSet, status, message }) => {
        log.warn({ device, status, message }, 'fault state');
        if (isSet) this.events.emit('degraded', { device, text, code });
        else this.events.emit('restored', { device, text: `no longer so: ${text}`, code });
      },
      (device) => this.#devices.entries.has(device),
    );
    const sockets = options.sockets ?? probeUdpOffloads();
    this.#muxes = new Muxes(engine, options.bank, ports, sockets.udp_gro);
    this.#offloads = new Offloads(
      engine,
      this.#muxes,
      this.fma,
      sockets,
      options.offloadRetryMs ?? OFFLOAD_RETRY_MS,
    );
    const mtus = new Mtus({
      engine,
      ports,
      fma: this.fma,
      events: this.events,
      log,
      entries: () => this.#devices.entries.values(),
    });
    this.#mtus = mtus;
    this.#groups = new Groups(engine, ports);
    const attachments = new Attachments(engine, this.#muxes, this.#groups, this.#offloads);
    this.#pathProbes = new PathProbes({
      engine,
      muxes: this.#muxes,
      fma: this.fma,
      log,
      entries: () => this.#devices.entries.values(),
    });
    this.#tooBig = new TooBig({
      engine,
      muxes: this.#muxes,
      pathProbes: this.#pathProbes,
      entries: () => this.#devices.entries.values(),
    });
    this.#targets = new Targets(engine, log, (miss) => this.#tooBig.onMiss(miss));
    this.#traps = new Traps(
      (device, count) =>
        this.fma.degrade(device, 'core_traps', `the core trapped on ${count} frames in 10 s`),
      (device) => this.fma.restore(device, 'core_traps'),
    );
    this.#persistence = new Persistence(options.store, () => this.#devices.entries.values(), this.fma, log);
    this.#life = new Life({
      devices: this.#devices,
      engine,
      encaps: this.encaps,
      varpd: this.varpd,
      fma: this.fma,
      log,
      ports,
      attachments,
      targets: this.#targets,
      traps: this.#traps,
      offloads: this.#offloads,
      mtus,
      perimeters: this.#perimeters,
      persistence: this.#persistence,
      events: this.events,
    });
    const { entries } = this.#devices;
    const entry = (name: string) => this.#devices.entry(name);
    this.vnics = new Vnics({ ports, perimeters: this.#perimeters, entries, entry });
    this.#setprop = new Setprop({
      engine,
      attachments,
      targets: this.#targets,
      offloads: this.#offloads,
      mtus,
      ports,
      persistence: this.#persistence,
      events: this.events,
      refuseVnetid: (encap, vnetid) => this.#devices.refuseVnetid(encap, vnetid),
      aliasOf: ({ name, encap }, vnetid) => aliasOf(name, encap.name, vnetid),
      startIfUp: (entry) => this.#life.starts.startIfUp(entry),
    });
    this.#handle = new ExternalHandle({
      devices: this.#devices,
      life: this.#life,
      persistence: this.#persistence,
      fma: this.fma,
      events: this.events,
    });
    this.varpd.external.onWriter = (isOpen) => this.#handle.onWriter(isOpen);
    this.#restarts = new Restarts({
      devices: this.#devices,
      life: this.#life,
      perimeters: this.#perimeters,
      log,
    });
    this.#stats = new Stats(engine, this.#muxes, this.#groups, this.#pathProbes, ports);
    const { fma, events } = this;
    this.#orphans = new Orphans({ ports, devices: this.#devices, fma, events, log });
    this.reports = new Reports({
      workers: engine.workers,
      retired: engine.retired,
      devices: this.#devices,
      targets: this.#targets,
      traps: this.#traps,
      offloads: this.#offloads,
      fma: this.fma,
      events: this.events,
      log,
    });
    this.#stopWatching = ports.watch((event) => {
      for (const [name, work] of this.#life.portEvents.workOf(event)) {
        this.#perimeters.run(name, work).catch((error) => log.error({ err: error }, 'link event failed'));
      }
    });
  }

  /** Starts workers and tables. Throws ENOMEM when the memory is too small, EINVAL for a CPU that is not there. */
  static async start(options: OverlayOptions): Promise<Overlay> {
    let overlay: Overlay | undefined;
    const engine = await Engine.start({
      ...options,
      onWorker: (event) => overlay?.reports.onWorker(event),
      onRetired: (change) => overlay?.reports.onRetired(change),
      onTrap: (event) => overlay?.reports.onTrap(event),
      onRefused: (row, name, errno) => overlay?.reports.onRefused(row, name, errno),
      onBell: () => overlay?.reports.onBell(),
    });
    overlay = new Overlay(options, engine);
    return overlay;
  }

  /**
   * Stops all devices and ends the workers. Links of devices that are kept stay, without carrier; the others go.
   */
  async close(): Promise<void> {
    await this.#stop((entry) => this.#life.deletion.remove(entry));
    this.options.ports.close();
  }

  /**
   * The same for a process that becomes another program: the links keep their carrier, and their descriptors pass to it.
   * Returns them by device, after `msMax` at the latest, whatever has not ended by then: that ends with this program. Never
   * rejects: a link that is not handed over loses its carrier.
   */
  handOver(msMax: number): Promise<Record<string, readonly number[]>> {
    return this.#restarts.handOver(msMax, (end) => this.#stop(end));
  }

  async #stop(end: (entry: Entry) => Promise<void>): Promise<void> {
    this.#stopWatching();
    await this.#perimeters.idle();
    await this.#persistence.saveTargets();
    this.#persistence.close();
    const one = (name: string) =>
      this.#perimeters.run(name, async () => {
        const entry = this.#devices.entries.get(name);
        if (entry) await end(entry);
      });
    await Promise.all(this.names.map(one));
    await this.#perimeters.idle();
    this.#targets.close();
    this.#tooBig.close();
    this.#pathProbes.close();
    this.#mtus.close();
    await this.engine.close();
  }

  /**
   * Brings back what was kept, in the order in which the devices came about; call before anybody can ask for anything.
   * Returns what could not be brought back, and why; that stays kept. `resume` follows, once it can be asked.
   *
   * @param fds descriptors that an earlier process handed over, by device
   * @param isEnding true when no more need come back: the process is being stopped
   */
  restore(
    records: readonly DeviceRecord[],
    fds: Readonly<Record<string, readonly number[]>> = {},
    isEnding: () => boolean = () => false,
  ): Promise<RestoreFailure[]> {
    return this.#restarts.restore(records, fds, isEnding);
  }

  /**
   * The rest of a restore: lookup plugins are started, some at a time, and the targets that were known come back. A plugin that
   * hangs holds up its own device alone. Resolves when all is done.
   */
  resume(): Promise<void> {
    return this.#restarts.resume();
  }

  /** What each of a device's offloads has come to. Throws ENOENT. */
  offloads(name: string): OffloadTable<OffloadState> {
    return this.#offloads.states(this.#entry(name).device);
  }

  /** Has `listener` called when a device that did not come back after a restart is deleted, or made anew. */
  set onFound(listener: (name: string) => void) {
    this.#devices.onFound = listener;
  }

  /** Devices that something is being done to. */
  get busy(): string[] {
    return this.#perimeters.busy;
  }

  /** Resolves when every operation and link event so far has been dealt with. */
  idle(): Promise<void> {
    return this.#perimeters.idle();
  }

  // ─── Operations; on one device, each runs to its end before the next begins ───────────────────────────

  /**
   * CREATE: the device in state created, and its lookup instance. In this order: EINVAL for a bad name or encap name,
   * ENOENT for an unknown encap, EINVAL for a vnetid out of range, EEXIST for a name or vnetid in use, ENOENT and
   * ENOTSUP for the lookup plugin, ENOSPC when there are as many devices as there can be, then what making the link and
   * keeping its record (`state_failed`) gives.
   */
  create(
    name: string,
    encap: string,
    search: string,
    vnetid: unknown,
    options: { isTemporary?: boolean } = {},
  ): Promise<void> {
    return this.#perimeters.run(name, async () => {
      const entry = this.#life.create(name, encap, search, vnetid);
      const { isTemporary = false } = options;
      await this.#undone(entry, () => {
        if (!isTemporary) this.#persistence.begin(entry);
        this.#life.settle(name, isTemporary);
      });
    });
  }

  /**
   * SETPROP: ENOENT, ENOTSUP for what is fixed once the device is activated, EPERM for what cannot be written, EINVAL for
   * a bad value, EEXIST for a vnetid in use, EBUSY for a bound below what is there; of what makes a device leave the mux
   * and come back, also what starting it gives. The old value stays then.
   */
  setprop(name: string, property: string | number, value: unknown): Promise<void> {
    return this.#perimeters.run(name, () => this.#set(this.#entry(name), property, value));
  }

  /**
   * ACTIVATE: ENOENT, EEXIST, ENODEV when the link is gone, EINVAL for a required encap property, EAGAIN for an external
   * device that nobody has associated, then what keeping its record (`state_failed`), the lookup plugin's start (also
   * ENOMEM, and EINVAL for its destination) and the carrier give. The device is as it was then.
   */
  activate(name: string): Promise<void> {
    return this.#perimeters.run(name, () => this.#life.activate(this.#entry(name)));
  }

  /**
   * DELETE: ENOENT, EBUSY while the link is up or carries other links, unless forced, and what taking its record away gives
   * (`state_failed`). Otherwise always finishes. A link of that name without a record goes, too.
   */
  delete(name: string, options: { force: boolean }): Promise<void> {
    return this.#perimeters.run(name, () => {
      const missing = this.#devices.entries.has(name) ? undefined : this.#devices.missing.get(name);
      if (missing) return this.#life.deletion.discard(missing, options.force);
      if (!this.#devices.entries.has(name) && this.#orphans.delete(name, options.force)) return;
      return this.#life.deletion.delete(this.#entry(name), options.force);
    });
  }

  /** CREATE, SETPROP for each property and ACTIVATE: all of it or nothing, with a line for each part at fault. */
  createOverlay(request: OverlayRequest): Promise<void> {
    const set = (entry: Entry, property: string, value: unknown) => this.#set(entry, property, value);
    const context = { life: this.#life, persistence: this.#persistence, set };
    return this.#perimeters.run(request.name, () => createOverlay(context, request));
  }

  /** Names the links that an overlayd left without a record. @param unread names of records that cannot be read */
  findOrphans(unread: Iterable<string>): void {
    this.#orphans.begin(unread);
  }

  /** Deletes the links that an overlayd left without a record; those that are up only by force. */
  tidy(options: { force: boolean }): Tidied {
    return this.#orphans.tidy(options.force);
  }

  /** Runs `work`; the device goes again when it is refused. */
  async #undone(entry: Entry, work: () => void): Promise<void> {
    try {
      work();
    } catch (error) {
      await this.#life.deletion.remove(entry);
      throw error;
    }
  }

  #set(entry: Entry, nameOrId: string | number, value: unknown): Promise<void> {
    return this.#setprop.set(entry, findProperty(this.#properties(entry), nameOrId), value);
  }

  // ─── Reading; always possible ─────────────────────────────────────────────────────────────────────────

  /** Names of all devices, in the order of creation. */
  get names(): string[] {
    return [...this.#devices.entries.keys()];
  }

  /** NPROPS, PROPINFO and GETPROP in one: every property of the device. Throws ENOENT. */
  properties(name: string): DeviceProperty[] {
    return this.#properties(this.#entry(name));
  }

  /** One property by name or id. Throws ENOENT, EINVAL for a bad id. */
  property(name: string, property: string | number): DeviceProperty {
    return findProperty(this.properties(name), property);
  }

  /** STATUS. Throws ENOENT. */
  status(name: string): FaultStatus {
    this.#entry(name);
    return this.fma.status(name);
  }

  /** Life-cycle state, for people: created, activated, started. Throws ENOENT. */
  state(name: string): 'created' | 'activated' | 'started' {
    const { device } = this.#entry(name);
    if (device.isStarted) return 'started';
    return device.isActivated ? 'activated' : 'created';
  }

  /** Where frames go: the one destination of a POINT device, or undefined before it is known. Throws ENOENT. */
  target(name: string): Destination | undefined {
    return this.#entry(name).lookup.point;
  }

  /** Throws ENOENT. */
  deviceStats(name: string): DeviceStats {
    return this.#stats.ofDevices([this.#entry(name)])[0]!;
  }

  /** Of every device, in the order of `names`. */
  allDeviceStats(): DeviceStats[] {
    return this.#stats.ofDevices([...this.#devices.entries.values()]);
  }

  /** By name. Throws ENOENT. */
  devicesStats(names: readonly string[]): Map<string, DeviceStats> {
    const stats = this.#stats.ofDevices(names.map((name) => this.#entry(name)));
    return new Map(names.map((name, index) => [name, stats[index]!]));
  }

  /** Of underlay addresses, then of the groups on them. */
  muxStats(): MuxStats[] {
    return this.#stats.ofMuxes();
  }

  workerStats(): WorkerStats[] {
    return this.#stats.ofWorkers();
  }

  // ─── The target cache ─────────────────────────────────────────────────────────────────────────────────

  /** INFO. Throws ENOENT. */
  info(name: string): { needs: number; isActive: boolean; isDegraded: boolean; vnetid: bigint } {
    const { device, lookup } = this.#entry(name);
    return {
      needs: device.encap.destinations,
      isActive: lookup.instance.isActive,
      isDegraded: this.fma.status(name).status === 'DEGRADED',
      vnetid: device.vnetid,
    };
  }

  /** DESTINATION_ bits of the device's encapsulation. Throws ENOENT. */
  encapNeeds(name: string): number {
    return this.info(name).needs;
  }

  /** CACHE_GET; the point of a POINT device whatever address is asked for. Throws ENOENT, ENXIO. */
  cacheGet(name: string, mac: number): TargetView {
    return getTarget(this.#entry(name), mac);
  }

  /** CACHE_SET. Throws ENOENT, ENXIO, ENOTSUP for a POINT device, EINVAL for a bad route, ENOSPC, ENOMEM. */
  cacheSet(name: string, mac: number, to: Route | 'drop'): void {
    setTarget(this.#entry(name), mac, to);
  }

  /** CACHE_REMOVE. Throws ENOENT, ENXIO, ENOTSUP for a POINT device. */
  cacheRemove(name: string, mac: number): void {
    removeTarget(this.#entry(name), mac);
  }

  /** CACHE_FLUSH. Throws ENOENT, ENXIO, ENOTSUP for a POINT device. */
  cacheFlush(name: string): void {
    flushTargets(this.#entry(name));
    this.events.emit('target-flush', { device: name, text: 'everything is looked up anew' });
  }

  /** CACHE_ITER: targets from address `marker` on, at most `count`, and where to go on. Throws ENOENT, ENXIO. */
  cacheIterate(
    name: string,
    marker: number,
    count: number,
  ): { targets: TargetView[]; next: number | undefined } {
    return iterateTargets(this.#entry(name), marker, count);
  }

  /** What is known of the ways to a route's destinations. Throws ENOENT. */
  paths(name: string, route: Route | undefined): PathView[] {
    return this.#pathProbes.paths(this.#entry(name).device, route ? destinationsOf(route) : []);
  }

  /** Undefined for a POINT device and before activation. Throws ENOENT. */
  cacheStats(name: string): CacheStats | undefined {
    return this.#entry(name).lookup.dynamic?.cache.stats;
  }

  /** In, to the guests of this host; a frame from its Ethernet header on. Throws ENOENT, EINVAL. */
  inject(name: string, frame: Uint8Array): void {
    this.#entry(name).lookup.inject(frame);
  }

  /** Out, as if a guest had sent it. Throws ENOENT, EINVAL. */
  resend(name: string, frame: Uint8Array): void {
    this.#entry(name).lookup.resend(frame);
  }

  // ─── The external handle ──────────────────────────────────────────────────────────────────────────────

  /**
   * ASSOCIATE: the holder of the handle takes the device on, and it activates. Throws ENOENT, ENOTSUP for a device of
   * another plugin, EINVAL for a bad destination, EEXIST.
   */
  associate(name: string, to: Association): Promise<void> {
    return this.#perimeters.run(name, () => this.#handle.associate(this.#entry(name), to));
  }

  /** DISASSOCIATE: nobody answers any more; what is known goes on. Throws ENOENT, ENOTSUP, ENXIO. */
  disassociate(name: string): Promise<void> {
    return this.#perimeters.run(name, () => this.#handle.disassociate(this.#entry(name)));
  }

  /** DEGRADE and RESTORE by the holder of the handle. Throw ENOENT. */
  degradeExternal(name: string, text: string): void {
    this.#entry(name);
    this.fma.degrade(name, 'plugin', text);
  }

  restoreExternal(name: string): void {
    this.#entry(name);
    this.fma.restore(name, 'plugin');
  }

  #entry(name: string): Entry {
    return this.#devices.entry(name);
  }

  #properties({ device, lookup }: Entry): DeviceProperty[] {
    return deviceProperties(device, lookup.instance, this.encaps.names, this.varpd.pluginNames);
  }
}
