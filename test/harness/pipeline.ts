/** Many HTTP requests on one connection, each when the one before it has been answered: the server cuts others. */
import { connect, type Socket } from 'node:net';

export interface PipelineAnswer {
  readonly status: number;
  readonly text: string;
}

interface Waiting {
  readonly bytes: Buffer;
  /** Connections that ended while it was the next to be answered. */
  ends: number;
  readonly resolve: (answer: PipelineAnswer) => void;
  readonly reject: (error: Error) => void;
}

/**
 * The server may close while we write, and what it said before is lost then (EPIPE); so often in a row that is no accident.
 */
const ENDS_MAX = 10;
const HEAD_END = Buffer.from('\r\n\r\n');
/** End of a body in chunks; JSON has no such bytes in it. */
const CHUNKS_END = Buffer.from('\r\n0\r\n\r\n');

/** A connection that is made anew when the server closes it and says so; what it has not answered is sent again then. */
export class Pipeline {
  #socket: Socket;
  readonly #waiting: Waiting[] = [];
  #received: Buffer = Buffer.alloc(0);
  #isLast = false;
  #isOver = false;
  /** Connections that were made. */
  connections = 1;

  constructor(readonly path: string) {
    this.#socket = this.#connect();
  }

  /** Rejects when the connection ends without an answer. */
  ask(bytes: Buffer): Promise<PipelineAnswer> {
    return new Promise((resolve, reject) => {
      this.#waiting.push({ bytes, ends: 0, resolve, reject });
      if (!this.#isLast && this.#waiting.length === 1) this.#socket.write(bytes);
    });
  }

  close(): void {
    this.#isOver = true;
    this.#socket.destroy();
  }

  #connect(): Socket {
    const socket = connect(this.path);
    socket.on('data', (part) => this.#read(part));
    socket.on('error', () => {});
    socket.on('close', () => this.#closed());
    return socket;
  }

  #closed(): void {
    if (this.#isOver) return;
    const [first] = this.#waiting;
    if (!this.#isLast && first && ++first.ends > ENDS_MAX) {
      this.#waiting.shift();
      first.reject(new Error('the connection ended without a word'));
    }
    this.#isLast = false;
    this.#received = Buffer.alloc(0);
    this.connections++;
    this.#socket = this.#connect();
    this.#next();
  }

  #next(): void {
    const [first] = this.#waiting;
    if (first) this.#socket.write(first.bytes);
  }

  #read(part: Buffer): void {
    this.#received = this.#received.length > 0 ? Buffer.concat([this.#received, part]) : part;
    while (!this.#isLast && this.#take()) {}
  }

  /** False when there is no whole answer yet. */
  #take(): boolean {
    const received = this.#received;
    const headEnd = received.indexOf(HEAD_END);
    if (headEnd < 0) return false;
    const head = received.toString('latin1', 0, headEnd).toLowerCase();
    const from = headEnd + HEAD_END.length;
    let to: number;
    let text: string;
    if (head.includes('transfer-encoding: chunked')) {
      const end = received.indexOf(CHUNKS_END, headEnd + 2);
      if (end < 0) return false;
      to = end + CHUNKS_END.length;
      text = received.toString('utf8', from, end).replaceAll(/(^|\r\n)[0-9a-f]+\r\n/g, '');
    } else {
      to = from + Number(/content-length: (\d+)/.exec(head)?.[1] ?? 0);
      if (received.length < to) return false;
      text = received.toString('utf8', from, to);
    }
    this.#received = received.subarray(to);
    this.#isLast = head.includes('connection: close');
    this.#waiting.shift()!.resolve({ status: Number(head.slice(9, 12)), text });
    if (!this.#isLast) this.#next();
    return true;
  }
}
