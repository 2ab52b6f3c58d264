/** Where our programs are, as the system and as people call them. */
import { join, relative } from 'node:path';

const folder = import.meta.dirname;

export const DEMO = join(folder, 'main.js');
export const DAEMON = join(folder, '../daemon/main.js');
export const CLI = join(folder, '../cli/main.js');
export const TCP_SENDER = join(folder, 'tcp-sender.js');
export const TCP_RECEIVER = join(folder, 'tcp-receiver.js');

/** The shorter way to write a path: from here, or from the root. */
export function shortPath(path: string): string {
  const fromHere = relative(process.cwd(), path);
  return fromHere.length < path.length ? fromHere : path;
}

/** A command line to read and to copy into a shell. Nothing here runs one: programs get argument arrays. */
export function commandLine(...words: readonly string[]): string {
  return words
    .map((word) => (/^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`))
    .join(' ');
}
