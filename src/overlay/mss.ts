/** What TCP may offer as its largest segment over a device: by its property, and with `auto` by its MTU. */
import type { Mss } from '../datapath/tables.js';
import type { Device } from '../device.js';

/** IP and TCP headers without options (RFC 6691 section 2). */
const HEADER_BYTES = { 4: 40, 6: 60 } as const;

/** For the device's row. */
export function mssOf({ tcpMss, mtu }: Pick<Device, 'tcpMss' | 'mtu'>): Mss {
  if (tcpMss === 'off') return { 4: 0, 6: 0, isByPath: false };
  if (tcpMss === 'auto') return { 4: mtu - HEADER_BYTES[4], 6: mtu - HEADER_BYTES[6], isByPath: true };
  return { 4: tcpMss, 6: tcpMss, isByPath: false };
}
