/** What all encapsulations have in common: where they listen, what the outer IP header says, and who may send to them. */
import { OverlayError } from '../errors.js';
import { endpointFault } from '../ip.js';
import { DEVICE_NAME_BYTES_MAX } from '../limits.js';
import { type PropertyInfo, PropertyStore, reopening } from '../property.js';
import { socketDefault } from '../sys/socket-settings.js';
import { type EncapOperations, type OuterHeader, outerDefault } from './plugin.js';

const INHERIT = 'inherit';
const ANY_DEVICE = 'any';
const DSCP_MAX = 63;
/** `<encap>/listen_ip`. */
export function listenInfo(encap: string): PropertyInfo {
  return {
    ...reopening,
    name: `${encap}/listen_ip`,
    type: 'ip',
    isRequired: true,
    fault: (value) => endpointFault(String(value), false),
  };
}

/** `<encap>/ttl`, `dscp`, `ecn`, `source_check`, `reserved`, `inner_to_mux`, `mark` and `device`. */
export function outerInfos(encap: string): PropertyInfo[] {
  return [
    {
      ...reopening,
      name: `${encap}/ttl`,
      type: 'uint',
      isRequired: false,
      default: BigInt(outerDefault.ttl),
      possible: [{ min: 1n, max: 255n }],
    },
    {
      ...reopening,
      name: `${encap}/dscp`,
      type: 'string',
      isRequired: false,
      default: String(outerDefault.dscp),
      fault: (value) => dscpFault(String(value)),
    },
    {
      ...reopening,
      name: `${encap}/ecn`,
      type: 'string',
      isRequired: false,
      default: outerDefault.ecn,
      possible: ['copy', 'clear'],
    },
    {
      ...reopening,
      name: `${encap}/source_check`,
      type: 'string',
      isRequired: false,
      applies: 'live',
      default: 'auto',
      possible: ['auto', 'off', 'known', 'strict'],
    },
    {
      ...reopening,
      name: `${encap}/reserved`,
      type: 'string',
      isRequired: false,
      default: outerDefault.reserved,
      possible: ['ignore', 'drop'],
    },
    {
      ...reopening,
      name: `${encap}/inner_to_mux`,
      type: 'string',
      isRequired: false,
      applies: 'live',
      default: outerDefault.innerToMux,
      possible: ['drop', 'pass'],
    },
    {
      ...reopening,
      name: `${encap}/mark`,
      type: 'uint',
      isRequired: false,
      default: BigInt(socketDefault.mark),
      possible: [{ min: 0n, max: 0xffffffffn }],
    },
    {
      ...reopening,
      name: `${encap}/device`,
      type: 'string',
      isRequired: false,
      default: ANY_DEVICE,
      fault: (value) => deviceFault(String(value)),
    },
  ];
}

function deviceFault(name: string): string | undefined {
  return Buffer.byteLength(name) <= DEVICE_NAME_BYTES_MAX && !/[/:\s]/.test(name)
    ? undefined
    : `it is the name of a network device, or ${ANY_DEVICE}`;
}

function dscpFault(text: string): string | undefined {
  const isNumber = /^\d{1,2}$/.test(text) && Number(text) <= DSCP_MAX;
  return isNumber || text === INHERIT
    ? undefined
    : `it may be 0-${DSCP_MAX}, or ${INHERIT} for that of the inner header`;
}

/** The operations on properties, of an encapsulation that has `listenInfo` and `outerInfos` among them. */
export function outerOperations(
  encap: string,
  infos: readonly PropertyInfo[],
): Omit<EncapOperations, 'encap' | 'decap'> {
  const portName = infos.find(({ name }) => name === `${encap}/listen_port`)?.name;
  return {
    init: () => new PropertyStore(infos),
    fini: () => {},
    socket: (properties) => {
      const ip = properties.get(`${encap}/listen_ip`);
      if (typeof ip !== 'string') {
        throw new OverlayError('EINVAL', 'property_missing', `${encap}/listen_ip is not set`);
      }
      return { ip, port: portName === undefined ? 0 : Number(properties.get(portName)) };
    },
    outer: (properties) => {
      const dscp = String(properties.get(`${encap}/dscp`));
      return {
        ttl: Number(properties.get(`${encap}/ttl`)),
        dscp: dscp === INHERIT ? INHERIT : Number(dscp),
        ecn: properties.get(`${encap}/ecn`) as OuterHeader['ecn'],
        reserved: properties.get(`${encap}/reserved`) as OuterHeader['reserved'],
        innerToMux: properties.get(`${encap}/inner_to_mux`) as OuterHeader['innerToMux'],
      };
    },
    sockets: (properties) => {
      const device = String(properties.get(`${encap}/device`));
      return {
        ...socketDefault,
        mark: Number(properties.get(`${encap}/mark`)),
        device: device === ANY_DEVICE ? '' : device,
      };
    },
    getprop: (properties, name) => properties.get(name),
    setprop: (properties, name, value) => properties.set(name, value),
    propinfo: (name) => new PropertyStore(infos).info(name),
  };
}
