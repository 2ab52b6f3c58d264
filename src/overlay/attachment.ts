/** Start and stop: how an activated device joins and leaves the data path. Mirror pair. */
import * as layout from '../../assembly/layout.js';
import type { Engine } from '../datapath/engine.js';
import type { Device } from '../device.js';
import { ENCAP_FLAG_VLAN_TAG, type EncapPlugin, type OuterHeader, outerDefault } from '../encap/plugin.js';
import { OverlayError } from '../errors.js';
import type { Group, Groups } from '../groups.js';
import { familyOf } from '../ip.js';
import type { Mux, Muxes } from '../mux.js';
import { Serial } from '../serial.js';
import { greDomain } from '../sys/gre-underlay.js';
import { sockaddr } from '../sys/sockaddr.js';
import { type SocketSettings, socketDefault } from '../sys/socket-settings.js';
import { usableDomain } from '../sys/underlay.js';
import type { Destination } from '../target/destination.js';
import { mssOf } from './mss.js';
import type { Offloads } from './offloads.js';

/** Where frames go: to one VTEP, or where the target table at an offset says. */
export type Route = (
  | { readonly point: Destination }
  | { readonly targets: number; readonly isProxied: boolean; readonly isLearning: boolean }
) & {
  /** Multicast groups of the underlay that the device is in. */
  readonly groups: readonly string[];
};

/** Family of the addresses that the sockets of a device take. Throws EINVAL when it has no listen_ip. */
export function underlayDomain({ encap, properties }: Device): number {
  return encap.transport === 'gre' ? greDomain(encap.operations.socket(properties).ip) : usableDomain();
}

/** Socket address of a destination; none for one without an IP address, which the kernel then refuses to send to. */
export function destinationName(domain: number, { ip, port = 0 }: Destination): Uint8Array {
  return ip === undefined ? new Uint8Array(0) : sockaddr(domain, ip, port);
}

/** Throws EINVAL when a socket at one address cannot send to the other. */
export function refuseOtherFamily(encap: EncapPlugin, listen: string, destination: string): void {
  const isEither = listen === '::' && encap.transport !== 'gre';
  if (isEither || familyOf(listen) === familyOf(destination)) return;
  throw new OverlayError(
    'EINVAL',
    'other_family',
    `listen_ip ${listen} is IPv${familyOf(listen)} and the destination ${destination} IPv${familyOf(destination)}: ` +
      'both must be of one family',
  );
}

function outerOf({ encap, properties }: Device): OuterHeader {
  return encap.operations.outer?.(properties) ?? outerDefault;
}

/** TTL of a device's outer headers, undefined where it is what sockets have anyway. */
export function ttlOf(device: Device): number | undefined {
  const { ttl } = outerOf(device);
  return ttl === outerDefault.ttl ? undefined : ttl;
}

/** What the sockets of a device's underlay address are to be like. */
export function socketsOf({ encap, properties }: Device): SocketSettings {
  return encap.operations.sockets?.(properties) ?? socketDefault;
}

/** Flag of a device's row by what becomes of received frames to our own sockets. */
export function innerFlag(device: Device): number {
  return outerOf(device).innerToMux === 'pass' ? layout.DEVICE_FLAG_INNER_TO_MUX : 0;
}

function dscpOf(device: Device): number {
  const { dscp } = outerOf(device);
  return dscp === 'inherit' ? layout.DSCP_INHERIT : dscp;
}

export class Attachments {
  /** Devices share muxes, and a mux that closes is not to be opened meanwhile. */
  readonly #serial = new Serial();

  constructor(
    readonly engine: Engine,
    readonly muxes: Muxes,
    readonly groups: Groups,
    readonly offloads: Offloads,
  ) {}

  /**
   * Joins the mux and opens the device to traffic. Throws EAGAIN before activation, EEXIST when the vnetid is on the
   * mux already, and what opening the mux throws; nothing is half done then.
   */
  start(device: Device, route: Route): Promise<void> {
    return this.#serial.run(() => this.#start(device, route));
  }

