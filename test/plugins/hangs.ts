/** Never ends what its property says, and every lookup of a MAC address that ends in 1. */
import { dynamic } from './make.js';

const never = () => new Promise<never>(() => {});

export const plugin = dynamic('hangs', (at) => ({
  start: () => (at() === 'start' ? never() : undefined),
  stop: () => (at() === 'stop' ? never() : undefined),
  lookup: ({ destination }) => (destination.endsWith('1') ? never() : 'drop'),
  arp: never,
  dhcp: never,
}));
