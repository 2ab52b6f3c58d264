/**
 * Encap plugins answer the first question: how is a frame transformed to go on the wire? What decides per frame is in
 * `assembly/encap/`; a plugin here declares it, holds its properties and builds header templates. The checks are
 * those of illumos' registration (API version 1).
 */
import { OverlayError } from '../errors.js';
import { PLUGIN_NAME_BYTES_MAX, PROPERTY_NAME_BYTES_MAX, VNETID_BYTES_MAX } from '../limits.js';
import type { PropertyInfo, PropertyStore } from '../property.js';
import type { SocketSettings } from '../sys/socket-settings.js';

export const ENCAP_VERSION = 1;
/** Flag: inner VLAN tags are carried, so frames may be four bytes longer. */
export const ENCAP_FLAG_VLAN_TAG = 1;

/** What a lookup must supply for a destination, as bits. */
export const DESTINATION_ETHERNET = 1;
export const DESTINATION_IP = 2;
export const DESTINATION_PORT = 4;
const DESTINATION_ALL = DESTINATION_ETHERNET | DESTINATION_IP | DESTINATION_PORT;

/** What a datagram is to the IP layer: one of UDP, or one of GRE (IP protocol 47), which has no ports. */
export type Transport = 'udp' | 'gre';

/** Fields of the outer IP header that are a device's own. */
export interface OuterHeader {
  /** TTL or hop limit, 1 to 255. */
  readonly ttl: number;
  /** 0 to 63 (RFC 2474), or that of the inner header. */
  readonly dscp: number | 'inherit';
  /** The ECN field is that of the inner header, or Not-ECT (RFC 6040 section 4.1). */
  readonly ecn: 'copy' | 'clear';
  /** Whether what is received with reserved bits that are not zero is dropped. */
  readonly reserved: 'ignore' | 'drop';
  /** Whether a received frame whose packet is for a socket of this daemon is dropped. */
  readonly innerToMux: 'drop' | 'pass';
}

export const outerDefault: OuterHeader = {
  ttl: 64,
  dscp: 0,
  ecn: 'copy',
  reserved: 'ignore',
  innerToMux: 'drop',
};

/** The operations; all but `sockopt`, `outer` and `sockets` must be there. */
export interface EncapOperations {
  /** Values of a new device's properties. Throws an OverlayError to refuse the device. */
  init(): PropertyStore;
  /** The device is gone. */
  fini(properties: PropertyStore): void;
  /**
   * Outer header for the vnetid: the template the core copies. Throws EINVAL for options that it does not take.
   * @param options of one destination, in place of those that a property sets
   */
  encap(vnetid: bigint, properties: PropertyStore, options?: string): Uint8Array;
  /** What the core's decap makes of a datagram, for self-tests and for people; undefined when it is not valid. */
  decap(datagram: Uint8Array): { vnetid: bigint; headerBytes: number } | undefined;
  /** Where the device listens. Throws EINVAL when a property it needs is unset. */
  socket(properties: PropertyStore): { ip: string; port: number };
  getprop(properties: PropertyStore, name: string): ReturnType<PropertyStore['get']>;
  setprop(properties: PropertyStore, name: string, value: unknown): void;
  /** Static: no device is needed. Throws ENOENT for a name that is not the plugin's. */
  propinfo(name: string): PropertyInfo;
  /** What the outer IP header says; `outerDefault` where it is left out. */
  outer?(properties: PropertyStore): OuterHeader;
  /** What the sockets are like; `socketDefault` where it is left out. */
  sockets?(properties: PropertyStore): SocketSettings;
  /** Further socket options, once for each mux. */
  sockopt?(fd: number): void;
}

export interface EncapPlugin {
  readonly version: number;
  readonly name: string;
  /** Size of the vnetid on the wire, 1 to 8 bytes. */
  readonly idBytes: number;
  /** Those a device may have; all that `idBytes` can say when it is left out. */
  readonly vnetids?: { readonly min: bigint; readonly max: bigint };
  /** `udp` when it is left out. */
  readonly transport?: Transport;
  readonly flags: number;
  /** DESTINATION_ bits. */
  readonly destinations: number;
  /** ENCAP_ number of the core's part. */
  readonly core: number;
  /** Names in the order in which they are shown. */
  readonly properties: readonly string[];
  readonly operations: EncapOperations;
}

