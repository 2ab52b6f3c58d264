/** Files that cannot be used are set aside for people to look at, a few of each. */
import { readdirSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { wallTime } from '../sys/clock.js';
import { moveIfThere, quietly, removeFile, syncDirectory } from './disk.js';

/** Of one name. What breaks files breaks them again; the first and the last few tell enough. */
export const ASIDE_MAX = 8;

const asideRule = /^(.+)\.bad-\d{4}-\d\d-\d\dT\d{6}\.\d{3}Z(?:-\d\d)?$/;

/** The name of the file that was set aside under this name, or undefined for what is no such name. */
export function asideOf(name: string): string | undefined {
  return asideRule.exec(name)?.[1];
}

/**
 * Gives a file a name with `.bad-` and the time, durably, and removes the oldest of more than ASIDE_MAX. Returns the
 * new path. Throws what the system says: the file then is where it was.
 */
export function setAside(path: string): string {
  const directory = dirname(path);
  const name = basename(path);
  const earlier = readdirSync(directory)
    .filter((one) => asideOf(one) === name)
    .sort();
  const stamp = `${name}.bad-${wallTime().replaceAll(':', '')}`;
  // Of one millisecond they are numbered, so that the names order as they came about.
  const last = earlier.at(-1)?.startsWith(stamp) ? Number(earlier.at(-1)!.slice(stamp.length + 1)) : -1;
  const aside = last < 0 ? stamp : `${stamp}-${String(last + 1).padStart(2, '0')}`;
  moveIfThere(path, join(directory, aside));
  for (const oldest of earlier.slice(0, Math.max(0, earlier.length + 1 - ASIDE_MAX))) {
    quietly(() => removeFile(join(directory, oldest)));
  }
  syncDirectory(directory);
  return join(directory, aside);
}
