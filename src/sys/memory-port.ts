/**
 * A port without a link: socket pairs that keep frame boundaries. The workers hold one end and read and write it
 * as they would a TAP queue; whoever made the port holds the other. Needs no rights.
 */
import { VNET_HDR_BYTES } from '../../assembly/layout.js';
import { SOCKET_BUFFER_BYTES } from '../limits.js';
import { AF_UNIX, SO_SNDBUF, SOCK_CLOEXEC, SOCK_NONBLOCK, SOCK_SEQPACKET, SOL_SOCKET } from './abi.js';
import { EAGAIN, lastErrno, must, SystemError } from './errno.js';
import { closeFd } from './fd.js';
import * as libc from './libc.js';
import type { Port } from './port.js';

export class MemoryPort implements Port {
  readonly index: number = 0;
  readonly fds: readonly number[];
  /** Descriptors of our ends, queue by queue. */
  readonly ends: readonly number[];
  readonly #buffer = new Uint8Array(65536 + VNET_HDR_BYTES);
  mtu = 0;
  alias = '';
  hasCarrier = false;

  constructor(queues: number) {
    const pairs = Array.from({ length: queues }, () => {
      const pair = new Int32Array(2);
      must(libc.socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair), 'socketpair');
      for (const fd of pair) {
        const bytes = new Int32Array([SOCKET_BUFFER_BYTES]);
        must(libc.setsockopt(fd, SOL_SOCKET, SO_SNDBUF, bytes, 4), 'setsockopt SO_SNDBUF');
      }
      return pair;
    });
    this.fds = pairs.map((pair) => pair[0]!);
    this.ends = pairs.map((pair) => pair[1]!);
  }

  setCarrier(on: boolean): void {
    this.hasCarrier = on;
  }

  setMtu(bytes: number): void {
    this.mtu = bytes;
  }

  setAlias(text: string): void {
    this.alias = text;
  }

  /** Sends a frame towards the workers on one queue; false when the queue is full. */
  send(queue: number, frame: Uint8Array): boolean {
    const bytes = new Uint8Array(VNET_HDR_BYTES + frame.length);
    bytes.set(frame, VNET_HDR_BYTES);
    return this.sendRaw(queue, bytes);
  }

  /** Likewise with the caller's own header in front. */
  sendRaw(queue: number, bytes: Uint8Array): boolean {
    if (libc.write(this.ends[queue]!, bytes, bytes.length) >= 0) return true;
    const errno = lastErrno();
    if (errno === EAGAIN) return false;
    throw new SystemError(errno, 'write to a memory port');
  }

  /** The next frame from the workers on any queue, with its header, or undefined. */
  receiveRaw(): Uint8Array | undefined {
    for (const end of this.ends) {
      const bytes = libc.read(end, this.#buffer, this.#buffer.length);
      if (bytes > 0) return this.#buffer.slice(0, bytes);
      if (bytes < 0 && lastErrno() !== EAGAIN) throw new SystemError(lastErrno(), 'read from a memory port');
    }
    return undefined;
  }

  /** The next frame from the workers on any queue, or undefined. */
  receive(): Uint8Array | undefined {
    return this.receiveRaw()?.subarray(VNET_HDR_BYTES);
  }

  readonly mac = '';

  keep(): void {}

  handOver(): void {}

  readonly offloads = { checksum: false, tso: false, uso: false };
  readonly takes = 'none';

  offer(): void {}

  unlink(): void {}

  async release(): Promise<void> {
    for (const fd of [...this.fds, ...this.ends]) closeFd(fd);
  }
}
