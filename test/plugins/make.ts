/** Makes a DYNAMIC plugin of a few functions; `at` is a property that says where it is to misbehave. */
import { type PropertyInfo, PropertyStore } from '../../src/property.js';
import type { LookupInstance, LookupPlugin } from '../../src/varpd/plugin.js';

export function atInfo(name: string): PropertyInfo {
  return { name: `${name}/at`, type: 'string', isRequired: false, isReadable: true, isWritable: true };
}

export function dynamic(
  name: string,
  build: (at: () => string, properties: PropertyStore) => Partial<LookupInstance>,
  more: readonly PropertyInfo[] = [],
): LookupPlugin {
  const infos = [atInfo(name), ...more];
  return {
    version: 1,
    name,
    mode: 'dynamic',
    properties: () => infos.map((info) => info.name),
    create: () => {
      const properties = new PropertyStore(infos);
      return {
        properties,
        start: () => {},
        stop: () => {},
        lookup: () => ({ ip: '192.0.2.1', port: 4789 }),
        ...build(() => String(properties.get(`${name}/at`)), properties),
      };
    },
  };
}
