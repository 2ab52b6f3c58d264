/**
 * Sockets of the kernel's link and address tables (man 7 netlink, AF_NETLINK and NETLINK_ROUTE): one for requests
 * and their answers, one for events, one that tells of changed routes. All belong to the network namespace the calling thread is in when they are
 * opened, wherever the thread goes later.
 *
 * Who sent a message is not checked: rtnetlink lets only CAP_NET_ADMIN send to another process' socket.
 */
import { OverlayError } from '../../errors.js';
import {
  AF_NETLINK,
  MSG_TRUNC,
  macros,
  SO_RCVBUF,
  SO_RCVTIMEO,
  SOCK_CLOEXEC,
  SOCK_NONBLOCK,
  SOCK_RAW,
  SOL_NETLINK,
  SOL_SOCKET,
  structs,
} from '../abi.js';
import { monotonicMs } from '../clock.js';
import { EAGAIN, EINTR, ENOBUFS, lastErrno, must, SystemError } from '../errno.js';
import { closeFd } from '../fd.js';
import * as libc from '../libc.js';
import { parseAddress } from './address.js';
import { parseLink } from './link.js';
import {
  encodeMessage,
  fixedPart,
  type Message,
  malformed,
  parseAttributes,
  parseMessages,
  readText,
  viewOf,
} from './message.js';

const {
  NETLINK_ADD_MEMBERSHIP,
  NETLINK_CAP_ACK,
  NETLINK_EXT_ACK,
  NETLINK_GET_STRICT_CHK,
  NETLINK_ROUTE,
  NLM_F_ACK,
  NLM_F_ACK_TLVS,
  NLM_F_CAPPED,
  NLM_F_DUMP,
  NLM_F_DUMP_INTR,
  NLM_F_REQUEST,
  NLMSG_DONE,
  NLMSG_ERROR,
  NLMSG_NOOP,
  NLMSGERR_ATTR_MSG,
} = macros['linux/netlink.h'];
const {
  RTM_DELADDR,
  RTM_DELLINK,
  RTM_NEWADDR,
  RTM_NEWLINK,
  RTNLGRP_IPV4_IFADDR,
  RTNLGRP_IPV4_ROUTE,
  RTNLGRP_IPV6_IFADDR,
  RTNLGRP_IPV6_ROUTE,
  RTNLGRP_LINK,
} = macros['linux/rtnetlink.h'];
const { IFLA_WIRELESS } = macros['linux/if_link.h'];

/** The kernel makes its datagrams no longer than 32 KiB, but for a message that is longer by itself. */
const BUFFER_BYTES = 65536;
const ANSWER_MS_MAX = 2000;
const DUMP_TRIES_MAX = 4;
const DRAIN_DATAGRAMS_MAX = 256;
/** Some dozens of route events. */
const ROUTE_QUEUE_BYTES = 32_768;

export interface Request {
  /** RTM_... */
  readonly type: number;
  /** NLM_F_... beyond REQUEST and ACK. NLM_F_DUMP asks for a whole table. */
  readonly flags?: number;
  readonly body: Uint8Array;
  /** What it is for, in errors: "set link 7 up". */
  readonly what: string;
  /** The kernel goes by the fields of the body of a dump, which it ignores otherwise. */
  readonly isFiltered?: boolean;
}

export class RequestSocket {
  readonly #fd: number;
  readonly #timeoutMs: number;
  readonly #buffer = new Uint8Array(BUFFER_BYTES);
  #sequence = 0;
  #isClosed = false;

