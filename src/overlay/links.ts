/**
 * What a device makes of its link: an operator takes that up and down, renames it, gives it an MTU or an address, deletes it, or
 * takes its whole namespace away. Everything here runs in the device's perimeter.
 */
import type { Engine } from '../datapath/engine.js';
import type { Device } from '../device.js';
import { OverlayError } from '../errors.js';
import type { Events } from '../events.js';
import type { Fma } from '../fma.js';
import type { Log } from '../log.js';
import { parseProperty } from '../property.js';
import type { Port } from '../sys/port.js';
import type { Devices } from './devices.js';
import type { Mtus } from './mtus.js';
import type { Offloads } from './offloads.js';
import type { Persistence } from './persistence.js';
import { type PortEvent, type PortSource, prepared } from './ports.js';
import { mtuInfo } from './properties.js';
import type { Entry } from './setprop.js';
import type { Starts } from './starts.js';
import { aliasOf } from './tap-alias.js';

export interface LinksContext {
  readonly devices: Devices;
  readonly starts: Starts;
  readonly engine: Engine;
  readonly fma: Fma;
  readonly log: Log;
  readonly ports: PortSource;
  readonly offloads: Offloads;
  readonly mtus: Mtus;
  readonly persistence: Persistence;
  readonly events: Events;
}

/** Why a device whose link is gone cannot do what is asked. */
export function linkGoneText({ name }: Device): string {
  return `the link ${name} was deleted or moved away; delete and create the overlay`;
}

export class Links {
  constructor(readonly context: LinksContext) {}

  /** The link has changed, or left its namespace. */
  async follow(entry: Entry, event: PortEvent & { kind: 'link' }): Promise<void> {
    const { device } = entry;
    const { devices, engine, events, fma, log, persistence, starts } = this.context;
    // It may have been deleted before this one's turn.
    if (!devices.isThere(entry) || device.isLinkGone || device.isAway) return;
    if (event.isDeleted) {
      device.isLinkGone = true;
      device.isUp = false;
      engine.detachPort(device.row);
      await starts.stop(entry);
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
    if (this.followMtu(entry, event.mtu)) persistence.saveAside(entry);
    if (event.isUp === device.isUp) return;
    device.isUp = event.isUp;
    if (event.isUp) await starts.startIfUp(entry);
    else await starts.stop(entry);
  }

  /**
   * The link's MTU is the property's, both ways; one we cannot have is put back. True when the property has changed.
   * @param isAuto it is not somebody's wish, but what was worked out before a restart
   */
  followMtu(entry: Entry, told: number, isAuto = false): boolean {
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

  /** The namespace of its link has gone, or come back as another one, in which the link is made anew. */
  async followNamespace(entry: Entry): Promise<void> {
    const { device } = entry;
    if (!this.context.devices.isThere(entry) || device.isLinkGone) return;
    if (!device.isAway && this.context.ports.isNamespaceThere(device.port)) return;
    if (!device.isAway) await this.#leaveNamespace(entry);
    await this.#comeBack(entry);
  }

  async #leaveNamespace(entry: Entry): Promise<void> {
    const { device } = entry;
    const { engine, events, fma } = this.context;
    device.isAway = true;
    device.isUp = false;
    await this.context.starts.stop(entry);
    engine.detachPort(device.row);
    const text = `network namespace '${device.netns}' is gone; the link is made anew when it is back`;
    events.emit('namespace-gone', { device: device.name, text });
    fma.degrade(device.name, 'netns_gone', text);
    const { port } = device;
    await engine.retire(`the link of ${device.name} in '${device.netns}'`, {
      link: () => {
        port.keep(false);
        return port.release();
      },
    });
  }

  async #comeBack({ device }: Entry): Promise<void> {
    const { engine, events, ports, fma } = this.context;
    const { name, mtu, netns, mac, encap, vnetid, isActivated, isKept } = device;
    const alias = aliasOf(name, encap.name, vnetid);
    const queues = engine.lanes;
    let port: Port;
    try {
      const asked = { name, queues, mtu, alias, netns, mac: mac === '' ? undefined : mac, fds: [] };
      port = prepared(ports.reopen(asked), (made) => {
        made.keep(isKept);
        if (isActivated) made.setCarrier(true);
      });
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
    this.context.offloads.offer(device);
    engine.attachPort(device.row, port.fds);
    events.emit('namespace-back', { device: name, text: 'the link was made anew' });
    fma.restore(name, 'netns_gone');
  }
}
