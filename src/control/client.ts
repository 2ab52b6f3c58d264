/** Calls the control API. All that the CLI imports of the daemon's code. */
import { type IncomingMessage, request } from 'node:http';
import { OverlayError } from '../errors.js';
import { CONTROL_REQUEST_MS_MAX } from '../limits.js';

export const DEFAULT_SOCKET = '/run/overlayd/overlayd.sock';

/** Longer than any line that a stream has. */
const LINE_CHARACTERS_MAX = 1024 * 1024;

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

  /**
   * Lines of a stream, as they come; ends when the daemon ends it. Throws the daemon's OverlayError as it was,
   * ECONNREFUSED when there is no daemon, or when it goes in the middle.
   */
  async *lines(path: string): AsyncGenerator<string> {
    const response = await this.#open(path);
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

  #open(path: string): Promise<IncomingMessage> {
    return new Promise((resolve, reject) => {
      const call = request({ socketPath: this.socket, path, agent: false }, resolve);
      call.on('error', (error) => reject(unreachable(this.socket, error)));
      call.end();
    });
  }

  /**
   * Throws the daemon's OverlayError as it was, ECONNREFUSED when there is no daemon, ETIME when it is silent, ECONNRESET
   * when it hangs up; after the last two it may have done what it was asked for.
   */
  #call<T>(method: string, path: string, body?: object): Promise<T> {
    return new Promise((resolve, reject) => {
      const payload = body === undefined ? undefined : JSON.stringify(body);
      const headers = payload === undefined ? {} : { 'content-type': 'application/json' };
      const call = request({ socketPath: this.socket, method, path, headers, agent: false }, (response) => {
        const parts: Buffer[] = [];
        response.on('data', (part: Buffer) => parts.push(part));
        response.on('end', () => {
          try {
            resolve(readAnswer<T>(response.statusCode ?? 0, Buffer.concat(parts).toString()));
          } catch (error) {
            reject(error);
          }
        });
        response.on('error', (error) => reject(unreachable(this.socket, error)));
      });
      call.setTimeout(CONTROL_REQUEST_MS_MAX, () => {
        reject(
          new OverlayError('ETIME', 'daemon_silent', `the daemon on ${this.socket} did not answer in time`),
        );
        call.destroy();
      });
      call.on('error', (error) => reject(unreachable(this.socket, error)));
      call.end(payload);
    });
  }
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
  if (error.code === 'EACCES') {
    return new OverlayError('EACCES', 'socket_not_permitted', `${socket} may not be opened by this user`);
  }
  return new OverlayError(
    'ECONNREFUSED',
    'daemon_unreachable',
    `no daemon answers on ${socket}: start overlayd, or name its socket with -S or OVERLAYD_SOCKET`,
  );
}
