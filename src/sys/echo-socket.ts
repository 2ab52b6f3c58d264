/**
 * A raw socket that asks hosts for echo (man 7 raw, icmp) with whole packets of a given size, from one address of this host, in
 * the network namespace it was opened in. It gets the replies to its own requests alone. Needs CAP_NET_RAW.
 */
import type { Family } from '../ip.js';
import { AF_INET, AF_INET6, IPPROTO_ICMP, IPPROTO_ICMPV6, MSG_TRUNC } from './abi.js';
import { EMSGSIZE, lastErrno } from './errno.js';
import { closeFd } from './fd.js';
import {
  ECHO_REPLY,
  ECHO_REPLY_6,
  ECHO_REQUEST,
  ECHO_REQUEST_6,
  encodeEcho,
  ICMP_HEADER_BYTES,
  IPV4_HEADER_BYTES,
} from './icmp-echo.js';
import * as libc from './libc.js';
import { random64, randomBetween } from './random.js';
import { openRawSocket } from './raw-socket.js';
import { sockaddr } from './sockaddr.js';
import * as bpf from './socket-filter.js';
import type { SocketSettings } from './socket-settings.js';
import { applySettings, bindTo, enlargeBuffers, setOuterHeader } from './underlay.js';

const PURPOSE = 'probing path MTUs';
const IPV6_HEADER_BYTES = 40;
/** At the beginning of the payload: what somebody who has not seen the request cannot guess. */
const NONCE_BYTES = 8;
/** Of a reply, with an IPv4 header of any length: the rest of it is padding. */
const HEAD_BYTES = 60 + ICMP_HEADER_BYTES + NONCE_BYTES;

const kinds = {
  4: {
    domain: AF_INET,
    protocol: IPPROTO_ICMP,
    request: ECHO_REQUEST,
    reply: ECHO_REPLY,
    header: IPV4_HEADER_BYTES,
  },
  6: {
    domain: AF_INET6,
    protocol: IPPROTO_ICMPV6,
    request: ECHO_REQUEST_6,
    reply: ECHO_REPLY_6,
    header: IPV6_HEADER_BYTES,
  },
} as const;

/** What a request and its reply have in common. */
export interface EchoKey {
  readonly sequence: number;
  readonly nonce: bigint;
  /** Of the ICMP message. */
  readonly bytes: number;
}

export class EchoSocket {
  readonly #fd: number;
  readonly #id = randomBetween(0, 0xffff);
  readonly #head = new Uint8Array(HEAD_BYTES);
  #sequence = randomBetween(0, 0xffff);

  /**
   * @param ip of this host, or the address that stands for all of them, of the family
   * Throws EPERM without CAP_NET_RAW, EADDRNOTAVAIL, ENODEV for a network device that there is not.
   */
  constructor(
    readonly family: Family,
    ip: string,
    settings: Pick<SocketSettings, 'mark' | 'device'>,
  ) {
    const { domain, protocol, reply } = kinds[family];
    this.#fd = openRawSocket(domain, protocol, PURPOSE);
    try {
      bpf.filterInput(this.#fd, bpf.DROP_ALL);
      applySettings(this.#fd, settings);
      setOuterHeader(this.#fd, [family]);
      // Replies are as large as requests, and come all at once.
      enlargeBuffers(this.#fd);
      bindTo(this.#fd, sockaddr(domain, ip, 0), 0, `probing from ${ip}`);
      bpf.filterInput(this.#fd, repliesTo(domain, reply, this.#id));
    } catch (error) {
      closeFd(this.#fd);
      throw error;
    }
  }

  /**
   * Sends a request in a packet of so many bytes with its IP header, which nothing fragments. `too_big` when this host's own link
   * does not take it, undefined when it cannot be sent for another reason, as when there is no route.
   * @param packetBytes 48 (IPv4) or 68 (IPv6) to 65535
   */
  request(ip: string, packetBytes: number): EchoKey | 'too_big' | undefined {
    const { domain, request, header } = kinds[this.family];
    this.#sequence = (this.#sequence + 1) & 0xffff;
    const nonce = random64();
    const payload = new Uint8Array(packetBytes - header - ICMP_HEADER_BYTES);
    new DataView(payload.buffer).setBigUint64(0, nonce);
    const message = encodeEcho({ type: request, id: this.#id, sequence: this.#sequence, payload });
    const address = sockaddr(domain, ip, 0);
    if (libc.sendto(this.#fd, message, message.length, 0, address, address.length) >= 0) {
      return { sequence: this.#sequence, nonce, bytes: message.length };
    }
    return lastErrno() === EMSGSIZE ? 'too_big' : undefined;
  }

  /** The next reply that is there, without waiting. Whoever asked knows whether it is one to a request. */
  receive(): EchoKey | undefined {
    const all = libc.recv(this.#fd, this.#head, this.#head.length, MSG_TRUNC);
    if (all < 0) return undefined;
    const at = this.family === 4 ? (this.#head[0]! & 15) * 4 : 0;
    const bytes = all - at;
    if (bytes < ICMP_HEADER_BYTES + NONCE_BYTES) return { sequence: -1, nonce: 0n, bytes };
    const view = new DataView(this.#head.buffer, at);
    return { sequence: view.getUint16(6), nonce: view.getBigUint64(ICMP_HEADER_BYTES), bytes };
  }

  close(): void {
    closeFd(this.#fd);
  }
}

/** Throws EPERM when this process may not have such sockets. */
export function refuseEcho(): void {
  closeFd(openRawSocket(AF_INET, IPPROTO_ICMP, PURPOSE));
}

/** Takes echo replies with the id, which is in the second word of the message. */
function repliesTo(domain: number, reply: number, id: number): bpf.Instruction[] {
  return [
    domain === AF_INET ? [bpf.LOAD_X_HEADER, 0, 0, 0] : [bpf.LOAD_X, 0, 0, 0],
    [bpf.LOAD_BYTE, 0, 0, 0],
    [bpf.JUMP_EQUAL, 0, 3, reply],
    [bpf.LOAD_HALF, 0, 0, 4],
    [bpf.JUMP_EQUAL, 0, 1, id],
    [bpf.RETURN, 0, 0, bpf.ALL_BYTES],
    [bpf.RETURN, 0, 0, 0],
  ];
}
