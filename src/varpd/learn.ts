/**
 * `learn` (DYNAMIC): flood and learn, as the kernel's VXLAN does (RFC 7348 section 4.1), so that whoever has no mapping source can be a
 * peer. Broadcast, multicast and frames to unknown addresses go to every VTEP of a list; the sources of what comes back say where
 * each address is. Only with this plugin does a received frame change where frames are sent.
 *
 * What is learned dies with the process and is learned again. The VTEPs of the list are those that may send
 * (`<encap>/source_check=auto`): who is not among them teaches nothing. With a multicast group in the list it is everybody.
 */
import { DESTINATION_IP, DESTINATION_PORT } from '../encap/plugin.js';
import { OverlayError } from '../errors.js';
import { isMulticast } from '../ip.js';
import { type PropertyInfo, PropertyStore, reopening } from '../property.js';
import { every, monotonicMs, monotonicSeconds } from '../sys/clock.js';
import { type Destination, parseDestination, ROUTE_DESTINATIONS_MAX } from '../target/destination.js';
import { LearnedAddresses } from './learn/addresses.js';
import {
  type Answer,
  LOOKUP_VERSION,
  type LookupInstance,
  type LookupPlugin,
  type LookupRequest,
  type LookupServices,
} from './plugin.js';

/** How often what is old is looked for. */
export const SWEEP_MS = 100;
/** Room for as many VTEPs as a list may have. */
const FLOOD_BYTES_MAX = 64 * 1024;
const SEPARATOR = '+';
const BROADCAST = 'ff:ff:ff:ff:ff:ff';

const port: PropertyInfo = {
  ...reopening,
  name: 'learn/port',
  type: 'uint',
  isRequired: true,
  possible: [{ min: 1n, max: 65535n }],
};
const flood: PropertyInfo = {
  ...reopening,
  name: 'learn/flood',
  type: 'string',
  isRequired: true,
  bytesMax: FLOOD_BYTES_MAX,
  fault: (value) => floodFault(String(value)),
};
const age: PropertyInfo = {
  ...reopening,
  name: 'learn/age',
  type: 'uint',
  isRequired: false,
  default: 300n,
  possible: [{ min: 0n, max: 1_000_000n }],
};
const limit: PropertyInfo = {
  ...reopening,
  name: 'learn/limit',
  type: 'uint',
  isRequired: false,
  default: 16_384n,
  possible: [{ min: 1n, max: 524_288n }],
};
const sticky: PropertyInfo = {
  ...reopening,
  name: 'learn/sticky',
  type: 'string',
  isRequired: false,
  default: 'off',
  possible: ['on', 'off'],
};

/** A station that roams moves every few seconds; a loop or a duplicate shows a move or two a second, which is all that workers report. */
const moves: PropertyInfo = {
  ...reopening,
  name: 'learn/moves',
  type: 'uint',
  isRequired: false,
  default: 10n,
  possible: [{ min: 0n, max: 1000n }],
};
const movesSeconds: PropertyInfo = {
  ...reopening,
  name: 'learn/moves_seconds',
  type: 'uint',
  isRequired: false,
  default: 10n,
  possible: [{ min: 1n, max: 3600n }],
};
const hold: PropertyInfo = {
  ...reopening,
  name: 'learn/hold',
  type: 'uint',
  isRequired: false,
  default: 60n,
  possible: [{ min: 1n, max: 3600n }],
};

/** The port is there only where the encapsulation needs one. */
function infos(kinds: number): PropertyInfo[] {
  return [flood, ...(kinds & DESTINATION_PORT ? [port] : []), age, limit, sticky, moves, movesSeconds, hold];
}

/** VTEPs of the property's text, `ip` or `ip:port` with `+` between them. Throws EINVAL. */
function floodOf(text: string, kinds: number, defaultPort: number | undefined): Destination[] {
  return text.split(SEPARATOR).map((each) => {
    const hasPort = /^\[.*\]:\d+$|^[^:[\]]+:\d+$/.test(each);
    if (hasPort || defaultPort === undefined) return parseDestination(each, kinds);
    return { ...parseDestination(each, DESTINATION_IP), port: defaultPort };
  });
}

function floodFault(text: string): string | undefined {
  const form = `it is VTEPs with ${SEPARATOR} between them, such as 192.0.2.2${SEPARATOR}192.0.2.3:8472`;
  const each = text.split(SEPARATOR);
  if (each.length > ROUTE_DESTINATIONS_MAX)
    return `it has ${each.length} VTEPs, the most is ${ROUTE_DESTINATIONS_MAX}`;
  try {
    floodOf(text, DESTINATION_IP | DESTINATION_PORT, 1);
    return undefined;
  } catch (error) {
    return `${form}: ${(error as Error).message}`;
  }
}

