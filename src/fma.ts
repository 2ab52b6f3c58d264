/**
 * Fault state: why a device, or the process, is degraded, in words. Degrading never touches the link or forwarding
 * (illumos' reason: a link-down would spread to everything above and make matters worse).
 */
import { FAULT_TEXT_BYTES_MAX } from './limits.js';
import { monotonicMs, wallTime } from './sys/clock.js';

/** What a reason means for who uses the device. */
export type Severity =
  /** Nothing is forwarded. */
  | 'critical'
  /** Some frames are not forwarded, or may not be. */
  | 'major'
  /** All that is known is forwarded. */
  | 'minor';

export interface FaultReason {
  readonly severity: Severity;
  /** Who says so. */
  readonly setBy: string;
  /** Who takes it back, and when. */
  readonly clearedBy: string;
  /** What an operator can do about it. */
  readonly remedy: string;
}

/** Reasons of a device, the most telling first: that one's text is the device's. */
export const faultReasons = {
  link_gone: {
    severity: 'critical',
    setBy: 'the netlink watch, when the link is deleted or moved away by somebody else',
    clearedBy: 'nobody: the device is deleted',
    remedy: 'delete the overlay and create it again',
  },
  netns_gone: {
    severity: 'critical',
    setBy: 'the namespace watch, when the namespace of the link is gone',
    clearedBy: 'the same, when the link is made anew',
    remedy: 'make the network namespace again: the link comes back by itself',
  },
  start_failed: {
    severity: 'critical',
    setBy: 'the start, when the mux or a socket cannot be had',
    clearedBy: 'the next start that succeeds, or the stop',
    remedy: 'see the text: an address or a port is missing or in use; it is tried again by itself',
  },
  underlay_gone: {
    severity: 'critical',
    setBy:
      "the netlink watch, when the device's address is not on the host any more, its interface is down, or a multicast group cannot be joined again",
    clearedBy: 'the same, when it is back',
    remedy: 'put the address back, or set listen_ip to one that is there',
  },
  core_traps: {
    severity: 'major',
    setBy: 'the trap watch, when the core trapped on several frames in a short time',
    clearedBy: 'the same, when it has not for as long',
    remedy: 'report it with the log: it is a defect; frames that do not trap are forwarded',
  },
  worker: {
    severity: 'major',
    setBy: 'the worker supervision, when a worker died, is stuck, lost or starved',
    clearedBy: 'the same, when all workers run',
    remedy:
      'nothing at first: one that hangs is replaced, and one without CPU goes on when it gets some; report it with the log when it comes again',
  },
  varpd: {
    severity: 'major',
    setBy: 'the external handle, when its holder closes it or disassociates the device',
    clearedBy: 'the same, when somebody associates the device',
    remedy: 'start the program that answers lookups for this device',
  },
  plugin: {
    severity: 'major',
    setBy: 'the lookup plugin, in its own words',
    clearedBy: 'the same, or its end',
    remedy: 'see the text, and what the lookup plugin logs',
  },
  mtu_above_underlay: {
    severity: 'major',
    setBy: "the MTU watch, when the device's MTU and the outer headers do not fit in the underlay's",
    clearedBy: 'the same, when they do',
    remedy: "lower the device's mtu, or raise that of the underlay's interface",
  },
  paths_unprobed: {
    severity: 'minor',
    setBy: 'the probing of path MTUs (path_mtu_probe), when its sockets cannot be had',
    clearedBy: 'the same, when they can, or when the property is off',
    remedy:
      'give the daemon CAP_NET_RAW, or set path_mtu_probe to off: until then routers alone say how much fits',
  },
  lookup_stale: {
    severity: 'minor',
    setBy: 'the activation of the lookup plugin after a restart or a change, when its source is not there',
    clearedBy: 'the activation that succeeds; it is tried again by itself',
    remedy: 'bring the source of lookups back: last-known targets are served until then',
  },
  lookup_failed: {
    severity: 'minor',
    setBy: 'the lookups, when the plugin answers them with errors',
    clearedBy: 'the next that it answers well',
    remedy: 'see the text: what the lookup plugin asks does not answer',
  },
  lookup_late: {
    severity: 'minor',
    setBy: 'the lookups, when the plugin does not answer in time',
    clearedBy: 'the next that is in time',
    remedy: 'see why the lookup plugin, or what it asks, is slow',
  },
  offload_down: {
    severity: 'minor',
    setBy: 'the workers, when the kernel refuses to cut a message, or to take a super-frame',
    clearedBy: 'the next try, after a minute and then less and less often',
    remedy:
      'frames go more slowly until then; set the offload that the text names to off where it comes again and again',
  },
  state_failed: {
    severity: 'minor',
    setBy: "whoever writes the device's file, when it cannot be written",
    clearedBy: 'the next writing that succeeds',
    remedy:
      'make room or give rights in the state directory: until then a restart brings back what was before',
  },
  targets_unsaved: {
    severity: 'minor',
    setBy: 'the saving of targets, when they cannot be written',
    clearedBy: 'the next saving that succeeds',
    remedy: 'make room or give rights in the state directory: until then a restart begins with older targets',
  },
} as const satisfies Record<string, FaultReason>;
export type FaultCode = keyof typeof faultReasons;
export const faultCodes = Object.keys(faultReasons) as readonly FaultCode[];

