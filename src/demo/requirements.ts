/** What the demo with namespaces needs of the system, and what exactly is missing. */
import { spawnSync } from 'node:child_process';
import { OverlayError } from '../errors.js';
import { O_CLOEXEC, O_RDWR } from '../sys/abi.js';
import { ENODEV, ENOENT, errnoName, errnoText, lastErrno } from '../sys/errno.js';
import { closeFd } from '../sys/fd.js';
import * as libc from '../sys/libc.js';
import { Netlink } from '../sys/netlink/index.js';
import { createNamespace, inNamespace } from '../sys/netns.js';
import { Tap } from '../sys/tap.js';
import { IcmpSocket } from './icmp-socket.js';
import { problemOf } from './problem.js';
import { DEMO } from './programs.js';

const TUN_NODE = '/dev/net/tun';
const PROBE_MS_MAX = 20_000;
/** What makes a command run as root in user and network namespaces of its own. */
export const UNSHARE = ['unshare', '-Urn', '--'] as const;

export type Way =
  /** Namespaces may be made as we are. */
  | { kind: 'plain' }
  /** Inside a user namespace of our own they may. */
  | { kind: 'nested' }
  /** They may not, or something else is missing. */
  | { kind: 'memory'; missing: readonly string[] };

/** Finds out by trying everything once; what it makes is gone at once. */
export function findWay(): Way {
  const missing: string[] = [];
  const tun = tunFault();
  if (tun) missing.push(tun);
  const here = probe(tun === undefined);
  if (here.mayMakeNamespaces) {
    missing.push(...here.missing);
    return missing.length > 0 ? { kind: 'memory', missing } : { kind: 'plain' };
  }
  missing.push(...probeNested());
  return missing.length > 0 ? { kind: 'memory', missing } : { kind: 'nested' };
}

interface Probe {
  readonly mayMakeNamespaces: boolean;
  readonly missing: readonly string[];
}

/** Makes a namespace with a veth pair, a TAP link and an ICMP socket in it. */
function probe(hasTun: boolean): Probe {
  let namespace: number;
  try {
    namespace = createNamespace();
  } catch (error) {
    if (error instanceof OverlayError && error.errno === 'EPERM')
      return { mayMakeNamespaces: false, missing: [] };
    return { mayMakeNamespaces: true, missing: [`network namespaces cannot be made: ${problemOf(error)}`] };
  }
  const missing: string[] = [];
  const attempt = (what: string, work: () => void) => {
    try {
      work();
    } catch (error) {
      missing.push(`${what}: ${problemOf(error)}`);
    }
  };
  try {
    inNamespace(namespace, () => {
      const netlink = new Netlink();
      try {
        attempt('veth links cannot be made (modprobe veth?)', () => netlink.createVeth('probe0', 'probe1'));
        if (hasTun) {
          attempt('TAP links cannot be made', () =>
            new Tap({ name: 'probe2', queues: 2, netlink }).release(),
          );
        }
        attempt('ICMP sockets cannot be opened', () => new IcmpSocket().close());
      } finally {
        netlink.close();
      }
    });
  } finally {
    closeFd(namespace);
  }
  return { mayMakeNamespaces: true, missing };
}

/** Likewise in a user namespace, by running the demo there with `--probe`. */
function probeNested(): string[] {
  const refused = run('true');
  if (refused.fault !== undefined) return [refused.fault];
  const answer = run(process.execPath, ...process.execArgv, DEMO, '--probe');
  if (answer.fault !== undefined) return [answer.fault];
  return answer.output.split('\n').filter((line) => line !== '');
}

/** Prints what is missing where the process runs, a line each. The other half of the nested probe. */
export function printMissing(): void {
  const { mayMakeNamespaces, missing } = probe(tunFault() === undefined);
  for (const line of missing) console.log(line);
  if (!mayMakeNamespaces) console.log('network namespaces may not be made in a user namespace');
}

function run(...command: readonly string[]): { output: string; fault?: string } {
  const [unshare, ...words] = [...UNSHARE, ...command];
  const result = spawnSync(unshare!, words, {
    encoding: 'utf8',
    timeout: PROBE_MS_MAX,
    killSignal: 'SIGKILL',
  });
  const { error, status, stdout, stderr } = result;
  if (error) {
    const isMissing = (error as NodeJS.ErrnoException).code === 'ENOENT';
    return {
      output: '',
      fault: isMissing ? 'the program unshare is missing: install util-linux' : `unshare: ${error.message}`,
    };
  }
  if (status === 0) return { output: stdout };
  const why = stderr.trim().split('\n')[0] || `exit code ${status}`;
  return {
    output: '',
    fault:
      `network namespaces need root, or user namespaces, and those are not allowed: ${why} ` +
      '(see the sysctls user.max_user_namespaces, kernel.unprivileged_userns_clone and ' +
      'kernel.apparmor_restrict_unprivileged_userns)',
  };
}

function tunFault(): string | undefined {
  const fd = libc.open(TUN_NODE, O_RDWR | O_CLOEXEC, 0);
  if (fd >= 0) {
    closeFd(fd);
    return undefined;
  }
  const errno = lastErrno();
  if (errno === ENOENT) return `${TUN_NODE} is missing: modprobe tun`;
  if (errno === ENODEV) return `${TUN_NODE} has no driver: modprobe tun`;
  return (
    `${TUN_NODE} may not be opened: ${errnoText(errno)} (${errnoName(errno)}); ` +
    `as root: chmod 666 ${TUN_NODE}, or run the demo as root`
  );
}
