/** The devices there are by their names, those that are being deleted, and those that did not come back after a restart. */
import type { Device } from '../device.js';
import { OverlayError } from '../errors.js';
import type { DeviceRecord } from '../state/record.js';
import type { Entry } from './setprop.js';

export class Devices {
  /** In the order in which they came about. */
  readonly entries = new Map<string, Entry>();
  /** Records of what could not be brought back: by their names they are deleted, or made anew. */
  readonly missing = new Map<string, DeviceRecord>();
  /** Called when one of them is deleted, or made anew. */
  onFound: (name: string) => void = () => {};
  /** Deleted, and not all of it gone yet. */
  readonly #leaving = new Set<Device>();

  /** Throws ENOENT. */
  entry(name: string): Entry {
    const entry = this.entries.get(name);
    if (entry) return entry;
    const why = this.missing.has(name)
      ? ': it did not come back after the restart; delete it, or create it anew'
      : '';
    throw new OverlayError('ENOENT', 'no_such_device', `there is no overlay '${name}'${why}`);
  }

  /** It has not been deleted meanwhile. */
  isThere(entry: Entry): boolean {
    return this.entries.get(entry.device.name) === entry;
  }

  /** Throws EEXIST when another device of the encapsulation has the vnetid. */
  refuseVnetid(encap: string, vnetid: bigint): void {
    const there = [...this.entries.values()].map(({ device }) => device);
    const holder = [...there, ...this.#leaving].find(
      (device) => device.encap.name === encap && device.vnetid === vnetid,
    );
    if (!holder) return;
    const when = this.#leaving.has(holder) ? ', which is being deleted: try again in a moment' : '';
    throw new OverlayError(
      'EEXIST',
      'vnetid_in_use',
      `vnetid ${vnetid} is that of overlay '${holder.name}'${when}`,
    );
  }

  /** The device goes; nobody has its vnetid until the work has ended. */
  async leave(device: Device, work: () => Promise<void>): Promise<void> {
    this.#leaving.add(device);
    try {
      await work();
    } finally {
      this.#leaving.delete(device);
    }
  }
}
