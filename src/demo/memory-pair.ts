/** Two engines in this process, their ports in memory, the underlay UDP on the loopback. Needs no rights. */
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { MTU_DEFAULT_BYTES } from '../limits.js';
import { monotonicMs, nextTurn } from '../sys/clock.js';
import { answers, ECHO_REQUEST, echoPayload } from '../sys/icmp-echo.js';
import type { Cleanup } from './cleanup.js';
import { overlayadmLine } from './cli.js';
import { makeDirectory } from './directory.js';
import { MemoryHost } from './memory-host.js';
import { transferBlocks } from './memory-transfer.js';
import type { Pair } from './pair.js';
import { picture } from './picture.js';
import { print, step, title } from './screen.js';

/** Starts both, telling of each step. */
export async function startMemoryPair(cleanup: Cleanup): Promise<Pair> {
  const directory = makeDirectory(cleanup);
  const port = await freePort();
  const [a, b] = await Promise.all([
    MemoryHost.start(cleanup, {
      name: 'a',
      underlayIp: '127.0.0.1',
      innerIp: '10.99.0.1',
      mac: '02:00:00:00:00:0a',
      directory,
    }),
    MemoryHost.start(cleanup, {
      name: 'b',
      underlayIp: '127.0.0.2',
      innerIp: '10.99.0.2',
      mac: '02:00:00:00:00:0b',
      directory,
    }),
  ]);
  title('Two hosts, in memory');
  print(...picture({ a, b, port }, 'a station in memory', 'the engine of overlayd', 'loopback', 'UDP'), '');
  step('The same engine twice in this process, with ports in memory in place of TAP links');
  let sequence = 0;
  return {
    a,
    b,
    port,
    carries: 'frames',
    megabytesDefault: 50,
    lost: new Promise<never>(() => {}), // this process is both hosts
    echo: (payloadBytes, msMax) => echo(a, b, sequence++, payloadBytes, msMax),
    transfer: (bytes, onProgress) => transferBlocks(a, b, MTU_DEFAULT_BYTES, bytes, onProgress),
    commands: () => [
      ['counters and drops of host a', overlayadmLine(a.socket, 'show-stats')],
      ['the overlay of host b', overlayadmLine(b.socket, 'show-overlay')],
      ['where host a sends to', overlayadmLine(a.socket, 'show-overlay', '-t')],
    ],
  };
}

async function echo(
  from: MemoryHost,
  to: MemoryHost,
  sequence: number,
  payloadBytes: number,
  msMax: number,
): Promise<number | undefined> {
  const payload = echoPayload(payloadBytes, sequence);
  const request = { type: ECHO_REQUEST, id: process.pid & 0xffff, sequence, payload };
  let isAnswered = false;
  from.onEcho = (reply) => {
    isAnswered ||= answers(reply, request);
  };
  const begunMs = monotonicMs();
  if (!from.sendEcho(to.station, request)) throw new Error('the link takes no frames');
  while (monotonicMs() - begunMs < msMax) {
    to.turn(from.station);
    from.turn(to.station);
    if (isAnswered) return monotonicMs() - begunMs;
    await nextTurn();
  }
  return undefined;
}

/** A UDP port that nobody has on any address. */
async function freePort(): Promise<number> {
  const socket = createSocket('udp4');
  try {
    socket.bind(0);
    await once(socket, 'listening');
    return socket.address().port;
  } finally {
    socket.close();
  }
}
