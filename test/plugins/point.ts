/** POINT, for an IP address and a port alone. Another destination in each life. */
import { OverlayError } from '../../src/errors.js';
import { PropertyStore } from '../../src/property.js';
import type { LookupPlugin } from '../../src/varpd/plugin.js';

const plugin: LookupPlugin = {
  version: 1,
  name: 'point',
  mode: 'point',
  properties: () => [],
  create: (destinations) => {
    if (destinations !== 6)
      throw new OverlayError('ENOTSUP', 'destination_not_supported', 'IP and port it is');
    return {
      properties: new PropertyStore([]),
      start: ({ vnetid }) => {
        if (vnetid === 1n) setTimeout(() => process.exit(0), 50);
      },
      stop: () => {},
      point: () => ({ ip: '192.0.2.1', port: 1 + (process.pid % 1000) + Math.floor(Math.random() * 60_000) }),
    };
  },
};
export default plugin;
