/**
 * A planned restart: this process becomes the program anew (man 2 execve), under the same process id, and the descriptors
 * of the links pass to it. A link that somebody holds open keeps its carrier, so that routes over it stay in force.
 */
import type { Log } from '../log.js';
import { lastErrno, SystemError } from '../sys/errno.js';
import { closeFd, setInherited } from '../sys/fd.js';
import { execve } from '../sys/libc.js';

/** Where the next program finds them: `{"ov0":[20,21]}`. */
const VARIABLE = 'OVERLAYD_LINKS';

export type LinkFds = Readonly<Record<string, readonly number[]>>;

/** Becomes the program anew. Throws SystemError when that cannot be. */
export function becomeAnew(fds: LinkFds): never {
  const environment = { ...process.env, [VARIABLE]: JSON.stringify(fds) };
  const variables = Object.entries(environment).flatMap(([name, value]) =>
    value === undefined ? [] : [`${name}=${value}`],
  );
  const words = [process.execPath, ...process.execArgv, ...process.argv.slice(1)];
  // Node has them closed on the way to another program where they are pipes.
  for (const standard of [0, 1, 2]) setInherited(standard, true);
  // Both lists end with a null pointer.
  execve(process.execPath, [...words, null], [...variables, null]);
  throw new SystemError(lastErrno(), `running ${process.execPath} anew`);
}

/** What the program before this one has handed over; nothing when there was none. */
export function takeLinks(): LinkFds {
  const text = process.env[VARIABLE];
  delete process.env[VARIABLE];
  return text === undefined ? {} : (JSON.parse(text) as LinkFds);
}

/** Closes what no device has taken. */
export function dropLinks(fds: LinkFds, taken: readonly string[], log: Log): void {
  for (const [name, links] of Object.entries(fds)) {
    if (taken.includes(name)) continue;
    log.warn({ device: name }, 'a link was handed over that no device has');
    for (const fd of links) closeFd(fd);
  }
}
