/** What an operator may say of the sockets of an underlay address. */
import { SOURCE_PORT_MAX, SOURCE_PORT_MIN } from '../limits.js';

/** What the sockets of an underlay address are like. Devices that share one must agree. */
export interface SocketSettings {
  /** Mark of what is sent, for routing and filters (man 7 socket, SO_MARK); 0 for none. */
  readonly mark: number;
  /** Network device that everything goes through and comes from (SO_BINDTODEVICE); '' for any. */
  readonly device: string;
  /** UDP: first and last port that send sockets may have. */
  readonly sourcePorts: readonly [number, number];
  /** UDP over IPv6: datagrams are sent without a checksum, and taken without one (RFC 6935). */
  readonly zerocsum6Tx: boolean;
  readonly zerocsum6Rx: boolean;
}

export const socketDefault: SocketSettings = {
  mark: 0,
  device: '',
  sourcePorts: [SOURCE_PORT_MIN, SOURCE_PORT_MAX],
  zerocsum6Tx: false,
  zerocsum6Rx: false,
};
