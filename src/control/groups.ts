/** Groups of users by name or number (man 5 group), without a library that would ask the network. */
import { readFileSync } from 'node:fs';
import { OverlayError } from '../errors.js';

export interface Group {
  readonly gid: number;
  /** As an administrator calls it: its name, or its number where it has none. */
  readonly name: string;
}

const GROUP_FILE = '/etc/group';
/** (gid_t)-1 is no group (man 2 chown). */
const GID_MAX = 2 ** 32 - 2;

/** A group by name or number. Throws ENOENT for a name that /etc/group does not have, EINVAL for no number of a group. */
export function groupOf(nameOrId: string | number): Group {
  const text = String(nameOrId);
  if (typeof nameOrId === 'number' || /^\d+$/.test(text)) {
    const gid = Number(text);
    if (Number.isInteger(gid) && gid >= 0 && gid <= GID_MAX) {
      return groups().find((group) => group.gid === gid) ?? { gid, name: text };
    }
    throw new OverlayError('EINVAL', 'bad_group', `${text} is no number of a group: it is 0 to ${GID_MAX}`);
  }
  const found = groups().find(({ name }) => name === text);
  if (found) return found;
  throw new OverlayError(
    'ENOENT',
    'no_such_group',
    `there is no group '${text.slice(0, 64)}' in ${GROUP_FILE}: create it (groupadd), or name another or its number`,
  );
}

/** None where there is no such file: groups are then known by their numbers. */
function groups(): Group[] {
  let text: string;
  try {
    text = readFileSync(GROUP_FILE, 'utf8');
  } catch {
    return [];
  }
  return text.split('\n').flatMap((line) => {
    const [name = '', , gid = ''] = line.split(':');
    return /^\d{1,10}$/.test(gid) ? { gid: Number(gid), name } : [];
  });
}
