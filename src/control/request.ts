/** What a request says. */
import type { FastifyRequest } from 'fastify';
import type { z } from 'zod';
import { OverlayError } from '../errors.js';

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
