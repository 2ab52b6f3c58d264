/** `overlayadm`, run as an operator runs it. */
import { runNode } from './child.js';
import type { Cleanup } from './cleanup.js';
import { CLI, commandLine, shortPath } from './programs.js';

const CLI_MS_MAX = 20_000;

/** Runs one command on the daemon of a socket; what it printed. Throws what it complained of. */
export function overlayadm(cleanup: Cleanup, socket: string, ...args: readonly string[]): Promise<string> {
  return runNode(cleanup, CLI, ['-S', socket, ...args], CLI_MS_MAX);
}

/** The same as a command line. */
export function overlayadmLine(socket: string, ...args: readonly string[]): string {
  return commandLine('node', shortPath(CLI), '-S', socket, ...args);
}
