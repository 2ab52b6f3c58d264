/** Start and stop: how an activated device joins and leaves the data path. Mirror pair. */
import * as layout from '../../assembly/layout.js';
import { Destinations } from '../datapath/destinations.js';
import type { Engine } from '../datapath/engine.js';
import type { Device } from '../device.js';
import { ENCAP_FLAG_VLAN_TAG } from '../encap/plugin.js';
import { OverlayError } from '../errors.js';
import type { Muxes } from '../mux.js';
import { sockaddr } from '../sys/sockaddr.js';
import type { Point } from '../varpd/plugin.js';

export class Attachments {
  readonly #destinations: Destinations;

  constructor(
    readonly engine: Engine,
    readonly muxes: Muxes,
  ) {
    this.#destinations = new Destinations(engine);
  }

  /**
   * Joins the mux and opens the device to traffic. Throws EAGAIN before activation, EEXIST when the vnetid is on the
   * mux already, and what opening the mux throws; nothing is half done then.
   */
  async start(device: Device, point: Point): Promise<void> {
    if (!device.isActivated)
      throw new OverlayError('EAGAIN', 'not_activated', `${device.name} is not activated`);
    const { encap, row, vnetid, mtu } = device;
    const { tables } = this.engine;
    const { ip, port } = encap.operations.socket(device.properties);
    const mux = this.muxes.hold(ip, port, encap);
    try {
      if (tables.findVnet(mux.row, vnetid) !== undefined) {
        throw new OverlayError('EEXIST', 'vnetid_in_use', `vnetid ${vnetid} is in use on ${ip} port ${port}`);
      }
      const name = sockaddr(mux.underlay.domain, point.ip, point.port);
      // The core patches the device's own vnetid into the shared template.
      const header = encap.operations.encap(0n);
      const destination = this.#destinations.hold(mux.row, name, header);
      const flags = encap.flags & ENCAP_FLAG_VLAN_TAG ? layout.DEVICE_FLAG_VLAN : 0;
      const mode = layout.TARGET_MODE_POINT;
      tables.writeDevice(row, { mux: mux.row, vnetid, encap: encap.core, flags, mtu, mode, destination });
      tables.insertVnet(mux.row, vnetid, row);
      tables.setDeviceState(row, layout.DEVICE_STATE_ACTIVE);
      device.attachment = { mux, destinationName: name, destinationHeader: header };
    } catch (error) {
      await this.muxes.release(mux);
      throw error;
    }
  }

  /** Closes the device to traffic and leaves the mux. EBUSY from the quiesce leaves rows and sockets unfreed. */
  async stop(device: Device): Promise<void> {
    const { attachment, row, vnetid } = device;
    if (!attachment) return;
    const { mux, destinationName, destinationHeader } = attachment;
    device.attachment = undefined;
    this.engine.tables.setDeviceState(row, layout.DEVICE_STATE_DROP);
    this.engine.tables.removeVnet(mux.row, vnetid);
    await this.engine.quiesce();
    this.#destinations.release(mux.row, destinationName, destinationHeader);
    await this.muxes.release(mux);
  }
}