  async #start(device: Device, route: Route): Promise<void> {
    if (!device.isActivated)
      throw new OverlayError('EAGAIN', 'not_activated', `${device.name} is not activated`);
    const { encap, row, vnetid, mtu } = device;
    const { tables, destinations } = this.engine;
    const { ip, port } = encap.operations.socket(device.properties);
    const mux = this.muxes.hold(ip, port, encap, device.underlayNetns, socketsOf(device));
    let destination: number | undefined;
    const groups: Group[] = [];
    try {
      for (const group of route.groups) {
        refuseOtherFamily(encap, ip, group);
        groups.push(this.groups.hold(mux, group));
      }
      if ('point' in route && route.point.ip !== undefined) refuseOtherFamily(encap, ip, route.point.ip);
      if (tables.findVnet(mux.row, vnetid) !== undefined) {
        throw new OverlayError('EEXIST', 'vnetid_in_use', `vnetid ${vnetid} is in use on ${ip} port ${port}`);
      }
      if ('point' in route) {
        const name = destinationName(mux.underlay.domain, route.point);
        // The core patches the device's own vnetid into the shared template.
        destination = destinations.hold(
          mux.netns,
          name,
          encap.operations.encap(0n, device.properties, route.point.options),
          ttlOf(device),
        );
      }
      let flags = this.offloads.flags(device);
      if (encap.flags & ENCAP_FLAG_VLAN_TAG) flags |= layout.DEVICE_FLAG_VLAN;
      if (outerOf(device).reserved === 'drop') flags |= layout.DEVICE_FLAG_RESERVED;
      flags |= innerFlag(device);
      if (outerOf(device).ecn === 'clear') flags |= layout.DEVICE_FLAG_ECN_CLEAR;
      if ('isProxied' in route && route.isProxied) flags |= layout.DEVICE_FLAG_PROXY;
      if ('isLearning' in route && route.isLearning) flags |= layout.DEVICE_FLAG_LEARN;
      tables.writeDevice(row, {
        mux: mux.row,
        vnetid,
        encap: encap.core,
        flags,
        mtu,
        dscp: dscpOf(device),
        mss: mssOf(device),
        mode: 'point' in route ? layout.TARGET_MODE_POINT : layout.TARGET_MODE_DYNAMIC,
        destination: destination ?? layout.NONE,
        targets: 'point' in route ? 0 : route.targets,
      });
      for (const each of [mux, ...groups]) tables.insertVnet(each.row, vnetid, row);
      tables.setDeviceState(row, layout.DEVICE_STATE_ACTIVE);
      device.attachment = { mux, destination, groups };
      this.offloads.apply(device);
    } catch (error) {
      if (destination !== undefined) destinations.release(destination);
      for (const group of groups) await this.groups.release(group);
      await this.muxes.release(mux);
      throw error;
    }
  }

  /** Keeps the device's mux open over a stop and a start. Undefined when it is not started. */
  keepMux(device: Device): Promise<Mux | undefined> {
    return this.#serial.run(() => {
      if (!device.attachment) return undefined;
      const { ip, port, encap, netns, settings } = device.attachment.mux;
      return this.muxes.hold(ip, port, encap, netns, settings);
    });
  }

  /** The reverse of `keepMux`. */
  releaseMux(mux: Mux): Promise<void> {
    return this.#serial.run(() => this.muxes.release(mux));
  }

  /** Closes the device to traffic and leaves the mux. What a worker may still be reading is retained. */
  stop(device: Device): Promise<void> {
    return this.#serial.run(() => this.#stop(device));
  }

  async #stop(device: Device): Promise<void> {
    const { attachment, row, vnetid } = device;
    if (!attachment) return;
    const { mux, destination, groups } = attachment;
    device.attachment = undefined;
    this.muxes.joinDatagrams(mux, device.name, true);
    this.engine.tables.setDeviceState(row, layout.DEVICE_STATE_DROP);
    for (const each of [mux, ...groups]) this.engine.tables.removeVnet(each.row, vnetid);
    const { destinations } = this.engine;
    if (destination !== undefined) destinations.release(destination);
    const releases = groups.map((group) => [`group ${group.ip}`, () => this.groups.release(group)] as const);
    await this.engine.retire(`the place of ${device.name} on its underlay`, {
      destinations: destinations.leaving(),
      ...Object.fromEntries(releases),
      underlay: () => this.muxes.release(mux),
    });
  }
}
