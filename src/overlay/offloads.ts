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
  type FallibleOffload,
  type OffloadName,
  type OffloadSetting,
  type OffloadState,
  type OffloadTable,
  offloadState,
  refuseOffload,
  type SocketOffloads,
} from '../offload.js';
import { after } from '../sys/clock.js';

/** All that is ours of a device's bits. */
const FLAGS = DEVICE_FLAG_UDP_SEGMENT | DEVICE_FLAG_COALESCE | DEVICE_FLAG_COALESCE_UDP;

/** What the kernel has refused, and what becomes of the frames. */
const refusals: Readonly<Record<FallibleOffload, string>> = {
  udp_segment: 'the kernel would not cut a message; datagrams go one by one',
  gro: 'the link would not take a super-frame, which is dropped; frames go one by one',
};

/** An offload that has failed. */
interface Fall {
  /** How often it was tried again. */
  readonly retries: number;
  /** While it is down: stops waiting for the next try. */
  readonly cancel?: () => void;
  readonly text?: string;
}

export class Offloads {
  readonly #falls = new Map<Device, Map<OffloadName, Fall>>();

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
    const isLinks = name === 'checksum' || name === 'tso' || name === 'uso';
    device.offloads[name] = setting;
    if (isLinks) this.offer(device);
    try {
      refuseOffload(name, setting, this.#state(device, name));
    } catch (error) {
      device.offloads[name] = before;
      if (isLinks) this.offer(device);
      throw error;
    }
    this.#excuse(device, name);
    this.apply(device);
  }

  /** Puts the settings of a started device in force on its way through the data path. */
  apply(device: Device): void {
    const { attachment, row, name } = device;
    if (!attachment) return;
    this.engine.tables.setDeviceFlags(row, FLAGS, this.flags(device));
    this.muxes.joinDatagrams(attachment.mux, name, this.#state(device, 'udp_gro') === 'used');
  }

  /** The kernel has refused what the offload needs: it is not used for a while. */
  stepDown(device: Device, name: FallibleOffload, errno: string): void {
    // Nothing is lost by going on.
    if (name === 'udp_segment' && device.offloads.udp_segment === 'on') return;
    if (this.#isDown(device, name)) return;
    const falls = this.#falls.get(device) ?? new Map<OffloadName, Fall>();
    const retries = (falls.get(name)?.retries ?? -1) + 1;
    const pauseMs = Math.min(this.retryMs * 2 ** retries, OFFLOAD_RETRY_MS_MAX);
    const text = `${name}: ${refusals[name]} (${errno}); it is tried again in ${pauseMs / 1000} s`;
    const cancel = after(pauseMs, () => this.#rise(device, name));
    this.#falls.set(device, falls.set(name, { retries, cancel, text }));
    this.#tell(device);
  }

  /** The device goes. */
  forget(device: Device): void {
    for (const { cancel } of this.#falls.get(device)?.values() ?? []) cancel?.();
    this.#falls.delete(device);
  }

  /** It is used again, until the next refusal. */
  #rise(device: Device, name: OffloadName): void {
    const falls = this.#falls.get(device);
    const fall = falls?.get(name);
    if (fall) falls!.set(name, { retries: fall.retries });
    this.#tell(device);
  }

  /** By an operator's word: what has failed before counts no more. */
  #excuse(device: Device, name: OffloadName): void {
    const falls = this.#falls.get(device);
    falls?.get(name)?.cancel?.();
    if (falls?.delete(name)) this.#tell(device);
  }

  /** Puts into force, and says, which are down. */
  #tell(device: Device): void {
    this.apply(device);
    const texts = [...(this.#falls.get(device)?.values() ?? [])].flatMap(({ text }) => text ?? []);
    if (texts.length === 0) this.fma.restore(device.name, 'offload_down');
    else this.fma.degrade(device.name, 'offload_down', texts.join('; '));
  }

  #isDown(device: Device, name: OffloadName): boolean {
    return this.#falls.get(device)?.get(name)?.cancel !== undefined;
  }

  #state(device: Device, name: OffloadName): OffloadState {
    return offloadState(device.offloads[name], this.#has(device, name), this.#isDown(device, name));
  }

  #has({ port, encap, properties }: Device, name: OffloadName): boolean {
    if (name === 'gro') return port.takes !== 'none';
    if (name === 'udp_segment' || name === 'udp_gro') {
      // The kernel cuts nothing that is to have no checksum.
      const isCut = name === 'udp_gro' || !encap.operations.sockets?.(properties).zerocsum6Tx;
      return encap.transport !== 'gre' && isCut && this.sockets[name];
    }
    return port.offloads[name];
  }
}