class LearnInstance implements LookupInstance {
  readonly properties: PropertyStore;
  /** What was in the list when it was started. */
  #flood: readonly Destination[] = [];
  #addresses: LearnedAddresses | undefined;
  #stopSweeping = () => {};
  #told: string | undefined;
  #services: LookupServices | undefined;

  constructor(readonly kinds: number) {
    this.properties = new PropertyStore(infos(kinds));
  }

  /** Throws EAGAIN naming what is not set, EINVAL for a list that does not go with the encapsulation. */
  start(services: LookupServices): void {
    const missing = this.properties.missing();
    if (missing.length > 0) {
      throw new OverlayError('EAGAIN', 'property_missing', `not set: ${missing.join(', ')}`);
    }
    this.#flood = this.#list();
    for (const { ip } of this.#flood) services.refuseVtep?.(ip!);
    this.#services = services;
    const { learning } = services;
    this.#addresses = new LearnedAddresses({
      ageSeconds: Number(this.properties.get(age.name)),
      limit: Number(this.properties.get(limit.name)),
      isSticky: this.properties.get(sticky.name) === 'on',
      movesMax: Number(this.properties.get(moves.name)),
      movesSeconds: Number(this.properties.get(movesSeconds.name)),
      holdSeconds: Number(this.properties.get(hold.name)),
      nowSeconds: monotonicSeconds,
      nowMs: monotonicMs,
      lastSeen: (mac) => learning?.lastSeen(mac) ?? 0,
      isStatic: (mac) => learning?.isStatic(mac) ?? false,
      isSettled: (mac) => learning?.isSettled(mac) ?? true,
      set: (mac, ip) => services.set(mac, this.#routeTo(ip)),
      forget: (mac) => {
        if (!learning?.isStatic(mac)) services.invalidate(mac);
      },
      count: (what) => learning?.count(what),
    });
    this.#stopSweeping = every(SWEEP_MS, () => {
      this.#addresses?.sweep();
      this.#tell();
    });
  }

  stop(): void {
    this.#stopSweeping();
    this.#addresses = undefined;
  }

  lookup({ destination, kind }: LookupRequest): Answer {
    const ip = kind === 'unicast' ? this.#addresses?.find(destination) : undefined;
    if (ip !== undefined) return this.#routeTo(ip);
    // Everybody is always sent to, so that is kept.
    if (destination !== BROADCAST) this.#addresses?.flood(destination);
    return { replicate: this.#flood };
  }

  learn(mac: string, ip: string): void {
    this.#addresses?.observe(mac, ip);
  }

  forget(mac?: string): void {
    this.#addresses?.forget(mac);
    this.#tell();
  }

  /** Who is in a group cannot be told: with one of them, anyone may send. */
  peers(): readonly string[] | undefined {
    const ips = [...new Set(this.#list().map(({ ip }) => ip!))];
    return ips.some((ip) => isMulticast(ip)) ? undefined : ips;
  }

  groups(): readonly string[] {
    return [
      ...new Set(
        this.#list()
          .map(({ ip }) => ip!)
          .filter((ip) => isMulticast(ip)),
      ),
    ];
  }

  /** A peer listens where it is flooded to. */
  #routeTo(ip: string): Destination {
    return (
      this.#flood.find((each) => each.ip === ip) ??
      (this.#port === undefined ? { ip } : { ip, port: this.#port })
    );
  }

  get #port(): number | undefined {
    return this.kinds & DESTINATION_PORT ? Number(this.properties.get(port.name)) : undefined;
  }

  #list(): Destination[] {
    const text = this.properties.get(flood.name);
    return text === undefined ? [] : floodOf(String(text), this.kinds, this.#port);
  }

  #tell(): void {
    const fault = this.#addresses?.fault;
    if (fault === this.#told) return;
    this.#told = fault;
    if (fault === undefined) this.#services?.restore();
    else this.#services?.degrade(fault);
  }
}

export const learn: LookupPlugin = {
  version: LOOKUP_VERSION,
  name: 'learn',
  mode: 'dynamic',
  properties: (kinds) => infos(kinds).map(({ name }) => name),
  create: (kinds) => {
    if ((kinds & ~DESTINATION_PORT) !== DESTINATION_IP) {
      throw new OverlayError(
        'ENOTSUP',
        'destination_not_supported',
        'learn supplies an IP address, with or without a port; the encapsulation needs something else',
      );
    }
    return new LearnInstance(kinds);
  },
};
