/** `modify-overlay`: one change of a target cache, as dladm words it. */
import { InvalidArgumentError } from 'commander';
import type { ControlClient } from '../control/client.js';
import { OverlayError } from '../errors.js';
import { formatMac, parseMac } from '../target/mac.js';
import { shortMac } from './short-mac.js';

export interface ModifyOptions {
  readonly setEntry?: Entry;
  /** Canonical MAC address. */
  readonly deleteEntry?: string;
  readonly flushTable?: boolean;
}

export interface Entry {
  readonly mac: string;
  /** As the daemon takes it: `drop`, or text with the parts that the encapsulation needs. */
  readonly to: string;
}

/** `mac=dest` of `-s`, which may be given once. */
export function parseEntry(text: string, before: Entry | undefined): Entry {
  refuseTwice(before);
  const at = text.indexOf('=');
  if (at < 1 || at === text.length - 1) {
    throw new InvalidArgumentError(
      `'${text}' is not mac=dest, such as 2:8:20:1:2:3=192.0.2.1:4789 or 2:8:20:1:2:3=drop.`,
    );
  }
  const to = text.slice(at + 1);
  return { mac: macOf(text.slice(0, at)), to: to.toLowerCase() === 'drop' ? 'drop' : to };
}

/** MAC address of `-d`, which may be given once. */
export function parseTarget(text: string, before: string | undefined): string {
  refuseTwice(before);
  return macOf(text);
}

function refuseTwice(before: unknown): void {
  if (before !== undefined) throw new InvalidArgumentError('It is given twice.');
}

function macOf(text: string): string {
  try {
    return formatMac(parseMac(text));
  } catch (error) {
    if (!(error instanceof OverlayError)) throw error;
    throw new InvalidArgumentError(`${error.message}.`);
  }
}

/** Carries out the one change that is asked for; the errors name it. */
export async function modifyOverlay(
  client: ControlClient,
  name: string,
  { setEntry, deleteEntry, flushTable }: ModifyOptions,
): Promise<object> {
  const asked = [setEntry, deleteEntry, flushTable].filter((each) => each !== undefined).length;
  if (asked !== 1) {
    const what = asked === 0 ? 'one of -s, -d and -f is needed' : '-s, -d and -f exclude each other';
    throw new OverlayError('EINVAL', 'usage', `${what}: set an entry, delete one, or flush the table`);
  }
  const path = `/v1/overlays/${encodeURIComponent(name)}/targets`;
  if (setEntry) {
    const { mac, to } = setEntry;
    return naming(`cannot set ${shortMac(mac)} of overlay '${name}'`, client.put(`${path}/${mac}`, { to }));
  }
  if (deleteEntry !== undefined) {
    const what = `cannot delete ${shortMac(deleteEntry)} of overlay '${name}'`;
    return naming(what, client.delete(`${path}/${deleteEntry}`));
  }
  return naming(`cannot flush the targets of overlay '${name}'`, client.delete(path));
}

async function naming(what: string, work: Promise<object>): Promise<object> {
  try {
    return await work;
  } catch (error) {
    if (!(error instanceof OverlayError)) throw error;
    throw new OverlayError(error.errno, error.code, `${what}: ${error.message}`, error.parts);
  }
}
