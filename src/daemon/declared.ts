/** Overlays that the configuration declares, and what can be said of them without starting anything. */
import { z } from 'zod';
import { checkDeviceName, Device } from '../device.js';
import { EncapRegistry } from '../encap/registry.js';
import { OverlayError } from '../errors.js';
import { MTU_DEFAULT_BYTES } from '../limits.js';
import { type DeviceProperty, deviceProperties, vnetidInfo } from '../overlay/properties.js';
import { parseProperty } from '../property.js';
import { Varpd, type VarpdInstance } from '../varpd/varpd.js';
import type { Path } from './config-file.js';

/** Overlays in one configuration. */
export const OVERLAYS_MAX = 4096;
/** Properties of one of them: several times what there are. */
const PROPERTIES_MAX = 256;

/** One overlay of the configuration. */
export interface Declared {
  readonly encap: string;
  readonly search: string;
  readonly vnetid: string | number;
  readonly properties: Readonly<Record<string, string | number>>;
  /** It is not kept over a restart by the daemon itself; the configuration declares it again anyway. */
  readonly temporary?: boolean | undefined;
}

/** By name, in the order of the file. */
export type DeclaredOverlays = ReadonlyMap<string, Declared>;

const says = (what: string) => ({
  error: ({ input }: { input?: unknown }) => (input === undefined ? 'it is missing' : `it is ${what}`),
});
const text = z.string(says('text')).min(1, 'it is empty').max(1024, 'it is too long');
const number = z.union([text, z.number()], says('text or a number'));
/** YAML reads `yes` and `true` as a boolean where a property is `on` or `off`. */
const value = z.union(
  [text, z.number(), z.boolean().transform((isOn) => (isOn ? 'on' : 'off'))],
  says('text, a number, or true or false for on or off'),
);

const declared = z.strictObject(
  {
    encap: text,
    search: text,
    vnetid: number,
    properties: z
      .record(z.string(), value, says('a map of properties'))
      .refine(
        (all) => Object.keys(all).length <= PROPERTIES_MAX,
        `it has at most ${PROPERTIES_MAX} properties`,
      )
      .default({}),
    temporary: z.boolean(says('true or false')).optional(),
  },
  {
    error: (issue) =>
      issue.code === 'unrecognized_keys'
        ? undefined
        : 'it is an overlay: encap, search, vnetid, and if wanted properties and temporary',
  },
);

/** `overlays:` of the configuration. */
export const declaredOverlays = z
  .record(z.string(), declared, says('a map of overlays'))
  .refine((all) => Object.keys(all).length <= OVERLAYS_MAX, `there are at most ${OVERLAYS_MAX} overlays`)
  .transform((all): DeclaredOverlays => new Map(Object.entries(all)))
  .default(new Map());

export interface DeclarationFault {
  /** From the overlay's name on. */
  readonly path: Path;
  readonly text: string;
}

/**
 * Everything that would be refused whatever the state of the host: names, vnetids out of range or used twice, plugins and
 * properties that are not there, values, and required properties without one.
 *
 * @param hasPlugins lookup plugins of others will be loaded: their names and properties are not known here
 */
export function checkDeclared(overlays: DeclaredOverlays, hasPlugins: boolean): DeclarationFault[] {
  const encaps = new EncapRegistry();
  const varpd = new Varpd();
  const holders = new Map<string, string>();
  return [...overlays].flatMap(([name, overlay]) => {
    const faults: DeclarationFault[] = [];
    const attempt = <T>(path: Path, work: () => T): T | undefined => {
      try {
        return work();
      } catch (error) {
        if (!(error instanceof OverlayError)) throw error;
        faults.push({ path: [name, ...path], text: error.message });
        return undefined;
      }
    };
    attempt([], () => checkDeviceName(name));
    const encap = attempt(['encap'], () => encaps.get(overlay.encap));
    if (!encap) return faults;
    const isForeign = hasPlugins && !varpd.pluginNames.includes(overlay.search);
    const instance = isForeign
      ? undefined
      : attempt(['search'], () => varpd.create(overlay.search, encap.destinations));
    const vnetid = attempt(['vnetid'], () => parseProperty(vnetidInfo({ encap }), overlay.vnetid));
    const holder = holders.get(`${overlay.encap} ${vnetid}`);
    if (holder !== undefined) {
      faults.push({ path: [name, 'vnetid'], text: `vnetid ${vnetid} is that of overlay '${holder}'` });
    } else if (vnetid !== undefined) {
      holders.set(`${overlay.encap} ${vnetid}`, name);
    }
    if (!instance && !isForeign) return faults;
    const device = new Device(name, encap, encap.operations.init(), 0, 0n, MTU_DEFAULT_BYTES);
    const known = instance ?? varpd.create('external', encap.destinations);
    checkProperties(device, known, overlay, isForeign, attempt);
    encap.operations.fini(device.properties);
    return faults;
  });
}

type Attempt = <T>(path: Path, work: () => T) => T | undefined;

function checkProperties(
  device: Device,
  instance: VarpdInstance,
  { search, properties }: Declared,
  isForeign: boolean,
  attempt: Attempt,
): void {
  const list = () => deviceProperties(device, instance, [], []);
  const given = new Map(Object.entries(properties));
  const ceiling = given.get('mtu_max');
  // The MTU's bound is another property. One that is not valid is said in its own turn.
  if (ceiling !== undefined && Number.isSafeInteger(Number(ceiling))) device.mtuMax = Number(ceiling);
  for (const [property, given_] of given) {
    if (isForeign && property.startsWith(`${search}/`)) continue;
    attempt(['properties', property], () => {
      if (property === 'vnetid') {
        throw new OverlayError(
          'EINVAL',
          'bad_config',
          "vnetid is the overlay's own key, not in its properties",
        );
      }
      checkProperty(list(), property, given_);
    });
  }
  const isMissing = ({ info, value: has }: DeviceProperty) =>
    info.isRequired && info.isWritable && has === undefined && !given.has(info.name);
  for (const { info } of list().filter(isMissing)) {
    attempt([], () => {
      throw new OverlayError('EINVAL', 'property_missing', `${info.name}: it is required and has no value`);
    });
  }
}

function checkProperty(list: readonly DeviceProperty[], name: string, given: string | number): void {
  const found = list.find(({ info }) => info.name === name);
  if (!found) throw new OverlayError('ENOENT', 'no_such_property', `there is no property '${name}'`);
  if (!found.info.isWritable) {
    throw new OverlayError('EPERM', 'property_read_only', `${name} cannot be set`);
  }
  parseProperty(found.info, given);
}
