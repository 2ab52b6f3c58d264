/**
 * Fault state: why a device is degraded, in words. Degrading never touches the link or forwarding (illumos'
 * reason: a link-down would spread to everything above and make matters worse).
 */
import { FAULT_TEXT_BYTES_MAX } from './limits.js';
import { wallTime } from './sys/clock.js';

/** Reasons, the most telling first: that one's text is the device's. */
export const faultCodes = [
  'link_gone',
  'netns_gone',
  'start_failed',
  'underlay_gone',
  'core_traps',
  'worker',
  'varpd',
  'plugin',
  'lookup_stale',
  'lookup_failed',
  'lookup_late',
  'state_failed',
] as const;
export type FaultCode = (typeof faultCodes)[number];

export interface Fault {
  readonly code: FaultCode;
  readonly text: string;
  /** ISO 8601. */
  readonly since: string;
}

export interface FaultStatus {
  readonly status: 'ONLINE' | 'DEGRADED';
  /** Text of the first fault, empty when online. */
  readonly message: string;
  readonly faults: readonly Fault[];
}

/** What changed, for logs. */
export type FaultListener = (device: string, status: FaultStatus) => void;

export class Fma {
  readonly #faults = new Map<string, Map<FaultCode, Fault>>();

  constructor(readonly onChange: FaultListener) {}

  /** Adds or rewrites a reason. */
  degrade(device: string, code: FaultCode, text: string): void {
    const faults = this.#faults.get(device) ?? new Map<FaultCode, Fault>();
    const known = faults.get(code);
    const cut = Buffer.from(text).subarray(0, FAULT_TEXT_BYTES_MAX).toString();
    if (known?.text === cut) return;
    faults.set(code, { code, text: cut, since: known?.since ?? wallTime() });
    this.#faults.set(device, faults);
    this.onChange(device, this.status(device));
  }

  /** Takes a reason away; nothing happens when it is not there. */
  restore(device: string, code: FaultCode): void {
    if (this.#faults.get(device)?.delete(code)) this.onChange(device, this.status(device));
  }

  /** The device is gone: forgets all of its reasons. */
  forget(device: string): void {
    this.#faults.delete(device);
  }

  status(device: string): FaultStatus {
    const known = this.#faults.get(device);
    const faults = faultCodes.flatMap((code) => known?.get(code) ?? []);
    return {
      status: faults.length > 0 ? 'DEGRADED' : 'ONLINE',
      message: faults[0]?.text ?? '',
      faults,
    };
  }
}
