/**
 * What devices make of the underlay: its addresses and interfaces come and go, its routes change, and its namespace may lose its
 * name.
 */
import type { Events } from '../events.js';
import type { Fma } from '../fma.js';
import type { Mux } from '../mux.js';
import type { Attachments } from './attachment.js';
import type { Devices } from './devices.js';
import type { Mtus } from './mtus.js';
import type { PortSource } from './ports.js';
import type { Entry } from './setprop.js';
import type { Starts } from './starts.js';

export interface UnderlaysContext {
  readonly devices: Devices;
  readonly starts: Starts;
  readonly attachments: Attachments;
  readonly mtus: Mtus;
  readonly ports: PortSource;
  readonly fma: Fma;
  readonly events: Events;
}

export class Underlays {
  constructor(readonly context: UnderlaysContext) {}

  /** Addresses or interfaces have changed: devices may be without the address of their mux, or have it again. */
  follow(): void {
    const { attachments, fma, ports } = this.context;
    attachments.muxes.followAddresses(true);
    const faults = new Map<Mux, string | undefined>();
    for (const { device } of this.context.devices.entries.values()) {
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
    this.context.mtus.followAll(0);
  }

  /** The namespace of its underlay has lost its name, so that nobody reaches its sockets there any more. */
  async leave(entry: Entry): Promise<void> {
    const { device } = entry;
    const { attachments, devices, events, starts } = this.context;
    const mux = device.attachment?.mux;
    if (!devices.isThere(entry) || !mux || mux.namespace.isThere) return;
    const text = `network namespace '${mux.netns}' of the underlay is gone`;
    events.emit('namespace-gone', { device: device.name, text });
    await attachments.stop(device);
    await starts.startIfUp(entry);
    if (device.isStarted) {
      events.emit('namespace-back', {
        device: device.name,
        text: 'the underlay is in the new one of that name',
      });
    }
  }
}
