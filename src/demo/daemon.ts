/** One overlayd in a host: a process of its own, as an operator runs it. */
import type { ChildProcess } from 'node:child_process';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { ControlClient } from '../control/client.js';
import { monotonicMs } from '../sys/clock.js';
import { howEnded, startNode } from './child.js';
import type { Cleanup } from './cleanup.js';
import { commandLine, DAEMON, shortPath } from './programs.js';
import { print } from './screen.js';

const READY_MS_MAX = 20_000;
const POLL_MS = 20;

export class Daemon {
  /** Rejects when it ends before the demo does. */
  readonly lost: Promise<never>;
  readonly #child: ChildProcess;

  /** Starts it in a namespace; `ready` says when it answers. */
  constructor(
    cleanup: Cleanup,
    readonly host: string,
    readonly socket: string,
    directory: string,
    namespace: number,
  ) {
    const args = ['--socket', socket, '--state-dir', join(directory, host), '--log-level', 'warn'];
    this.#child = startNode(cleanup, DAEMON, args, { namespace });
    for (const stream of [this.#child.stdout, this.#child.stderr]) {
      stream?.setEncoding('utf8').on('data', (text: string) => {
        for (const line of text.trimEnd().split('\n')) print(`  [overlayd of host ${host}] ${line}`);
      });
    }
    this.lost = new Promise((_, reject) => {
      this.#child.once('exit', () =>
        reject(new Error(`overlayd of host ${host} ended: ${howEnded(this.#child)}`)),
      );
    });
    // Whoever waits for something of this daemon looks at it; nobody else need.
    this.lost.catch(() => {});
  }

  /** Its start as a command line. */
  static line(socket: string, directory: string, host: string): string {
    const state = join(directory, host);
    return commandLine(
      'node',
      shortPath(DAEMON),
      '--socket',
      socket,
      '--state-dir',
      state,
      '--log-level',
      'warn',
    );
  }

  get pid(): number {
    return this.#child.pid ?? 0;
  }

  /** Resolves when it answers on its socket. */
  async ready(): Promise<void> {
    const client = new ControlClient(this.socket);
    const deadline = monotonicMs() + READY_MS_MAX;
    for (;;) {
      try {
        return void (await Promise.race([client.get('/v1/stats'), this.lost]));
      } catch (error) {
        const hasEnded = this.#child.exitCode !== null || this.#child.signalCode !== null;
        if (hasEnded || monotonicMs() > deadline) throw error;
      }
      await pause(POLL_MS);
    }
  }
}
