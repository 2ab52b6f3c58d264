/** Whether what was read is a device's record. */
import { DEVICE_NAME_BYTES_MAX } from '../limits.js';
import type { DeviceRecord } from './record.js';

/**
 * Names that are safe as names of files: the rule for devices (`src/device.ts`, above this room) holds fewer. None
 * begins with a dot, and none is as long as what is appended to a file that was set aside.
 */
const nameRule = new RegExp(`^[A-Za-z0-9_-][A-Za-z0-9_.-]{0,${DEVICE_NAME_BYTES_MAX - 1}}$`);

export function isName(value: unknown): value is string {
  return typeof value === 'string' && nameRule.test(value);
}

/** Each field with what it may be. One that is not here is refused, so that nothing is lost unseen. */
const fields: { readonly [field in keyof DeviceRecord]: (value: unknown) => boolean } = {
  name: isName,
  id: (value) => Number.isSafeInteger(value) && Number(value) > 0,
  encap: isText,
  search: isText,
  vnetid: (value) => typeof value === 'string' && /^\d{1,20}$/.test(value),
  properties: (value) =>
    isObject(value) && Object.values(value).every((one) => typeof one === 'string' || Number.isFinite(one)),
  isActivated: (value) => typeof value === 'boolean',
  mac: (value) => value === null || isMac(value),
  association: isJson,
  saved: isJson,
};

/** Why a value is no record, or undefined: then it is one. */
export function recordFault(value: unknown): string | undefined {
  if (!isObject(value)) return 'it holds no record';
  for (const [field, isGood] of Object.entries(fields)) {
    if (!Object.hasOwn(value, field)) return `${field} is missing`;
    if (!isGood(value[field])) return `${field} is not what it may be`;
  }
  const extra = Object.keys(value).find((field) => !Object.hasOwn(fields, field));
  return extra === undefined ? undefined : `${extra.slice(0, 64)} is unknown`;
}

export function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function isText(value: unknown): boolean {
  return typeof value === 'string' && value.length > 0;
}

function isJson(value: unknown): boolean {
  return value !== undefined;
}

/** In the canonical form only, so that one address has one text. */
function isMac(value: unknown): boolean {
  return typeof value === 'string' && /^(?:[0-9a-f]{2}:){5}[0-9a-f]{2}$/.test(value);
}
