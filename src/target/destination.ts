/**
 * Where the far side of a tunnel is: up to three parts, as the encapsulation's destination kinds say. Text forms are
 * those of `dladm modify-overlay`: `[mac,][ip][:port]`, IPv6 in brackets.
 */
import { DESTINATION_ETHERNET, DESTINATION_IP, DESTINATION_PORT } from '../encap/plugin.js';
import { OverlayError } from '../errors.js';
import { endpointFault, familyOf, parseIp } from '../ip.js';
import { formatMac, parseMac } from './mac.js';

/** One VTEP. Exactly the parts of the encap's destination kinds are there. */
export interface Destination {
  /** Canonical text. */
  readonly mac?: string;
  /** Canonical text, IPv4 or IPv6. */
  readonly ip?: string;
  /** 1 to 65535. */
  readonly port?: number;
  /** What the outer header of frames to it has beyond those to others, as the encapsulation writes it: options of Geneve. */
  readonly options?: string;
}

/** Where frames of a target go: to one VTEP, to all of a list, or to one of a list by the flow hash. */
export type Route =
  | Destination
  | { readonly replicate: readonly Destination[] }
  | { readonly spread: readonly Destination[] };

/** The VTEPs of a route. */
export function destinationsOf(route: Route): readonly Destination[] {
  if ('replicate' in route) return route.replicate;
  if ('spread' in route) return route.spread;
  return [route];
}

/** Longest text of a destination's options: no outer header has room for more. */
export const DESTINATION_OPTIONS_BYTES_MAX = 1024;

/** VTEPs of one list, at most. */
export const ROUTE_DESTINATIONS_MAX = 1024;

/**
 * The destination in canonical form, with exactly the parts of `kinds` (DESTINATION_ bits). Throws EINVAL naming the
 * part that is missing, superfluous or bad.
 */
export function checkDestination(given: Destination, kinds: number): Destination {
  const parts: { mac?: string; ip?: string; port?: number; options?: string } = {};
  for (const [bit, part] of [
    [DESTINATION_ETHERNET, 'mac'],
    [DESTINATION_IP, 'ip'],
    [DESTINATION_PORT, 'port'],
  ] as const) {
    const isGiven = given[part] !== undefined;
    if (isGiven !== ((kinds & bit) !== 0)) {
      const what = isGiven
        ? `it has a ${part} that the encapsulation does not take`
        : `its ${part} is missing`;
      throw new OverlayError('EINVAL', 'bad_destination', `the destination is not usable: ${what}`);
    }
  }
  if (given.mac !== undefined) parts.mac = formatMac(parseMac(given.mac));
  if (given.ip !== undefined) {
    parts.ip = parseIp(given.ip);
    const fault = isUnspecified(parts.ip)
      ? 'it is unspecified'
      : parts.ip === BROADCAST
        ? 'it is the broadcast address'
        : endpointFault(parts.ip, true);
    if (fault)
      throw new OverlayError('EINVAL', 'bad_destination', `${given.ip} cannot be a destination: ${fault}`);
  }
  if (given.port !== undefined) {
    if (!Number.isInteger(given.port) || given.port < 1 || given.port > 65535) {
      throw new OverlayError('EINVAL', 'bad_destination', `port ${given.port} is not 1 to 65535`);
    }
    parts.port = given.port;
  }
  if (given.options !== undefined) {
    if (typeof given.options !== 'string' || given.options.length > DESTINATION_OPTIONS_BYTES_MAX) {
      throw new OverlayError(
        'EINVAL',
        'bad_destination',
        `options of a destination are text of at most ${DESTINATION_OPTIONS_BYTES_MAX} characters`,
      );
    }
    parts.options = given.options;
  }
  return parts;
}

/**
 * The route with each of its destinations checked; a VTEP that a list names twice is in it once, since guests would get each broadcast
 * twice. Throws EINVAL, also for an empty or a too long list.
 */
export function checkRoute(given: Route, kinds: number): Route {
  const list = destinationsOf(given);
  if (list.length < 1 || list.length > ROUTE_DESTINATIONS_MAX) {
    throw new OverlayError(
      'EINVAL',
      'bad_destination',
      `a list has 1 to ${ROUTE_DESTINATIONS_MAX} destinations, not ${list.length}`,
    );
  }
  const checked = joined(list.map((destination) => checkDestination(destination, kinds)));
  // Those of a list are written once for all of it.
  if (('replicate' in given || 'spread' in given) && checked.some(({ options }) => options !== undefined)) {
    throw new OverlayError(
      'EINVAL',
      'bad_destination',
      'a destination in a list has no options of its own; a property of the encapsulation sets those of all',
    );
  }
  if ('replicate' in given) return { replicate: checked };
  if ('spread' in given) return { spread: checked };
  return checked[0]!;
}

