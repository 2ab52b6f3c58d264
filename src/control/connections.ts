/**
 * The connections of the control sockets: who may have how many, one request at a time on each, and which are cut.
 * Users who may only look cannot keep the others out: they have places and a rate of their own, a socket that is left
 * alone for a moment when too many connect, and nothing that waits for them without bound.
 */
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import { OverlayError } from '../errors.js';
import {
  CONTROL_ACCEPT_RATE,
  CONTROL_ARRIVAL_MS_MAX,
  CONTROL_CONNECTIONS,
  CONTROL_COST_BYTES,
  CONTROL_IDLE_MS_MAX,
  CONTROL_PAUSE_MS,
  CONTROL_UNREAD_BYTES_MAX,
  CONTROL_UNREAD_MS_MAX,
} from '../limits.js';
import { after, every, monotonicMs } from '../sys/clock.js';
import { Bucket } from '../varpd/remote/bucket.js';
import { Budget } from './budget.js';
import { Places } from './places.js';
import { type RefusalName, Refusals } from './refusals.js';
import type { Caller, Rights } from './rights.js';

/** Refused callers that are told so at a time; others are hung up on. */
const REFUSALS_MAX = 16;
/** Time in which a refused caller can read the answer. */
const REFUSAL_MS_MAX = 500;
/** Requests that a pipelined one counts as: up to 64 KiB are read, of which the rest is thrown away. */
const PIPELINED_WEIGHT = 50;
/** How often connections are looked at that may have to be cut. */
const SWEEP_MS = 1000;

/** What pauses when too many connect. */
interface Pausable {
  pause(ms: number): void;
}

interface Connection {
  readonly uid: number;
  readonly mayWrite: boolean;
  /** Of the request that has not been answered yet. */
  response: ServerResponse | undefined;
  /** When it became idle; undefined before its first answer, which has a deadline of its own. */
  idleSinceMs: number | undefined;
  /** When its answer was seen first to be whole and not read. */
  unreadSinceMs: number | undefined;
}

export class Connections {
  readonly refusals = new Refusals();
  readonly #budget = new Budget();
  readonly #places = new Places(CONTROL_CONNECTIONS);
  readonly #accepted = new Bucket(CONTROL_ACCEPT_RATE);
  readonly #open = new Map<Socket, Connection>();
  readonly #stop = every(SWEEP_MS, () => this.#sweep());
  #told = 0;

  constructor(readonly rights: Rights) {}

  get size(): number {
    return this.#open.size;
  }

  close(): void {
    this.#stop();
  }

