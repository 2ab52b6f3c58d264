/**
 * `files` (DYNAMIC): every MAC address of the overlay and where it is, from a file in illumos' format
 * (overlay_files(7)), one JSON object:
 *
 *   {
 *     "2:8:20:1:2:3": {
 *       "ip": "192.0.2.1",              the VTEP, IPv4 or IPv6
 *       "port": 4789,                   its port; may be left out where the encapsulation takes none
 *       "options": "0102:3:0a0b0c0d",   ours: options of Geneve in front of its frames, in place of `geneve/options`
 *       "arp": "10.0.0.3",              the guest's own IPv4 address: who asks for it is told this MAC address
 *       "ndp": "fd00::3",               the guest's own IPv6 address, likewise
 *       "dhcp-proxy": "2:8:20:4:5:6"    this guest's DHCP broadcasts go to that server alone
 *     },
 *     "flood": true
 *   }
 *
 * `flood` is ours: broadcast and multicast that is not proxied goes to every VTEP of the file, or to those of a list
 * (`"192.0.2.1"` or `{"ip": "192.0.2.1", "port": 4789}`; without a port, to the endpoints of the file with that
 * address). Without it such frames are dropped. A VTEP that mappings have with several options is flooded to once,
 * with the options of the property, as all of a list. Of keys that are there twice the last counts; of two mappings with one
 * `arp` or `ndp` address the first. Other keys of a mapping are reserved and ignored.
 *
 * Beyond illumos: the file is followed while it changes, complaints say where in the file, and a mapping without what
 * it needs is refused when it is loaded, not when somebody asks.
 */
import { DESTINATION_IP, DESTINATION_PORT } from '../encap/plugin.js';
import { assert, OverlayError } from '../errors.js';
import { endpointFault } from '../ip.js';
import { type PropertyInfo, PropertyStore, reopening } from '../property.js';
import { LiveMappings } from './files/live-mappings.js';
import {
  type Answer,
  type ArpQuery,
  LOOKUP_VERSION,
  type LookupInstance,
  type LookupPlugin,
  type LookupRequest,
  type LookupServices,
} from './plugin.js';

const ETHERTYPE_ARP = 0x0806;
const ETHERTYPE_IPV6 = 0x86dd;
/** RFC 2464 section 7. */
const IPV6_MULTICAST = '33:33:';
/** Solicited-node multicast, ff02::1:ff00:0/104 (RFC 4291 section 2.7.1). */
const SOLICITED_NODE = '33:33:ff:';

const config: PropertyInfo = {
  ...reopening,
  name: 'files/config',
  type: 'string',
  isRequired: true,
  fault: (value) => (String(value).startsWith('/') ? undefined : 'it is an absolute path'),
};

/**
 * This host's own VTEP. One file serves all hosts, so that the host itself is in it: floods leave it out. A mapping to
 * it is answered as any other, as illumos does: the frame goes to this host's own tunnel and comes back in.
 */
const localIp: PropertyInfo = {
  ...reopening,
  name: 'files/local_ip',
  type: 'ip',
  isRequired: false,
  fault: (value) => endpointFault(String(value), false),
};

class FilesInstance implements LookupInstance {
  readonly properties = new PropertyStore([config, localIp]);
  #live: LiveMappings | undefined;

  constructor(readonly kinds: number) {}

  /** Loads the file; the properties are read here, once. Throws EAGAIN, and as `loadMappings`. */
  async start(services: LookupServices): Promise<void> {
    const missing = this.properties.missing();
    if (missing.length > 0) {
      throw new OverlayError('EAGAIN', 'property_missing', `not set: ${missing.join(', ')}`);
    }
    assert(!this.#live, 'files is started twice');
    const ip = this.properties.get(localIp.name);
    const live = new LiveMappings({
      path: String(this.properties.get(config.name)),
      kinds: this.kinds,
      localIp: ip === undefined ? undefined : String(ip),
      services,
    });
    this.#live = live;
    try {
      await live.start();
    } catch (error) {
      if (this.#live === live) this.#live = undefined;
      throw error;
    }
  }

  async stop(): Promise<void> {
    const live = this.#live;
    this.#live = undefined;
    await live?.stop();
  }

  /**
   * The order is illumos': proxies first, then the mapping of the destination. Unlike there, ARP to one host goes to it:
   * an answer would get lost otherwise whenever its addressee had left the cache.
   */
  lookup({ etherType, source, destination, kind, isDhcp }: LookupRequest): Answer {
    const mappings = this.#mappings();
    const { flood } = mappings.parts;
    const group: Answer = flood.length > 0 ? { replicate: flood } : 'drop';
    if (etherType === ETHERTYPE_ARP && kind !== 'unicast') return 'proxy-arp';
    if (etherType === ETHERTYPE_IPV6 && destination.startsWith(IPV6_MULTICAST)) {
      // Of multicast only solicited-node addresses carry what can be answered for another host.
      return group === 'drop' || destination.startsWith(SOLICITED_NODE) ? 'proxy-ndp' : group;
    }
    if (isDhcp) return mappings.dhcpServer(source) === undefined ? group : 'proxy-dhcp';
    return mappings.destination(destination) ?? (kind === 'unicast' ? 'unknown' : group);
  }

  arp({ family, ip }: ArpQuery): string | undefined {
    return this.#mappings().owner(family, ip);
  }

  dhcp({ source }: LookupRequest): string | undefined {
    return this.#mappings().dhcpServer(source);
  }

  peers(): readonly string[] {
    return this.#mappings().peers();
  }

  #mappings(): LiveMappings['current'] {
    assert(this.#live, 'files was asked although it is not started');
    return this.#live.current;
  }
}

export const files: LookupPlugin = {
  version: LOOKUP_VERSION,
  name: 'files',
  mode: 'dynamic',
  properties: () => [config.name, localIp.name],
  create: (destinations) => {
    if (destinations === 0 || (destinations & ~(DESTINATION_IP | DESTINATION_PORT)) !== 0) {
      throw new OverlayError(
        'ENOTSUP',
        'destination_not_supported',
        'files supplies an IP address, a port or both; the encapsulation needs something else',
      );
    }
    return new FilesInstance(destinations);
  },
};
