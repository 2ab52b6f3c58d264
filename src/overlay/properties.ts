/** A device's whole property list: generic, the encap plugin's, `search`, the lookup plugin's. Ids are positions. */
import { TARGETS_MAX } from '../../assembly/layout.js';
import type { Device } from '../device.js';
import { vnetidRange } from '../encap/plugin.js';
import { OverlayError } from '../errors.js';
import {
  MTU_CEILING_BYTES,
  MTU_MAX_BYTES,
  MTU_MIN_BYTES,
  NEGATIVE_TTL_MAX,
  TARGETS_DEFAULT,
  TCP_MSS_MAX,
  TCP_MSS_MIN,
} from '../limits.js';
import { type OffloadName, offloadNames, offloadSettings } from '../offload.js';
import type { PropertyInfo, PropertyValue } from '../property.js';
import type { VarpdInstance } from '../varpd/varpd.js';
import { formatMtuSum } from './mtus.js';
import { namespaceNameFault } from './space.js';

export type Origin = 'generic' | 'encap' | 'lookup';

/** One property of one device. */
export interface DeviceProperty {
  readonly origin: Origin;
  readonly info: PropertyInfo;
  readonly value: PropertyValue | undefined;
  /** What was asked for, where the value follows from that: what sets it again. */
  readonly asked?: PropertyValue;
}

const fixed = { isReadable: true, isRequired: false };

/** What the underlay has room for. */
export const MTU_AUTO = 'auto';

/** Its upper bound is the device's `mtu_max`. */
export function mtuInfo({ mtuMax }: Pick<Device, 'mtuMax'>): PropertyInfo {
  return {
    ...fixed,
    name: 'mtu',
    type: 'uint',
    isWritable: true,
    applies: 'live',
    default: MTU_AUTO,
    possible: [{ min: BigInt(MTU_MIN_BYTES), max: BigInt(mtuMax) }, MTU_AUTO],
    ...(mtuMax < MTU_CEILING_BYTES
      ? { beyond: `for more, set mtu_max first (up to ${MTU_CEILING_BYTES})` }
      : {}),
  };
}

export const mtuMaxInfo: PropertyInfo = {
  ...fixed,
  name: 'mtu_max',
  type: 'uint',
  isWritable: true,
  applies: 'live',
  default: BigInt(MTU_MAX_BYTES),
  possible: [{ min: BigInt(MTU_MIN_BYTES), max: BigInt(MTU_CEILING_BYTES) }],
};

export const tcpMssInfo: PropertyInfo = {
  ...fixed,
  name: 'tcp_mss',
  type: 'uint',
  isWritable: true,
  applies: 'live',
  default: 'off',
  possible: ['off', 'auto', { min: BigInt(TCP_MSS_MIN), max: BigInt(TCP_MSS_MAX) }],
};

/** A value of `tcp_mss` as a device has it. */
export function tcpMssOf(value: PropertyValue): Device['tcpMss'] {
  return value === 'off' || value === 'auto' ? value : Number(value);
}

/** Whether hosts are asked how large a packet arrives. */
export const pathMtuProbeInfo: PropertyInfo = {
  ...fixed,
  name: 'path_mtu_probe',
  type: 'string',
  isWritable: true,
  applies: 'live',
  default: 'off',
  possible: ['off', 'on'],
};

/** A vnetid's bounds follow the encapsulation. */
export function vnetidInfo(device: Pick<Device, 'encap'>): PropertyInfo {
  const possible = [vnetidRange(device.encap)];
  return { ...fixed, name: 'vnetid', type: 'uint', isWritable: true, applies: 'reopen', possible };
}

/** Where the link is. It is moved there at once, and not once the device is activated. */
export const netnsInfo: PropertyInfo = {
  ...fixed,
  name: 'netns',
  type: 'string',
  isWritable: true,
  applies: 'fixed',
  fault: (value) => namespaceNameFault(String(value)),
};

/** Where the underlay's sockets are opened. */
export const underlayNetnsInfo: PropertyInfo = {
  ...fixed,
  name: 'underlay_netns',
  type: 'string',
  isWritable: true,
  applies: 'reopen',
  fault: (value) => namespaceNameFault(String(value)),
};

/** One of an offload's. */
export function offloadInfo(name: OffloadName): PropertyInfo {
  return {
    ...fixed,
    name,
    type: 'string',
    isWritable: true,
    applies: 'live',
    default: 'auto',
    possible: offloadSettings,
  };
}

