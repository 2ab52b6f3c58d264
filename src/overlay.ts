/**
 * overlayd: the theory of the whole system. Every other core file points here.
 *
 * Two questions
 * ─────────────
 * An overlay device puts an isolated layer-2 network on an IP network, the underlay. For every frame it answers two
 * questions, apart from each other:
 *
 *   1. How is the frame transformed to go on the wire?   an encap plugin (vxlan)
 *   2. Where is the transformed frame sent?              a lookup plugin (direct), run by varpd
 *
 * Parties
 * ───────
 *   link        a TAP the kernel sees as an Ethernet link; a queue for each worker
 *   device      one link, one vnetid, one encap, one lookup instance, its properties        src/device.ts
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
 * frees then. An idle engine has all workers waiting, so that costs nothing.
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
 * A received frame never changes where frames are sent.
 *
 * Every frame ends in exactly one verdict, and every drop has a name in one closed list (`assembly/layout.ts`). For a
 * device, tx_read = tx_frames + the tx drops; for a mux, rx_read = its own drops + its devices' rx_frames and rx
 * drops. The tests check these sums against the kernel's own counters.
 *
 * A worker that dies (a throw, an exit, a hang) is replaced with the same descriptors, which main owns; a trap in the
 * core costs the one frame it happened on.
 *
 * Errors: what an operator, a peer or the system did is an `OverlayError` with a POSIX name, a stable code and a
 * sentence; what we did wrong is an assertion and crashes.
 */
import * as layout from '../assembly/layout.js';
import type { Counts } from './datapath/counters.js';
import { Engine, type EngineOptions } from './datapath/engine.js';
import type { TrapEvent } from './datapath/events.js';
import type { WorkerEvent } from './datapath/workers.js';
import { checkDeviceName, Device } from './device.js';
import { checkEncapName } from './encap/plugin.js';
import { EncapRegistry } from './encap/registry.js';
import { OverlayError } from './errors.js';
import { type FaultStatus, Fma } from './fma.js';
import { formatEndpoint } from './ip.js';
import { MTU_DEFAULT_BYTES, START_RETRY_MS, START_RETRY_MS_MAX } from './limits.js';
import type { Log } from './log.js';
import { type Mux, Muxes } from './mux.js';
import { Attachments } from './overlay/attachment.js';
import type { PortEvent, PortSource } from './overlay/ports.js';
import {
  type DeviceProperty,
  deviceProperties,
  findProperty,
  mtuInfo,
  vnetidInfo,
} from './overlay/properties.js';
import { Traps } from './overlay/traps.js';
import { type PropertyInfo, parseProperty } from './property.js';
import { Serial } from './serial.js';
import { after } from './sys/clock.js';
import type { Point } from './varpd/plugin.js';
import { Varpd, type VarpdInstance } from './varpd/varpd.js';

export interface OverlayOptions extends Pick<EngineOptions, 'workers' | 'memoryBytes' | 'cpus' | 'entry'> {
  readonly ports: PortSource;
  readonly log: Log;
  /** Send sockets of each worker on each mux. */
  readonly bank: number;
  readonly encaps?: EncapRegistry;
  readonly varpd?: Varpd;
}

/** What `create-overlay` asks for, as one transaction. */
export interface OverlayRequest {
  readonly name: string;
  readonly encap: string;
  readonly search: string;
  readonly vnetid: unknown;
  readonly properties: Readonly<Record<string, unknown>>;
}

/** A device with everything that belongs to it. */
interface Entry {
  readonly device: Device;
  readonly instance: VarpdInstance;
}

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
}

export interface WorkerStats {
  readonly worker: number;
  readonly state: string;
  readonly restarts: number;
  readonly counts: Counts;
}

export class Overlay {
  readonly engine: Engine;
  readonly encaps: EncapRegistry;
  readonly varpd: Varpd;
  readonly fma: Fma;
  readonly #entries = new Map<string, Entry>();
  readonly #muxes: Muxes;
  readonly #attachments: Attachments;
  readonly #serial = new Serial();
  readonly #traps: Traps;
  readonly #stopWatching: () => void;

