/**
 * What became of datagrams that were sent (man 7 ip, IP_RECVERR; man 7 ipv6, IPV6_RECVERR): routers' ICMP, and the kernel's own
 * word on those that do not fit. Each socket that `reportErrors` was called for has a queue of them.
 */
import {
  IP_RECVERR,
  IPPROTO_IP,
  IPPROTO_IPV6,
  IPV6_RECVERR,
  MSG_CTRUNC,
  MSG_DONTWAIT,
  MSG_ERRQUEUE,
  macros,
  POLLERR,
  structs,
} from './abi.js';
import { EINTR, lastErrno } from './errno.js';
import * as libc from './libc.js';
import { endpointOf } from './sockaddr.js';

const { SO_EE_ORIGIN_LOCAL } = macros['linux/errqueue.h'];
const MESSAGE = structs.msghdr;
const CONTROL = structs.cmsghdr;
const EXTENDED = structs.sock_extended_err;
const POLL = structs.pollfd;

/** For every error taken off: a sender's flood must not keep the caller. */
const ERRORS_MAX = 256;
const NAME_BYTES = structs.sockaddr_in6.size;
/** The error, and the address of who said so. */
const CONTROL_BYTES = 128;

/** One error. */
export interface SendError {
  /** Canonical address that the datagram was sent to. */
  readonly ip: string;
  /** E number. */
  readonly errno: number;
  /** With EMSGSIZE the largest IP packet of the way, 0 where a router does not say. */
  readonly info: number;
  /** By this host's kernel, which has not sent the datagram. */
  readonly isLocal: boolean;
}

export class ErrorQueue {
  // Of their own memory each, so that the addresses in the message stay what they are.
  readonly #name = new Uint8Array(new ArrayBuffer(4096), 0, NAME_BYTES);
  readonly #control = new Uint8Array(new ArrayBuffer(4096), 0, CONTROL_BYTES);
  readonly #message = new Uint8Array(new ArrayBuffer(4096), 0, MESSAGE.size);

  /** Those of the sockets that have errors, found out without waiting. */
  withErrors(fds: readonly number[]): number[] {
    const polled = new Uint8Array(new ArrayBuffer(Math.max(fds.length, 1) * POLL.size));
    const view = new DataView(polled.buffer);
    for (const [index, fd] of fds.entries()) view.setInt32(index * POLL.size + POLL.fd, fd, true);
    if (libc.poll(polled, fds.length, 0) <= 0) return [];
    return fds.filter((_, index) => (view.getInt16(index * POLL.size + POLL.revents, true) & POLLERR) !== 0);
  }

  /** Takes errors off a socket's queue, oldest first, without waiting; what is left after so many is for the next call. */
  drain(fd: number): SendError[] {
    const errors: SendError[] = [];
    for (let count = 0; count < ERRORS_MAX; count++) {
      const view = this.#prepare();
      if (libc.recvmsg(fd, this.#message, MSG_ERRQUEUE | MSG_DONTWAIT) < 0) {
        if (lastErrno() === EINTR) continue;
        break;
      }
      const isCut = (view.getInt32(MESSAGE.msg_flags, true) & MSG_CTRUNC) !== 0;
      const nameBytes = Math.min(view.getUint32(MESSAGE.msg_namelen, true), NAME_BYTES);
      const controlBytes = Number(view.getBigUint64(MESSAGE.msg_controllen, true));
      const error = isCut ? undefined : parse(this.#name.subarray(0, nameBytes), this.#control, controlBytes);
      if (error) errors.push(error);
    }
    return errors;
  }

  #prepare(): DataView {
    const view = new DataView(this.#message.buffer);
    this.#message.fill(0);
    this.#name.fill(0);
    view.setBigUint64(MESSAGE.msg_name, BigInt(libc.addressOf(this.#name)), true);
    view.setUint32(MESSAGE.msg_namelen, NAME_BYTES, true);
    view.setBigUint64(MESSAGE.msg_control, BigInt(libc.addressOf(this.#control)), true);
    view.setBigUint64(MESSAGE.msg_controllen, BigInt(CONTROL_BYTES), true);
    return view;
  }
}

function parse(name: Uint8Array, control: Uint8Array, bytes: number): SendError | undefined {
  const to = endpointOf(name);
  const view = new DataView(control.buffer, control.byteOffset, Math.min(bytes, control.length));
  for (let at = 0; to && at + CONTROL.size <= view.byteLength; ) {
    const length = Number(view.getBigUint64(at + CONTROL.cmsg_len, true));
    if (length < CONTROL.size || length > view.byteLength - at) return undefined;
    const level = view.getInt32(at + CONTROL.cmsg_level, true);
    const type = view.getInt32(at + CONTROL.cmsg_type, true);
    const isError =
      (level === IPPROTO_IP && type === IP_RECVERR) || (level === IPPROTO_IPV6 && type === IPV6_RECVERR);
    const data = at + CONTROL.size;
    if (isError && length >= CONTROL.size + EXTENDED.size) {
      return {
        ip: to.ip,
        errno: view.getUint32(data + EXTENDED.ee_errno, true),
        info: view.getUint32(data + EXTENDED.ee_info, true),
        isLocal: view.getUint8(data + EXTENDED.ee_origin) === SO_EE_ORIGIN_LOCAL,
      };
    }
    at += (length + 7) & ~7;
  }
  return undefined;
}
