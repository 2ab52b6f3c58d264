/**
 * The control API: HTTP and JSON on two unix sockets. Every request is one row of `operations.ts`.
 *
 * | socket        | mode and group                                         | who connects                                 |
 * |---------------|--------------------------------------------------------|----------------------------------------------|
 * | `PATH`        | `--socket-mode` (0666), `--group`                      | everybody the mode lets in                   |
 * | `PATH.admin`  | 0660 and `--admin-group`; without such a group 0600    | root, the daemon's own user, the admin group |
 *
 * Both serve the same, and rights are those of the caller on each. The second one has a backlog of its own: however many
 * connect to the first, whoever may write gets through. Clients try it first (`client.ts`).
 */
import { mkdirSync } from 'node:fs';
import { createServer, type RequestListener, type Server } from 'node:http';
import { connect, type Socket } from 'node:net';
import { dirname } from 'node:path';
import fastify, { type FastifyInstance, type FastifyReply } from 'fastify';
import { OverlayError } from '../errors.js';
import { EventReader } from '../events.js';
import { CONTROL_ARRIVAL_MS_MAX, CONTROL_BODY_BYTES_MAX, CONTROL_CONNECTION_MS_MAX } from '../limits.js';
import type { Log } from '../log.js';
import type { Overlay } from '../overlay.js';
import { SystemError } from '../sys/errno.js';
import { adminSocketOf } from './client.js';
import { Connections, refuse } from './connections.js';
import { Handles } from './handles.js';
import { KeptAnswers } from './kept-answers.js';
import { Listener, removeSocket } from './listener.js';
import { type Operation, operations } from './operations.js';
import { fieldsOf, misunderstood, parseFields } from './request.js';
import { type Access, type Caller, Rights } from './rights.js';
import { EventStreams } from './streams.js';

/** Who may connect at all; what they may do then is a matter of `rights.ts`. */
const SOCKET_MODE = 0o666;
const OTHERS_WRITE = 0o002;
const [ADMIN_MODE, ADMIN_GROUP_MODE] = [0o600, 0o660];
/** How often requests are looked at that have not come in time. */
const ARRIVALS_MS = 1000;

const httpStatus: Readonly<Record<string, number>> = {
  EINVAL: 400,
  EPERM: 403,
  EACCES: 403,
  EBADF: 403,
  ENOENT: 404,
  ENOTTY: 404,
  EAGAIN: 409,
  EBUSY: 409,
  EEXIST: 409,
  ENODEV: 409,
  ENXIO: 409,
  EADDRINUSE: 409,
  EADDRNOTAVAIL: 409,
  E2BIG: 413,
  ENOTSUP: 422,
  ETIME: 504,
  ENOMEM: 507,
  ENOSPC: 507,
};

/** Over a budget, whatever the errno. */
const busyCodes = ['too_many_readers', 'too_many_handles'];

export class ControlServer {
  readonly #http: Server;
  readonly #fastify: FastifyInstance;
  readonly #rights = new Rights();
  readonly #connections = new Connections(this.#rights);
  readonly #streams = new EventStreams(this.#connections.refusals);
  readonly #kept = new KeptAnswers();
  readonly #listeners: { readonly public: Listener; readonly admin: Listener };
  #access: Access = {};

