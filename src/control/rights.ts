/**
 * Who may do what, by the credentials that the kernel vouches for (see `src/sys/peer.ts`):
 *
 * | right | lets                                            | who has it                                          |
 * |-------|-------------------------------------------------|-----------------------------------------------------|
 * | look  | names, states, faults, counters, events be seen | everyone whom the socket's mode lets in             |
 * | read  | values of properties and targets be read        | who may write, and members of the group             |
 * | write | everything be changed                           | root, the daemon's own user, members of admin group |
 */
import type { Socket } from 'node:net';
import { OverlayError } from '../errors.js';
import { type Peer, peerGroupsOf, peerOf } from '../sys/peer.js';
import { type Group, groupOf } from './groups.js';

export const rights = ['look', 'read', 'write'] as const;
export type Right = (typeof rights)[number];

/** Who may use the control socket, and how. */
export interface Access {
  /** Permission bits of the socket: who may connect at all. */
  readonly socketMode?: number | undefined;
  /** Name or number of the group that owns it and whose members may read; nobody but who may write when left out. */
  readonly group?: string | number | undefined;
  /** Likewise of the group whose members may write. */
  readonly adminGroup?: string | number | undefined;
}

/** Who sent a request, for as long as his connection lasts. */
export interface Caller {
  readonly pid: number;
  readonly uid: number;
  readonly mayRead: boolean;
  readonly mayWrite: boolean;
}

/** What is missing, and who has it. */
const refusals: Readonly<Record<Exclude<Right, 'look'>, string>> = {
  read: 'may look at names and states but not read values and targets',
  write: 'may look but not change',
};

export class Rights {
  #group: Group | undefined;
  #adminGroup: Group | undefined;
  /** A peer's credentials are those of when it connected. */
  readonly #peers = new WeakMap<Socket, Peer & { readonly groups: readonly number[] }>();

  /** Whose members may read; the socket's own. */
  get group(): Group | undefined {
    return this.#group;
  }

  /** Whose members may write. */
  get adminGroup(): Group | undefined {
    return this.#adminGroup;
  }

  /** Sets the groups, for requests from here on. Throws ENOENT for one that is not there, and nothing is changed. */
  set({ group, adminGroup }: Access): void {
    const groups = [group, adminGroup].map((each) => (each === undefined ? undefined : groupOf(each)));
    [this.#group, this.#adminGroup] = groups;
  }

  /** Throws EPERM when the caller has hung up. */
  callerOf(socket: Socket): Caller {
    const fd = descriptorOf(socket);
    const peer = this.#peers.get(socket) ?? { ...peerOf(fd), groups: peerGroupsOf(fd) };
    this.#peers.set(socket, peer);
    const { pid, uid, gid, groups } = peer;
    const isIn = (group: Group | undefined) =>
      group !== undefined && (group.gid === gid || groups.includes(group.gid));
    const mayWrite = uid === 0 || uid === process.getuid?.() || isIn(this.#adminGroup);
    return { pid, uid, mayWrite, mayRead: mayWrite || isIn(this.#group) };
  }

  /** Throws EPERM naming the right that is missing and who has it. */
  require({ uid, mayRead, mayWrite }: Caller, right: Right): void {
    if (right === 'look' || (right === 'read' && mayRead) || (right === 'write' && mayWrite)) return;
    const whose = [this.#adminGroup, right === 'read' ? this.#group : undefined].filter(
      (each) => each !== undefined,
    );
    const members = whose.map(({ name }) => `'${name}'`).join(' or ');
    const flag = right === 'read' ? '--group' : '--admin-group';
    const other = members
      ? `as a member of group ${members} (log in again after you were added)`
      : `start overlayd with ${flag} and a group you are in`;
    throw new OverlayError(
      'EPERM',
      'not_permitted',
      `user ${uid} ${refusals[right]} (the right '${right}' is missing): run this as root, or ${other}`,
    );
  }
}

/** Node keeps a socket's descriptor to itself; this is where. Throws EPERM when the caller has hung up. */
function descriptorOf(socket: Socket): number {
  const { _handle: handle } = socket as unknown as { _handle: { fd: number } | null };
  if (handle) return handle.fd;
  throw new OverlayError('EPERM', 'not_permitted', 'nobody is there any more to have asked for it');
}
