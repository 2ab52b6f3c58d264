/**
 * Which VTEPs a device can send to. Every list of VTEPs is judged here as a whole, whoever names it: flood lists, mapping files,
 * plugins, the external handle, operators, saved targets.
 */
import type { Device } from '../device.js';
import { OverlayError } from '../errors.js';
import { isMulticast } from '../ip.js';
import type { Log } from '../log.js';
import { isWildcard } from '../mux.js';
import { type Destination, formatDestination } from '../target/destination.js';
import { refuseOtherFamily } from './attachment.js';
import type { PortSource } from './ports.js';

/** Own VTEPs that the log names for one device; a hostile list could name others without end. */
const TOLD_MAX = 64;

export interface VtepsContext {
  readonly ports: Pick<PortSource, 'hostAddresses'>;
  readonly log: Log;
}

export class Vteps {
  /** Own VTEPs that the log has named. */
  readonly #told = new Set<string>();
  #known: ReadonlySet<string> | undefined;

  /** @param groups multicast groups that the device is in while it is started */
  constructor(
    readonly device: Device,
    readonly context: VtepsContext,
    readonly groups: () => readonly string[],
  ) {}

  /** Throws EINVAL for an address that the device's sockets can never send to: another family, a group it does not join. */
  refuse(ip: string): void {
    const { encap, name } = this.device;
    const socket = this.#socket;
    if (socket) refuseOtherFamily(encap, socket.ip, ip);
    if (!isMulticast(ip) || this.groups().includes(ip)) return;
    throw new OverlayError(
      'EINVAL',
      'bad_destination',
      `${ip} is a multicast group that ${name} is not in: name the VTEPs, or use learn/flood or direct/dest_ip for a group`,
    );
  }

  /**
   * The VTEPs of a list without this host's own, which the log names: frames of the host would come back to it, and a bridge would
   * look for its own guests behind the tunnel. Throws EINVAL when nobody is left.
   */
  others(list: readonly Destination[]): readonly Destination[] {
    const own = this.#own;
    const others = list.filter((each) => !this.#isOwn(each, own));
    if (others.length === list.length) return list;
    for (const each of list) if (this.#isOwn(each, own)) this.#tell(formatDestination(each));
    if (others.length > 0) return others;
    throw new OverlayError(
      'EINVAL',
      'own_address',
      `every VTEP of the list is this host's own (${list.map(formatDestination).join(', ')}): name those of other hosts`,
    );
  }

  /** Looks at the addresses of this host anew; true when they have changed, so that lists are to be judged again. */
  follow(): boolean {
    const before = this.#known;
    const own = this.#read();
    this.#known = own;
    return before !== undefined && (before.size !== own.size || [...own].some((ip) => !before.has(ip)));
  }

  /** Addresses of this host that the device's sockets receive on. */
  get #own(): ReadonlySet<string> {
    this.#known ??= this.#read();
    return this.#known;
  }

  #read(): ReadonlySet<string> {
    const socket = this.#socket;
    if (!socket) return new Set();
    const { ip } = socket;
    return isWildcard(ip) ? this.context.ports.hostAddresses(this.device.underlayNetns) : new Set([ip]);
  }

  /** Where the device listens; undefined while that is at fault, which its start says. */
  get #socket(): { ip: string; port: number } | undefined {
    const { encap, properties } = this.device;
    try {
      return encap.operations.socket(properties);
    } catch (error) {
      if (!(error instanceof OverlayError)) throw error;
      return undefined;
    }
  }

  #isOwn({ ip, port }: Destination, own: ReadonlySet<string>): boolean {
    return ip !== undefined && own.has(ip) && (port === undefined || port === this.#socket?.port);
  }

  #tell(vtep: string): void {
    if (this.#told.has(vtep) || this.#told.size >= TOLD_MAX) return;
    this.#told.add(vtep);
    this.context.log.info(
      { device: this.device.name, vtep },
      'the list of VTEPs names this host itself, which is left out',
    );
  }
}