  /** Makes the sockets, and takes no connections yet. Throws what the system refuses with. */
  private constructor(
    readonly overlay: Overlay,
    readonly path: string,
    readonly log: Log,
  ) {
    let http: Server | undefined;
    this.#fastify = fastify({
      serverFactory: (handler) => {
        http = this.#httpServer(handler);
        return http;
      },
      logger: false,
      bodyLimit: CONTROL_BODY_BYTES_MAX,
      // Every answer has a body, and whoever wants a head alone can throw that away.
      exposeHeadRoutes: false,
      routerOptions: { maxParamLength: 256 },
      // A path that is not well encoded gets this far only.
      frameworkErrors: (error, _request, reply) => this.#answerError(error, reply as FastifyReply),
      clientErrorHandler: (error, socket) => this.#refuseClient(error, socket),
    });
    this.#http = http!;
    for (const operation of operations) this.#route(operation);
    new Handles(overlay, this.#rights, this.#connections.refusals).addRoutes(this.#fastify);
    this.#fastify.setErrorHandler((error, _request, reply) => this.#answerError(error as Error, reply));
    this.#fastify.setNotFoundHandler((request, reply) =>
      this.#answerError(
        new OverlayError('ENOENT', 'no_such_operation', `there is no ${request.method} ${request.url}`),
        reply,
      ),
    );
    const admin = new Listener(adminSocketOf(path), (socket) => this.#http.emit('connection', socket));
    try {
      const open = new Listener(path, (socket) => this.#http.emit('connection', socket));
      this.#listeners = { public: open, admin };
    } catch (error) {
      admin.close();
      throw error;
    }
  }

  /**
   * Listens on the socket. Throws EADDRINUSE when another daemon answers on it (a dead one's is replaced), ENOENT for a
   * group that is not there, and what making the socket gives.
   */
  static async start(overlay: Overlay, path: string, log: Log, access: Access = {}): Promise<ControlServer> {
    const paths = [path, adminSocketOf(path)];
    for (const each of paths) {
      if (!(await answers(each))) continue;
      throw new OverlayError(
        'EADDRINUSE',
        'socket_in_use',
        `another daemon answers on ${each}: stop it, or give this one a --socket of its own`,
      );
    }
    let server: ControlServer | undefined;
    try {
      mkdirSync(dirname(path), { recursive: true, mode: 0o755 });
      for (const each of paths) removeSocket(each);
      server = new ControlServer(overlay, path, log);
      server.setAccess(access);
      await server.#listen();
      return server;
    } catch (error) {
      await server?.close();
      if (error instanceof OverlayError && !(error instanceof SystemError)) throw error;
      const { message } = error as Error;
      const code = error instanceof SystemError ? error.errno : (error as NodeJS.ErrnoException).code;
      throw new OverlayError(
        code ?? 'EIO',
        'socket_failed',
        `the control socket cannot be made: ${message}; see --socket`,
      );
    }
  }

  async close(): Promise<void> {
    this.#connections.close();
    this.#listeners.public.close();
    this.#listeners.admin.close();
    this.#http.closeAllConnections();
    await this.#fastify.close();
  }

  /**
   * Changes who may connect and what they may do then, from here on. Throws ENOENT for a group that is not there, and what
   * the system refuses with; nothing is changed then.
   */
  setAccess(access: Access): void {
    const before = this.#access;
    this.#rights.set(access);
    try {
      this.#letIn(access);
    } catch (error) {
      this.#rights.set(before);
      const { code = 'EIO', message } = error as NodeJS.ErrnoException;
      throw new OverlayError(
        code,
        'socket_access',
        `the control socket cannot be given its group and mode: ${message}`,
      );
    }
    this.#access = access;
  }

  #letIn({ socketMode = SOCKET_MODE }: Access): void {
    const { group, adminGroup } = this.#rights;
    const own = process.getegid?.() ?? 0;
    // Where others may not connect, the members of the one group there is still may.
    const owner = group ?? (socketMode & OTHERS_WRITE ? undefined : adminGroup);
    this.#listeners.public.setAccess({ mode: socketMode, gid: owner?.gid ?? own });
    const { admin } = this.#listeners;
    if (!adminGroup) {
      admin.setAccess({ mode: ADMIN_MODE, gid: own });
      return;
    }
    try {
      admin.setAccess({ mode: ADMIN_GROUP_MODE, gid: adminGroup.gid });
    } catch (error) {
      admin.setAccess({ mode: ADMIN_MODE, gid: own });
      this.log.warn(
        { reason: (error as Error).message },
        `group '${adminGroup.name}' cannot be given ${admin.path}: its members are served on ${this.path} with everybody else`,
      );
    }
  }

  async #listen(): Promise<void> {
    await this.#fastify.ready();
    await this.#listeners.admin.listen(this.#http);
    await this.#listeners.public.listen();
  }

  #httpServer(handler: RequestListener): Server {
    const http = createServer(
      {
        // On a unix socket there is no host to name; Node would refuse with an empty answer.
        requireHostHeader: false,
        headersTimeout: CONTROL_ARRIVAL_MS_MAX,
        requestTimeout: CONTROL_ARRIVAL_MS_MAX,
        connectionsCheckingInterval: ARRIVALS_MS,
        keepAliveTimeout: CONTROL_CONNECTION_MS_MAX,
      },
      (request, response) => {
        if (this.#connections.begins(request, response)) handler(request, response);
      },
    );
    http.timeout = CONTROL_CONNECTION_MS_MAX;
    // A refused connection must not get to the parser: its requests would be carried out all the same.
    const listeners = http.listeners('connection');
    http.removeAllListeners('connection');
    http.on('connection', (socket: Socket) => {
      if (!this.#connections.admits(socket, this.#listeners.public)) return;
      for (const listener of listeners) listener.call(http, socket);
    });
    return http;
  }

  #route(operation: Operation<unknown>): void {
    const { name, method, path, needs, input, bodyBytesMax } = operation;
    this.#fastify.route({
      method,
      url: path,
      ...(bodyBytesMax === undefined ? {} : { bodyLimit: bodyBytesMax }),
      handler: (request, reply) => {
        const caller = this.#rights.callerOf(request.raw.socket);
        this.#rights.require(caller, needs);
        if (needs === 'write') this.#note(name, caller, request.params);
        const asked = parseFields(input, fieldsOf(request));
        if (!caller.mayWrite && method === 'GET') return this.#answerUser(operation, asked, caller, reply);
        const answer = operation.run(this.overlay, asked, caller, this.#connections);
        if (!(answer instanceof EventReader)) return answer;
        this.#streams.send(answer, caller, reply);
      },
    });
  }

  /** What a user gets who may not write may be a second old, and counts by its size when it is built for him. */
  #answerUser(
    { name, run, weight = 1 }: Operation<unknown>,
    asked: unknown,
    caller: Caller,
    reply: FastifyReply,
  ): FastifyReply | undefined {
    const { overlay } = this;
    const { last } = overlay.events;
    const key = `${name} ${caller.mayRead} ${JSON.stringify(asked)}`;
    let text = this.#kept.get(key, last);
    if (text === undefined) {
      const answer = run(overlay, asked, caller, this.#connections);
      if (answer instanceof EventReader) {
        this.#connections.built(caller, 0, weight);
        this.#streams.send(answer, caller, reply);
        return undefined;
      }
      text = JSON.stringify(answer);
      this.#connections.built(caller, Buffer.byteLength(text), weight);
      this.#kept.keep(key, last, text);
    }
    return reply.type('application/json; charset=utf-8').send(text);
  }

  /** Who has changed what is in the log. */
  #note(operation: string, { uid, pid }: Caller, params: unknown): void {
    const { name: device, ...more } = params as { name?: string };
    this.log.info({ operation, device, ...more, uid, pid }, 'change asked for');
  }

  #answerError(error: Error & { statusCode?: number }, reply: FastifyReply): void {
    if (error instanceof OverlayError) {
      const status = busyCodes.includes(error.code) ? 503 : httpStatus[error.errno];
      reply.code(status ?? 500).send({ error: error.toJSON() });
    } else if (error.statusCode !== undefined && error.statusCode < 500) {
      // The HTTP layer's own: bad JSON, a body too large.
      reply.code(error.statusCode).send({ error: misunderstood(error.message).toJSON() });
    } else {
      this.log.error({ error: error.stack }, 'an operation failed by a defect');
      const answer = new OverlayError('EIO', 'internal', 'the daemon failed at this; its log says more');
      reply.code(500).send({ error: answer.toJSON() });
    }
  }

  /** Answers what is not even HTTP, or has not come in time. */
  #refuseClient(error: Error & { code?: string }, socket: Socket): void {
    if (!socket.writable) return void socket.destroy();
    if (error.code === 'ERR_HTTP_REQUEST_TIMEOUT') this.#connections.late(socket);
    else refuse(socket, '400 Bad Request', misunderstood(error.message));
  }
}

/** Whether somebody listens there. */
function answers(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(path);
    socket.once('connect', () => {
      socket.destroy();
      resolve(true);
    });
    // EAGAIN: somebody listens and has many waiting.
    socket.once('error', (error: NodeJS.ErrnoException) => resolve(error.code === 'EAGAIN'));
  });
}
