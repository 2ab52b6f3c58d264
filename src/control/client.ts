/**
 * Calls the control API. All that the CLI imports of the daemon's code.
 *
 * A client tries the socket of those who may write first, which others cannot crowd, and goes on to the other one when it
 * is not there or not for this user. While the daemon is busy it tries again, for a bounded time.
 */
import { type IncomingMessage, type RequestOptions, request } from 'node:http';
import { OverlayError } from '../errors.js';
import { CONTROL_BUSY_MS_MAX, CONTROL_REQUEST_MS_MAX } from '../limits.js';
import { monotonicMs } from '../sys/clock.js';

export const DEFAULT_SOCKET = '/run/overlayd/overlayd.sock';

/** Behind the socket's path: that of the socket for those who may write. */
export const ADMIN_SUFFIX = '.admin';

export function adminSocketOf(path: string): string {
  return path + ADMIN_SUFFIX;
}

/** Longer than any line that a stream has. */
const LINE_CHARACTERS_MAX = 1024 * 1024;
/** Pause before a busy daemon is tried again: doubled each time up to the second, and spread by half. */
const [AGAIN_MS, AGAIN_MS_MAX] = [10, 250];
/** Refused before anything was done, so that it can be asked again. */
const busyCodes = ['daemon_busy', 'too_many_connections', 'too_many_requests'];

export class ControlClient {
  constructor(readonly socket: string) {}

  get<T>(path: string): Promise<T> {
    return this.#call('GET', path);
  }

  post<T>(path: string, body: object = {}): Promise<T> {
    return this.#call('POST', path, body);
  }

  put<T>(path: string, body: object): Promise<T> {
    return this.#call('PUT', path, body);
  }

  delete<T>(path: string): Promise<T> {
    return this.#call('DELETE', path);
  }

  /** Pages of a list, which name the next one; a daemon that knows no pages gives one. */
  async *pages<T extends { readonly next?: string | null }>(path: string): AsyncGenerator<T> {
    let next: string | null | undefined;
    do {
      const query = typeof next === 'string' ? `?after=${encodeURIComponent(next)}` : '';
      const page: T = await this.get<T>(path + query);
      yield page;
      next = page.next;
    } while (typeof next === 'string');
  }

  /**
   * Lines of a stream, as they come; ends when the daemon ends it. Throws the daemon's OverlayError as it was,
   * ECONNREFUSED when there is no daemon, or when it goes in the middle.
   */
  async *lines(path: string): AsyncGenerator<string> {
    const response = await this.#reach({ path });
    response.setEncoding('utf8');
    let rest = '';
    try {
      for await (const part of response as AsyncIterable<string>) {
        const lines = (rest + part).split('\n');
        rest = lines.pop()!;
        if (rest.length > LINE_CHARACTERS_MAX) throw badAnswer(response.statusCode ?? 0);
        if (response.statusCode === 200) yield* lines;
      }
    } catch (error) {
      if (error instanceof OverlayError) throw error;
      throw new OverlayError(
        'ECONNREFUSED',
        'daemon_gone',
        `the daemon on ${this.socket} has gone: no more comes`,
      );
    } finally {
      response.destroy();
    }
    if (response.statusCode === 200) return;
    readAnswer(response.statusCode ?? 0, rest);
    throw badAnswer(response.statusCode ?? 0);
  }

  /**
   * Throws the daemon's OverlayError as it was, ECONNREFUSED when there is no daemon, EAGAIN when it stays busy, ETIME when it is
   * silent, ECONNRESET when it hangs up; after the last two it may have done what it was asked for.
   */
  async #call<T>(method: string, path: string, body?: object): Promise<T> {
    const payload = body === undefined ? undefined : JSON.stringify(body);
    const headers = payload === undefined ? {} : { 'content-type': 'application/json' };
    const end = monotonicMs() + CONTROL_BUSY_MS_MAX;
    for (let times = 0; ; times++) {
      try {
        const options = { method, path, headers, timeout: CONTROL_REQUEST_MS_MAX };
        const response = await this.#reach(options, payload, end);
        return readAnswer<T>(response.statusCode ?? 0, await this.#textOf(response));
      } catch (error) {
        if (!isBusy(error) || !(await pauseBefore(end, times))) throw error;
      }
    }
  }

