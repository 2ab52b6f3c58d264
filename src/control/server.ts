/** The control API: HTTP and JSON on a unix socket. Every request is one row of `operations.ts`. */
import { chmodSync, lstatSync, mkdirSync, rmSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { dirname } from 'node:path';
import fastify, { type FastifyInstance, type FastifyReply } from 'fastify';
import { OverlayError } from '../errors.js';
import { CONTROL_BODY_BYTES_MAX, CONTROL_REQUEST_MS_MAX } from '../limits.js';
import type { Log } from '../log.js';
import type { Overlay } from '../overlay.js';
import { limitConnections, refuse } from './connections.js';
import { Handles } from './handles.js';
import { type Operation, operations } from './operations.js';
import { fieldsOf, misunderstood, parseFields, requireWriter, uidOf } from './request.js';

const SOCKET_MODE = 0o666;

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
  ENXIO: 409,
  E2BIG: 413,
  ENOTSUP: 422,
  ETIME: 504,
  ENOSPC: 507,
};

export class ControlServer {
  readonly #fastify: FastifyInstance;

  private constructor(
    readonly overlay: Overlay,
    readonly log: Log,
  ) {
    this.#fastify = fastify({
      logger: false,
      bodyLimit: CONTROL_BODY_BYTES_MAX,
      connectionTimeout: CONTROL_REQUEST_MS_MAX,
      requestTimeout: CONTROL_REQUEST_MS_MAX,
      forceCloseConnections: true,
      routerOptions: { maxParamLength: 256 },
      // A path that is not well encoded gets this far only.
      frameworkErrors: (error, _request, reply) => this.#answerError(error, reply as FastifyReply),
      clientErrorHandler: refuseClient,
      // On a unix socket there is no host to name; Node would refuse with an empty answer.
      http: { requireHostHeader: false },
    });
    limitConnections(this.#fastify.server);
    for (const operation of operations) this.#route(operation);
    new Handles(overlay).addRoutes(this.#fastify);
    this.#fastify.setErrorHandler((error, _request, reply) => this.#answerError(error as Error, reply));
    this.#fastify.setNotFoundHandler((request, reply) =>
      this.#answerError(
        new OverlayError('ENOENT', 'no_such_operation', `there is no ${request.method} ${request.url}`),
        reply,
      ),
    );
  }

  /** Listens on the socket. Throws EADDRINUSE when another daemon answers on it; a dead one's is replaced. */
  static async start(overlay: Overlay, path: string, log: Log): Promise<ControlServer> {
    if (await answers(path)) {
      throw new OverlayError(
        'EADDRINUSE',
        'socket_in_use',
        `another daemon answers on ${path}: stop it, or give this one a --socket of its own`,
      );
    }
    const server = new ControlServer(overlay, log);
    try {
      mkdirSync(dirname(path), { recursive: true, mode: 0o755 });
      removeSocket(path);
      await server.#fastify.listen({ path });
      chmodSync(path, SOCKET_MODE);
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

  #route({ method, path, needsWrite, input, bodyBytesMax, run }: Operation<unknown>): void {
    this.#fastify.route({
      method,
      url: path,
      ...(bodyBytesMax === undefined ? {} : { bodyLimit: bodyBytesMax }),
      handler: (request) => {
        if (needsWrite) requireWriter(uidOf(request.raw.socket));
        return run(this.overlay, parseFields(input, fieldsOf(request)));
      },
    });
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