/** Reasons of the process, which are no single device's; the most telling first. */
export const processReasons = {
  workers: {
    severity: 'major',
    setBy:
      'the worker supervision, when a worker died, is stuck, lost or starved, whether or not there are devices',
    clearedBy: 'the same, when all workers run',
    remedy:
      'nothing at first: one that hangs is replaced, and one without CPU goes on when it gets some; report it with the log when it comes again',
  },
  retained: {
    severity: 'minor',
    setBy:
      'whoever retires links, sockets, rows or memory that a worker which does not respond may still read',
    clearedBy: 'the same, when all of it is reclaimed: the worker responds again, or its thread has ended',
    remedy:
      'nothing at first: a worker that hangs is replaced, and what it held is reclaimed; restart the daemon where this stays',
  },
  state_unwritable: {
    severity: 'minor',
    setBy: 'whoever writes in the state directory, when it cannot be written',
    clearedBy: 'the same, when it can',
    remedy: 'make room or give rights in the state directory: until then nothing can be created for good',
  },
  state_problem: {
    severity: 'minor',
    setBy:
      'the start, when a file of the state directory was set aside, or a device could not be brought back',
    clearedBy: 'the next start without such a file',
    remedy: 'see the text and the log: create the device again, or repair the file and restart',
  },
  link_orphaned: {
    severity: 'minor',
    setBy:
      'the start, when there are links with the alias of an overlay that no record knows and nobody has open',
    clearedBy: 'delete-overlay and tidy, when none is left; the next start without such a link',
    remedy:
      'delete them with overlayadm tidy, or one with delete-overlay; links of another overlayd, which has a state directory of its own and is stopped, are among them',
  },
  overlay_missing: {
    severity: 'major',
    setBy: 'the start, when an overlay that the configuration declares cannot be made',
    clearedBy: 'the next reload that succeeds',
    remedy: 'see the text; mend what is in the way and reload (SIGHUP)',
  },
  config_refused: {
    severity: 'minor',
    setBy: 'the reload or the planned restart, when the new configuration is refused',
    clearedBy: 'the next reload or restart that succeeds',
    remedy: 'correct the place that the text names, and reload or restart',
  },
} as const satisfies Record<string, FaultReason>;
export type ProcessFaultCode = keyof typeof processReasons;
export const processFaultCodes = Object.keys(processReasons) as readonly ProcessFaultCode[];

export interface Fault<Code extends string = FaultCode> {
  readonly code: Code;
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

/** One reason, with whose it is. */
export interface FaultEntry extends Fault<FaultCode | ProcessFaultCode> {
  /** Undefined for the process itself. */
  readonly device: string | undefined;
  readonly severity: Severity;
  readonly remedy: string;
  /** Whole seconds since it was set. */
  readonly ageSeconds: number;
}

/** A reason was set, reworded or taken away. */
export interface FaultChange {
  /** Undefined for the process itself. */
  readonly device: string | undefined;
  readonly code: FaultCode | ProcessFaultCode;
  /** Of a reason that is gone, what it was. */
  readonly text: string;
  readonly isSet: boolean;
  /** Of the device or the process after that. */
  readonly status: 'ONLINE' | 'DEGRADED';
  /** Text of its first reason after that. */
  readonly message: string;
}

/** For logs and events. */
export type FaultListener = (change: FaultChange) => void;

interface Kept<Code extends string> extends Fault<Code> {
  readonly atMs: number;
}

export class Fma {
  readonly #devices = new Map<string, Map<FaultCode, Kept<FaultCode>>>();
  readonly #process = new Map<ProcessFaultCode, Kept<ProcessFaultCode>>();

