/**
 * A device's life: how it comes about, is activated, and comes back after a restart of the daemon. How it starts and stops is in
 * `starts.ts`, how it follows its link in `links.ts` and the underlay in `underlays.ts`, how it goes away in `deletion.ts`.
 * Everything in all of these runs in the device's perimeter. The states are in `src/device.ts`.
 */
import * as layout from '../../assembly/layout.js';
import type { Engine } from '../datapath/engine.js';
import { checkDeviceName, Device } from '../device.js';
import { checkEncapName } from '../encap/plugin.js';
import type { EncapRegistry } from '../encap/registry.js';
import { OverlayError } from '../errors.js';
import type { Events } from '../events.js';
import type { Fma } from '../fma.js';
import { MTU_DEFAULT_BYTES, RESUME_LATE_MS } from '../limits.js';
import type { Log } from '../log.js';
import { parseProperty } from '../property.js';
import type { DeviceRecord } from '../state/record.js';
import { after } from '../sys/clock.js';
import type { Port } from '../sys/port.js';
import type { Varpd, VarpdInstance } from '../varpd/varpd.js';
import type { Attachments } from './attachment.js';
import { Deletion } from './deletion.js';
import type { Devices } from './devices.js';
import { Links, linkGoneText } from './links.js';
import { Lookup } from './lookup.js';
import type { Mtus } from './mtus.js';
import type { Offloads } from './offloads.js';
import type { Perimeters } from './perimeter.js';
import type { Persistence } from './persistence.js';
import { PortEvents } from './port-events.js';
import { type PortSource, prepared } from './ports.js';
import { vnetidInfo } from './properties.js';
import { applyRecord, associationOf } from './record.js';
import type { Entry } from './setprop.js';
import { Starts } from './starts.js';
import { aliasOf } from './tap-alias.js';
import type { Targets } from './targets.js';
import type { Traps } from './traps.js';

export interface LifeContext {
  readonly devices: Devices;
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
  readonly perimeters: Perimeters;
  readonly persistence: Persistence;
  readonly events: Events;
}

export class Life {
  readonly starts: Starts;
  readonly deletion: Deletion;
  readonly portEvents: PortEvents;
  readonly #links: Links;

  constructor(readonly context: LifeContext) {
    this.starts = new Starts(context);
    this.deletion = new Deletion(context);
    const { starts } = this;
    this.#links = new Links({ ...context, starts });
    this.portEvents = new PortEvents({ ...context, starts }, this.#links);
  }

  /** A new device in state created. */
  create(name: string, encapName: string, search: string, vnetidText: unknown): Entry {
    checkDeviceName(name);
    return this.#make(name, encapName, search, undefined, vnetidText, (device) => {
      const { encap, vnetid, mtu } = device;
      const alias = aliasOf(name, encap.name, vnetid);
      const { devices, engine, ports } = this.context;
      const queues = engine.lanes;
      const left = devices.missing.get(name);
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
      this.#links.followMtu(entry, ports.mtu(device.port), device.isMtuAuto);
      lookup.prepare();
      // With what is known already: one VTEP, or nothing yet but those who ask.
      if (lookup.isRouted) await this.starts.start(entry);
    } catch (error) {
      await this.deletion.remove(entry);
      throw error;
    }
  }

  /**
   * The rest of a restore, beside everything else: the targets that the device knew come back, and its lookup plugin is started.
   * Until then it serves what it knew.
   */
  async resume(entry: Entry): Promise<void> {
    const { device } = entry;
    const { devices, fma, perimeters, persistence } = this.context;
    if (!device.isActivated) return;
    const late = after(RESUME_LATE_MS, () => {
      // It may be on its way out.
      if (!devices.isThere(entry)) return;
      fma.degrade(
        device.name,
        'lookup_stale',
        'its lookup plugin has not started since the restart; it is waited for',
      );
    });
    // Read first, where that is a matter of a moment.
    const targets = persistence.loadTargets(entry);
    try {
      await perimeters.run(device.name, () => this.starts.retry(entry));
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
    const { devices, encaps, varpd } = this.context;
    checkEncapName(encapName);
    const encap = encaps.hold(encapName);
    const undo: (() => void)[] = [() => encaps.release(encap)];
    try {
      const properties = encap.operations.init();
      undo.push(() => encap.operations.fini(properties));
      const vnetid = parseProperty(vnetidInfo({ encap }), vnetidText) as bigint;
      if (devices.entries.has(name)) {
        throw new OverlayError('EEXIST', 'device_exists', `overlay '${name}' exists already`);
      }
      devices.refuseVnetid(encap.name, vnetid);
      const instance = varpd.create(search, encap.destinations, id);
      undo.push(() => varpd.forget(instance));
      const row = this.context.engine.tables.devices.take();
      const { engine } = this.context;
      let opened: Port | undefined;
      undo.push(() => {
        const free = () => engine.tables.devices.free(row);
        // Some workers may have the port already, and read from it.
        if (opened) void engine.retire(`the link of ${name}`, { link: () => opened?.release(), row: free });
        else free();
      });
      const device = new Device(name, encap, properties, row, vnetid, MTU_DEFAULT_BYTES);
      opened = openPort(device, instance);
      this.#attach(device, opened, undo);
      const entry = { device, lookup: new Lookup(device, instance, this.context) };
      devices.entries.set(name, entry);
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
    await this.starts.startIfUp(entry);
  }

  /** It was made anew for good, in place of one that had not come back. */
  settle(name: string, isTemporary: boolean): void {
    const { devices, persistence } = this.context;
    if (!devices.missing.has(name)) return;
    // Should that fail it is missing still, and can be deleted.
    if (isTemporary) persistence.forgetRecord(name);
    devices.missing.delete(name);
    devices.onFound(name);
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
