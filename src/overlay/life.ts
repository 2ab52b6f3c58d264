/**
 * A device's life: how it comes about, starts, stops, follows its link, goes away, and comes back after a restart of the
 * daemon. Everything here runs in the device's perimeter. The states are in `src/device.ts`.
 */
import * as layout from '../../assembly/layout.js';
import type { Engine } from '../datapath/engine.js';
import { checkDeviceName, Device } from '../device.js';
import { checkEncapName } from '../encap/plugin.js';
import type { EncapRegistry } from '../encap/registry.js';
import { OverlayError } from '../errors.js';
import type { Events } from '../events.js';
import type { Fma } from '../fma.js';
import {
  MTU_DEFAULT_BYTES,
  RESUME_LATE_MS,
  ROUTES_MS,
  START_RETRY_MS,
  START_RETRY_MS_MAX,
} from '../limits.js';
import type { Log } from '../log.js';
import type { Mux } from '../mux.js';
import { parseProperty } from '../property.js';
import type { DeviceRecord } from '../state/record.js';
import { after, monotonicMs } from '../sys/clock.js';
import type { Port } from '../sys/port.js';
import type { Varpd, VarpdInstance } from '../varpd/varpd.js';
import type { Attachments } from './attachment.js';
import type { Kept } from './kept.js';
import { Lookup } from './lookup.js';
import type { Mtus } from './mtus.js';
import type { Offloads } from './offloads.js';
import type { Perimeters } from './perimeter.js';
import type { Persistence } from './persistence.js';
import type { PortEvent, PortSource } from './ports.js';
import { mtuInfo, vnetidInfo } from './properties.js';
import { applyRecord, associationOf } from './record.js';
import type { Entry } from './setprop.js';
import type { Targets } from './targets.js';
import type { Traps } from './traps.js';

export interface LifeContext {
  readonly engine: Engine;
  readonly encaps: EncapRegistry;
  readonly varpd: Varpd;
  readonly fma: Fma;
  readonly log: Log;
  readonly ports: PortSource;
  readonly attachments: Attachments;
  readonly targets: Targets;
  readonly traps: Traps;
  readonly offloads: Offloads;
  readonly mtus: Mtus;
  readonly kept: Kept;
  readonly perimeters: Perimeters;
  readonly persistence: Persistence;
  readonly events: Events;
}

/** What the link says of itself in the kernel. */
export function aliasOf(name: string, encap: string, vnetid: bigint): string {
  return `overlayd overlay ${name}, ${encap} vnetid ${vnetid}`;
}

export class Life {
  readonly entries = new Map<string, Entry>();
  /** Records of what could not be brought back: by their names they are deleted, or made anew. */
  readonly missing = new Map<string, DeviceRecord>();
  /** Called when one of them is deleted, or made anew. */
  onFound: (name: string) => void = () => {};
  #cancelMtus: (() => void) | undefined;
  /** When MTUs may be looked at again. */
  #mtusFreeAtMs = 0;
  /** Deleted, and not all of it gone yet. */
  readonly #leaving = new Set<Device>();

  constructor(readonly context: LifeContext) {}

  /** Throws ENOENT. */
  entry(name: string): Entry {
    const entry = this.entries.get(name);
    if (entry) return entry;
    const why = this.missing.has(name)
      ? ': it did not come back after the restart; delete it, or create it anew'
      : '';
    throw new OverlayError('ENOENT', 'no_such_device', `there is no overlay '${name}'${why}`);
  }

  /** Throws EEXIST when another device of the encapsulation has the vnetid. */
  refuseVnetid(encap: string, vnetid: bigint): void {
    for (const { device } of this.entries.values()) {
      if (device.encap.name !== encap || device.vnetid !== vnetid) continue;
      throw new OverlayError(
        'EEXIST',
        'vnetid_in_use',
        `vnetid ${vnetid} is that of overlay '${device.name}'`,
      );
    }
    for (const device of this.#leaving) {
      if (device.encap.name !== encap || device.vnetid !== vnetid) continue;
      throw new OverlayError(
        'EEXIST',
        'vnetid_in_use',
        `vnetid ${vnetid} is that of overlay '${device.name}', which is being deleted: try again in a moment`,
      );
    }
  }