  async #textOf(response: IncomingMessage): Promise<string> {
    const parts: Buffer[] = [];
    try {
      for await (const part of response) parts.push(part as Buffer);
    } catch (error) {
      throw error instanceof OverlayError ? error : unreachable(this.socket, error as NodeJS.ErrnoException);
    }
    return Buffer.concat(parts).toString();
  }

  /** The answer's head, by whichever socket takes the request. */
  async #reach(
    options: RequestOptions,
    payload?: string,
    end = monotonicMs() + CONTROL_BUSY_MS_MAX,
  ): Promise<IncomingMessage> {
    for (let times = 0; ; times++) {
      try {
        return await this.#open(adminSocketOf(this.socket), options, payload).catch((error: unknown) => {
          if (isNotThere(error)) return this.#open(this.socket, options, payload);
          throw error;
        });
      } catch (error) {
        if (error instanceof OverlayError) throw error;
        const known = unreachable(this.socket, error as NodeJS.ErrnoException);
        if (!isBusy(known) || !(await pauseBefore(end, times))) throw known;
      }
    }
  }

  #open(socketPath: string, options: RequestOptions, payload?: string): Promise<IncomingMessage> {
    return new Promise((resolve, reject) => {
      const call = request({ ...options, socketPath, agent: false }, resolve);
      call.on('timeout', () => {
        call.destroy(
          new OverlayError('ETIME', 'daemon_silent', `the daemon on ${this.socket} did not answer in time`),
        );
      });
      call.on('error', reject);
      call.end(payload);
    });
  }
}

/** Whether it is worth another try; waits before that. */
async function pauseBefore(end: number, times: number): Promise<boolean> {
  const ms = Math.min(AGAIN_MS * 2 ** times, AGAIN_MS_MAX) * (0.5 + Math.random());
  if (monotonicMs() + ms > end) return false;
  await new Promise((resolve) => setTimeout(resolve, ms));
  return true;
}

function isBusy(error: unknown): boolean {
  return error instanceof OverlayError && busyCodes.includes(error.code);
}

/** Nobody takes connections there, or not this user's: no request has been sent. */
function isNotThere(error: unknown): boolean {
  const { code, syscall } = error as NodeJS.ErrnoException;
  return syscall === 'connect' && code !== 'EAGAIN';
}

function readAnswer<T>(status: number, text: string): T {
  let answer: { error?: { errno: string; code: string; message: string; details?: string[] } };
  try {
    answer = JSON.parse(text);
  } catch {
    throw badAnswer(status);
  }
  const { error } = answer;
  if (error) throw new OverlayError(error.errno, error.code, error.message, error.details ?? []);
  return answer as T;
}

function badAnswer(status: number): OverlayError {
  return new OverlayError('EIO', 'bad_answer', `what answers on the socket is not overlayd (HTTP ${status})`);
}

/** Of a connection that was made; while it is made they mean that nobody takes it. */
const hangUps = ['ECONNRESET', 'EPIPE'];

function unreachable(socket: string, error: NodeJS.ErrnoException): OverlayError {
  const { code = '', syscall } = error;
  if (hangUps.includes(code) && syscall !== 'connect') {
    return new OverlayError(
      'ECONNRESET',
      'no_answer',
      `the daemon on ${socket} hung up before it answered: see whether it has done what it was asked for`,
    );
  }
  if (code === 'EAGAIN') {
    return new OverlayError(
      'EAGAIN',
      'daemon_busy',
      `the daemon on ${socket} is busy: too many connect at a time; try again in a moment`,
    );
  }
  if (code === 'EACCES') {
    return new OverlayError('EACCES', 'socket_not_permitted', `${socket} may not be opened by this user`);
  }
  return new OverlayError(
    'ECONNREFUSED',
    'daemon_unreachable',
    `no daemon answers on ${socket}: start overlayd, or name its socket with -S or OVERLAYD_SOCKET`,
  );
}