/** Each destination once, in the order of the list. */
function joined(list: readonly Destination[]): Destination[] {
  return [...new Map(list.map((each) => [formatDestination(each), each])).values()];
}

/** `02:08:20:01:02:03,[2001:db8::1]:4789`, with the parts that are there; options in braces behind them. */
export function formatDestination({ mac, ip, port, options }: Destination): string {
  const host = ip === undefined ? '' : familyOf(ip) === 6 ? `[${ip}]` : ip;
  const endpoint = port === undefined ? host : `${host}:${port}`;
  const address = [mac, endpoint].filter((part) => part !== undefined && part !== '').join(',');
  return options === undefined ? address : `${address}{${options}}`;
}

/** A route as people read it; lists in braces after what is done with them. */
export function formatRoute(route: Route): string {
  if ('replicate' in route) return `replicate{${route.replicate.map(formatDestination).join(' ')}}`;
  if ('spread' in route) return `spread{${route.spread.map(formatDestination).join(' ')}}`;
  return formatDestination(route);
}

/** The reverse of `formatDestination`, for exactly the parts of `kinds`. Throws EINVAL showing the form. */
export function parseDestination(whole: string, kinds: number): Destination {
  const [text = '', options] = whole.endsWith('}')
    ? (/^([^{]*)\{(.*)\}$/s.exec(whole)?.slice(1) ?? [whole])
    : [whole];
  const form = destinationForm(kinds);
  const refuse = (): never => {
    throw new OverlayError('EINVAL', 'bad_destination', `'${text.slice(0, 128)}' is not ${form}`);
  };
  const comma = text.indexOf(',');
  const wantsMac = (kinds & DESTINATION_ETHERNET) !== 0;
  const wantsEndpoint = (kinds & ~DESTINATION_ETHERNET) !== 0;
  if (wantsMac && wantsEndpoint && comma < 0) refuse();
  const mac = wantsMac ? (comma < 0 ? text : text.slice(0, comma)) : undefined;
  const endpoint = wantsMac ? (comma < 0 ? '' : text.slice(comma + 1)) : text;
  if (!wantsEndpoint && endpoint !== '') refuse();
  const wantsIp = (kinds & DESTINATION_IP) !== 0;
  const wantsPort = (kinds & DESTINATION_PORT) !== 0;
  // An IPv6 address in brackets, or one without; a port after the last colon.
  const match = wantsIp
    ? wantsPort
      ? /^(?:\[([^\]]+)\]|([^:[\]]+)):(\d{1,5})$/.exec(endpoint)
      : /^(?:\[([^\]]+)\]|([^[\]]+))()$/.exec(endpoint)
    : /^()():?(\d{1,5})$/.exec(endpoint);
  if (wantsEndpoint && !match) refuse();
  const [, bracketed, bare, port] = match ?? [];
  try {
    return checkDestination(
      {
        ...(mac === undefined ? {} : { mac }),
        ...(wantsIp ? { ip: bracketed || bare || '' } : {}),
        ...(wantsPort ? { port: Number(port) } : {}),
        ...(options === undefined ? {} : { options }),
      },
      kinds,
    );
  } catch (error) {
    if (!(error instanceof OverlayError)) throw error;
    throw new OverlayError(
      'EINVAL',
      'bad_destination',
      `'${text.slice(0, 128)}' is not ${form}: ${error.message}`,
    );
  }
}

/** `ip:port`, as people are told what to write. */
export function destinationForm(kinds: number): string {
  const endpoint = [kinds & DESTINATION_IP ? 'ip' : '', kinds & DESTINATION_PORT ? 'port' : ''];
  const parts = [kinds & DESTINATION_ETHERNET ? 'mac' : '', endpoint.filter((part) => part).join(':')];
  return parts.filter((part) => part).join(',');
}

/** RFC 919 section 7; the kernel sends nothing there for sockets without SO_BROADCAST. */
const BROADCAST = '255.255.255.255';

function isUnspecified(ip: string): boolean {
  return ip === '0.0.0.0' || ip === '::';
}
