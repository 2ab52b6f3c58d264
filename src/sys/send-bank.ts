/** The UDP sockets that datagrams are sent from: each at a port of its own, so that the network and the far side tell flows apart. */
import { OverlayError } from '../errors.js';
import { EADDRINUSE, lastErrno, SystemError } from './errno.js';
import * as libc from './libc.js';
import { randomBetween } from './random.js';
import { sockaddr } from './sockaddr.js';
import { DROP_ALL, filterInput } from './socket-filter.js';

export interface SendBank {
  readonly fds: readonly number[];
  /** Ports that somebody else had. */
  readonly skipped: number;
}

export interface SendBankOptions {
  /** Gives a socket, which whoever gave it closes should this fail. */
  readonly open: () => number;
  readonly domain: number;
  readonly ip: string;
  /** Sockets. */
  readonly count: number;
  /** First and last port they may have. */
  readonly ports: readonly [number, number];
}

/**
 * Binds each to a free port of the range, in an order that is random at each call. Throws EINVAL for a range that is too small,
 * EADDRINUSE when too many of it are in use.
 */
export function openSendBank({ open, domain, ip, count, ports }: SendBankOptions): SendBank {
  const [first, last] = ports;
  const size = last - first + 1;
  if (size < count) {
    throw new OverlayError(
      'EINVAL',
      'source_ports_few',
      `source_ports ${first}-${last} are ${size}, and there are ${count} send sockets: widen the range, or use a smaller --bank`,
    );
  }
  let skipped = 0;
  const order = walk(first, size);
  const fds = Array.from({ length: count }, () => {
    const fd = open();
    filterInput(fd, DROP_ALL);
    for (const port of order) {
      const address = sockaddr(domain, ip, port);
      if (libc.bind(fd, address, address.length) >= 0) return fd;
      const errno = lastErrno();
      if (errno !== EADDRINUSE) throw new SystemError(errno, `binding a send socket to ${ip} port ${port}`);
      skipped++;
    }
    throw new OverlayError(
      'EADDRINUSE',
      'source_ports_in_use',
      `of source_ports ${first}-${last} ${skipped} are in use by others, so that there are not ${count} for send sockets: ` +
        'choose another range, or use a smaller --bank',
    );
  });
  return { fds, skipped };
}

/** Every number from `first` on once, `size` of them, by steps that have no divisor in common with that. */
function walk(first: number, size: number): IterableIterator<number> {
  let step = size === 1 ? 1 : randomBetween(1, size - 1);
  while (divisor(step, size) !== 1) step = (step % size) + 1;
  let at = randomBetween(0, size - 1);
  let left = size;
  return {
    [Symbol.iterator]() {
      return this;
    },
    next() {
      if (left-- <= 0) return { done: true, value: undefined };
      at = (at + step) % size;
      return { done: false, value: first + at };
    },
  };
}

/** The greatest that two numbers have in common. */
function divisor(a: number, b: number): number {
  return b === 0 ? a : divisor(b, a % b);
}
