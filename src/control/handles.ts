/**
 * The external handle over HTTP. `POST /v1/handle` opens one: the answer is a stream that stays open, its first line
 * names the token, and its connection's end, however it comes, closes the handle. `POST /v1/handle/<call>` with the
 * token in the header `overlay-handle` is one row of `calls.ts`.
 */
import type { ServerResponse } from 'node:http';
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import { z } from 'zod';
import { OverlayError } from '../errors.js';
import { CONTROL_HANDLES } from '../limits.js';
import type { Overlay } from '../overlay.js';
import { every } from '../sys/clock.js';
import type { Handle } from '../varpd/external/handle.js';
import { type Call, calls } from './calls.js';
import { Places } from './places.js';
import type { Refusals } from './refusals.js';
import { fieldsOf, parseFields } from './request.js';
import type { Caller, Rights } from './rights.js';
import { onceGone } from './streams.js';
import { ROUTE_BODY_BYTES_MAX } from './targets.js';
import { API_VERSION } from './view.js';

/** Header that names the handle. */
export const HANDLE_HEADER = 'overlay-handle';
/** A line is sent this often, so that a dead connection is noticed and a silent one is not taken for dead. */
const KEEP_ALIVE_MS = 10_000;

interface OpenHandle {
  readonly handle: Handle;
  /** Nobody else may use it. */
  readonly uid: number;
  /** Its stream. */
  readonly raw: ServerResponse;
}

const openInput = z.strictObject({ write: z.boolean() });
const byName = new Map(calls.map((row) => [row.name, row]));

export class Handles {
  /** By token; each has a connection and a place. */
  readonly #open = new Map<string, OpenHandle>();
  readonly #places = new Places(CONTROL_HANDLES);
  /** Ends the lines that keep the connections alive; there while a handle is. */
  #stop: (() => void) | undefined;

  constructor(
    readonly overlay: Overlay,
    readonly rights: Rights,
    readonly refusals: Refusals,
  ) {}

  addRoutes(fastify: FastifyInstance): void {
    fastify.route({
      method: 'POST',
      url: '/v1/handle',
      handler: (request, reply) => this.#stream(request, reply),
    });
    fastify.route<{ Params: { call: string } }>({
      method: 'POST',
      url: '/v1/handle/:call',
      bodyLimit: ROUTE_BODY_BYTES_MAX,
      // In the order of illumos: the handle, the call, whether the handle may, and only then what was sent.
      onRequest: async (request) => void this.#check(request),
      handler: (request, reply) => this.#call(request, reply),
    });
  }

  /** Opens a handle for as long as the connection lasts. Throws EPERM, EINVAL, EEXIST, EAGAIN when too many are open. */
  #stream(request: FastifyRequest, reply: FastifyReply): void {
    const { socket } = request.raw;
    const caller = this.rights.callerOf(socket);
    const { write } = parseFields(openInput, fieldsOf(request));
    this.rights.require(caller, write ? 'write' : 'look');
    const leave = this.#enter(caller);
    let handle: Handle;
    try {
      handle = this.overlay.varpd.external.open(write);
    } catch (error) {
      leave();
      throw error;
    }
    const { raw } = reply;
    this.#open.set(handle.token, { handle, uid: caller.uid, raw });
    this.#stop ??= every(KEEP_ALIVE_MS, () => this.#keepAlive());
    onceGone(reply, () => {
      leave();
      this.#open.delete(handle.token);
      handle.close();
      if (this.#open.size > 0) return;
      this.#stop?.();
      this.#stop = undefined;
    });
    reply.hijack();
    socket.setTimeout(0);
    raw.writeHead(200, { 'content-type': 'application/x-ndjson', 'cache-control': 'no-store' });
    raw.write(line({ token: handle.token }));
  }

  #enter(caller: Caller): () => void {
    const leave = this.#places.take(caller);
    if (leave) return leave;
    this.refusals.note('handles', caller.uid);
    throw new OverlayError(
      'EAGAIN',
      'too_many_handles',
      `too many external handles are open for user ${caller.uid}: close some, or try again later`,
    );
  }

  /** A reader that does not read gets no more lines, but is not cut: it may be stopped for a while. */
  #keepAlive(): void {
    for (const { raw } of this.#open.values()) if (!raw.writableNeedDrain) raw.write(line({}));
  }

  /** Throws EBADF for no handle, EPERM for somebody else's, ENOTTY for no such call, then what the row says. */
  #check(request: FastifyRequest<{ Params: { call: string } }>): { open: OpenHandle; row: Call<unknown> } {
    const caller = this.rights.callerOf(request.raw.socket);
    const token = request.headers[HANDLE_HEADER];
    const open = typeof token === 'string' ? this.#open.get(token) : undefined;
    if (!open) {
      throw new OverlayError(
        'EBADF',
        'no_such_handle',
        `header ${HANDLE_HEADER} names no open handle: open one with POST /v1/handle, and keep its connection`,
      );
    }
    if (open.uid !== caller.uid) {
      throw new OverlayError('EPERM', 'not_your_handle', `the handle is that of user ${open.uid}`);
    }
    const row = byName.get(request.params.call);
    if (!row) {
      const names = [...byName.keys()].join(', ');
      throw new OverlayError('ENOTTY', 'no_such_call', `there is no such call; there are: ${names}`);
    }
    if (row.needsWriteHandle && !open.handle.isWriter) {
      throw new OverlayError(
        'EBADF',
        'handle_read_only',
        `${row.name} needs a handle opened with write true`,
      );
    }
    this.rights.require(caller, row.needs);
    return { open, row };
  }

  async #call(request: FastifyRequest<{ Params: { call: string } }>, reply: FastifyReply): Promise<object> {
    const { open, row } = this.#check(request);
    const { call: _, ...fields } = fieldsOf(request) as Record<string, unknown>;
    const input = parseFields(row.input, fields);
    const gone = new AbortController();
    reply.raw.once('close', () => gone.abort());
    const answer = await row.run({ overlay: this.overlay, handle: open.handle, signal: gone.signal }, input);
    return { version: API_VERSION, ...answer };
  }
}

function line(more: object): string {
  return `${JSON.stringify({ version: API_VERSION, ...more })}\n`;
}