export const targetsInfo: PropertyInfo = {
  ...fixed,
  name: 'targets',
  type: 'uint',
  isWritable: true,
  applies: 'live',
  default: BigInt(TARGETS_DEFAULT),
  possible: [{ min: 1n, max: BigInt(TARGETS_MAX) }],
};

export const negativeTtlInfo: PropertyInfo = {
  ...fixed,
  name: 'negative_ttl',
  type: 'uint',
  isWritable: true,
  applies: 'live',
  default: 0n,
  possible: [{ min: 0n, max: BigInt(NEGATIVE_TTL_MAX) }],
};

/** Every property in the order of `show-overlay`. What only a DYNAMIC device has comes last. */
export function deviceProperties(
  device: Device,
  instance: VarpdInstance,
  encaps: readonly string[],
  lookups: readonly string[],
): DeviceProperty[] {
  const readOnly = { ...fixed, isWritable: false };
  const { encap, properties } = device;
  const lookup = instance.lookup.properties;
  return [
    { origin: 'generic', info: mtuInfo(device), value: BigInt(device.mtu), asked: mtuAsked(device) },
    { origin: 'generic', info: vnetidInfo(device), value: device.vnetid },
    {
      origin: 'generic',
      info: { ...readOnly, name: 'encap', type: 'string', possible: encaps },
      value: encap.name,
    },
    {
      origin: 'generic',
      info: { ...readOnly, name: 'varpd/id', type: 'uint' },
      value: instance.isActive ? BigInt(instance.id) : undefined,
    },
    ...encap.properties.map((name) => ({
      origin: 'encap' as const,
      info: encap.operations.propinfo(name),
      value: encap.operations.getprop(properties, name),
    })),
    {
      origin: 'generic',
      info: { ...readOnly, name: 'search', type: 'string', possible: lookups },
      value: instance.plugin.name,
    },
    ...lookup.infos.map((info) => ({ origin: 'lookup' as const, info, value: lookup.get(info.name) })),
    { origin: 'generic', info: mtuMaxInfo, value: BigInt(device.mtuMax) },
    {
      origin: 'generic',
      info: { ...readOnly, name: 'mtu_sum', type: 'string' },
      value: formatMtuSum(device),
    },
    { origin: 'generic', info: tcpMssInfo, value: propertyOf(device.tcpMss) },
    { origin: 'generic', info: pathMtuProbeInfo, value: device.probesPaths ? 'on' : 'off' },
    { origin: 'generic', info: netnsInfo, value: device.netns || undefined },
    { origin: 'generic', info: underlayNetnsInfo, value: device.underlayNetns || undefined },
    ...offloadNames.map((name) => ({
      origin: 'generic' as const,
      info: offloadInfo(name),
      value: device.offloads[name],
    })),
    ...(instance.plugin.mode === 'point'
      ? []
      : [
          { origin: 'generic' as const, info: targetsInfo, value: BigInt(device.targetsMax) },
          { origin: 'generic' as const, info: negativeTtlInfo, value: BigInt(device.negativeTtl) },
        ]),
  ];
}

/** A device's number, or the word in place of it, as the value of a property. */
export function propertyOf(value: string | number): PropertyValue {
  return typeof value === 'number' ? BigInt(value) : value;
}

/** The `mtu` that was asked for. */
export function mtuAsked({ isMtuAuto, mtu }: Pick<Device, 'isMtuAuto' | 'mtu'>): PropertyValue {
  return isMtuAuto ? MTU_AUTO : BigInt(mtu);
}

/** The property of that name or id. Throws ENOENT for an unknown name, EINVAL for an id that is none. */
export function findProperty(
  properties: readonly DeviceProperty[],
  nameOrId: string | number,
): DeviceProperty {
  if (typeof nameOrId === 'number') {
    const property = properties[nameOrId];
    if (Number.isInteger(nameOrId) && property) return property;
    throw new OverlayError(
      'EINVAL',
      'bad_property_id',
      `property id ${nameOrId} is not 0 to ${properties.length - 1}`,
    );
  }
  const property = properties.find(({ info }) => info.name === nameOrId);
  if (property) return property;
  throw new OverlayError('ENOENT', 'no_such_property', `there is no property '${nameOrId}'`);
}
