/**
 * Files and directories that are opened by name: no link of somebody else's leads elsewhere, no pipe holds up whoever opens it, and
 * nobody but root and our own user decides what is in them.
 */
import { closeSync, constants, fstatSync, lstatSync, openSync, statSync } from 'node:fs';
import { type FileHandle, open } from 'node:fs/promises';
import { OverlayError } from '../errors.js';

const { O_NOFOLLOW, O_NONBLOCK } = constants;
/** Bits of the mode by which the group and others may write. */
const WRITABLE = 0o022;

/** What `stat` says of a file, as far as it matters here. */
interface Stat {
  readonly uid: number | bigint;
  readonly mode: number | bigint;
  isFile(): boolean;
  isDirectory(): boolean;
}

/** What is asked of a file, beside that it is a regular one. */
export interface Trust {
  /** It may be reached over a symbolic link: its path is one that root has given. */
  readonly isLinkFine?: boolean;
  /** It may be anybody's, such as a module that an operator tries out. */
  readonly isOwnerFine?: boolean;
  /** Its mode does not matter, since nobody else may enter its directory. */
  readonly isModeFine?: boolean;
}

/** A file or directory that is not what it must be: what is wrong, and the remedy. */
export class Untrusted extends OverlayError {
  override readonly name: string = 'Untrusted';
  constructor(
    readonly path: string,
    readonly fault: string,
    remedy: string,
    errno: 'EPERM' | 'EINVAL' = 'EPERM',
  ) {
    super(errno, 'not_trusted', `${path} is not used: ${fault}; ${remedy}`);
  }
}

/** Opens a file. Throws Untrusted, and what the system says. @param mode of a file that this makes */
export function openTrusted(path: string, flags: number, trust: Trust = {}, mode?: number): number {
  let fd: number;
  try {
    fd = openSync(path, flags | flagsOf(trust), mode);
  } catch (error) {
    throw refusal(path, error);
  }
  try {
    checkTrust(path, fstatSync(fd), trust);
    return fd;
  } catch (error) {
    closeSync(fd);
    throw error;
  }
}

/** Likewise, without holding up anything else. */
export async function openTrustedAside(path: string, flags: number, trust: Trust = {}): Promise<FileHandle> {
  let handle: FileHandle;
  try {
    handle = await open(path, flags | flagsOf(trust));
  } catch (error) {
    throw refusal(path, error);
  }
  try {
    checkTrust(path, await handle.stat(), trust);
    return handle;
  } catch (error) {
    await handle.close();
    throw error;
  }
}

/** Throws Untrusted unless the stat is of a regular file that can be trusted. */
export function checkTrust(path: string, stat: Stat, trust: Trust = {}): void {
  if (!stat.isFile())
    throw new Untrusted(path, 'it is not a regular file', 'put a regular file there', 'EINVAL');
  checkOwner(path, stat, trust);
}

/** Throws Untrusted unless a directory is one that only root and our own user may change, and what the system says. */
export function checkDirectory(path: string, trust: Trust = {}): void {
  const stat = trust.isLinkFine ? statSync(path) : lstatSync(path);
  if (stat.isSymbolicLink()) throw linkFault(path);
  if (!stat.isDirectory())
    throw new Untrusted(path, 'it is not a directory', 'put a directory there', 'EINVAL');
  checkOwner(path, stat, trust);
}

function checkOwner(path: string, { uid, mode }: Stat, { isOwnerFine, isModeFine }: Trust): void {
  const own = process.geteuid?.() ?? 0;
  if (!isOwnerFine && Number(uid) !== 0 && Number(uid) !== own) {
    throw new Untrusted(path, `it belongs to user ${uid}`, `let it belong to root or user ${own} (chown)`);
  }
  if (!isModeFine && (Number(mode) & WRITABLE) !== 0) {
    throw new Untrusted(path, 'its group or others may write it', 'take that from them (chmod go-w)');
  }
}

/** Without O_NONBLOCK a pipe would keep whoever opens it for ever. */
function flagsOf({ isLinkFine }: Trust): number {
  return O_NONBLOCK | (isLinkFine ? 0 : O_NOFOLLOW);
}

function linkFault(path: string): Untrusted {
  return new Untrusted(
    path,
    'it is a symbolic link',
    'put the file itself there, or name the one it leads to',
  );
}

/** The system's words for a link and for a socket, in ours. */
function refusal(path: string, error: unknown): unknown {
  const { code } = error as NodeJS.ErrnoException;
  if (code === 'ELOOP') return linkFault(path);
  if (code === 'ENXIO')
    return new Untrusted(path, 'it is not a regular file', 'put a regular file there', 'EINVAL');
  return error;
}
