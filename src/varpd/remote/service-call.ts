/** A use of `LookupServices` as it comes from the plugin's thread, read as unknown. */
import { readPeers, readRoute } from './answer.js';
import { lied } from './fault.js';
import { type ServiceCall, TEXT_MAX } from './protocol.js';

/** A plain copy of the right form. Throws EINVAL `plugin_lied`; whether addresses are any is for whoever serves it. */
export function readServiceCall(given: unknown): ServiceCall {
  if (typeof given !== 'object' || given === null) throw lied('a service call is an object');
  const { what, mac, ip, vlan, route, peers, text, level, message } = given as Record<string, unknown>;
  switch (what) {
    case 'set':
      return { what, mac: readText(mac), route: readRoute(route) };
    case 'invalidate':
      return { what, mac: readText(mac) };
    case 'invalidateAll':
    case 'restore':
      return { what };
    case 'gratuitousArp':
      if (!Number.isInteger(vlan)) throw lied('a VLAN is a whole number');
      return { what, mac: readText(mac), ip: readText(ip), vlan: vlan as number };
    case 'peersChanged':
      return { what, peers: readPeers(peers) };
    case 'degrade':
      return { what, text: readText(text) };
    case 'log':
      if (level !== 'info' && level !== 'warn' && level !== 'error') throw lied('there is no such log level');
      return { what, level, message: readText(message) };
    default:
      throw lied('there is no such service');
  }
}

function readText(value: unknown): string {
  if (typeof value === 'string' && value.length <= TEXT_MAX) return value;
  throw lied(`an argument of a service is not text of at most ${TEXT_MAX} characters`);
}
