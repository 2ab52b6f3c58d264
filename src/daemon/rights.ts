/**
 * What the process may do and have, looked at once at the start: a sentence for each thing that is missing, so that nobody
 * has to find out by an overlay that does not come about.
 */
import { accessSync, constants } from 'node:fs';
import { OverlayError } from '../errors.js';
import { checkLimits, type Limits, mebibytes, readLimits, readProc } from './limits.js';

/** Bits of CapEff (man 7 capabilities, linux/capability.h). */
const CAP_NET_ADMIN = 12n;
const CAP_SYS_ADMIN = 21n;
/** Descriptors besides those of devices and underlay addresses: sockets of the API, netlink, event loops, files. */
const DESCRIPTORS_BASE = 256;
/** Devices that every daemon should have room for, declared or not. */
const DEVICES_LEAST = 16;
const TUN = '/dev/net/tun';

/** What was found; each may be unknown. */
export interface Rights extends Limits {
  /** Effective capabilities as bits. */
  readonly capabilities: bigint | undefined;
  /** Why the TUN node cannot be opened: the system's name for it, or undefined when it can. */
  readonly tunFault: string | undefined;
  /** Bytes that the control group allows. */
  readonly memoryBytesMax: number | undefined;
}

/** What the daemon is going to need. */
export interface Needs {
  readonly workers: number;
  /** Send sockets of each worker on each underlay address. */
  readonly bank: number;
  readonly memoryBytes: number;
  readonly devices: number;
}

/** Reads them from /proc (man 5 proc). */
export function readRights(): Rights {
  const status = readProc('/proc/self/status');
  const capabilities = /^CapEff:\s*([0-9a-f]+)$/m.exec(status)?.[1];
  const memory = process.constrainedMemory();
  return {
    capabilities: capabilities === undefined ? undefined : BigInt(`0x${capabilities}`),
    tunFault: tunFault(),
    ...readLimits(),
    // Without a limit the kernel shows a number near 2^63, or none.
    memoryBytesMax: memory > 0 && memory < 2 ** 60 ? memory : undefined,
  };
}

/**
 * A sentence for each thing that is missing but can be done without. Throws EPERM without CAP_NET_ADMIN: no device could
 * ever be created.
 */
export function checkRights(rights: Rights, needs: Needs): string[] {
  const { capabilities, descriptorsMax, memoryBytesMax } = rights;
  const lacks = (bit: bigint) => capabilities !== undefined && ((capabilities >> bit) & 1n) === 0n;
  if (lacks(CAP_NET_ADMIN)) {
    throw new OverlayError(
      'EPERM',
      'no_cap_net_admin',
      'overlayd needs CAP_NET_ADMIN to make links: start it as root, or give it that capability ' +
        '(AmbientCapabilities=CAP_NET_ADMIN of systemd, or setpriv --ambient-caps)',
    );
  }
  checkLimits(rights, needs.workers);
  const sentences: string[] = [];
  if (lacks(CAP_SYS_ADMIN)) {
    sentences.push(
      'CAP_SYS_ADMIN is missing: underlays and devices in another network namespace will be refused; ' +
        'everything in this one works',
    );
  }
  const { tunFault } = rights;
  if (tunFault !== undefined) {
    sentences.push(
      tunFault === 'ENOENT'
        ? `${TUN} is missing: no overlay can be created until the tun module is loaded (modprobe tun) or the node is ` +
            'made available'
        : `${TUN} cannot be opened (${tunFault}): no overlay can be created until this user may read and write it`,
    );
  }
  const wanted = Math.max(needs.devices, DEVICES_LEAST);
  const room = devicesFor(descriptorsMax ?? Number.POSITIVE_INFINITY, needs);
  if (room < wanted) {
    sentences.push(
      `at most ${descriptorsMax} files may be open: that is room for ${room} devices, ${wanted} are wanted; raise the hard ` +
        'limit (LimitNOFILE= of systemd, ulimit -Hn), or use fewer --workers or a smaller --bank',
    );
  }
  if (memoryBytesMax !== undefined && memoryBytesMax < needs.memoryBytes) {
    sentences.push(
      `--memory reserves ${mebibytes(needs.memoryBytes)} MiB, and the memory of its control group is ` +
        `${mebibytes(memoryBytesMax)} MiB: lower the one or raise the other`,
    );
  }
  return sentences;
}

/** Devices that so many descriptors suffice for, when each has an underlay address of its own. */
function devicesFor(descriptors: number, { workers, bank }: Needs): number {
  // A TAP queue and a receive socket for each worker, and the send sockets; one more in main.
  const each = 1 + workers * 2 + bank;
  return Math.max(0, Math.floor((descriptors - DESCRIPTORS_BASE) / each));
}

function tunFault(): string | undefined {
  try {
    accessSync(TUN, constants.R_OK | constants.W_OK);
    return undefined;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code ?? 'EIO';
  }
}
