/**
 * SETPROP: how one property of a device changes. Before activation a value is only stored. Afterwards its declaration says
 * how it comes into force (`Applies`):
 *
 *   live      stored and put into force at once; put back when that is refused
 *   reopen    leave the mux, change, come back; a device that was started and cannot come back keeps the old value
 *   fixed     ENOTSUP
 *
 * A property of the lookup plugin, the vnetid, and a listen_ip of the other family start the plugin's instance anew when they are reopened: nothing that
 * was learned before is valid, so that the target cache is emptied, what is held is dropped, and no frame that was on its
 * way under the old value is sent under the new one.
 */
import * as layout from '../../assembly/layout.js';
import type { Engine } from '../datapath/engine.js';
import type { Device } from '../device.js';
import { OverlayError } from '../errors.js';
import type { Events } from '../events.js';
import { familyOf } from '../ip.js';
import { eachOffload, type OffloadSetting } from '../offload.js';
import { type PropertyInfo, type PropertyValue, parseProperty } from '../property.js';
import { refuseEcho } from '../sys/echo-socket.js';
import { type Attachments, innerFlag } from './attachment.js';
import { refuseAway } from './life.js';
import type { Lookup } from './lookup.js';
import { automaticMtu, type Mtus } from './mtus.js';
import type { Offloads } from './offloads.js';
import type { Persistence } from './persistence.js';
import type { PortSource } from './ports.js';
import { MTU_AUTO, type Origin, tcpMssOf } from './properties.js';
import { changed } from './record.js';
import type { Targets } from './targets.js';

/** A device with everything that belongs to it. */
export interface Entry {
  readonly device: Device;
  readonly lookup: Lookup;
}

export interface SetpropContext {
  readonly engine: Engine;
  readonly attachments: Attachments;
  readonly targets: Targets;
  readonly offloads: Offloads;
  readonly mtus: Mtus;
  readonly ports: PortSource;
  readonly persistence: Persistence;
  readonly events: Events;
  /** Throws EEXIST when another device of the encapsulation has it. */
  refuseVnetid(encap: string, vnetid: bigint): void;
  /** What the link says of itself in the kernel. */
  aliasOf(device: Device, vnetid: bigint): string;
  /** Starts it, or degrades it and tries again later. */
  startIfUp(entry: Entry): Promise<void>;
}

/** A property of a device, as `findProperty` gives it. */
export interface Found {
  readonly origin: Origin;
  readonly info: PropertyInfo;
}

export class Setprop {
  constructor(readonly context: SetpropContext) {}

  /** Throws ENOTSUP for a fixed one of an activated device, EPERM for what cannot be written, EINVAL, EEXIST. */
  async set(entry: Entry, found: Found, value: unknown): Promise<void> {
    const { device } = entry;
    const { info } = found;
    const applies = info.applies ?? 'fixed';
    if (device.isActivated && applies === 'fixed') {
      throw new OverlayError(
        'ENOTSUP',
        'already_active',
        `${info.name} cannot be set on an activated device; delete and create it again`,
      );
    }
    if (!info.isWritable) throw new OverlayError('EPERM', 'property_read_only', `${info.name} cannot be set`);
    refuseAway(device);
    const parsed = parseProperty(info, value);
    this.#check(device, info, parsed);
    // A reopen waits for workers. One that does not respond refuses the change here, before anything has changed.
    if (device.isActivated && applies === 'reopen') await this.context.engine.quiesce();
    const { persistence } = this.context;
    const keepAgain = info.name === 'netns' ? persistence.loosen(entry) : () => {};
    try {
      const takeBack = persistence.announce(entry, (record) => changed(record, found, parsed));
      try {
        if (!device.isActivated) this.#store(entry, found, parsed);
        else if (applies === 'reopen') await this.#reopen(entry, found, parsed);
        else this.#apply(entry, found, parsed);
      } catch (error) {
        takeBack();
        throw error;
      }
    } finally {
      keepAgain();
    }
    // Before activation it is part of making the device.
    if (!device.isActivated) return;
    // Nearly each may have to do with it: addresses, headers, namespaces, bounds.
    this.context.mtus.follow([entry]);
    this.context.events.emit('property-changed', { device: device.name, text: info.name });
  }

