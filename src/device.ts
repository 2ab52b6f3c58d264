/**
 * One overlay device: what it is and how far it has come. The life cycle, with who brings it about:
 *
 * | from      | to        | by                                                             |
 * |-----------|-----------|----------------------------------------------------------------|
 * | (none)    | created   | create: the link appears, without carrier                      |
 * | created   | activated | activate: carrier on; starts at once when the link is up       |
 * | activated | started   | the link comes up: joins the mux                               |
 * | started   | activated | the link goes down: leaves the mux; what was learned stays     |
 * | any       | (none)    | delete                                                         |
 *
 * PROHIBITED: started without activated; back from activated to created; fixed properties changed by SETPROP once
 * activated (ENOTSUP).
 */
import type { Headers } from './encap/overhead.js';
import type { EncapPlugin } from './encap/plugin.js';
import { OverlayError } from './errors.js';
import type { Group } from './groups.js';
import { DEVICE_NAME_BYTES_MAX, MTU_MAX_BYTES, TARGETS_DEFAULT } from './limits.js';
import type { Mux } from './mux.js';
import { eachOffload, type OffloadSetting } from './offload.js';
import type { PropertyStore } from './property.js';
import type { Port } from './sys/port.js';

/** What a started device holds of the data path; given back at stop. */
export interface Attachment {
  readonly mux: Mux;
  /** Destination row of a POINT device. */
  readonly destination: number | undefined;
  /** Multicast groups that it is in. */
  readonly groups: readonly Group[];
}

/** What the underlay takes. */
export interface UnderlayMtu {
  /** Of an IP packet. */
  readonly bytes: number;
  /** Name of the link that says so, or that the route leads over. */
  readonly link: string;
}

/** What the MTU of a device has to do with that of the underlay. */
export interface MtuSum {
  readonly underlay: UnderlayMtu;
  readonly headers: Headers;
}

export class Device {
  port!: Port;
  isActivated = false;
  /** It is on disk, and its link stays when the daemon goes. */
  isKept = false;
  attachment: Attachment | undefined;
  /** The link is administratively up. */
  isUp = false;
  /** The link was deleted by someone else. */
  isLinkGone = false;
  /** Its namespace has gone, and its link with it. */
  isAway = false;
  /** What the link is called, should somebody have renamed it. */
  linkName: string;
  /** Address of the link, '' for a port that is not one. */
  mac = '';
  /** Name of the network namespace the link is in, '' for the daemon's own. */
  netns = '';
  /** Likewise of the underlay's sockets. */
  underlayNetns = '';
  /** Cancels the retry of a start that failed. */
  cancelRetry: (() => void) | undefined;
  retries = 0;
  /** A retry waits for its turn: another one would do the same. */
  isRetryQueued = false;
  /** The start failed because a namespace is not there: it is tried again as soon as it is. */
  isNamespaceMissing = false;
  /** The most that the MTU may be. */
  mtuMax = MTU_MAX_BYTES;
  /** Nobody has set the MTU: it is what the underlay has room for. */
  isMtuAuto = true;
  /** The largest segment that TCP may offer, with `auto` by the MTU. */
  tcpMss: 'off' | 'auto' | number = 'off';
  /** Path MTUs are probed, whatever routers say. */
  probesPaths = false;
  /** By what the underlay has room for it, as far as that is known. */
  mtuSum: MtuSum | undefined;
  /** What is asked of each offload. */
  readonly offloads = eachOffload<OffloadSetting>(() => 'auto');
  /** DYNAMIC: entries of the target cache, at most. */
  targetsMax = TARGETS_DEFAULT;
  /** DYNAMIC: seconds for which an unknown address is remembered, 0 for not at all. */
  negativeTtl = 0;

  constructor(
    readonly name: string,
    readonly encap: EncapPlugin,
    readonly properties: PropertyStore,
    /** Row in the device table. */
    readonly row: number,
    public vnetid: bigint,
    public mtu: number,
  ) {
    this.linkName = name;
  }

  get isStarted(): boolean {
    return this.attachment !== undefined;
  }
}

const nameRule = /^[A-Za-z][A-Za-z0-9_.-]*$/;
/** In /proc/sys/net these stand for every link and for links to come; the kernel makes no such link. */
const reservedNames: readonly string[] = ['all', 'default'];

/** Throws EINVAL stating the rule for device names. */
export function checkDeviceName(name: string): void {
  if (reservedNames.includes(name)) {
    throw new OverlayError(
      'EINVAL',
      'bad_device_name',
      `'${name}' cannot be a device's name: the kernel reserves it`,
    );
  }
  if (nameRule.test(name) && Buffer.byteLength(name) <= DEVICE_NAME_BYTES_MAX) return;
  throw new OverlayError(
    'EINVAL',
    'bad_device_name',
    `'${name.slice(0, 64)}' cannot be a device's name: 1 to ${DEVICE_NAME_BYTES_MAX} characters, a letter first, ` +
      "then letters, digits, '_', '.' or '-'",
  );
}
