/** Takes memory without end: on its heap, or beside it. */
import { dynamic } from './make.js';

export const plugin = dynamic('allocates', (at) => ({
  lookup: ({ destination }) => {
    if (!destination.endsWith('1')) return 'drop';
    const kept: unknown[] = [];
    const map = new Map<number, object>();
    if (at() === 'garbage')
      setInterval(() => kept.splice(0, kept.length, new Uint8Array(8 * 1024 * 1024)), 2);
    else if (at() === 'steadily') {
      setInterval(() => kept.push(Array.from({ length: 50_000 }, () => ({}))), 5);
    } else if (at() === 'map') for (;;) map.set(map.size, {});
    else if (at() === 'doubles') for (;;) kept.push(new Array(1e6).fill(1.5));
    else if (at() === 'buffers') setInterval(() => kept.push(new Uint8Array(8 * 1024 * 1024)), 5);
    else for (;;) kept.push({ some: 'thing', list: [kept.length] });
    return 'drop';
  },
}));
