/**
 * A guest and its peer, for the miss bench: sends frames into a memory port and takes datagrams off a UDP socket, apart
 * from the main thread, whose load is what is measured.
 */
import { parentPort, workerData } from 'node:worker_threads';
import { MSG_DONTWAIT } from '../../src/sys/abi.js';
import * as libc from '../../src/sys/libc.js';

export interface GuestTask {
  /** one: a frame, then its datagram, again and again. many: frames at a rate. count: datagrams with numbers. */
  readonly kind: 'one' | 'many' | 'count';
  /** Our end of the memory port. */
  readonly port: number;
  /** The peer's UDP socket. */
  readonly socket: number;
  /** A frame behind a vnet_hdr; the last bytes of its destination and its number are set anew for each. */
  readonly frame: Uint8Array;
  readonly frames: number;
  /** many: frames a second. */
  readonly rate: number;
  /** Each frame has a destination of its own. */
  readonly isDistinct: boolean;
}

const VNET_HDR_BYTES = 10;
const NUMBER = VNET_HDR_BYTES + 42;
const BURST = 32;

const task = workerData as GuestTask;
const frame = Buffer.from(task.frame);
const into = Buffer.alloc(2048);
const pauseCell = new Int32Array(new SharedArrayBuffer(4));
const nowMs = () => performance.now();

function send(number: number): void {
  if (task.isDistinct) frame.writeUInt32BE(number, VNET_HDR_BYTES + 2);
  frame.writeUInt32BE(number, NUMBER);
  while (libc.write(task.port, frame, frame.length) < 0) Atomics.wait(pauseCell, 0, 0, 0.05);
}

/** Microseconds from each frame in to its datagram out. */
function one(): number[] {
  const times: number[] = [];
  for (let number = 0; number < task.frames; number++) {
    const begun = nowMs();
    send(number);
    while (libc.recv(task.socket, into, into.length, MSG_DONTWAIT) < 0) {
      if (nowMs() - begun > 5000) throw new Error(`frame ${number} did not come out`);
    }
    times.push((nowMs() - begun) * 1000);
    Atomics.wait(pauseCell, 0, 0, 2);
  }
  return times;
}

/** Seconds it took to send the frames. */
function many(): number {
  const begun = nowMs();
  for (let number = 0; number < task.frames; number++) {
    send(number);
    if (number % BURST === 0) {
      const ahead = (number / task.rate) * 1000 - (nowMs() - begun);
      if (ahead > 0) Atomics.wait(pauseCell, 0, 0, ahead);
    }
  }
  return (nowMs() - begun) / 1000;
}

/** How many of the datagrams arrived, until none does for a second. */
function count(): number {
  let received = 0;
  let lastMs = nowMs();
  while (received < task.frames && nowMs() - lastMs < 3000) {
    if (libc.recv(task.socket, into, into.length, MSG_DONTWAIT) < 0) {
      Atomics.wait(pauseCell, 0, 0, 0.2);
      continue;
    }
    received++;
    lastMs = nowMs();
  }
  return received;
}

const work = { one, many, count };
parentPort!.postMessage(work[task.kind]());