  /** @param isDevice whether a device is there: a fault that comes late must not outlive its device */
  constructor(
    readonly onChange: FaultListener,
    readonly isDevice: (name: string) => boolean = () => true,
  ) {}

  /** Adds or rewrites a reason of a device; does nothing for a device that is gone. */
  degrade(device: string, code: FaultCode, text: string): void {
    if (!this.isDevice(device)) return;
    const faults = this.#devices.get(device) ?? new Map<FaultCode, Kept<FaultCode>>();
    if (!put(faults, code, text)) return;
    this.#devices.set(device, faults);
    this.#tell(device, faults.get(code)!, true);
  }

  /** Takes a reason away; nothing happens when it is not there. */
  restore(device: string, code: FaultCode): void {
    const faults = this.#devices.get(device);
    const known = faults?.get(code);
    if (!faults || !known) return;
    faults.delete(code);
    if (faults.size === 0) this.#devices.delete(device);
    this.#tell(device, known, false);
  }

  /** The device is gone: forgets all of its reasons. */
  forget(device: string): void {
    this.#devices.delete(device);
  }

  /** Adds or rewrites a reason of the process. */
  degradeProcess(code: ProcessFaultCode, text: string): void {
    if (put(this.#process, code, text)) this.#tell(undefined, this.#process.get(code)!, true);
  }

  /** Takes a reason of the process away; nothing happens when it is not there. */
  restoreProcess(code: ProcessFaultCode): void {
    const known = this.#process.get(code);
    if (!known) return;
    this.#process.delete(code);
    this.#tell(undefined, known, false);
  }

  status(device: string): FaultStatus {
    const known = this.#devices.get(device);
    const faults = faultCodes.flatMap((code) => known?.get(code) ?? []);
    return {
      status: faults.length > 0 ? 'DEGRADED' : 'ONLINE',
      message: faults[0]?.text ?? '',
      faults: faults.map(({ code, text, since }) => ({ code, text, since })),
    };
  }

  /** DEGRADED while any device is, or for reasons of its own. */
  get processStatus(): 'ONLINE' | 'DEGRADED' {
    return this.#process.size > 0 || this.#devices.size > 0 ? 'DEGRADED' : 'ONLINE';
  }

  /** Every reason there is: those of the process, then those of each device, the most telling first. */
  list(): FaultEntry[] {
    const own = processFaultCodes.flatMap((code) => {
      const fault = this.#process.get(code);
      return fault ? entryOf(undefined, fault, processReasons[code]) : [];
    });
    const devices = [...this.#devices].flatMap(([device, faults]) =>
      faultCodes.flatMap((code) => {
        const fault = faults.get(code);
        return fault ? entryOf(device, fault, faultReasons[code]) : [];
      }),
    );
    return [...own, ...devices];
  }

  #tell(device: string | undefined, fault: Fault<FaultCode | ProcessFaultCode>, isSet: boolean): void {
    const { code, text } = fault;
    const { status, message } = device === undefined ? this.#own() : this.status(device);
    this.onChange({ device, code, text, isSet, status, message });
  }

  #own(): { status: 'ONLINE' | 'DEGRADED'; message: string } {
    const first = processFaultCodes.flatMap((code) => this.#process.get(code) ?? [])[0];
    return { status: first ? 'DEGRADED' : 'ONLINE', message: first?.text ?? '' };
  }
}

/** False when it says nothing new. */
function put<Code extends string>(faults: Map<Code, Kept<Code>>, code: Code, text: string): boolean {
  const known = faults.get(code);
  const cut = Buffer.from(text).subarray(0, FAULT_TEXT_BYTES_MAX).toString();
  if (known?.text === cut) return false;
  faults.set(code, {
    code,
    text: cut,
    since: known?.since ?? wallTime(),
    atMs: known?.atMs ?? monotonicMs(),
  });
  return true;
}

function entryOf(
  device: string | undefined,
  { code, text, since, atMs }: Kept<FaultCode | ProcessFaultCode>,
  { severity, remedy }: FaultReason,
): FaultEntry {
  const ageSeconds = Math.floor((monotonicMs() - atMs) / 1000);
  return { device, code, text, since, severity, remedy, ageSeconds };
}

/**
 * What those are told of a fault who may not read properties, values of which its text may hold: the code, and what can be
 * done about it.
 */
export function discreetText(code: FaultCode | ProcessFaultCode): string {
  const { remedy } = { ...processReasons, ...faultReasons }[code];
  return `${code}: ${remedy}`;
}
