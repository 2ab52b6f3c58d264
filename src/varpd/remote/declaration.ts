/**
 * What a plugin says it is, as data that crosses between threads. It is asked once, for every combination of
 * destination kinds, so that main can create instances and check properties without the thread.
 */
import { isPluginName } from '../../encap/plugin.js';
import { OverlayError } from '../../errors.js';
import { PROPERTY_NAME_BYTES_MAX } from '../../limits.js';
import {
  type Possible,
  type PropertyInfo,
  type PropertyType,
  type PropertyValue,
  parseProperty,
} from '../../property.js';
import { LOOKUP_VERSION, type LookupInstance, type LookupPlugin } from '../plugin.js';
import { faultOf } from './fault.js';
import { type Fault, TEXT_MAX } from './protocol.js';

/** Every combination of DESTINATION_ bits is 1 to this. */
export const KINDS_MAX = 7;
/** Properties of one plugin, and what one of them may be; both are shown to people. */
const PROPERTIES_MAX = 64;
const POSSIBLE_MAX = 256;

const optionalFunctions = ['point', 'lookup', 'arp', 'dhcp', 'peers', 'save', 'restore'] as const;
export type OptionalFunction = (typeof optionalFunctions)[number];

/** A plugin for one combination of destination kinds. */
export interface KindDeclaration {
  readonly infos: readonly PropertyInfo[];
  readonly functions: readonly OptionalFunction[];
}

export interface Declaration {
  readonly name: string;
  readonly mode: 'point' | 'dynamic';
  /** Of DESTINATION_ bits 1 to 7, in this order; a fault where the plugin cannot supply them. */
  readonly kinds: readonly (KindDeclaration | { readonly fault: Fault })[];
}

/** The plugin among a module's exports, `plugin` or the default one. Throws EINVAL for a bad declaration. */
export function pluginOf(exports: Readonly<Record<string, unknown>>): LookupPlugin {
  const found = exports.plugin ?? exports.default;
  if (typeof found !== 'object' || found === null) {
    throw badDeclaration("the module exports no object as 'plugin' or as its default");
  }
  const plugin = found as LookupPlugin;
  const { version, name, mode } = plugin;
  if (version !== LOOKUP_VERSION) {
    throw badDeclaration(`version is ${show(version)}, it must be ${LOOKUP_VERSION}`);
  }
  if (!isPluginName(name)) throw badDeclaration("the name is 1 to 31 bytes without '/'");
  if (mode !== 'point' && mode !== 'dynamic') throw badDeclaration('mode is neither point nor dynamic');
  for (const key of ['properties', 'create'] as const) {
    if (typeof plugin[key] !== 'function') throw badDeclaration(`${key} is no function`);
  }
  return plugin;
}

/** Throws EINVAL for a bad declaration. `create` is called for every combination; nothing is started. */
export function declarationOf(plugin: LookupPlugin): Declaration {
  const { name, mode } = plugin;
  const kinds = Array.from({ length: KINDS_MAX }, (_, index) => kindOf(plugin, index + 1));
  const faults = kinds.flatMap((kind) => ('fault' in kind ? [kind.fault.message] : []));
  if (faults.length === kinds.length) {
    throw badDeclaration(`it can supply no kind of destination: ${faults[0]}`);
  }
  return { name, mode, kinds };
}

function kindOf(plugin: LookupPlugin, destinations: number): KindDeclaration | { fault: Fault } {
  let instance: LookupInstance;
  try {
    instance = plugin.create(destinations);
  } catch (error) {
    const fault = faultOf(error);
    if (fault.errno === 'ENOTSUP') return { fault };
    throw badDeclaration(`create(${destinations}) failed with something else than ENOTSUP: ${fault.message}`);
  }
  if (typeof instance !== 'object' || instance === null) throw badDeclaration('create gave no object');
  for (const key of ['start', 'stop'] as const) {
    if (typeof instance[key] !== 'function') throw badDeclaration(`${key} of an instance is no function`);
  }
  const needed = plugin.mode === 'point' ? 'point' : 'lookup';
  if (typeof instance[needed] !== 'function') {
    throw badDeclaration(`an instance of a ${plugin.mode} plugin needs the function ${needed}`);
  }
  const infos = infosOf(instance);
  checkNames(plugin.properties(destinations), infos);
  const functions = optionalFunctions.filter((key) => instance[key] !== undefined);
  const odd = functions.find((key) => typeof instance[key] !== 'function');
  if (odd) throw badDeclaration(`${odd} of an instance is no function`);
  return { infos, functions };
}