const operationNames = [
  'init',
  'fini',
  'encap',
  'decap',
  'socket',
  'getprop',
  'setprop',
  'propinfo',
] as const;
const optionalNames = ['sockopt', 'outer', 'sockets'];
const nameRule = `the name is 1 to ${PLUGIN_NAME_BYTES_MAX} bytes without '/'`;

/** Lowest and highest vnetid of an encapsulation. */
export function vnetidRange(plugin: EncapPlugin): { min: bigint; max: bigint } {
  return plugin.vnetids ?? { min: 0n, max: highestOf(plugin.idBytes) };
}

function highestOf(idBytes: number): bigint {
  return 2n ** BigInt(8 * idBytes) - 1n;
}

/** Throws EINVAL or ENOTSUP naming what is wrong with a plugin's declaration. */
export function checkEncapPlugin(plugin: EncapPlugin): void {
  const refuse = (errno: 'EINVAL' | 'ENOTSUP', what: string): never => {
    throw new OverlayError(errno, 'bad_encap_plugin', `encap plugin '${String(plugin.name)}': ${what}`);
  };
  const { version, name, idBytes, flags, destinations, operations } = plugin;
  if (version !== ENCAP_VERSION) refuse('EINVAL', `version is ${version}, it must be ${ENCAP_VERSION}`);
  if (!isPluginName(name)) refuse('EINVAL', nameRule);
  if (!operations) refuse('EINVAL', 'operations are missing');
  if ((flags & ~ENCAP_FLAG_VLAN_TAG) !== 0) refuse('EINVAL', `flags ${flags} are not all known`);
  if (!Number.isInteger(idBytes) || idBytes < 1) refuse('EINVAL', 'the vnetid has at least 1 byte');
  if (idBytes > VNETID_BYTES_MAX) refuse('ENOTSUP', `the vnetid has at most ${VNETID_BYTES_MAX} bytes`);
  if (destinations === 0 || (destinations & ~DESTINATION_ALL) !== 0) {
    refuse('EINVAL', `destination kinds ${destinations} are none or not all known`);
  }
  const { min, max } = vnetidRange(plugin);
  if (min < 0n || min > max || max > highestOf(idBytes)) {
    refuse('EINVAL', `vnetids ${min}-${max} do not fit into ${idBytes} bytes`);
  }
  for (const operation of operationNames) {
    if (typeof operations[operation] !== 'function') refuse('EINVAL', `operation ${operation} is missing`);
  }
  for (const operation of Object.keys(operations)) {
    if (!(operationNames as readonly string[]).includes(operation) && !optionalNames.includes(operation)) {
      refuse('EINVAL', `operation ${operation} is not known`);
    }
  }
  for (const property of plugin.properties) {
    if (Buffer.byteLength(property) > PROPERTY_NAME_BYTES_MAX) {
      refuse('EINVAL', `a property name is at most ${PROPERTY_NAME_BYTES_MAX} bytes`);
    }
    operations.propinfo(property);
  }
}

/** Throws EINVAL for options of a destination, of an encapsulation that has none. */
export function refuseOptions(encap: string, options: string | undefined): void {
  if (options === undefined) return;
  throw new OverlayError(
    'EINVAL',
    'bad_destination',
    `a destination has options, and ${encap} has none: leave them out`,
  );
}

/** Throws EINVAL for a name that no encap plugin can have. */
export function checkEncapName(name: string): void {
  if (isPluginName(name)) return;
  throw new OverlayError('EINVAL', 'bad_encap_name', `this cannot be an encap plugin: ${nameRule}`);
}

/** Rule for encap and lookup plugin names. */
export function isPluginName(name: unknown): name is string {
  return (
    typeof name === 'string' &&
    name.length > 0 &&
    Buffer.byteLength(name) <= PLUGIN_NAME_BYTES_MAX &&
    !/[/\0]/.test(name)
  );
}
