/** Answers every address with the place that its property says, and keeps nothing: what grows with it is not its own. */
import { reopening } from '../../src/property.js';
import { dynamic } from './make.js';

const ip = { ...reopening, name: 'steady/ip', type: 'ip', isRequired: true } as const;

export const plugin = dynamic(
  'steady',
  (_, properties) => ({
    lookup: () => ({ ip: String(properties.get(ip.name)), port: 4789 }),
  }),
  [ip],
);
