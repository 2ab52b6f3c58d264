/** From the path of a mapping file to its mappings, without holding up anything else. */
import { constants } from 'node:fs';
import type { FileHandle } from 'node:fs/promises';
import { OverlayError } from '../../errors.js';
import { monotonicMs } from '../../sys/clock.js';
import { errnoText } from '../../sys/errno.js';
import { openTrustedAside, Untrusted } from '../../sys/trusted-file.js';
import type { LookupServices } from '../plugin.js';
import type { Position } from './json.js';
import { indexRecords, type Mappings } from './mappings.js';
import { type ReadOptions, readRecords } from './records.js';
import { inSlices } from './slices.js';

/** A million mappings with every key and wide indentation are half of that. */
const FILE_BYTES_MAX = 512 * 1024 * 1024;
const CHUNK_BYTES = 4 * 1024 * 1024;
/** Of a file that changes while it is read. */
const READ_TRIES = 3;
const PROGRESS_MS = 1000;
/** Reserved keys that are reported by name. */
const RESERVED_MAX = 16;

const remedies: Record<string, string> = {
  ENOENT: 'create it, or set files/config to the path of the mappings',
  ENOTDIR: 'set files/config to the path of the mappings',
  EACCES: 'let the daemon read it',
};

export interface Source {
  readonly path: string;
  /** DESTINATION_ bits of the encapsulation. */
  readonly kinds: number;
  /** This host's own VTEP, left out of floods. */
  readonly localIp: string | undefined;
  readonly optionsFault: ReadOptions['optionsFault'];
  readonly vtepFault: ReadOptions['vtepFault'];
  readonly log: LookupServices['log'];
  readonly signal: AbortSignal;
  /** Reserved keys that were reported already. */
  readonly reserved: Set<string>;
}

/** An error of the file system as a sentence about the file. */
function readError(path: string, error: unknown): OverlayError {
  const { code = 'EIO', errno = 0 } = error as NodeJS.ErrnoException;
  const remedy = remedies[code];
  const what = `${path} cannot be read: ${errnoText(-errno)} (${code})`;
  return new OverlayError(code, 'file_not_readable', remedy ? `${what}; ${remedy}` : what);
}

function notUsable(path: string, why: string): OverlayError {
  return new OverlayError('EINVAL', 'file_not_readable', `${path} cannot be read: ${why}`);
}

/**
 * Reads, parses and indexes. Throws ENOENT, EACCES or what else the file system says (`file_not_readable`), EINVAL with
 * line and column (`bad_json`, `bad_mapping`), EBUSY for a file that keeps changing, and the signal's reason.
 */
export async function loadMappings(source: Source): Promise<Mappings> {
  const { path, kinds, localIp, optionsFault, vtepFault, log, signal, reserved } = source;
  const begun = monotonicMs();
  let nextProgress = begun + PROGRESS_MS;
  const slicing = (phase: string) => ({
    signal,
    onProgress: (done: number) => {
      if (monotonicMs() < nextProgress) return;
      nextProgress = monotonicMs() + PROGRESS_MS;
      log('info', `${path}: ${phase} the mappings, ${Math.floor(done * 100)}% done`);
    },
  });
  const onReserved = (key: string, { line, column }: Position): void => {
    if (reserved.has(key) || reserved.size === RESERVED_MAX) return;
    reserved.add(key);
    log(
      'warn',
      `${path}:${line}:${column}: the key ${JSON.stringify(key)} is reserved and means nothing yet`,
    );
  };
  const bytes = await readWhole(path, signal);
  const given = { bytes, file: path, kinds, optionsFault, vtepFault, onReserved };
  const records = await inSlices(readRecords(given), slicing('reading'));
  const mappings = await inSlices(indexRecords(records, localIp), slicing('indexing'));
  const seconds = ((monotonicMs() - begun) / 1000).toFixed(1);
  log('info', `${path}: ${mappings.count} mappings to ${mappings.parts.vtepCount} VTEPs in ${seconds} s`);
  const replaced = mappings.parts.rows - mappings.count;
  if (replaced > 0) {
    log('warn', `${path}: ${replaced} mappings are replaced by later ones with the same MAC address`);
  }
  return mappings;
}

/** The bytes of a file that was the same before and after. */
async function readWhole(path: string, signal: AbortSignal): Promise<Buffer> {
  for (let turn = 0; turn < READ_TRIES; turn++) {
    let file: FileHandle | undefined;
    try {
      file = await openTrustedAside(path, constants.O_RDONLY);
      const bytes = await readSteady(file, path, signal);
      if (bytes) return bytes;
    } catch (error) {
      if (error instanceof Untrusted) throw new OverlayError(error.errno, 'file_not_readable', error.message);
      if (signal.aborted || error instanceof OverlayError) throw error;
      throw readError(path, error);
    } finally {
      await file?.close();
    }
  }
  throw new OverlayError(
    'EBUSY',
    'file_not_readable',
    `${path} changes while it is read; write it in one go`,
  );
}

/** Undefined when the file changed meanwhile. */
async function readSteady(file: FileHandle, path: string, signal: AbortSignal): Promise<Buffer | undefined> {
  const before = await file.stat({ bigint: true });
  if (before.size > FILE_BYTES_MAX) throw notUsable(path, `it is larger than ${FILE_BYTES_MAX} bytes`);
  const bytes = Buffer.allocUnsafeSlow(Number(before.size));
  for (let at = 0; at < bytes.length; ) {
    const { bytesRead } = await file.read(bytes, at, Math.min(CHUNK_BYTES, bytes.length - at), at);
    signal.throwIfAborted();
    if (bytesRead === 0) return undefined;
    at += bytesRead;
  }
  const after = await file.stat({ bigint: true });
  return after.size === before.size && after.mtimeNs === before.mtimeNs ? bytes : undefined;
}
