/** A file of targets on the disk: written and read in pieces, between which main does other things. */
import { createHash } from 'node:crypto';
import { closeSync, constants, readSync, renameSync } from 'node:fs';
import { type FileHandle, open } from 'node:fs/promises';
import { dirname } from 'node:path';
import { TARGETS_MAX } from '../../assembly/layout.js';
import { OverlayError } from '../errors.js';
import { openTrusted, openTrustedAside, Untrusted } from '../sys/trusted-file.js';
import { draftOf, FILE_MODE, quietly, removeFile, sizeFault, stateTrust, WRITE_FLAGS } from './disk.js';
import { isMissing, newerFault, stateFault } from './fault.js';
import type { TargetRecord } from './record.js';
import {
  END_BYTES_MAX,
  parseEnd,
  TARGETS_VERSION,
  TargetReader,
  TargetWriter,
  versionOf,
} from './target-lines.js';

/** A million targets with a route each of ten destinations; a file has an end even if a plugin makes it with 1024. */
const FILE_BYTES_MAX = 1024 * 1024 * 1024;
/** About a thousand rows, so that neither parsing nor taking them in keeps main for long. */
const READ_BYTES = 16 * 1024;
/** What is hashed at a time: below half a millisecond. */
const HASH_BYTES = 256 * 1024;
const HEAD_BYTES_MAX = 64;

/**
 * Writes rows beside the file and puts them in its place, unless `isUnwanted` by then (false is returned). Throws
 * OverlayError, `state_failed` or `state_newer`, and the signal's reason: the old file is as it was; after a failure of
 * the very last step, making the directory durable, either is there whole.
 */
export async function writeTargets(
  path: string,
  rows: Iterable<TargetRecord>,
  isUnwanted: () => boolean,
  signal?: AbortSignal,
): Promise<boolean> {
  const draft = draftOf(path);
  try {
    refuseNewer(path);
    const handle = await open(draft, WRITE_FLAGS, FILE_MODE);
    try {
      if (!(await writeRows(path, handle, rows, isUnwanted, signal))) return false;
      await handle.sync();
    } finally {
      await handle.close();
    }
    signal?.throwIfAborted();
    if (isUnwanted()) return false;
    // Not handed to a thread: between the question above and this nothing may remove the device.
    renameSync(draft, path);
    await syncDirectoryAside(dirname(path));
    return true;
  } catch (error) {
    if (signal?.aborted && error === signal.reason) throw error;
    throw stateFault(error, path, 'written');
  } finally {
    quietly(() => removeFile(draft));
  }
}

async function writeRows(
  path: string,
  handle: FileHandle,
  rows: Iterable<TargetRecord>,
  isUnwanted: () => boolean,
  signal: AbortSignal | undefined,
): Promise<boolean> {
  const hash = createHash('sha256');
  const writer = new TargetWriter();
  let bytes = 0;
  const write = async (text: string) => {
    bytes += text.length;
    if (bytes > FILE_BYTES_MAX || writer.rows > TARGETS_MAX) throw tooMuch(path);
    hash.update(text);
    await handle.writeFile(text);
  };
  for (const row of rows) {
    writer.add(row);
    if (!writer.isFull) continue;
    signal?.throwIfAborted();
    if (isUnwanted()) return false;
    await write(writer.take());
  }
  await write(`${writer.take()}end ${writer.rows} `);
  await handle.writeFile(`${hash.digest('hex')}\n`);
  return true;
}

function tooMuch(path: string): OverlayError {
  const bounds = `${TARGETS_MAX} targets and ${FILE_BYTES_MAX} bytes`;
  return new OverlayError(
    'EFBIG',
    'state_failed',
    `${path} cannot be written: it may have ${bounds}; lower the property 'targets' of the device`,
  );
}

