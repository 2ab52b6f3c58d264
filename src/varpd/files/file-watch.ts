/**
 * Tells that a file may have changed: written, replaced by a rename, shortened, deleted, back again. inotify on its
 * folder (the file itself may be another one after a rename) tells at once; a look at the file each second tells what
 * inotify cannot see: behind a symbolic link, on a network file system, without watches left.
 */
import { type FSWatcher, watch } from 'node:fs';
import { stat } from 'node:fs/promises';
import { basename, dirname } from 'node:path';
import { every } from '../../sys/clock.js';
import type { LookupServices } from '../plugin.js';

const POLL_MS = 1000;

/** What changes when the file does; the error's name when there is none. */
async function stampOf(path: string): Promise<string> {
  try {
    const { dev, ino, size, mtimeNs, ctimeNs } = await stat(path, { bigint: true });
    return `${dev}:${ino}:${size}:${mtimeNs}:${ctimeNs}`;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code ?? 'unknown';
  }
}

export class FileWatch {
  #stamp = '';
  #watcher: FSWatcher | undefined;
  /** Device and inode of the watched folder. */
  #folder: string | undefined;
  #isPolling = false;
  #isStopped = false;
  #hasWarned = false;
  #stopPolling: () => void = () => {};

  constructor(
    readonly path: string,
    readonly onChange: () => void,
    readonly log: LookupServices['log'],
  ) {}

  async start(): Promise<void> {
    await this.#watchFolder();
    if (this.#isStopped) return;
    this.#stopPolling = every(POLL_MS, () => void this.#poll());
  }

  /** The file as it is now is about to be read: later changes are told. */
  async mark(): Promise<void> {
    this.#stamp = await stampOf(this.path);
  }

  /** Nothing is told after it. */
  stop(): void {
    this.#isStopped = true;
    this.#stopPolling();
    this.#watcher?.close();
    this.#watcher = undefined;
  }

  async #poll(): Promise<void> {
    // A file system that hangs must not collect calls.
    if (this.#isPolling) return;
    this.#isPolling = true;
    await this.#watchFolder();
    const stamp = await stampOf(this.path);
    this.#isPolling = false;
    if (this.#isStopped || stamp === this.#stamp) return;
    this.#stamp = stamp;
    this.onChange();
  }

  /** Watches the folder that has the path's name now, which may be another one than before. */
  async #watchFolder(): Promise<void> {
    const path = dirname(this.path);
    const folder = await stat(path, { bigint: true }).then(
      ({ dev, ino }) => `${dev}:${ino}`,
      () => undefined,
    );
    if (this.#isStopped || (folder === this.#folder && this.#watcher)) return;
    this.#watcher?.close();
    this.#watcher = undefined;
    this.#folder = folder;
    if (folder === undefined) return;
    try {
      this.#watcher = watch(path, { persistent: false }, (_, name) => {
        if (!this.#isStopped && (name === null || name === basename(this.path))) this.onChange();
      });
      this.#watcher.on('error', (error) => this.#unwatched(error));
      this.#hasWarned = false;
    } catch (error) {
      this.#unwatched(error);
    }
  }

  #unwatched(error: unknown): void {
    this.#watcher?.close();
    this.#watcher = undefined;
    if (this.#hasWarned || this.#isStopped) return;
    this.#hasWarned = true;
    const why = error instanceof Error ? error.message : String(error);
    this.log('warn', `${dirname(this.path)} is not watched, changes are seen a second later: ${why}`);
  }
}
