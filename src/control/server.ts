/** The control API: HTTP and JSON on a unix socket. Every request is one row of `operations.ts`. */
import { chmodSync, mkdirSync, rmSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { dirname } from 'node:path';
import fastify, { type FastifyInstance, type FastifyReply, type FastifyRequest } from 'fastify';
import type { z } from 'zod';
import { OverlayError } from '../errors.js';
import { CONTROL_BODY_BYTES_MAX, CONTROL_CONNECTIONS_MAX, CONTROL_REQUEST_MS_MAX } from '../limits.js';
import type { Log } from '../log.js';
import type { Overlay } from '../overlay.js';
import { peerOf } from '../sys/peer.js';
import { type Operation, operations } from './operations.js';

const SOCKET_MODE = 0o666;

const httpStatus: Readonly<Record<string, number>> = {
  EINVAL: 400,
  EPERM: 403,
  EACCES: 403,
  ENOENT: 404,
  EBUSY: 409,
  EEXIST: 409,
  ENOTSUP: 422,
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
    });
    this.#fastify.server.maxConnections = CONTROL_CONNECTIONS_MAX;
    for (const operation of operations) this.#route(operation);
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
      rmSync(path, { force: true });
      await server.#fastify.listen({ path });
      chmodSync(path, SOCKET_MODE);
    } catch (error) {
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

  #route({ method, path, needsWrite, input, run }: Operation<unknown>): void {
    this.#fastify.route({
      method,
      url: path,
      handler: (request) => {
        if (needsWrite) requireWriter(request);
        const { params, query, body } = request as { params: object; query: object; body: unknown };
        const fields = typeof body === 'object' && body !== null ? body : {};
        const parsed = input.safeParse({ ...fields, ...query, ...params });
        if (!parsed.success) throw badRequest(parsed.error);
        return run(this.overlay, parsed.data);
      },
    });
  }

  #answerError(error: Error & { statusCode?: number }, reply: FastifyReply): void {
    if (error instanceof OverlayError) {
      reply.code(httpStatus[error.errno] ?? 500).send({ error: error.toJSON() });
    } else if (error.statusCode !== undefined && error.statusCode < 500) {
      // The HTTP layer's own: bad JSON, a body too large.
      const answer = new OverlayError(
        'EINVAL',
        'bad_request',
        `the request was not understood: ${error.message}`,
      );
      reply.code(error.statusCode).send({ error: answer.toJSON() });
    } else {
      this.log.error({ error: error.stack }, 'an operation failed by a defect');
      const answer = new OverlayError('EIO', 'internal', 'the daemon failed at this; its log says more');
      reply.code(500).send({ error: answer.toJSON() });
    }
  }
}

/** Writes are for root and the user the daemon runs as. */
function requireWriter(request: FastifyRequest): void {
  const { uid } = peerOf(descriptorOf(request.socket));
  if (uid === 0 || uid === process.getuid?.()) return;
  throw new OverlayError('EPERM', 'not_permitted', `user ${uid} may look but not change: run this as root`);
}

/** Node keeps a socket's descriptor to itself; this is where. */
function descriptorOf(socket: Socket): number {
  const { fd } = (socket as unknown as { _handle: { fd: number } })._handle;
  return fd;
}

function badRequest(error: z.ZodError): OverlayError {
  const details = error.issues.map(({ path, message }) => `${path.join('.') || 'request'}: ${message}`);
  return new OverlayError('EINVAL', 'bad_request', `the request was not understood: ${details[0]}`, details);
}

function answers(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(path);
    socket.once('connect', () => {
      socket.destroy();
      resolve(true);
    });
    socket.once('error', () => resolve(false));
  });
}
