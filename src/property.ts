/**
 * Properties: one declaration feeds validation, the CLI's table and the API. Types, permissions, defaults and
 * possible values as illumos has them (its sections on properties are summed up in `src/overlay.ts`), with one
 * form of value for each type: `int` and `uint` are bigint, `ip`, `string` and `ether` are canonical text.
 */
import { OverlayError } from './errors.js';
import { parseIp } from './ip.js';
import { PROPERTY_VALUE_BYTES_MAX } from './limits.js';

export type PropertyType = 'int' | 'uint' | 'ip' | 'string' | 'ether';
export type PropertyValue = bigint | string;

/**
 * How a change comes into force on an activated device. live: at once. reopen: the device leaves the data path for the
 * moment of the change, and keeps the old value when it cannot come back with the new one. fixed: not at all (ENOTSUP).
 */
export type Applies = 'live' | 'reopen' | 'fixed';

/** A range of numbers, both ends included, or one string. */
export type Possible = { readonly min: bigint; readonly max: bigint } | string;

export interface PropertyInfo {
  readonly name: string;
  readonly type: PropertyType;
  /** The device cannot be activated without a value; a default is one. */
  readonly isRequired: boolean;
  readonly isReadable: boolean;
  readonly isWritable: boolean;
  /** `fixed` when it is not said. */
  readonly applies?: Applies;
  readonly default?: PropertyValue;
  readonly possible?: readonly Possible[];
  /** Longest text, when it is not PROPERTY_VALUE_BYTES_MAX - 1. */
  readonly bytesMax?: number;
  /** What to do for a number above `possible`, where something can be done: the end of a sentence. */
  readonly beyond?: string;
  /** Why a value of the right type and range is not acceptable, or undefined when it is. */
  readonly fault?: (value: PropertyValue) => string | undefined;
}

/** Of most properties of encapsulations and lookups: they can be set, and a device that is activated reopens for that. */
export const reopening = { isReadable: true, isWritable: true, applies: 'reopen' } as const;

const bounds: Record<'int' | 'uint', { min: bigint; max: bigint }> = {
  int: { min: -(2n ** 63n), max: 2n ** 63n - 1n },
  uint: { min: 0n, max: 2n ** 64n - 1n },
};

/**
 * The value that text or JSON stands for. Numbers are decimal, whole, without anything after them. Throws EINVAL
 * naming the property and what it may hold.
 */
export function parseProperty(info: PropertyInfo, input: unknown): PropertyValue {
  const value = parseType(info, input);
  const { possible } = info;
  if (possible && !possible.some((one) => isWithin(one, value))) {
    const isAbove = typeof value === 'bigint' && possible.every((one) => isBelow(one, value));
    const beyond = isAbove && info.beyond !== undefined ? `; ${info.beyond}` : '';
    throw badValue(info, input, `it may be ${formatPossible(possible)}${beyond}`);
  }
  const fault = info.fault?.(value);
  if (fault !== undefined) throw badValue(info, input, fault);
  return value;
}

function parseType(info: PropertyInfo, input: unknown): PropertyValue {
  // A number may have words that stand for one.
  if (typeof input === 'string' && info.possible?.includes(input)) return input;
  switch (info.type) {
    case 'int':
    case 'uint':
      return parseWhole(info, info.type, input);
    case 'ip':
      if (typeof input !== 'string') throw badValue(info, input, 'it is an IP address, as text');
      try {
        return parseIp(input);
      } catch {
        throw badValue(info, input, 'it is an IPv4 or IPv6 address');
      }
    case 'string':
      if (typeof input !== 'string' || input.length === 0 || input.includes('\0')) {
        throw badValue(info, input, 'it is text, not empty');
      }
      if (Buffer.byteLength(input) > (info.bytesMax ?? PROPERTY_VALUE_BYTES_MAX - 1)) {
        throw badValue(
          info,
          '...',
          `it is at most ${info.bytesMax ?? PROPERTY_VALUE_BYTES_MAX - 1} bytes long`,
        );
      }
      return input;
    case 'ether': {
      const octets = typeof input === 'string' ? input.toLowerCase().split(':') : [];
      if (octets.length !== 6 || octets.some((octet) => !/^[0-9a-f]{1,2}$/.test(octet))) {
        throw badValue(info, input, 'it is a MAC address such as 2:8:20:1:2:3');
      }
      return octets.map((octet) => octet.padStart(2, '0')).join(':');
    }
  }
}

