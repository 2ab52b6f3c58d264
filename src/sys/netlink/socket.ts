/** AF_NETLINK sockets for rtnetlink: requests with their answers, and the event stream. */
import { OverlayError } from '../../errors.js';
import {
  AF_NETLINK,
  macros,
  MSG_DONTWAIT,
  SO_RCVBUF,
  SO_RCVTIMEO,
  SOL_NETLINK,
  SOCK_CLOEXEC,
  SOCK_RAW,
  SOL_SOCKET,
  structs,
} from '../abi.js';
import { EAGAIN, EINTR, ENOBUFS, lastErrno, must, SystemError } from '../errno.js';
import { closeFd } from '../fd.js';
import * as libc from '../libc.js';
import { type Attribute, decodeAttributes, decodeMessages, encodeMessage, type Message, readText, viewOf } from './message.js';

const {
  NETLINK_ROUTE,
  
  NETLINK_ADD_MEMBERSHIP,
  NETLINK_CAP_ACK,
  NETLINK_EXT_ACK,
  NLM_F_REQUEST,
  NLM_F_ACK,
  NLM_F_DUMP,
  NLM_F_DUMP_INTR,
  NLM_F_CAPPED,
  NLM_F_ACK_TLVS,
  NLMSG_ERROR,
  NLMSG_DONE,
  NLMSGERR_ATTR_MSG,
} = macros['linux/netlink.h'];

/** The kernel fills datagrams of a dump up to 32 KiB; more room costs nothing. */
const BUFFER_BYTES = 65536;
const ANSWER_SECONDS_MAX = 2;
const DUMP_TRIES_MAX = 3;
const EVENT_BUFFER_BYTES = 1024 * 1024;

/** Opened in the network namespace the calling thread is in, and stays there. */
function openSocket(): number {
  const fd = must(libc.socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE), 'netlink socket');
  const address = new Uint8Array(structs.sockaddr_nl.size);
  viewOf(address).setUint16(structs.sockaddr_nl.nl_family, AF_NETLINK, true);
  if (libc.bind(fd, address, address.length) < 0) {
    const errno = lastErrno();
    closeFd(fd);
    throw new SystemError(errno, 'bind of a netlink socket');
  }
  return fd;
}

function setInt(fd: number, level: number, name: number, value: number): void {
  must(libc.setsockopt(fd, level, name, new Int32Array([value]), 4), `setsockopt ${level}/${name}`);
}

/** Sends requests and waits for what the kernel answers. */
export class RequestSocket {
  readonly #fd = openSocket();
  readonly #buffer = new Uint8Array(BUFFER_BYTES);
  #sequence = 0;

  constructor() {
    // struct timeval of a 64-bit system: two 64-bit numbers.
    const timeout = new BigUint64Array([BigInt(ANSWER_SECONDS_MAX), 0n]);
    must(libc.setsockopt(this.#fd, SOL_SOCKET, SO_RCVTIMEO, timeout, 16), 'setsockopt SO_RCVTIMEO');
    setInt(this.#fd, SOL_NETLINK, NETLINK_CAP_ACK, 1);
    setInt(this.#fd, SOL_NETLINK, NETLINK_EXT_ACK, 1);
  }

  /** A change. Throws SystemError with the kernel's errno and its own words where it has some. */
  change(type: number, flags: number, fixed: Uint8Array, attributes: readonly Attribute[], what: string): void {
    this.#exchange(type, NLM_F_REQUEST | NLM_F_ACK | flags, fixed, attributes, what);
  }

  /** A question with one answer. */
  get(type: number, fixed: Uint8Array, attributes: readonly Attribute[], what: string): Message {
    const [message] = this.#exchange(type, NLM_F_REQUEST | NLM_F_ACK, fixed, attributes, what);
    if (message) return message;
    throw new OverlayError('EIO', 'netlink_malformed', `netlink: ${what}: no answer`);
  }

  /** A question with many answers, asked again when the list changed while it was being read. */
  dump(type: number, fixed: Uint8Array, what: string): Message[] {
    for (let tries = 1; ; tries++) {
      const messages = this.#exchange(type, NLM_F_REQUEST | NLM_F_DUMP, fixed, [], what);
      const isTorn = messages.some(({ flags }) => flags & NLM_F_DUMP_INTR);
      if (!isTorn || tries === DUMP_TRIES_MAX) return messages;
    }
  }

  close(): void {
    closeFd(this.#fd);
  }

  #exchange(
    type: number,
    flags: number,
    fixed: Uint8Array,
    attributes: readonly Attribute[],
    what: string,
  ): Message[] {
    const sequence = (this.#sequence = (this.#sequence + 1) >>> 0);
    const request = encodeMessage(type, flags, sequence, fixed, attributes);
    must(libc.send(this.#fd, request, request.length, 0), `netlink: ${what}`);
    const answers: Message[] = [];
    for (;;) {
      for (const message of decodeMessages(this.#receive(what))) {
        if (message.sequence !== sequence) continue; // the tail of a request that timed out
        if (message.type === NLMSG_DONE) return answers;
        if (message.type !== NLMSG_ERROR) answers.push(message);
        else if (this.#isAck(message, what)) return answers;
      }
    }
  }

  /** True for errno 0; throws for another. struct nlmsgerr: errno, the request's header, then attributes. */
  #isAck({ body, flags }: Message, what: string): boolean {
    const errno = body.length >= 4 ? -viewOf(body).getInt32(0, true) : 5;
    if (errno === 0) return true;
    const isCapped = (flags & NLM_F_CAPPED) !== 0;
    const reason =
      flags & NLM_F_ACK_TLVS && isCapped
        ? readText(decodeAttributes(body.subarray(4 + structs.nlmsghdr.size)).get(NLMSGERR_ATTR_MSG))
        : undefined;
    throw new SystemError(errno, `netlink: ${what}${reason ? ` (${reason})` : ''}`);
  }

  #receive(what: string): Uint8Array {
    for (;;) {
      const bytes = libc.recv(this.#fd, this.#buffer, BUFFER_BYTES, 0);
      if (bytes >= 0) return this.#buffer.slice(0, bytes);
      const errno = lastErrno();
      if (errno === EINTR) continue;
      if (errno === EAGAIN) {
        throw new OverlayError('ETIME', 'netlink_silent', `netlink: ${what}: no answer in ${ANSWER_SECONDS_MAX} s`);
      }
      throw new SystemError(errno, `netlink: ${what}`);
    }
  }
}

/** Receives the messages of multicast groups without ever blocking. */
export class GroupSocket {
  readonly #fd = openSocket();
  readonly #buffer = new Uint8Array(BUFFER_BYTES);

  constructor(groups: readonly number[]) {
    setInt(this.#fd, SOL_SOCKET, SO_RCVBUF, EVENT_BUFFER_BYTES);
    for (const group of groups) setInt(this.#fd, SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, group);
  }

  /** What one datagram holds, 'overrun' when the kernel had to drop some, undefined when there is nothing. */
  receive(): Message[] | 'overrun' | undefined {
    const bytes = libc.recv(this.#fd, this.#buffer, BUFFER_BYTES, MSG_DONTWAIT);
    if (bytes >= 0) return decodeMessages(this.#buffer.slice(0, bytes));
    const errno = lastErrno();
    if (errno === ENOBUFS) return 'overrun';
    if (errno === EAGAIN || errno === EINTR) return undefined;
    throw new SystemError(errno, 'netlink: events');
  }

  close(): void {
    closeFd(this.#fd);
  }
}
