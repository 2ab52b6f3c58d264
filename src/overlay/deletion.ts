/** How a device goes away: deleted by an operator, or with the daemon; its rows are free when no worker reads them any more. */
import * as layout from '../../assembly/layout.js';
import type { Engine } from '../datapath/engine.js';
import type { EncapRegistry } from '../encap/registry.js';
import { OverlayError } from '../errors.js';
import type { Events } from '../events.js';
import type { Fma } from '../fma.js';
import type { DeviceRecord } from '../state/record.js';
import type { Varpd } from '../varpd/varpd.js';
import type { Attachments } from './attachment.js';
import type { Devices } from './devices.js';
import type { Offloads } from './offloads.js';
import type { Persistence } from './persistence.js';
import type { PortSource } from './ports.js';
import type { Entry } from './setprop.js';
import type { Targets } from './targets.js';
import type { Traps } from './traps.js';

export interface DeletionContext {
  readonly devices: Devices;
  readonly engine: Engine;
  readonly encaps: EncapRegistry;
  readonly varpd: Varpd;
  readonly fma: Fma;
  readonly ports: PortSource;
  readonly attachments: Attachments;
  readonly targets: Targets;
  readonly traps: Traps;
  readonly offloads: Offloads;
  readonly persistence: Persistence;
  readonly events: Events;
}

export class Deletion {
  constructor(readonly context: DeletionContext) {}

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
    await this.remove(entry);
    events.emit('deleted', { device: device.name, text: 'with its link' });
  }

  /** DELETE of one that did not come back: what is kept of it goes, and its link where that is there. */
  discard(record: DeviceRecord, force: boolean): void {
    const { devices, events, persistence, ports } = this.context;
    const { name } = record;
    const netns = String(record.properties.netns ?? '');
    if (!force && ports.isLeftUp(name, netns)) {
      throw new OverlayError(
        'EBUSY',
        'link_up',
        `${name} is up: take it down (ip link set ${name} down), or delete it with --force`,
      );
    }
    // The link first: killed in between, the next daemon has the record, and can be told again.
    ports.discard(name, netns);
    persistence.forgetRecord(name);
    devices.missing.delete(name);
    devices.onFound(name);
    events.emit('deleted', { device: name, text: 'it had not come back after the restart' });
  }

  /** Takes a device out, whatever state it is in. Its link goes unless it is kept. */
  async remove(entry: Entry): Promise<void> {
    await this.letGo(entry, true);
  }

  /** The same, with the port left as it is where `isReleased` is not set. */
  letGo(entry: Entry, isReleased = false): Promise<void> {
    return this.context.devices.leave(entry.device, () => this.#letGo(entry, isReleased));
  }

  async #letGo({ device, lookup }: Entry, isReleased: boolean): Promise<void> {
    const { devices, engine, encaps, fma, traps, varpd, attachments, targets, offloads } = this.context;
    device.cancelRetry?.();
    devices.entries.delete(device.name);
    fma.forget(device.name);
    traps.forget(device.name);
    offloads.forget(device);
    varpd.external.forget(device.name);
    await lookup.close();
    device.encap.operations.fini(device.properties);
    encaps.release(device.encap);
    await attachments.stop(device);
    lookup.withdraw();
    engine.detachPort(device.row);
    targets.remove(device.row);
    const settled = async () => {
      await engine.quiesce();
      await targets.purge(device.row);
    };
    const steps = {
      destinations: engine.destinations.leaving(),
      targets: () => lookup.free(),
      row: () => {
        engine.tables.setDeviceState(device.row, layout.DEVICE_STATE_FREE);
        engine.tables.devices.free(device.row);
      },
      ...(isReleased ? { link: () => device.port.release() } : {}),
    };
    const isWhole = await engine.retire(`the overlay ${device.name}`, steps, settled);
    // A worker may still hold the descriptors; the name is free all the same.
    const isLinkThere = !device.isLinkGone && !device.isAway;
    if (!isWhole && isReleased && !device.isKept && isLinkThere) device.port.unlink();
  }
}