  // ─── Coming about ─────────────────────────────────────────────────────────────────────────────────────

  /** A new device in state created. */
  create(name: string, encapName: string, search: string, vnetidText: unknown): Entry {
    checkDeviceName(name);
    return this.#make(name, encapName, search, undefined, vnetidText, (device) => {
      const { encap, vnetid, mtu } = device;
      const alias = aliasOf(name, encap.name, vnetid);
      const { engine, ports } = this.context;
      const queues = engine.lanes;
      const left = this.missing.get(name);
      if (!left) return ports.open({ name, queues, mtu, alias, netns: '' });
      // The link of the one that did not come back, where it is there; one in another namespace gives way to a new one.
      const netns = String(left.properties.netns ?? '');
      if (netns !== '') ports.discard(name, netns);
      const asked = { name, queues, mtu, alias, netns: '', mac: left.mac ?? undefined, fds: [] };
      return prepared(ports.reopen(asked), (port) => {
        port.setCarrier(false);
        port.setMtu(mtu);
        port.setAlias(alias);
        port.keep(false);
      });
    });
  }

  /**
   * A device as it was before a restart, with the link it had where that is there; `resume` follows. Rejects with what is in its
   * way; nothing is left of it then, but for the link and what is kept of it.
   *
   * @param onTaken called when the descriptors are the device's, which closes them even when it does not come back
   */
  async restore(record: DeviceRecord, fds: readonly number[], onTaken: () => void): Promise<void> {
    const { name, encap, search, id } = record;
    const { ports, engine } = this.context;
    checkDeviceName(name);
    const association = associationOf(record);
    const entry = this.#make(name, encap, search, id, record.vnetid, (device, instance) => {
      applyRecord(record, device, instance);
      const alias = aliasOf(name, device.encap.name, device.vnetid);
      const queues = engine.lanes;
      const { mtu, netns } = device;
      const port = ports.reopen({ name, queues, mtu, alias, netns, mac: record.mac ?? undefined, fds });
      onTaken();
      // First of all: whoever routes over the link has been waiting for it.
      return prepared(port, () => {
        if (record.isActivated) port.setCarrier(true);
      });
    });
    const { device, lookup } = entry;
    try {
      device.isKept = true;
      device.port.keep(true);
      device.mac = device.port.mac;
      device.linkName = device.port.name ?? name;
      lookup.association = association;
      if (lookup.isExternal && lookup.association) {
        this.context.fma.degrade(name, 'varpd', 'nobody answers lookups: the daemon was restarted');
      }
      if (!record.isActivated) return;
      device.isActivated = true;
      device.isUp = ports.isUp(device.port);
      this.#followMtu(entry, ports.mtu(device.port), device.isMtuAuto);
      lookup.prepare();
      // With what is known already: one VTEP, or nothing yet but those who ask.
      if (lookup.isRouted) await this.#start(entry);
    } catch (error) {
      await this.remove(entry);
      throw error;
    }
  }

  /**
   * The rest of a restore, beside everything else: the targets that the device knew come back, and its lookup plugin is started.
   * Until then it serves what it knew.
   */
  async resume(entry: Entry): Promise<void> {
    const { device } = entry;
    const { fma, perimeters, persistence } = this.context;
    if (!device.isActivated) return;
    const late = after(RESUME_LATE_MS, () => {
      // It may be on its way out.
      if (!this.#isThere(entry)) return;
      fma.degrade(
        device.name,
        'lookup_stale',
        'its lookup plugin has not started since the restart; it is waited for',
      );
    });
    // Read first, where that is a matter of a moment.
    const targets = persistence.loadTargets(entry);
    try {
      await perimeters.run(device.name, () => this.retry(entry));
    } finally {
      late();
    }
    await targets;
  }

  /** Encapsulation, lookup instance, rows and link, or nothing. */
  #make(
    name: string,
    encapName: string,
    search: string,
    id: number | undefined,
    vnetidText: unknown,
    openPort: (device: Device, instance: VarpdInstance) => Port,
  ): Entry {
    const { encaps, varpd } = this.context;
    checkEncapName(encapName);
    const encap = encaps.hold(encapName);
    const undo: (() => void)[] = [() => encaps.release(encap)];
    try {
      const properties = encap.operations.init();
      undo.push(() => encap.operations.fini(properties));
      const vnetid = parseProperty(vnetidInfo({ encap }), vnetidText) as bigint;
      if (this.entries.has(name)) {
        throw new OverlayError('EEXIST', 'device_exists', `overlay '${name}' exists already`);
      }
      this.refuseVnetid(encap.name, vnetid);
      const instance = varpd.create(search, encap.destinations, id);
      undo.push(() => varpd.forget(instance));
      const row = this.context.engine.tables.devices.take();
      undo.push(() => this.context.engine.tables.devices.free(row));
      const device = new Device(name, encap, properties, row, vnetid, MTU_DEFAULT_BYTES);
      const port = openPort(device, instance);
      // Nothing has come from the port yet, so that no worker can be reading it.
      undo.push(() => void port.release());
      this.#attach(device, port, undo);
      const entry = { device, lookup: new Lookup(device, instance, this.context) };
      this.entries.set(name, entry);
      this.#tellOfWorkers(name);
      const kind = id === undefined ? 'created' : 'recovered';
      this.context.events.emit(kind, { device: name, text: encapName });
      return entry;
    } catch (error) {
      for (const step of undo.reverse()) step();
      throw error;
    }
  }

  #attach(device: Device, port: Port, undo: (() => void)[]): void {
    const { engine } = this.context;
    device.port = port;
    device.mac = port.mac;
    this.context.offloads.offer(device);
    engine.counters.clearDevice(device.row);
    engine.tables.setDeviceState(device.row, layout.DEVICE_STATE_DROP);
    undo.push(() => engine.detachPort(device.row));
    engine.attachPort(device.row, port.fds);
  }

  #tellOfWorkers(name: string): void {
    const away = this.context.engine.workers.list.find(({ state }) => state !== 'running');
    if (away) this.context.fma.degrade(name, 'worker', `worker ${away.queue.index} is ${away.state}`);
  }

  /** ACTIVATE. */
  async activate(entry: Entry): Promise<void> {
    const { device, lookup } = entry;
    if (device.isActivated) {
      throw new OverlayError('EEXIST', 'already_active', `overlay '${device.name}' is activated already`);
    }
    if (device.isLinkGone) throw new OverlayError('ENODEV', 'link_gone', linkGoneText(device));
    refuseAway(device);
    const missing = device.properties.missing();
    if (missing.length > 0) {
      throw new OverlayError('EINVAL', 'property_missing', `not set: ${missing.join(', ')}`);
    }
    if (lookup.isExternal && !lookup.association) {
      throw new OverlayError(
        'EAGAIN',
        'not_associated',
        `${device.name} activates when the holder of the external handle associates it`,
      );
    }
    const takeBack = this.context.persistence.announce(entry, (record) => ({ ...record, isActivated: true }));
    try {
      await lookup.activate();
      try {
        device.port.setCarrier(true);
      } catch (error) {
        await lookup.deactivate();
        throw error;
      }
    } catch (error) {
      takeBack();
      throw error;
    }
    device.isActivated = true;
    this.context.mtus.follow([entry]);
    this.context.events.emit('activated', { device: device.name, text: 'its link has carrier' });
    await this.startIfUp(entry);
  }

  // ─── Going away ───────────────────────────────────────────────────────────────────────────────────────

  /** DELETE. */
  async delete(entry: Entry, force: boolean): Promise<void> {
    const { device } = entry;
    const { ports, persistence, events } = this.context;
    if (!force && !device.isLinkGone && !device.isAway) {
      // The kernel's word, since what it told us may be a moment old.
      if (ports.isUp(device.port)) {
        throw new OverlayError(
          'EBUSY',
          'link_up',
          `${device.name} is up: take it down (ip link set ${device.name} down), or delete it with --force`,
        );
      }
      const upper = ports.upperLinks(device.port);
      if (upper.length > 0) {
        throw new OverlayError(
          'EBUSY',
          'links_on_top',
          `${device.name} carries ${upper.join(', ')}: delete them first, or delete it with --force`,
        );
      }
    }
    persistence.forget(entry);
    if (!device.isLinkGone && !device.isAway) device.port.keep(false);
    await this.remove(entry);
    events.emit('deleted', { device: device.name, text: 'with its link' });
  }

  /** It was made anew for good, in place of one that had not come back. */
  settle(name: string, isTemporary: boolean): void {
    if (!this.missing.delete(name)) return;
    if (isTemporary) this.context.persistence.forgetRecord(name);
    this.onFound(name);
  }

  /** DELETE of one that did not come back: what is kept of it goes, and its link where that is there. */
  discard(record: DeviceRecord, force: boolean): void {
    const { events, persistence, ports } = this.context;
    const { name } = record;
    const netns = String(record.properties.netns ?? '');
    if (!force && ports.isLeftUp(name, netns)) {
      throw new OverlayError(
        'EBUSY',
        'link_up',
        `${name} is up: take it down (ip link set ${name} down), or delete it with --force`,
      );
    }
    persistence.forgetRecord(name);
    ports.discard(name, netns);
    this.missing.delete(name);
    this.onFound(name);
    events.emit('deleted', { device: name, text: 'it had not come back after the restart' });
  }

  /** Takes a device out, whatever state it is in. Its link goes unless it is kept. */
  async remove(entry: Entry): Promise<void> {
    await this.letGo(entry, true);
  }

  /** The same, with the port left as it is where `isReleased` is not set. */
  async letGo(entry: Entry, isReleased = false): Promise<void> {
    const { device } = entry;
    this.#leaving.add(device);
    try {
      await this.#letGo(entry, isReleased);
    } finally {
      this.#leaving.delete(device);
    }
  }

  async #letGo({ device, lookup }: Entry, isReleased: boolean): Promise<void> {
    const { engine, encaps, fma, traps, varpd, attachments, targets, kept, offloads } = this.context;
    device.cancelRetry?.();
    this.entries.delete(device.name);
    traps.forget(device.name);
    offloads.forget(device);
    varpd.external.forget(device.name);
    await lookup.close();
    device.encap.operations.fini(device.properties);
    encaps.release(device.encap);
    await attachments.stop(device);
    lookup.withdraw();
    engine.detachPort(device.row);
    const rows = engine.destinations.leaving();
    const giveBack = () => {
      rows();
      lookup.free();
      engine.tables.setDeviceState(device.row, layout.DEVICE_STATE_FREE);
      engine.tables.devices.free(device.row);
      return isReleased ? device.port.release() : undefined;
    };
    fma.forget(device.name);
    targets.remove(device.row);
    try {
      await engine.quiesce();
      await targets.purge(device.row);
    } catch (error) {
      if (!(error instanceof OverlayError)) throw error;
      kept.add(`the link and the rows of ${device.name}`, async () => {
        await targets.purge(device.row);
        await giveBack();
      });
      return;
    }
    await giveBack();
  }

  // ─── Start and stop, following the link ───────────────────────────────────────────────────────────────

  /** Starts what is to be started; what fails degrades the device and is tried again. */
  async startIfUp(entry: Entry): Promise<void> {
    const { device, lookup } = entry;
    device.cancelRetry?.();
    device.cancelRetry = undefined;
    if (!device.isActivated || device.isLinkGone || device.isAway) return;
    // With what it knew before, a device forwards while its plugin is started.
    if (lookup.isRouted) await this.#start(entry);
    if (!lookup.instance.isActive) {
      await this.#activateAgain(entry);
      if (lookup.isRouted && !device.isStarted) await this.#start(entry);
    }
  }

  async #start(entry: Entry): Promise<void> {
    const { device, lookup } = entry;
    const { fma, attachments, events } = this.context;
    if (!device.isUp || device.isStarted) return;
    try {
      lookup.applySources();
      await attachments.start(device, lookup.route());
      this.context.mtus.follow([entry]);
      device.retries = 0;
      device.isNamespaceMissing = false;
      events.emit('started', { device: device.name, text: 'it forwards' });
      fma.restore(device.name, 'start_failed');
    } catch (error) {
      if (!(error instanceof OverlayError)) throw error;
      device.isNamespaceMissing = error.code === 'no_such_netns';
      fma.degrade(
        device.name,
        'start_failed',
        `not started: ${error.message} (${error.errno}); will try again`,
      );
      this.#retryLater(entry);
    }
  }

  /** After a restart or a change: the plugin is asked to take the device on, as often as it takes. */
  async #activateAgain(entry: Entry): Promise<void> {
    const { device, lookup } = entry;
    const { fma } = this.context;
    try {
      await lookup.activate();
      this.context.mtus.follow([entry]);
      fma.restore(device.name, 'lookup_stale');
      if (device.isStarted) lookup.applySources();
    } catch (error) {
      if (!(error instanceof OverlayError)) throw error;
      const serves = lookup.dynamic ? 'frames go to what was known before' : 'nothing is forwarded';
      fma.degrade(device.name, 'lookup_stale', `${error.message}; ${serves}, and it is tried again`);
      this.#retryLater(entry);
    }
  }

  #retryLater(entry: Entry): void {
    const { device } = entry;
    const { log, perimeters } = this.context;
    if (device.cancelRetry) return;
    const pauseMs = Math.min(START_RETRY_MS * 2 ** device.retries++, START_RETRY_MS_MAX);
    device.cancelRetry = after(pauseMs, () => {
      perimeters
        .run(device.name, () => this.retry(entry))
        .catch((error) => log.error({ err: error }, 'retry failed'));
    });
  }

  /** Tries again now what failed before. */
  async retry(entry: Entry): Promise<void> {
    if (this.#isThere(entry)) await this.startIfUp(entry);
  }

  async #stop({ device }: Entry): Promise<void> {
    device.cancelRetry?.();
    device.cancelRetry = undefined;
    device.retries = 0;
    if (device.isStarted)
      this.context.events.emit('stopped', { device: device.name, text: 'its link went down' });
    await this.context.attachments.stop(device);
    // It was told to stop: not being started is no fault now.
    this.context.fma.restore(device.name, 'start_failed');
  }

  /** It has not been deleted meanwhile. */
  #isThere(entry: Entry): boolean {
    return this.entries.get(entry.device.name) === entry;
  }

  /** What is to be done about an event, and in whose perimeter. */
  onPort(event: PortEvent): (readonly [device: string, work: () => void | Promise<void>])[] {
    const entries = [...this.entries.values()];
    if (event.kind === 'link') {
      const { index, netns } = event;
      const entry = entries.find(
        ({ device }) =>
          !device.isLinkGone && !device.isAway && device.port.index === index && device.netns === netns,
      );
      return entry ? [[entry.device.name, () => this.#followLink(entry, event)]] : [];
    }
    if (event.kind === 'routes') {
      this.#followMtus(ROUTES_MS);
      return [];
    }
    if (event.kind === 'underlay') {
      this.#followUnderlay();
      return this.#retries(entries.filter(({ device }) => device.cancelRetry));
    }
    const elsewhere = entries.filter(({ device }) => device.netns !== '');
    const lost = entries.filter(({ device }) => device.attachment?.mux.namespace.isThere === false);
    const waiting = entries.filter(({ device }) => device.cancelRetry && device.isNamespaceMissing);
    return [
      ...elsewhere.map((entry) => [entry.device.name, () => this.#followNamespace(entry)] as const),
      ...lost.map((entry) => [entry.device.name, () => this.#leaveUnderlay(entry)] as const),
      ...this.#retries(waiting),
    ];
  }

  /** One for each device, however many events ask for it before its turn comes. */
  #retries(entries: readonly Entry[]): (readonly [device: string, work: () => Promise<void>])[] {
    return entries.flatMap((entry) => {
      const { device } = entry;
      if (device.isRetryQueued) return [];
      device.isRetryQueued = true;
      const work = () => {
        device.isRetryQueued = false;
        return this.retry(entry);
      };
      return [[device.name, work] as const];
    });
  }

  /** The namespace of its underlay has lost its name, so that nobody reaches its sockets there any more. */
  async #leaveUnderlay(entry: Entry): Promise<void> {
    const { device } = entry;
    const { attachments, events } = this.context;
    const mux = device.attachment?.mux;
    if (!this.#isThere(entry) || !mux || mux.namespace.isThere) return;
    const text = `network namespace '${mux.netns}' of the underlay is gone`;
    events.emit('namespace-gone', { device: device.name, text });
    await attachments.stop(device);
    await this.startIfUp(entry);
    if (device.isStarted) {
      events.emit('namespace-back', {
        device: device.name,
        text: 'the underlay is in the new one of that name',
      });
    }
  }

  async #followLink(entry: Entry, event: PortEvent & { kind: 'link' }): Promise<void> {
    const { device } = entry;
    const { engine, events, fma, log, persistence } = this.context;
    // It may have been deleted before this one's turn.
    if (!this.#isThere(entry) || device.isLinkGone || device.isAway) return;
    if (event.isDeleted) {
      device.isLinkGone = true;
      device.isUp = false;
      engine.detachPort(device.row);
      await this.#stop(entry);
      events.emit('link-gone', { device: device.name, text: linkGoneText(device) });
      fma.degrade(device.name, 'link_gone', linkGoneText(device));
      return;
    }
    if (event.name !== device.linkName) {
      log.warn({ device: device.name, from: device.linkName, to: event.name }, 'the link was renamed');
      events.emit('link-renamed', { device: device.name, text: `the link is ${event.name} now` });
      device.linkName = event.name;
    }
    if (event.mac !== device.mac) {
      device.mac = event.mac;
      persistence.saveAside(entry);
    }
    if (this.#followMtu(entry, event.mtu)) persistence.saveAside(entry);
    if (event.isUp === device.isUp) return;
    device.isUp = event.isUp;
    if (event.isUp) await this.startIfUp(entry);
    else await this.#stop(entry);
  }

  /**
   * The link's MTU is the property's, both ways; one we cannot have is put back. True when the property has changed.
   * @param isAuto it is not somebody's wish, but what was worked out before a restart
   */
  #followMtu(entry: Entry, told: number, isAuto = false): boolean {
    const { device } = entry;
    if (told === device.mtu) return false;
    const { ports, log, events, mtus } = this.context;
    // What an event tells may be a moment old: of a link that is being made, or of an MTU that was corrected since.
    const mtu = ports.mtu(device.port);
    if (mtu === device.mtu || mtu === 0) return false;
    try {
      parseProperty(mtuInfo(device), mtu);
    } catch {
      log.warn({ device: device.name, mtu }, 'MTU out of range, put back');
      events.emit('mtu-put-back', { device: device.name, text: `${mtu} is out of range` });
      device.port.setMtu(device.mtu);
      return false;
    }
    device.mtu = mtu;
    device.isMtuAuto = isAuto;
    mtus.apply(device);
    events.emit('mtu-changed', { device: device.name, text: `it is ${mtu}` });
    mtus.follow([entry]);
    return true;
  }

  /** For a tenth of the time at most: a router's table may change all the time, and there may be many devices. */
  #followMtus(pauseMs: number): void {
    if (this.#cancelMtus) return;
    const waitMs = Math.max(pauseMs, this.#mtusFreeAtMs - monotonicMs());
    if (waitMs > 0) this.#cancelMtus = after(waitMs, () => this.#followMtusNow());
    else this.#followMtusNow();
  }

  #followMtusNow(): void {
    this.#cancelMtus = undefined;
    const began = monotonicMs();
    this.context.mtus.follow(this.entries.values());
    const ended = monotonicMs();
    this.#mtusFreeAtMs = ended + 9 * (ended - began);
  }

  /** Addresses or interfaces have changed: devices may be without the address of their mux, or have it again. */
  #followUnderlay(): void {
    const { attachments, fma, ports } = this.context;
    const faults = new Map<Mux, string | undefined>();
    for (const { device } of this.entries.values()) {
      const mux = device.attachment?.mux;
      if (!mux) continue;
      if (!faults.has(mux)) {
        const notJoined = attachments.groups.follow(mux);
        faults.set(mux, ports.underlayFault(mux.ip, mux.netns) ?? notJoined);
      }
      const fault = faults.get(mux);
      if (fault === undefined) fma.restore(device.name, 'underlay_gone');
      else fma.degrade(device.name, 'underlay_gone', `${fault}; resumes by itself when it is back`);
    }
    this.#followMtus(0);
  }

  /** The namespace of its link has gone, or come back as another one, in which the link is made anew. */
  async #followNamespace(entry: Entry): Promise<void> {
    const { device } = entry;
    if (!this.#isThere(entry) || device.isLinkGone) return;
    if (!device.isAway && this.context.ports.isNamespaceThere(device.port)) return;
    if (!device.isAway) await this.#leaveNamespace(entry);
    await this.#comeBack(entry);
  }

  async #leaveNamespace(entry: Entry): Promise<void> {
    const { device } = entry;
    const { engine, events, fma } = this.context;
    device.isAway = true;
    device.isUp = false;
    await this.#stop(entry);
    engine.detachPort(device.row);
    await engine.quiesce();
    device.port.keep(false);
    await device.port.release();
    const text = `network namespace '${device.netns}' is gone; the link is made anew when it is back`;
    events.emit('namespace-gone', { device: device.name, text });
    fma.degrade(device.name, 'netns_gone', text);
  }

  async #comeBack({ device }: Entry): Promise<void> {
    const { engine, events, ports, fma } = this.context;
    const { name, mtu, netns, mac, encap, vnetid, isActivated, isKept } = device;
    const alias = aliasOf(name, encap.name, vnetid);
    const queues = engine.lanes;
    let port: Port;
    try {
      port = ports.reopen({ name, queues, mtu, alias, netns, mac: mac === '' ? undefined : mac, fds: [] });
    } catch (error) {
      // Not there yet.
      if (error instanceof OverlayError && error.errno === 'ENOENT') return;
      if (!(error instanceof OverlayError)) throw error;
      fma.degrade(
        name,
        'netns_gone',
        `the link cannot be made in network namespace '${netns}': ${error.message}`,
      );
      return;
    }
    device.port = port;
    device.isAway = false;
    port.keep(isKept);
    this.context.offloads.offer(device);
    if (isActivated) port.setCarrier(true);
    engine.attachPort(device.row, port.fds);
    events.emit('namespace-back', { device: name, text: 'the link was made anew' });
    fma.restore(name, 'netns_gone');
  }
}

/** The port with something done to it; released when that throws. */
function prepared(port: Port, work: (port: Port) => void): Port {
  try {
    work(port);
    return port;
  } catch (error) {
    void port.release();
    throw error;
  }
}

/** Throws ENODEV for a device whose link is not there to be changed: its descriptors may be another's by now. */
export function refuseAway({ name, netns, isAway }: Device): void {
  if (!isAway) return;
  throw new OverlayError(
    'ENODEV',
    'netns_gone',
    `network namespace '${netns}', which the link of ${name} was in, is gone: make it again, then try again`,
  );
}

function linkGoneText({ name }: Device): string {
  return `the link ${name} was deleted or moved away; delete and create the overlay`;
}
