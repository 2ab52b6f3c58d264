/** What a restart must not lose of a device, and a device made anew from it. */
import type { Device } from '../device.js';
import { OverlayError } from '../errors.js';
import { MTU_MAX_BYTES, TARGETS_DEFAULT } from '../limits.js';
import { type OffloadSetting, offloadNames } from '../offload.js';
import { type PropertyInfo, type PropertyValue, parseProperty, propertyToJson } from '../property.js';
import type { DeviceRecord } from '../state/record.js';
import type { VarpdInstance } from '../varpd/varpd.js';
import type { Association } from './lookup.js';
import {
  type DeviceProperty,
  MTU_AUTO,
  mtuAsked,
  mtuInfo,
  mtuMaxInfo,
  negativeTtlInfo,
  netnsInfo,
  offloadInfo,
  pathMtuProbeInfo,
  propertyOf,
  targetsInfo,
  tcpMssInfo,
  tcpMssOf,
  underlayNetnsInfo,
} from './properties.js';
import type { Entry } from './setprop.js';

/** Of the generic properties, those that an operator sets, with where a device has them and what they are at first. */
interface Kept {
  readonly info: (device: Device) => PropertyInfo;
  readonly get: (device: Device) => PropertyValue;
  readonly set: (device: Device, value: PropertyValue) => void;
  readonly first: PropertyValue;
}

const kept: readonly Kept[] = [
  {
    info: () => mtuMaxInfo,
    get: ({ mtuMax }) => BigInt(mtuMax),
    set: (device, value) => {
      device.mtuMax = Number(value);
    },
    first: BigInt(MTU_MAX_BYTES),
  },
  {
    info: mtuInfo,
    get: mtuAsked,
    set: (device, value) => {
      device.isMtuAuto = value === MTU_AUTO;
      if (!device.isMtuAuto) device.mtu = Number(value);
    },
    first: MTU_AUTO,
  },
  {
    info: () => tcpMssInfo,
    get: ({ tcpMss }) => propertyOf(tcpMss),
    set: (device, value) => {
      device.tcpMss = tcpMssOf(value);
    },
    first: 'off',
  },
  {
    info: () => pathMtuProbeInfo,
    get: ({ probesPaths }) => (probesPaths ? 'on' : 'off'),
    set: (device, value) => {
      device.probesPaths = value === 'on';
    },
    first: 'off',
  },
  {
    info: () => targetsInfo,
    get: ({ targetsMax }) => BigInt(targetsMax),
    set: (device, value) => {
      device.targetsMax = Number(value);
    },
    first: BigInt(TARGETS_DEFAULT),
  },
  {
    info: () => negativeTtlInfo,
    get: ({ negativeTtl }) => BigInt(negativeTtl),
    set: (device, value) => {
      device.negativeTtl = Number(value);
    },
    first: 0n,
  },
  {
    info: () => netnsInfo,
    get: ({ netns }) => netns,
    set: (device, value) => {
      device.netns = String(value);
    },
    first: '',
  },
  {
    info: () => underlayNetnsInfo,
    get: ({ underlayNetns }) => underlayNetns,
    set: (device, value) => {
      device.underlayNetns = String(value);
    },
    first: '',
  },
  ...offloadNames.map((name) => ({
    info: () => offloadInfo(name),
    get: ({ offloads }: Device) => offloads[name],
    set: ({ offloads }: Device, value: PropertyValue) => {
      offloads[name] = value as OffloadSetting;
    },
    first: 'auto',
  })),
];

/** The record of a device as it is. */
export function recordOf({ device, lookup }: Entry): DeviceRecord {
  const { encap, name, vnetid, isActivated, properties, mac } = device;
  const generic = kept.flatMap(({ info, get, first }) => {
    const value = get(device);
    return value === first ? [] : [[info(device).name, json(value)] as const];
  });
  const given = [...properties.given, ...lookup.instance.lookup.properties.given];
  return {
    name,
    id: lookup.instance.id,
    encap: encap.name,
    search: lookup.instance.plugin.name,
    vnetid: String(vnetid),
    properties: Object.fromEntries([...generic, ...given.map(([key, value]) => [key, json(value)] as const)]),
    isActivated,
    mac: mac === '' ? null : mac,
    association: lookup.association ?? null,
    saved: savedOf(lookup.instance) ?? null,
  };
}

/** What the plugin wants kept; one that throws has nothing, which its own calls will show soon enough. */
function savedOf({ lookup }: VarpdInstance): unknown {
  try {
    return lookup.save?.();
  } catch {
    return undefined;
  }
}

/** Puts a record's properties into a device that nothing has been done with. Throws EINVAL naming the first bad one. */
export function applyRecord(record: DeviceRecord, device: Device, instance: VarpdInstance): void {
  for (const { info, set } of kept) {
    const declared = info(device);
    const value = record.properties[declared.name];
    if (value !== undefined) set(device, parseProperty(declared, value));
  }
  for (const [name, value] of Object.entries(record.properties)) {
    if (kept.some(({ info }) => info(device).name === name)) continue;
    if (device.encap.properties.includes(name))
      device.encap.operations.setprop(device.properties, name, value);
    else instance.lookup.properties.set(name, value);
  }
  if (record.saved !== null) instance.lookup.restore?.(record.saved);
}

/** An association as a record has it. Throws EINVAL for what is none. */
export function associationOf(record: DeviceRecord): Association | undefined {
  const association = record.association as Association | null;
  if (association === null) return undefined;
  if (association.mode === 'dynamic' || association.mode === 'point') return association;
  throw new OverlayError(
    'EINVAL',
    'bad_record',
    `${record.name}: its association is neither point nor dynamic`,
  );
}

/** A record with one property changed. */
export function changed(
  record: DeviceRecord,
  { info }: Pick<DeviceProperty, 'info'>,
  value: PropertyValue,
): DeviceRecord {
  if (info.name === 'vnetid') return { ...record, vnetid: String(value) };
  return { ...record, properties: { ...record.properties, [info.name]: json(value) } };
}

function json(value: PropertyValue): string | number {
  return propertyToJson(value) as string | number;
}
