/**
 * The raw sockets of one underlay address for GRE (man 7 raw): a receive socket for each worker, and one to send. The kernel
 * gives a copy of every datagram to each of them; a filter on the FlowID, the last byte of the key, leaves each to one
 * worker, and a flow to the same one. What is too short to have one goes to the first. Fragments are put together before.
 *
 * The kernel neither cuts nor joins anything here: UDP_SEGMENT and UDP_GRO are of UDP sockets alone.
 */
import { familyOf } from '../ip.js';
import { AF_INET, AF_INET6, IPPROTO_GRE } from './abi.js';
import { closeFd } from './fd.js';
import { openRawSocket } from './raw-socket.js';
import { sockaddr } from './sockaddr.js';
import * as bpf from './socket-filter.js';
import type { SocketSettings } from './socket-settings.js';
import {
  applySettings,
  bindTo,
  enlargeBuffers,
  refuseGroups,
  reportErrors,
  reportTrafficClass,
  setOuterHeader,
  type Underlay,
} from './underlay.js';

/** The key's last byte, behind the IP header where there is one; and the bytes up to it. */
const FLOW_ID = 7;
const HEADER_BYTES = 8;
const FLOW_BITS = 8;

export interface GreUnderlayOptions {
  readonly ip: string;
  /** One receive socket for each. */
  readonly workers: number;
  /** How often the send socket stands in the list. */
  readonly bank: number;
  readonly settings: Pick<SocketSettings, 'mark' | 'device'>;
}

/** AF_INET or AF_INET6, as the address is: raw sockets have one family. */
export function greDomain(ip: string): number {
  return familyOf(ip) === 4 ? AF_INET : AF_INET6;
}

/**
 * Opens and binds all of them in the namespace of the calling thread, or none. Throws EPERM without CAP_NET_RAW,
 * EADDRNOTAVAIL when the address is not this host's, ENODEV for a network device that there is not.
 */
export function openGreUnderlay(options: GreUnderlayOptions): Underlay {
  const { ip, workers, bank, settings } = options;
  const domain = greDomain(ip);
  const opened: number[] = [];
  const address = sockaddr(domain, ip, 0);
  const open = () => {
    const fd = openRawSocket(domain, IPPROTO_GRE, 'an encapsulation over GRE');
    opened.push(fd);
    // Until it is bound it would get what is for other addresses of this host.
    bpf.filterInput(fd, bpf.DROP_ALL);
    applySettings(fd, settings);
    setOuterHeader(fd, [familyOf(ip)]);
    bindTo(fd, address, 0, `listening for GRE on ${ip}`);
    return fd;
  };
  try {
    const receive = Array.from({ length: workers }, (_, worker) => {
      const fd = open();
      refuseGroups(fd, [familyOf(ip)]);
      reportTrafficClass(fd, [familyOf(ip)]);
      bpf.filterInput(fd, shareOf(domain, worker, workers));
      return fd;
    });
    const send = open();
    reportErrors(send, [familyOf(ip)]);
    const isBufferShort = opened.map((fd) => enlargeBuffers(fd)).some((short) => short);
    return { domain, receive, send: new Array<number>(bank).fill(send), isBufferShort, portsSkipped: 0 };
  } catch (error) {
    for (const fd of opened) closeFd(fd);
    throw error;
  }
}

/** Takes the datagrams of one worker: those whose FlowID is in its part of all there are. */
function shareOf(domain: number, worker: number, workers: number): bpf.Instruction[] {
  const takesShort = worker === 0 ? bpf.ALL_BYTES : 0;
  return [
    domain === AF_INET ? [bpf.LOAD_X_HEADER, 0, 0, 0] : [bpf.LOAD_X, 0, 0, 0],
    [bpf.LOAD_LENGTH, 0, 0, 0],
    [bpf.SUBTRACT_X, 0, 0, 0],
    [bpf.JUMP_NOT_LESS, 1, 0, HEADER_BYTES],
    [bpf.RETURN, 0, 0, takesShort],
    [bpf.LOAD_BYTE, 0, 0, FLOW_ID],
    [bpf.MULTIPLY, 0, 0, workers],
    [bpf.SHIFT_RIGHT, 0, 0, FLOW_BITS],
    [bpf.JUMP_EQUAL, 0, 1, worker],
    [bpf.RETURN, 0, 0, bpf.ALL_BYTES],
    [bpf.RETURN, 0, 0, 0],
  ];
}
