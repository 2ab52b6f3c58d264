/** `direct`: every frame goes to the one address of the properties (POINT). */
import { DESTINATION_IP, DESTINATION_PORT } from '../encap/plugin.js';
import { OverlayError } from '../errors.js';
import { endpointFault } from '../ip.js';
import { type PropertyInfo, PropertyStore, reopening } from '../property.js';
import { LOOKUP_VERSION, type LookupPlugin } from './plugin.js';

const destIp: PropertyInfo = {
  ...reopening,
  name: 'direct/dest_ip',
  type: 'ip',
  isRequired: true,
  fault: (value) => endpointFault(String(value), true),
};

const destPort: PropertyInfo = {
  ...reopening,
  name: 'direct/dest_port',
  type: 'uint',
  isRequired: true,
  possible: [{ min: 1n, max: 65535n }],
};

/** The port is there only where the encapsulation needs one. */
function infos(destinations: number): PropertyInfo[] {
  return destinations & DESTINATION_PORT ? [destIp, destPort] : [destIp];
}

export const direct: LookupPlugin = {
  version: LOOKUP_VERSION,
  name: 'direct',
  mode: 'point',
  properties: (destinations) => infos(destinations).map(({ name }) => name),
  create: (destinations) => {
    if ((destinations & ~DESTINATION_PORT) !== DESTINATION_IP) {
      throw new OverlayError(
        'ENOTSUP',
        'destination_not_supported',
        'direct supplies an IP address, with or without a port; the encapsulation needs something else',
      );
    }
    const properties = new PropertyStore(infos(destinations));
    return {
      properties,
      start: () => {
        const missing = properties.missing();
        if (missing.length === 0) return;
        throw new OverlayError('EAGAIN', 'property_missing', `not set: ${missing.join(', ')}`);
      },
      stop: () => {},
      point: () => {
        const ip = String(properties.get('direct/dest_ip'));
        return destinations & DESTINATION_PORT
          ? { ip, port: Number(properties.get('direct/dest_port')) }
          : { ip };
      },
    };
  },
};
