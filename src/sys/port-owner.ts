/** Who holds a UDP port, as far as /proc tells (man 5 proc_pid_net, proc_pid_fd): other users' descriptors need rights. */

import { readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { monotonicMs } from './clock.js';
import { Netlink } from './netlink/index.js';

/** Processes looked at: more than that is no host whose ports one person minds. */
const PROCESSES_MAX = 10_000;

/** Many devices may ask about one port at a time; what is said of it may be this old. */
const KNOWN_MS = 1000;
let known: { readonly port: number; readonly atMs: number; readonly owner: string | undefined } | undefined;

/** `dnsmasq, process 812`, or undefined when it cannot be known. In the network namespace of the calling thread. */
export function udpPortOwner(port: number): string | undefined {
  const now = monotonicMs();
  if (known?.port !== port || now - known.atMs > KNOWN_MS)
    known = { port, atMs: now, owner: findOwner(port) };
  return known.owner;
}

/** Kinds of links for which the kernel opens a UDP socket of its own (man 8 ip-link). */
const TUNNEL_KINDS: readonly string[] = ['vxlan', 'geneve', 'bareudp', 'gtp', 'amt'];
/** Tunnels that a message names. */
const TUNNELS_MAX = 4;

/** `vx0 of kind vxlan`: tunnels of the kernel in the namespace of the calling thread. */
export function kernelTunnels(): string[] {
  const netlink = new Netlink();
  try {
    const links = netlink.listLinks().filter(({ kind }) => kind !== undefined && TUNNEL_KINDS.includes(kind));
    return links.slice(0, TUNNELS_MAX).map(({ name, kind }) => `${name} of kind ${kind}`);
  } finally {
    netlink.close();
  }
}

function findOwner(port: number): string | undefined {
  const inodes = new Set(['udp', 'udp6'].flatMap((table) => inodesOf(table, port)));
  if (inodes.size === 0) return undefined;
  const pids = readdirSync('/proc').filter((name) => /^\d+$/.test(name));
  const pid = pids.slice(0, PROCESSES_MAX).find((each) => holds(each, inodes));
  if (pid === undefined) return undefined;
  return `${read(`/proc/${pid}/comm`).trim() || 'a program'}, process ${pid}`;
}

/** Inodes of the sockets that are bound to the port, of whatever address. */
function inodesOf(table: string, port: number): string[] {
  const suffix = `:${port.toString(16).toUpperCase().padStart(4, '0')}`;
  const rows = read(`/proc/thread-self/net/${table}`).split('\n').slice(1);
  return rows.flatMap((row) => {
    const fields = row.trim().split(/\s+/);
    const [local, inode] = [fields[1], fields[9]];
    return local?.endsWith(suffix) && inode !== undefined && inode !== '0' ? [inode] : [];
  });
}

function holds(pid: string, inodes: ReadonlySet<string>): boolean {
  let fds: string[];
  try {
    fds = readdirSync(`/proc/${pid}/fd`);
  } catch {
    // It has ended, or is not ours to look into.
    return false;
  }
  return fds.some((fd) => {
    const inode = /^socket:\[(\d+)\]$/.exec(linkOf(`/proc/${pid}/fd/${fd}`))?.[1];
    return inode !== undefined && inodes.has(inode);
  });
}

function linkOf(path: string): string {
  try {
    return readlinkSync(path);
  } catch {
    return '';
  }
}

function read(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return '';
  }
}
