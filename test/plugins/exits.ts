/** Ends its process, as it thinks, when it is asked. */
import { dynamic } from './make.js';

export const plugin = dynamic('exits', () => ({
  lookup: ({ destination }) => (destination.endsWith('1') ? process.exit(3) : 'drop'),
}));
