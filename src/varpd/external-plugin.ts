/**
 * `external`: the requests of the device go to whoever holds the external handle (`external.ts`), and to nobody else.
 * It says on association whether the device is POINT or DYNAMIC; the device activates then.
 */
import { PropertyStore } from '../property.js';
import { LOOKUP_VERSION, type LookupPlugin } from './plugin.js';

export const external: LookupPlugin = {
  version: LOOKUP_VERSION,
  name: 'external',
  mode: 'dynamic',
  properties: () => [],
  create: () => ({ properties: new PropertyStore([]), start: () => {}, stop: () => {} }),
};
