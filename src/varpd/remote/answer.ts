/**
 * What a plugin answers, read as unknown: each function gives a plain copy of the right form, or throws EINVAL
 * `plugin_lied` saying what is wrong. Both threads use them: the plugin's so that nothing long or odd leaves it, main
 * because a plugin may have got round that.
 */
import { parseIp } from '../../ip.js';
import {
  DESTINATION_OPTIONS_BYTES_MAX,
  type Destination,
  ROUTE_DESTINATIONS_MAX,
  type Route,
} from '../../target/destination.js';
import { formatMac, parseMac } from '../../target/mac.js';
import type { Answer } from '../plugin.js';
import { lied } from './fault.js';
import { ADDRESS_CHARACTERS_MAX, PEERS_MAX, SAVED_CHARACTERS_MAX } from './protocol.js';

const words: readonly unknown[] = ['drop', 'unknown', 'proxy-arp', 'proxy-ndp', 'proxy-dhcp'];
const KEYS_MAX = 4;

/** Form only: whether the addresses are any, and the parts those of the encapsulation, is `checkRoute`'s. */
export function readAnswer(value: unknown): Answer {
  if (typeof value !== 'string') return readRoute(value);
  if (!words.includes(value)) throw lied(`'${value.slice(0, ADDRESS_CHARACTERS_MAX)}' is no answer`);
  return value as Answer;
}

/** See `readAnswer`. */
export function readRoute(value: unknown): Route {
  const route = recordOf(value);
  const key = 'replicate' in route ? 'replicate' : 'spread' in route ? 'spread' : undefined;
  if (key === undefined) return readDestination(route);
  checkKeys(route, [key]);
  const list = route[key];
  if (!Array.isArray(list)) throw lied(`${key} is no list`);
  if (list.length < 1 || list.length > ROUTE_DESTINATIONS_MAX) {
    throw lied(`${key} has ${list.length} destinations, it may have 1 to ${ROUTE_DESTINATIONS_MAX}`);
  }
  const destinations = Array.from(list, (one) => readDestination(recordOf(one)));
  return key === 'replicate' ? { replicate: destinations } : { spread: destinations };
}

/** See `readAnswer`. */
export function readDestination(value: unknown): Destination {
  const given = recordOf(value);
  checkKeys(given, ['mac', 'ip', 'port', 'options']);
  const { mac, ip, port, options } = given;
  return {
    ...(mac === undefined ? {} : { mac: readAddress(mac) }),
    ...(ip === undefined ? {} : { ip: readAddress(ip) }),
    ...(port === undefined ? {} : { port: readPort(port) }),
    ...(options === undefined ? {} : { options: readOptions(options) }),
  };
}

/** Answer of `arp` and `dhcp`, canonical. */
export function readMac(value: unknown): string | undefined {
  return value === undefined ? undefined : formatMac(parseMac(readAddress(value)));
}

/** Answer of `peers`, canonical. */
export function readPeers(value: unknown): readonly string[] {
  if (!Array.isArray(value)) throw lied('peers is no list');
  if (value.length > PEERS_MAX) throw lied(`peers has ${value.length} addresses, more than ${PEERS_MAX}`);
  return Array.from(value, (ip) => parseIp(readAddress(ip)));
}

/** JSON of what `save` gave; undefined for nothing. */
export function readSaved(value: unknown): string | undefined {
  if (value === undefined) return undefined;
  if (typeof value !== 'string') throw lied('save gave no JSON');
  if (value.length <= SAVED_CHARACTERS_MAX) return value;
  throw lied(`save gave ${value.length} characters of JSON, more than ${SAVED_CHARACTERS_MAX}`);
}

function readAddress(value: unknown): string {
  if (typeof value !== 'string') throw lied(`an address is text, not ${typeof value}`);
  if (value.length <= ADDRESS_CHARACTERS_MAX) return value;
  throw lied(`an address of ${value.length} characters is none`);
}

function readOptions(value: unknown): string {
  if (typeof value !== 'string') throw lied(`options are text, not ${typeof value}`);
  if (value.length <= DESTINATION_OPTIONS_BYTES_MAX) return value;
  throw lied(`options of ${value.length} characters are none`);
}

function readPort(value: unknown): number {
  if (typeof value === 'number') return value;
  throw lied(`a port is a number, not ${typeof value}`);
}

function recordOf(value: unknown): Readonly<Record<string, unknown>> {
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) {
    return value as Readonly<Record<string, unknown>>;
  }
  const shown = value === null ? 'null' : Array.isArray(value) ? 'a list' : typeof value;
  throw lied(`${shown} is neither a destination nor drop, unknown or one of the proxies`);
}

function checkKeys(value: Readonly<Record<string, unknown>>, allowed: readonly string[]): void {
  const keys = Object.keys(value);
  const strange = keys.find((key) => !allowed.includes(key));
  if (strange !== undefined || keys.length > KEYS_MAX) {
    const shown = String(strange).slice(0, ADDRESS_CHARACTERS_MAX);
    throw lied(
      `a destination has mac, ip, port and options, a list replicate or spread alone; not '${shown}'`,
    );
  }
}
