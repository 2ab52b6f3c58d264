/**
 * Two hosts with an overlay between them, as one scene has it. What uses the overlay runs in the guests: the hosts
 * themselves, or a namespace of its own on each when the address is not on the overlay's link.
 *
 *   guest a ── [macvlan, or veth and bridge] ── overlay ── underlay ── overlay ── [...] ── guest b
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { allowedCpus, pinThread } from '../src/sys/affinity.js';
import { type Daemon, Host, Hosts, type Side, until } from '../test/harness/hosts.js';
import type { Scene } from './scene.js';

export const sides: readonly Side[] = ['a', 'b'];
/** Addresses of the guests. */
export const inner = { a: '10.99.0.1', b: '10.99.0.2' } as const;
export const other = (side: Side): Side => (side === 'a' ? 'b' : 'a');

const LINK_MS_MAX = 5000;
const PATH_MS_MAX = 15_000;
const PROGRAM_MS_MAX = 60_000;
const LOG_CHARACTERS = 1000;

/** Segmentation that a NIC without tunnel offload leaves to software, which does it just before the link. */
const withoutOffloads = [
  'tso',
  'tx-udp-segmentation',
  'tx-udp_tnl-segmentation',
  'tx-udp_tnl-csum-segmentation',
  'tx-gre-segmentation',
].flatMap((feature) => [feature, 'off']);

export interface Output {
  /** Exit code, or -1 when it was killed. */
  readonly status: number;
  readonly stdout: string;
  readonly stderr: string;
}

export class Testbed {
  readonly scene: Scene;
  readonly hosts = new Hosts();
  readonly guests: Readonly<Record<Side, Host>>;
  /** Of the peer: those whose CPU time and memory are counted. */
  readonly pids: number[] = [];
  #log = '';
  readonly #programs = new Set<ChildProcess>();
  readonly #cpus = allowedCpus();
  #closed: Promise<void> | undefined;

  constructor(scene: Scene) {
    this.scene = scene;
    const guest = (side: Side) => (scene.placement === 'tap' ? this.hosts[side] : new Host());
    this.guests = { a: guest('a'), b: guest('b') };
    for (const side of sides) {
      const { netlink } = this.hosts[side];
      netlink.setLink(netlink.getLink('underlay0').index, { mtu: scene.mtu });
    }
  }

  /** From now on the underlay gets packets of its MTU only, as a NIC without tunnel offload does. */
  cutToMtu(): void {
    for (const side of sides) {
      this.hosts[side].run('ethtool', '-K', 'underlay0', ...withoutOffloads, 'gro', 'on');
    }
  }

  /** What the peer's programs have printed in the end, from its own line on; '' when it is nothing. */
  get log(): string {
    return this.#log === '' ? '' : `\n${this.#log.trimEnd()}`;
  }

  /** CPU of a host when it has but one; -1: any. */
  cpu(side: Side): number {
    return this.scene.isOneCore ? this.#cpus[side === 'a' ? 0 : 1]! : -1;
  }

