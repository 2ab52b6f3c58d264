/**
 * One end of a transfer between guests, run in a host:
 *
 *   stream-end.js take ADDRESS PORT         takes a TCP stream; prints its bytes and their SHA-256
 *   stream-end.js give ADDRESS PORT BYTES SEED [KEEP_MS]
 *   stream-end.js take-udp ADDRESS PORT     notes datagrams until one says END; prints how many, and the SHA-256 of all in order
 *   stream-end.js give-udp ADDRESS PORT COUNT SEED   datagrams of 1,000 bytes, in messages that the kernel cuts (UDP_SEGMENT)
 */
import { createHash } from 'node:crypto';
import { createSocket } from 'node:dgram';
import { connect, createServer } from 'node:net';
import { setTimeout as pause } from 'node:timers/promises';
import { AF_INET, IPPROTO_UDP, SOCK_CLOEXEC, SOCK_DGRAM, UDP_SEGMENT } from '../../src/sys/abi.js';
import { must } from '../../src/sys/errno.js';
import * as libc from '../../src/sys/libc.js';
import { sockaddr } from '../../src/sys/sockaddr.js';
import { Xorshift } from './xorshift.js';

const CHUNK_BYTES = 65_536;
export const DATAGRAM_BYTES = 1000;
const MESSAGE_DATAGRAMS = 40;
/** So that no queue on the way overflows. */
const MESSAGE_PAUSE_MS = 2;

/** The bytes of a transfer, chunk by chunk. */
export function* chunks(total: number, seed: number): Generator<Uint8Array> {
  const random = new Xorshift(seed);
  for (let left = total; left > 0; left -= CHUNK_BYTES) {
    const words = Uint32Array.from({ length: CHUNK_BYTES / 4 }, () => random.next());
    yield new Uint8Array(words.buffer).subarray(0, Math.min(left, CHUNK_BYTES));
  }
}

function take(address: string, port: number): void {
  const server = createServer((socket) => {
    const hash = createHash('sha256');
    let bytes = 0;
    socket.on('data', (data) => {
      bytes += data.length;
      hash.update(data);
    });
    socket.on('end', () => {
      socket.end();
      console.log(`${bytes} ${hash.digest('hex')}`);
      server.close();
    });
  });
  server.listen(port, address, () => console.log('ready'));
}

/** @param keepMs goes on with the same bytes for as long */
async function give(
  address: string,
  port: number,
  total: number,
  seed: number,
  keepMs: number,
): Promise<void> {
  const socket = connect(port, address);
  await new Promise((resolve) => socket.once('connect', resolve));
  const hash = createHash('sha256');
  const until = performance.now() + keepMs;
  let bytes = 0;
  do {
    for (const chunk of chunks(total, seed)) {
      hash.update(chunk);
      bytes += chunk.length;
      if (!socket.write(chunk)) await new Promise((resolve) => socket.once('drain', resolve));
    }
  } while (performance.now() < until);
  socket.end();
  console.log(`${bytes} ${hash.digest('hex')}`);
}

function takeUdp(address: string, port: number): void {
  const socket = createSocket('udp4');
  const hash = createHash('sha256');
  let count = 0;
  socket.on('message', (data) => {
    if (data.length !== DATAGRAM_BYTES) {
      console.log(`${count} ${hash.digest('hex')}`);
      socket.close();
      return;
    }
    count++;
    hash.update(data);
  });
  socket.bind(port, address, () => {
    socket.setRecvBufferSize(4 * 1024 * 1024);
    console.log('ready');
  });
}

async function giveUdp(address: string, port: number, count: number, seed: number): Promise<void> {
  const fd = must(libc.socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), 'socket');
  const size = new Int32Array([DATAGRAM_BYTES]) as unknown as Buffer;
  must(libc.setsockopt(fd, IPPROTO_UDP, UDP_SEGMENT, size, 4), 'UDP_SEGMENT');
  const to = sockaddr(AF_INET, address, port);
  const hash = createHash('sha256');
  const random = new Xorshift(seed);
  for (let sent = 0; sent < count; ) {
    const datagrams = Math.min(count - sent, 1 + random.below(MESSAGE_DATAGRAMS));
    const words = Uint32Array.from({ length: (datagrams * DATAGRAM_BYTES) / 4 }, () => random.next());
    const message = new Uint8Array(words.buffer);
    must(libc.sendto(fd, message, message.length, 0, to, to.length), 'sendto');
    hash.update(message);
    sent += datagrams;
    await pause(MESSAGE_PAUSE_MS);
  }
  const end = Uint8Array.of(0);
  must(libc.sendto(fd, end, end.length, 0, to, to.length), 'sendto');
  console.log(`${count} ${hash.digest('hex')}`);
}

const [what, address, port, amount, seed, keepMs] = process.argv.slice(2);
if (process.argv[1]?.endsWith('stream-end.js')) {
  if (what === 'take') take(address!, Number(port));
  if (what === 'give') await give(address!, Number(port), Number(amount), Number(seed), Number(keepMs ?? 0));
  if (what === 'take-udp') takeUdp(address!, Number(port));
  if (what === 'give-udp') await giveUdp(address!, Number(port), Number(amount), Number(seed));
}
