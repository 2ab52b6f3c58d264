/** What a request says and who sent it. */
import type { Socket } from 'node:net';
import type { FastifyRequest } from 'fastify';
import type { z } from 'zod';
import { OverlayError } from '../errors.js';
import { peerOf } from '../sys/peer.js';

/** What path, query and body say, in one object. Throws EINVAL for another body and for a field said twice. */
export function fieldsOf(request: FastifyRequest): object {
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

/** The fields as the schema has them. Throws EINVAL naming the first that is wrong, with a line for each. */
export function parseFields<Input>(input: z.ZodType<Input>, fields: unknown): Input {
  const parsed = input.safeParse(fields);
  if (parsed.success) return parsed.data;
  const details = parsed.error.issues.map(
    ({ path, message }) => `${path.join('.') || 'request'}: ${message}`,
  );
  throw misunderstood(details[0]!, details);
}

export function misunderstood(why: string, details: readonly string[] = []): OverlayError {
  return new OverlayError('EINVAL', 'bad_request', `the request was not understood: ${why}`, details);
}

/** User who sent a request. Throws EPERM when he has hung up. */
export function uidOf(socket: Socket): number {
  return peerOf(descriptorOf(socket)).uid;
}

/** True for root and the user the daemon runs as. */
export function mayWrite(uid: number): boolean {
  return uid === 0 || uid === process.getuid?.();
}

/** Throws EPERM for a user who may not change anything. */
export function requireWriter(uid: number): void {
  if (mayWrite(uid)) return;
  throw new OverlayError('EPERM', 'not_permitted', `user ${uid} may look but not change: run this as root`);
}

/** Node keeps a socket's descriptor to itself; this is where. Throws EPERM when the caller has hung up. */
function descriptorOf(socket: Socket): number {
  const { _handle: handle } = socket as unknown as { _handle: { fd: number } | null };
  if (handle) return handle.fd;
  throw new OverlayError('EPERM', 'not_permitted', 'nobody is there any more to have asked for it');
}