  /** Starts a program of the peer, and waits until `link` is there when it is to make one. */
  async start(side: Side, program: string, args: readonly string[], link?: string): Promise<void> {
    const child = this.#pinned(side, () => this.hosts[side].start(program, ...args));
    for (const stream of [child.stdout, child.stderr]) {
      stream?.setEncoding('utf8').on('data', (text: string) => this.#keep(text));
    }
    child.once('error', (error) => this.#keep(error.message));
    if (child.pid !== undefined) this.pids.push(child.pid);
    if (link === undefined) return;
    await until(`${program} makes ${link}`, LINK_MS_MAX, () => {
      if (child.pid === undefined || child.exitCode !== null) throw new Error(`${program} has left`);
      return this.hosts[side].netlink.listLinks().some(({ name }) => name === link);
    });
  }

  /** Starts our daemon as a program of the peer. @param main its main module, where it is not this build's */
  async daemon(side: Side, flags: readonly string[], main?: string): Promise<Daemon> {
    const daemon = await this.#pinned(side, () =>
      this.hosts.daemon(side, { flags, ...(main ? { main } : {}) }),
    );
    daemon.child.stderr?.on('data', (text: string) => this.#keep(text));
    if (daemon.child.pid !== undefined) this.pids.push(daemon.child.pid);
    return daemon;
  }

  /** Puts the guests' addresses where the scene has them, above the links of the peer. */
  place(links: Readonly<Record<Side, string>>, mtu: number): void {
    for (const side of sides) {
      const { netlink } = this.hosts[side];
      const { index } = netlink.getLink(links[side]);
      netlink.setLink(index, { mtu, up: true });
      this.#address(side, this.#guestLink(side, index, mtu));
    }
  }

  /** Waits until the guests reach each other. */
  async reach(): Promise<void> {
    await until('the guests reach each other', PATH_MS_MAX, async () => {
      const { status } = await this.run('a', 'ping', ['-q', '-c', '1', '-W', '0.3', inner.b]);
      return status === 0;
    });
  }

  /** Runs a program in a guest to its end. */
  run(side: Side, program: string, args: readonly string[]): Promise<Output> {
    return outputOf(this.#pinned(side, () => this.guests[side].start(program, ...args)));
  }

  /** Starts a program in a guest that is not part of the peer; who does so ends it. */
  serve(side: Side, program: string, args: readonly string[]): ChildProcess {
    const child = this.#pinned(side, () => this.guests[side].start(program, ...args));
    child.stdout?.resume();
    child.stderr?.resume();
    return child;
  }

  /** Runs a program in both guests: it gets their namespaces as descriptors 3 and 4. */
  async runAcross(program: string, args: readonly string[]): Promise<Output> {
    const { a, b } = this.guests;
    const child = spawn(program, args, { stdio: ['ignore', 'pipe', 'pipe', a.namespace, b.namespace] });
    this.#programs.add(child);
    try {
      return await outputOf(child);
    } finally {
      this.#programs.delete(child);
    }
  }

  /** Ends everything; what is being measured fails. */
  close(): Promise<void> {
    this.#closed ??= this.#close();
    return this.#closed;
  }

  async #close(): Promise<void> {
    for (const child of this.#programs) child.kill('SIGKILL');
    if (this.guests.a !== this.hosts.a) await Promise.all(sides.map((side) => this.guests[side].close()));
    await this.hosts.close();
  }

  #keep(text: string): void {
    this.#log = (this.#log + text).slice(-LOG_CHARACTERS);
  }

  /** Makes what is between the overlay's link and the address, and says which link has that. */
  #guestLink(side: Side, index: number, mtu: number): string {
    const { netlink } = this.hosts[side];
    const guest = this.guests[side];
    switch (this.scene.placement) {
      case 'tap':
        return netlink.getLink(index).name;
      case 'macvlan':
        netlink.createMacvlan('vnic0', index, { namespaceFd: guest.namespace });
        break;
      case 'bridge': {
        netlink.createBridge('bridge0');
        netlink.createVeth('port0', 'vnic0', { peerNamespaceFd: guest.namespace });
        const [bridge, port] = [netlink.getLink('bridge0').index, netlink.getLink('port0').index];
        for (const below of [index, port]) netlink.setLink(below, { master: bridge });
        netlink.setLink(port, { mtu, up: true });
        netlink.setLink(bridge, { up: true });
        break;
      }
    }
    guest.netlink.setLink(guest.netlink.getLink('vnic0').index, { mtu });
    return 'vnic0';
  }

  #address(side: Side, link: string): void {
    const { netlink } = this.guests[side];
    const { index } = netlink.getLink(link);
    const wanted = `${inner[side]}/24`;
    // Some peers put it there themselves.
    if (!netlink.listAddresses(index).some(({ address }) => address === wanted)) {
      netlink.addAddress(index, wanted, { noDad: true });
    }
    netlink.setLink(index, { up: true });
  }

  /** What is started inherits the CPUs of the thread that starts it. */
  #pinned<T>(side: Side, work: () => T): T {
    if (this.#closed !== undefined) throw new Error('the testbed is being taken down');
    if (!this.scene.isOneCore) return work();
    pinThread([this.cpu(side)]);
    try {
      return work();
    } finally {
      pinThread(this.#cpus);
    }
  }
}

function outputOf(child: ChildProcess): Promise<Output> {
  let stdout = '';
  let stderr = '';
  child.stdout?.setEncoding('utf8').on('data', (text: string) => {
    stdout += text;
  });
  child.stderr?.setEncoding('utf8').on('data', (text: string) => {
    stderr += text;
  });
  const timer = setTimeout(() => child.kill('SIGKILL'), PROGRAM_MS_MAX);
  return new Promise((resolve, reject) => {
    child.once('error', reject);
    child.once('close', (code) => {
      clearTimeout(timer);
      resolve({ status: code ?? -1, stdout, stderr });
    });
  });
}
