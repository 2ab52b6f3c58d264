/** The control API: HTTP and JSON on a unix socket. Every request is one row of `operations.ts`. */
import { chmodSync, chownSync, lstatSync, mkdirSync, rmSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { dirname } from 'node:path';
import fastify, { type FastifyInstance, type FastifyReply } from 'fastify';
import { OverlayError } from '../errors.js';
import { EventReader } from '../events.js';
import { CONTROL_BODY_BYTES_MAX, CONTROL_CONNECTION_MS_MAX } from '../limits.js';
import type { Log } from '../log.js';
import type { Overlay } from '../overlay.js';
import { limitConnections, refuse } from './connections.js';
import { Handles } from './handles.js';
import { type Operation, operations } from './operations.js';
import { fieldsOf, misunderstood, parseFields } from './request.js';
import { type Access, type Caller, Rights } from './rights.js';
import { EventStreams } from './streams.js';

/** Who may connect at all; what they may do then is a matter of `rights.ts`. */
const SOCKET_MODE = 0o666;
const OTHERS_WRITE = 0o002;

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

export class ControlServer {
  readonly #fastify: FastifyInstance;
  readonly #rights = new Rights();
  #access: Access = {};
  readonly #streams = new EventStreams();

  private constructor(
    readonly overlay: Overlay,
    readonly path: string,
    readonly log: Log,
  ) {
    this.#fastify = fastify({
      logger: false,
      bodyLimit: CONTROL_BODY_BYTES_MAX,
      connectionTimeout: CONTROL_CONNECTION_MS_MAX,
      requestTimeout: CONTROL_CONNECTION_MS_MAX,
      forceCloseConnections: true,
      // Every answer has a body, and whoever wants a head alone can throw that away.
      exposeHeadRoutes: false,
      routerOptions: { maxParamLength: 256 },
      // A path that is not well encoded gets this far only.
      frameworkErrors: (error, _request, reply) => this.#answerError(error, reply as FastifyReply),
      clientErrorHandler: refuseClient,
      // On a unix socket there is no host to name; Node would refuse with an empty answer.
      http: { requireHostHeader: false },
    });
    limitConnections(this.#fastify.server, this.#rights);
    for (const operation of operations) this.#route(operation);
    new Handles(overlay, this.#rights).addRoutes(this.#fastify);
    this.#fastify.setErrorHandler((error, _request, reply) => this.#answerError(error as Error, reply));
    this.#fastify.setNotFoundHandler((request, reply) =>
      this.#answerError(
        new OverlayError('ENOENT', 'no_such_operation', `there is no ${request.method} ${request.url}`),
        reply,
      ),
    );
  }

  /**
   * Listens on the socket. Throws EADDRINUSE when another daemon answers on it (a dead one's is replaced), ENOENT for a
   * group that is not there, and what making the socket gives.
   */
  static async start(overlay: Overlay, path: string, log: Log, access: Access = {}): Promise<ControlServer> {
    if (await answers(path)) {
      throw new OverlayError(
        'EADDRINUSE',
        'socket_in_use',
        `another daemon answers on ${path}: stop it, or give this one a --socket of its own`,
      );
    }
    const server = new ControlServer(overlay, path, log);
    try {
      mkdirSync(dirname(path), { recursive: true, mode: 0o755 });
      removeSocket(path);
      await server.#fastify.listen({ path });
      server.setAccess(access);
    } catch (error) {
      await server.close();
      if (error instanceof OverlayError) throw error;
      const { code = 'EIO', message } = error as NodeJS.ErrnoException;
      throw new OverlayError(
        code,
        'socket_failed',
        `the control socket cannot be made: ${message}; see --socket`,
      );
    }
    return server;
  }

  async close(): Promise<void> {
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

  /** Where others may not connect, the members of the one group there is still may. */
  #letIn({ socketMode = SOCKET_MODE }: Access): void {
    const { path } = this;
    const { group, adminGroup } = this.#rights;
    const owner = group ?? (socketMode & OTHERS_WRITE ? undefined : adminGroup);
    const gid = owner?.gid ?? process.getegid?.() ?? 0;
    if (lstatSync(path).gid !== gid) chownSync(path, -1, gid);
    chmodSync(path, socketMode);
  }

  #route({ name, method, path, needs, input, bodyBytesMax, run }: Operation<unknown>): void {
    this.#fastify.route({
      method,
      url: path,
      ...(bodyBytesMax === undefined ? {} : { bodyLimit: bodyBytesMax }),
      handler: (request, reply) => {
        const caller = this.#rights.callerOf(request.raw.socket);
        this.#rights.require(caller, needs);
        if (needs === 'write') this.#note(name, caller, request.params);
        const answer = run(this.overlay, parseFields(input, fieldsOf(request)), caller);
        if (!(answer instanceof EventReader)) return answer;
        this.#streams.send(answer, caller, reply);
      },
    });
  }

  /** Who has changed what is in the log. */
  #note(operation: string, { uid, pid }: Caller, params: unknown): void {
    const { name: device, ...more } = params as { name?: string };
    this.log.info({ operation, device, ...more, uid, pid }, 'change asked for');
  }

  #answerError(error: Error & { statusCode?: number }, reply: FastifyReply): void {
    if (error instanceof OverlayError) {
      reply.code(httpStatus[error.errno] ?? 500).send({ error: error.toJSON() });
    } else if (error.statusCode !== undefined && error.statusCode < 500) {
      // The HTTP layer's own: bad JSON, a body too large.
      reply.code(error.statusCode).send({ error: misunderstood(error.message).toJSON() });
    } else {
      this.log.error({ error: error.stack }, 'an operation failed by a defect');
      const answer = new OverlayError('EIO', 'internal', 'the daemon failed at this; its log says more');
      reply.code(500).send({ error: answer.toJSON() });
    }
  }
}

/** Answers what is not even HTTP. */
function refuseClient(error: Error, socket: Socket): void {
  if (!socket.writable) return void socket.destroy();
  refuse(socket, '400 Bad Request', misunderstood(error.message));
}

/** Makes room for the socket: a dead daemon's is removed. Throws EEXIST for anything that is no socket. */
function removeSocket(path: string): void {
  const there = lstatSync(path, { throwIfNoEntry: false });
  if (there && !there.isSocket()) {
    throw new OverlayError(
      'EEXIST',
      'not_a_socket',
      `${path} is there and no socket: choose another --socket`,
    );
  }
  rmSync(path, { force: true });
}

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
