/** Answers what it may not: the last octet of the MAC address is the number of the lie. */
import type { Answer } from '../../src/varpd/plugin.js';
import { dynamic } from './make.js';

const good = { ip: '192.0.2.1', port: 4789 };
const endless = {};
Object.assign(endless, { ip: '192.0.2.1', port: 4789, self: endless });

export const lies: readonly (() => unknown)[] = [
  () => undefined,
  () => null,
  () => 42,
  () => true,
  () => 'nonsense',
  () => 'x'.repeat(10_000_000),
  () => [],
  () => [good],
  () => ({}),
  () => ({ ip: '192.0.2.1' }),
  () => ({ ...good, mac: '2:0:0:0:0:1' }),
  () => ({ ...good, colour: 'red' }),
  () => ({ ...good, ip: 'nonsense' }),
  () => ({ ...good, ip: 3_221_225_985 }),
  () => ({ ...good, ip: '0.0.0.0' }),
  () => ({ ...good, ip: '2002::1' }),
  () => ({ ...good, port: 0 }),
  () => ({ ...good, port: 65_536 }),
  () => ({ ...good, port: 1.5 }),
  () => ({ ...good, port: Number.NaN }),
  () => ({ ...good, port: '4789' }),
  () => ({ ...good, port: 4789n }),
  () => ({ replicate: [] }),
  () => ({ replicate: good }),
  () => ({ replicate: [good], spread: [good] }),
  () => ({ replicate: [good], ...good }),
  () => ({ spread: Array.from({ length: 1025 }, () => good) }),
  () => ({ spread: new Array(4_000_000_000) }),
  () => ({ spread: [{ spread: [good] }] }),
  () => ({ spread: [good, undefined] }),
  () => ({ spread: Object.assign(new Array(2), { 1: good }) }),
  () => () => good,
  () => Symbol('x'),
  () => new Map([['ip', '192.0.2.1']]),
  () => endless,
  () => ({
    get ip() {
      throw new Error('a trap');
    },
    port: 1,
  }),
  () => new Proxy(good, { get: () => ({}) }),
  () => Object.fromEntries(Array.from({ length: 100_000 }, (_, index) => [`key${index}`, good])),
  () => Object.assign(Object.create(null), { ip: { toString: () => '192.0.2.1' }, port: 1 }),
];

export const plugin = dynamic('lies', (at) => ({
  lookup: ({ destination }) => lies[Number.parseInt(destination.slice(-2), 16)]!() as Answer,
  arp: () => (at() === 'type' ? 42 : at() === 'none' ? null : 'nonsense') as string,
  dhcp: async () => ({ mac: '02:00:00:00:00:01' }) as unknown as string,
  peers: () => (at() === 'peers' ? [1, 2] : at() === 'all peers' ? 'all' : []) as unknown as string[],
  save: () => (at() === 'save' ? 'x'.repeat(1_000_000) : at() === 'circle' ? endless : undefined),
}));
