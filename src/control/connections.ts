/** How many connections who may have: users who may only look cannot keep the others out. */
import type { Server } from 'node:http';
import type { Socket } from 'node:net';
import { OverlayError } from '../errors.js';
import { CONTROL_CONNECTIONS_MAX } from '../limits.js';
import { after } from '../sys/clock.js';
import type { Caller, Rights } from './rights.js';

/** Connections of one user who may not write; more than the commands of one person need at a time. */
const USER_CONNECTIONS_MAX = 16;
/** Connections of all those users: the rest is kept for root. */
const USERS_CONNECTIONS_MAX = CONTROL_CONNECTIONS_MAX - 16;
/** Refused callers that are told so at a time; others are hung up on. */
const REFUSALS_MAX = 16;
/** What a refused caller gets to read that. */
const REFUSAL_MS_MAX = 500;

/** Admits the connections of a server that does not listen yet. */
export function limitConnections(server: Server, rights: Rights): void {
  const admission = new Admission(rights);
  // What is refused must not get to the parser: it would be carried out all the same.
  const listeners = server.listeners('connection');
  server.removeAllListeners('connection');
  server.on('connection', (socket: Socket) => {
    if (!admission.admits(socket)) return;
    for (const listener of listeners) listener.call(server, socket);
  });
}

class Admission {
  /** Connections of each user who may not write. */
  readonly #counts = new Map<number, number>();
  #users = 0;
  #all = 0;
  #refusals = 0;

  constructor(readonly rights: Rights) {}

  /** False when the connection is refused, which has been dealt with then. */
  admits(socket: Socket): boolean {
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
    const isUser = !mayWrite;
    const count = this.#counts.get(uid) ?? 0;
    const isFull = isUser
      ? count >= USER_CONNECTIONS_MAX || this.#users >= USERS_CONNECTIONS_MAX
      : this.#all >= CONTROL_CONNECTIONS_MAX;
    if (isFull) {
      this.#refuse(socket, uid);
      return false;
    }
    this.#all++;
    if (isUser) {
      this.#users++;
      this.#counts.set(uid, count + 1);
    }
    socket.once('close', () => this.#closed(uid, isUser));
    return true;
  }

  #closed(uid: number, isUser: boolean): void {
    this.#all--;
    if (!isUser) return;
    this.#users--;
    const count = this.#counts.get(uid)! - 1;
    if (count > 0) this.#counts.set(uid, count);
    else this.#counts.delete(uid);
  }

  #refuse(socket: Socket, uid: number): void {
    socket.on('error', () => socket.destroy());
    if (this.#refusals >= REFUSALS_MAX) {
      socket.destroy();
      return;
    }
    this.#refusals++;
    const cancel = after(REFUSAL_MS_MAX, () => socket.destroy());
    socket.once('close', () => {
      cancel();
      this.#refusals--;
    });
    // Read and thrown away: a connection that ends with something unread takes the answer along.
    socket.resume();
    const why = `too many connections are open for user ${uid}: close some, or try again later`;
    refuse(socket, '503 Service Unavailable', new OverlayError('EAGAIN', 'too_many_connections', why));
  }
}

/** Answers what gets to no route, and ends our side of the connection. */
export function refuse(socket: Socket, status: string, error: OverlayError): void {
  const body = JSON.stringify({ error: error.toJSON() });
  const head = [`HTTP/1.1 ${status}`, 'Content-Type: application/json'];
  const length = `Content-Length: ${Buffer.byteLength(body)}`;
  socket.end([...head, length, 'Connection: close', '', body].join('\r\n'));
}