function parseWhole(info: PropertyInfo, type: 'int' | 'uint', input: unknown): bigint {
  const isWhole =
    (typeof input === 'string' && /^-?\d{1,20}$/.test(input)) ||
    (typeof input === 'number' && Number.isSafeInteger(input));
  if (!isWhole) throw badValue(info, input, 'it is a whole decimal number');
  const value = BigInt(input);
  if (value < bounds[type].min || value > bounds[type].max) throw badValue(info, input, 'it is out of range');
  return value;
}

function isWithin(possible: Possible, value: PropertyValue): boolean {
  if (typeof possible === 'string') return possible === value;
  return typeof value === 'bigint' && value >= possible.min && value <= possible.max;
}

/** A word is below every number. */
function isBelow(possible: Possible, value: bigint): boolean {
  return typeof possible === 'string' || value > possible.max;
}

function badValue(info: PropertyInfo, input: unknown, remedy: string): OverlayError {
  const shown = typeof input === 'string' || typeof input === 'number' ? `'${input}'` : 'that';
  return new OverlayError(
    'EINVAL',
    'bad_property_value',
    `${info.name} cannot be ${shown.slice(0, PROPERTY_VALUE_BYTES_MAX)}: ${remedy}`,
  );
}

/** `576-8900`, `direct,files`: the POSSIBLE column. */
export function formatPossible(possible: readonly Possible[]): string {
  return possible.map((one) => (typeof one === 'string' ? one : `${one.min}-${one.max}`)).join(',');
}

/** JSON form: numbers above 2^53 as decimal strings. */
export function propertyToJson(value: PropertyValue | undefined): string | number | null {
  if (value === undefined) return null;
  if (typeof value === 'string') return value;
  return value >= -BigInt(Number.MAX_SAFE_INTEGER) && value <= BigInt(Number.MAX_SAFE_INTEGER)
    ? Number(value)
    : value.toString();
}

/** The values of one plugin instance, by the plugin's declarations. */
export class PropertyStore {
  readonly #values = new Map<string, PropertyValue>();

  constructor(readonly infos: readonly PropertyInfo[]) {}

  /** Throws ENOENT for a name that is not declared. */
  info(name: string): PropertyInfo {
    const info = this.infos.find((candidate) => candidate.name === name);
    if (!info) throw new OverlayError('ENOENT', 'no_such_property', `there is no property '${name}'`);
    return info;
  }

  /** The value set, else the default, else undefined. */
  get(name: string): PropertyValue | undefined {
    const info = this.info(name);
    return this.#values.get(name) ?? info.default;
  }

  /** Throws EINVAL for a bad value, EPERM for a property that cannot be written. */
  set(name: string, input: unknown): void {
    const info = this.info(name);
    if (!info.isWritable) {
      throw new OverlayError('EPERM', 'property_read_only', `property '${name}' cannot be set`);
    }
    this.#values.set(name, parseProperty(info, input));
  }

  /** What was set, by name; what has its default only is not in it. */
  get given(): ReadonlyMap<string, PropertyValue> {
    return new Map(this.#values);
  }

  /** Puts back what `given` gave. */
  reset(given: ReadonlyMap<string, PropertyValue>): void {
    this.#values.clear();
    for (const [name, value] of given) this.#values.set(name, value);
  }

  /** Names of required properties without a value. */
  missing(): string[] {
    return this.infos
      .filter(({ name, isRequired }) => isRequired && this.get(name) === undefined)
      .map((i) => i.name);
  }
}
