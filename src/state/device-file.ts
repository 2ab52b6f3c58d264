/**
 * The file of one device: JSON that people can read, with the version of its format and the SHA-256 of all of the file
 * but the digest's own 64 digits. This head is the same in every version, so that any overlayd can tell a file of a newer
 * one from a broken one.
 */
import { createHash } from 'node:crypto';
import { assert, OverlayError } from '../errors.js';
import type { DeviceRecord } from './record.js';
import { recordFault } from './record-check.js';

export const DEVICE_VERSION = 1;
/** Much more than properties take; what a lookup plugin saves is the rest. */
export const DEVICE_FILE_BYTES_MAX = 1024 * 1024;

/** From the version that is the key to the next: what a file held, to what it would hold there. */
export type Migrations = ReadonlyMap<number, (device: unknown) => unknown>;
export const migrations: Migrations = new Map();

/** What a file turned out to be. */
export type Opened =
  | { readonly is: 'good'; readonly record: DeviceRecord }
  | { readonly is: 'bad'; readonly reason: string }
  | { readonly is: 'newer'; readonly version: number };

const head = /^\{\n {2}"version": (\d{1,9}),\n {2}"sha256": "([0-9a-f]{64})",\n/;
const HEAD_BYTES_MAX = 128;
const DIGEST_DIGITS = 64;

/**
 * The bytes of a record's file. Throws EINVAL (`state_failed`) for what would not come back from it, which only what a
 * plugin saved can be, and EFBIG for too much of it.
 */
export function encodeDevice(record: DeviceRecord): Uint8Array {
  const { name } = record;
  const mistake = recordFault({ ...record, saved: null });
  assert(mistake === undefined, `the record of ${name}: ${mistake}`);
  let bytes: Buffer;
  try {
    bytes = seal(DEVICE_VERSION, record);
  } catch (error) {
    // A BigInt, a circle, nesting deeper than the stack, or whatever a toJSON of the plugin's throws.
    throw unkeepable(name, error instanceof Error ? error.message : 'it cannot be written as JSON');
  }
  if (bytes.length > DEVICE_FILE_BYTES_MAX) {
    throw new OverlayError(
      'EFBIG',
      'state_failed',
      `${name} cannot be kept: its lookup plugin's save gave so much that the file would be ${bytes.length} bytes, ` +
        `and it may be ${DEVICE_FILE_BYTES_MAX}`,
    );
  }
  const opened = decodeDevice(bytes, name);
  if (opened.is !== 'good') throw unkeepable(name, opened.is === 'bad' ? opened.reason : opened.is);
  return bytes;
}

function unkeepable(name: string, why: string): OverlayError {
  return new OverlayError(
    'EINVAL',
    'state_failed',
    `${name} cannot be kept: its lookup plugin's save must give JSON (${why.slice(0, 256)})`,
  );
}

/** A file's bytes with the digest that belongs to them. */
export function seal(version: number, device: unknown): Buffer {
  const text = `${JSON.stringify({ version, sha256: '', device }, null, 2)}\n`;
  const at = text.indexOf('""') + 1;
  return Buffer.from(text.slice(0, at) + digestOf(text) + text.slice(at));
}

/** What is in a file, by its bytes and the name that the file gives it. */
export function decodeDevice(bytes: Buffer, name: string, by: Migrations = migrations): Opened {
  const match = head.exec(bytes.toString('latin1', 0, HEAD_BYTES_MAX));
  if (!match) return bad(bytes.length === 0 ? 'it is empty' : 'it does not begin as a device file does');
  const [begin = '', versionText, digest = ''] = match;
  const at = begin.indexOf(digest);
  if (digestOf(bytes.subarray(0, at), bytes.subarray(at + DIGEST_DIGITS)) !== digest) {
    return bad('its checksum is wrong');
  }
  const version = Number(versionText);
  if (version > DEVICE_VERSION) return { is: 'newer', version };
  let device: unknown;
  try {
    device = (JSON.parse(bytes.toString('utf8')) as { device?: unknown }).device;
  } catch {
    return bad('it is not JSON');
  }
  for (let from = version; from < DEVICE_VERSION; from++) {
    const migrate = by.get(from);
    if (!migrate) return bad(`its format ${version} is too old`);
    try {
      device = migrate(device);
    } catch (error) {
      return bad(
        `its format ${version} holds what it cannot: ${error instanceof Error ? error.message : ''}`,
      );
    }
  }
  const fault = recordFault(device);
  if (fault !== undefined) return bad(fault);
  const record = device as DeviceRecord;
  return record.name === name
    ? { is: 'good', record }
    : bad(`it is of '${record.name}', but named for '${name.slice(0, 64)}'`);
}

function bad(reason: string): Opened {
  return { is: 'bad', reason };
}

function digestOf(...parts: readonly (string | Uint8Array)[]): string {
  const hash = createHash('sha256');
  for (const part of parts) hash.update(part);
  return hash.digest('hex');
}
