/**
 * What a local user without rights can do to the control socket, as uid 65534: `control-attacker.js <kind> <socket> <count>`
 * goes on until its input ends, and says `ready` when it has begun.
 *
 *   pipes        connections that send 64 KiB of requests and read nothing, again and again, six at a time
 *   handles      connections that send 2,690 requests for a handle each, sixteen at a time
 *   connections  opens so many connections and keeps those that are let in
 *   flood        connects, sends 50 requests and closes, again and again
 *   slow         sends a head or a body byte by byte
 *   readers      asks for long answers and streams, and does not read
 */
import { connect, type Socket } from 'node:net';

const USER = 65534;
const PIPE_BYTES = 64 * 1024;
const [, , kind = '', path = '', count = ''] = process.argv;
process.setgroups!([]);
process.setgid!(USER);
process.setuid!(USER);

const list = 'GET /v1/overlays HTTP/1.1\r\n\r\n';
const opening = '{"write":false}';
const handle =
  'POST /v1/handle HTTP/1.1\r\nContent-Type: application/json\r\n' +
  `Content-Length: ${opening.length}\r\n\r\n${opening}`;

/** A connection that does what it does, and is made anew a moment after its end. */
function again(begin: (socket: Socket) => void, pauseMs: number): void {
  const socket = connect(path);
  socket.on('error', () => {});
  socket.pause();
  socket.on('connect', () => begin(socket));
  const look = setInterval(() => socket.write('\r'), 200);
  const life = setTimeout(() => socket.destroy(), 3000);
  socket.on('close', () => {
    clearInterval(look);
    clearTimeout(life);
    setTimeout(() => again(begin, pauseMs), pauseMs);
  });
}

function drip(socket: Socket, start: string): void {
  socket.write(start);
  const timer = setInterval(() => socket.write('x'), 300);
  socket.on('close', () => clearInterval(timer));
}

const kinds: Readonly<Record<string, (index: number) => void>> = {
  pipes: () => again((socket) => socket.write(list.repeat(PIPE_BYTES / list.length)), 1),
  handles: () => again((socket) => socket.write(handle.repeat(2690)), 1),
  connections: () => {
    const socket = connect(path);
    socket.on('error', () => {});
    socket.resume();
  },
  flood: () =>
    again((socket) => {
      socket.write(list.repeat(50));
      socket.destroySoon();
    }, 1),
  slow: (index) =>
    again((socket) => {
      const post =
        'POST /v1/overlays HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: 9999\r\n\r\n';
      drip(socket, index % 2 ? 'GET /v1/overlays HTTP/1.1\r\nX: ' : post);
    }, 1),
  readers: (index) =>
    again((socket) => {
      const path = index % 2 ? '/v1/overlays' : '/v1/events?follow=true';
      socket.write(`GET ${path} HTTP/1.1\r\n\r\n`);
    }, 1),
};

for (let index = 0; index < Number(count); index++) kinds[kind]!(index);
console.log('ready');
process.stdin.resume().once('end', () => process.exit(0));
