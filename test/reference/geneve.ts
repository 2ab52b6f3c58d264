/** Geneve a second time, from RFC 8926: what is sent, and what becomes of what is received. */
import type { DropName } from '../../src/datapath/drop.js';
import { bigEndian, concat } from './frames.js';

/** Sections 3.4 and 3.5. @param options as they are sent */
export function encap(
  vnetid: number,
  frame: Uint8Array,
  options: Uint8Array = new Uint8Array(0),
): Uint8Array {
  const critical = isCritical(options) ? 0x40 : 0;
  return concat(
    Uint8Array.of(options.length / 4, critical, 0x65, 0x58),
    bigEndian(vnetid, 3),
    Uint8Array.of(0),
    options,
    frame,
  );
}

/** One option. */
export function option(kind: number, type: number, data: Uint8Array): Uint8Array {
  return concat(bigEndian(kind, 2), Uint8Array.of(type, data.length / 4), data);
}

function isCritical(options: Uint8Array): boolean {
  if (options.length === 0) return false;
  const bytes = 4 + (options[3]! % 32) * 4;
  return options[2]! >= 128 || isCritical(options.subarray(bytes));
}

/** Likewise back, in the order of the checks. */
export function decap(datagram: Uint8Array): { vnetid: number; frame: Uint8Array } | DropName {
  if (datagram.length < 8) return 'rx_short_datagram';
  const version = Math.floor(datagram[0]! / 64);
  if (version !== 0) return 'rx_bad_header';
  const headerBytes = 8 + 4 * datagram[0]!;
  if (datagram.length < headerBytes) return 'rx_short_datagram';
  if (datagram[1]! >= 128) return 'rx_control_packet';
  if (datagram[2] !== 0x65 || datagram[3] !== 0x58) return 'rx_not_ethernet';
  let rest = datagram.subarray(8, headerBytes);
  let hasCritical = false;
  while (rest.length > 0) {
    hasCritical ||= rest[2]! >= 128;
    const bytes = 4 + (rest[3]! % 32) * 4;
    if (bytes > rest.length) return 'rx_bad_header';
    rest = rest.subarray(bytes);
  }
  if (hasCritical) return 'rx_critical_option';
  const [high, middle, low] = datagram.subarray(4, 7);
  return { vnetid: high! * 65536 + middle! * 256 + low!, frame: datagram.subarray(headerBytes) };
}
