/** Takes memory without end: on its heap, or beside it. */
import { dynamic } from './make.js';

export const plugin = dynamic('allocates', (at) => ({
  lookup: ({ destination }) => {
    if (!destination.endsWith('1')) return 'drop';
    const kept: unknown[] = [];
    if (at() === 'buffers') setInterval(() => kept.push(new Uint8Array(8 * 1024 * 1024)), 5);
    else for (;;) kept.push({ some: 'thing', list: [kept.length] });
    return 'drop';
  },
}));
