/** Routes (man 7 rtnetlink, RTM_GETROUTE): that to an address, and those that end at this host. struct rtmsg and RTA_... attributes. */
import { familyOf, ipNativeBytes } from '../../ip.js';
import { AF_INET, AF_INET6, macros, structs } from '../abi.js';
import { SystemError } from '../errno.js';
import { ipText } from './address.js';
import {
  type Attribute,
  type Attributes,
  encodeBody,
  fixedPart,
  parseAttributes,
  readU32,
  viewOf,
} from './message.js';
import type { RequestSocket } from './socket.js';

const { NLM_F_DUMP } = macros['linux/netlink.h'];
const {
  RT_TABLE_LOCAL,
  RTA_CACHEINFO,
  RTA_DST,
  RTA_METRICS,
  RTA_OIF,
  RTA_SRC,
  RTAX_MTU,
  RTM_F_FIB_MATCH,
  RTM_GETROUTE,
  RTN_ANYCAST,
  RTN_BROADCAST,
  RTN_LOCAL,
} = macros['linux/rtnetlink.h'];

const ROUTE = structs.rtmsg;
const CACHE = structs.rta_cacheinfo;

export interface RouteTo {
  /** Index of the link it leads over. */
  readonly link: number;
  /** The route's own MTU, undefined where it has none. What was learned of a path for a while is none. */
  readonly mtu: number | undefined;
}

/**
 * Where datagrams from one address of this host to another address go. Undefined when there is no route, or when the host
 * does not have `from` any more. Throws SystemError.
 *
 * @param from undefined for any
 */
export function getRoute(socket: RequestSocket, to: string, from?: string): RouteTo | undefined {
  try {
    const attributes = ask(socket, to, from, 0);
    const link = attributes && readU32(attributes.get(RTA_OIF));
    if (!attributes || link === undefined) return undefined;
    // The kernel hides the route's own behind what it has learned; the table has it.
    const own = isLearned(attributes) ? ask(socket, to, from, RTM_F_FIB_MATCH) : attributes;
    return { link, mtu: own && mtuOf(own) };
  } catch (error) {
    if (error instanceof SystemError && refusals.includes(error.errno)) return undefined;
    throw error;
  }
}

/** What the kernel says where there is no way, or no such address of this host. */
const refusals: readonly string[] = ['ENETUNREACH', 'EHOSTUNREACH', 'EACCES', 'EINVAL', 'EADDRNOTAVAIL'];

function ask(
  socket: RequestSocket,
  to: string,
  from: string | undefined,
  flags: number,
): Attributes | undefined {
  const destination = ipNativeBytes(to);
  const fixed = new Uint8Array(ROUTE.size);
  fixed[ROUTE.rtm_family] = familyOf(to) === 4 ? AF_INET : AF_INET6;
  fixed[ROUTE.rtm_dst_len] = destination.length * 8;
  viewOf(fixed).setUint32(ROUTE.rtm_flags, flags, true);
  const attributes: Attribute[] = [{ type: RTA_DST, value: destination }];
  if (from !== undefined) {
    const source = ipNativeBytes(from);
    fixed[ROUTE.rtm_src_len] = source.length * 8;
    attributes.push({ type: RTA_SRC, value: source });
  }
  const body = encodeBody(fixed, attributes);
  const [answer] = socket.request({ type: RTM_GETROUTE, body, what: `route to ${to}` });
  if (answer === undefined) return undefined;
  fixedPart(answer, ROUTE.size);
  return parseAttributes(answer, ROUTE.size);
}

/** Learned by path MTU discovery: it has a time to end. */
function isLearned(attributes: Attributes): boolean {
  const cache = attributes.get(RTA_CACHEINFO);
  return cache !== undefined && fixedPart(cache, CACHE.rta_expires + 4).getInt32(CACHE.rta_expires, true) > 0;
}

function mtuOf(attributes: Attributes): number | undefined {
  const metrics = attributes.get(RTA_METRICS);
  return metrics && readU32(parseAttributes(metrics).get(RTAX_MTU));
}

/** Kinds of routes by which a packet ends at this host. */
const endings: readonly number[] = [RTN_LOCAL, RTN_BROADCAST, RTN_ANYCAST];

/**
 * What this host takes for itself, by its local tables: addresses, broadcast addresses, and whole prefixes such as
 * '127.0.0.0/8' or those of `ip route add local`. Throws SystemError.
 */
export function listLocalPrefixes(socket: RequestSocket): string[] {
  return [AF_INET, AF_INET6].flatMap((family) => {
    const body = new Uint8Array(ROUTE.size);
    body[ROUTE.rtm_family] = family;
    body[ROUTE.rtm_table] = RT_TABLE_LOCAL;
    const request = {
      type: RTM_GETROUTE,
      flags: NLM_F_DUMP,
      body,
      isFiltered: true,
      what: 'list local routes',
    };
    try {
      return socket.request(request).flatMap((route) => localPrefix(route, family) ?? []);
    } catch (error) {
      // No IPv6 in this kernel, or no table yet.
      if (error instanceof SystemError && noTable.includes(error.errno)) return [];
      throw error;
    }
  });
}

const noTable: readonly string[] = ['ENOENT', 'EOPNOTSUPP', 'EAFNOSUPPORT'];

function localPrefix(body: Uint8Array, family: number): string | undefined {
  const fixed = fixedPart(body, ROUTE.size);
  const isOurs =
    fixed.getUint8(ROUTE.rtm_family) === family && endings.includes(fixed.getUint8(ROUTE.rtm_type));
  if (!isOurs) return undefined;
  const length = fixed.getUint8(ROUTE.rtm_dst_len);
  // The default route has no destination.
  const bytes = parseAttributes(body, ROUTE.size).get(RTA_DST) ?? new Uint8Array(family === AF_INET ? 4 : 16);
  return `${ipText(family, bytes)}/${length}`;
}
