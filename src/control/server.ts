/** The control API: HTTP and JSON on a unix socket. Every request is one row of `operations.ts`. */
import { chmodSync, lstatSync, mkdirSync, rmSync } from 'node:fs';
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
  EAGAIN: 409,
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
      // A path that is not well encoded gets this far only.
      frameworkErrors: (error, _request, reply) => this.#answerError(error, reply as FastifyReply),
      clientErrorHandler: refuseClient,
      // On a unix socket there is no host to name; Node would refuse with an empty answer.
      http: { requireHostHeader: false },
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

  #route({ method, path, needsWrite, input, run }: Operation<unknown>): void {
    this.#fastify.route({
      method,
      url: path,
      handler: (request) => {
        if (needsWrite) requireWriter(request);
        const parsed = input.safeParse(fieldsOf(request));
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
      reply.code(error.statusCode).send({ error: misunderstood(error.message).toJSON() });
    } else {
      this.log.error({ error: error.stack }, 'an operation failed by a defect');
      const answer = new OverlayError('EIO', 'internal', 'the daemon failed at this; its log says more');
      reply.code(500).send({ error: answer.toJSON() });
    }
  }
}

/** What path, query and body say, in one object. Throws EINVAL for another body and for a field said twice. */
function fieldsOf(request: FastifyRequest): object {
  const { params, query, body = {} } = request as { params: object; query: object; body: unknown };
  if (typeof body !== 'object' || body === null || Array.isArray(body)) {
    throw misunderstood('the body is no object');
  }
  const fields = new Map<string, unknown>();
  for (const [name, value] of [params, query, body].flatMap((part) => Object.entries(part))) {
    if (fields.has(name)) throw misunderstood(`${name} is given twice`);
    fields.set(name, value);
  }
  return Object.fromEntries(fields);
}

/** Writes are for root and the user the daemon runs as. */
function requireWriter(request: FastifyRequest): void {
  const { uid } = peerOf(descriptorOf(request.socket));
  if (uid === 0 || uid === process.getuid?.()) return;
  throw new OverlayError('EPERM', 'not_permitted', `user ${uid} may look but not change: run this as root`);
}

/** Node keeps a socket's descriptor to itself; this is where. Throws EPERM when the caller has hung up. */
function descriptorOf(socket: Socket): number {
  const { _handle: handle } = socket as unknown as { _handle: { fd: number } | null };
  if (handle) return handle.fd;
  throw new OverlayError('EPERM', 'not_permitted', 'nobody is there any more to have asked for it');
}

function badRequest(error: z.ZodError): OverlayError {
  const details = error.issues.map(({ path, message }) => `${path.join('.') || 'request'}: ${message}`);
  return misunderstood(details[0]!, details);
}

function misunderstood(why: string, details: readonly string[] = []): OverlayError {
  return new OverlayError('EINVAL', 'bad_request', `the request was not understood: ${why}`, details);
}

/** Answers what is not even HTTP. */
function refuseClient(error: Error, socket: Socket): void {
  if (!socket.writable) return void socket.destroy();
  const body = JSON.stringify({ error: misunderstood(error.message).toJSON() });
  const length = Buffer.byteLength(body);
  const head = ['HTTP/1.1 400 Bad Request', 'Content-Type: application/json', `Content-Length: ${length}`];
  socket.end([...head, 'Connection: close', '', body].join('\r\n'));
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
