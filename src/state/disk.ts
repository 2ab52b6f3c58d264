/**
 * Files that are old or new, never half: what is written goes to a file beside, is made durable, takes the place of the
 * old one, and the directory is made durable (man 2 fsync, man 2 rename). Names that begin with a dot are in the making
 * or on the way out; no device's name begins with one.
 */
import {
  chmodSync,
  closeSync,
  constants,
  fstatSync,
  fsyncSync,
  linkSync,
  mkdirSync,
  openSync,
  readSync,
  renameSync,
  statSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { checkDirectory, openTrusted, Untrusted } from '../sys/trusted-file.js';
import { isMissing, isSystemFault } from './fault.js';

const { O_CREAT, O_DIRECTORY, O_NOFOLLOW, O_RDONLY, O_TRUNC, O_WRONLY } = constants;

/** Only overlayd reads and writes them: they name addresses and keys of plugins. */
export const FILE_MODE = 0o600;
const DIRECTORY_MODE = 0o700;
/** Opens a file to be written from its beginning, but not through a symbolic link. */
export const WRITE_FLAGS = O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW;
/** Nobody else may enter the directories of these files. */
export const stateTrust = { isModeFine: true };

/** Where the successor of a file is written. */
export function draftOf(path: string): string {
  return beside(path, '.tmp-');
}

/** Where a file is on its way out; the name of the file is what follows `GONE`. */
export const GONE = '.gone-';
export function goneOf(path: string): string {
  return beside(path, GONE);
}

/** True for what a crash can leave behind and nobody needs. */
export function isLeftover(name: string): boolean {
  return name.startsWith('.tmp-') || name.startsWith('.old-');
}

function beside(path: string, prefix: string): string {
  return join(dirname(path), prefix + basename(path));
}

/** Makes a directory that only overlayd may enter. Throws what the system says. */
export function makeDirectory(path: string): void {
  mkdirSync(path, { recursive: true, mode: DIRECTORY_MODE });
  checkDirectory(path, { isModeFine: true });
  if ((statSync(path).mode & 0o777) !== DIRECTORY_MODE) chmodSync(path, DIRECTORY_MODE);
  syncDirectory(dirname(path));
}

/** Waits until the names in a directory are on the disk. */
export function syncDirectory(directory: string): void {
  const fd = openSync(directory, O_RDONLY | O_DIRECTORY);
  try {
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
}

/** A file's bytes, why it is none that overlayd wrote, or undefined when it is not there. Throws what the system says. */
export function readWhole(path: string, bytesMax: number): Buffer | { readonly fault: string } | undefined {
  let fd: number;
  try {
    fd = openTrusted(path, O_RDONLY, stateTrust);
  } catch (error) {
    if (isMissing(error)) return undefined;
    if (error instanceof Untrusted) return { fault: error.fault };
    throw error;
  }
  try {
    const stat = fstatSync(fd);
    const fault = sizeFault(stat, bytesMax);
    if (fault !== undefined) return { fault };
    const bytes = Buffer.alloc(stat.size);
    let length = 0;
    while (length < bytes.length) {
      const count = readSync(fd, bytes, length, bytes.length - length, null);
      if (count === 0) break;
      length += count;
    }
    return bytes.subarray(0, length);
  } finally {
    closeSync(fd);
  }
}

/** Why a file is too large to be one that overlayd wrote, or undefined. */
export function sizeFault({ size }: { readonly size: number }, bytesMax: number): string | undefined {
  return size > bytesMax ? `it is ${size} bytes long, and may be ${bytesMax}` : undefined;
}

/**
 * Puts bytes in place of a file, durably. Throws what the system says: the old file is then as it was, unless that
 * cannot be brought about either.
 */
export function replaceFile(path: string, bytes: Uint8Array): void {
  const draft = draftOf(path);
  const old = beside(path, '.old-');
  try {
    const fd = openSync(draft, WRITE_FLAGS, FILE_MODE);
    try {
      writeFileSync(fd, bytes);
      fsyncSync(fd);
    } finally {
      closeSync(fd);
    }
    // A second name for the old file, by which it comes back should the directory not become durable.
    removeFile(old);
    const hasOld = linkIfThere(path, old);
    renameSync(draft, path);
    try {
      syncDirectory(dirname(path));
    } catch (error) {
      quietly(() => (hasOld ? renameSync(old, path) : unlinkSync(path)));
      quietly(() => syncDirectory(dirname(path)));
      throw error;
    }
  } finally {
    quietly(() => removeFile(draft));
    quietly(() => removeFile(old));
  }
}

/** Gives a file another name; false when there is no such file. */
export function moveIfThere(from: string, to: string): boolean {
  return unlessMissing(() => renameSync(from, to));
}

/** Removes a file; false when there is no such file. */
export function removeFile(path: string): boolean {
  return unlessMissing(() => unlinkSync(path));
}

function linkIfThere(from: string, to: string): boolean {
  return unlessMissing(() => linkSync(from, to));
}

function unlessMissing(work: () => void): boolean {
  try {
    work();
    return true;
  } catch (error) {
    if (isMissing(error)) return false;
    throw error;
  }
}

/** Tidies up behind a failure that is reported, or where the next load does it again: the system may refuse that too. */
export function quietly(work: () => void): void {
  try {
    work();
  } catch (error) {
    if (!isSystemFault(error)) throw error;
  }
}