  /** False when a new connection is refused, which has been dealt with then. @param from what it came by */
  admits(socket: Socket, from: Pausable): boolean {
    let caller: Caller;
    try {
      caller = this.rights.callerOf(socket);
    } catch (error) {
      // He has hung up already.
      if (!(error instanceof OverlayError)) throw error;
      socket.destroy();
      return false;
    }
    const { uid, mayWrite } = caller;
    if (!mayWrite && !this.#accepted.take()) {
      from.pause(CONTROL_PAUSE_MS);
      this.refusals.note('pauses', uid);
    }
    if (!mayWrite && !this.#budget.take(uid)) {
      this.#refuse(socket, 'rate', '429 Too Many Requests', tooMany(uid), uid);
      return false;
    }
    const leave = this.#places.take(caller);
    if (!leave) {
      const why = `too many connections are open for user ${uid}: close some, or try again later`;
      const error = new OverlayError('EAGAIN', 'too_many_connections', why);
      this.#refuse(socket, 'connections', '503 Service Unavailable', error, uid);
      return false;
    }
    this.#open.set(socket, {
      uid,
      mayWrite,
      response: undefined,
      idleSinceMs: undefined,
      unreadSinceMs: undefined,
    });
    socket.once('close', () => {
      this.#open.delete(socket);
      leave();
    });
    return true;
  }

  /**
   * Whether a request may be handled. A connection on which one comes before the answer to the one before it is cut: Node
   * parses all that came in one read, and each answer would wait in memory for those before it.
   */
  begins({ socket }: IncomingMessage, response: ServerResponse): boolean {
    const connection = this.#open.get(socket);
    if (!connection) return false;
    const { uid, mayWrite } = connection;
    if (socket.destroyed || connection.response) {
      if (!socket.destroyed) this.refusals.note('pipelined', uid);
      if (!mayWrite) this.#budget.charge(uid, PIPELINED_WEIGHT);
      stopParser(socket);
      socket.destroy();
      return false;
    }
    connection.response = response;
    const ended = () => {
      if (connection.response !== response) return;
      connection.response = undefined;
      connection.idleSinceMs = monotonicMs();
      connection.unreadSinceMs = undefined;
    };
    // When the last byte is with the kernel; after that the client may send the next request.
    response.once('finish', ended);
    response.once('close', ended);
    if (mayWrite) return true;
    if (!this.#budget.take(uid)) {
      this.#answer(response, 429, 'rate', tooMany(uid), uid);
      return false;
    }
    const unread = this.#unreadBy(uid);
    if (unread <= CONTROL_UNREAD_BYTES_MAX) return true;
    const why = `${unread} bytes of answers wait to be read by user ${uid}: read them first`;
    this.#answer(response, 503, 'unread', new OverlayError('EAGAIN', 'answers_unread', why), uid);
    return false;
  }

  /** An answer was built for a user who may not write. @param weight how many requests it is worth at least */
  built({ uid }: Caller, bytes: number, weight: number): void {
    this.#budget.charge(uid, Math.max(weight, Math.ceil(bytes / CONTROL_COST_BYTES)));
  }

  /** A request did not come in time: says so and ends the connection. */
  late(socket: Socket): void {
    const connection = this.#open.get(socket);
    if (connection) this.refusals.note('late', connection.uid);
    const seconds = CONTROL_ARRIVAL_MS_MAX / 1000;
    const why = `the request did not come within ${seconds} seconds: send its head and body in one go`;
    refuse(socket, '408 Request Timeout', new OverlayError('ETIME', 'request_late', why));
    socket.once('finish', () => socket.destroy());
  }

  #unreadBy(uid: number): number {
    let bytes = 0;
    for (const [socket, each] of this.#open) if (each.uid === uid) bytes += socket.writableLength;
    return bytes;
  }

  #answer(
    response: ServerResponse,
    status: number,
    name: RefusalName,
    error: OverlayError,
    uid: number,
  ): void {
    this.refusals.note(name, uid);
    // On a new connection he would have to wait for his turn.
    response.shouldKeepAlive = false;
    response.writeHead(status, { 'content-type': 'application/json' });
    response.end(JSON.stringify({ error: error.toJSON() }));
  }

  #refuse(socket: Socket, name: RefusalName, status: string, error: OverlayError, uid: number): void {
    this.refusals.note(name, uid);
    socket.on('error', () => socket.destroy());
    if (this.#told >= REFUSALS_MAX) {
      socket.destroy();
      return;
    }
    this.#told++;
    const cancel = after(REFUSAL_MS_MAX, () => socket.destroy());
    socket.once('close', () => {
      cancel();
      this.#told--;
    });
    // Read and thrown away: a connection that ends with something unread takes the answer along.
    socket.resume();
    refuse(socket, status, error);
  }

  /** Cuts connections of users whose answers are not read, and idle ones where there are many. */
  #sweep(): void {
    const now = monotonicMs();
    for (const [socket, connection] of this.#open) {
      const { uid, mayWrite, response, idleSinceMs } = connection;
      if (mayWrite) continue;
      if (response?.writableEnded) {
        connection.unreadSinceMs ??= now;
        if (now - connection.unreadSinceMs >= CONTROL_UNREAD_MS_MAX) this.#cut(socket, 'unread_cut', uid);
      }
      const isIdle = !response && idleSinceMs !== undefined && now - idleSinceMs >= CONTROL_IDLE_MS_MAX;
      if (isIdle && this.#places.isShort(uid)) this.#cut(socket, 'idle_cut', uid);
    }
  }

  #cut(socket: Socket, name: RefusalName, uid: number): void {
    this.refusals.note(name, uid);
    socket.destroy();
  }
}

/**
 * Has Node look at nothing more of what it has read from a socket. It would make a request and an answer of each that is left,
 * for a connection that is cut. There is no other way to its parser; 2 says that what follows is no HTTP.
 */
function stopParser(socket: Socket): void {
  const { parser } = socket as { parser?: { onIncoming: () => number } | null };
  if (parser) parser.onIncoming = () => 2;
}

function tooMany(uid: number): OverlayError {
  return new OverlayError(
    'EAGAIN',
    'too_many_requests',
    `user ${uid} sends too many requests: wait a few seconds and send fewer, or ask as root`,
  );
}

/** Answers what gets to no route, and ends our side of the connection. */
export function refuse(socket: Socket, status: string, error: OverlayError): void {
  const body = JSON.stringify({ error: error.toJSON() });
  const head = [`HTTP/1.1 ${status}`, 'Content-Type: application/json'];
  const length = `Content-Length: ${Buffer.byteLength(body)}`;
  socket.end([...head, length, 'Connection: close', '', body].join('\r\n'));
}
