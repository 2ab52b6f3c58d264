/**
 * The speed that a link says it has (man 8 ethtool; linux/ethtool.h, struct ethtool_cmd). A TAP says 10 Gbit/s from the
 * beginning, or 10 Mbit/s by older kernels, whatever carries it.
 */
import {
  AF_INET,
  DUPLEX_UNKNOWN,
  ETHTOOL_SSET,
  SIOCETHTOOL,
  SOCK_CLOEXEC,
  SOCK_DGRAM,
  structs,
} from './abi.js';
import { must } from './errno.js';
import { closeFd } from './fd.js';
import * as libc from './libc.js';

/** SPEED_UNKNOWN, in two halves. */
const HALF_UNKNOWN = 0xffff;

/** Has a TAP in the namespace of the calling thread say that it does not know: that is up to the underlay. */
export function forgetSpeed(name: string): void {
  const { ethtool_cmd, ifreq } = structs;
  const command = new Uint8Array(ethtool_cmd.size);
  const settings = new DataView(command.buffer);
  settings.setUint32(ethtool_cmd.cmd, ETHTOOL_SSET, true);
  settings.setUint16(ethtool_cmd.speed, HALF_UNKNOWN, true);
  settings.setUint16(ethtool_cmd.speed_hi, HALF_UNKNOWN, true);
  settings.setUint8(ethtool_cmd.duplex, DUPLEX_UNKNOWN);
  const request = Buffer.alloc(ifreq.size);
  request.write(name, ifreq.ifr_name, 'latin1');
  request.writeBigUInt64LE(BigInt(libc.addressOf(command)), ifreq.ifr_data);
  const fd = must(libc.socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), 'socket');
  try {
    must(libc.ioctl(fd, SIOCETHTOOL, request), `SIOCETHTOOL ${name}`);
  } finally {
    closeFd(fd);
  }
}
