/** Loops for ever where its property says: in a function, or between its promises. */
import type { Answer } from '../../src/varpd/plugin.js';
import { dynamic } from './make.js';

export const plugin = dynamic('loops', (at) => {
  const act = (where: string): undefined => {
    while (at() === where);
  };
  return {
    start: () => act('start'),
    stop: () => act('stop'),
    lookup: async (): Promise<Answer> => {
      act('lookup');
      while (at() === 'microtasks') await undefined;
      return 'drop';
    },
    save: () => act('save'),
  };
});
