/** An engine on memory ports with its control API on a socket, and requests to it as they are. */
import { chmodSync, mkdtempSync, rmSync } from 'node:fs';
import { request as httpRequest } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import * as assert from 'uvu/assert';
import { ControlClient } from '../../src/control/client.js';
import { ControlServer } from '../../src/control/server.js';
import type { Log } from '../../src/log.js';
import { MemoryOverlay, type MemoryOverlayOptions } from './memory-overlay.js';

export interface Answer {
  readonly status: number;
  readonly body: unknown;
}

/** An engine with its API, and what the server has logged as errors. */
export interface Rig {
  readonly memory: MemoryOverlay;
  readonly directory: string;
  readonly socket: string;
  readonly client: ControlClient;
  readonly defects: object[];
  /** One request, body and headers as they are. */
  call(
    method: string,
    path: string,
    body?: string | Buffer,
    headers?: Record<string, string>,
  ): Promise<Answer>;
}

/** One that all may enter. */
export function temporaryDirectory(): string {
  const directory = mkdtempSync(join(tmpdir(), 'overlayd-control-'));
  chmodSync(directory, 0o755);
  return directory;
}

export async function withRig(
  work: (rig: Rig) => Promise<void>,
  options: MemoryOverlayOptions = {},
): Promise<void> {
  const defects: object[] = [];
  const quiet = () => {};
  const log: Log = { debug: quiet, info: quiet, warn: quiet, error: (fields) => defects.push(fields) };
  const memory = await MemoryOverlay.start(options);
  const directory = temporaryDirectory();
  const socket = join(directory, 'socket');
  const server = await ControlServer.start(memory.overlay, socket, log);
  const json = { 'content-type': 'application/json' };
  try {
    const client = new ControlClient(socket);
    await work({
      memory,
      directory,
      socket,
      client,
      defects,
      call: (method, path, body, headers = body === undefined ? {} : json) =>
        callSocket(socket, method, path, body, headers),
    });
    assert.equal(defects, [], 'nothing failed by a defect');
  } finally {
    await server.close();
    await memory.close();
    rmSync(directory, { recursive: true, force: true });
  }
}

/** One request on a connection of its own. */
export function callSocket(
  socketPath: string,
  method: string,
  path: string,
  body: string | Buffer | undefined,
  headers: Record<string, string>,
): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const sending = httpRequest({ socketPath, method, path, headers, agent: false }, (response) => {
      const parts: Buffer[] = [];
      response.on('data', (part: Buffer) => parts.push(part));
      response.on('end', () => {
        const text = Buffer.concat(parts).toString();
        resolve({ status: response.statusCode ?? 0, body: JSON.parse(text) });
      });
    });
    sending.on('error', reject);
    // Node would send the body of a DELETE without saying how long it is.
    if (body !== undefined) sending.setHeader('content-length', Buffer.byteLength(body));
    sending.end(body);
  });
}

/** Asserts that an answer is one of our errors, whole, and returns it. */
export function assertTyped(answer: Answer, what: string): { errno: string; code: string; message: string } {
  const { error } = answer.body as {
    error?: { errno: string; code: string; message: string; details?: string[] };
  };
  assert.ok(answer.status >= 400, `${what}: status ${answer.status}`);
  assert.type(error, 'object', what);
  const { errno, code, message, details = ['-'], ...rest } = error!;
  assert.match(errno, /^E[0-9A-Z]+$/, what);
  assert.match(code, /^[a-z_]+$/, what);
  assert.match(message, /\S \S/, what);
  assert.is.not(code, 'internal', `${what}: ${message}`);
  assert.not.match(message, /\n {4}at /, 'no stack');
  assert.ok(details.length > 0 && details.every((line) => typeof line === 'string'));
  assert.equal(rest, {}, 'nothing else');
  return { errno, code, message };
}

export async function assertAnswer(
  answer: Promise<Answer>,
  status: number,
  errno: string,
  code: string,
  message?: RegExp,
): Promise<void> {
  const given = await answer;
  const error = assertTyped(given, `${errno} ${code}`);
  assert.equal([given.status, error.errno, error.code], [status, errno, code], error.message);
  if (message) assert.match(error.message, message);
}
