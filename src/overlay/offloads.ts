/**
 * The offloads of devices in force: what their properties ask for, as far as the kernel has it. One that fails while it is used
 * steps down and is tried again; meanwhile the device says so (`offload_down`), and nothing is lost but speed.
 */
import {
  DEVICE_FLAG_COALESCE,
  DEVICE_FLAG_COALESCE_UDP,
  DEVICE_FLAG_UDP_SEGMENT,
} from '../../assembly/layout.js';
import type { Engine } from '../datapath/engine.js';
import type { Device } from '../device.js';
import type { Fma } from '../fma.js';
import { OFFLOAD_RETRY_MS_MAX } from '../limits.js';
import type { Muxes } from '../mux.js';
import {
  eachOffload,
  type OffloadName,
  type OffloadSetting,
  type OffloadState,
  type OffloadTable,
  offloadState,
  refuseOffload,
  type SocketOffloads,
} from '../offload.js';
import { after } from '../sys/clock.js';
import type { Port } from '../sys/port.js';

/** All that is ours of a device's bits. */
const FLAGS = DEVICE_FLAG_UDP_SEGMENT | DEVICE_FLAG_COALESCE | DEVICE_FLAG_COALESCE_UDP;

export class Offloads {
  /** Devices whose messages the kernel would not cut, with how to stop waiting for the next try. */
  readonly #down = new Map<Device, { readonly cancel: () => void; readonly retries: number }>();

  constructor(
    readonly engine: Engine,
    readonly muxes: Muxes,
    readonly fma: Fma,
    /** What the sockets of this kernel have. */
    readonly sockets: SocketOffloads,
    /** Milliseconds to the first try after a failure. */
    readonly retryMs: number,
  ) {}

  /** What each of a device's offloads has come to. */
  states(device: Device): OffloadTable<OffloadState> {
    return eachOffload((name) => this.#state(device, name));
  }

  /** Puts the settings of a device in force at its link; call whenever it has another one. */
  offer({ port, offloads }: Device): void {
    const isOn = (name: OffloadName) => offloads[name] !== 'off';
    const checksum = isOn('checksum');
    port.offer({ checksum, tso: checksum && isOn('tso'), uso: checksum && isOn('uso') });
  }

  /** Of a device that is started: the bits of its row. */
  flags(device: Device): number {
    const isUsed = (name: OffloadName) => this.#state(device, name) === 'used';
    const segment = isUsed('udp_segment') ? DEVICE_FLAG_UDP_SEGMENT : 0;
    if (!isUsed('gro')) return segment;
    const udp = device.port.takes === 'tcp and udp' ? DEVICE_FLAG_COALESCE_UDP : 0;
    return segment | DEVICE_FLAG_COALESCE | udp;
  }

  /** One setting becomes another, at once. Throws ENOTSUP, and leaves the old one, for `on` where the kernel refuses it. */
  set(device: Device, name: OffloadName, setting: OffloadSetting): void {
    const before = device.offloads[name];
    device.offloads[name] = setting;
    this.offer(device);
    try {
      refuseOffload(name, setting, this.#state(device, name));
    } catch (error) {
      device.offloads[name] = before;
      this.offer(device);
      throw error;
    }
    if (name === 'udp_segment') this.#up(device);
    this.apply(device);
  }

  /** Puts the settings of a started device in force on its way through the data path. */
  apply(device: Device): void {
    const { attachment, row, name } = device;
    if (!attachment) return;
    this.engine.tables.setDeviceFlags(row, FLAGS, this.flags(device));
    this.muxes.joinDatagrams(attachment.mux, name, this.#state(device, 'udp_gro') === 'used');
  }

  /** The kernel has refused to cut a message of the device. Its datagrams have gone one by one, and do so for a while. */
  stepDown(device: Device, errno: string): void {
    const before = this.#down.get(device);
    if (device.offloads.udp_segment !== 'auto' || device.isSteppedDown) return;
    const retries = before ? before.retries + 1 : 0;
    const pauseMs = Math.min(this.retryMs * 2 ** retries, OFFLOAD_RETRY_MS_MAX);
    const text = `udp_segment: the kernel would not cut a message (${errno}); datagrams go one by one, it is tried again in ${pauseMs / 1000} s`;
    device.isSteppedDown = true;
    this.#down.set(device, { retries, cancel: after(pauseMs, () => this.#tryAgain(device)) });
    this.apply(device);
    this.fma.degrade(device.name, 'offload_down', text);
  }

  /** The device goes. */
  forget(device: Device): void {
    this.#down.get(device)?.cancel();
    this.#down.delete(device);
  }

  #tryAgain(device: Device): void {
    device.isSteppedDown = false;
    this.apply(device);
    this.fma.restore(device.name, 'offload_down');
  }

  /** By an operator's word: what has failed before counts no more. */
  #up(device: Device): void {
    this.forget(device);
    device.isSteppedDown = false;
    this.fma.restore(device.name, 'offload_down');
  }

  #state(device: Device, name: OffloadName): OffloadState {
    return offloadState(
      device.offloads[name],
      this.#has(device.port, name),
      name === 'udp_segment' && device.isSteppedDown,
    );
  }

  #has(port: Port, name: OffloadName): boolean {
    if (name === 'gro') return port.takes !== 'none';
    if (name === 'udp_segment' || name === 'udp_gro') return this.sockets[name];
    return port.offloads[name];
  }
}
