/**
 * Does everything right, and everything there is: answers, proxies, lists its peers, uses its services as the last
 * octet of a MAC address says, and keeps what it was asked over a restart. Asked for `..:ff` it loops for ever.
 */
import { OverlayError } from '../../src/errors.js';
import type { LookupServices } from '../../src/varpd/plugin.js';
import { dynamic } from './make.js';

const port = {
  name: 'good/port',
  type: 'uint',
  isRequired: false,
  isReadable: true,
  isWritable: true,
  default: 4789n,
  possible: [{ min: 1n, max: 65_535n }],
  fault: (value: bigint | string) => (value === 666n ? 'it is the number of the beast' : undefined),
} as const;
const ip = {
  name: 'good/ip',
  type: 'ip',
  isRequired: true,
  isReadable: true,
  isWritable: true,
} as const;

export const plugin = dynamic(
  'good',
  (_, properties) => {
    let asked: string[] = [];
    let peers = ['192.0.2.1', '2001:DB8::1', '127.0.0.1'];
    let services: LookupServices;
    const route = () => ({
      ip: String(properties.get('good/ip')),
      port: Number(properties.get('good/port')),
    });
    const tricks: Record<string, () => void> = {
      a1: () => services.set('2:0:0:0:0:77', { replicate: [route(), { ...route(), port: 4790 }] }),
      a2: () => services.invalidate('02-00-00-00-00-77'),
      a3: () => services.invalidateAll(),
      a4: () => services.gratuitousArp({ mac: '02:00:00:00:00:77', ip: '10.0.0.1', vlan: 5 }),
      a5: () => {
        peers = ['192.0.2.9'];
        services.peersChanged();
      },
      a6: () => services.degrade('its source is gone'),
      a7: () => services.restore(),
      a8: () => services.log('warn', 'mind the gap'),
      a9: () => {
        console.log('printed and %d', 42);
        process.stderr.write('no end of line yet, ');
        process.stderr.write('now\n');
      },
      aa: () => services.set('nonsense', route()),
      ab: () => services.set('2:0:0:0:0:77', { ip: 'nonsense', port: 1 }),
      ff: () => {
        for (;;);
      },
    };
    return {
      start: (given) => {
        const missing = properties.missing();
        if (missing.length > 0) throw new OverlayError('EAGAIN', 'property_missing', `not set: ${missing}`);
        services = given;
      },
      stop: () => {
        asked.push('stop');
      },
      lookup: async ({ destination, overlay, vnetid }) => {
        const last = destination.slice(-2);
        asked.push(last);
        tricks[last]?.();
        if (last === '02') return { spread: [route(), { ...route(), port: 1 }] };
        if (last === '03') return 'unknown';
        if (last === '04') return overlay === 'ov0' && vnetid === 42n ? 'proxy-arp' : 'drop';
        return route();
      },
      arp: ({ family, ip: wanted }) => (wanted === '10.0.0.1' ? `02-00-00-00-00-0${family}` : undefined),
      dhcp: async ({ source }) => (source === '02:00:00:00:00:01' ? '2:0:0:0:0:dd' : undefined),
      peers: () => peers,
      save: () => ({ asked }),
      restore: (saved) => {
        asked = [...(saved as { asked: string[] }).asked, 'restored'];
      },
    };
  },
  [ip, port],
);
