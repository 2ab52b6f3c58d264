/**
 * Network namespaces as links and underlays use them (the zones of illumos): the daemon's own, named '', and those of
 * /run/netns (man 8 ip-netns), held open for as long as somebody is in them.
 */
import { readdirSync, statSync } from 'node:fs';
import { assert, OverlayError } from '../errors.js';
import { closeFd } from '../sys/fd.js';
import { EventSocket, Netlink, RouteWatch } from '../sys/netlink/index.js';
import { currentNamespace, inNamespace, namespaceOfPath } from '../sys/netns.js';

const DIRECTORY = '/run/netns';
/** NAME_MAX (man 3 limits.h). */
const NAME_BYTES_MAX = 255;
/** Namespaces that are looked at in one go; each is a file of the directory. */
const NAMESPACES_MAX = 4096;

/** Why a text cannot be the name of a network namespace, or undefined when it can. */
export function namespaceNameFault(name: string): string | undefined {
  // A NUL would end the path early, at another name.
  const isPath = /[/\0]/.test(name) || name === '.' || name === '..';
  if (isPath || Buffer.byteLength(name) > NAME_BYTES_MAX) {
    return `it is the name of a network namespace in ${DIRECTORY}`;
  }
  return undefined;
}

export class Space {
  readonly netlink: Netlink;
  readonly events: EventSocket;
  readonly routes: RouteWatch;
  readonly #inode: number | undefined;
  users = 0;

  /** @param fd of the namespace, closed with it */
  constructor(
    readonly name: string,
    readonly fd: number,
  ) {
    this.#inode = name === '' ? undefined : inodeOf(name);
    const opened: { close(): void }[] = [];
    const open = <T extends { close(): void }>(socket: T): T => {
      opened.push(socket);
      return socket;
    };
    try {
      [this.netlink, this.events, this.routes] = this.run(
        () => [open(new Netlink()), open(new EventSocket()), open(new RouteWatch())] as const,
      );
    } catch (error) {
      for (const socket of opened) socket.close();
      throw error;
    }
  }

  /** Runs synchronous work with this thread in the namespace. */
  run<T>(work: () => T): T {
    return this.name === '' ? work() : inNamespace(this.fd, work);
  }

  /** False when the name does not lead to this namespace any more, even where others keep it alive. */
  get isThere(): boolean {
    return this.name === '' || inodeOf(this.name) === this.#inode;
  }

  close(): void {
    this.routes.close();
    this.events.close();
    this.netlink.close();
    closeFd(this.fd);
  }
}

export class Spaces {
  /** By name; one whose name leads elsewhere now is in `#left` until its last user goes. */
  readonly #spaces = new Map<string, Space>();
  readonly #left = new Set<Space>();

  get list(): readonly Space[] {
    return [...this.#spaces.values(), ...this.#left];
  }

  /** Throws ENOENT when there is no namespace of that name, EPERM without the right to enter it. */
  hold(name: string): Space {
    const known = this.#spaces.get(name);
    if (known?.isThere) {
      known.users++;
      return known;
    }
    if (known) {
      this.#spaces.delete(name);
      this.#left.add(known);
    }
    const fd = openNamespace(name);
    let space: Space;
    try {
      space = new Space(name, fd);
    } catch (error) {
      closeFd(fd);
      throw error;
    }
    space.users = 1;
    this.#spaces.set(name, space);
    return space;
  }

  /** The reverse of `hold`. */
  release(space: Space): void {
    assert(space.users > 0, `namespace '${space.name}' is released once too often`);
    space.users--;
    if (space.users > 0) return;
    if (this.#spaces.get(space.name) === space) this.#spaces.delete(space.name);
    this.#left.delete(space);
    space.close();
  }
}

/** Names in the directory, in order, at most NAMESPACES_MAX. Not each has to lead to a namespace. */
export function namespaceNames(): string[] {
  try {
    return readdirSync(DIRECTORY).sort().slice(0, NAMESPACES_MAX);
  } catch (error) {
    // Nobody has named one yet.
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return [];
    throw error;
  }
}

/** Descriptor of a namespace by its name, '' for the one this thread is in. Throws ENOENT. */
export function openNamespace(name: string): number {
  return name === '' ? currentNamespace() : openByName(name);
}

function openByName(name: string): number {
  try {
    return namespaceOfPath(`${DIRECTORY}/${name}`);
  } catch (error) {
    if (!(error instanceof OverlayError) || error.errno !== 'ENOENT') throw error;
    throw new OverlayError(
      'ENOENT',
      'no_such_netns',
      `there is no network namespace '${name}': create it with ip netns add ${name}`,
    );
  }
}

function inodeOf(name: string): number | undefined {
  return statSync(`${DIRECTORY}/${name}`, { throwIfNoEntry: false })?.ino;
}