  private constructor(
    readonly options: OverlayOptions,
    engine: Engine,
  ) {
    const { log, ports } = options;
    this.engine = engine;
    this.encaps = options.encaps ?? new EncapRegistry();
    this.varpd = options.varpd ?? new Varpd();
    this.fma = new Fma((device, { status, message }) => log.warn({ device, status, message }, 'fault state'));
    this.#muxes = new Muxes(engine, options.bank);
    this.#attachments = new Attachments(engine, this.#muxes);
    this.#traps = new Traps(
      (device, count) =>
        this.fma.degrade(device, 'core_traps', `the core trapped on ${count} frames in 10 s`),
      (device) => this.fma.restore(device, 'core_traps'),
    );
    this.#stopWatching = ports.watch((event) => {
      this.#serial
        .run(() => this.#onPort(event))
        .catch((error) => log.error({ err: error }, 'link event failed'));
    });
  }

  /** Starts workers and tables. Throws ENOMEM when the memory is too small, EINVAL for a CPU that is not there. */
  static async start(options: OverlayOptions): Promise<Overlay> {
    let overlay: Overlay | undefined;
    const engine = await Engine.start({
      ...options,
      onWorker: (event) => overlay?.onWorker(event),
      onTrap: (event) => overlay?.onTrap(event),
    });
    overlay = new Overlay(options, engine);
    return overlay;
  }

  /** Stops all devices, takes their links away and ends the workers. */
  async close(): Promise<void> {
    this.#stopWatching();
    await this.#serial.run(async () => {
      for (const name of [...this.#entries.keys()]) await this.#remove(this.#entry(name));
    });
    await this.engine.close();
    this.options.ports.close();
  }

  // ─── Operations; each runs to its end before the next begins ──────────────────────────────────────────

  /**
   * CREATE: the device in state created, and its lookup instance. In this order: EINVAL for a bad name or encap name,
   * ENOENT for an unknown encap, EINVAL for a vnetid out of range, EEXIST for a name or vnetid in use, ENOENT and
   * ENOTSUP for the lookup plugin, then what making the link gives.
   */
  create(name: string, encap: string, search: string, vnetid: unknown): Promise<void> {
    return this.#serial.run(() => this.#create(name, encap, search, vnetid));
  }

  /** SETPROP: ENOENT, ENOTSUP once activated, EPERM for what cannot be written, EINVAL for a bad value. */
  setprop(name: string, property: string | number, value: unknown): Promise<void> {
    return this.#serial.run(() => this.#setprop(this.#entry(name), property, value));
  }

  /**
   * ACTIVATE: ENOENT, EEXIST, ENODEV when the link is gone, EINVAL for a required encap property, then what the
   * lookup plugin's start gives.
   */
  activate(name: string): Promise<void> {
    return this.#serial.run(() => this.#activate(this.#entry(name)));
  }

  /** DELETE: ENOENT, EBUSY while the link is up or carries other links, unless forced. Otherwise always finishes. */
  delete(name: string, options: { force: boolean }): Promise<void> {
    return this.#serial.run(() => this.#delete(this.#entry(name), options.force));
  }

  /** CREATE, SETPROP for each property and ACTIVATE: all of it or nothing, with a line for each part at fault. */
  createOverlay(request: OverlayRequest): Promise<void> {
    return this.#serial.run(async () => {
      const { name, encap, search, vnetid, properties } = request;
      await this.#create(name, encap, search, vnetid);
      const entry = this.#entry(name);
      const details: string[] = [];
      let first: OverlayError | undefined;
      const attempt = async (what: string, work: () => void | Promise<void>) => {
        try {
          await work();
        } catch (error) {
          if (!(error instanceof OverlayError)) {
            await this.#remove(entry);
            throw error;
          }
          first ??= error;
          details.push(`${what}: ${error.message}`);
        }
      };
      for (const [property, value] of Object.entries(properties)) {
        await attempt(property, () => this.#setprop(entry, property, value));
      }
      if (!first) await attempt('activation', () => this.#activate(entry));
      if (!first) return;
      await this.#remove(entry);
      for (const property of entryMissing(entry)) {
        if (!Object.hasOwn(properties, property))
          details.push(`${property}: it is required and has no value`);
      }
      throw new OverlayError(
        first.errno,
        first.code,
        `overlay '${name}' was not created: ${first.message}`,
        details,
      );
    });
  }

  // ─── Reading; always possible ─────────────────────────────────────────────────────────────────────────

  /** Names of all devices, in the order of creation. */
  get names(): string[] {
    return [...this.#entries.keys()];
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
  target(name: string): Point | undefined {
    const { instance } = this.#entry(name);
    return instance.isActive ? instance.lookup.point() : undefined;
  }

  /** Throws ENOENT. */
  deviceStats(name: string): DeviceStats {
    const { device } = this.#entry(name);
    const linkOverflow = device.isLinkGone ? 0n : this.options.ports.overflow(device.port);
    return { counts: this.engine.counters.device(device.row), linkOverflow };
  }

  muxStats(): MuxStats[] {
    return this.#muxes.list.map((mux: Mux) => ({
      name: formatEndpoint(mux.ip, mux.port),
      encap: mux.encap.name,
      counts: this.engine.counters.mux(mux.row),
      socketOverflow: this.#muxes.overflow(mux),
    }));
  }

  workerStats(): WorkerStats[] {
    return this.engine.workers.list.map((worker) => ({
      worker: worker.queue.index,
      state: worker.state,
      restarts: worker.restarts,
      counts: this.engine.counters.worker(worker.queue.arena),
    }));
  }

  // ─── The operations themselves ────────────────────────────────────────────────────────────────────────

  async #create(name: string, encapName: string, search: string, vnetidText: unknown): Promise<void> {
    checkDeviceName(name);
    checkEncapName(encapName);
    const encap = this.encaps.hold(encapName);
    try {
      const properties = encap.operations.init();
      try {
        this.#createEntry(name, encap, properties, search, vnetidText);
      } catch (error) {
        encap.operations.fini(properties);
        throw error;
      }
    } catch (error) {
      this.encaps.release(encap);
      throw error;
    }
  }

  #createEntry(
    name: string,
    encap: Device['encap'],
    properties: Device['properties'],
    search: string,
    vnetidText: unknown,
  ): void {
    const vnetid = parseProperty(vnetidInfo({ encap }), vnetidText) as bigint;
    if (this.#entries.has(name)) {
      throw new OverlayError('EEXIST', 'device_exists', `overlay '${name}' exists already`);
    }
    this.#refuseVnetid(encap.name, vnetid);
    const instance = this.varpd.create(search, encap.destinations);
    try {
      const device = this.#createDevice(name, encap, properties, vnetid);
      this.#entries.set(name, { device, instance });
    } catch (error) {
      this.varpd.destroy(instance);
      throw error;
    }
  }

  #createDevice(
    name: string,
    encap: Device['encap'],
    properties: Device['properties'],
    vnetid: bigint,
  ): Device {
    const { tables, workers, counters } = this.engine;
    const row = tables.devices.take();
    let port: Device['port'] | undefined;
    try {
      const alias = aliasOf(name, encap.name, vnetid);
      port = this.options.ports.open(name, workers.list.length, MTU_DEFAULT_BYTES, alias);
      counters.clearDevice(row);
      tables.setDeviceState(row, layout.DEVICE_STATE_DROP);
      this.engine.attachPort(row, port.fds);
    } catch (error) {
      // Nothing has come from the port yet, so that no worker can be reading it.
      this.engine.detachPort(row);
      port?.release();
      tables.devices.free(row);
      throw error;
    }
    return new Device(name, encap, properties, row, port, vnetid, MTU_DEFAULT_BYTES);
  }

  #setprop(entry: Entry, nameOrId: string | number, value: unknown): void {
    const { device, instance } = entry;
    if (device.isActivated) {
      throw new OverlayError(
        'ENOTSUP',
        'already_active',
        `${nameOrId} cannot be set on an activated device; delete and create it again` +
          (nameOrId === 'mtu' ? `, or change the link: ip link set ${device.name} mtu N` : ''),
      );
    }
    const { origin, info } = findProperty(this.#properties(entry), nameOrId);
    if (!info.isWritable) throw new OverlayError('EPERM', 'property_read_only', `${info.name} cannot be set`);
    if (origin === 'encap') device.encap.operations.setprop(device.properties, info.name, value);
    else if (origin === 'lookup') instance.lookup.properties.set(info.name, value);
    else this.#setGeneric(device, info, value);
  }

  /** Of the generic properties only `mtu` and `vnetid` can be written. */
  #setGeneric(device: Device, info: PropertyInfo, value: unknown): void {
    const parsed = parseProperty(info, value) as bigint;
    if (info.name === 'mtu') {
      device.port.setMtu(Number(parsed));
      device.mtu = Number(parsed);
    } else {
      if (parsed !== device.vnetid) this.#refuseVnetid(device.encap.name, parsed);
      device.port.setAlias(aliasOf(device.name, device.encap.name, parsed));
      device.vnetid = parsed;
    }
  }

  async #activate({ device, instance }: Entry): Promise<void> {
    if (device.isActivated) {
      throw new OverlayError('EEXIST', 'already_active', `overlay '${device.name}' is activated already`);
    }
    if (device.isLinkGone) throw new OverlayError('ENODEV', 'link_gone', linkGoneText(device));
    const missing = device.properties.missing();
    if (missing.length > 0) {
      throw new OverlayError('EINVAL', 'property_missing', `not set: ${missing.join(', ')}`);
    }
    if (!instance.isActive) this.varpd.activate(instance);
    device.port.setCarrier(true);
    device.isActivated = true;
    await this.#startIfUp({ device, instance });
  }

  async #delete(entry: Entry, force: boolean): Promise<void> {
    const { device } = entry;
    if (!force && !device.isLinkGone) {
      if (device.isUp) {
        throw new OverlayError(
          'EBUSY',
          'link_up',
          `${device.name} is up: take it down (ip link set ${device.name} down), or delete it with --force`,
        );
      }
      const upper = this.options.ports.upperLinks(device.port);
      if (upper.length > 0) {
        throw new OverlayError(
          'EBUSY',
          'links_on_top',
          `${device.name} carries ${upper.join(', ')}: delete them first, or delete it with --force`,
        );
      }
    }
    await this.#remove(entry);
  }

  /** Takes a device out, whatever state it is in. */
  async #remove({ device, instance }: Entry): Promise<void> {
    device.cancelRetry?.();
    this.#entries.delete(device.name);
    this.#traps.forget(device.name);
    this.varpd.destroy(instance);
    device.encap.operations.fini(device.properties);
    this.encaps.release(device.encap);
    try {
      await this.#attachments.stop(device);
      this.engine.detachPort(device.row);
      await this.engine.quiesce();
      device.port.release();
      this.engine.tables.setDeviceState(device.row, layout.DEVICE_STATE_FREE);
      this.engine.tables.devices.free(device.row);
    } catch (error) {
      // A stuck worker may still read the rows and descriptors: they are kept for good, the device is gone.
      if (!(error instanceof OverlayError)) throw error;
      this.options.log.error(
        { device: device.name, error: error.message },
        'parts of a deleted device are kept',
      );
    }
    this.fma.forget(device.name);
  }

  #refuseVnetid(encap: string, vnetid: bigint): void {
    for (const { device } of this.#entries.values()) {
      if (device.encap.name !== encap || device.vnetid !== vnetid) continue;
      throw new OverlayError(
        'EEXIST',
        'vnetid_in_use',
        `vnetid ${vnetid} is that of overlay '${device.name}'`,
      );
    }
  }

  // ─── Start and stop, following the link ───────────────────────────────────────────────────────────────

  async #startIfUp(entry: Entry): Promise<void> {
    const { device, instance } = entry;
    device.cancelRetry?.();
    device.cancelRetry = undefined;
    if (!device.isActivated || !device.isUp || device.isStarted || device.isLinkGone) return;
    try {
      await this.#attachments.start(device, instance.lookup.point());
      device.retries = 0;
      this.fma.restore(device.name, 'start_failed');
    } catch (error) {
      if (!(error instanceof OverlayError)) throw error;
      this.fma.degrade(
        device.name,
        'start_failed',
        `not started: ${error.message} (${error.errno}); will try again`,
      );
      const pauseMs = Math.min(START_RETRY_MS * 2 ** device.retries++, START_RETRY_MS_MAX);
      device.cancelRetry = after(pauseMs, () => this.#retry(entry));
    }
  }

  #retry(entry: Entry): void {
    const { log } = this.options;
    this.#serial
      .run(() => (this.#entries.get(entry.device.name) === entry ? this.#startIfUp(entry) : undefined))
      .catch((error) => log.error({ err: error }, 'retry failed'));
  }

  async #stop({ device }: Entry): Promise<void> {
    device.cancelRetry?.();
    device.retries = 0;
    await this.#attachments.stop(device);
    // It was told to stop: not being started is no fault now.
    this.fma.restore(device.name, 'start_failed');
  }

  async #onPort(event: PortEvent): Promise<void> {
    if (event.kind === 'address') {
      for (const entry of this.#entries.values()) if (entry.device.cancelRetry) await this.#startIfUp(entry);
      return;
    }
    const entry = [...this.#entries.values()].find(
      ({ device }) => !device.isLinkGone && device.port.index === event.index,
    );
    if (!entry) return;
    const { device } = entry;
    if (event.isDeleted) {
      device.isLinkGone = true;
      device.isUp = false;
      this.engine.detachPort(device.row);
      await this.#stop(entry);
      this.fma.degrade(device.name, 'link_gone', linkGoneText(device));
      return;
    }
    this.#followMtu(device, event.mtu);
    if (event.isUp === device.isUp) return;
    device.isUp = event.isUp;
    if (event.isUp) await this.#startIfUp(entry);
    else await this.#stop(entry);
  }

  /** The link's MTU is the property's, both ways; one we cannot have is put back. */
  #followMtu(device: Device, mtu: number): void {
    if (mtu === device.mtu) return;
    try {
      parseProperty(mtuInfo, mtu);
    } catch {
      this.options.log.warn({ device: device.name, mtu }, 'MTU out of range, put back');
      device.port.setMtu(device.mtu);
      return;
    }
    device.mtu = mtu;
    this.engine.tables.setDeviceMtu(device.row, mtu);
  }

  // ─── What the data path reports ───────────────────────────────────────────────────────────────────────

  /** Faults that workers cause are on every device: each has a queue at the worker. */
  onWorker(event: WorkerEvent): void {
    const { log } = this.options;
    log.warn(event, `worker ${event.kind}`);
    const isWhole = this.engine.workers.list.every(({ state }) => state === 'running');
    for (const { device } of this.#entries.values()) {
      if (event.kind !== 'replaced') {
        this.fma.degrade(device.name, 'worker', `worker ${event.worker} ${workerText(event)}`);
      } else if (isWhole) {
        this.fma.restore(device.name, 'worker');
      }
    }
  }

  onTrap(event: TrapEvent): void {
    this.options.log.error(event, 'core trap');
    for (const { device } of this.#entries.values()) {
      const isHit =
        event.kind === 'tx_trap' ? device.row === event.row : device.attachment?.mux.row === event.row;
      if (isHit) this.#traps.note(device.name);
    }
  }

  #entry(name: string): Entry {
    const entry = this.#entries.get(name);
    if (entry) return entry;
    throw new OverlayError('ENOENT', 'no_such_device', `there is no overlay '${name}'`);
  }

  #properties({ device, instance }: Entry): DeviceProperty[] {
    return deviceProperties(device, instance, this.encaps.names, this.varpd.pluginNames);
  }
}

/** What the link says of itself in the kernel. */
function aliasOf(name: string, encap: string, vnetid: bigint): string {
  return `overlayd overlay ${name}, ${encap} vnetid ${vnetid}`;
}

function entryMissing({ device, instance }: Entry): string[] {
  return [...device.properties.missing(), ...instance.lookup.properties.missing()];
}

function linkGoneText({ name }: Device): string {
  return `the link ${name} was deleted or moved away; delete and create the overlay`;
}

function workerText(event: Exclude<WorkerEvent, { kind: 'replaced' }>): string {
  if (event.kind === 'stuck') return `is stuck: ${event.reason}`;
  if (event.kind === 'lost') return `is lost: ${event.reason}`;
  const pace = event.again ? 'it dies again and again, the next start waits' : 'it is being replaced';
  return `died (${event.reason}); ${pace}`;
}
