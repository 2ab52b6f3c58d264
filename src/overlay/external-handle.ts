/**
 * The external handle, from the devices' side: its holder takes devices on and answers for them, until it lets go of one or the
 * handle is closed. What is known goes on then.
 */
import { OverlayError } from '../errors.js';
import type { Events } from '../events.js';
import type { Fma } from '../fma.js';
import { checkDestination } from '../target/destination.js';
import type { Devices } from './devices.js';
import type { Life } from './life.js';
import type { Association } from './lookup.js';
import type { Persistence } from './persistence.js';
import type { Entry } from './setprop.js';

export interface ExternalHandleContext {
  readonly devices: Devices;
  readonly life: Life;
  readonly persistence: Persistence;
  readonly fma: Fma;
  readonly events: Events;
}

export class ExternalHandle {
  constructor(readonly context: ExternalHandleContext) {}

  /** ASSOCIATE, in the device's perimeter. */
  async associate(entry: Entry, to: Association): Promise<void> {
    const { life, persistence, events, fma } = this.context;
    const { device, lookup } = entry;
    refuseInternal(entry);
    const association: Association =
      to.mode === 'dynamic'
        ? { mode: 'dynamic' }
        : { mode: 'point', destination: checkDestination(to.destination, device.encap.destinations) };
    const before = lookup.association;
    // Another holder takes over what the last one left.
    if (before && !(this.#isAdrift(device.name) && before.mode === association.mode)) {
      throw new OverlayError('EEXIST', 'associated', `${device.name} is associated already`);
    }
    lookup.association = association;
    try {
      if (!before && !device.isActivated) await life.activate(entry);
      persistence.saveAside(entry);
      events.emit('associated', { device: device.name, text: `as ${to.mode}` });
    } catch (error) {
      if (!before) lookup.association = undefined;
      throw error;
    }
    fma.restore(device.name, 'varpd');
  }

  /** DISASSOCIATE, in the device's perimeter. */
  disassociate(entry: Entry): void {
    const { events, fma } = this.context;
    const { name } = entry.device;
    refuseInternal(entry);
    if (!entry.lookup.association) {
      throw new OverlayError('ENXIO', 'not_associated', `${name} is not associated`);
    }
    events.emit('disassociated', { device: name, text: 'what is known is forwarded' });
    fma.degrade(name, 'varpd', 'nobody answers lookups: it was disassociated');
  }

  /** The handle was opened for writing, or closed. */
  onWriter(isOpen: boolean): void {
    const { devices, fma } = this.context;
    if (isOpen) return;
    for (const { device, lookup } of devices.entries.values()) {
      if (!lookup.isExternal || !lookup.association) continue;
      fma.restore(device.name, 'plugin');
      fma.degrade(device.name, 'varpd', 'nobody answers lookups: the external handle was closed');
    }
  }

  /** Nobody answers for it. */
  #isAdrift(name: string): boolean {
    return this.context.fma.status(name).faults.some(({ code }) => code === 'varpd');
  }
}

function refuseInternal({ device, lookup }: Entry): void {
  if (lookup.isExternal) return;
  throw new OverlayError(
    'ENOTSUP',
    'not_external',
    `${device.name} is looked up by ${lookup.instance.plugin.name}, not by the external handle`,
  );
}