function infosOf({ properties }: LookupInstance): PropertyInfo[] {
  if (typeof properties !== 'object' || properties === null || typeof properties.set !== 'function') {
    throw badDeclaration('properties of an instance is no PropertyStore');
  }
  const infos: unknown = properties.infos;
  if (!Array.isArray(infos) || infos.length > PROPERTIES_MAX) {
    throw badDeclaration(`a plugin has a list of at most ${PROPERTIES_MAX} properties`);
  }
  const copies = infos.map(infoOf);
  if (new Set(copies.map(({ name }) => name)).size < copies.length) {
    throw badDeclaration('two properties have one name');
  }
  return copies;
}

const types: readonly PropertyType[] = ['int', 'uint', 'ip', 'string', 'ether'];

/** `fault` stays behind: it runs in the thread when the instance is started. */
function infoOf(given: unknown): PropertyInfo {
  if (typeof given !== 'object' || given === null) throw badDeclaration('a property is no object');
  const { name, type, isRequired, isReadable, isWritable, possible, ...rest } = given as PropertyInfo;
  if (typeof name !== 'string' || name === '' || Buffer.byteLength(name) > PROPERTY_NAME_BYTES_MAX) {
    throw badDeclaration(`a property's name is 1 to ${PROPERTY_NAME_BYTES_MAX} bytes`);
  }
  if (!types.includes(type)) throw badDeclaration(`property ${name} has an unknown type`);
  for (const flag of [isRequired, isReadable, isWritable]) {
    if (typeof flag !== 'boolean') throw badDeclaration(`a flag of property ${name} is not true or false`);
  }
  const info: PropertyInfo = {
    name,
    type,
    isRequired,
    isReadable,
    isWritable,
    ...(possible === undefined ? {} : { possible: possibleOf(name, possible) }),
    ...(rest.applies === undefined ? {} : { applies: appliesOf(name, rest.applies) }),
  };
  if (rest.default === undefined) return info;
  return { ...info, default: defaultOf(info, rest.default) };
}

function appliesOf(name: string, given: unknown): 'reopen' | 'fixed' {
  if (given === 'reopen' || given === 'fixed') return given;
  throw badDeclaration(`a change of property ${name} applies by 'reopen' or is 'fixed'`);
}

function possibleOf(name: string, given: unknown): Possible[] {
  if (!Array.isArray(given) || given.length < 1 || given.length > POSSIBLE_MAX) {
    throw badDeclaration(`what property ${name} may be is a list of 1 to ${POSSIBLE_MAX}`);
  }
  return given.map((one: unknown) => {
    if (typeof one === 'string') return one.slice(0, TEXT_MAX);
    const { min, max } = (typeof one === 'object' ? (one ?? {}) : {}) as Record<string, unknown>;
    if (typeof min === 'bigint' && typeof max === 'bigint') return { min, max };
    throw badDeclaration(`what property ${name} may be is text or a range of two bigints`);
  });
}

function defaultOf(info: PropertyInfo, given: unknown): PropertyValue {
  const isWhole = info.type === 'int' || info.type === 'uint';
  try {
    if (typeof given === (isWhole ? 'bigint' : 'string')) return parseProperty(info, String(given));
  } catch (error) {
    throw badDeclaration(`the default of property ${info.name} is not possible: ${faultOf(error).message}`);
  }
  throw badDeclaration(`the default of property ${info.name} is no ${isWhole ? 'bigint' : 'text'}`);
}

function checkNames(names: unknown, infos: readonly PropertyInfo[]): void {
  const isSame =
    Array.isArray(names) &&
    names.length === infos.length &&
    infos.every(({ name }, index) => names[index] === name);
  if (!isSame) throw badDeclaration("properties() does not name those of the instance's store, in its order");
}

function badDeclaration(what: string): OverlayError {
  return new OverlayError('EINVAL', 'bad_lookup_plugin', what.slice(0, TEXT_MAX));
}

function show(value: unknown): string {
  return typeof value === 'object' ? 'an object' : String(value).slice(0, TEXT_MAX);
}