  /** Of an activated device, at once. */
  #apply(entry: Entry, found: Found, value: PropertyValue): void {
    const before = this.#values(entry);
    this.#store(entry, found, value);
    try {
      if (entry.device.isStarted && found.origin === 'encap') {
        entry.lookup.applySources();
        const { row } = entry.device;
        const { tables } = this.context.engine;
        tables.setDeviceFlags(row, layout.DEVICE_FLAG_INNER_TO_MUX, innerFlag(entry.device));
      }
    } catch (error) {
      this.#putBack(entry, before);
      throw error;
    }
  }

  /** What a value's own declaration cannot know. */
  #check(device: Device, { name }: PropertyInfo, value: PropertyValue): void {
    if (name === 'vnetid' && value !== device.vnetid) {
      this.context.refuseVnetid(device.encap.name, value as bigint);
    }
    if (name === 'mtu_max' && Number(value) < device.mtu) {
      throw new OverlayError(
        'EBUSY',
        'mtu_above',
        `mtu_max cannot be ${value}: the MTU is ${device.mtu}; lower that first`,
      );
    }
  }

  #store(entry: Entry, { origin, info: { name } }: Found, value: PropertyValue): void {
    const { device, lookup } = entry;
    if (origin === 'encap') device.encap.operations.setprop(device.properties, name, textOf(value));
    else if (origin === 'lookup') lookup.instance.lookup.properties.set(name, textOf(value));
    else this.#generic[name]!(entry, value);
  }

  /** How each of the generic properties that can be written is stored, and put into force where it is live. */
  readonly #generic: Readonly<Record<string, (entry: Entry, value: PropertyValue) => void>> = {
    mtu: ({ device }, value) => {
      const isMtuAuto = value === MTU_AUTO;
      this.context.mtus.set(device, isMtuAuto ? automaticMtu(device) : Number(value));
      device.isMtuAuto = isMtuAuto;
    },
    tcp_mss: ({ device }, value) => {
      device.tcpMss = tcpMssOf(value);
      this.context.mtus.apply(device);
    },
    path_mtu_probe: ({ device }, value) => {
      if (value === 'on') refuseEcho();
      device.probesPaths = value === 'on';
    },
    mtu_max: ({ device }, value) => {
      device.mtuMax = Number(value);
    },
    vnetid: ({ device }, value) => {
      // Another device may have taken it while this one stopped.
      if (value !== device.vnetid) this.context.refuseVnetid(device.encap.name, value as bigint);
      device.port.setAlias(this.context.aliasOf(device, value as bigint));
      device.vnetid = value as bigint;
    },
    netns: ({ device }, value) => {
      this.context.ports.move(device.port, String(value));
      device.netns = String(value);
      // The kernel takes a link down that it moves.
      device.isUp = this.context.ports.isUp(device.port);
    },
    underlay_netns: ({ device }, value) => {
      device.underlayNetns = String(value);
    },
    targets: ({ device, lookup }, value) => {
      lookup.dynamic?.limitTargets(Number(value));
      device.targetsMax = Number(value);
    },
    negative_ttl: ({ device, lookup }, value) => {
      device.negativeTtl = Number(value);
      lookup.dynamic?.cache.rememberUnknown(device.negativeTtl * 1000);
    },
    ...eachOffload((name) => ({ device }: Entry, value: PropertyValue) => {
      this.context.offloads.set(device, name, value as OffloadSetting);
    }),
  };

  async #reopen(entry: Entry, found: Found, value: PropertyValue): Promise<void> {
    const before = this.#values(entry);
    const { device, lookup } = entry;
    const { attachments } = this.context;
    const wasStarted = device.isStarted;
    const isRenewed =
      found.info.name === 'vnetid' || found.origin === 'lookup' || isOtherFamily(device, found, value);
    // Another address may need the port that this one has.
    const isElsewhere = found.origin === 'encap' || found.info.name === 'underlay_netns';
    const mux = isElsewhere ? undefined : await attachments.keepMux(device);
    try {
      await attachments.stop(device);
      try {
        this.#store(entry, found, value);
        if (isRenewed) await this.#renew(entry);
        else if (isElsewhere) await lookup.rehold();
        if (wasStarted) {
          lookup.applySources();
          await attachments.start(device, lookup.route());
        }
      } catch (error) {
        if (!(error instanceof OverlayError)) throw error;
        this.#putBack(entry, before);
        if (isRenewed) await this.#renewOld(entry);
        else if (isElsewhere) await this.#reholdOld(entry);
        await this.context.startIfUp(entry);
        throw new OverlayError(error.errno, error.code, `${error.message}; ${found.info.name} is as it was`);
      }
    } finally {
      if (mux) await attachments.releaseMux(mux);
    }
    if (!wasStarted) await this.context.startIfUp(entry);
  }

  /** The instance is started anew, and nothing of before is left: no target, no held frame, none on a ring. */
  async #renew({ device, lookup }: Entry): Promise<void> {
    const { dynamic } = lookup;
    lookup.pause();
    if (dynamic) {
      this.context.targets.remove(device.row);
      dynamic.cache.reset();
      try {
        await this.context.targets.purge(device.row);
      } catch (error) {
        // Nothing was started anew: the instance that was there goes on.
        lookup.goOn();
        throw error;
      } finally {
        this.context.targets.add(device.row, dynamic);
      }
    }
    await lookup.renew();
  }

  async #reholdOld({ lookup }: Entry): Promise<void> {
    lookup.vteps.follow();
    await lookup.dynamic?.rehold();
  }

  /** The same with the values of before. Should they not work any more, the start that follows says so and tries again. */
  async #renewOld(entry: Entry): Promise<void> {
    try {
      await this.#renew(entry);
    } catch (error) {
      if (!(error instanceof OverlayError)) throw error;
    }
  }

  #values({ device, lookup }: Entry): Values {
    return {
      vnetid: device.vnetid,
      underlayNetns: device.underlayNetns,
      encap: device.properties.given,
      lookup: lookup.instance.lookup.properties.given,
    };
  }

  #putBack({ device, lookup }: Entry, { vnetid, underlayNetns, encap, lookup: values }: Values): void {
    device.underlayNetns = underlayNetns;
    if (device.vnetid !== vnetid) {
      device.vnetid = vnetid;
      try {
        device.port.setAlias(this.context.aliasOf(device, vnetid));
      } catch (error) {
        // The link went meanwhile: that is said elsewhere, and what was refused is to be said here.
        if (!(error instanceof OverlayError)) throw error;
      }
    }
    device.properties.reset(encap);
    lookup.instance.lookup.properties.reset(values);
  }
}

/** What a reopen may have to put back. */
interface Values {
  readonly vnetid: bigint;
  readonly underlayNetns: string;
  readonly encap: ReadonlyMap<string, PropertyValue>;
  readonly lookup: ReadonlyMap<string, PropertyValue>;
}

/** The value is an address of the other family than the one before: the lookup judges its VTEPs anew. */
function isOtherFamily({ encap, properties }: Device, { info }: Found, value: PropertyValue): boolean {
  if (info.name !== `${encap.name}/listen_ip`) return false;
  const before = properties.get(info.name);
  return before !== undefined && familyOf(String(before)) !== familyOf(String(value));
}

/** A plugin's own store reads text. */
function textOf(value: PropertyValue): string {
  return String(value);
}