/** Throws ENOTSUP (`state_newer`) for a file of targets that a newer overlayd wrote. */
function refuseNewer(path: string): void {
  let fd: number;
  try {
    fd = openTrusted(path, constants.O_RDONLY, stateTrust);
  } catch (error) {
    // What is no file of ours gives way to one.
    if (isMissing(error) || error instanceof Untrusted) return;
    throw error;
  }
  try {
    const begin = Buffer.alloc(HEAD_BYTES_MAX);
    const version = versionOf(begin.toString('latin1', 0, readSync(fd, begin, 0, HEAD_BYTES_MAX, 0)));
    if (version !== undefined && version > TARGETS_VERSION) throw newerFault(path, version, TARGETS_VERSION);
  } finally {
    closeSync(fd);
  }
}

async function syncDirectoryAside(directory: string): Promise<void> {
  const handle = await open(directory, 'r');
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

/** What is wrong with a file of targets. */
export class BadTargets extends Error {
  override readonly name = 'BadTargets';
}

/**
 * The rows of a file, a piece at a time; none when there is no file. The whole file is checked before the first row is
 * given. Throws BadTargets, OverlayError (`state_newer`), and what the system says.
 */
export async function* readTargets(path: string): AsyncGenerator<TargetRecord[]> {
  let handle: FileHandle;
  try {
    handle = await openTrustedAside(path, constants.O_RDONLY, stateTrust);
  } catch (error) {
    if (isMissing(error)) return;
    if (error instanceof Untrusted) throw new BadTargets(error.fault);
    throw error;
  }
  try {
    const { bytes, rows } = await verify(path, handle);
    const reader = new TargetReader();
    for await (const piece of pieces(handle, bytes, READ_BYTES)) {
      const read = reader.read(piece.toString('latin1'));
      if (typeof read === 'string') throw new BadTargets(read);
      if (read.length > 0) yield read;
    }
    if (reader.rows !== rows) throw new BadTargets(`it has ${reader.rows} targets and says ${rows}`);
  } finally {
    await handle.close();
  }
}

/** The bytes before the last line, and the rows that it says, of a file with the checksum that it should have. */
async function verify(path: string, handle: FileHandle): Promise<{ bytes: number; rows: number }> {
  const stat = await handle.stat();
  const fault = sizeFault(stat, FILE_BYTES_MAX + END_BYTES_MAX);
  if (fault !== undefined) throw new BadTargets(fault);
  const version = versionOf(await readText(handle, 0, HEAD_BYTES_MAX));
  if (version === undefined) throw new BadTargets('it does not begin as a file of targets does');
  if (version > TARGETS_VERSION) throw newerFault(path, version, TARGETS_VERSION);
  const from = Math.max(0, stat.size - END_BYTES_MAX);
  const end = parseEnd(await readText(handle, from, stat.size - from));
  if (!end) throw new BadTargets('its end is missing');
  const bytes = stat.size - end.bytes;
  const hash = createHash('sha256');
  for await (const piece of pieces(handle, bytes, HASH_BYTES)) hash.update(piece);
  if (hash.update(end.prefix).digest('hex') !== end.digest) throw new BadTargets('its checksum is wrong');
  return { bytes, rows: end.rows };
}

async function readText(handle: FileHandle, position: number, length: number): Promise<string> {
  const { buffer, bytesRead } = await handle.read(Buffer.alloc(length), 0, length, position);
  return buffer.toString('latin1', 0, bytesRead);
}

/** The first `bytes` of a file; a piece is valid until the next is asked for. */
async function* pieces(handle: FileHandle, bytes: number, most: number): AsyncGenerator<Buffer> {
  const buffer = Buffer.alloc(most);
  for (let at = 0; at < bytes; ) {
    const { bytesRead } = await handle.read(buffer, 0, Math.min(most, bytes - at), at);
    if (bytesRead === 0) throw new BadTargets('it is shorter than it was');
    yield buffer.subarray(0, bytesRead);
    at += bytesRead;
  }
}
