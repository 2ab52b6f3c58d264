/** A program that holds the external handle: the stream, and calls with its token. */
import { type ClientRequest, request as httpRequest, type IncomingMessage } from 'node:http';
import { OverlayError } from '../../src/errors.js';
import { callSocket } from './control-rig.js';

/** What a lookup tells. */
export interface Asked {
  readonly version: number;
  readonly id: string;
  readonly overlay: string;
  readonly vnetid: number;
  readonly source: string;
  readonly destination: string;
  readonly kind: string;
  readonly ether_type: number;
  readonly is_dhcp: boolean;
  readonly vlan: number;
  readonly header_bytes: number;
  readonly payload_bytes: number;
}

export class HandleClient {
  #text = '';

  private constructor(
    readonly socket: string,
    readonly stream: IncomingMessage,
    readonly sending: ClientRequest,
  ) {
    stream.on('error', () => {});
  }

  /** Throws the daemon's OverlayError when it refuses. */
  static async open(socket: string, write: boolean): Promise<HandleClient> {
    const headers = { 'content-type': 'application/json' };
    const options = {
      socketPath: socket,
      method: 'POST',
      path: '/v1/handle',
      headers,
      agent: false as const,
    };
    const sending = httpRequest(options);
    const stream = await new Promise<IncomingMessage>((resolve, reject) => {
      sending.on('error', reject);
      sending.on('response', resolve);
      sending.end(JSON.stringify({ write }));
    });
    const handle = new HandleClient(socket, stream, sending);
    await new Promise<void>((resolve) => {
      stream.setEncoding('utf8').on('data', (part: string) => {
        handle.#text += part;
        if (handle.#text.includes('\n')) resolve();
      });
      stream.on('end', resolve);
    });
    const line = JSON.parse(handle.#text.split('\n')[0]!);
    if (stream.statusCode !== 200)
      throw new OverlayError(line.error.errno, line.error.code, line.error.message);
    return handle;
  }

  /** Lines so far. */
  get lines(): { version: number; token?: string }[] {
    return this.#text
      .split('\n')
      .filter((line) => line !== '')
      .map((line) => JSON.parse(line));
  }

  get token(): string {
    return this.lines[0]!.token!;
  }

  /** Throws the daemon's OverlayError when it refuses. */
  async call<T = { version: number }>(name: string, body: object = {}): Promise<T> {
    const headers = { 'content-type': 'application/json', 'overlay-handle': this.token };
    const answer = await callSocket(this.socket, 'POST', `/v1/handle/${name}`, JSON.stringify(body), headers);
    const { error, ...rest } = answer.body as { error?: { errno: string; code: string; message: string } };
    if (error) throw new OverlayError(error.errno, error.code, error.message);
    return rest as T;
  }

  lookup(waitMs?: number): Promise<Asked> {
    return this.call('lookup', waitMs === undefined ? {} : { wait_ms: waitMs });
  }

  /** As the kernel does when the program dies. */
  cut(): void {
    this.sending.destroy();
  }
}