  /**
   * @param fd taken over; a test that plays the kernel has the other end
   * @param timeoutMs how long the kernel may be silent, a whole number
   */
  constructor(fd: number = openSocket(0, []), timeoutMs: number = ANSWER_MS_MAX) {
    this.#fd = fd;
    this.#timeoutMs = timeoutMs;
    const { size, tv_sec, tv_usec } = structs.timeval;
    const timeout = new Uint8Array(size);
    viewOf(timeout).setBigInt64(tv_sec, BigInt(Math.floor(timeoutMs / 1000)), true);
    viewOf(timeout).setBigInt64(tv_usec, BigInt((timeoutMs % 1000) * 1000), true);
    closeOnError(fd, () =>
      must(libc.setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, timeout, size), 'setsockopt SO_RCVTIMEO'),
    );
  }

  /**
   * Sends a request and waits for all of its answer: the bodies of the messages before the acknowledgement or the
   * end of the dump. A dump that the table changed under is asked for again. Throws SystemError with what the
   * kernel refused it for, ETIME when it is silent for 2 s, EAGAIN when the table never holds still, EIO
   * `netlink_malformed`.
   */
  request(request: Request): Uint8Array[] {
    if (request.isFiltered) setOption(this.#fd, NETLINK_GET_STRICT_CHK, 1);
    try {
      for (let tries = 0; tries < DUMP_TRIES_MAX; tries++) {
        const parts = this.#exchange(request);
        if (parts !== undefined) return parts;
      }
    } finally {
      if (request.isFiltered) setOption(this.#fd, NETLINK_GET_STRICT_CHK, 0);
    }
    throw new OverlayError(
      'EAGAIN',
      'netlink_dump_interrupted',
      `netlink: ${request.what}: the table changed ${DUMP_TRIES_MAX} times while it was read; try again`,
    );
  }

  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    closeFd(this.#fd);
  }

  /** One request and its answer; undefined when a dump's answer is not of one moment. */
  #exchange({ type, flags = 0, body, what }: Request): Uint8Array[] | undefined {
    this.#sequence = (this.#sequence + 1) >>> 0;
    const sequence = this.#sequence;
    const isDump = (flags & NLM_F_DUMP) === NLM_F_DUMP;
    const asked = flags | NLM_F_REQUEST | (isDump ? 0 : NLM_F_ACK);
    const bytes = encodeMessage({ type, flags: asked, sequence, port: 0, body });
    must(libc.send(this.#fd, bytes, bytes.length, 0), `netlink: ${what}`);

    const parts: Uint8Array[] = [];
    let isInterrupted = false;
    let deadline = monotonicMs() + this.#timeoutMs;
    while (monotonicMs() < deadline) {
      const datagram = this.#receive(what);
      if (datagram === undefined) continue;
      for (const message of parseMessages(datagram)) {
        // The late answer to a request that was given up.
        if (message.sequence !== sequence) continue;
        deadline = monotonicMs() + this.#timeoutMs;
        if (message.flags & NLM_F_DUMP_INTR) isInterrupted = true;
        if (message.type === NLMSG_ERROR || message.type === NLMSG_DONE) {
          checkResult(message, what);
          return isInterrupted ? undefined : parts;
        }
        if (message.type !== NLMSG_NOOP) parts.push(message.body);
      }
    }
    const message = `netlink: ${what}: no answer within ${this.#timeoutMs} ms`;
    throw new OverlayError('ETIME', 'netlink_timeout', message);
  }

  /** The next datagram, or undefined when there was none in time or a signal came. */
  #receive(what: string): Uint8Array | undefined {
    const bytes = libc.recv(this.#fd, this.#buffer, BUFFER_BYTES, MSG_TRUNC);
    if (bytes < 0) {
      const errno = lastErrno();
      if (errno === EAGAIN || errno === EINTR) return undefined;
      throw new SystemError(errno, `netlink: ${what}`);
    }
    return datagramOf(this.#buffer, bytes).slice();
  }
}

export type LinkEvent =
  | {
      readonly kind: 'link';
      readonly index: number;
      readonly name: string;
      readonly isUp: boolean;
      readonly hasCarrier: boolean;
      readonly mtu: number;
      readonly mac: string;
      /** The link left this namespace: deleted, or moved to another one. */
      readonly deleted: boolean;
    }
  | {
      readonly kind: 'address';
      readonly index: number;
      /** With its prefix length. */
      readonly address: string;
      readonly deleted: boolean;
    }
  /** Events were lost: read the tables anew. */
  | { readonly kind: 'overrun' };

export class EventSocket {
  /** Readable when events wait. */
  readonly fd: number;
  readonly #buffer = new Uint8Array(BUFFER_BYTES);
  #isClosed = false;

  /** @param queueBytes what may queue up before events are lost; the system's default when left out */
  constructor(queueBytes?: number) {
    const fd = openSocket(SOCK_NONBLOCK, [RTNLGRP_LINK, RTNLGRP_IPV4_IFADDR, RTNLGRP_IPV6_IFADDR]);
    this.fd = fd;
    if (queueBytes === undefined) return;
    const value = new Int32Array([queueBytes]);
    closeOnError(fd, () =>
      must(libc.setsockopt(fd, SOL_SOCKET, SO_RCVBUF, value, 4), 'setsockopt SO_RCVBUF'),
    );
  }

  /**
   * The events that are queued, oldest first, without waiting; the rest after 256 datagrams is for the next call.
   * Throws SystemError, EIO `netlink_malformed`.
   */
  drain(): LinkEvent[] {
    const events: LinkEvent[] = [];
    let isOverrun = false;
    for (let count = 0; count < DRAIN_DATAGRAMS_MAX; count++) {
      const bytes = libc.recv(this.fd, this.#buffer, BUFFER_BYTES, MSG_TRUNC);
      if (bytes >= 0) {
        const messages = parseMessages(datagramOf(this.#buffer, bytes));
        events.push(...messages.map(parseEvent).filter((event) => event !== undefined));
        continue;
      }
      const errno = lastErrno();
      if (errno === EAGAIN) break;
      if (errno === EINTR) continue;
      if (errno !== ENOBUFS) throw new SystemError(errno, 'netlink: reading events');
      if (!isOverrun) events.push({ kind: 'overrun' });
      isOverrun = true;
    }
    return events;
  }

  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    closeFd(this.fd);
  }
}

/**
 * Says that routes have changed, and no more: a router may have a million of them, so that the queue is short and what does not
 * fit in it is a change too.
 */
export class RouteWatch {
  readonly #fd = openSocket(SOCK_NONBLOCK, [RTNLGRP_IPV4_ROUTE, RTNLGRP_IPV6_ROUTE]);
  readonly #buffer = new Uint8Array(1);

  constructor() {
    closeOnError(this.#fd, () => {
      const value = new Int32Array([ROUTE_QUEUE_BYTES]);
      must(libc.setsockopt(this.#fd, SOL_SOCKET, SO_RCVBUF, value, 4), 'setsockopt SO_RCVBUF');
    });
  }

  /** Whether a route came, went or changed since this was asked last. Throws SystemError. */
  hasChanged(): boolean {
    let hasChanged = false;
    for (let count = 0; count < DRAIN_DATAGRAMS_MAX; count++) {
      if (libc.recv(this.#fd, this.#buffer, 1, 0) < 0) {
        const errno = lastErrno();
        if (errno === EAGAIN) break;
        if (errno === EINTR) continue;
        if (errno !== ENOBUFS) throw new SystemError(errno, 'netlink: reading route events');
      }
      hasChanged = true;
    }
    return hasChanged;
  }

  close(): void {
    closeFd(this.#fd);
  }
}

/** What a notification tells, or undefined when it is not about a link or an address. Throws EIO. */
export function parseEvent({ type, body }: Message): LinkEvent | undefined {
  if (type === RTM_NEWLINK || type === RTM_DELLINK) {
    const { size, ifi_family } = structs.ifinfomsg;
    // A bridge tells about its ports under AF_BRIDGE, where DELLINK means only that a link is no port any more.
    if (fixedPart(body, size).getUint8(ifi_family) !== 0) return undefined;
    // Wireless news come as a NEWLINK that does not hold the link's state.
    if (parseAttributes(body, size).has(IFLA_WIRELESS)) return undefined;
    const { index, name, isUp, hasCarrier, mtu, mac } = parseLink(body);
    return { kind: 'link', index, name, isUp, hasCarrier, mtu, mac, deleted: type === RTM_DELLINK };
  }
  if (type === RTM_NEWADDR || type === RTM_DELADDR) {
    const entry = parseAddress(body);
    if (entry === undefined) return undefined;
    return { kind: 'address', index: entry.index, address: entry.address, deleted: type === RTM_DELADDR };
  }
  return undefined;
}

/**
 * Throws SystemError when an NLMSG_ERROR or NLMSG_DONE carries an error number, with the kernel's own words where
 * it gives them (Documentation/userspace-api/netlink/intro.rst, "Ext ACK").
 */
export function checkResult(message: Message, what: string): void {
  const { body, flags, type } = message;
  // An old kernel ends a dump without a number.
  if (type === NLMSG_DONE && body.length === 0) return;
  const error = fixedPart(body, 4).getInt32(structs.nlmsgerr.error, true);
  if (error === 0) return;
  if (error > 0) throw malformed('an error number has the wrong sign');
  const hasWords = (flags & NLM_F_ACK_TLVS) !== 0;
  const words = hasWords
    ? readText(parseAttributes(body, tailOf(message)).get(NLMSGERR_ATTR_MSG))
    : undefined;
  throw new SystemError(-error, words ? `netlink: ${what} (${words})` : `netlink: ${what}`);
}

/** Where the attributes of a result begin: behind the error number, and for NLMSG_ERROR behind the request too. */
function tailOf({ body, flags, type }: Message): number {
  const { size, msg } = structs.nlmsgerr;
  if (type === NLMSG_DONE) return msg;
  const requestBytes = fixedPart(body, size).getUint32(msg + structs.nlmsghdr.nlmsg_len, true);
  if (flags & NLM_F_CAPPED) return size;
  if (requestBytes > body.length - msg) throw malformed('an error is shorter than the request in it');
  return msg + requestBytes;
}

/** What a recv with MSG_TRUNC put into the buffer. Throws EIO for nothing and for more than fits. */
function datagramOf(buffer: Uint8Array, bytes: number): Uint8Array {
  if (bytes === 0) throw malformed('a datagram is empty');
  if (bytes > buffer.length) throw malformed(`a datagram of ${bytes} bytes is longer than the buffer`);
  return buffer.subarray(0, bytes);
}

/** A bound socket that is a member of the groups (RTNLGRP_...). */
function openSocket(type: number, groups: readonly number[]): number {
  const fd = must(libc.socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | type, NETLINK_ROUTE), 'netlink socket');
  return closeOnError(fd, () => {
    const address = new Uint8Array(structs.sockaddr_nl.size);
    viewOf(address).setUint16(structs.sockaddr_nl.nl_family, AF_NETLINK, true);
    must(libc.bind(fd, address, address.length), 'bind of a netlink socket');
    // Both only make errors better, so a kernel without them will do.
    for (const option of [NETLINK_EXT_ACK, NETLINK_CAP_ACK]) setOption(fd, option, 1);
    for (const group of groups) must(setOption(fd, NETLINK_ADD_MEMBERSHIP, group), 'joining a netlink group');
    return fd;
  });
}

function setOption(fd: number, option: number, value: number): number {
  return libc.setsockopt(fd, SOL_NETLINK, option, new Int32Array([value]), 4);
}

function closeOnError<T>(fd: number, work: () => T): T {
  try {
    return work();
  } catch (error) {
    closeFd(fd);
    throw error;
  }
}
