/** Throws where its property says, in every way there is. */
import { OverlayError } from '../../src/errors.js';
import { dynamic } from './make.js';

export const plugin = dynamic('throws', (at) => {
  const act = (where: string): undefined => {
    if (at() === where) throw new Error(`${where} went wrong`);
  };
  const lookups: Record<string, () => void> = {
    '01': () => {
      throw new OverlayError('EHOSTUNREACH', 'source_gone', 'the source is gone');
    },
    '02': () => {
      throw Object.assign(new Error('connection refused'), { code: 'ECONNREFUSED', errno: -111 });
    },
    '03': () => {
      throw undefined;
    },
    '04': () => {
      throw {
        get message() {
          throw new Error('no message for you');
        },
      };
    },
    '05': () => {
      throw new Error('x'.repeat(1_000_000));
    },
    '06': () => {
      throw new Proxy({}, { getPrototypeOf: () => null, get: () => Symbol('odd') });
    },
    '07': () => {
      setImmediate(() => {
        throw new Error('later');
      });
    },
    '08': () => {
      void Promise.reject(new Error('nobody looks'));
    },
  };
  return {
    start: () => act('start'),
    stop: () => act('stop'),
    lookup: ({ destination }) => {
      lookups[destination.slice(-2)]?.();
      act('lookup');
      return 'drop';
    },
    arp: () => act('arp'),
    dhcp: () => act('dhcp'),
    peers: () => {
      act('peers');
      return [];
    },
    save: () => act('save'),
    restore: () => act('restore'),
  };
});
