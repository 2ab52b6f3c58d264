/** A raw ICMP socket (man 7 raw) in the network namespace it was opened in. Needs CAP_NET_RAW. */
import { AF_INET, IPPROTO_ICMP, POLLIN, SOCK_CLOEXEC, SOCK_NONBLOCK, SOCK_RAW, structs } from '../sys/abi.js';
import { monotonicMs, nextTurn } from '../sys/clock.js';
import { EAGAIN, lastErrno, must, SystemError } from '../sys/errno.js';
import { closeFd } from '../sys/fd.js';
import { answers, decodeEcho, ECHO_REQUEST, echoPayload, encodeEcho } from '../sys/icmp-echo.js';
import * as libc from '../sys/libc.js';
import { sockaddr } from '../sys/sockaddr.js';

const DATAGRAM_BYTES_MAX = 65535;
/** How long one poll may hold the event loop up. */
const POLL_MS = 5;

export class IcmpSocket {
  readonly #fd = must(
    libc.socket(AF_INET, SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC, IPPROTO_ICMP),
    'opening an ICMP socket',
  );
  readonly #buffer = new Uint8Array(DATAGRAM_BYTES_MAX);
  #sequence = 0;

  /** Milliseconds until the reply came, undefined when none did. Throws when the request cannot be sent. */
  async echo(ip: string, payloadBytes: number, msMax: number): Promise<number | undefined> {
    const sequence = this.#sequence++;
    const payload = echoPayload(payloadBytes, sequence);
    const request = { type: ECHO_REQUEST, id: process.pid & 0xffff, sequence, payload };
    const bytes = encodeEcho(request);
    const address = sockaddr(AF_INET, ip, 0);
    const begunMs = monotonicMs();
    must(libc.sendto(this.#fd, bytes, bytes.length, 0, address, address.length), `sending to ${ip}`);
    while (monotonicMs() - begunMs < msMax) {
      this.#wait();
      for (let message = this.#receive(); message; message = this.#receive()) {
        if (answers(decodeEcho(message), request)) return monotonicMs() - begunMs;
      }
      await nextTurn();
    }
    return undefined;
  }

  #wait(): void {
    const { size, fd, events } = structs.pollfd;
    const poll = new Uint8Array(size);
    const view = new DataView(poll.buffer);
    view.setInt32(fd, this.#fd, true);
    view.setInt16(events, POLLIN, true);
    libc.poll(poll, 1, POLL_MS);
  }

  /** The next ICMP message, without its IPv4 header. */
  #receive(): Uint8Array | undefined {
    const bytes = libc.recv(this.#fd, this.#buffer, this.#buffer.length, 0);
    if (bytes < 0) {
      const errno = lastErrno();
      if (errno === EAGAIN) return undefined;
      throw new SystemError(errno, 'receiving ICMP');
    }
    const headerBytes = (this.#buffer[0]! & 15) * 4;
    return this.#buffer.slice(headerBytes, bytes);
  }

  close(): void {
    closeFd(this.#fd);
  }
}
