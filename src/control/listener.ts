/**
 * One of the control sockets: its file, and who takes its connections. A listener that pauses takes none, and loses none
 * either: they wait in the kernel's backlog, and cost neither a descriptor nor a turn of this thread.
 */
import { chmodSync, chownSync, lstatSync, rmSync } from 'node:fs';
import { Server, type Socket } from 'node:net';
import { OverlayError } from '../errors.js';
import { CONTROL_BACKLOG } from '../limits.js';
import { after } from '../sys/clock.js';
import { closeFd, duplicateFd } from '../sys/fd.js';
import { bindUnix } from '../sys/unix-socket.js';

/** Whoever may open the file may connect. */
export interface FileAccess {
  readonly mode: number;
  /** Group that owns it. */
  readonly gid: number;
}

export class Listener {
  /** Keeps the socket, and its backlog, while nobody takes connections. */
  readonly #fd: number;
  #server: Server | undefined;
  /** Cancels the end of a pause. */
  #cancel: (() => void) | undefined;

  /** Makes the file; nobody can connect before `listen`. Throws what the system refuses with. */
  constructor(
    readonly path: string,
    readonly onConnection: (socket: Socket) => void,
  ) {
    this.#fd = bindUnix(path);
  }

  /** Changes who may connect. Throws what the system refuses with. */
  setAccess({ mode, gid }: FileAccess): void {
    if (lstatSync(this.path).gid !== gid) chownSync(this.path, -1, gid);
    chmodSync(this.path, mode);
  }

  /** Takes connections. Rejects with what the system refuses with. @param server what tells of them, where there is one */
  listen(server = this.#taker()): Promise<void> {
    return new Promise((resolve, reject) => {
      server.once('error', reject);
      server.listen({ fd: duplicateFd(this.#fd), backlog: CONTROL_BACKLOG }, resolve);
      this.#server = server;
    });
  }

  /** Takes no connections for a while. Nothing happens when it pauses already. */
  pause(ms: number): void {
    if (this.#cancel) return;
    // Its connections stay, and so does the socket.
    this.#server?.close();
    this.#server = undefined;
    this.#cancel = after(ms, () => {
      this.#cancel = undefined;
      // Without a descriptor left for it, later.
      this.listen().catch(() => this.pause(ms));
    });
  }

  /** Takes no more connections, and takes the file away. */
  close(): void {
    this.#cancel?.();
    this.#server?.close();
    this.#server = undefined;
    closeFd(this.#fd);
    rmSync(this.path, { force: true });
  }

  #taker(): Server {
    // As an HTTP server does: a client may end its side and wait for the answer.
    return new Server({ allowHalfOpen: true }, (socket) => this.onConnection(socket));
  }
}

/** Makes room for a socket: a dead daemon's is removed. Throws EEXIST for anything that is no socket. */
export function removeSocket(path: string): void {
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
