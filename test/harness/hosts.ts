/**
 * Two hosts for end-to-end tests: network namespaces joined by a veth pair, with daemons and other programs in
 * them. Everything is taken down by `close`, whatever happened.
 *
 *   a ── underlay0 192.0.2.1, 2001:db8::1 ═══ underlay0 192.0.2.2, 2001:db8::2 ── b
 */
import { type ChildProcess, execFileSync, spawn, spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { ControlClient } from '../../src/control/client.js';
import type { StatsView } from '../../src/control/view.js';
import { closeFd } from '../../src/sys/fd.js';
import { type LinkStats, Netlink } from '../../src/sys/netlink/index.js';
import { createNamespace, inNamespace } from '../../src/sys/netns.js';

const DAEMON = join(import.meta.dirname, '../../src/daemon/main.js');
const READY_MS_MAX = 10_000;
const STOP_MS_MAX = 5000;

export type Side = 'a' | 'b';

export const underlay = {
  4: { a: '192.0.2.1', b: '192.0.2.2' },
  6: { a: '2001:db8::1', b: '2001:db8::2' },
} as const;

/** Polls until `condition` holds; fails with `what` after `ms`. */
export async function until(
  what: string,
  ms: number,
  condition: () => boolean | Promise<boolean>,
): Promise<void> {
  const deadline = performance.now() + ms;
  while (!(await condition())) {
    if (performance.now() > deadline) throw new Error(`waited ${ms} ms in vain: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

/** A namespace with its request socket and what runs in it. */
export class Host {
  readonly namespace = createNamespace();
  readonly netlink = inNamespace(this.namespace, () => new Netlink());
  readonly #children: ChildProcess[] = [];

  /** Runs a program to its end in the host; throws when it fails. */
  run(program: string, ...args: string[]): string {
    return inNamespace(this.namespace, () =>
      execFileSync(program, args, { encoding: 'utf8', timeout: 60_000 }),
    );
  }

  /** Likewise, but a failure is an answer: exit code and output. */
  attempt(program: string, ...args: string[]): { status: number; output: string } {
    const result = inNamespace(this.namespace, () =>
      spawnSync(program, args, { encoding: 'utf8', timeout: 60_000 }),
    );
    return { status: result.status ?? -1, output: `${result.stdout}${result.stderr}` };
  }

  /** Runs several at a time without waiting in between. */
  start(program: string, ...args: string[]): ChildProcess {
    const child = inNamespace(this.namespace, () =>
      spawn(program, args, { stdio: ['ignore', 'pipe', 'pipe'] }),
    );
    this.#children.push(child);
    return child;
  }

  /** Exit code of a program that `start` would start. */
  finish(program: string, ...args: string[]): Promise<number> {
    const child = this.start(program, ...args);
    child.stdout?.resume();
    child.stderr?.resume();
    return new Promise((resolve) => {
      child.once('exit', (code) => {
        this.#children.splice(this.#children.indexOf(child), 1);
        resolve(code ?? -1);
      });
    });
  }

  /** Sets one of the namespace, by its path below /proc/sys (man 8 sysctl). */
  setting(path: string, value: string): void {
    inNamespace(this.namespace, () => writeFileSync(`/proc/sys/${path}`, value));
  }

  linkStats(name: string): LinkStats {
    return this.netlink.getLink(name).stats;
  }

  /** UDP counters of the kernel: `Udp` of /proc/net/snmp for 4, `Udp6` of /proc/net/snmp6 for 6. */
  udp(family: 4 | 6): { in: number; out: number } {
    return inNamespace(this.namespace, () => {
      if (family === 6) {
        const text = readFileSync('/proc/thread-self/net/snmp6', 'utf8');
        const read = (name: string) =>
          Number(new RegExp(`^${name}\\s+(\\d+)`, 'm').exec(text)?.[1] ?? Number.NaN);
        return { in: read('Udp6InDatagrams'), out: read('Udp6OutDatagrams') };
      }
      const text = readFileSync('/proc/thread-self/net/snmp', 'utf8');
      const [names = '', values = ''] = text.split('\n').filter((line) => line.startsWith('Udp:'));
      const read = (name: string) => Number(values.split(' ')[names.split(' ').indexOf(name)]);
      return { in: read('InDatagrams'), out: read('OutDatagrams') };
    });
  }

  async close(): Promise<void> {
    await Promise.all(this.#children.map(end));
    this.netlink.close();
    closeFd(this.namespace);
  }
}

async function end(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const exited = new Promise((resolve) => child.once('exit', resolve));
  child.kill('SIGTERM');
  const timer = setTimeout(() => child.kill('SIGKILL'), STOP_MS_MAX);
  await exited;
  clearTimeout(timer);
}

interface StartOptions {
  flags?: readonly string[];
  nodeFlags?: readonly string[];
  /** A program that starts the daemon, with its arguments. */
  under?: readonly string[];
  /** Main module of the daemon, where it is not this build's. */
  main?: string;
}

/** A daemon in a host. */
export class Daemon {
  readonly client: ControlClient;
  readonly socket: string;
  log = '';

  private constructor(
    readonly child: ChildProcess,
    directory: string,
  ) {
    this.socket = join(directory, 'socket');
    this.client = new ControlClient(this.socket);
    child.stderr?.setEncoding('utf8').on('data', (text: string) => {
      this.log += text;
    });
  }

  /** Starts it and waits until it answers. */
  static async start(host: Host, directory: string, options: StartOptions = {}): Promise<Daemon> {
    const { flags = [], nodeFlags = [], under = [], main = DAEMON } = options;
    const common = ['--socket', join(directory, 'socket'), '--state-dir', join(directory, 'state')];
    const node = ['--enable-source-maps', ...nodeFlags];
    const [program, ...words] = [...under, process.execPath, ...node, main, ...common, ...flags];
    const child = host.start(program!, ...words);
    const daemon = new Daemon(child, directory);
    await until('the daemon answers', READY_MS_MAX, async () => {
      if (child.exitCode !== null) throw new Error(`the daemon left: ${daemon.log}`);
      return daemon.client.get('/v1/overlays').then(
        () => true,
        () => false,
      );
    });
    return daemon;
  }

  /** Creates and starts a point-to-point overlay. */
  async createOverlay(
    host: Host,
    name: string,
    vnetid: number,
    ip: string,
    peer: string,
    encap: 'vxlan' | 'nvgre' = 'vxlan',
  ): Promise<void> {
    const port = encap === 'nvgre' ? {} : { 'direct/dest_port': 4789 };
    const properties = { [`${encap}/listen_ip`]: ip, 'direct/dest_ip': peer, ...port };
    await this.client.post('/v1/overlays', { name, encap, search: 'direct', vnetid, properties });
    host.netlink.setLink(host.netlink.getLink(name).index, { up: true });
    await until(`${name} is started`, 5000, async () => (await this.state(name)) === 'started');
  }

  async state(name: string): Promise<string> {
    const answer = await this.client.get<{ overlays: Record<string, { state: string }> }>(
      `/v1/overlays/${name}`,
    );
    return answer.overlays[name]!.state;
  }

  stats(): Promise<StatsView> {
    return this.client.get('/v1/stats');
  }

  stop(): Promise<void> {
    return end(this.child);
  }
}

export class Hosts {
  readonly a = new Host();
  readonly b = new Host();
  readonly directory = mkdtempSync(join(tmpdir(), 'overlayd-test-'));

  constructor() {
    this.a.netlink.createVeth('underlay0', 'underlay0', { peerNamespaceFd: this.b.namespace });
    for (const side of ['a', 'b'] as const) {
      const { netlink } = this[side];
      netlink.setLink(netlink.getLink('lo').index, { up: true });
      const { index } = netlink.getLink('underlay0');
      netlink.setLink(index, { addrGenModeNone: true });
      netlink.setLink(index, { up: true });
      netlink.addAddress(index, `${underlay[4][side]}/24`);
      netlink.addAddress(index, `${underlay[6][side]}/64`, { noDad: true });
    }
  }

  /** Puts an address on a link and takes it up. */
  address(side: Side, link: string, ...addresses: string[]): void {
    const { netlink } = this[side];
    const { index } = netlink.getLink(link);
    for (const address of addresses) netlink.addAddress(index, address, { noDad: true });
    netlink.setLink(index, { up: true });
  }

  /** Starts a daemon on a side; `name` tells several on one side apart. */
  daemon(side: Side, options: StartOptions & { name?: string } = {}): Promise<Daemon> {
    const directory = mkdtempSync(join(this.directory, `${side}-${options.name ?? 'daemon'}-`));
    return Daemon.start(this[side], directory, options);
  }

  async close(): Promise<void> {
    await this.a.close();
    await this.b.close();
    rmSync(this.directory, { recursive: true, force: true });
  }
}
